//! Inner QUIC: quinn-proto over UDP, one bulk transfer of one or more connections.
//!
//! A modern transport: packet numbers, selective acknowledgement, pacing, ECN, cubic or BBR.
//! quinn-proto needs the standard library's opaque `Instant`: one is read once as the epoch and
//! only spans are added to it, so a run does not depend on the clock. BBR and the order of quinn's
//! maps draw from the system's random numbers: compare figures, not trace hashes.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bonding_proto::Instant;
use bonding_quicperf::NoSecrets;
use bytes::BytesMut;
use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent, Dir,
    EcnCodepoint, Endpoint, EndpointConfig, Event, ReadError, ServerConfig, StreamEvent, StreamId, Transmit,
    TransportConfig, VarInt, WriteError,
};

use super::bulk::{BulkConfig, End, StreamSink, StreamSource};
use super::{App, Report};
use crate::inet::{self, FlowKey, UdpEnd};
use crate::rng::Rng;

const SERVER_PORT: u16 = 4_433;
const CLIENT_PORT: u16 = 30_443;
/// Datagrams that one call may produce, as with UDP segmentation offload.
const SEGMENTS_MAX: usize = 10;
/// Flow control and send buffer of one connection; see [`super::tcp`].
const WINDOW_BYTES: u32 = 16 << 20;
const CID_BYTES: usize = 8;

/// QUIC's congestion controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuicControl {
    /// RFC 9438.
    Cubic,
    /// BBR as quinn has it (version 1).
    Bbr,
}

/// Connection identifiers from a seed.
struct SeededIds(Rng);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.next_u64().to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// One connection of the transfer.
struct Flow {
    handle: ConnectionHandle,
    connection: Connection,
    established: bool,
    stream: Option<StreamId>,
    /// Known to the receiver from the stream's first eight bytes.
    sink: Option<StreamSink>,
    source: Option<StreamSource>,
    /// Sender: the bytes of the stream's name still to be written. Receiver: the bytes read.
    name: Vec<u8>,
    seed: u64,
}

/// A host's QUIC with one bulk transfer.
pub struct QuicApp {
    config: BulkConfig,
    endpoint: Endpoint,
    epoch: std::time::Instant,
    flows: Vec<Flow>,
    to_send: VecDeque<Vec<u8>>,
    server_config: Arc<ServerConfig>,
    corrupt: u64,
    next: Option<Instant>,
}

impl std::fmt::Debug for QuicApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicApp").field("config", &self.config).finish_non_exhaustive()
    }
}

