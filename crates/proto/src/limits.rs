//! Bounds that several modules share, each with its unit and its reason.
//!
//! A bound that one module alone obeys stands in that module. "Chosen" means that no specification
//! fixes the value.

use std::time::Duration;

/// The most links that a session has. Chosen: a heartbeat names its sender's failed links in one
/// 32-bit field. A link's number on the wire is below this.
pub const LINKS_MAX: usize = 32;

/// The most UDP flows of a link. Source: PROTOCOL.md, three bits of the sealed header. Chosen: a
/// carrier that polices each flow to a tenth of the link is rare.
pub const UDP_FLOWS_MAX: u8 = 8;

/// The most credit that an idle link saves up. Chosen: a loaded host wakes a process some
/// milliseconds late, and what was not sent meanwhile is sent then.
pub const BURST: Duration = Duration::from_millis(4);

/// The credit that a link saves up before it starts a run of bulk packets. Chosen: one wake-up of
/// the process sends a run, and a run of a millisecond adds a millisecond to the link's queue.
pub const QUANTUM: Duration = Duration::from_millis(1);

/// The receiver holds a packet for at most this long while a packet before it is missing. Chosen:
/// it covers the difference of delay between a DSL line and a satellite link.
pub(crate) const HOLD_MAX: Duration = Duration::from_millis(150);

/// The same where the missing packet may have been sent again: two rounds of loss, feedback and
/// resend over links of 80 ms that jitter by 25 ms. Links without jitter are not waited for so long
/// ([`LinkDelay::resend`](crate::reorder::LinkDelay)). An inner TCP takes a packet for lost 200 ms
/// and four deviations after its round trip (RFC 6298, Linux's minimum).
/// Measured: docs/decisions/0058-a-hold-of-half-a-second.md.
pub(crate) const RESEND_HOLD_MAX: Duration = Duration::from_millis(500);

/// How much later than its link's delay a packet may arrive without anything being wrong. A sender
/// that sends all its saved credit at once fills the link's own queue for [`BURST`], and between
/// two heartbeats a queue grows by tens of milliseconds. The slack counts only for links that
/// carried nothing of the flow slot lately; where traffic flows, later packets decide. Measured:
/// docs/decisions/0001-slack-of-the-hold.md.
pub(crate) const DELAY_SLACK: Duration = Duration::from_millis(30);

const _: () = assert!(DELAY_SLACK.as_millis() > BURST.as_millis());

/// Links whose one-way delays differ by more than this cannot carry one flow in order: the receiver
/// gives up the packets of the slower link before they arrive.
pub(crate) const SPREAD_MAX: Duration = HOLD_MAX.saturating_sub(DELAY_SLACK);

/// The same where losses are sent again. Chosen: [`RESEND_HOLD_MAX`] less 260 ms, in which a loss
/// is known and sent again over a near link.
pub(crate) const RESEND_SPREAD_MAX: Duration = Duration::from_millis(240);

/// A link whose utilisation is above this counts as saturated, permille (the score's 80 %).
pub const SATURATED_PERMILLE: u16 = 800;

/// A link that loses at least this much counts as lossy, permille. Chosen: twice what a healthy
/// Starlink or LTE link loses.
pub const LOSSY_PERMILLE: u16 = 20;
