//! The virtual-time world: two state machines, the links between them, the hosts behind them.
//!
//! A discrete event loop: it processes all that is due, then time jumps to the earliest deadline of
//! any state machine, link or host. Processing takes no time. The world obeys the contract of
//! [`bonding_proto::StateMachine`]: after every input every output is drained.
//!
//! Every run is checked by: the ledgers of both directions ([`crate::ledger`]), a count of
//! datagrams sent to unknown addresses, a deadline that does not advance (the run panics and names
//! the reason), and samples of the sessions' queues.
//!
//! The world does not know the contents of a datagram, with two exceptions: the log of packets
//! recognises the inner packet of a plain data frame, and the handshakes' bytes are counted here
//! because no session counts them.

mod links;
mod node;
mod stalls;
mod watch;

use std::net::IpAddr;
use std::time::Duration;

use bonding_netem::{Counters, Direction, Scenario, Time};
use bonding_proto::{Datagram, Instant, Path, SocketId, Transmit};

pub use self::links::UncountedBytes;
use self::links::{Flight, Links};
pub use self::node::{Node, Observed, Side};
pub use self::stalls::Stalls;
use self::watch::{Happened, Rounds, TraceHash};
use crate::competitor::Competitor;
use crate::inet;
use crate::intruder::Intruder;
use crate::ledger::Ledger;
use crate::mangle::Mangler;
use crate::outer::{SERVER_OUTER, socket};

/// Bytes ahead of the inner packet in a plain datagram.
const FRAME_HEADER: usize = 11;
/// Packets given to a state machine between two drains: the segments of one TUN super-packet.
const PACKETS_AT_ONCE: usize = 48;
/// How often a state machine may be due again at once after its timeout was handled.
const DUE_AGAIN_MAX: u32 = 8;

/// Client, server, links and hosts.
#[derive(Debug)]
pub struct World<C, S> {
    now: Instant,
    /// The client.
    pub client: Node<C>,
    /// The server.
    pub server: Node<S>,
    links: Links,
    /// Packets that entered the bond at the client and leave at the server.
    pub ledger_up: Ledger,
    /// Packets that entered the bond at the server and leave at the client.
    pub ledger_down: Ledger,
    mangler: Option<Mangler>,
    stalls: Option<Stalls>,
    intruder: Option<Intruder>,
    trace: TraceHash,
    rounds: Rounds,
    /// The bytes of the batch that a state machine sends.
    buf: Vec<u8>,
}

impl<C: Observed, S: Observed> World<C, S> {
    /// A world over the links of `scenario`, at its start. `seed` is the links' seed.
    pub fn new(client: C, server: S, scenario: &Scenario, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            client: Node::new(client),
            server: Node::new(server),
            links: Links::new(scenario, seed),
            ledger_up: Ledger::new(),
            ledger_down: Ledger::new(),
            mangler: None,
            stalls: None,
            intruder: None,
            trace: TraceHash::default(),
            rounds: Rounds::default(),
            buf: Vec::new(),
        }
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash over every datagram sent and delivered, each with time, link and direction.
    pub fn trace_hash(&self) -> u64 {
        self.trace.value()
    }

    /// Datagrams sent to an address or from a socket without a link. A NAT would drop them, so they
    /// are dropped here.
    pub fn misrouted(&self) -> u64 {
        self.links.misrouted()
    }

    /// Number of links.
    pub fn link_count(&self) -> usize {
        self.links.count()
    }

    /// A link's name.
    pub fn link_name(&self, link: usize) -> &str {
        self.links.name(link)
    }

    /// The counters of one direction of a link.
    pub fn link_counters(&mut self, link: usize, direction: Direction) -> Counters {
        self.links.counters(link, direction, self.now)
    }

    /// The bytes that one direction of a link carries in `span` at its current rate, and the
    /// duration of its queue; `None` for a link that does not exist, has no rate, or stands still.
    pub fn link_present(
        &mut self,
        link: usize,
        direction: Direction,
        span: Duration,
    ) -> (Option<u64>, Option<Duration>) {
        self.links.present(link, direction, span, self.now)
    }

    /// Bytes that no session counts in one direction of a link.
    pub fn uncounted_bytes(&self, link: usize, direction: Direction) -> UncountedBytes {
        self.links.uncounted(link, direction)
    }

