//! The constants of the schedulers: unit, and source or reason. "Chosen" means that no
//! specification fixes the value. Bounds that other modules share stand in [`crate::limits`].

use std::time::Duration;

use crate::limits::BURST;

// Eligibility.

/// A secondary link carries data, and a flow goes far, once the links before need longer than this
/// for the backlog.
/// Chosen: below the delay that the queue always accepts (15 ms), so that the backlog of one flow
/// shows here before the queue tells the flow to slow down.
pub(super) const SPILL_AFTER: Duration = Duration::from_millis(10);

/// A link is left out when it loses this much more than a link of its role, permille. Chosen: the
/// loss-based flow over the bundle then gets less with the link than without it.
/// Measured: docs/decisions/0032-links-left-out-for-their-loss.md.
pub(super) const LOSS_EXCESS_PERMILLE: u16 = 5;

/// The same where losses are sent again, permille. Chosen: a packet is sent up to three times, so
/// that of 150 permille about 3 permille stay lost.
pub(super) const RESENT_LOSS_EXCESS_PERMILLE: u16 = 150;

/// Payload of a TCP segment over Ethernet, bits (1,500 bytes less 40 of headers).
pub(super) const SEGMENT_BITS: u64 = 1_460 * 8;

/// Segments per RTT and root of the loss, hundredths: the square root of 3/2 (Mathis et al.,
/// CCR 27(3)).
pub(super) const MATHIS_HUNDREDTHS: u64 = 122;

/// One bulk packet of this many is copied over the links that are left out for their loss. Chosen:
/// 2 % of the load cost little, and a link that has healed is used again after 12 s.
/// Measured: docs/decisions/0032-links-left-out-for-their-loss.md.
pub(super) const TRICKLE_EVERY_PKTS: u32 = 50;

// Trials.

/// A link of this rate or less is tried, bit/s. Chosen: a full datagram takes 5 ms, less than what
/// the queue always accepts, so that a faster link is passed over only where less waits.
pub(super) const TRIAL_BPS: u64 = 2_400_000;

/// ... and it had credit for this while bulk went elsewhere. Chosen: packets of its own go as soon
/// as it has credit, and after twice this credit is lost ([`BURST`]).
pub(super) const TRIAL_AFTER: Duration = Duration::from_millis(2);

const _: () = assert!(TRIAL_AFTER.as_millis() * 2 == BURST.as_millis());

/// Copies for trials are at most one part in so many of what the links carry. Chosen: 3 % are not
/// noticed. A link at the least rate that is believed of any, beside 7 Mbit/s, is tried for as long
/// as bulk waits.
pub(super) const TRIAL_SHARE: u64 = 32;

/// So many bytes of copies may be ahead of that share. Chosen: a second of the fastest link that is
/// tried, in which its rate is found.
pub(super) const TRIAL_BYTES: u64 = 300_000;

/// Between two bulk packets at most this much time counts for that share. Chosen: a pause of the
/// demand is no demand.
pub(super) const TRIAL_GAP_MAX: Duration = Duration::from_millis(20);

// Order of the links.

/// A score that changes by no more than this share counts as unchanged, permille. Chosen: jitter
/// does not swap links that are alike. Measured: docs/decisions/0030-order-of-the-links.md.
pub(super) const SCORE_CHANGE_PERMILLE: u64 = 100;

/// Another band of delays replaces the present one when it carries this share of it, permille.
/// Chosen: a tenth more, as a change of band reorders the flows once.
pub(super) const BAND_GAIN_PERMILLE: u64 = 1_100;

/// A link that has credit keeps one decision for this long: 17 packets of 1,450 bytes at 1 Gbit/s,
/// one at 70 Mbit/s. Chosen: another decision would find the links before it as busy as they were.
/// Measured: docs/decisions/0030-order-of-the-links.md.
pub(super) const RUN: Duration = Duration::from_micros(200);

// Realtime.

/// The delay that one permille of loss is worth, µs. Chosen: a lost packet costs its listener 100
/// ms at best, more where the loss is not repaired; at 300 ms a loss, 1 permille is worth 0.3 ms.
pub(super) const LOSS_COST_US: i64 = 300;

