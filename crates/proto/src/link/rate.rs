//! What a link carries in the direction we send, and how fast to send on it: an estimate of the bottleneck's rate, and a control
//! that keeps its queue all but empty. Nothing is configured; a configured rate is a ceiling and a first guess.
//!
//! # The model
//! A link is a queue that is served at a rate C, and a delay. From what the peer tells (feedback on sealed links, echoed heartbeats on
//! plain ones) we know for each sample: what was delivered and when, when that was sent, and how long it took. So
//! - the **queue** is the delay (less the datagram's own time at C) above its least in 10 s, the *base*, and above twice the
//!   *noise*: what delays jump about from sample to sample (a radio's scheduling, a busy host);
//! - a link whose queue was never empty between two samples, 20 ms apart at least, was busy: **what it delivered is C** (a fall is taken without
//!   the time of a pause that is longer than all others: that is somebody who stood still, a busy host, and no rate). What was lost meanwhile by chance (up to a
//!   twentieth more than usual) or in a few bursts may have been carried first, and lost later on: C stays where it is between the two;
//! - a link without a queue delivered what was sent: C is no less.
//!
//! Rates are taken over a window of one round trip, 40 to 100 ms, and at least 12 datagrams.
//!
//! # The phases
//! **Start.** C is unknown. Pacing is 2.2 times what was delivered, at least 16 datagrams a round trip (and at most 5 Mbit/s of
//! that), until a queue stands or a tenth is lost; then C is what is delivered. With a ceiling: C is the ceiling from the
//! beginning.
//!
//! **Steady.** Pace at C × (1 + (q* − q) / T + a).
//! - q is the queue *now*: what the newest sample met, plus what was sent since, less what C took since (a Smith predictor), and at least
//!   as long as an answer is overdue. q* is the queue to keep: none on a steady link (a little less than that), up to [`TARGET_MAX`] on one
//!   whose C varies, since a queue that never runs dry tells C at every sample. T is 75 ms.
//! - a is what looks for more: where the pacer was used to the full and no queue was seen for a round trip and half a window, it starts
//!   with 2 % and doubles with each further round without a queue, up to a quarter; on a link that is likely to carry more it
//!   starts with a quarter and goes up to all of C. On a steady link a second passes between one queue and the next look. What is then delivered is the new C. The first
//!   sign of a queue ends it. Links do so each for itself.
//! - A link that was used to the full for 5 s is emptied until the delay falls no more: else a queue too short to be told from noise would
//!   become the base.
//! - A queue that should drain and neither does nor grows is none: the path became longer (a satellite's slot change). What is
//!   measured now is the base, and C what it was before that queue was seen: while a path becomes longer nothing arrives for as long, which
//!   looks like a link that carries less.
//! - Loss of more than a twentieth beyond the usual, in at least four rows, on a link used to the full and without a queue to explain it, is taken for a
//!   policer's: C is what arrives. Where a cut did not lower the loss, it was none of ours: it is undone, and that loss is usual. Where it did,
//!   what was carried before is looked for once in large steps: a burst of loss that has passed looks the same.
//!
//! A congestion mark is a sign of a queue, too (`marks`).
//!
//! **Shared.** Where a queue stands that does not drain when it should, three times in a row, or on a steady link for a second (`contest` has
//! the rule), somebody else fills it, who does not yield to delay. Then yielding starves: the link is shared as one TCP flow
//! would (`shared`; RFC 9438 on what is in flight), and up to half of what it carried before somewhat quicker, until, in a test every 5 s, the queue drains after all.
//!
//! A link that carries little keeps its C; near the least that is believed of any more is looked for in large steps. One whose C varied lately is trusted, after a pause, with a quarter of it, and then with
//! twice what it delivers.
//!
//! It knows no packets, no other links, and no clock.
//!
//! # Sources
//! draft-cheng-iccrg-delivery-rate-estimation and draft-ietf-ccwg-bbr (delivery rates, application-limited samples); Smith 1957
//! (control over a dead time); Copa (NSDI 2018) for telling a competitor by a queue that does not drain; RACK, RFC 8985
//! (overdue answers); srtla_send (loss that cuts do not lower).
//!
//! # Explored and removed
//! Simulated, one flow over `varying`, up; share of the attainable, ceilings at the walk's peak. Cuts to 95 % of what was delivered,
//! a drain of up to 0.4 s and 5 % more with each heartbeat of 100 ms: 16 % (QUIC), 13 % (smoltcp), against 62 and 33 % of
//! a queue that is kept.
//!
//! On a busy host (lab, a realtime task that takes each processor for 10 ms in every 30, `reference`, four downloads) delays are now and then longer than twice their noise for seconds; what
//! is delivered then is what is sent, and C follows it down. Taking a queue below half of what is kept for none: 61.7, 77.3 and 87.7 % of the attainable,
//! 82.5 and 87.6 % without; simulated (40 ms in every 200) 82.1 and 84.0 %.

