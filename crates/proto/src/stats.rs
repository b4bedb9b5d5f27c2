//! Figures for status, logs and metrics: plain values without any formatting.

use std::time::Duration;

use crate::discard::DiscardCounts;
use crate::packet::{LinkId, Path};
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};

/// One link's figures at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStats {
    /// The link.
    pub id: LinkId,
    /// Proven, suspect or down.
    pub state: LinkState,
    /// Socket and peer, once known.
    pub path: Option<Path>,
    /// Lower is preferred.
    pub priority: u8,
    /// What the link is used for.
    pub role: LinkRole,
    /// The score formula without its saturation term, rounded.
    pub score: u32,
    /// Over 80 % of `capacity` in use.
    pub saturated: bool,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// The smallest round-trip time of the last 10 s.
    pub rtt_min: Option<Duration>,
    /// Share of the datagrams sent that did not arrive over the last seconds, permille.
    pub loss_permille: u16,
    /// The rate sent lately.
    pub tx_rate: BitRate,
    /// The rate received lately.
    pub rx_rate: BitRate,
    /// The rate that the link carries in the sending direction, where known.
    pub capacity: Option<BitRate>,
    /// `tx_rate` / `capacity`, in permille.
    pub utilisation_permille: u16,
    /// Datagrams sent, of any kind.
    pub tx_packets: u64,
    /// Bytes sent, IP and UDP headers included.
    pub tx_bytes: u64,
    /// Datagrams sent that a router marked on their way (CE).
    pub tx_marked: u64,
    /// Datagrams received, of any kind.
    pub rx_packets: u64,
    /// Bytes received, IP and UDP headers included.
    pub rx_bytes: u64,
    /// The counter (lower 48 bits) of the newest data frame received on the link; 0 before the
    /// first.
    pub last_seq: u64,
    /// The largest IP packet known to pass, in bytes; `None`: a plain link, where it is not
    /// measured.
    pub mtu: Option<u16>,
    /// No line has this number now: the link is shown to no person.
    pub is_retired: bool,
    /// UDP flows that the link goes over, as far as they are known to deliver; one as a rule.
    pub flows: u8,
    /// What the link's congestion control sees, and why it sends as fast as it does.
    pub control: ControlStats,
    /// What the peer told lately of its own sending over the link; `None`: a plain link, or an
    /// older peer.
    pub peer: Option<PeerStats>,
}

/// What the peer of a link knows of what it sends. It is as true as the peer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerStats {
    /// How long ago the peer told this.
    pub told_ago: Duration,
    /// The phase of its congestion control; `None`: one that this version does not know.
    pub phase: Option<PhaseKind>,
    /// Share of the datagrams that it sent lately which did not arrive, permille.
    pub loss_permille: u16,
    /// The rate that it sent lately.
    pub tx_rate: BitRate,
    /// The rate that the link carries from there, where known.
    pub capacity: Option<BitRate>,
    /// The queue that its newest acknowledged datagram met.
    pub queue: Duration,
}

/// What the congestion control of one link knows of the direction of sending.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ControlStats {
    /// Its phase.
    pub phase: PhaseKind,
    /// Why the capacity was changed or kept last; `None`: nothing is known yet.
    pub cause: Option<Cause>,
    /// How long ago that was.
    pub caused_ago: Option<Duration>,
    /// The queue that the newest datagram known to have arrived met.
    pub queue: Duration,
    /// The least one-way delay of the last 10 s, µs with an unknown offset: only changes mean
    /// anything.
    pub base_delay_us: Option<i64>,
    /// What of a delay is jitter and no queue.
    pub noise: Duration,
    /// How far the capacity is lately from its mean of a second, in permille.
    pub volatility_permille: u16,
    /// What the link carries, IP headers included; `None`: not known.
    pub capacity: Option<BitRate>,
}

/// The phase of a link's congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PhaseKind {
    /// What the link carries is not known yet.
    #[default]
    Startup,
    /// The link's queue is kept all but empty.
    Steady,
    /// Another flow fills the link's queue.
    Competing,
}

impl PhaseKind {
    /// The word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Steady => "steady",
            Self::Competing => "competing",
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Startup => 0,
            Self::Steady => 1,
            Self::Competing => 2,
        }
    }

    /// The phase with this number; `None`: one of a later version.
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Startup),
            1 => Some(Self::Steady),
            2 => Some(Self::Competing),
            _ => None,
        }
    }
}

