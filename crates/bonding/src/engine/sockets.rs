//! The sockets of a client's links or a server's listeners, by [`SocketId`].
//!
//! A socket may be missing: its interface does not exist yet, or has vanished. Datagrams for it are
//! then counted and lost, and [`Sockets::refresh`] opens the socket as soon as the interface is
//! there.
//!
//! A client's link has one socket, and one more for each further UDP flow that the core sends on:
//! it is opened with the first datagram, on the same interface with another port, and stays. What
//! the interface does is told once, for the link.
//!
//! A socket's send buffer may be full: the interface itself limits the link. The socket keeps the
//! batch that was refused, and tells the core ([`Sockets::poll_event`]), which gives the link no
//! more data until there is room. Of the batches that come all the same the socket keeps a few
//! (below), and drops and counts the rest. Small batches are heartbeats and control: they have a
//! place of their own, so that a saturated link does not look dead.
//!
//! Measured: docs/decisions/0092-a-full-socket-tells-the-core.md.

mod homes;
mod slot;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_os::poll::Poller;
use bonding_os::udp::{ReceiveBuffers, Received, UdpCounters};
use bonding_proto::discard::{Discard, DiscardCounts};
use bonding_proto::{Instant, LinkId, Path, SocketEvent, SocketId, Transmit, UdpFlow};

use self::slot::Slot;

pub(crate) use self::homes::Homes;
pub(crate) use self::slot::Trouble;
use super::gathering::Gathering;

/// The first socket's token; the others follow.
pub(crate) const FIRST_TOKEN: u64 = 16;
/// As many as a [`SocketId`] names.
const SOCKETS_MAX: usize = 256;
/// Refusals that wait to be told; each teaches the core, so that more of them come.
const REFUSED_MAX: usize = 64;
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

/// All sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    slots: Vec<(SocketId, Slot)>,
    /// Where in `slots` a socket is.
    places: Box<[Option<u8>; SOCKETS_MAX]>,
    buffers: ReceiveBuffers,
    /// Datagrams that were larger than an interface carries, and their destinations.
    refused: VecDeque<(Path, usize)>,
    /// Sockets that had no way to send since this was asked last, each once.
    no_route: Vec<SocketId>,
    /// Sockets that may have become full, or have room again, since this was asked last, each once.
    rooms: Vec<SocketId>,
    /// Where the datagrams of plain links come in.
    homes: Homes,
    /// Datagrams that came in elsewhere.
    misplaced: u64,
    /// Figures of sockets whose links are gone: of the sockets, and datagrams that were dropped.
    past: (UdpCounters, u64),
}

impl Sockets {
    /// None is open yet. At most 256.
    pub(crate) fn new(specs: impl IntoIterator<Item = SocketSpec>) -> Self {
        let slots: Vec<_> = (0..=u8::MAX).map(SocketId).zip(specs.into_iter().map(Slot::new)).collect();
        let mut places = Box::new([None; SOCKETS_MAX]);
        for (place, (id, _)) in places.iter_mut().zip(&slots) {
            *place = Some(id.0);
        }
        Self {
            slots,
            places,
            buffers: ReceiveBuffers::new(),
            refused: VecDeque::new(),
            no_route: Vec::new(),
            rooms: Vec::new(),
            homes: Homes::default(),
            misplaced: 0,
            past: (UdpCounters::default(), 0),
        }
    }

    /// Adds the socket of a client's link that has none, and opens it if it can be opened now;
    /// gives the event for its link.
    pub(crate) fn add(
        &mut self,
        link: LinkId,
        spec: SocketSpec,
        monitor: &Monitor,
        poller: &Poller,
    ) -> Option<SocketEvent> {
        let id = SocketId(link.0);
        let at = u8::try_from(self.slots.len()).ok().filter(|_| self.place(id).is_none())?;
        let mut slot = Slot::new(spec);
        let event = slot.refresh(monitor, poller, token(id));
        *self.places.get_mut(id.index())? = Some(at);
        self.slots.push((id, slot));
        event
    }

    /// Closes the sockets of a client's link, and forgets them.
    pub(crate) fn remove(&mut self, link: LinkId) {
        let (gone, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.slots).into_iter().partition(|(id, _)| id.link() == link);
        for (_, slot) in &gone {
            let (counters, dropped) = &mut self.past;
            *counters = counters.plus(&slot.counters());
            *dropped += slot.dropped();
        }
        self.slots = left;
        self.places.fill(None);
        for (at, (id, _)) in (0..=u8::MAX).zip(&self.slots) {
            if let Some(place) = self.places.get_mut(id.index()) {
                *place = Some(at);
            }
        }
        let is_gone = |id: &SocketId| id.link() == link;
        self.no_route.retain(|id| !is_gone(id));
        self.rooms.retain(|id| !is_gone(id));
        self.refused.retain(|(path, _)| !is_gone(&path.socket));
    }

