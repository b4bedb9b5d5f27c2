//! Every constant of the control law: unit, and source or reason.
//!
//! "Chosen" means that no specification fixes the value. A share is a fraction of 1, a rate in
//! bit/s ends with `_BPS`, a time in seconds with `_S`.

use std::time::Duration;

/// A full datagram, bytes. Chosen: Ethernet's MTU, which most paths carry.
pub(super) const DATAGRAM_BYTES: f64 = 1_500.0;

/// Share of a ceiling that is paced at, permille. Chosen: rounding and clocks that differ by some
/// hundred ppm never build a queue in the link.
pub(super) const PACING_PERMILLE: u64 = 990;

/// Least estimate, bit/s. Chosen: a datagram takes 60 ms, so the link is still measured.
pub(super) const RATE_MIN_BPS: f64 = 200_000.0;

// Windows of measurement.

/// What was so long ago may be over, ms: what was carried, what a search or a cut found. Chosen:
/// radio links vary within seconds.
const LATELY_MS: u64 = 1_000;
/// A large step, share of C. Source: draft-ietf-ccwg-bbr paces at 1.25 to probe.
const QUARTER: f64 = 0.25;
/// What was sent doubles in a round trip at most. Chosen: as slow start does.
const DOUBLE: f64 = 2.0;

/// Bounds of the time over which rates are taken; between them it is one round trip. Chosen: below
/// 40 ms the scheduling of hosts shows, above 100 ms a fall is seen late.
pub(super) const ROUND_MIN_MS: u64 = 40;
/// See [`ROUND_MIN_MS`].
pub(super) const ROUND_MIN: Duration = Duration::from_millis(ROUND_MIN_MS);
/// See [`ROUND_MIN_MS`].
pub(super) const ROUND_MAX_MS: u64 = 100;
/// The same.
pub(super) const ROUND_MAX: Duration = Duration::from_millis(ROUND_MAX_MS);
/// Rates are taken over at least so many datagrams at C. Chosen: one datagram more or less is 8 %.
pub(super) const WINDOW_DATAGRAMS: f64 = 12.0;
/// Longest window of a rate, seconds. Chosen: a slow link is followed four times a second.
pub(super) const WINDOW_MAX_S: f64 = 0.25;
/// A link with a queue for this long was busy. Chosen: a few feedbacks of a loaded link.
pub(super) const BUSY_WINDOW_MIN: Duration = Duration::from_millis(ROUND_MIN_MS / 2);
/// Samples further apart than this say nothing of the time between, seconds. Chosen: the interval
/// of heartbeats.
pub(super) const SAMPLE_GAP_MAX_S: f64 = 0.1;
/// Window of the largest C, ms. Chosen: an outage or a slow time of a radio link is shorter.
pub(super) const BEST_WINDOW_MS: u64 = 60_000;
/// Window of the largest delivered rate, ms. Chosen: what a link that varies carried longer ago
/// says nothing.
pub(super) const TRUST_WINDOW_MS: u64 = LATELY_MS;
/// Window of the least delay, ms (the base). Source: draft-ietf-ccwg-bbr, `MinRTTFilterLen`.
pub(super) const BASE_WINDOW_MS: u64 = 10_000;

// Delivery history.

/// Samples closer together than this are one, µs. Chosen: above the time between two batches.
pub(super) const SAMPLE_STEP_US: i64 = 2_000;
/// Most samples kept. Chosen: the longest window, 250 ms, in steps of 2 ms, twice.
pub(super) const SAMPLES_MAX: usize = 256;
/// An idle link keeps room for so many samples. Chosen: memory of idle sessions.
pub(super) const IDLE_ROOM: usize = 4;
/// The pacer counts as used to the full if it was idle for less than this share of the time.
/// Chosen: half of the least probe would hide behind more.
pub(super) const IDLE_SHARE: f64 = 0.05;
/// A pause that is longer than each of more than so many others is a stall ... Chosen: of fewer the
/// longest is chance.
pub(super) const STALL_OTHERS: u32 = 3;
/// ... if it is longer by this, µs, and by half. Chosen: above the steps of samples, below the time
/// slices of a busy host.
pub(super) const STALL_MIN_US: u64 = 5_000;

// Startup.

