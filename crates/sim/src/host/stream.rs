//! Bulk transfer over the bond's own streams: what a connection that ends at the bond gives and
//! takes. The connections between the bond and the programs are taken for free.

use std::collections::BTreeMap;

use bonding_proto::position::StreamId;
use bonding_proto::streams::{StreamEvent, StreamTarget};
use bonding_proto::wire::stream::StreamForm;
use bonding_proto::{Instant, StreamHost};
use bytes::Bytes;

use super::bulk::{BulkConfig, End, StreamSink, StreamSource};
use super::{App, Report};
use crate::inet::FlowKey;

/// Where the streams go: the port tells the flow.
const PORT: u16 = 20_000;

/// One stream at one end.
#[derive(Debug)]
struct Flow {
    source: StreamSource,
    sink: StreamSink,
}

/// See the module.
#[derive(Debug)]
pub struct StreamApp {
    config: BulkConfig,
    start: Instant,
    /// Streams that were asked for or accepted.
    flows: BTreeMap<(u16, StreamId), Flow>,
    connected: usize,
    finished: usize,
    broken: u64,
    /// Bytes of each stream; `None`: without end.
    size: Option<u64>,
}

impl StreamApp {
    /// An end of the transfer that begins at `start`.
    pub fn new(config: BulkConfig, start: Instant) -> Self {
        Self { config, start, flows: BTreeMap::new(), connected: 0, finished: 0, broken: 0, size: None }
    }

    /// Each stream has so many bytes.
    pub fn with_size(self, bytes: u64) -> Self {
        Self { size: Some(bytes), ..self }
    }

    fn opens(&self) -> bool {
        self.config.end == End::Connector && self.flows.len() < usize::from(self.config.flows)
    }

    fn add(&mut self, session: u16, id: StreamId, flow: u16) {
        let (seed, flow) = (self.config.seed, u64::from(flow));
        let flow = Flow { source: StreamSource::new(seed, flow), sink: StreamSink::new(seed, flow) };
        self.flows.insert((session, id), flow);
    }

    fn write(&mut self, (session, id): (u16, StreamId), streams: &mut dyn StreamHost, now: Instant) {
        let Some(flow) = self.flows.get_mut(&(session, id)).filter(|_| self.config.sends) else { return };
        let Some(streams) = streams.streams_mut(session, now) else { return };
        loop {
            let left = self.size.map_or(u64::MAX, |size| size - flow.source.offset());
            if left == 0 {
                return streams.finish(id);
            }
            let room = streams.room(id).min(64 << 10).min(usize::try_from(left).unwrap_or(usize::MAX));
            if room == 0 {
                return;
            }
            let mut bytes = vec![0; room];
            flow.source.fill(&mut bytes);
            streams.write(id, bytes.into());
        }
    }

    fn read(&mut self, (session, id): (u16, StreamId), streams: &mut dyn StreamHost, now: Instant) {
        let Some(flow) = self.flows.get_mut(&(session, id)) else { return };
        let Some(streams) = streams.streams_mut(session, now) else { return };
        let ready: Vec<Bytes> = streams.ready(id).cloned().collect();
        ready.iter().for_each(|bytes| flow.sink.take(bytes));
        streams.consume(id, ready.iter().map(Bytes::len).sum(), now);
        if streams.has_ended(id) && !self.config.sends {
            streams.finish(id);
        }
    }
}

impl App for StreamApp {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn accepts(&self, _flow: &FlowKey) -> bool {
        false
    }

    fn handle_packet(&mut self, _packet: &[u8], _now: Instant) {}

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        None
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.opens().then_some((self.start, "stream"))
    }

    fn handle_streams(&mut self, streams: &mut dyn StreamHost, now: Instant) -> bool {
        let mut any = false;
        while self.opens() && now >= self.start {
            let Some(session) = streams.stream_session() else {
                self.start = now + std::time::Duration::from_millis(10);
                break;
            };
            let flow = u16::try_from(self.flows.len()).unwrap_or(u16::MAX);
            let target = StreamTarget { to: (End::Listener.address(), PORT + flow).into(), dscp: 0 };
            let opened = streams
                .streams_mut(session, now)
                .and_then(|streams| streams.open(target, StreamForm::Plain, now));
            let Some(id) = opened else { break };
            self.add(session, id, flow);
            any = true;
        }
        while let Some((session, event)) = streams.poll_stream_event() {
            any = true;
            match event {
                StreamEvent::Asked(id, target) => {
                    if let Some(streams) = streams.streams_mut(session, now) {
                        streams.accept(id, StreamForm::Plain);
                    }
                    self.add(session, id, target.to.port().wrapping_sub(PORT));
                    self.connected += 1;
                    self.write((session, id), streams, now);
                }
                StreamEvent::Opened(id) => {
                    self.connected += 1;
                    self.write((session, id), streams, now);
                }
                StreamEvent::Readable(id) => self.read((session, id), streams, now),
                StreamEvent::Writable(id) => self.write((session, id), streams, now),
                StreamEvent::Finished(_) => self.finished += 1,
                StreamEvent::Refused(..) | StreamEvent::Reset(_) => self.broken += 1,
            }
        }
        any
    }

    fn report(&self) -> Report {
        let bytes = || self.flows.values().map(|flow| flow.sink.bytes());
        Report {
            received_bytes: bytes().sum(),
            flow_bytes: bytes().collect(),
            connected: self.connected,
            finished: self.finished,
            corrupt: self.flows.values().map(|flow| flow.sink.corrupt()).sum::<u64>() + self.broken,
            ..Report::default()
        }
    }
}