mod contest;
mod delay;
mod loss;
mod marks;
mod rival;
mod shared;
mod window;

use std::time::Duration;

use self::contest::Contest;
use self::delay::Base;
use self::loss::{Cut, EXCESS_ROWS, Excess, Losses, OUTAGE_LOSS, POLICED_LOSS};
use self::marks::Congestion;
use self::rival::Vain;
use self::shared::Shared;
use self::window::{Mark, Marks, Span};
use super::ecn::Marked;
use super::window::MaxRate;
use crate::time::Instant;
use crate::units::BitRate;

/// Pace at this share of the ceiling, so that rounding and clocks never build a queue in the link.
const PACING_PERMILLE: u64 = 990;

/// A full datagram.
const DATAGRAM_BYTES: f64 = 1_500.0;

/// Start: so many datagrams in a round trip, but not over this rate; then so many times what was delivered.
const INITIAL_DATAGRAMS: f64 = 16.0;
const INITIAL_BPS_MAX: f64 = 5e6;
const INITIAL_ROUND_MAX_S: f64 = 0.15;
const START_GAIN: f64 = 2.2;
/// Start ends with a queue of this and one and a half datagrams' time, seen twice, or with this share lost.
const START_QUEUE_S: f64 = 0.002;
const START_LOSS: f64 = 0.1;
const START_LOST_BYTES: f64 = 10.0 * DATAGRAM_BYTES;
/// Who sends so many times what was delivered before does not know yet whether it passes.
const START_BEYOND: f64 = 1.25;
const START_WINDOW_MIN: Duration = Duration::from_millis(8);

/// The queue is brought to its target within this time.
const CONTROL_S: f64 = 0.075;
/// Bounds of what is paced at, as a share of C.
const GAIN_MIN: f64 = 0.1;
const GAIN_MAX: f64 = 1.25;

/// The queue to keep: none on a steady link, and a little less than that; while looking for more; at most; and what a wholly
/// uncertain C adds.
const TARGET_STEADY: f64 = -0.000_75;
const TARGET_MIN: f64 = 0.001_5;
const TARGET_MAX: f64 = 0.012;
const TARGET_VOLATILITY_S: f64 = 0.08;

/// A queue below this (and half a datagram's time) is none.
const EMPTY_S: f64 = 0.001;

/// Probing for more: the first step, and the largest, as shares of C.
const PROBE_MIN: f64 = 0.02;
const PROBE_MAX: f64 = 0.25;
/// The same on a link that carried twice as much within [`BEST_WINDOW`] (it was out, or slow for a while), and on one whose start
/// ended with a queue that may have been chance.
const REGROW_MIN: f64 = 0.25;
const REGROW_MAX: f64 = 1.0;
const BEST_WINDOW: Duration = Duration::from_secs(60);
/// What a link that was out is believed to carry, of what it did.
const RETURN_SHARE: f64 = 0.25;
/// When looking found a queue on a steady link, it is left alone for so long.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// After so long without a pause the queue is emptied.
const DRAIN_EVERY: Duration = Duration::from_secs(5);
/// ... by so much less than none, for a round trip at least.
const DRAIN_S: f64 = 0.006;