/// Datagrams in the first round trips. Chosen: near TCP's initial window (RFC 6928: 10).
pub(super) const INITIAL_DATAGRAMS: f64 = 16.0;
/// Most that is paced at before anything was delivered, bit/s. Chosen: the first datagrams of a
/// near link are there before others.
pub(super) const INITIAL_BPS_MAX: f64 = 20e6;
/// Longest round trip that counts for the initial rate, seconds. Chosen: a far link starts no
/// slower than one at 150 ms.
pub(super) const INITIAL_ROUND_MAX_S: f64 = 0.15;
/// Pacing as a multiple of what was delivered. Chosen: it doubles each round with a tenth to spare;
/// BBR has 2.77 (draft-ietf-ccwg-bbr, `StartupPacingGain`).
pub(super) const START_GAIN: f64 = 2.2;
/// Startup ends with a queue longer than this, seconds. Chosen: twice what counts as none; ...
pub(super) const START_QUEUE_S: f64 = 2.0 * EMPTY_S;
/// ... or than the round trip divided by this if that is more. Chosen: delays of a long path vary
/// more; ...
pub(super) const START_QUEUE_ROUNDS: f64 = 24.0;
/// ... plus so many datagrams' time. Chosen: one datagram waits for another on an empty link; ...
pub(super) const START_QUEUE_DATAGRAMS: f64 = 1.5;
/// ... in so many samples in a row. Chosen: one sample may be noise.
pub(super) const START_STANDING: u32 = 2;
/// Startup overshoot factor: above it, losses come from the search, not from the link. Chosen: a
/// quarter, as the largest step of the search.
pub(super) const START_BEYOND: f64 = 1.0 + QUARTER;
/// Loss tells in startup where the pacer was idle for no more than so many quarters of the time.
/// Chosen: four TCP flows behind a policer leave a half of the pace.
pub(super) const START_IDLE_QUARTERS: u32 = 3;
/// Shortest window of a rate in startup, where a queue cuts the window short. Chosen: four samples.
pub(super) const START_WINDOW_MIN: Duration = Duration::from_millis(8);

// Pacing around C.

/// The queue is brought to its target within this time, seconds. Chosen: stable with a dead time of
/// one round trip and one feedback on the links of `docs/simulation.md`.
pub(super) const CONTROL_S: f64 = 0.075;
/// Least share of C that is paced at. Chosen: feedback must go on.
pub(super) const GAIN_MIN: f64 = 0.1;
/// Largest share of C that is paced at, where the search asks for no more. Chosen: BBR's probe
/// gain.
pub(super) const GAIN_MAX: f64 = 1.0 + QUARTER;
/// Queue to keep on a steady link, seconds. Chosen: a little less than no queue, so that it drains.
pub(super) const TARGET_STEADY_S: f64 = -0.000_75;
/// Least queue to keep during a search or on a link that varies, seconds. Chosen: above
/// [`EMPTY_S`], so that it is seen.
pub(super) const TARGET_MIN_S: f64 = 0.001_5;
/// Largest queue to keep, seconds. Chosen: a delay that no person notices.
pub(super) const TARGET_MAX_S: f64 = 0.012;
/// Queue to keep for each unit of volatility, seconds. Chosen: at a volatility of 15 % the largest.
pub(super) const TARGET_VOLATILITY_S: f64 = 0.08;
/// A queue below this, or below half a datagram's time, counts as empty, seconds. Chosen: the
/// stamps of feedback resolve 0.1 ms and hosts schedule within 1 ms.
pub(super) const EMPTY_S: f64 = 0.001;

// The estimate of C.

/// Sent and delivered differ by this share: the queue changed. Chosen: a datagram in a window.
pub(super) const CHANGE: f64 = 0.08;
/// A sample that differs by this share replaces the estimate. Chosen: above [`CHANGE`].
pub(super) const JUMP: f64 = 0.1;
/// A smaller difference moves the estimate by this share of it. Chosen: three samples.
pub(super) const ESTIMATE_GAIN: f64 = 0.3;
/// More than this multiple of C is not believed of a queue that drains. Chosen: a stalled link lets
/// go at once what waited in it.
pub(super) const BELIEVED_RISE: f64 = 1.1;
/// What more was carried without a queue moves C by this share of it, unless the search is large.
/// Chosen: two samples confirm each other.
pub(super) const RISE_GAIN: f64 = 0.5;
/// A rate is raised by usual loss of at most this share. Chosen: at most doubled.
pub(super) const USUAL_LOSS_MAX: f64 = 0.5;

// The search for more.