fn transport(mtu: u16, control: QuicControl) -> TransportConfig {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match control {
        QuicControl::Cubic => Arc::new(CubicConfig::default()),
        QuicControl::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(mtu - 28)
        .mtu_discovery_config(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .congestion_controller_factory(factory);
    transport
}

impl QuicApp {
    /// One end of a transfer that starts at `start`.
    pub fn new(config: BulkConfig, control: QuicControl, start: Instant) -> Self {
        let side = match config.end {
            End::Connector => 1,
            End::Listener => 2,
        };
        let mut rng = Rng::new(config.seed ^ side);
        let mut random_seed = [0; 32];
        rng.fill(&mut random_seed);
        let cid_seed = rng.next_u64();
        let mut options = EndpointConfig::new(Arc::new(NoSecrets));
        options.rng_seed(Some(random_seed)).cid_generator(move || Box::new(SeededIds(Rng::new(cid_seed))));
        let transport = Arc::new(transport(config.mtu, control));
        let mut server_config = ServerConfig::new(Arc::new(NoSecrets), Arc::new(NoSecrets));
        server_config.transport_config(Arc::clone(&transport));
        let server_config = Arc::new(server_config);
        let served = (config.end == End::Listener).then(|| Arc::clone(&server_config));
        let mut app = Self {
            config,
            endpoint: Endpoint::new(Arc::new(options), served, false, None),
            epoch: std::time::Instant::now(),
            flows: Vec::new(),
            to_send: VecDeque::new(),
            server_config,
            corrupt: 0,
            next: None,
        };
        if config.end == End::Connector {
            for flow in 0..config.flows {
                app.connect(&transport, rng.next_u64() ^ u64::from(flow), start);
            }
            app.next = Some(start);
        }
        app
    }

    #[expect(clippy::expect_used, reason = "the first connections of a fresh endpoint with fixed parameters")]
    fn connect(&mut self, transport: &Arc<TransportConfig>, cid: u64, start: Instant) {
        let mut client = ClientConfig::new(Arc::new(NoSecrets));
        client
            .transport_config(Arc::clone(transport))
            .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&cid.to_be_bytes())));
        let remote = SocketAddr::new(IpAddr::V4(inet::SERVER), SERVER_PORT);
        let (handle, connection) = self
            .endpoint
            .connect(self.quic_time(start), client, remote, "simulated")
            .expect("a fresh endpoint connects");
        self.add(handle, connection);
    }

    fn add(&mut self, handle: ConnectionHandle, connection: Connection) {
        // The name decides the payload; both ends learn it from the stream.
        let name = self.flows.len() as u64;
        self.flows.push(Flow {
            handle,
            connection,
            established: false,
            stream: None,
            sink: None,
            source: self.config.sends.then(|| StreamSource::new(self.config.seed, name)),
            name: if self.config.sends { name.to_be_bytes().to_vec() } else { Vec::new() },
            seed: self.config.seed,
        });
    }

    fn quic_time(&self, now: Instant) -> std::time::Instant {
        self.epoch + Duration::from_nanos(now.as_nanos())
    }

    fn bond_time(&self, due: std::time::Instant) -> Instant {
        Instant::ZERO + due.saturating_duration_since(self.epoch)
    }

    /// Cuts the bytes written to `buf` into IP packets.
    fn send(&mut self, transmit: &Transmit, buf: &[u8]) {
        let IpAddr::V4(address) = transmit.destination.ip() else { return };
        let (from, to) = match self.config.end {
            End::Connector => (CLIENT_PORT, transmit.destination.port()),
            End::Listener => (SERVER_PORT, transmit.destination.port()),
        };
        let from = UdpEnd::new(self.config.end.address(), from);
        let to = UdpEnd::new(address, to);
        let ecn = transmit.ecn.map_or(0, |mark| mark as u8);
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for datagram in buf.get(..transmit.size).unwrap_or(buf).chunks(segment) {
            self.to_send.push_back(inet::udp_packet(from, to, ecn, datagram));
        }
    }

    fn drain(&mut self, now: Instant) {
        let time = self.quic_time(now);
        let mut out = Vec::new();
        for place in 0..self.flows.len() {
            let Some(flow) = self.flows.get_mut(place) else { break };
            loop {
                while let Some(event) = flow.connection.poll_endpoint_events() {
                    if let Some(event) = self.endpoint.handle_event(flow.handle, event) {
                        flow.connection.handle_event(event);
                    }
                }
                self.corrupt += flow.act();
                let mut buf = Vec::new();
                match flow.connection.poll_transmit(time, SEGMENTS_MAX, &mut buf) {
                    Some(transmit) => out.push((transmit, buf)),
                    None => break,
                }
            }
        }
        for (transmit, buf) in out {
            self.send(&transmit, &buf);
        }
        let due = self.flows.iter_mut().filter_map(|flow| flow.connection.poll_timeout()).min();
        // quinn counts nanoseconds as the simulator does; its timers are due from their time on.
        self.next = due.map(|due| self.bond_time(due).max(now + Duration::from_nanos(1)));
    }
}

impl Flow {
    /// Handles events and moves payload; returns the number of reads that differ from the sent
    /// payload.
    fn act(&mut self) -> u64 {
        let mut readable = false;
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.established = true,
                Event::Stream(StreamEvent::Opened { .. }) => {
                    self.stream = self.connection.streams().accept(Dir::Uni).or(self.stream);
                    readable = true;
                }
                Event::Stream(StreamEvent::Readable { .. }) => readable = true,
                Event::Stream(_)
                | Event::HandshakeDataReady
                | Event::ConnectionLost { .. }
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        if self.source.is_some() {
            self.write();
        }
        if readable && self.source.is_none() { self.read() } else { 0 }
    }

