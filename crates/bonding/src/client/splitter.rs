//! The client's side of streams: TCP connections that leave through the tunnel end here, and their
//! bytes cross the bond.
//!
//! ```text
//! SYN out of TUN: held ─► the server is asked ─► opened: the SYN goes to the listener here
//!                                            └─► refused: the application is told the same
//! accepted socket ◄─► stream
//! ```
//! Contract: an application is told that it is connected once its destination has answered, and is
//! refused as the destination or the server refuses. Without a server that takes streams, and for
//! connections that are not to be split, all goes as packets.
//!
//! [`Hairpin`] rewrites the packets, [`Relay`] moves the bytes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bonding_os::coalesce::Outbound;
use bonding_os::hairpin::{Connection, Event, FlowKey, Hairpin, Redirect, Redirects, Refusal, Unreachable};
use bonding_os::netlink::Requests;
use bonding_os::poll::{Interest, Poller};
use bonding_os::tun::{Inbound, Tun, TunCounters};
use bonding_proto::config::Prefix;
use bonding_proto::qos::InnerHeader;
use bonding_proto::streams::{StreamEvent, StreamTarget};
use bonding_proto::wire::stream::StreamRefusal;
use bonding_proto::{Client, Instant, PacketBuf, StateMachine as _, StreamHost as _};
use socket2::{Domain, Protocol, Socket, Type};

use super::choice::{AsPackets as Why, Choice};
use crate::engine::event_loop::Device;
use crate::engine::plan::Compression;
use crate::engine::setup;
use crate::relay::{Relay, StreamKey};
use crate::status::{self, AsPackets};

/// The address that stands for destinations: RFC 7600's dummy address, which no host has.
const STAND_IN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6, of RFC 6666's prefix that is routed nowhere.
const STAND_IN_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8);

/// Connections that the kernel keeps ready to be accepted.
const BACKLOG: i32 = 1_024;

/// The poller's tokens; listeners follow.
const RELAY: u64 = 0;
const LISTENERS: u64 = 1;

/// The TUN device of a client: connections that are split do not leave it as packets.
#[derive(Debug)]
pub(super) struct SplitDevice {
    tun: Tun,
    redirecting: Option<Redirecting>,
    /// What one read gave, kept for its room.
    read: Vec<Inbound>,
}

/// Connections that are split, as the device sees them.
#[derive(Debug)]
pub(crate) struct Redirecting {
    hairpin: Hairpin,
    choice: Choice,
    /// The server takes streams now.
    is_active: bool,
    /// Connections that went as packets.
    as_packets: AsPackets,
    now: Duration,
    /// Packets to be written to the device.
    back: Vec<Inbound>,
}

impl SplitDevice {
    pub(super) const fn new(tun: Tun) -> Self {
        Self { tun, redirecting: None, read: Vec::new() }
    }
}

impl AsFd for SplitDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl Device for SplitDevice {
    fn recv_batch(&mut self, packets: &mut Vec<Inbound>) -> io::Result<bool> {
        let Some(redirecting) = &mut self.redirecting else { return self.tun.recv_batch(packets) };
        let more = self.tun.recv_batch(&mut self.read)?;
        let Redirecting { hairpin, choice, is_active, as_packets, now, back } = redirecting;
        let mut wants = |connection: &Connection| wants(choice, *is_active, as_packets, connection);
        packets.extend(self.read.drain(..).filter_map(|packet| hairpin.take(packet, *now, &mut wants, back)));
        self.flush()?;
        Ok(more)
    }

    fn send_batch(&mut self, packets: &[PacketBuf]) -> io::Result<()> {
        match &self.redirecting {
            Some(redirecting) if !packets.iter().all(|packet| redirecting.hairpin.may_enter(packet)) => {
                let may_enter = |packet: &&PacketBuf| redirecting.hairpin.may_enter(packet);
                let packets: Vec<PacketBuf> = packets.iter().filter(may_enter).cloned().collect();
                Device::send_batch(&mut self.tun, &packets)
            }
            Some(_) | None => Device::send_batch(&mut self.tun, packets),
        }
    }

    fn counters(&self) -> TunCounters {
        self.tun.counters()
    }

