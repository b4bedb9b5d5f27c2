//! The sockets of a client's links or a server's listeners, by [`SocketId`].
//!
//! A socket may be missing: its interface does not exist yet, or has vanished. Datagrams for it are
//! then counted and lost, and [`Sockets::refresh`] opens the socket as soon as the interface is
//! there.
//!
//! A socket's send buffer may be full: the interface itself limits the link. The socket keeps the
//! batch that was refused, and tells the core ([`Sockets::poll_event`]), which gives the link no
//! more data until there is room. Of the batches that come all the same the socket keeps a few
//! (below), and drops and counts the rest. Small batches are heartbeats and control: they have a
//! place of their own, so that a saturated link does not look dead.
//!
//! Measured: docs/decisions/0092-a-full-socket-tells-the-core.md.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_os::netlink::Interface;
use bonding_os::poll::{Interest, Poller};
use bonding_os::udp::{Batch, ReceiveBuffers, Received, Sent, UdpConfig, UdpCounters, UdpSocket};
use bonding_proto::discard::{Discard, DiscardCounts};
use bonding_proto::{Instant, Path, SocketEvent, SocketId, Transmit};

use super::gathering::{Gathering, Tally};
use super::moderation::Recency;

/// The first socket's token; the others follow.
pub(crate) const FIRST_TOKEN: u64 = 16;
/// Batches up to this size are heartbeats or control.
const SMALL_BYTES_MAX: usize = 512;
/// Large batches kept for a full socket: the refused one and the next.
const LARGE_KEPT_MAX: usize = 2;
/// Refusals that wait to be told; each teaches the core, so that more of them come.
const REFUSED_MAX: usize = 64;
/// Batches of any size kept for a full socket.
const KEPT_MAX: usize = 16;

/// The address and interface of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketSpec {
    /// For messages: the link's name, or the listener's address.
    pub(crate) label: String,
    /// Own address and port.
    pub(crate) bind: SocketAddr,
    /// The only interface to use.
    pub(crate) interface: Option<String>,
}

/// A batch that a full socket did not take.
#[derive(Debug)]
struct Kept {
    transmit: Transmit,
    bytes: Vec<u8>,
}

/// One socket and its state.
#[derive(Debug)]
struct Slot {
    spec: SocketSpec,
    socket: Option<UdpSocket>,
    /// The interface it was opened on. Once that has vanished, the socket is of no use.
    index: Option<u32>,
    /// The event that the core was told last.
    carrier: bool,
    /// Own addresses, IPv4 and IPv6, for people.
    addresses: [Option<IpAddr>; 2],
    kept: VecDeque<Kept>,
    /// Whether the core was told that it is full.
    is_full: bool,
    dropped: u64,
    /// Figures of sockets that were closed.
    past: UdpCounters,
    complained: bool,
    recency: Recency,
    tally: Tally,
}

/// All sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Vec<Slot>,
    buffers: ReceiveBuffers,
    /// Datagrams that were larger than an interface carries, and their destinations.
    refused: VecDeque<(Path, usize)>,
    /// Sockets that had no way to send since this was asked last, each once.
    no_route: Vec<SocketId>,
    /// Sockets that may have become full, or have room again, since this was asked last, each once.
    rooms: Vec<SocketId>,
}

impl Sockets {
    /// None is open yet. At most 256.
    pub(crate) fn new(specs: impl IntoIterator<Item = SocketSpec>) -> Self {
        let slots = specs.into_iter().map(|spec| Slot {
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
            recency: Recency::default(),
            tally: Tally::default(),
        });
        Self {
            slots: slots.collect(),
            buffers: ReceiveBuffers::new(),
            refused: VecDeque::new(),
            no_route: Vec::new(),
            rooms: Vec::new(),
        }
    }

    /// Opens every socket now, or says which one cannot be.
    pub(crate) fn open_all(&mut self, poller: &Poller) -> Result<(), (String, io::Error)> {
        for (token, slot) in (FIRST_TOKEN..).zip(&mut self.slots) {
            slot.open(poller, token).map_err(|error| (slot.spec.label.clone(), error))?;
        }
        Ok(())
    }

