//! Inner TCP: smoltcp, one bulk transfer of one or more connections.
//!
//! Pessimistic on purpose. smoltcp's sender has no selective acknowledgement and leaves fast
//! recovery at the first new acknowledgement, so several losses in one window cost several round
//! trips or a timeout. A bond that serves it well serves Linux better. It repeats bit for bit. Each
//! arriving packet is processed and answered separately, as by a kernel without receive offload.

use std::collections::VecDeque;

use bonding_proto::Instant;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber};

use super::bulk::{BulkConfig, End, StreamSink, StreamSource};
use super::{App, Report};
use crate::inet::FlowKey;

pub use smoltcp::socket::tcp::CongestionControl;

/// First port of the listening side; flow *i* uses this plus *i* (iperf3's).
const LISTEN_PORT: u16 = 5201;
/// First port of the connecting side.
const CONNECT_PORT: u16 = 40_000;
/// Send and receive buffer of one connection: 300 Mbit/s at 200 ms need 7.5 MB.
const WINDOW_BYTES: usize = 8 << 20;
/// smoltcp may name a past time although it has nothing to do; this is the delay until the next
/// try.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(1);

/// Packets between smoltcp and the bond.
#[derive(Debug)]
struct Wire {
    mtu: u16,
    received: Option<Vec<u8>>,
    to_send: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

#[derive(Debug)]
struct ToSend<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _now: TcpInstant) -> Option<(Received, ToSend<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), ToSend(&mut self.to_send)))
    }

    fn transmit(&mut self, _now: TcpInstant) -> Option<ToSend<'_>> {
        Some(ToSend(&mut self.to_send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities
    }
}

/// One connection of the transfer.
#[derive(Debug)]
struct Flow {
    handle: SocketHandle,
    source: Option<StreamSource>,
    sink: StreamSink,
    /// End of the furthest segment sent: any segment before it is a retransmission.
    sent_to: Option<TcpSeqNumber>,
    local_port: u16,
}

/// A host's TCP with one bulk transfer.
pub struct TcpApp {
    config: BulkConfig,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    flows: Vec<Flow>,
    retransmits: u64,
    next_poll: Option<Instant>,
}

