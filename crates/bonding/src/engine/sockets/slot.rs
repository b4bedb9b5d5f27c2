//! One socket and its state: whether it is open, the batches that it keeps while it is full, and
//! its figures.
//!
//! A slot knows its interface by name or address and opens the socket on it. It does not know its
//! number: the caller gives the poller's token.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};

use bonding_os::monitor::Monitor;
use bonding_os::netlink::Interface;
use bonding_os::poll::{Interest, Poller};
use bonding_os::udp::{Batch, ReceiveBuffers, Received, Refusal, Sent, UdpConfig, UdpCounters, UdpSocket};
use bonding_proto::{Instant, Path, SocketEvent, Transmit, UdpFlow};

use super::SocketSpec;
use crate::engine::gathering::Tally;
use crate::engine::moderation::Recency;

/// Batches up to this size are heartbeats or control.
const SMALL_BYTES_MAX: usize = 512;
/// Large batches kept for a full socket: the refused one and the next.
const LARGE_KEPT_MAX: usize = 2;
/// Batches of any size kept for a full socket.
const KEPT_MAX: usize = 16;

/// A batch that a full socket did not take.
#[derive(Debug)]
pub(super) struct Kept {
    transmit: Transmit,
    pub(super) bytes: Vec<u8>,
}

/// The reason why a socket may deliver nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It cannot be opened.
    NoSocket(String),
    /// Its interface cannot carry packets.
    NoCarrier,
    /// Its interface has no address to send from.
    NoAddress,
    /// A datagram was refused, here or on the way.
    Refused(Refusal),
}

/// One socket and its state.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: SocketSpec,
    pub(super) socket: Option<UdpSocket>,
    /// The interface it was opened on. Once that has vanished, the socket is of no use.
    index: Option<u32>,
    /// The event that the core was told last.
    carrier: bool,
    /// Own addresses, IPv4 and IPv6, shown to users.
    addresses: [Option<IpAddr>; 2],
    pub(super) kept: VecDeque<Kept>,
    /// Whether the core was told that it is full.
    is_full: bool,
    dropped: u64,
    /// Figures of sockets that were closed.
    past: UdpCounters,
    complained: bool,
    /// Why there is no socket.
    missing: Option<String>,
    /// The interface has no address that the socket can send from.
    lacks_address: bool,
    /// The socket is told by ICMP what became of its datagrams.
    listens_for_errors: bool,
    recency: Recency,
    pub(super) tally: Tally,
}

/// The result of a send.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The socket is full and keeps the rest of the batch.
    pub(super) is_blocked: bool,
    /// The size of a datagram that the interface does not carry.
    pub(super) too_big: Option<usize>,
    /// The kernel has no route to the destination.
    pub(super) has_no_route: bool,
}

impl Slot {
    /// A slot whose socket is not open yet.
    pub(super) fn new(spec: SocketSpec) -> Self {
        Self {
            addresses: match spec.bind.ip() {
                address if address.is_unspecified() => [None, None],
                address if address.is_ipv4() => [Some(address), None],
                address => [None, Some(address)],
            },
            spec,
            socket: None,
            index: None,
            carrier: true,
            kept: VecDeque::new(),
            is_full: false,
            dropped: 0,
            past: UdpCounters::default(),
            complained: false,
            missing: None,
            lacks_address: false,
            listens_for_errors: false,
            recency: Recency::default(),
            tally: Tally::default(),
        }
    }

    /// The slot of a further flow of this slot's link, with a socket on the same interface, if that
    /// can be opened now.
    pub(super) fn sibling(&self, flow: UdpFlow, poller: &Poller, token: u64) -> Self {
        let spec = SocketSpec {
            label: format!("{} (UDP flow {})", self.spec.label, flow.number()),
            bind: SocketAddr::new(self.spec.bind.ip(), 0),
            interface: self.spec.interface.clone(),
        };
        let mut slot = Self { index: self.index, addresses: self.addresses, ..Self::new(spec) };
        if let Err(error) = slot.open(poller, token) {
            slot.complain(&error);
        }
        slot
    }

    /// Opens or closes the socket, as its interface allows; gives the event for its link.
    pub(super) fn refresh(&mut self, monitor: &Monitor, poller: &Poller, token: u64) -> Option<SocketEvent> {
        let carrier = self.has_carrier(monitor, poller, token);
        if carrier == self.carrier {
            return None;
        }
        self.carrier = carrier;
        Some(if carrier { SocketEvent::CarrierFound } else { SocketEvent::CarrierLost })
    }

    /// The core was told that the socket is full.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// The event for the core if the socket has become full, or has room again.
    pub(super) fn poll_room(&mut self) -> Option<SocketEvent> {
        let is_full = !self.kept.is_empty();
        if is_full == self.is_full {
            return None;
        }
        self.is_full = is_full;
        Some(if is_full { SocketEvent::Full } else { SocketEvent::Writable })
    }

    /// The socket is ready now: whether it is to be read until it is empty.
    pub(super) fn note_ready(&mut self, now: Instant) -> bool {
        self.recency.note(now) || self.tally.gathers()
    }