/// First step of a search, share of C. Chosen: below what a queue target of 1.5 ms absorbs.
pub(super) const PROBE_MIN: f64 = 0.02;
/// Largest step, share of C. Chosen: doubling, as startup does.
pub(super) const PROBE_MAX: f64 = DOUBLE - 1.0;
/// First step where more is likely: the link carried twice as much in the last minute, or its C was
/// never proven by a queue. Source: draft-ietf-ccwg-bbr paces at 1.25 to probe for bandwidth.
pub(super) const REGROW_MIN: f64 = QUARTER;
/// After an outage the link is believed to carry this share of its best C. Chosen: two doublings.
pub(super) const RETURN_SHARE: f64 = QUARTER;
/// After a search that found a queue, a steady link is left alone for this long. Chosen: a search
/// costs a queue of some milliseconds each time.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(LATELY_MS);
/// First pause after a cut, seconds; it doubles with each cut of a series. Chosen: as after a
/// queue.
pub(super) const CUT_PAUSE_MIN_S: u8 = 1;
/// Longest pause after a cut, seconds. Chosen: a policer costs a loss every 8 s.
pub(super) const CUT_PAUSE_MAX_S: u8 = 8;
/// A C below this multiple of [`RATE_MIN_BPS`] is searched in large steps. Chosen: two doublings.
pub(super) const LITTLE: f64 = 4.0;

// Volatility.

/// A C that varied by more than this share is distrusted after a pause, and by half of it is not
/// steady. Chosen: above what an estimate of a constant C varies by.
pub(super) const VOLATILE: f64 = 0.05;
/// A distrusted link gets this share of C after a pause. Chosen: as after an outage.
pub(super) const TRUST_MIN: f64 = QUARTER;
/// ... or so many times what it delivers. Chosen: startup's doubling.
pub(super) const TRUST_GAIN: f64 = DOUBLE;
/// Time constant of the mean distance, seconds. Chosen: radio links vary within seconds.
pub(super) const VOLATILITY_S: f64 = 5.0;
/// Time constant of the mean C that the distance counts from, seconds.
/// Chosen: a fifth of [`VOLATILITY_S`].
pub(super) const USUAL_RATE_S: f64 = LATELY_MS as f64 / 1e3;
/// A link without traffic forgets its volatility within this, seconds. Chosen: a web page's pauses.
pub(super) const VOLATILITY_KEPT_S: f64 = 40.0;

// Chance in delays. Measured: docs/decisions/0018-jitter-is-not-a-queue.md.

/// The mean size of a second difference of independent samples, in their deviations. Source: for a
/// normal law, √6 · √(2/π).
pub(super) const BEND: f64 = 1.95;
/// One second difference counts for at most so many deviations ... Chosen: delays that are released
/// together differ by as much once in a dozen; more is an event.
pub(super) const BEND_OUTLIER: f64 = 16.0;
/// ... and this, seconds. Chosen: deviations grow from zero.
pub(super) const BEND_STEP_S: f64 = 0.001;
/// Weight of a second of samples in the deviation. Chosen: half a second's mean.
pub(super) const DEVIATION_GAIN: f64 = 2.0;
/// A deviation counts for at most so many times its least of the window. Chosen: a measured one
/// varies by a fifth.
pub(super) const LEAST_GAIN: f64 = 2.0;
/// ... and is taken over more than so many samples. Chosen: the mean of as many varies by a sixth.
pub(super) const LEAST_COUNT: u32 = 20;
/// That window, at least. Chosen: where C varies, some half a second of it is calm.
pub(super) const LEAST_WINDOW: Duration = Duration::from_millis(1_500);
/// A delay that falls by less than this is no outage's end, however little it varied before,
/// seconds. Measured: docs/decisions/0020-what-an-outage-leaves.md.
pub(super) const FALL_S: f64 = 0.025;
/// Samples after which a deviation is known. Chosen: two differences take three.
pub(super) const KNOWN_AFTER: u32 = 3;
/// Most observations that an average is over. Chosen: an eighth to a quarter of a second.
pub(super) const AVERAGE_MAX: f64 = 25.0;
/// The usual delay is so many deviations above the least of ten seconds of averages. Chosen: the
/// least of some hundred is 2.5 below the mean, and half of one is left for the queue's own noise.
pub(super) const NOISE_HEADROOM: f64 = 3.0;
/// A queue of less than so many deviations counts as empty. Chosen: one in forty.
pub(super) const EMPTY_DEVIATIONS: f64 = 2.0;
/// A queue of so many times what is kept on purpose and explained by chance is one for certain.
/// Chosen: mistakes of the base are about one.
pub(super) const CERTAIN_LIMITS: f64 = 4.0;
/// Rates are taken over so many deviations of the queue. Chosen: two ends that are off by one each
/// change a rate by 5 %.
pub(super) const WINDOW_DEVIATIONS: f64 = 40.0;