/// Sent and delivered differ by this: the queue changed.
const CHANGE: f64 = 0.08;
/// The same of traffic that is less than that share of C.
const CHANGE_LIGHT: f64 = 0.3;
const LIGHT: f64 = 0.5;
/// Below this share of C the queue is meant to drain.
const DRAINING: f64 = 0.95;
/// A link with a queue for this long was busy.
const BUSY_WINDOW_MIN: Duration = Duration::from_millis(20);
/// A sample that differs by this replaces the estimate; less moves it by the gain.
const JUMP: f64 = 0.1;
const ESTIMATE_GAIN: f64 = 0.3;

/// No estimate goes below this: it must still be found out what the link carries.
const RATE_MIN_BPS: f64 = 200_000.0;
/// Up to so many times that more is looked for in large steps.
const LITTLE: f64 = 4.0;

/// A C that varied by more than this, relative and on average, is distrusted after a pause.
const VOLATILE: f64 = 0.05;
const TRUST_WINDOW: Duration = Duration::from_secs(1);
const TRUST_MIN: f64 = 0.25;
/// Volatility is the mean, over so many seconds, of how far C is from its own mean; a link without traffic keeps it for so long.
const VOLATILITY_S: f64 = 5.0;
const USUAL_RATE_S: f64 = 1.0;
const VOLATILITY_KEPT_S: f64 = 40.0;

/// What the peer told of one datagram and all before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// When the newest datagram that arrived was sent.
    pub(super) sent_at: Instant,
    /// Bytes sent up to then, it included.
    pub(super) sent: u64,
    /// The pacer's idle time up to then.
    pub(super) idle: Duration,
    /// When it arrived, µs of the peer's clock.
    pub(super) arrived_us: u64,
    /// Bytes delivered in all, and lost, and in how many rows.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) lost_rows: u64,
    /// What came with congestion marks since the last sample.
    pub(super) marked: Marked,
    /// The least delay since the last sample, µs with an unknown offset, and the size of that datagram.
    pub(super) delay_us: i64,
    pub(super) delay_bytes: u64,
    /// Bytes sent up to now.
    pub(super) total: u64,
    /// The smallest round trip lately.
    pub(super) rtt_min: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Steady,
    Shared,
}

/// The rate model of one link and direction.
#[derive(Debug, Clone)]
pub(super) struct RateControl {
    configured: Option<BitRate>,
    peer_ceiling: Option<BitRate>,
    phase: Phase,
    /// C; in the first phase, the most that was delivered. 0: nothing is known.
    rate_bps: f64,
    /// Share of C to pace at.
    gain: f64,
    /// Share of C to look for more with.
    probe: f64,
    /// C was never proven by a queue while looking for more.
    is_fresh: bool,
    /// Since when no queue was seen and the pacer was used to the full.
    quiet_since: Option<Instant>,
    base: Base,
    queue_s: f64,
    /// Deviation of delays that no queue explains.
    noise_s: f64,
    /// The same while the link was not used to the full, and whether it is.
    calm_noise_s: f64,
    is_full: bool,
    /// The last two delays that it was found from, and when the newer came.
    noise_from: Option<(Instant, i64, i64)>,
    /// The longest queue since it was last asked for.
    queue_max_s: f64,
    /// What was sent up to then may have been lost because it was to find out what the link carries.
    pushed_until: Instant,
    /// C when there was no queue last.
    calm_bps: f64,
    /// Samples in a row with a queue that ends the first phase.
    standing: u32,
    /// When the queue was last empty for certain, and until when it is being emptied, with the least seen meanwhile.
    empty_at: Instant,
    draining: Option<(Instant, f64)>,
    vain: Option<Vain>,
    /// When a queue last did not drain, how often in a row, and the base before.
    vain_at: Option<(Instant, u32, i64)>,
    contest: Contest,
    losses: Losses,
    /// Whether it carries so little that what is lost is none of ours.
    is_light: bool,
    excess: Excess,
    cut: Option<Box<Cut>>,
    /// The last cut, and C before it if it was the first of its series and C was not found again; else 0.
    cut_at: Option<Instant>,
    before_cut_bps: f64,
    /// No probing before this.
    probe_after: Instant,
    probe_pause_s: u8,
    /// Mean relative distance of C from its mean of a second, and when both were last brought up to date.
    volatility: f64,
    usual_bps: f64,
    volatility_at: Instant,
    /// The most that was delivered lately, bit/s, negated; and the largest C in a longer while.
    delivered: MaxRate,
    best: MaxRate,
    rtt_min: Duration,
    marks: Marks,
    /// Once there were marks: most links never have any.
    congestion: Option<Box<Congestion>>,
    /// While the link is shared.
    shared: Option<Box<Shared>>,
}