    /// Opens the sockets that can be opened now, and closes those that have lost their interface;
    /// gives the events for their links.
    pub(crate) fn refresh(&mut self, monitor: &Monitor, poller: &Poller) -> Vec<(SocketId, SocketEvent)> {
        let mut events = Vec::new();
        for (id, slot) in (0..=u8::MAX).map(SocketId).zip(&mut self.slots) {
            let carrier = slot.refresh(monitor, poller, token(id));
            // A closed socket keeps no datagrams.
            if slot.is_full {
                note_once(&mut self.rooms, id);
            }
            if carrier != slot.carrier {
                slot.carrier = carrier;
                let event = if carrier { SocketEvent::CarrierFound } else { SocketEvent::CarrierLost };
                events.push((id, event));
            }
        }
        events
    }

    /// A socket is missing that [`Self::refresh`] may be able to open.
    pub(crate) fn any_missing(&self) -> bool {
        self.slots.iter().any(|slot| slot.socket.is_none())
    }

    /// The socket that a token names.
    pub(crate) fn id(&self, token: u64) -> Option<SocketId> {
        let at = token.checked_sub(FIRST_TOKEN)?;
        u8::try_from(at).ok().map(SocketId).filter(|id| id.index() < self.slots.len())
    }

    /// The socket is ready now: whether it is to be read until it is empty.
    pub(crate) fn note_ready(&mut self, id: SocketId, now: Instant) -> bool {
        self.slots.get_mut(id.index()).is_some_and(|slot| slot.recency.note(now) || slot.tally.gathers())
    }

    /// One receive on a socket: appends its datagrams. `false`: there is no more.
    pub(crate) fn recv(&mut self, id: SocketId, datagrams: &mut Vec<Received>) -> bool {
        let Some(slot) = self.slots.get_mut(id.index()) else { return false };
        let Some(socket) = &mut slot.socket else { return false };
        let before = datagrams.len();
        let more = if slot.tally.gathers() {
            socket.recv_all(&mut self.buffers, datagrams)
        } else {
            socket.recv(&mut self.buffers, datagrams)
        };
        if datagrams.len() > before {
            slot.tally.on_receive(datagrams.len() - before);
        }
        more
    }

    /// The sockets that the loop does not wait for, chosen here now and then.
    /// `round_trip` is the shortest over a socket, if that is known.
    pub(crate) fn gather(
        &mut self,
        gathering: &mut Gathering,
        poller: &Poller,
        round_trip: impl Fn(SocketId) -> Option<Duration>,
        now: Instant,
    ) {
        let Some(span) = gathering.judges(now) else { return };
        let before: Vec<bool> = self.slots.iter().map(|slot| slot.tally.gathers()).collect();
        let tallies = self.slots.iter_mut().map(|slot| &mut slot.tally);
        gathering.judge(tallies.zip((0..=u8::MAX).map(SocketId).map(round_trip)), span, now);
        for ((slot, token), before) in self.slots.iter().zip(FIRST_TOKEN..).zip(before) {
            if slot.tally.gathers() != before {
                slot.watch(poller, token);
            }
        }
    }

    /// The sockets that gather.
    pub(crate) fn gathered(&self) -> impl Iterator<Item = SocketId> {
        let ids = (0..=u8::MAX).map(SocketId).zip(&self.slots);
        ids.filter(|(_, slot)| slot.tally.gathers()).map(|(id, _)| id)
    }

    /// Sends a batch, or keeps it, or drops and counts it.
    pub(crate) fn send(&mut self, poller: &Poller, transmit: &Transmit, bytes: &[u8]) {
        let path = transmit.path;
        let Some(slot) = self.slots.get_mut(path.socket.index()) else { return };
        if !slot.kept.is_empty() {
            slot.keep(transmit, bytes);
            return;
        }
        let Some(socket) = &mut slot.socket else {
            slot.dropped += bytes.len().div_ceil(transmit.segment_size.max(1)) as u64;
            return;
        };
        let no_way = socket.counters().no_way;
        let (sent, too_big) = try_send(socket, transmit, bytes);
        note_refused(&mut self.refused, &path, too_big);
        if socket.counters().no_way > no_way {
            note_once(&mut self.no_route, path.socket);
        }
        if let Sent::Blocked { done } = sent {
            slot.keep(transmit, bytes.get(done..).unwrap_or_default());
            slot.watch(poller, token(path.socket));
            note_once(&mut self.rooms, path.socket);
        }
    }

