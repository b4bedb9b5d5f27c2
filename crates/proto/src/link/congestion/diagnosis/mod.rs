//! Why a link delivers less than was sent on it, or later: one detector for each cause.
//!
//! A detector owns what it remembers, takes observations, and gives a finding. It changes no rate:
//! the phase that asked it acts on the finding, and names the [`Cause`] to the model.

pub(super) mod competitor;
pub(super) mod drain_test;
pub(super) mod ecn_mark;
pub(super) mod own_queue;
pub(super) mod policer;
pub(super) mod random_loss;

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