    fn redirecting(&mut self) -> Option<&mut Option<Redirecting>> {
        Some(&mut self.redirecting)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(redirecting) = &mut self.redirecting else { return Ok(()) };
        if redirecting.back.is_empty() {
            return Ok(());
        }
        let result = self.tun.send_batch(&redirecting.back, |packet| Outbound {
            bytes: &packet.bytes,
            is_partial: packet.is_partial,
        });
        redirecting.back.clear();
        result
    }
}

/// Whether a connection is to be split; otherwise it is counted by the reason.
fn wants(choice: &Choice, is_active: bool, counts: &mut AsPackets, connection: &Connection) -> bool {
    let count = match choice.as_packets(connection) {
        Some(Why::Rule(_)) => &mut counts.rule,
        Some(Why::LongLived(_)) => &mut counts.port,
        None if !is_active => &mut counts.peer,
        None => return true,
        Some(Why::Off) => return false,
    };
    *count += 1;
    false
}

/// See the module.
#[derive(Debug)]
pub(super) struct Splitter {
    choice: Choice,
    interface: String,
    index: u32,
    relay: Relay,
    listeners: Vec<TcpListener>,
    /// The addresses that the listeners are bound to.
    addresses: Vec<IpAddr>,
    both: Poller,
    /// Streams that the server was asked for, and those that are open.
    flows: BTreeMap<StreamKey, FlowKey>,
    streams: BTreeMap<FlowKey, StreamKey>,
    /// As the device has counted them.
    as_packets: AsPackets,
}

impl Splitter {
    pub(super) fn new(choice: Choice, compression: Compression, tun: &Tun) -> io::Result<Self> {
        let (relay, both) = (Relay::new(compression)?, Poller::new()?);
        both.add(relay.descriptor(), RELAY, Interest::Readable)?;
        Ok(Self {
            choice,
            interface: tun.name().to_owned(),
            index: tun.index(),
            relay,
            listeners: Vec::new(),
            addresses: Vec::new(),
            both,
            flows: BTreeMap::new(),
            streams: BTreeMap::new(),
            as_packets: AsPackets::default(),
        })
    }

    /// Readable when a socket is ready.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }

    /// These say from now on which connections are split. Those that are go on.
    pub(super) fn set_choice(&mut self, choice: Choice) {
        self.choice = choice;
    }

    /// Connections that went as packets so far.
    pub(super) const fn as_packets(&self) -> AsPackets {
        self.as_packets
    }

    /// Why a TCP connection whose packets have this header crosses the bond as packets, for
    /// figures. `is_taken`: the server takes streams now.
    pub(super) fn packets_by(&self, header: &InnerHeader, is_taken: bool) -> String {
        match self.choice.of_header(header) {
            Some(why) => why.to_string(),
            None if !is_taken => "peer takes no streams".to_owned(),
            // Before it could be split, at the other side, with options of its own, or since the
            // server wants it.
            None => "began as packets".to_owned(),
        }
    }

    /// What was compressed and expanded so far.
    pub(super) fn figures(&self) -> status::Compression {
        self.relay.figures()
    }