    /// From now on the datagrams of plain links come in there.
    pub(crate) fn set_homes(&mut self, homes: Homes) {
        self.homes = homes;
    }

    /// Opens every socket now, or says which one cannot be.
    pub(crate) fn open_all(&mut self, poller: &Poller) -> Result<(), (String, io::Error)> {
        for (id, slot) in &mut self.slots {
            slot.open(poller, token(*id)).map_err(|error| (slot.spec.label.clone(), error))?;
        }
        Ok(())
    }

    /// Opens the sockets that can be opened now, and closes those that have lost their interface;
    /// gives the events for their links.
    pub(crate) fn refresh(&mut self, monitor: &Monitor, poller: &Poller) -> Vec<(SocketId, SocketEvent)> {
        let mut events = Vec::new();
        for (id, slot) in &mut self.slots {
            let event = slot.refresh(monitor, poller, token(*id));
            // A closed socket keeps no datagrams.
            if slot.is_full() {
                note_once(&mut self.rooms, *id);
            }
            events.extend(event.filter(|_| id.flow() == UdpFlow::FIRST).map(|event| (*id, event)));
        }
        events
    }

    /// Replaces the sockets of a link that is down by others, with ports of their own that no
    /// device on the way knows. Whether there are others now.
    pub(crate) fn replace(&mut self, poller: &Poller, link: LinkId) -> bool {
        let mut is_replaced = false;
        for (id, slot) in self.slots.iter_mut().filter(|(id, _)| id.link() == link) {
            if slot.replace(poller, token(*id)) {
                is_replaced = true;
                // A closed socket keeps no datagrams.
                if slot.is_full() {
                    note_once(&mut self.rooms, *id);
                }
            }
        }
        is_replaced
    }

    /// From now on ICMP tells what becomes of the link's datagrams, or no longer does: only while
    /// it is down, since anyone can send ICMP.
    pub(crate) fn listen_for_errors(&mut self, link: LinkId, on: bool) {
        if let Some(slot) = self.slot_mut(SocketId(link.0)) {
            slot.listen_for_errors(on);
        }
    }

    /// Why the link's socket may deliver nothing, as far as it knows.
    pub(crate) fn trouble(&self, link: LinkId) -> Option<Trouble> {
        self.slot(SocketId(link.0))?.trouble()
    }