impl RateControl {
    /// With the ceiling from our own configuration.
    pub(super) fn new(configured: Option<BitRate>) -> Self {
        let mut control = Self {
            configured,
            peer_ceiling: None,
            phase: Phase::Start,
            rate_bps: 0.0,
            gain: 1.0,
            probe: 0.0,
            is_fresh: true,
            quiet_since: None,
            base: Base::new(),
            queue_s: 0.0,
            noise_s: 0.0,
            calm_noise_s: 0.0,
            is_full: false,
            noise_from: None,
            queue_max_s: 0.0,
            pushed_until: Instant::ZERO,
            calm_bps: 0.0,
            standing: 0,
            empty_at: Instant::ZERO,
            draining: None,
            vain: None,
            vain_at: None,
            contest: Contest::new(),
            losses: Losses::default(),
            is_light: false,
            excess: Excess::default(),
            cut: None,
            cut_at: None,
            before_cut_bps: 0.0,
            probe_after: Instant::ZERO,
            probe_pause_s: 1,
            volatility: 0.0,
            usual_bps: 0.0,
            volatility_at: Instant::ZERO,
            delivered: MaxRate::new(TRUST_WINDOW),
            best: MaxRate::new(BEST_WINDOW),
            rtt_min: Duration::from_millis(50),
            marks: Marks::default(),
            congestion: None,
            shared: None,
        };
        control.take_hint();
        control
    }

    /// The peer told what it wants to be sent at most.
    pub(super) fn on_peer_ceiling(&mut self, ceiling: Option<BitRate>) {
        self.peer_ceiling = ceiling;
        self.take_hint();
    }

    /// A ceiling is the first guess.
    fn take_hint(&mut self) {
        if let (Phase::Start, Some(ceiling)) = (self.phase, self.ceiling()) {
            self.phase = Phase::Steady;
            self.rate_bps = bps(ceiling);
        }
    }

    /// The peer was restarted or the link was down: delays begin anew, the rate is kept as far as it is likely.
    pub(super) fn on_restart(&mut self, now: Instant) {
        self.base = Base::new();
        self.marks = Marks::default();
        self.congestion = None;
        self.queue_s = 0.0;
        self.noise_from = None;
        self.gain = 1.0;
        self.standing = 0;
        self.vain = None;
        self.vain_at = None;
        self.contest = Contest::new();
        self.quiet_since = None;
        self.probe = 0.0;
        self.cut = None;
        self.excess.clear();
        self.calm_bps = 0.0;
        self.shared = None;
        if self.phase == Phase::Shared {
            self.phase = Phase::Steady;
        }
        if self.phase == Phase::Steady {
            self.rate_bps = self.rate_bps.max(self.best.bps(now) * RETURN_SHARE);
            self.is_fresh = true;
        }
    }

    /// Takes a sample.
    pub(super) fn on_sample(&mut self, sample: &Sample, now: Instant) {
        self.rtt_min = sample.rtt_min;
        self.note_delay(sample, now);
        self.note_losses(sample);
        self.note_marked(sample.marked);
        self.marks.push(Mark {
            arrived_us: sample.arrived_us,
            sent_at: sample.sent_at,
            sent: sample.sent,
            delivered: sample.delivered,
            lost: sample.lost,
            lost_rows: sample.lost_rows,
            idle_us: u64::try_from(sample.idle.as_micros()).unwrap_or(u64::MAX),
            queue_s: self.queue_s,
        });
        if self.phase == Phase::Start {
            self.on_start(now);
        } else if let Some(span) = self.marks.span(self.window()) {
            self.delivered.push(span.delivered_bps, now);
            self.is_full = span.is_full;
            self.note_load(&span);
            match self.phase {
                Phase::Start => {}
                Phase::Steady => self.on_steady(&span, sample, now),
                Phase::Shared => {}
            }
        }
        match self.phase {
            Phase::Start => {}
            Phase::Steady => {
                if self.queue_s <= self.empty_s() {
                    self.calm_bps = self.rate_bps;
                }
                self.note_volatility(now);
                self.note_vain(sample, now);
                self.set_gain(sample, now);
                if self.phase == Phase::Steady {
                    self.note_contest(sample, now);
                }
            }
            Phase::Shared => self.on_shared(sample, now),
        }
    }

