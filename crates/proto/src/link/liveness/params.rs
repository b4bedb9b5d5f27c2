//! The constants of liveness: unit, and reason or source.

use std::time::Duration;

use crate::link::feedback::acknowledger;

// When a link is silent, suspect, down.

/// The least time without an answer that counts as silence. Chosen: above the bursts and stalls
/// that links are known for (Starlink's 100 ms of half loss at a slot change, 50 ms of a busy
/// host), and below what a person takes for a pause.
pub(super) const SILENCE_MIN: Duration = Duration::from_millis(100);
/// The peer answers data within this.
pub(super) const ACK_DELAY: Duration = acknowledger::ACK_DELAY_MAX;
/// An answer is in doubt when it is later than it should be by this ... Chosen: what the scheduling
/// of a busy host adds.
pub(super) const DOUBT_SLACK: Duration = Duration::from_millis(15);
/// ... and nothing was heard for this. Chosen: two feedbacks of a loaded link.
pub(super) const DOUBT_QUIET: Duration = Duration::from_millis(50);
/// Silence takes so many datagrams without an answer. Chosen: on a link that loses 5 % each way one
/// in ten thousand series is lost by chance.
pub(super) const TRIES: u32 = 4;
/// ... so far apart. Chosen: one feedback does not answer two.
pub(super) const TRY_GAP: Duration = Duration::from_millis(20);
/// Silence must last this much longer after it was noticed. Chosen: what had waited in the sockets
/// is read by then.
pub(super) const CONFIRM: Duration = Duration::from_millis(10);
/// ... or until an answer to what is then asked can be there, if that takes no longer than this.
/// Chosen: a tenth of a second with the silence itself.
pub(super) const ASK_MAX: Duration = Duration::from_millis(60);
/// RFC 9002 §6.1.2: granularity.
pub(super) const GRANULARITY: Duration = Duration::from_millis(1);
/// A suspect link is down after so many PTO. Chosen: two answers may be lost.
pub(super) const PTOS_TO_DOWN: u32 = 3;
/// ... and not before this. Chosen: fifteen probes, 20 ms apart, had their chance; a link that
/// loses twenty packets in a row loses its few feedbacks and probes for long. Measured:
/// docs/decisions/0015-when-a-silent-link-is-down.md.
pub(super) const DOWN_MIN: Duration = Duration::from_millis(300);

// How long a link that flaps must be proven.

/// Proofs that bring a failed link back. Chosen: one may be of before the failure, two a
/// coincidence.
pub(super) const PROOFS_AFTER_FAILURE: u32 = 3;
/// A link that was up for this is stable. Chosen: a modem that flaps does so within seconds.
pub(super) const STABLE: Duration = Duration::from_secs(10);
/// A link that failed twice in a row must be proven for this. Chosen: a pause that is felt, but
/// once.
pub(super) const DAMPING_MIN: Duration = Duration::from_secs(1);
/// ... and at most for this. Chosen: [`DAMPING_MIN`] five times doubled.
pub(super) const DAMPING_MAX: Duration = Duration::from_secs(32);
/// Doublings that are counted at most. Chosen: more change nothing, and 32 would overflow.
pub(super) const DOUBLINGS_MAX: u32 = 16;

// When the peer is told over another link.

/// Time for which a side with doubts is told indirectly. Chosen: two heartbeats of that side, one
/// of which may be lost.
pub(super) const INDIRECT_FOR: Duration = Duration::from_millis(250);
/// A receiver tells of silence after this. Chosen: twice the longest pause of a link in steady use.
pub(super) const SILENT_MIN: Duration = Duration::from_millis(40);
/// ... and again after each of these. Chosen: the interval of questions to a suspect link.
pub(super) const SILENT_STEP: Duration = Duration::from_millis(20);
/// ... so many times. Chosen: two of them may be lost.
pub(super) const SILENT_TIMES: u8 = 3;
/// Its sender believes it of data that should have been there for this time. Chosen: below
/// [`SILENT_MIN`], by the variation of delays.
pub(in crate::link) const OVERDUE_MIN: Duration = Duration::from_millis(30);
/// ... sent over this span. Chosen: more than one batch.
pub(in crate::link) const OVERDUE_SPAN: Duration = Duration::from_millis(5);