    /// A socket is missing that [`Self::refresh`] may be able to open.
    pub(crate) fn any_missing(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.socket.is_none())
    }

    /// The socket that a token names.
    pub(crate) fn id(&self, token: u64) -> Option<SocketId> {
        let at = token.checked_sub(FIRST_TOKEN)?;
        u8::try_from(at).ok().map(SocketId).filter(|id| self.place(*id).is_some())
    }

    fn place(&self, id: SocketId) -> Option<usize> {
        self.places.get(id.index()).copied().flatten().map(usize::from)
    }

    fn slot(&self, id: SocketId) -> Option<&Slot> {
        self.slots.get(self.place(id)?).map(|(_, slot)| slot)
    }

    fn slot_mut(&mut self, id: SocketId) -> Option<&mut Slot> {
        let place = self.place(id)?;
        self.slots.get_mut(place).map(|(_, slot)| slot)
    }

    /// Adds the socket of a further flow of a link, if the link's own is open.
    fn add_flow(&mut self, poller: &Poller, id: SocketId) {
        let first = SocketId(id.link().0);
        let Some(first) =
            self.slot(first).filter(|first| id.flow() != UdpFlow::FIRST && first.socket.is_some())
        else {
            return;
        };
        let slot = first.sibling(id.flow(), poller, token(id));
        if let (Ok(at), Some(place)) = (u8::try_from(self.slots.len()), self.places.get_mut(id.index())) {
            *place = Some(at);
            self.slots.push((id, slot));
        }
    }

    /// The socket is ready now: whether it is to be read until it is empty.
    pub(crate) fn note_ready(&mut self, id: SocketId, now: Instant) -> bool {
        self.slot_mut(id).is_some_and(|slot| slot.note_ready(now))
    }

    /// One receive on a socket: appends its datagrams. `false`: there is no more.
    pub(crate) fn recv(&mut self, id: SocketId, datagrams: &mut Vec<Received>) -> bool {
        let Some(place) = self.place(id) else { return false };
        let before = datagrams.len();
        let more = self.slots.get_mut(place).is_some_and(|(_, slot)| slot.recv(&mut self.buffers, datagrams));
        if !self.homes.is_empty() {
            self.drop_misplaced(datagrams, before);
        }
        more
    }

    /// Drops and counts datagrams, beginning at `from`, that pretend to be a plain link's.
    fn drop_misplaced(&mut self, datagrams: &mut Vec<Received>, from: usize) {
        let all = datagrams.len();
        let mut at = 0;
        datagrams.retain(|datagram| {
            at += 1;
            at <= from || self.homes.accept(datagram)
        });
        self.misplaced += (all - datagrams.len()) as u64;
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
        let before: Vec<bool> = self.slots.iter().map(|(_, slot)| slot.tally.gathers()).collect();
        let tallies = self.slots.iter_mut().map(|(id, slot)| (&mut slot.tally, round_trip(*id)));
        gathering.judge(tallies, span, now);
        for ((id, slot), before) in self.slots.iter().zip(before) {
            if slot.tally.gathers() != before {
                slot.watch(poller, token(*id));
            }
        }
    }

    /// The sockets that gather.
    pub(crate) fn gathered(&self) -> impl Iterator<Item = SocketId> {
        self.slots.iter().filter(|(_, slot)| slot.tally.gathers()).map(|(id, _)| *id)
    }

    /// Sends a batch, or keeps it, or drops and counts it.
    pub(crate) fn send(&mut self, poller: &Poller, transmit: &Transmit, bytes: &[u8]) {
        let path = transmit.path;
        if self.place(path.socket).is_none() {
            self.add_flow(poller, path.socket);
        }
        let Some(slot) = self.slot_mut(path.socket) else { return };
        let outcome = slot.send(poller, token(path.socket), transmit, bytes);
        note_refused(&mut self.refused, &path, outcome.too_big);
        if outcome.has_no_route {
            note_once(&mut self.no_route, path.socket);
        }
        if outcome.is_blocked {
            note_once(&mut self.rooms, path.socket);
        }
    }

    /// There is room again.
    pub(crate) fn flush(&mut self, poller: &Poller, id: SocketId) {
        let Some(place) = self.place(id) else { return };
        let Some((_, slot)) = self.slots.get_mut(place) else { return };
        let refused = |path: &Path, bytes| note_refused(&mut self.refused, path, bytes);
        if slot.flush(poller, token(id), refused) {
            note_once(&mut self.rooms, id);
        }
    }

    /// The next event for the core, to be handled before it sends more: a datagram was too big, a
    /// socket is full, or a socket has room again.
    pub(crate) fn poll_event(&mut self) -> Option<(SocketId, SocketEvent)> {
        if let Some((path, bytes)) = self.refused.pop_front() {
            return Some((path.socket, SocketEvent::TooBig { remote: path.remote, bytes }));
        }
        while let Some(id) = self.rooms.pop() {
            let Some(slot) = self.slot_mut(id) else { continue };
            if let Some(event) = slot.poll_room() {
                return Some((id, event));
            }
        }
        None
    }

    /// The next socket that had no route when it was to send. Apart from [`Self::poll_event`]: the
    /// machine is told once a wake-up, not once for each datagram to a missing route.
    pub(crate) fn poll_no_route(&mut self) -> Option<SocketId> {
        self.no_route.pop()
    }

    /// Adds the datagrams that did not leave, and those that came in by the wrong interface.
    pub(crate) fn add_discards(&self, discards: &mut DiscardCounts) {
        discards.add(Discard::UnknownPeer, self.misplaced);
        discards.add(Discard::SocketBlocked, self.past.1);
        discards.add(Discard::SendRefused, self.past.0.send_errors);
        for (_, slot) in &self.slots {
            discards.add(Discard::SocketBlocked, slot.dropped());
            discards.add(Discard::SendRefused, slot.counters().send_errors);
        }
    }

    /// The counts of all sockets so far.
    pub(crate) fn counters(&self) -> UdpCounters {
        self.slots.iter().fold(self.past.0, |sum, (_, slot)| sum.plus(&slot.counters()))
    }

    /// An own address of a socket, shown to users: of the family of the peer's if that is known.
    pub(crate) fn address(&self, id: SocketId, remote: Option<SocketAddr>) -> Option<IpAddr> {
        self.slot(id)?.address(remote)
    }
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

