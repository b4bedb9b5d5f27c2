//! A sparse flow: small UDP datagrams at a steady rate, echoed, each with its own delay, like a
//! game or a call.

use std::collections::VecDeque;
use std::time::Duration;

use bonding_proto::Instant;

use super::{App, Report};
use crate::inet::{self, FlowKey, UdpEnd};
use crate::pattern::Pattern;

/// The echo service (RFC 862).
const ECHO_PORT: u16 = 7;
const CLIENT_PORT: u16 = 30_007;
/// Sequence number and sending time.
const STAMP_BYTES: usize = 16;
/// Bytes of UDP payload: IP packets of 100 bytes.
const PAYLOAD_BYTES: usize = 72;

/// Sends, and measures the echoes.
#[derive(Debug)]
pub struct EchoClient {
    interval: Duration,
    next: Instant,
    stop: Instant,
    pattern: Pattern,
    to_send: VecDeque<Vec<u8>>,
    answered: Vec<bool>,
    newest: Option<usize>,
    report: Report,
}

impl EchoClient {
    /// Sends every `interval` from `start` until before `stop`.
    pub fn new(interval: Duration, start: Instant, stop: Instant, seed: u64) -> Self {
        Self {
            interval,
            next: start,
            stop,
            pattern: Pattern::new(seed, 0xec40),
            to_send: VecDeque::new(),
            answered: Vec::new(),
            newest: None,
            report: Report::default(),
        }
    }
}

impl App for EchoClient {
    fn name(&self) -> &'static str {
        "echo client"
    }

    fn accepts(&self, flow: &FlowKey) -> bool {
        flow.protocol == 17 && flow.source_port == ECHO_PORT && flow.destination_port == CLIENT_PORT
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let parsed = inet::parse_udp(packet).and_then(|view| {
            let (sequence, rest) = view.payload.split_first_chunk::<8>()?;
            let (sent, rest) = rest.split_first_chunk::<8>()?;
            let sequence = u64::from_be_bytes(*sequence);
            let whole = view.payload.len() == PAYLOAD_BYTES && self.pattern.matches(sequence, rest);
            let place = usize::try_from(sequence).ok().filter(|place| *place < self.answered.len());
            Some((place.filter(|_| whole)?, Instant::from_nanos(u64::from_be_bytes(*sent))))
        });
        let Some((place, sent)) = parsed else {
            self.report.corrupt += 1;
            return;
        };
        let seen = self.answered.get_mut(place).is_some_and(|slot| std::mem::replace(slot, true));
        if seen {
            self.report.duplicates += 1;
            return;
        }
        if self.newest.is_some_and(|newest| place < newest) {
            self.report.reordered += 1;
        }
        self.newest = self.newest.max(Some(place));
        self.report.received += 1;
        self.report.received_bytes += PAYLOAD_BYTES as u64;
        self.report.delays.push((sent, now - sent));
    }

    fn handle_timeout(&mut self, now: Instant) {
        while self.next <= now && self.next < self.stop {
            let sequence = self.answered.len() as u64;
            let mut payload = vec![0; PAYLOAD_BYTES];
            if let Some((stamp, rest)) = payload.split_at_mut_checked(STAMP_BYTES) {
                let (number, time) = stamp.split_at_mut(8);
                number.copy_from_slice(&sequence.to_be_bytes());
                time.copy_from_slice(&now.as_nanos().to_be_bytes());
                self.pattern.fill(sequence, rest);
            }
            self.answered.push(false);
            self.report.sent += 1;
            let from = UdpEnd::new(inet::CLIENT, CLIENT_PORT);
            let to = UdpEnd::new(inet::SERVER, ECHO_PORT);
            self.to_send.push_back(inet::udp_packet(from, to, 0, &payload));
            self.next = self.next + self.interval;
        }
    }

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        self.to_send.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        (self.next < self.stop).then_some((self.next, "echo"))
    }

    fn report(&self) -> Report {
        Report { connected: usize::from(self.report.received > 0), ..self.report.clone() }
    }
}

/// Sends every datagram back.
#[derive(Debug, Default)]
pub struct EchoServer {
    to_send: VecDeque<Vec<u8>>,
    report: Report,
}

impl EchoServer {
    /// An echo without state.
    pub fn new() -> Self {
        Self::default()
    }
}

impl App for EchoServer {
    fn name(&self) -> &'static str {
        "echo server"
    }

    fn accepts(&self, flow: &FlowKey) -> bool {
        flow.protocol == 17 && flow.destination_port == ECHO_PORT
    }

    fn handle_packet(&mut self, packet: &[u8], _now: Instant) {
        match inet::parse_udp(packet) {
            Some(view) => {
                self.report.received += 1;
                self.to_send.push_back(inet::udp_packet(view.to, view.from, 0, view.payload));
            }
            None => self.report.corrupt += 1,
        }
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        self.to_send.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    fn report(&self) -> Report {
        self.report.clone()
    }
}
