//! What the resequencer knows of a link.

use std::time::Duration;

/// A link's state for the resequencer. Links are given as a slice, by
/// [`LinkId::index`](crate::LinkId::index).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkDelay {
    /// Whether the link may still deliver.
    pub usable: bool,
    /// One-way delay in µs with an unknown offset common to all links of the session: only
    /// differences matter.
    pub delay_us: i64,
    /// Mean deviation of that delay, in µs.
    pub jitter_us: u32,
    /// How much later than one that was sent after it a packet may arrive on this link; zero: the
    /// link keeps the order.
    pub reorders_by: Duration,
    /// How much later than on this link a packet that it lost may arrive, sent again; zero: losses
    /// are not sent again.
    pub resend: Duration,
}
