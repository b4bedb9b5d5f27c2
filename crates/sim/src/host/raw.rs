//! Constant-rate UDP that reacts to nothing: the load for oracles.
//!
//! Every datagram carries its flow, its number, its sending time and a pattern, so that the sink
//! recognises datagrams that were corrupted, duplicated, lost or reordered.

use std::net::Ipv4Addr;

use bonding_proto::Instant;
use bonding_proto::units::BitRate;

use super::{App, Report};
use crate::inet::{self, FlowKey, UdpEnd};
use crate::pattern::Pattern;

/// First port; flow *i* uses this plus *i* on both ends (the discard service is 9).
const PORT: u16 = 20_009;
/// Bytes of flow (2), number (8) and time (8).
const STAMP_BYTES: usize = 18;

/// A load: `flows` flows in turn, together at `rate`, in IP packets of `packet_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawConfig {
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
    /// Flows.
    pub flows: u16,
    /// All flows together, IP headers included.
    pub rate: BitRate,
    /// Bytes of an IP packet, at least 46.
    pub packet_bytes: u16,
    /// Time of the first packet.
    pub start: Instant,
    /// End of the load.
    pub stop: Instant,
    /// Seed of the payload.
    pub seed: u64,
}

fn patterns(config: &RawConfig) -> Vec<Pattern> {
    (0..config.flows).map(|flow| Pattern::new(config.seed, 0x0a00 + u64::from(flow))).collect()
}

/// The sender.
#[derive(Debug)]
pub struct RawSource {
    config: RawConfig,
    patterns: Vec<Pattern>,
    count: u64,
    ready: bool,
}

impl RawSource {
    /// A sender of `config`.
    pub fn new(config: RawConfig) -> Self {
        Self { patterns: patterns(&config), config, count: 0, ready: false }
    }

    fn next(&self) -> Instant {
        let bytes = self.count * u64::from(self.config.packet_bytes);
        self.config.start + self.config.rate.time_to_send(bytes)
    }
}

impl App for RawSource {
    fn name(&self) -> &'static str {
        "raw source"
    }

    fn accepts(&self, _flow: &FlowKey) -> bool {
        false
    }

    fn handle_packet(&mut self, _packet: &[u8], _now: Instant) {}

    fn handle_timeout(&mut self, _now: Instant) {
        self.ready = true;
    }

    fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        if !self.ready || self.next() > now || self.next() >= self.config.stop {
            self.ready = false;
            return None;
        }
        let flows = u64::from(self.config.flows.max(1));
        let flow = u16::try_from(self.count % flows).unwrap_or(0);
        let number = self.count / flows;
        let headers = inet::IPV4_HEADER + inet::UDP_HEADER;
        let size = usize::from(self.config.packet_bytes).saturating_sub(headers).max(STAMP_BYTES);
        let mut payload = Vec::with_capacity(size);
        payload.extend_from_slice(&flow.to_be_bytes());
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&now.as_nanos().to_be_bytes());
        payload.resize(size, 0);
        let rest = payload.get_mut(STAMP_BYTES..)?;
        self.patterns.get(usize::from(flow))?.fill(number, rest);
        self.count += 1;
        let from = UdpEnd::new(self.config.from, PORT + flow);
        let to = UdpEnd::new(self.config.to, PORT + flow);
        Some(inet::udp_packet(from, to, 0, &payload))
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let next = self.next();
        (next < self.config.stop).then_some((next, "raw"))
    }

    fn report(&self) -> Report {
        Report { sent: self.count, ..Report::default() }
    }
}

/// One flow at the receiver.
#[derive(Debug, Default)]
struct SinkFlow {
    seen: Vec<bool>,
    newest: Option<usize>,
    bytes: u64,
}

/// The receiver.
#[derive(Debug)]
pub struct RawSink {
    config: RawConfig,
    patterns: Vec<Pattern>,
    flows: Vec<SinkFlow>,
    report: Report,
}

/// More numbers than any run sends: a corrupt number must not allocate memory.
const NUMBERS_MAX: usize = 1 << 24;

impl RawSink {
    /// The receiver of `config`.
    pub fn new(config: RawConfig) -> Self {
        Self {
            patterns: patterns(&config),
            flows: (0..config.flows).map(|_| SinkFlow::default()).collect(),
            config,
            report: Report::default(),
        }
    }

    /// Flow, number and sending time of an intact datagram.
    fn read(&self, packet: &[u8]) -> Option<(usize, usize, Instant)> {
        let view = inet::parse_udp(packet)?;
        let (flow, rest) = view.payload.split_first_chunk::<2>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (sent, rest) = rest.split_first_chunk::<8>()?;
        let flow = usize::from(u16::from_be_bytes(*flow));
        let number = u64::from_be_bytes(*number);
        if !self.patterns.get(flow)?.matches(number, rest) {
            return None;
        }
        let place = usize::try_from(number).ok().filter(|place| *place < NUMBERS_MAX)?;
        Some((flow, place, Instant::from_nanos(u64::from_be_bytes(*sent))))
    }
}

impl App for RawSink {
    fn name(&self) -> &'static str {
        "raw sink"
    }

    fn accepts(&self, flow: &FlowKey) -> bool {
        let ports = PORT..PORT + self.config.flows;
        flow.protocol == 17 && flow.destination == self.config.to && ports.contains(&flow.destination_port)
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let intact = self.read(packet);
        let Some((flow, place, sent)) = intact else {
            self.report.corrupt += 1;
            return;
        };
        let Some(flow) = self.flows.get_mut(flow) else { return };
        if flow.seen.len() <= place {
            flow.seen.resize(place + 1, false);
        }
        if flow.seen.get_mut(place).is_some_and(|slot| std::mem::replace(slot, true)) {
            self.report.duplicates += 1;
            return;
        }
        if flow.newest.is_some_and(|newest| place < newest) {
            self.report.reordered += 1;
        }
        flow.newest = flow.newest.max(Some(place));
        flow.bytes += packet.len() as u64;
        self.report.received += 1;
        self.report.received_bytes += packet.len() as u64;
        self.report.delays.push((sent, now - sent));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        None
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn report(&self) -> Report {
        Report { flow_bytes: self.flows.iter().map(|flow| flow.bytes).collect(), ..self.report.clone() }
    }
}