    /// One receive: appends its datagrams. `false`: there is no more.
    pub(super) fn recv(&mut self, buffers: &mut ReceiveBuffers, datagrams: &mut Vec<Received>) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let before = datagrams.len();
        let more = if self.tally.gathers() {
            socket.recv_all(buffers, datagrams)
        } else {
            socket.recv(buffers, datagrams)
        };
        if datagrams.len() > before {
            self.tally.on_receive(datagrams.len() - before);
        }
        more
    }

    /// Sends a batch, or keeps it, or drops and counts it.
    pub(super) fn send(&mut self, poller: &Poller, token: u64, transmit: &Transmit, bytes: &[u8]) -> Outcome {
        if !self.kept.is_empty() {
            self.keep(transmit, bytes);
            return Outcome::default();
        }
        let Some(socket) = &mut self.socket else {
            self.drop_batch(transmit, bytes);
            return Outcome::default();
        };
        let no_way = socket.counters().no_way;
        let (sent, too_big) = try_send(socket, transmit, bytes);
        let has_no_route = socket.counters().no_way > no_way;
        let is_blocked = if let Sent::Blocked { done } = sent {
            self.keep(transmit, bytes.get(done..).unwrap_or_default());
            self.watch(poller, token);
            true
        } else {
            false
        };
        Outcome { is_blocked, too_big, has_no_route }
    }

    /// Sends the kept batches; gives whether all have gone. `refused` gets the path and the size of
    /// each datagram that the interface does not carry.
    pub(super) fn flush(
        &mut self,
        poller: &Poller,
        token: u64,
        mut refused: impl FnMut(&Path, Option<usize>),
    ) -> bool {
        while let (Some(socket), Some(kept)) = (&mut self.socket, self.kept.front_mut()) {
            let (sent, too_big) = try_send(socket, &kept.transmit, &kept.bytes);
            refused(&kept.transmit.path, too_big);
            match sent {
                Sent::Done => drop(self.kept.pop_front()),
                Sent::Blocked { done } => {
                    kept.bytes.drain(..done);
                    return false;
                }
            }
        }
        self.watch(poller, token);
        true
    }

    /// Datagrams dropped because the socket was missing or full.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// An own address: of the family of `remote` if that is known.
    pub(super) fn address(&self, remote: Option<SocketAddr>) -> Option<IpAddr> {
        let [ipv4, ipv6] = self.addresses;
        match remote.map(|remote| remote.ip().to_canonical()) {
            Some(remote) if remote.is_ipv6() => ipv6,
            Some(_) => ipv4,
            None => ipv4.or(ipv6),
        }
    }

    /// Opens the socket and waits for its datagrams.
    pub(super) fn open(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        let config = UdpConfig { bind: self.spec.bind, interface: self.spec.interface.clone() };
        let mut socket = UdpSocket::bind(&config)?;
        if self.listens_for_errors {
            socket.listen_for_errors(true)?;
        }
        poller.add(&socket, token, Interest::Readable)?;
        self.socket = Some(socket);
        self.missing = None;
        Ok(())
    }

    /// From now on ICMP tells what became of datagrams, or no longer does.
    pub(super) fn listen_for_errors(&mut self, on: bool) {
        self.listens_for_errors = on;
        if let Some(Err(error)) = self.socket.as_mut().map(|socket| socket.listen_for_errors(on)) {
            tracing::debug!(link = self.spec.label, %error, "errors on the way cannot be listened to");
        }
    }

    /// Why nothing may be delivered, as far as the socket knows.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let Some(socket) = &self.socket else {
            return Some(Trouble::NoSocket(self.missing.clone()?));
        };
        match socket.refusal() {
            _ if !self.carrier => Some(Trouble::NoCarrier),
            _ if self.lacks_address => Some(Trouble::NoAddress),
            refusal => refusal.map(Trouble::Refused),
        }
    }

    /// Replaces an open socket by one with another port of its own. Whether it did: not where the
    /// interface is missing or has no carrier.
    pub(super) fn replace(&mut self, poller: &Poller, token: u64) -> bool {
        let past = self.counters();
        if self.socket.is_none() || !self.carrier {
            return false;
        }
        // The old one is still open, and so the kernel chooses another port.
        if let Err(error) = self.open(poller, token) {
            tracing::debug!(link = self.spec.label, %error, "no socket with another port");
            return false;
        }
        self.past = past;
        self.kept.clear();
        self.tally = Tally::default();
        true
    }

    /// Dropping the socket ends the waiting for it, too.
    fn close(&mut self) {
        self.past = self.counters();
        self.socket = None;
        self.kept.clear();
        self.tally = Tally::default();
    }

    /// Opens or closes; gives whether packets can go.
    fn has_carrier(&mut self, monitor: &Monitor, poller: &Poller, token: u64) -> bool {
        let home = self.home(monitor);
        if self.bound_to_a_place() {
            let index = home.map(|interface| interface.index);
            if self.index != index {
                self.close();
                self.index = index;
            }
            if index.is_none() {
                self.complain(&"its interface or address does not exist");
                return false;
            }
        }
        for (place, ipv4) in self.addresses.iter_mut().zip([true, false]) {
            let found = home.and_then(|interface| own_address(interface, self.spec.bind.ip(), ipv4));
            *place = found.or(*place);
        }
        let is_any = self.spec.bind.ip().is_unspecified();
        self.lacks_address = home.is_some_and(|interface| {
            is_any
                && [true, false]
                    .iter()
                    .all(|ipv4| own_address(interface, self.spec.bind.ip(), *ipv4).is_none())
        });
        if self.socket.is_none() {
            match self.open(poller, token) {
                Ok(()) if self.complained => tracing::info!(link = self.spec.label, "the link is there"),
                Ok(()) => {}
                Err(error) => {
                    self.complain(&error);
                    return false;
                }
            }
            self.complained = false;
        }
        home.is_none_or(|interface| interface.usable)
    }

    fn bound_to_a_place(&self) -> bool {
        self.spec.interface.is_some() || !self.spec.bind.ip().is_unspecified()
    }

    /// The interface that the socket is on.
    fn home<'m>(&self, monitor: &'m Monitor) -> Option<&'m Interface> {
        let source = self.spec.bind.ip();
        match &self.spec.interface {
            Some(name) => monitor.interface(name),
            None if source.is_unspecified() => None,
            None => monitor
                .interfaces()
                .find(|interface| interface.addresses.iter().any(|address| address.address() == source)),
        }
    }

    fn complain(&mut self, why: &dyn std::fmt::Display) {
        self.missing = Some(why.to_string());
        if !self.complained {
            let interface = self.spec.interface.as_deref().unwrap_or("any");
            tracing::warn!(link = self.spec.label, interface, "cannot use the link yet: {why}; waiting");
            self.complained = true;
        }
    }

    /// Keeps a batch for a full socket if there is room, or drops and counts it.
    pub(super) fn keep(&mut self, transmit: &Transmit, bytes: &[u8]) {
        let large = self.kept.iter().filter(|kept| kept.bytes.len() > SMALL_BYTES_MAX).count();
        let room = self.kept.len() < KEPT_MAX && (bytes.len() <= SMALL_BYTES_MAX || large < LARGE_KEPT_MAX);
        if room {
            self.kept.push_back(Kept { transmit: *transmit, bytes: bytes.to_vec() });
        } else {
            self.drop_batch(transmit, bytes);
        }
    }

    fn drop_batch(&mut self, transmit: &Transmit, bytes: &[u8]) {
        self.dropped += bytes.len().div_ceil(transmit.segment_size.max(1)) as u64;
    }

    /// Registers the socket for the events that the loop waits for.
    pub(super) fn watch(&self, poller: &Poller, token: u64) {
        let interest = match (self.tally.gathers(), self.kept.is_empty()) {
            (false, true) => Interest::Readable,
            (false, false) => Interest::ReadableWritable,
            (true, true) => Interest::Nothing,
            (true, false) => Interest::Writable,
        };
        let fd: Option<BorrowedFd<'_>> = self.socket.as_ref().map(|socket| socket.as_fd());
        if let Some(fd) = fd
            && let Err(error) = poller.modify(fd, token, interest)
        {
            tracing::warn!(link = self.spec.label, %error, "cannot wait for a socket");
        }
    }

    /// The figures of this socket and of those before it.
    pub(super) fn counters(&self) -> UdpCounters {
        let now = self.socket.as_ref().map(UdpSocket::counters).unwrap_or_default();
        self.past.plus(&now)
    }
}