/// Another link must be this much better than the present one, µs. Chosen: so that links
/// that are alike do not take turns.
pub(super) const KEEP_US: i64 = 2_000;

// Placement of flows.

/// Delays that differ by no more than this are alike, µs. Chosen: what jitter and a batch in a
/// link's queue make.
pub(super) const ALIKE_US: i64 = 5_000;

/// Links are used to the full from this share of their capacity on, permille. Chosen: below what a
/// full link shows, as utilisation is a mean.
pub(super) const FULL_PERMILLE: u64 = 900;

/// Links have room below this share of their capacity, permille. Chosen: a tenth below
/// [`FULL_PERMILLE`], so that a pin and its end do not follow each other at once.
pub(super) const IDLE_PERMILLE: u64 = 800;

/// A flow's spell ends with a pause longer than this. Chosen: above BBR's probe of 200 ms for its
/// least round trip, in which it sends next to nothing.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// The most flows that are striped, and the most that are candidates for a pin. Chosen: of more
/// flows than this a single one changes little.
pub(super) const FLOWS_MAX: usize = 64;

/// A full table of striped flows drops those that are over at most this often. Chosen: a scan for
/// each packet would cost more than a place in the table is worth.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// A flow is striped once it has needed slow links for this long. Chosen: a page is over before.
/// Measured: docs/decisions/0033-striped-flows-see-one-delay.md.
pub(super) const STRIPE_AFTER: Duration = Duration::from_millis(100);

/// A flow stays striped for this part of the time for which it has needed slow links. Chosen: a
/// flow that needed them for a second keeps the delay over BBR's lull of 200 ms.
pub(super) const STAYS_SHARE: u32 = 4;

/// A flow stays striped for at most this long after it last needed a slow link. Chosen: BBR's lull
/// of 200 ms, what is under way before it, and a margin.
pub(super) const STAYS_MAX: Duration = Duration::from_secs(1);

/// A packet that arrives less than this part of the difference of delays before its time is not
/// early. Chosen: BBR keeps twice its least round trip under way, so that a quarter does no harm.
pub(super) const SLACK_SHARE: i64 = 4;

/// After a wait for a link that is not early, with bulk behind it, the next such wait begins this
/// many times as long later. Chosen: waits cost a fast link half a percent of its capacity.
/// Measured: docs/decisions/0033-striped-flows-see-one-delay.md.
pub(super) const WAIT_REST: u32 = 200;

/// Whether a striped flow still needs slow links is checked at most this often. Chosen: far below
/// [`STRIPE_AFTER`], and not for each packet.
pub(super) const NEED_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// A flow may be pinned once it has had bulk packets for this long. Chosen: a page is over before.
pub(super) const PIN_AFTER: Duration = Duration::from_secs(1);

/// After a pin or its end the next change waits for this and the link's round trip. Chosen: the
/// utilisation is taken over half a second, so that the effect shows only then.
pub(super) const PIN_SEEN_AFTER: Duration = Duration::from_millis(500);

/// A pinned flow's packets may go this long before their link has credit. Chosen: a flow's window
/// comes in a burst, and other flows' packets wait behind it in the one queue.
pub(super) const PIN_AHEAD: Duration = Duration::from_millis(10);

// Far links.

/// A flow changes between near and far links where that gives it this many times as much. Chosen:
/// growing over the new links takes seconds.
pub(super) const FAR_GAIN: u64 = 2;

/// A flow is long when its bytes take its part of the near links this part of the difference of
/// delays. Chosen: a sender leaves its slow start on the near links soon after.
/// Measured: docs/decisions/0037-whole-flows-over-far-links.md.
pub(super) const LONG_SHARE: i64 = 2;

/// Far links whose rate is not known carry at least this, bit/s. Chosen: what the slowest service
/// over geostationary satellites sells.
pub(super) const FAR_BPS_UNKNOWN: u64 = 25_000_000;

/// After a flow changed its links no flow returns for this many round trips of the far links.
/// Chosen: startup doubles their rate with each.
pub(super) const FAR_SEEN_ROUNDS: u32 = 6;