// Loss. Measured: docs/decisions/0019-goodput-tells-a-policer.md.

/// Loss beyond the usual that counts as a policer's, share. Chosen: above the variation of chance
/// over some hundred datagrams.
pub(super) const POLICED_LOSS: f64 = 0.05;
/// The same where a policer's rate is known and in force. Chosen: what an overrun may cost.
pub(super) const KNOWN_LOSS: f64 = 0.01;
/// Loss beyond which the link is out and nothing is learnt, share.
/// Chosen: no policer takes so much for long.
pub(super) const OUTAGE_LOSS: f64 = 0.8;
/// The usual and the mean loss are taken over so many bytes. Chosen: 1,000 datagrams, of which 2 %
/// are 20 with a deviation of 4.
pub(super) const LOSS_MEAN_BYTES: f64 = 1_000.0 * DATAGRAM_BYTES;
/// Below this share of C a loss is not the load's. Chosen: clear of a search's steps.
pub(super) const LIGHT_LOAD: f64 = 0.7;
/// More than this mean loss is learnt to be usual by the test of a cut alone, share. Chosen: a
/// policer of a few Mbit/s takes as much of traffic that is little elsewhere.
pub(super) const LIGHT_LOSS_MAX: f64 = 0.2;
/// The test of a cut ends after this, with what is likelier. Chosen: a slow link is not kept low
/// for longer.
pub(super) const CUT_TEST_MAX: Duration = Duration::from_millis(LATELY_MS);
/// ... or as soon as one is likelier by this, as a logarithm. Chosen: twenty times.
pub(super) const SURE: f64 = 3.0;
/// So many cuts in a row that changed nothing were none of a policer's. Chosen: the first may go to
/// a rate that has a part of the burst in it.
pub(super) const CUTS_OF_CHANCE: u32 = 2;
/// Round trips from a cut until what was sent after it is answered. Chosen: one, and its queue.
pub(super) const CUT_ROUNDS: u32 = 2;
/// A policer's loss exceeds what is allowed by so many bytes. Chosen: a window of a slow link holds
/// a dozen datagrams, and one of them lost is a twentieth.
pub(super) const EXCESS_BYTES: f64 = WINDOW_DATAGRAMS / 2.0 * DATAGRAM_BYTES;
/// ... and by so many more for each unit of usual loss. Chosen so that chance rarely reaches it: a
/// sum of what is lost less p + 0.05 of what is sent, of which p is lost by chance, comes to h
/// datagrams with a probability of exp(−θh) where p (exp θ − 1) = θ (p + 0.05): here once in
/// 360,000, 80,000 and 40,000 losses for p = 2, 5 and 10 %.
pub(super) const EXCESS_BYTES_PER_USUAL: f64 = 100.0 * DATAGRAM_BYTES;
/// ... in so many rows. Chosen: a policer lets something pass again and again, while one burst (a
/// fade, a handover) takes everything for its time.
pub(super) const EXCESS_ROWS: u64 = 4;
/// Cuts no further apart than this are one policer's. Chosen: a search comes 8 s after a cut at the
/// latest ([`CUT_PAUSE_MAX_S`]), and takes some seconds.
pub(super) const SERIES_WITHIN: Duration = Duration::from_secs(12);
/// Queue below which what is lost is the link's own, seconds. Chosen: below the shortest queues
/// that overflow.
pub(super) const CLEAR_QUEUE_S: f64 = 0.015;
/// ... or this share of the round trip if that is more. Chosen: queues are dimensioned by it.
pub(super) const CLEAR_ROUNDS: f64 = 4.0;

// Congestion marks.

/// Weight of one round in the usual share of marks. Chosen: RFC 8257 §3.3 has a 16th, for the round
/// trips of a data centre.
pub(super) const MARK_ROUND_GAIN: f64 = 0.125;
/// Share of marks from which it is tested whether they mean anything. Chosen: most.
pub(super) const MARKED_MOST: f64 = 0.5;
/// Half the rate must lower the share of marks to this share of itself. Chosen: as for loss.
pub(super) const MARKED_LOWERED: f64 = 0.7;

// Drain test. Measured: docs/decisions/0018-jitter-is-not-a-queue.md.

