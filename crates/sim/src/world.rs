//! The virtual-time world: two state machines, the links between them, the hosts behind them.
//!
//! A discrete event loop: it processes all that is due, then time jumps to the earliest deadline of
//! any state machine, link or host. Processing takes no time. The world obeys the contract of
//! [`StateMachine`]: after every input every output is drained.
//!
//! Every run is checked by: the ledgers of both directions ([`crate::ledger`]), a count of
//! datagrams sent to unknown addresses, a deadline that does not advance (the run panics and names
//! the reason), and samples of the sessions' queues.
//!
//! The world does not know the contents of a datagram, with two exceptions: the log of packets
//! recognises the inner packet of a plain data frame, and the handshakes' bytes are counted here
//! because no session counts them.

mod stalls;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bonding_netem::{Counters, Direction, Pipe, Scenario, Time};
use bonding_proto::stats::SessionStats;
use bonding_proto::wire::sealed::DatagramKind;
use bonding_proto::{Datagram, Instant, PacketBuf, Path, StateMachine, Timer, Transmit};
use bytes::BytesMut;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::stalls::Stalls;
use crate::competitor::{self, Competitor};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::mangle::Mangler;
use crate::outer::{SERVER_OUTER, UDP_OVERHEAD, byte, client_address, server_address, socket};

/// Bytes ahead of the inner packet in a plain datagram.
const FRAME_HEADER: usize = 11;
/// The most datagrams in one batch: a UDP GSO send's.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");
/// Packets given to a state machine between two drains: the segments of one TUN super-packet.
const PACKETS_AT_ONCE: usize = 48;
/// Rounds without a change of time after which a run counts as stuck. A burst is a few thousand.
const ROUNDS_MAX: u32 = 100_000;
/// How often a state machine may be due again at once after its timeout was handled.
const DUE_AGAIN_MAX: u32 = 8;

/// A state machine with visible figures.
pub trait Observed: StateMachine {
    /// The figures of its (only) session; `None` if it has no session.
    fn session_stats(&self, now: Instant) -> Option<SessionStats>;

    /// A link's interface lost its carrier, or has it again.
    fn handle_carrier(&mut self, link: usize, present: bool, now: Instant) {
        let _ = (link, present, now);
    }
}

/// A datagram in flight.
#[derive(Debug, Clone)]
struct Flight {
    from: SocketAddr,
    data: BytesMut,
    /// A router marked it.
    is_marked: bool,
    /// The number of a competitor's segment, which has no data.
    competitor: Option<u64>,
}

/// One link: a pipe in each direction and the addresses at its ends.
#[derive(Debug)]
struct Link {
    name: String,
    up: Pipe<Flight>,
    down: Pipe<Flight>,
    client: SocketAddr,
    server: SocketAddr,
    /// Bytes that no session counts; up and down.
    uncounted: [UncountedBytes; 2],
}

/// Bytes of handshakes and of a competitor in one direction of a link, counted as in [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UncountedBytes {
    /// Offered to the link.
    pub offered: u64,
    /// Delivered by the link.
    pub delivered: u64,
}

/// Bytes of a datagram as its link counts them.
fn link_bytes(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX).saturating_add(UDP_OVERHEAD.into())
}

/// Those bytes if the datagram belongs to a handshake, otherwise 0.
fn handshake_bytes(data: &[u8]) -> u64 {
    match DatagramKind::of(data) {
        Some(DatagramKind::Initiation | DatagramKind::Response | DatagramKind::Cookie) => {
            link_bytes(data).into()
        }
        Some(DatagramKind::Sealed) | None => 0,
    }
}

impl Link {
    fn uncounted_mut(&mut self, direction: Direction) -> &mut UncountedBytes {
        let [up, down] = &mut self.uncounted;
        match direction {
            Direction::Up => up,
            Direction::Down => down,
        }
    }