    /// How long nothing is looked for after a loss.
    fn probe_pause(&self) -> Duration {
        Duration::from_secs(u64::from(self.probe_pause_s))
    }

    /// Rates are taken over this.
    fn window(&self) -> Duration {
        let round = self.rtt_min.clamp(Duration::from_millis(40), Duration::from_millis(100));
        match self.phase {
            Phase::Start => round,
            Phase::Steady | Phase::Shared => {
                round.max(Duration::from_secs_f64((12.0 * self.datagram_s()).min(0.25)))
            }
        }
    }

    /// How long a full datagram takes at C.
    fn datagram_s(&self) -> f64 {
        if self.rate_bps > 0.0 { DATAGRAM_BYTES * 8.0 / self.rate_bps } else { 0.0 }
    }

    /// A queue below this is none.
    fn empty_s(&self) -> f64 {
        EMPTY_S.max(self.datagram_s() / 2.0)
    }

    fn on_start(&mut self, now: Instant) {
        let limit = START_QUEUE_S.max(self.rtt_min.as_secs_f64() / 24.0) + 1.5 * self.datagram_s();
        self.standing = if self.queue_s > limit || self.is_marked() { self.standing + 1 } else { 0 };
        let is_standing = self.standing >= 2;
        // A queue ends it at once, with what little is known of the rate.
        let window = if is_standing { self.window().min(self.marks.reach()) } else { self.window() };
        let Some(span) = self.marks.span(window.max(START_WINDOW_MIN)) else { return };
        self.note_load(&span);
        if span.is_full || span.sent_bps > self.rate_bps * START_BEYOND {
            self.pushed_until = now;
        }
        if span.loss > OUTAGE_LOSS {
            return;
        }
        self.rate_bps = self.rate_bps.max(span.delivered_bps);
        self.best.push(self.rate_bps, now);
        let is_lossy = span.is_full
            && span.loss > self.losses.usual() + START_LOSS
            && span.lost_bytes > START_LOST_BYTES;
        if is_standing || is_lossy {
            self.phase = Phase::Steady;
            self.rate_bps = span.delivered_bps.max(RATE_MIN_BPS);
            self.empty_at = now;
            if !is_standing {
                self.begin_cut(span.sent_bps, now);
                self.is_fresh = false;
                self.probe_after = now + self.probe_pause();
            }
        }
    }

    fn on_steady(&mut self, span: &Span, sample: &Sample, now: Instant) {
        if let Some(busy) = self.marks.busy_span(self.empty_s(), BUSY_WINDOW_MIN, self.window()) {
            self.end_probe(now);
            self.on_busy(&busy, now);
            return;
        }
        if self.on_loss(span, sample, now) {
            return;
        }
        if self.on_marks(now) {
            return;
        }
        let carried_bps = self.carried_bps(span);
        if carried_bps > self.rate_bps {
            // No more than was sent: what waited in a stalled link, or in the peer's socket, comes at once.
            let seen = carried_bps.min(span.sent_bps);
            if seen > self.rate_bps {
                let gain = if self.probe >= REGROW_MIN { 1.0 } else { 0.5 };
                self.adopt(self.rate_bps + (seen - self.rate_bps) * gain, now);
            }
        }
        self.look_for_more(span, now);
    }