    /// There is room again.
    pub(crate) fn flush(&mut self, poller: &Poller, id: SocketId) {
        let Some(slot) = self.slots.get_mut(id.index()) else { return };
        while let (Some(socket), Some(kept)) = (&mut slot.socket, slot.kept.front_mut()) {
            let (sent, too_big) = try_send(socket, &kept.transmit, &kept.bytes);
            note_refused(&mut self.refused, &kept.transmit.path, too_big);
            match sent {
                Sent::Done => drop(slot.kept.pop_front()),
                Sent::Blocked { done } => {
                    kept.bytes.drain(..done);
                    return;
                }
            }
        }
        slot.watch(poller, token(id));
        note_once(&mut self.rooms, id);
    }

    /// The next event for the core, to be handled before it sends more: a datagram was too big, a
    /// socket is full, or a socket has room again.
    pub(crate) fn poll_event(&mut self) -> Option<(SocketId, SocketEvent)> {
        if let Some((path, bytes)) = self.refused.pop_front() {
            return Some((path.socket, SocketEvent::TooBig { remote: path.remote, bytes }));
        }
        while let Some(id) = self.rooms.pop() {
            let Some(slot) = self.slots.get_mut(id.index()) else { continue };
            let is_full = !slot.kept.is_empty();
            if is_full != slot.is_full {
                slot.is_full = is_full;
                return Some((id, if is_full { SocketEvent::Full } else { SocketEvent::Writable }));
            }
        }
        None
    }

    /// The next socket that had no route when it was to send.
    pub(crate) fn poll_no_route(&mut self) -> Option<SocketId> {
        self.no_route.pop()
    }

    /// Adds the datagrams that did not leave.
    pub(crate) fn add_discards(&self, discards: &mut DiscardCounts) {
        for slot in &self.slots {
            discards.add(Discard::SocketBlocked, slot.dropped);
            discards.add(Discard::SendRefused, slot.counters().send_errors);
        }
    }

    /// The counts of all sockets so far.
    pub(crate) fn counters(&self) -> UdpCounters {
        self.slots.iter().fold(UdpCounters::default(), |sum, slot| sum.plus(&slot.counters()))
    }

    /// An own address of a socket, for people: of the family of the peer's if that is known.
    pub(crate) fn address(&self, id: SocketId, remote: Option<SocketAddr>) -> Option<IpAddr> {
        let [ipv4, ipv6] = self.slots.get(id.index())?.addresses;
        match remote.map(|remote| remote.ip().to_canonical()) {
            Some(remote) if remote.is_ipv6() => ipv6,
            Some(_) => ipv4,
            None => ipv4.or(ipv6),
        }
    }
}

