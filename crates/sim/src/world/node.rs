//! A side of the bond: a state machine with the hosts behind it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;

use bonding_netem::Direction;
use bonding_proto::stats::SessionStats;
use bonding_proto::{Datagram, Instant, StateMachine, StreamHost, Timer, Transmit};

use crate::host::Host;
use crate::ledger::Ledger;

/// The most datagrams in one batch: a UDP GSO send's.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

/// A state machine with visible figures.
pub trait Observed: StateMachine + StreamHost {
    /// The figures of its (only) session; `None` if it has no session.
    fn session_stats(&self, now: Instant) -> Option<SessionStats>;

    /// A link's interface lost its carrier, or has it again.
    fn handle_carrier(&mut self, link: usize, present: bool, now: Instant) {
        let _ = (link, present, now);
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

    /// The side that receives what is sent in `direction`.
    pub(super) const fn receiving(direction: Direction) -> Self {
        match direction {
            Direction::Up => Self::Server,
            Direction::Down => Self::Client,
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

impl<M: StateMachine> Node<M> {
    pub(super) fn new(machine: M) -> Self {
        Self {
            machine,
            host: Host::new(),
            refused_packets: 0,
            refused_datagrams: 0,
            waiting: VecDeque::new(),
        }
    }

    /// The state machine's deadline, with its reason.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.machine.poll_timeout().map(|(at, timer): (Instant, Timer)| (at, timer.word()))
    }

    /// Calls the state machine's timeout if it is due; gives whether it was.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.machine.poll_timeout().is_some_and(|(due, _)| due <= now);
        if is_due {
            self.machine.handle_timeout(now);
        }
        is_due
    }

    /// Keeps a datagram until the side runs again.
    pub(super) fn wait(&mut self, datagram: Datagram, now: Instant) {
        self.waiting.push_back((now, datagram));
    }

    /// The datagrams that waited while the side stood still; each knows how long it waited.
    pub(super) fn take_waiting(&mut self, now: Instant) -> impl Iterator<Item = Datagram> + use<M> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(move |(arrived_at, datagram)| Datagram {
            waited: now.saturating_since(arrived_at),
            ..datagram
        })
    }

    /// A datagram reaches the state machine.
    pub(super) fn handle_datagram(&mut self, datagram: Datagram, now: Instant) {
        let taken = self.machine.handle_datagram(datagram, now);
        self.refused_datagrams += u64::from(taken.is_err());
    }

    /// Lets the hosts serve the streams. Whether there was anything to do.
    pub(super) fn handle_streams(&mut self, now: Instant) -> bool
    where
        M: StreamHost,
    {
        self.host.handle_streams(&mut self.machine, now)
    }

    /// The next batch that the state machine sends; its bytes replace those of `buf`.
    pub(super) fn poll_transmit(&mut self, buf: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        buf.clear();
        self.machine.poll_transmit(buf, SEGMENTS_MAX, now)
    }

    /// Hands the state machine's next packet to the hosts; `false`: there is no packet. `ledger` is
    /// that of the direction in which the side receives. Packets from `intruder` go nowhere.
    pub(super) fn packet_to_host(
        &mut self,
        ledger: &mut Ledger,
        intruder: Option<Ipv4Addr>,
        now: Instant,
    ) -> bool {
        let Some(packet) = self.machine.poll_packet() else { return false };
        if intruder.is_some_and(|address| packet.get(12..16) == Some(address.octets().as_slice())) {
            return true;
        }
        ledger.leave(&packet, now);
        self.host.handle_packet(&packet, now);
        true
    }

    /// Hands the hosts' next packet to the state machine; `false`: there is no packet. `ledger` is
    /// that of the direction in which the side sends.
    pub(super) fn packet_from_host(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        let Some(packet) = self.host.poll_packet(now) else { return false };
        ledger.enter(&packet, now);
        let taken = self.machine.handle_packet(packet, now);
        self.refused_packets += u64::from(taken.is_err());
        true
    }
}