    /// The link had a queue all the time: what it delivered is what it carries.
    fn on_busy(&mut self, span: &Span, now: Instant) {
        let carried_bps = self.rate_bps.clamp(self.carried_bps(span), self.carried_most_bps(span));
        let ratio = carried_bps / span.sent_bps.max(1.0);
        // Of little traffic a few datagrams are all that is known.
        let is_light = !span.is_full && span.sent_bps < self.rate_bps * LIGHT;
        let change = if is_light { CHANGE_LIGHT } else { CHANGE };
        let is_flat = (1.0 - change..=1.0 + CHANGE).contains(&ratio);
        // A queue that should drain, and of which nothing else is known, may be none.
        if span.sent_bps < self.rate_bps * DRAINING && is_flat {
            return;
        }
        if !is_flat {
            self.vain = None;
        }
        // What drains came quicker than it was sent, and so does what a stalled link lets go: a little is believed.
        let seen = if ratio > 1.0 + CHANGE { carried_bps.min(self.rate_bps * 1.1) } else { carried_bps };
        let regular_bps = carried_bps * span.regular_bps / span.delivered_bps.max(1.0);
        let seen = seen.max(regular_bps.min(self.rate_bps));
        let error = seen / self.rate_bps - 1.0;
        let gain = if error.abs() > JUMP { 1.0 } else { ESTIMATE_GAIN };
        self.adopt(self.rate_bps + (seen - self.rate_bps) * gain, now);
    }

    /// What the link carried: what was lost as usual took its time too.
    fn carried_bps(&self, span: &Span) -> f64 {
        span.delivered_bps / (1.0 - span.loss.min(self.losses.usual()).min(0.5))
    }

    /// The same at most: nobody knows whether the link carried what chance or a burst of loss took.
    fn carried_most_bps(&self, span: &Span) -> f64 {
        let chance =
            if span.lost_rows < EXCESS_ROWS { OUTAGE_LOSS } else { self.losses.usual() + POLICED_LOSS };
        self.carried_bps(span).max(span.delivered_bps / (1.0 - span.loss.min(chance).min(OUTAGE_LOSS)))
    }

    /// C is `rate_bps`.
    fn adopt(&mut self, rate_bps: f64, now: Instant) {
        let rate_bps = rate_bps.max(RATE_MIN_BPS);
        self.rate_bps = rate_bps;
        self.best.push(rate_bps, now);
        if let Some(ceiling) = self.ceiling() {
            self.rate_bps = self.rate_bps.min(bps(ceiling));
        }
    }

    /// How far C is from what it was on average in the last second.
    fn note_volatility(&mut self, now: Instant) {
        let span = now.saturating_since(self.volatility_at).as_secs_f64().min(0.1);
        self.volatility_at = now;
        if self.usual_bps == 0.0 {
            self.usual_bps = self.rate_bps;
        }
        self.usual_bps += (self.rate_bps - self.usual_bps) * span / USUAL_RATE_S;
        let off = (self.rate_bps - self.usual_bps).abs() / self.rate_bps.max(self.usual_bps);
        self.volatility += (off - self.volatility) * span / VOLATILITY_S;
    }

    fn look_for_more(&mut self, span: &Span, now: Instant) {
        if self.queue_s > self.empty_s() {
            self.end_probe(now);
            return;
        }
        if !span.is_full {
            // A link that is not used to the full is empty now and then.
            (self.probe, self.quiet_since, self.empty_at) = (0.0, None, now);
            return;
        }
        let since = *self.quiet_since.get_or_insert(now);
        if now.saturating_since(since) >= self.rtt_min + self.window() / 2 && now >= self.probe_after {
            let is_likely = self.is_fresh
                || self.rate_bps < RATE_MIN_BPS * LITTLE
                || self.rate_bps < self.best.bps(now) / 2.0
                || self.rate_bps < self.before_cut_bps * (1.0 - CHANGE);
            let (least, most) = if is_likely { (REGROW_MIN, REGROW_MAX) } else { (PROBE_MIN, PROBE_MAX) };
            self.probe = (self.probe * 2.0).clamp(least, most);
            self.quiet_since = Some(now);
        }
    }

    /// There is a queue: no more is to be had.
    fn end_probe(&mut self, now: Instant) {
        if self.probe > 0.0 {
            (self.is_fresh, self.before_cut_bps) = (false, 0.0);
            if self.volatility(now) < VOLATILE / 2.0 {
                self.probe_after = self.probe_after.max(now + PROBE_PAUSE);
            }
        }
        (self.probe, self.quiet_since) = (0.0, None);
    }