/// Why the control changed or kept its estimate of what a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A ceiling is configured, or the peer asked for one: it is the first guess.
    Ceiling,
    /// The search for more found more without a queue.
    Search,
    /// A queue stood all the time: what was delivered is what the link carries.
    OwnQueue,
    /// The same, less a pause in which a host stood still.
    Stall,
    /// The queue did not drain when it should have: the path became longer.
    LongerPath,
    /// Another flow fills the queue and does not yield to delay.
    Competitor,
    /// That flow is gone.
    CompetitorGone,
    /// Loss without a queue that grows with the rate.
    Policer,
    /// Loss that less sending did not lower.
    RandomLoss,
    /// Loss in a few rows: it tells nothing of the rate.
    Burst,
    /// Nearly everything is lost: nothing is learnt.
    Outage,
    /// Congestion marks.
    EcnMark,
    /// Congestion marks that less sending did not lower.
    EcnMeaningless,
    /// The link was down, or the peer was restarted.
    Restart,
}

impl Cause {
    /// The word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Search => "search",
            Self::OwnQueue => "own_queue",
            Self::Stall => "stall",
            Self::LongerPath => "longer_path",
            Self::Competitor => "competitor",
            Self::CompetitorGone => "competitor_gone",
            Self::Policer => "policer",
            Self::RandomLoss => "random_loss",
            Self::Burst => "burst",
            Self::Outage => "outage",
            Self::EcnMark => "ecn_mark",
            Self::EcnMeaningless => "ecn_meaningless",
            Self::Restart => "restart",
        }
    }
}

/// Totals of a session's losses and of their recovery, in packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Sent again by this side.
    pub resent: u64,
    /// Of the packets sent again: because the link that carried them had failed.
    pub reinjected: u64,
    /// Of the packets sent again: known to have arrived.
    pub recovered: u64,
    /// Of the packets sent again: those whose first transmission arrived too.
    pub spurious: u64,
    /// Lost packets that this side gave up: every attempt was lost, or the next one would arrive
    /// too late.
    pub given_up: u64,
    /// Packets of the peer that never arrived, or arrived so late that they left out of order.
    /// Packets that are delivered at once are not counted.
    pub lost: u64,
}

/// Figures of a session's streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Streams that are open.
    pub open: usize,
    /// Streams opened so far.
    pub opened: u64,
    /// Streams refused so far, and reset.
    pub refused: u64,
    /// Streams reset so far, by either side.
    pub reset: u64,
    /// Bytes written so far, and read.
    pub bytes_out: u64,
    /// Bytes read so far.
    pub bytes_in: u64,
    /// Bytes that wait ahead of the links.
    pub waiting_bytes: usize,
    /// Bytes that were sent and not acknowledged, those that wait included.
    pub under_way_bytes: usize,
    /// Bytes that arrived and were not read.
    pub unread_bytes: usize,
    /// How often a writer found no credit.
    pub credit_blocked: u64,
    /// For how long writers had none, summed up over streams.
    pub credit_blocked_for: Duration,
}

/// One session's figures at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionStats {
    /// At least one link is usable.
    pub connected: bool,
    /// The links, by [`LinkId`].
    pub links: Vec<LinkStats>,
    /// Flows that have packets queued.
    pub flows_active: usize,
    /// Flows in the realtime class, in the sending direction.
    pub flows_realtime: usize,
    /// Bytes in the queue ahead of the links.
    pub queue_bytes: usize,
    /// How long the oldest packet of that queue has waited.
    pub queue_delay: Duration,
    /// Packets that the resequencer holds now.
    pub reorder_held: usize,
    /// The bytes of those packets.
    pub reorder_held_bytes: usize,
    /// The most packets that the resequencer ever held.
    pub reorder_held_max: usize,
    /// Gaps given up at their deadline, without proof of a loss.
    pub reorder_timeouts: u64,
    /// What the peer's datagrams made this side look at or move, beyond the packet in hand: places
    /// of the resequencer and of what was sent, links, 16 bytes of restoring. It follows the bytes
    /// that came in (docs/decisions/0057).
    pub touched: u64,
    /// Packets delivered after their gap had been given up.
    pub released_late: u64,
    /// Copies of packets that had arrived over another link.
    pub duplicates: u64,
    /// Packets of which a copy was sent over another link too.
    pub copies: u64,
    /// Losses and their recovery.
    pub recovery: RecoveryStats,
    /// Repair symbols sent.
    pub fec_sent: u64,
    /// Packets that repair symbols restored.
    pub fec_recovered: u64,
    /// Repair symbols refused: malformed, or contradicting the packets that they cover.
    pub fec_refused: u64,
    /// Streams.
    pub streams: StreamStats,
    /// Inner packets accepted for sending.
    pub packets_in: u64,
    /// Inner packets delivered.
    pub packets_out: u64,
    /// Inner bytes delivered.
    pub bytes_out: u64,
    /// Discarded packets and datagrams, by reason.
    pub discards: DiscardCounts,
}