    fn pipe_mut(&mut self, direction: Direction) -> &mut Pipe<Flight> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn pipe(&self, direction: Direction) -> &Pipe<Flight> {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// A state machine with the hosts behind it.
#[derive(Debug)]
pub struct Node<M> {
    /// The state machine.
    pub machine: M,
    /// The hosts.
    pub host: Host,
    /// Packets that the state machine refused.
    pub refused_packets: u64,
    /// Datagrams that the state machine refused.
    pub refused_datagrams: u64,
    /// Datagrams that arrived while the side stood still, with their times.
    waiting: VecDeque<(Instant, Datagram)>,
}

impl<M> Node<M> {
    fn new(machine: M) -> Self {
        Self {
            machine,
            host: Host::new(),
            refused_packets: 0,
            refused_datagrams: 0,
            waiting: VecDeque::new(),
        }
    }
}

/// A side of the bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl Side {
    /// The direction in which it sends.
    pub const fn sends(self) -> Direction {
        match self {
            Self::Client => Direction::Up,
            Self::Server => Direction::Down,
        }
    }
}

/// Client, server, links and hosts.
#[derive(Debug)]
pub struct World<C, S> {
    now: Instant,
    /// The client.
    pub client: Node<C>,
    /// The server.
    pub server: Node<S>,
    links: Vec<Link>,
    /// Events that the client's interfaces have not reported yet: time, link, and whether the link
    /// has a carrier.
    carriers: VecDeque<(Instant, usize, bool)>,
    /// Packets that entered the bond at the client and leave at the server.
    pub ledger_up: Ledger,
    /// Packets that entered the bond at the server and leave at the client.
    pub ledger_down: Ledger,
    mangler: Option<Mangler>,
    competitor: Option<(usize, Direction, Competitor)>,
    stalls: Option<Stalls>,
    trace: u64,
    misrouted: u64,
    rounds: u32,
    reasons: BTreeMap<&'static str, u32>,
    buf: Vec<u8>,
}

impl<C: Observed, S: Observed> World<C, S> {
    /// A world over the links of `scenario`, at its start. `seed` is the links' seed.
    pub fn new(client: C, server: S, scenario: &Scenario, seed: u64) -> Self {
        let pipe = |link, direction| scenario.pipe_with_events(link, direction, seed, Time::ZERO);
        let links = scenario.links.iter().enumerate().map(|(index, link)| Link {
            name: link.name.clone(),
            up: pipe(link, Direction::Up),
            down: pipe(link, Direction::Down),
            client: client_address(index),
            server: server_address(index),
            uncounted: [UncountedBytes::default(); 2],
        });
        let carriers = scenario.carriers.iter().filter_map(|event| {
            Some((Instant::ZERO + event.at, scenario.link_index(&event.link)?, event.present))
        });
        Self {
            now: Instant::ZERO,
            client: Node::new(client),
            server: Node::new(server),
            links: links.collect(),
            carriers: carriers.collect(),
            ledger_up: Ledger::new(),
            ledger_down: Ledger::new(),
            mangler: None,
            competitor: None,
            stalls: None,
            trace: 0,
            misrouted: 0,
            rounds: 0,
            reasons: BTreeMap::new(),
            buf: Vec::new(),
        }
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash over every datagram sent and delivered, each with time, link and direction.
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    /// Datagrams sent to an address or from a socket without a link. A NAT would drop them, so they
    /// are dropped here.
    pub fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// Number of links.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// A link's name.
    pub fn link_name(&self, link: usize) -> &str {
        self.links.get(link).map_or("", |link| link.name.as_str())
    }

    /// The counters of one direction of a link.
    pub fn link_counters(&mut self, link: usize, direction: Direction) -> Counters {
        let now = netem_time(self.now);
        self.links.get_mut(link).map_or_else(Counters::default, |link| {
            let pipe = link.pipe_mut(direction);
            pipe.advance(now);
            pipe.counters()
        })
    }

    /// The bytes that one direction of a link carries in `span` at its current rate, and the
    /// duration of its queue; `None` for a link that does not exist, has no rate, or stands still.
    pub fn link_present(
        &mut self,
        link: usize,
        direction: Direction,
        span: Duration,
    ) -> (Option<u64>, Option<Duration>) {
        let now = netem_time(self.now);
        let Some(link) = self.links.get_mut(link) else { return (None, None) };
        let pipe = link.pipe_mut(direction);
        pipe.advance(now);
        let from = bonding_netem::Time::ZERO + (now - bonding_netem::Time::ZERO).saturating_sub(span);
        let bytes = if pipe.is_out() { Some(0) } else { pipe.config().rate.bytes_between(from, now) };
        (bytes, pipe.queue_delay())
    }

    /// Bytes that no session counts in one direction of a link.
    pub fn uncounted_bytes(&mut self, link: usize, direction: Direction) -> UncountedBytes {
        let link = self.links.get_mut(link);
        link.map_or_else(UncountedBytes::default, |link| *link.uncounted_mut(direction))
    }

    /// Changes one direction of a link now.
    pub fn change_link(&mut self, link: usize, direction: Direction, change: bonding_netem::Change) {
        let now = netem_time(self.now);
        if let Some(link) = self.links.get_mut(link) {
            link.pipe_mut(direction).apply(change, now);
        }
    }

    /// Adds a competitor to one direction of a link.
    pub fn set_competitor(&mut self, link: usize, direction: Direction, competitor: Competitor) {
        self.competitor = Some((link, direction, competitor));
    }

    /// The competitor.
    pub fn competitor(&self) -> Option<&Competitor> {
        self.competitor.as_ref().map(|(_, _, competitor)| competitor)
    }

    /// Makes both sides stand still at times from now on; `None`: no longer.
    pub const fn set_stalls(&mut self, stalls: Option<Stalls>) {
        self.stalls = stalls;
    }

    /// Damages datagrams from now on.
    pub fn set_mangler(&mut self, mangler: Option<Mangler>) {
        self.mangler = mangler;
    }

    /// The source of the damage, for its counts.
    pub fn mangler(&self) -> Option<&Mangler> {
        self.mangler.as_ref()
    }

    /// The client's NAT gives link `link` another port from now on; datagrams to the old port are
    /// lost.
    pub fn rebind(&mut self, link: usize) {
        if let Some(link) = self.links.get_mut(link) {
            link.client.set_port(link.client.port().wrapping_add(1));
        }
    }

    /// The client is restarted as `machine`.
    pub fn restart_client(&mut self, machine: C) {
        self.client.machine = machine;
    }

    /// The server is restarted as `machine`.
    pub fn restart_server(&mut self, machine: S) {
        self.server.machine = machine;
    }

    /// Runs until `end`, with all that is due at `end`.
    ///
    /// # Panics
    /// If a deadline is due again and again without a change of time; the message names its reason.
    pub fn run_until(&mut self, end: Instant) {
        self.settle();
        while let Some((due, reason)) = self.next_due() {
            if due > end {
                break;
            }
            if due > self.now {
                self.now = due;
                self.rounds = 0;
                self.reasons.clear();
            }
            self.count_round(reason);
            self.fire();
        }
        self.now = self.now.max(end);
    }

    fn count_round(&mut self, reason: &'static str) {
        self.rounds += 1;
        *self.reasons.entry(reason).or_default() += 1;
        assert!(
            self.rounds < ROUNDS_MAX,
            "busy loop at {:?}: {ROUNDS_MAX} rounds without time moving on, for {:?}",
            self.now,
            self.reasons
        );
    }

    fn next_due(&self) -> Option<(Instant, &'static str)> {
        let links = self.links.iter().flat_map(|link| {
            let up = link.up.poll_timeout().map(|due| (proto_time(due), "link up"));
            let down = link.down.poll_timeout().map(|due| (proto_time(due), "link down"));
            up.into_iter().chain(down)
        });
        let competitor = self.competitor.as_ref().and_then(|(_, _, competitor)| competitor.poll_timeout());
        let machine = |side, due: Option<(Instant, Timer)>| {
            let due = due.map(|(at, timer)| (at, timer.word()));
            self.stalled_until(side).map(|end| (end, "stall")).or(due)
        };
        [
            competitor.map(|due| (due, "competitor")),
            machine(Side::Client, self.client.machine.poll_timeout()),
            machine(Side::Server, self.server.machine.poll_timeout()),
            self.client.host.poll_timeout(),
            self.server.host.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .chain(links)
        .chain(self.carriers.front().map(|(due, ..)| (*due, "carrier")))
        .min_by_key(|(due, _)| *due)
    }

    fn stalled_until(&self, side: Side) -> Option<Instant> {
        self.stalls.and_then(|stalls| stalls.until(side, self.now))
    }

    /// Processes all that is due now.
    fn fire(&mut self) {
        for index in 0..self.links.len() {
            self.deliver(index, Direction::Up);
            self.deliver(index, Direction::Down);
        }
        let now = self.now;
        while let Some((_, link, present)) = self.carriers.pop_front_if(|(due, ..)| *due <= now) {
            self.client.machine.handle_carrier(link, present, now);
        }
        self.run_competitor();
        self.resume();
        self.client.host.handle_timeout(now);
        self.server.host.handle_timeout(now);
        self.settle();
        self.timeout(Side::Client);
        self.timeout(Side::Server);
    }

    /// Hands over the datagrams that waited while a side stood still.
    fn resume(&mut self) {
        for (side, direction) in [(Side::Client, Direction::Down), (Side::Server, Direction::Up)] {
            if self.stalled_until(side).is_some() {
                continue;
            }
            let waiting = match side {
                Side::Client => &mut self.client.waiting,
                Side::Server => &mut self.server.waiting,
            };
            for (arrived_at, datagram) in std::mem::take(waiting) {
                let waited = self.now.saturating_since(arrived_at);
                self.take(direction, Datagram { waited, ..datagram });
            }
        }
    }

    /// Calls a state machine's timeout while it is due.
    fn timeout(&mut self, side: Side) {
        if self.stalled_until(side).is_some() {
            return;
        }
        for _ in 0..DUE_AGAIN_MAX {
            let due = match side {
                Side::Client => self.client.machine.poll_timeout(),
                Side::Server => self.server.machine.poll_timeout(),
            };
            if due.is_none_or(|(due, _)| due > self.now) {
                return;
            }
            match side {
                Side::Client => self.client.machine.handle_timeout(self.now),
                Side::Server => self.server.machine.handle_timeout(self.now),
            }
            self.settle();
        }
        let due = match side {
            Side::Client => self.client.machine.poll_timeout(),
            Side::Server => self.server.machine.poll_timeout(),
        };
        panic!(
            "busy loop at {:?}: the {side:?} is due again at once, {DUE_AGAIN_MAX} times: {:?}",
            self.now,
            due.map(|(at, timer)| (at, timer.word()))
        );
    }

    /// Hands over the datagrams that have arrived on one direction of a link.
    fn deliver(&mut self, index: usize, direction: Direction) {
        let time = netem_time(self.now);
        loop {
            let Some(link) = self.links.get_mut(index) else { return };
            let Some(flight) = link.pipe_mut(direction).poll_deliver(time) else { return };
            if let Some(number) = flight.competitor {
                link.uncounted_mut(direction).delivered += u64::from(competitor::SEGMENT_BYTES);
                if let Some((_, _, competitor)) = &mut self.competitor {
                    competitor.on_delivered(number, self.now);
                }
                continue;
            }
            link.uncounted_mut(direction).delivered += handshake_bytes(&flight.data);
            self.note(2, index, direction, &flight.data);
            if let Some(packet) = flight.data.get(FRAME_HEADER..) {
                let now = self.now;
                self.ledger_of(direction).arrived(packet, now);
            }
            // A client's socket is bound to its link. A server's listener reports the address that
            // the datagram was sent to.
            let local = (direction == Direction::Up).then_some(IpAddr::V4(SERVER_OUTER));
            let path = Path { socket: socket(index), remote: flight.from, local };
            match &mut self.mangler {
                Some(mangler) => {
                    for data in mangler.pass(index, direction, flight.data) {
                        self.hand_over(direction, path, data, flight.is_marked);
                    }
                }
                None => self.hand_over(direction, path, flight.data, flight.is_marked),
            }
        }
    }

    /// Puts the competitor's segments on its link.
    fn run_competitor(&mut self) {
        let Some((index, direction, competitor)) = &mut self.competitor else { return };
        let Some(link) = self.links.get_mut(*index) else { return };
        competitor.handle_timeout(self.now);
        while let Some(number) = competitor.poll_segment(self.now) {
            link.uncounted_mut(*direction).offered += u64::from(competitor::SEGMENT_BYTES);
            let from = link.client;
            let flight = Flight { from, data: BytesMut::new(), is_marked: false, competitor: Some(number) };
            let time = netem_time(self.now);
            let _ = link.pipe_mut(*direction).enqueue(flight, competitor::SEGMENT_BYTES, time);
        }
    }

    fn hand_over(&mut self, direction: Direction, path: Path, data: BytesMut, is_marked: bool) {
        let datagram = Datagram { is_marked, ..Datagram::new(path, data) };
        match direction {
            Direction::Up if self.stalled_until(Side::Server).is_some() => {
                self.server.waiting.push_back((self.now, datagram))
            }
            Direction::Down if self.stalled_until(Side::Client).is_some() => {
                self.client.waiting.push_back((self.now, datagram))
            }
            Direction::Up | Direction::Down => self.take(direction, datagram),
        }
    }

    /// A datagram reaches the side that `direction` leads to.
    fn take(&mut self, direction: Direction, datagram: Datagram) {
        match direction {
            Direction::Up => {
                let taken = self.server.machine.handle_datagram(datagram, self.now);
                self.server.refused_datagrams += u64::from(taken.is_err());
            }
            Direction::Down => {
                let taken = self.client.machine.handle_datagram(datagram, self.now);
                self.client.refused_datagrams += u64::from(taken.is_err());
            }
        }
        self.settle();
    }

    /// Drains every output and passes packets on until there are none.
    fn settle(&mut self) {
        loop {
            let moved = self.settle_side(Side::Client) | self.settle_side(Side::Server);
            if !moved {
                return;
            }
            self.count_round("packets and datagrams");
        }
    }

    fn settle_side(&mut self, side: Side) -> bool {
        if self.stalled_until(side).is_some() {
            return false;
        }
        let mut moved = false;
        while let Some(transmit) = self.poll_transmit(side) {
            moved = true;
            self.route(side, &transmit);
        }
        while let Some(packet) = self.poll_packet(side) {
            moved = true;
            match side {
                Side::Client => {
                    self.ledger_down.leave(&packet, self.now);
                    self.client.host.handle_packet(&packet, self.now);
                }
                Side::Server => {
                    self.ledger_up.leave(&packet, self.now);
                    self.server.host.handle_packet(&packet, self.now);
                }
            }
        }
        for _ in 0..PACKETS_AT_ONCE {
            if !self.take_from_host(side) {
                break;
            }
            moved = true;
        }
        moved
    }

    fn take_from_host(&mut self, side: Side) -> bool {
        let now = self.now;
        match side {
            Side::Client => {
                let Some(packet) = self.client.host.poll_packet(now) else { return false };
                self.ledger_up.enter(&packet, now);
                let taken = self.client.machine.handle_packet(packet, now);
                self.client.refused_packets += u64::from(taken.is_err());
            }
            Side::Server => {
                let Some(packet) = self.server.host.poll_packet(now) else { return false };
                self.ledger_down.enter(&packet, now);
                let taken = self.server.machine.handle_packet(packet, now);
                self.server.refused_packets += u64::from(taken.is_err());
            }
        }
        true
    }

    fn poll_packet(&mut self, side: Side) -> Option<PacketBuf> {
        match side {
            Side::Client => self.client.machine.poll_packet(),
            Side::Server => self.server.machine.poll_packet(),
        }
    }

    fn poll_transmit(&mut self, side: Side) -> Option<Transmit> {
        self.buf.clear();
        match side {
            Side::Client => self.client.machine.poll_transmit(&mut self.buf, SEGMENTS_MAX, self.now),
            Side::Server => self.server.machine.poll_transmit(&mut self.buf, SEGMENTS_MAX, self.now),
        }
    }

    /// Puts a batch on the link that its path names.
    fn route(&mut self, side: Side, transmit: &Transmit) {
        let buf = std::mem::take(&mut self.buf);
        assert_eq!(buf.len(), transmit.size, "{side:?}: a transmit names the bytes that it appended");
        let index = transmit.path.socket.index();
        let direction = side.sends();
        let time = netem_time(self.now);
        for data in buf.chunks(transmit.segment_size.max(1)) {
            let Some(link) = self.links.get_mut(index) else {
                self.misrouted += 1;
                continue;
            };
            let (from, to) = match side {
                Side::Client => (link.client, link.server),
                Side::Server => (link.server, link.client),
            };
            if transmit.path.remote != to {
                self.misrouted += 1;
                continue;
            }
            let is_marked = transmit.is_ect && link.pipe_mut(direction).marks(time);
            let flight = Flight { from, data: BytesMut::from(data), is_marked, competitor: None };
            link.uncounted_mut(direction).offered += handshake_bytes(data);
            // The link counts the datagrams that it drops.
            let _ = link.pipe_mut(direction).enqueue(flight, link_bytes(data), time);
            self.note(1, index, direction, data);
            if let Some(packet) = data.get(FRAME_HEADER..) {
                let now = self.now;
                self.ledger_of(direction).sent(packet, index, now);
            }
        }
        self.buf = buf;
    }

    fn ledger_of(&mut self, direction: Direction) -> &mut Ledger {
        match direction {
            Direction::Up => &mut self.ledger_up,
            Direction::Down => &mut self.ledger_down,
        }
    }

    fn note(&mut self, what: u8, link: usize, direction: Direction, data: &[u8]) {
        let mut head = [0; 12];
        let (time, rest) = head.split_at_mut(8);
        time.copy_from_slice(&self.now.as_nanos().to_be_bytes());
        let up = u8::from(direction == Direction::Up);
        for (place, value) in rest.iter_mut().zip([what, byte(link), up]) {
            *place = value;
        }
        self.trace = xxh3_64_with_seed(data, xxh3_64_with_seed(&head, self.trace));
    }

    /// Bytes in the queue of one direction of a link.
    pub fn link_queue_bytes(&self, link: usize, direction: Direction) -> u64 {
        self.links.get(link).map_or(0, |link| link.pipe(direction).counters().queue_bytes)
    }

    /// Runs for `span` more.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }
}

fn netem_time(now: Instant) -> Time {
    Time::from_nanos(now.as_nanos())
}

fn proto_time(time: Time) -> Instant {
    Instant::from_nanos(time.as_nanos())
}