    /// When [`Self::attend`] has work, whatever is ready.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.relay.due()
    }

    /// The device has these addresses from now on: listeners are bound to them. Connections over
    /// the old ones end.
    fn listen(&mut self, client: &mut Client, device: &mut dyn Device, addresses: &[Prefix], now: Instant) {
        let wanted: Vec<IpAddr> = addresses.iter().map(|prefix| prefix.address).collect();
        let Some(redirecting) = device.redirecting() else { return };
        if self.choice.is_off() || wanted == self.addresses {
            return;
        }
        self.relay.clear(client, now);
        for (session, stream) in std::mem::take(&mut self.flows).into_keys() {
            if let Some(streams) = client.streams_mut(session, now) {
                streams.reset(stream);
            }
        }
        self.streams.clear();
        for listener in self.listeners.drain(..) {
            let _ = self.both.remove(&listener);
        }
        let mut redirects = Redirects::default();
        for address in &wanted {
            match self.listener(*address) {
                Ok((listener, port)) => {
                    match *address {
                        IpAddr::V4(own) => {
                            redirects.ipv4 = Some(Redirect { own, stand_in: STAND_IN_V4, port });
                        }
                        IpAddr::V6(own) => {
                            redirects.ipv6 = Some(Redirect { own, stand_in: STAND_IN_V6, port });
                        }
                    }
                    self.listeners.push(listener);
                }
                Err(error) => {
                    tracing::warn!(%error, "connections of this address family cross the bond as packets");
                }
            }
        }
        self.addresses = wanted;
        *redirecting = Some(Redirecting {
            hairpin: Hairpin::new(redirects),
            choice: self.choice.clone(),
            is_active: false,
            as_packets: self.as_packets,
            now: Duration::ZERO,
            back: Vec::new(),
        });
    }

    /// A listener on this address of the device, and its port.
    fn listener(&self, address: IpAddr) -> io::Result<(TcpListener, u16)> {
        let stand_in: IpAddr = if address.is_ipv4() { STAND_IN_V4.into() } else { STAND_IN_V6.into() };
        let socket =
            Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(self.interface.as_bytes()))?;
        socket.bind(&SocketAddr::new(address, 0).into())?;
        socket.listen(BACKLOG)?;
        let route =
            setup::cidr(Prefix { address: stand_in, length: if address.is_ipv4() { 32 } else { 128 } });
        let route = route.map_err(io::Error::other)?;
        Requests::open()
            .and_then(|mut requests| requests.add_route(self.index, route))
            .map_err(io::Error::other)?;
        let listener = TcpListener::from(socket);
        self.both.add(&listener, LISTENERS + self.listeners.len() as u64, Interest::Readable)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    }

    /// Moves what can be moved. Whether the client was given an input.
    pub(super) fn attend(
        &mut self,
        client: &mut Client,
        device: &mut dyn Device,
        addresses: &[Prefix],
        ready: bool,
        now: Instant,
    ) -> bool {
        self.listen(client, device, addresses, now);
        let Some(redirecting) = device.redirecting().and_then(Option::as_mut) else { return false };
        redirecting.is_active = client.stream_session().is_some();
        if !redirecting.choice.is(&self.choice) {
            redirecting.choice = self.choice.clone();
        }
        redirecting.now = Duration::from_nanos(now.as_nanos());
        redirecting.hairpin.handle_timeout(redirecting.now, &mut redirecting.back);
        // What is over is known before anything is opened, which may get its number.
        let mut any = self.on_events(redirecting, client, now);
        self.as_packets = redirecting.as_packets;
        any |= self.on_requests(redirecting, client, now);
        any |= self.relay.handle_due(client, now);
        if ready {
            self.accept(redirecting, client, now);
            any |= self.relay.handle_ready(client, now);
        }
        any | self.on_events(redirecting, client, now)
    }

    /// What happened to streams. Whether anything did.
    fn on_events(&mut self, redirecting: &mut Redirecting, client: &mut Client, now: Instant) -> bool {
        let mut any = false;
        while let Some((session, event)) = client.poll_stream_event() {
            any = true;
            if !self.relay.on_event(session, event, client, now) {
                self.on_event((session, event), redirecting, client, now);
            }
        }
        while let Some(key) = self.relay.poll_ended() {
            self.forget(key, redirecting);
        }
        any
    }

    /// What applications want. Whether there was anything.
    fn on_requests(&mut self, redirecting: &mut Redirecting, client: &mut Client, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = redirecting.hairpin.poll_event() {
            any = true;
            match event {
                Event::Requested(flow, connection) => {
                    let target = StreamTarget { to: connection.destination, dscp: connection.dscp };
                    let session = client.stream_session();
                    let opened = session.and_then(|session| {
                        let streams = client.streams_mut(session, now)?;
                        let id = streams.open(target, self.relay.form(), now)?;
                        streams.set_source(id, connection.source);
                        Some((session, id))
                    });
                    match opened {
                        Some(key) => {
                            self.flows.insert(key, flow);
                            self.streams.insert(flow, key);
                        }
                        None => {
                            redirecting.as_packets.full += 1;
                            pass(flow, redirecting, client, now);
                        }
                    }
                }
                Event::Reachable { is_ipv6, is_reachable } => self.on_reachable(is_ipv6, is_reachable),
                Event::Abandoned(flow) => {
                    if let Some(key) = self.streams.remove(&flow) {
                        self.flows.remove(&key);
                        if let Some(streams) = client.streams_mut(key.0, now) {
                            streams.reset(key.1);
                        }
                    }
                }
            }
        }
        any
    }

    /// Says whether connections can be split, or what a firewall of this host does to them.
    fn on_reachable(&mut self, is_ipv6: bool, is_reachable: bool) {
        let (interface, family) = (&self.interface, if is_ipv6 { "IPv6" } else { "IPv4" });
        if is_reachable {
            tracing::info!("TCP connections over {family} end here, and their bytes cross the bond");
        } else {
            tracing::warn!(
                "a firewall of this host drops what comes in from {interface}: TCP connections over {family} \
                 cross the bond as packets, so short downloads take longer; accept what comes in from \
                 {interface}, for example by `iptables -I INPUT -i {interface} -j ACCEPT`"
            );
        }
    }

    /// Sockets of connections whose SYN went to a listener.
    fn accept(&mut self, redirecting: &mut Redirecting, client: &mut Client, now: Instant) {
        for listener in &self.listeners {
            while let Ok((socket, peer)) = listener.accept() {
                let flow = redirecting.hairpin.accept(peer);
                let key = flow.and_then(|flow| self.streams.get(&flow).copied());
                // Of a stream that is over by now, the socket is closed.
                if let Some(key) = key {
                    self.relay.join(key, socket, client, now);
                }
            }
        }
    }

    /// What happened to a stream without a socket.
    fn on_event(
        &mut self,
        (session, event): (u16, StreamEvent),
        redirecting: &mut Redirecting,
        client: &mut Client,
        at: Instant,
    ) {
        let Redirecting { hairpin, now, back, .. } = redirecting;
        let flow = |id| self.flows.get(&(session, id)).copied();
        match event {
            StreamEvent::Opened(id) => {
                if let Some(flow) = flow(id) {
                    hairpin.admit(flow, *now, back);
                }
            }
            StreamEvent::Refused(id, reason) => {
                if let Some(flow) = flow(id) {
                    let refusal = match reason {
                        StreamRefusal::Refused => Refusal::Reset,
                        StreamRefusal::Unreachable => Refusal::Unreachable(Unreachable::Host),
                        StreamRefusal::TimedOut => Refusal::Silent,
                        StreamRefusal::Forbidden => Refusal::Unreachable(Unreachable::Prohibited),
                        StreamRefusal::AsPackets => {
                            self.streams.remove(&flow);
                            self.flows.remove(&(session, id));
                            redirecting.as_packets.server += 1;
                            return pass(flow, redirecting, client, at);
                        }
                    };
                    hairpin.refuse(flow, refusal, *now, back);
                }
                self.forget((session, id), redirecting);
            }
            StreamEvent::Reset(id) | StreamEvent::Finished(id) => {
                if let Some(flow) = flow(id) {
                    hairpin.refuse(flow, Refusal::Reset, *now, back);
                }
                self.forget((session, id), redirecting);
            }
            StreamEvent::Asked(..) | StreamEvent::Readable(_) | StreamEvent::Writable(_) => {}
        }
    }

    fn forget(&mut self, key: StreamKey, redirecting: &mut Redirecting) {
        if let Some(flow) = self.flows.remove(&key) {
            self.streams.remove(&flow);
            redirecting.hairpin.forget(flow, redirecting.now);
        }
    }
}

/// The connection goes as packets.
fn pass(flow: FlowKey, redirecting: &mut Redirecting, client: &mut Client, now: Instant) {
    if let Some(syn) = redirecting.hairpin.release(flow, redirecting.now) {
        let Inbound { bytes, is_partial, .. } = syn;
        let bytes = bytes.freeze();
        let packet = if is_partial { PacketBuf::partial(bytes) } else { PacketBuf::from(bytes) };
        // Counted by the client.
        let _ = client.handle_packet(packet, now);
    }
}