/// Sends; gives the size of a datagram that the interface does not carry.
fn try_send(socket: &mut UdpSocket, transmit: &Transmit, bytes: &[u8]) -> (Sent, Option<usize>) {
    let before = socket.counters().too_big;
    let sent = socket.send(&batch(transmit, bytes));
    let refused = socket.counters().too_big > before;
    (sent, refused.then(|| transmit.segment_size.min(bytes.len())))
}

fn batch<'a>(transmit: &Transmit, bytes: &'a [u8]) -> Batch<'a> {
    let Transmit { path, segment_size, is_ect, .. } = *transmit;
    Batch { remote: path.remote, local: path.local, contents: bytes, segment_size, is_ect }
}

/// The bound address, or one of the interface's that is not link-local, of the wanted family. A
/// socket that is bound to any IPv6 address has both families.
fn own_address(interface: &Interface, bind: IpAddr, ipv4: bool) -> Option<IpAddr> {
    if !bind.is_unspecified() {
        return Some(bind).filter(|bind| bind.is_ipv4() == ipv4);
    }
    interface.addresses.iter().map(|address| address.address()).find(|address| match address {
        IpAddr::V4(_) => ipv4,
        IpAddr::V6(v6) => !ipv4 && bind.is_ipv6() && !v6.is_unicast_link_local(),
    })
}