impl Slot {
    fn open(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        let config = UdpConfig { bind: self.spec.bind, interface: self.spec.interface.clone() };
        let socket = UdpSocket::bind(&config)?;
        poller.add(&socket, token, Interest::Readable)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Dropping the socket ends the waiting for it, too.
    fn close(&mut self) {
        self.past = self.counters();
        self.socket = None;
        self.kept.clear();
        self.tally = Tally::default();
    }

    /// Opens or closes; gives whether packets can go.
    fn refresh(&mut self, monitor: &Monitor, poller: &Poller, token: u64) -> bool {
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
        if !self.complained {
            let interface = self.spec.interface.as_deref().unwrap_or("any");
            tracing::warn!(link = self.spec.label, interface, "cannot use the link yet: {why}; waiting");
            self.complained = true;
        }
    }

    fn keep(&mut self, transmit: &Transmit, bytes: &[u8]) {
        let large = self.kept.iter().filter(|kept| kept.bytes.len() > SMALL_BYTES_MAX).count();
        let room = self.kept.len() < KEPT_MAX && (bytes.len() <= SMALL_BYTES_MAX || large < LARGE_KEPT_MAX);
        if room {
            self.kept.push_back(Kept { transmit: *transmit, bytes: bytes.to_vec() });
        } else {
            self.dropped += bytes.len().div_ceil(transmit.segment_size.max(1)) as u64;
        }
    }

    /// Registers the socket for the events that the loop waits for.
    fn watch(&self, poller: &Poller, token: u64) {
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

    fn counters(&self) -> UdpCounters {
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

fn note_once(ids: &mut Vec<SocketId>, id: SocketId) {
    if !ids.contains(&id) {
        ids.push(id);
    }
}

fn note_refused(refused: &mut VecDeque<(Path, usize)>, path: &Path, bytes: Option<usize>) {
    if let Some(bytes) = bytes.filter(|_| refused.len() < REFUSED_MAX) {
        refused.push_back((*path, bytes));
    }
}

fn batch<'a>(transmit: &Transmit, bytes: &'a [u8]) -> Batch<'a> {
    let Transmit { path, segment_size, is_ect, .. } = *transmit;
    Batch { remote: path.remote, local: path.local, contents: bytes, segment_size, is_ect }
}

fn token(id: SocketId) -> u64 {
    FIRST_TOKEN + u64::from(id.0)
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Plain;
    use std::time::Duration;

    use bonding_proto::LinkId;

    use super::*;

    const ID: SocketId = SocketId(0);

    fn to(path: Path, segment_size: usize) -> Transmit {
        Transmit::new(LinkId(0), path, 0, segment_size)
    }

    fn sockets(bind: &str, interface: Option<&str>) -> Sockets {
        Sockets::new([SocketSpec {
            label: "test".to_owned(),
            bind: bind.parse().unwrap(),
            interface: interface.map(str::to_owned),
        }])
    }

    fn discards(sockets: &Sockets, reason: Discard) -> u64 {
        let mut counts = DiscardCounts::default();
        sockets.add_discards(&mut counts);
        counts.of(reason)
    }

    #[test]
    fn a_full_socket_keeps_a_little_in_order_and_room_for_control() {
        let peer = Plain::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let path = Path { socket: ID, remote: peer.local_addr().unwrap(), local: None };
        let poller = Poller::new().unwrap();
        let mut sockets = sockets("127.0.0.1:0", None);
        sockets.open_all(&poller).unwrap();
        // As after a refusal by the kernel.
        sockets.slots[0].keep(&to(path, 1000), &[0; 2000]);
        note_once(&mut sockets.rooms, ID);
        assert_eq!((sockets.poll_event(), sockets.poll_event()), (Some((ID, SocketEvent::Full)), None));
        for number in 1..=4_u8 {
            sockets.send(&poller, &to(path, 1000), &[number; 3000]);
        }
        for number in 101..=120_u8 {
            sockets.send(&poller, &to(path, 40), &[number; 40]);
        }
        let kept: Vec<_> = sockets.slots[0].kept.iter().map(|kept| kept.bytes[0]).collect();
        assert_eq!(kept[..2], [0, 1]);
        assert_eq!(kept[2..], (101..=114).collect::<Vec<u8>>());
        // Three batches of three datagrams, and the small ones that were too many.
        assert_eq!(discards(&sockets, Discard::SocketBlocked), 3 * 3 + 6);

        sockets.flush(&poller, ID);
        assert!(sockets.slots[0].kept.is_empty());
        assert_eq!((sockets.poll_event(), sockets.poll_event()), (Some((ID, SocketEvent::Writable)), None));
        let mut buffer = [0; 2000];
        let first: Vec<_> = (0..5 + 14)
            .map(|_| peer.recv_from(&mut buffer).map(|(size, _)| (size, buffer[0])).unwrap())
            .collect();
        assert_eq!(first[..5], [(1000, 0), (1000, 0), (1000, 1), (1000, 1), (1000, 1)]);
        assert!(first[5..].iter().all(|(size, _)| *size == 40));
    }

    #[test]
    fn a_missing_interface_is_waited_for() {
        let monitor = Monitor::open().unwrap();
        let poller = Poller::new().unwrap();
        let mut sockets = sockets("0.0.0.0:0", Some("no-such-if"));
        assert_eq!(sockets.refresh(&monitor, &poller), [(ID, SocketEvent::CarrierLost)]);
        assert_eq!(sockets.refresh(&monitor, &poller), [], "told once");
        assert!(sockets.any_missing());
        let path = Path { socket: ID, remote: "127.0.0.1:9".parse().unwrap(), local: None };
        sockets.send(&poller, &to(path, 1000), &[0; 2500]);
        assert_eq!(discards(&sockets, Discard::SocketBlocked), 3);
        assert!(!sockets.recv(ID, &mut Vec::new()));
    }

    #[test]
    fn a_socket_without_a_way_is_told_of_once() {
        let poller = Poller::new().unwrap();
        let mut sockets = sockets("127.0.0.1:0", None);
        sockets.open_all(&poller).unwrap();
        let near = Path { socket: ID, remote: "127.0.0.1:9".parse().unwrap(), local: None };
        sockets.send(&poller, &to(near, 10), &[0; 10]);
        assert_eq!(sockets.poll_no_route(), None);
        // Not permitted to a socket that did not ask for it.
        let broadcast = Path { remote: "127.255.255.255:9".parse().unwrap(), ..near };
        sockets.send(&poller, &to(broadcast, 10), &[0; 10]);
        sockets.send(&poller, &to(broadcast, 10), &[0; 10]);
        assert_eq!(discards(&sockets, Discard::SendRefused), 2);
        assert_eq!((sockets.poll_no_route(), sockets.poll_no_route()), (Some(ID), None));
    }

    #[test]
    fn what_gathers_is_not_waited_for_and_nothing_is_left() {
        let peer = Plain::bind("127.0.0.1:0").unwrap();
        let mut poller = Poller::new().unwrap();
        let mut sockets = sockets("127.0.0.1:0", None);
        sockets.open_all(&poller).unwrap();
        let near = sockets.slots[0].socket.as_ref().unwrap().local_address();
        let (mut gathering, mut now) = (Gathering::default(), Instant::from_nanos(1_000_000_000));
        sockets.gather(&mut gathering, &poller, |_| None, now);
        let mut ready = Vec::new();
        let mut datagrams = Vec::new();
        for number in 0..100_u8 {
            peer.send_to(&[number; 100], near).unwrap();
            poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ready.len(), 1);
            assert!(sockets.recv(ID, &mut datagrams));
        }
        now = now + Duration::from_millis(10);
        sockets.gather(&mut gathering, &poller, |_| None, now);
        assert_eq!(sockets.gathered().collect::<Vec<_>>(), [ID]);

        for number in 100..=110_u8 {
            peer.send_to(&[number; 100], near).unwrap();
        }
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, []);
        assert!(sockets.note_ready(ID, now), "it is asked until it has no more");
        while sockets.recv(ID, &mut datagrams) {}
        let numbers: Vec<u8> = datagrams.iter().map(|datagram| datagram.data[0]).collect();
        assert_eq!(numbers, (0..=110).collect::<Vec<u8>>());
        assert!(datagrams.iter().all(|datagram| datagram.data.len() == 100 && datagram.arrived.is_some()));

        // Quiet again: it is waited for.
        peer.send_to(&[111], near).unwrap();
        sockets.gather(&mut gathering, &poller, |_| None, now + Duration::from_millis(100));
        assert_eq!(sockets.gathered().count(), 0);
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert!(ready[0].readable);
    }

    #[test]
    fn tokens_and_ids_correspond() {
        let sockets = sockets("127.0.0.1:0", None);
        assert_eq!(sockets.id(token(ID)), Some(ID));
        for token in [0, FIRST_TOKEN - 1, FIRST_TOKEN + 1, u64::MAX] {
            assert_eq!(sockets.id(token), None);
        }
    }
}