    fn set_gain(&mut self, sample: &Sample, now: Instant) {
        let age = now.saturating_since(sample.sent_at).as_secs_f64();
        let since_bytes = sample.total.saturating_sub(sample.sent);
        let expected_s = (self.queue_s + since_bytes as f64 * 8.0 / self.rate_bps - age).max(0.0);
        let expected_s = expected_s.max(self.congestion.as_ref().map_or(0.0, |marks| marks.queue_s()));
        let target_s = self.target_s(sample, now);
        let gain = 1.0 + (target_s - expected_s) / CONTROL_S + self.probe;
        self.gain = gain.clamp(GAIN_MIN, GAIN_MAX.max(1.0 + self.probe));
        if self.probe >= REGROW_MIN {
            self.pushed_until = now;
        }
    }

    /// The queue to keep.
    fn kept_s(&self, now: Instant) -> f64 {
        let volatility = self.volatility(now);
        if self.probe > 0.0 || volatility >= VOLATILE / 2.0 {
            (TARGET_VOLATILITY_S * volatility).clamp(TARGET_MIN, TARGET_MAX)
        } else {
            TARGET_STEADY
        }
    }

    /// The same; less than none while it is being emptied.
    fn target_s(&mut self, sample: &Sample, now: Instant) -> f64 {
        let regular = self.kept_s(now);
        if now.saturating_since(self.empty_at) < DRAIN_EVERY {
            self.draining = None;
            return regular;
        }
        let age = now.saturating_since(sample.sent_at);
        let span = Duration::from_secs_f64(CONTROL_S);
        let (until, least) = self.draining.get_or_insert((now + age + span, self.queue_s));
        if self.queue_s < *least - EMPTY_S {
            (*until, *least) = ((*until).max(now + span), self.queue_s);
        }
        if now < *until {
            return -DRAIN_S;
        }
        self.draining = None;
        self.empty_at = now;
        regular
    }

    /// How far, relative and on average, C is lately from its mean of a second.
    pub(super) fn volatility(&self, now: Instant) -> f64 {
        let age = now.saturating_since(self.volatility_at).as_secs_f64();
        self.volatility * (1.0 - age / VOLATILITY_KEPT_S).clamp(0.0, 1.0)
    }

    fn ceiling(&self) -> Option<BitRate> {
        match (self.configured, self.peer_ceiling) {
            (Some(own), Some(peer)) => Some(own.min(peer)),
            (own, peer) => own.or(peer),
        }
    }

    /// Whether somebody else fills the link's queue.
    pub(super) fn is_shared(&self) -> bool {
        self.phase == Phase::Shared
    }

    /// What the link carries, IP headers included; `None` when unknown.
    pub(super) fn capacity(&self) -> Option<BitRate> {
        match self.phase {
            Phase::Start => None,
            Phase::Steady | Phase::Shared => Some(rate(self.rate_bps)),
        }
    }

    /// The rate to pace at while an answer is `overdue`.
    pub(super) fn pacing_rate(&self, overdue: Duration, now: Instant) -> BitRate {
        let paced = match self.phase {
            Phase::Start => {
                let round = self.rtt_min.as_secs_f64().clamp(1e-3, INITIAL_ROUND_MAX_S);
                let initial = INITIAL_DATAGRAMS * DATAGRAM_BYTES * 8.0 / round;
                (self.rate_bps * START_GAIN).max(initial.min(INITIAL_BPS_MAX))
            }
            Phase::Steady => self.trusted(self.rate_bps * self.gain, now),
            Phase::Shared => self.shared.as_ref().map_or(0.0, |shared| shared.rate_bps()),
        };
        let late = 1.0 - overdue.as_secs_f64() / CONTROL_S;
        let paced = rate((paced * late.max(GAIN_MIN)).max(RATE_MIN_BPS));
        self.ceiling().map_or(paced, |ceiling| paced.min(ceiling.permille(PACING_PERMILLE)))
    }

    /// What a link that varies may be trusted with: it may have changed since it carried that much.
    fn trusted(&self, paced_bps: f64, now: Instant) -> f64 {
        if self.volatility(now) < VOLATILE {
            return paced_bps;
        }
        paced_bps.min((self.delivered.bps(now) * 2.0).max(self.rate_bps * TRUST_MIN))
    }
}

fn bps(rate: BitRate) -> f64 {
    rate.as_bps() as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn rate(bps: f64) -> BitRate {
    BitRate::from_bps(bps as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn rounded(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests;