fn token(id: SocketId) -> u64 {
    FIRST_TOKEN + u64::from(id.0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Plain;
    use std::time::Duration;

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
        sockets.slots[0].1.keep(&to(path, 1000), &[0; 2000]);
        note_once(&mut sockets.rooms, ID);
        assert_eq!((sockets.poll_event(), sockets.poll_event()), (Some((ID, SocketEvent::Full)), None));
        for number in 1..=4_u8 {
            sockets.send(&poller, &to(path, 1000), &[number; 3000]);
        }
        for number in 101..=120_u8 {
            sockets.send(&poller, &to(path, 40), &[number; 40]);
        }
        let kept: Vec<_> = sockets.slots[0].1.kept.iter().map(|kept| kept.bytes[0]).collect();
        assert_eq!(kept[..2], [0, 1]);
        assert_eq!(kept[2..], (101..=114).collect::<Vec<u8>>());
        // Three batches of three datagrams, and the small ones that were too many.
        assert_eq!(discards(&sockets, Discard::SocketBlocked), 3 * 3 + 6);

        sockets.flush(&poller, ID);
        assert!(sockets.slots[0].1.kept.is_empty());
        assert_eq!((sockets.poll_event(), sockets.poll_event()), (Some((ID, SocketEvent::Writable)), None));
        let mut buffer = [0; 2000];
        let first: Vec<_> = (0..5 + 14)
            .map(|_| peer.recv_from(&mut buffer).map(|(size, _)| (size, buffer[0])).unwrap())
            .collect();
        assert_eq!(first[..5], [(1000, 0), (1000, 0), (1000, 1), (1000, 1), (1000, 1)]);
        assert!(first[5..].iter().all(|(size, _)| *size == 40));
    }

    #[test]
    fn a_further_flow_has_a_port_of_its_own_and_is_heard_on_it() {
        let peer = Plain::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut poller = Poller::new().unwrap();
        let mut sockets = sockets("127.0.0.1:0", None);
        let flow = SocketId::of(LinkId(0), UdpFlow::new(3).unwrap());
        let path = |socket| Path { socket, remote: peer.local_addr().unwrap(), local: None };
        // Not before the link's own socket is there.
        sockets.send(&poller, &to(path(flow), 10), &[0; 10]);
        assert_eq!(sockets.slots.len(), 1);
        sockets.open_all(&poller).unwrap();
        let mut ports = Vec::new();
        for socket in [ID, flow, flow] {
            sockets.send(&poller, &to(path(socket), 10), &[1; 10]);
            ports.push(peer.recv_from(&mut [0; 20]).unwrap().1);
        }
        assert_eq!(sockets.slots.len(), 2);
        assert!(ports[0] != ports[1] && ports[1] == ports[2], "{ports:?}");
        peer.send_to(&[7], ports[1]).unwrap();
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(sockets.id(ready[0].token), Some(flow));
        let mut datagrams = Vec::new();
        sockets.recv(flow, &mut datagrams);
        assert_eq!(datagrams[0].data[..], [7]);
        // A link that is not there has no flows, and its datagrams go nowhere.
        let other = SocketId::of(LinkId(5), UdpFlow::new(1).unwrap());
        sockets.send(&poller, &to(path(other), 10), &[0; 10]);
        assert_eq!((sockets.slots.len(), sockets.id(FIRST_TOKEN + u64::from(other.0))), (2, None));
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
        let near = sockets.slots[0].1.socket.as_ref().unwrap().local_address();
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
    fn a_link_that_goes_takes_its_sockets_with_it_and_leaves_the_others() {
        let peer = Plain::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (poller, monitor) = (Poller::new().unwrap(), Monitor::open().unwrap());
        let spec =
            || SocketSpec { label: "test".to_owned(), bind: "127.0.0.1:0".parse().unwrap(), interface: None };
        let mut sockets = Sockets::new([]);
        for link in 0..3 {
            assert_eq!(sockets.add(LinkId(link), spec(), &monitor, &poller), None);
        }
        let path = |socket| Path { socket, remote: peer.local_addr().unwrap(), local: None };
        let flow = SocketId::of(LinkId(1), UdpFlow::new(2).unwrap());
        for socket in [SocketId(0), SocketId(1), flow, SocketId(2)] {
            sockets.send(&poller, &to(path(socket), 10), &[socket.0; 10]);
        }
        let sent = sockets.counters().sent;
        sockets.remove(LinkId(1));
        assert_eq!((sockets.slots.len(), sockets.counters().sent), (2, sent), "figures only grow");
        for gone in [SocketId(1), flow] {
            assert_eq!(sockets.id(token(gone)), None);
            sockets.send(&poller, &to(path(gone), 10), &[9; 10]);
        }
        sockets.send(&poller, &to(path(SocketId(2)), 10), &[7; 10]);
        // It is there again, with a socket of its own.
        assert_eq!(sockets.add(LinkId(1), spec(), &monitor, &poller), None);
        sockets.send(&poller, &to(path(SocketId(1)), 10), &[8; 10]);
        let heard: Vec<(u8, u16)> = (0..6)
            .map(|_| {
                let mut buffer = [0; 10];
                let (_, from) = peer.recv_from(&mut buffer).unwrap();
                (buffer[0], from.port())
            })
            .collect();
        let bytes: Vec<u8> = heard.iter().map(|(byte, _)| *byte).collect();
        assert_eq!(bytes, [0, 1, flow.0, 2, 7, 8]);
        assert!(heard[3].1 == heard[4].1 && heard[1].1 != heard[5].1, "{heard:?}");
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