    /// Bytes in the queue of one direction of a link.
    pub fn link_queue_bytes(&self, link: usize, direction: Direction) -> u64 {
        self.links.queue_bytes(link, direction)
    }

    /// Changes one direction of a link now.
    pub fn change_link(&mut self, link: usize, direction: Direction, change: bonding_netem::Change) {
        self.links.change(link, direction, change, self.now);
    }

    /// UDP flows on which the client sent on a link so far.
    pub fn flows_opened(&self, link: usize) -> u32 {
        self.links.flows_opened(link)
    }

    /// Adds a competitor to one direction of a link.
    pub fn set_competitor(&mut self, link: usize, direction: Direction, competitor: Competitor) {
        self.links.set_competitor(link, direction, competitor);
    }

    /// The competitor.
    pub fn competitor(&self) -> Option<&Competitor> {
        self.links.competitor()
    }

    /// Makes both sides stand still at times from now on; `None`: no longer.
    pub const fn set_stalls(&mut self, stalls: Option<Stalls>) {
        self.stalls = stalls;
    }

    /// A second client attacks the server from now on.
    pub fn set_intruder(&mut self, intruder: Option<Intruder>) {
        self.intruder = intruder;
    }

    /// The second client.
    pub const fn intruder(&self) -> Option<&Intruder> {
        self.intruder.as_ref()
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
        self.links.rebind(link);
    }

    /// The client is restarted as `machine`.
    pub fn restart_client(&mut self, machine: C) {
        self.client.machine = machine;
    }

    /// The server is restarted as `machine`.
    pub fn restart_server(&mut self, machine: S) {
        self.server.machine = machine;
    }

