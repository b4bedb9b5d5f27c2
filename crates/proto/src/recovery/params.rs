//! The constants of the recovery: unit, and reason or source.

use std::time::Duration;

use crate::limits::RESEND_HOLD_MAX;

/// A packet is sent again this often at most. Chosen: the receiver holds a gap for two rounds of
/// loss, feedback and resend ([`RESEND_HOLD_MAX`]).
pub(crate) const TRIES_MAX: u8 = 2;
/// From this loss on resends stop flows, permille. Chosen: at 1 % a packet of a busy flow is
/// missing most of the time.
pub(super) const STOPPING_PERMILLE: u16 = 10;
/// The second link may owe this much credit. Chosen: a busy link has no credit at the moment when
/// another has; 5 ms are twelve full packets at 30 Mbit/s.
/// Measured: docs/decisions/0036-second-link-of-a-resend.md.
pub(super) const SECOND_WITHIN: Duration = Duration::from_millis(5);
/// How much later than the first packet a resend may arrive: the receiver holds no gap for longer.
pub(super) const RESENT_WITHIN: Duration = RESEND_HOLD_MAX;
/// What one session keeps, bytes. Chosen: half a second, which is [`RESENT_WITHIN`], at 500 Mbit/s.
pub(crate) const KEPT_BYTES_MAX: usize = 32 << 20;