impl std::fmt::Debug for TcpApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpApp").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TcpApp {
    /// One end of a transfer that starts at `start`.
    ///
    /// # Panics
    /// If smoltcp refuses the fixed addresses and ports.
    pub fn new(config: BulkConfig, control: CongestionControl, start: Instant) -> Self {
        let mut wire = Wire { mtu: config.mtu, received: None, to_send: VecDeque::new() };
        let mut options = Config::new(HardwareAddress::Ip);
        options.random_seed = config.seed;
        let mut interface = Interface::new(options, &mut wire, tcp_time(start));
        interface.update_ip_addrs(|addresses| {
            // A prefix of length 0: every address is a neighbour, and no route is needed.
            let pushed = addresses.push(IpCidr::new(config.end.address().into(), 0));
            assert!(pushed.is_ok(), "smoltcp holds at least one address");
        });
        let mut app = Self {
            config,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            flows: Vec::new(),
            retransmits: 0,
            next_poll: Some(start),
        };
        for flow in 0..config.flows {
            app.open(flow, control);
        }
        app
    }

    #[expect(clippy::expect_used, reason = "fixed addresses and ports, each used once")]
    fn open(&mut self, flow: u16, control: CongestionControl) {
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW_BYTES]);
        // A side needs a large buffer in its own direction only.
        let small = || tcp::SocketBuffer::new(vec![0; 4_096]);
        let mut socket = if self.config.sends {
            tcp::Socket::new(small(), buffer())
        } else {
            tcp::Socket::new(buffer(), small())
        };
        socket.set_congestion_control(control);
        socket.set_nagle_enabled(false);
        let listen_port = LISTEN_PORT + flow;
        let local_port = match self.config.end {
            End::Listener => {
                socket.listen(listen_port).expect("a fresh socket listens");
                listen_port
            }
            End::Connector => {
                let remote = (self.config.end.peer().address(), listen_port);
                socket
                    .connect(self.interface.context(), remote, CONNECT_PORT + flow)
                    .expect("a fresh socket connects");
                CONNECT_PORT + flow
            }
        };
        let name = u64::from(flow);
        self.flows.push(Flow {
            handle: self.sockets.add(socket),
            source: self.config.sends.then(|| StreamSource::new(self.config.seed, name)),
            sink: StreamSink::new(self.config.seed, name),
            sent_to: None,
            local_port,
        });
    }

    /// Moves payload between the flows and their sockets.
    fn pump(&mut self) {
        for flow in &mut self.flows {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(flow.handle);
            if let Some(source) = &mut flow.source {
                while socket.can_send() {
                    let copied = socket.send(|room| {
                        source.fill(room);
                        (room.len(), room.len())
                    });
                    if !matches!(copied, Ok(count) if count > 0) {
                        break;
                    }
                }
            }
            while socket.can_recv() {
                let sink = &mut flow.sink;
                let read = socket.recv(|data| {
                    sink.take(data);
                    (data.len(), data.len())
                });
                if !matches!(read, Ok(count) if count > 0) {
                    break;
                }
            }
        }
    }

    fn run(&mut self, now: Instant) {
        let time = tcp_time(now);
        self.interface.poll_maintenance(time);
        while self.interface.poll_ingress_single(time, &mut self.wire, &mut self.sockets)
            != PollIngressSingleResult::None
        {}
        loop {
            self.pump();
            let result = self.interface.poll_egress(time, &mut self.wire, &mut self.sockets);
            if result == PollResult::None {
                break;
            }
        }
        self.next_poll =
            self.interface.poll_at(time, &self.sockets).map(|due| bond_time(due).max(now + RETRY_AFTER));
    }

    fn note_sent(&mut self, packet: &[u8]) {
        let Ok(ip) = Ipv4Packet::new_checked(packet) else { return };
        let Ok(segment) = TcpPacket::new_checked(ip.payload()) else { return };
        let length = segment.payload().len();
        if length == 0 {
            return;
        }
        let port = segment.src_port();
        let Some(flow) = self.flows.iter_mut().find(|flow| flow.local_port == port) else {
            return;
        };
        let end = segment.seq_number() + length;
        if flow.sent_to.is_some_and(|sent_to| end <= sent_to) {
            self.retransmits += 1;
        } else {
            flow.sent_to = Some(end);
        }
    }
}

impl App for TcpApp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn accepts(&self, flow: &FlowKey) -> bool {
        flow.protocol == u8::from(IpProtocol::Tcp) && flow.destination == self.config.end.address()
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.wire.received = Some(packet.to_vec());
        self.run(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    fn poll_packet(&mut self, _now: Instant) -> Option<Vec<u8>> {
        let packet = self.wire.to_send.pop_front()?;
        self.note_sent(&packet);
        Some(packet)
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.next_poll.map(|due| (due, "tcp"))
    }

    fn report(&self) -> Report {
        let flow_bytes: Vec<u64> = self.flows.iter().map(|flow| flow.sink.bytes()).collect();
        Report {
            received_bytes: flow_bytes.iter().sum(),
            flow_bytes,
            connected: self
                .flows
                .iter()
                .filter(|flow| self.sockets.get::<tcp::Socket<'_>>(flow.handle).may_send())
                .count(),
            corrupt: self.flows.iter().map(|flow| flow.sink.corrupt()).sum(),
            retransmits: self.config.sends.then_some(self.retransmits),
            ..Report::default()
        }
    }
}

/// smoltcp counts microseconds; rounding down never makes a timer late by more than one.
fn tcp_time(now: Instant) -> TcpInstant {
    TcpInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

fn bond_time(due: TcpInstant) -> Instant {
    let micros = u64::try_from(due.total_micros()).unwrap_or(0);
    Instant::from_nanos(micros.saturating_mul(1_000))
}
