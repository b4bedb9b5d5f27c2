//! The records of a trace: plain values of a fixed size.

pub use crate::link::{Cause, PhaseKind};
use crate::packet::LinkId;
use crate::time::Instant;
use crate::view::LinkState;
use crate::wire::COUNTER_BITS;

/// How much is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Off,
    /// Decisions.
    Decisions,
    /// Decisions, and every data packet that is sent.
    Packets,
}

/// Declares a set of values that have a number in files and a name for people.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$each:meta])* $variant:ident = $id:literal $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$each])* $variant = $id,)* }

        impl $type {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value's number in files.
            pub const fn id(self) -> u8 {
                self as u8
            }

            /// The value of this number.
            pub fn from_id(id: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.id() == id)
            }

            /// The value's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

named! {
    /// How the loss of a packet was found.
    LossTrigger {
        /// Datagrams that the link sent later arrived.
        Passed = 1 "passed",
        /// The packet was the last one sent, and no answer came in time.
        EndOverdue = 2 "end_overdue",
        /// The link was given up while the packet was under way.
        LinkLost = 3 "link_lost",
    }
}

named! {
    /// How a gap ended.
    GapEnd {
        /// The last missing packet arrived.
        Arrived = 1 "arrived",
        /// The last missing packet was restored from a repair symbol.
        Restored = 2 "restored",
        /// Given up by knowledge: every usable link has passed the gap.
        Known = 3 "given_up_known",
        /// Given up by time.
        Time = 4 "given_up_time",
        /// Given up for want of room.
        Overflow = 5 "given_up_overflow",
        /// Given up for a packet that is to be delivered at once.
        Urgent = 6 "given_up_urgent",
        /// The sender began the sequence anew.
        Restart = 7 "restart",
    }
}

named! {
    /// The way in which keys changed.
    KeyChange {
        /// A client's handshake is done: its keys seal from now on.
        Installed = 1 "installed",
        /// A client used its new keys: a server seals with them from now on.
        Confirmed = 2 "confirmed",
        /// The keys in use became too old.
        Expired = 3 "expired",
    }
}

named! {
    /// Why the session began anew.
    ResetCause {
        /// The peer was restarted.
        PeerRestarted = 1 "peer_restarted",
        /// The peer ended the session.
        PeerClosed = 2 "peer_closed",
    }
}

/// The estimates of a link's rate control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateChanged {
    /// The link.
    pub link: LinkId,
    /// The phase of the control.
    pub phase: PhaseKind,
    /// Why the capacity was changed or kept last; `None`: nothing is known yet.
    pub cause: Option<Cause>,
    /// Share of the datagrams sent lately that were lost, permille.
    pub loss_permille: u16,
    /// The capacity, bit/s; `None`: not known yet.
    pub capacity_bps: Option<u64>,
    /// The pacing rate, bit/s.
    pub pacing_bps: u64,
    /// The smoothed round trip, µs; `None`: not measured.
    pub rtt_us: Option<u32>,
    /// The queue in the link, µs.
    pub queue_us: u32,
    /// The least delay of the last 10 s, µs with an unknown offset; `None`: not measured.
    pub base_delay_us: Option<i64>,
    /// What of a delay is jitter and no queue, µs.
    pub noise_us: u32,
}

/// An event. Packets are named by their sequence number: flow slot and counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEvent {
    /// A link changed its state.
    LinkState {
        /// The link.
        link: LinkId,
        /// Its state before.
        from: LinkState,
        /// Its state from now on.
        to: LinkState,
    },
    /// A link's rate changed.
    RateChanged(RateChanged),
    /// A flow's packets take other links than before.
    FlowLinks {
        /// The flow's slot.
        flow: u16,
        /// The links before, a bit each; 0: the flow is new.
        before: u32,
        /// The links from now on, a bit each.
        links: u32,
    },
    /// Packets with consecutive counters are lost on a link.
    PacketsLost {
        /// The link that carried them.
        link: LinkId,
        /// How the loss was found.
        trigger: LossTrigger,
        /// How often they had been sent again before.
        tries: u8,
        /// The first one.
        first: u64,
        /// How many.
        count: u32,
    },
    /// A packet is sent again.
    PacketResent {
        /// The link that carries it now.
        link: LinkId,
        /// How its loss was found; `None`: not remembered.
        trigger: Option<LossTrigger>,
        /// How often it is sent again with this time.
        tries: u8,
        /// It goes over this link beside another one, because it may well be lost again.
        is_second: bool,
        /// The packet.
        seq_num: u64,
        /// Its size, bytes.
        bytes: u16,
    },
    /// Lost packets that are not sent (any more): too late, or sent in vain too often.
    ResendsGivenUp {
        /// How many since the last such record.
        packets: u32,
    },
    /// A gap is the first that a flow's packets wait for.
    GapOpened {
        /// The link whose packet showed it; `None`: no link's.
        link: Option<LinkId>,
        /// The first missing packet.
        first: u64,
        /// How many are missing.
        count: u32,
    },
    /// A gap ended.
    GapClosed {
        /// How.
        by: GapEnd,
        /// The link that brought the missing packet, or the packet that proved the loss.
        link: Option<LinkId>,
        /// The first packet that was missing.
        first: u64,
        /// Missing packets: those that came, or those that were given up.
        count: u32,
        /// How long the gap was the first one, µs.
        waited_us: u32,
        /// Packets that the flow still holds.
        held: u32,
    },
    /// A packet arrived after its gap had been given up, or behind one that was delivered at once.
    PacketLate {
        /// The link that brought it.
        link: Option<LinkId>,
        /// The packet.
        seq_num: u64,
    },
    /// The keys changed.
    KeysChanged {
        /// How.
        change: KeyChange,
        /// Changes of keys so far.
        rekeys: u32,
    },
    /// The session begins anew: gaps are over, links are unproven.
    SessionReset {
        /// Why.
        cause: ResetCause,
    },
    /// A data packet is sent, for the first time or again ([`Level::Packets`]).
    PacketSent {
        /// The link.
        link: LinkId,
        /// The packet.
        seq_num: u64,
        /// The datagram's size, bytes of UDP payload.
        bytes: u16,
    },
    /// Records found no room.
    RecordsLost {
        /// How many.
        records: u32,
    },
}

impl TraceEvent {
    /// The link that the record is about, where it is about one.
    pub const fn link(&self) -> Option<LinkId> {
        match *self {
            Self::LinkState { link, .. }
            | Self::RateChanged(RateChanged { link, .. })
            | Self::PacketsLost { link, .. }
            | Self::PacketResent { link, .. }
            | Self::PacketSent { link, .. } => Some(link),
            Self::GapOpened { link, .. } | Self::GapClosed { link, .. } | Self::PacketLate { link, .. } => {
                link
            }
            Self::FlowLinks { .. }
            | Self::ResendsGivenUp { .. }
            | Self::KeysChanged { .. }
            | Self::SessionReset { .. }
            | Self::RecordsLost { .. } => None,
        }
    }
}

/// One decision, when it was made, and in which session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// The session: a client's place in its list of servers, or a server's session number.
    pub session: u16,
    /// The event.
    pub event: TraceEvent,
}

// A ring of 16,384 stays below 2 MB.
const _: () = assert!(size_of::<Record>() <= 96);

/// The flow slot of a sequence number.
pub const fn flow_of(seq_num: u64) -> u16 {
    (seq_num >> COUNTER_BITS) as u16
}

/// The counter of a sequence number.
pub const fn counter_of(seq_num: u64) -> u64 {
    seq_num & ((1 << COUNTER_BITS) - 1)
}