    /// Runs for `span` more.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
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
                self.rounds.reset();
            }
            self.rounds.count(reason, self.now);
            self.fire();
        }
        self.now = self.now.max(end);
    }

    fn next_due(&self) -> Option<(Instant, &'static str)> {
        let machine = |side| {
            let stall = self.stalled_until(side).map(|end| (end, "stall"));
            stall.or_else(|| self.machine_due(side))
        };
        [
            machine(Side::Client),
            machine(Side::Server),
            self.client.host.poll_timeout(),
            self.server.host.poll_timeout(),
            self.links.poll_timeout(),
            self.intruder.as_ref().map(|intruder| (intruder.poll_timeout(), "intruder")),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, _)| *due)
    }

    fn machine_due(&self, side: Side) -> Option<(Instant, &'static str)> {
        match side {
            Side::Client => self.client.poll_timeout(),
            Side::Server => self.server.poll_timeout(),
        }
    }

    fn stalled_until(&self, side: Side) -> Option<Instant> {
        self.stalls.and_then(|stalls| stalls.until(side, self.now))
    }

    /// Processes all that is due now.
    fn fire(&mut self) {
        for index in 0..self.links.count() {
            self.deliver(index, Direction::Up);
            self.deliver(index, Direction::Down);
        }
        let now = self.now;
        while let Some(datagram) = self.intruder.as_mut().and_then(|intruder| intruder.poll(now)) {
            self.hand_over(Side::Server, datagram);
        }
        while let Some((link, present)) = self.links.poll_carrier(now) {
            self.client.machine.handle_carrier(link, present, now);
        }
        self.links.run_competitor(now);
        self.resume();
        self.client.host.handle_timeout(now);
        self.server.host.handle_timeout(now);
        self.settle();
        self.timeout(Side::Client);
        self.timeout(Side::Server);
    }

    /// Hands over the datagrams that waited while a side stood still.
    fn resume(&mut self) {
        if self.stalled_until(Side::Client).is_none() {
            for datagram in self.client.take_waiting(self.now) {
                self.take(Side::Client, datagram);
            }
        }
        if self.stalled_until(Side::Server).is_none() {
            for datagram in self.server.take_waiting(self.now) {
                self.take(Side::Server, datagram);
            }
        }
    }

    /// Calls a state machine's timeout while it is due.
    fn timeout(&mut self, side: Side) {
        if self.stalled_until(side).is_some() {
            return;
        }
        for _ in 0..DUE_AGAIN_MAX {
            let was_due = match side {
                Side::Client => self.client.handle_timeout(self.now),
                Side::Server => self.server.handle_timeout(self.now),
            };
            if !was_due {
                return;
            }
            self.settle();
        }
        panic!(
            "busy loop at {:?}: the {side:?} is due again at once, {DUE_AGAIN_MAX} times: {:?}",
            self.now,
            self.machine_due(side)
        );
    }

    /// Hands over the datagrams that have arrived on one direction of a link.
    fn deliver(&mut self, index: usize, direction: Direction) {
        let now = self.now;
        while let Some(Flight { from, flow, data, is_marked, .. }) =
            self.links.poll_deliver(index, direction, now)
        {
            self.trace.note(Happened::Delivered, index, direction, &data, now);
            if let Some(packet) = data.get(FRAME_HEADER..) {
                self.ledger_of(direction).arrived(packet, now);
            }
            // A client's socket is bound to its link. A server's listener reports the address that
            // the datagram was sent to.
            let local = (direction == Direction::Up).then_some(IpAddr::V4(SERVER_OUTER));
            let socket = match direction {
                Direction::Up => socket(index),
                Direction::Down => SocketId::of(socket(index).link(), flow),
            };
            let path = Path { socket, remote: from, local };
            let datagram = |data| Datagram { is_marked, ..Datagram::new(path, data) };
            let side = Side::receiving(direction);
            match &mut self.mangler {
                Some(mangler) => {
                    for data in mangler.pass(index, direction, data) {
                        self.hand_over(side, datagram(data));
                    }
                }
                None => self.hand_over(side, datagram(data)),
            }
        }
    }

    /// A datagram arrives at a side, which may stand still.
    fn hand_over(&mut self, side: Side, datagram: Datagram) {
        match side {
            _ if self.stalled_until(side).is_none() => self.take(side, datagram),
            Side::Client => self.client.wait(datagram, self.now),
            Side::Server => self.server.wait(datagram, self.now),
        }
    }

    /// A datagram reaches a side's state machine.
    fn take(&mut self, side: Side, datagram: Datagram) {
        match side {
            Side::Client => self.client.handle_datagram(datagram, self.now),
            Side::Server => self.server.handle_datagram(datagram, self.now),
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
            self.rounds.count("packets and datagrams", self.now);
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
        while self.packet_to_host(side) {
            moved = true;
        }
        moved |= match side {
            Side::Client => self.client.handle_streams(self.now),
            Side::Server => self.server.handle_streams(self.now),
        };
        for _ in 0..PACKETS_AT_ONCE {
            if !self.packet_from_host(side) {
                break;
            }
            moved = true;
        }
        moved
    }

    fn packet_to_host(&mut self, side: Side) -> bool {
        match side {
            Side::Client => self.client.packet_to_host(&mut self.ledger_down, None, self.now),
            Side::Server => {
                let intruder = self.intruder.as_ref().map(|_| inet::INTRUDER);
                self.server.packet_to_host(&mut self.ledger_up, intruder, self.now)
            }
        }
    }

    fn packet_from_host(&mut self, side: Side) -> bool {
        match side {
            Side::Client => self.client.packet_from_host(&mut self.ledger_up, self.now),
            Side::Server => self.server.packet_from_host(&mut self.ledger_down, self.now),
        }
    }

    fn poll_transmit(&mut self, side: Side) -> Option<Transmit> {
        match side {
            Side::Client => self.client.poll_transmit(&mut self.buf, self.now),
            Side::Server => self.server.poll_transmit(&mut self.buf, self.now),
        }
    }

    /// Puts a batch on the link that its path names.
    fn route(&mut self, side: Side, transmit: &Transmit) {
        let (buf, now) = (std::mem::take(&mut self.buf), self.now);
        assert_eq!(buf.len(), transmit.size, "{side:?}: a transmit names the bytes that it appended");
        let index = match side {
            Side::Client => transmit.path.socket.link().index(),
            Side::Server => transmit.path.socket.index(),
        };
        let direction = side.sends();
        for data in buf.chunks(transmit.segment_size.max(1)) {
            if let Some(intruder) = self.intruder.as_mut().filter(|it| it.is_at(transmit.path.remote)) {
                intruder.handle(data, now);
                continue;
            }
            if !self.links.send(side, transmit, data, now) {
                continue;
            }
            self.trace.note(Happened::Sent, index, direction, data, now);
            if let Some(packet) = data.get(FRAME_HEADER..) {
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
}

fn netem_time(now: Instant) -> Time {
    Time::from_nanos(now.as_nanos())
}

fn proto_time(time: Time) -> Instant {
    Instant::from_nanos(time.as_nanos())
}