    fn write(&mut self) {
        if self.established && self.stream.is_none() {
            self.stream = self.connection.streams().open(Dir::Uni);
        }
        let (Some(id), Some(source)) = (self.stream, &mut self.source) else { return };
        loop {
            let naming = !self.name.is_empty();
            let data = if naming { self.name.as_slice() } else { source.peek() };
            match self.connection.send_stream(id).write(data) {
                Ok(0) | Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::ClosedStream) => break,
                Ok(count) if naming => drop(self.name.drain(..count)),
                Ok(count) => source.advance(count),
            }
        }
    }

    fn read(&mut self) -> u64 {
        let Some(id) = self.stream else { return 0 };
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return 0 };
        let mut unnamed = 0;
        loop {
            let chunk = match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => chunk,
                Ok(None) | Err(ReadError::Blocked | ReadError::Reset(_)) => break,
            };
            let mut bytes = chunk.bytes;
            let missing = 8usize.saturating_sub(self.name.len()).min(bytes.len());
            self.name.extend_from_slice(&bytes.split_to(missing));
            if bytes.is_empty() {
                continue;
            }
            if self.sink.is_none() {
                let name = self.name.as_slice().try_into().map(u64::from_be_bytes);
                self.sink = name.ok().map(|name| StreamSink::new(self.seed, name));
            }
            match &mut self.sink {
                Some(sink) => sink.take(&bytes),
                None => unnamed += 1,
            }
        }
        // The caller polls for datagrams in any case.
        let _ = chunks.finalize();
        unnamed
    }
}

impl App for QuicApp {
    fn name(&self) -> &'static str {
        "quic"
    }

    fn accepts(&self, flow: &FlowKey) -> bool {
        let port = match self.config.end {
            End::Connector => CLIENT_PORT,
            End::Listener => SERVER_PORT,
        };
        flow.protocol == 17 && flow.destination == self.config.end.address() && flow.destination_port == port
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        let Some(view) = inet::parse_udp(packet) else {
            self.corrupt += 1;
            return;
        };
        let time = self.quic_time(now);
        let remote = SocketAddr::new(IpAddr::V4(view.from.address), view.from.port);
        let ecn = EcnCodepoint::from_bits(view.ecn);
        let mut buf = Vec::new();
        let event = self.endpoint.handle(time, remote, None, ecn, BytesMut::from(view.payload), &mut buf);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(flow) = self.flows.iter_mut().find(|flow| flow.handle == handle) {
                    flow.connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let served = Arc::clone(&self.server_config);
                match self.endpoint.accept(incoming, time, &mut buf, Some(served)) {
                    Ok((handle, connection)) => self.add(handle, connection),
                    Err(refused) => {
                        if let Some(transmit) = refused.response {
                            self.send(&transmit, &buf);
                        }
                    }
                }
            }
            Some(DatagramEvent::Response(transmit)) => self.send(&transmit, &buf),
            None => {}
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let time = self.quic_time(now);
        for flow in &mut self.flows {
            flow.connection.handle_timeout(time);
        }
        self.drain(now);
    }

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        self.to_send.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.next.map(|due| (due, "quic"))
    }

    fn report(&self) -> Report {
        let bytes = |flow: &Flow| flow.sink.as_ref().map_or(0, StreamSink::bytes);
        let flow_bytes: Vec<u64> = self.flows.iter().map(bytes).collect();
        let bad: u64 = self.flows.iter().filter_map(|flow| Some(flow.sink.as_ref()?.corrupt())).sum();
        let lost = self.flows.iter().map(|flow| flow.connection.stats().path.lost_packets).sum();
        Report {
            received_bytes: flow_bytes.iter().sum(),
            flow_bytes,
            connected: self.flows.iter().filter(|flow| flow.established).count(),
            corrupt: self.corrupt + bad,
            retransmits: self.config.sends.then_some(lost),
            ..Report::default()
        }
    }
}