/// Share of what was delivered that is not sent during a test. Chosen: 10 ms of queue in 67 ms.
pub(super) const DRAIN_SHARE: f64 = 0.15;
/// A test takes until so much should have drained, seconds ... Chosen: above the noise of a link
/// without jitter.
pub(super) const DRAIN_LEAST_S: f64 = 0.01;
/// ... and so many deviations of the queue. Chosen: half of it is told from the noise of two ends.
pub(super) const DRAIN_DEVIATIONS: f64 = 5.0;
/// A link used to the full for this long is tested. Chosen: half of the base's window, so that the
/// base is never a standing queue.
pub(super) const DRAIN_EVERY: Duration = Duration::from_millis(BASE_WINDOW_MS / 2);
/// Time constant of the mean queue that a test begins with, seconds. Chosen: a search's queue is
/// gone by then.
pub(super) const DRAIN_MEAN_S: f64 = 2.0 * WINDOW_MAX_S;
/// Time between two tests of a queue that stands. Chosen: a test costs 15 % for some 0.1 s.
pub(super) const DRAIN_PATIENCE_MS: u64 = 700;
/// The same.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_millis(DRAIN_PATIENCE_MS);
/// The same where C varies. Chosen: its queue comes and goes with C.
pub(super) const DRAIN_PATIENCE_VOLATILE: Duration = Duration::from_millis(2 * DRAIN_PATIENCE_MS);
/// Queues that did not drain in a row are a competitor's when no more than this lies between two.
/// Chosen: a satellite's changes of slot are 15 s apart.
pub(super) const FAILURES_WITHIN: Duration = Duration::from_millis(2 * LATELY_MS);
/// So many in a row. Chosen: a path that becomes longer does so once or twice.
pub(super) const FAILURES: u32 = 3;
/// After a queue that did not drain, losses are no chance for this long. Chosen: the time between
/// two tests of a link with a competitor.
pub(super) const CONTESTED_FOR: Duration = DRAIN_EVERY;

// Competitor detector. Measured: docs/decisions/0013-competitor-on-a-steady-link.md.

/// Below this share of C the queue is meant to drain. Chosen: half of [`CHANGE`] and a little.
pub(super) const DRAINING: f64 = 0.95;
/// Yielding must have asked for a queue shorter by this, seconds. Chosen: longer than most queues.
pub(super) const YIELDED_S: f64 = 0.06;
/// C of a contested link is below this share of what it carried alone. Chosen: beyond noise.
pub(super) const FALLEN: f64 = 0.9;
/// A queue must stand for this long, plus a round trip. Chosen: a step to a fifth of the rate is
/// over by then.
pub(super) const STANDS_FOR: Duration = DRAIN_PATIENCE;
/// ... and be at least the longest queue seen divided by this. Chosen: ours would have drained.
pub(super) const STILL_STANDS: f64 = 3.0;
/// A delay that is steady for this long at a new base is a longer path. Chosen: three heartbeats.
pub(super) const QUIET: Duration = Duration::from_millis(300);
/// Window of what the link carried alone, ms. Chosen: a competitor that comes and goes, or whose
/// first packets make a short queue, lowers C before it is suspected.
pub(super) const ALONE_WINDOW_MS: u64 = 2 * BASE_WINDOW_MS;
/// A link that was steady no longer ago than this was steady before the queue. Chosen: a
/// competitor's slow start lowers C in lumps.
pub(super) const STEADY_LATELY: Duration = Duration::from_millis(2 * LATELY_MS);

// Competing. Measured: docs/decisions/0014-share-beside-a-competitor.md.

/// Least in flight, datagrams. Chosen: two more than TCP's minimum, so that feedback goes on.
pub(super) const WINDOW_MIN: f64 = 4.0;
/// RFC 9438 §4: C, datagrams/s³.
pub(super) const CUBIC_C: f64 = 0.4;
/// RFC 9438 §4: β_cubic, the share that a decrease leaves.
pub(super) const CUBIC_BETA: f64 = 0.7;
/// Time between two tests whether the competitor is gone. Chosen: a test costs half the rate for
/// two queues and a round trip.
pub(super) const TEST_EVERY: Duration = DRAIN_EVERY;
/// A queue below this has no competitor that fills it, seconds. Chosen: above noise.
pub(super) const GONE_S: f64 = 0.005;
/// A link that carries this share of what it carried alone has no competitor. Chosen: a flow beside
/// ours has more than a tenth.
pub(super) const ALL: f64 = 0.9;
/// Fair share of what was carried alone. Chosen: beside one other flow.
pub(super) const FAIR: f64 = 0.5;
/// Time constant of the way back to the fair share, as a share of the time in which CUBIC makes
/// good a decrease there. Chosen: half, so that ours is back before the other flow has grown.
pub(super) const COME_BACK: f64 = 0.5;
