//! A competitor: another user's TCP flow on one of the links. It fills the queue that the bond
//! keeps empty, and yields to loss only.
//!
//! A model, not an implementation: a window in full segments by RFC 9438 (cubic, with its
//! Reno-friendly region and fast convergence), slow start until HyStart's delay rule or a loss (RFC
//! 9406, without its conservative phase), and one decrease per round trip when a segment sent three
//! later has arrived. Lost segments are not sent again, because their bytes are not needed.
//! Acknowledgements take half the round trip and are never lost.

use std::collections::VecDeque;
use std::time::Duration;

use bonding_proto::Instant;

/// Bytes of a segment on the link.
pub const SEGMENT_BYTES: u32 = 1_500;

const INITIAL_WINDOW: f64 = 10.0;
const WINDOW_MIN: f64 = 2.0;
/// RFC 9438 §4: C, in segments/s³, and β.
const CUBIC_C: f64 = 0.4;
const BETA: f64 = 0.7;
/// RFC 9406 §4.2: the increase of the round trip that ends slow start.
const HYSTART_MIN: Duration = Duration::from_millis(4);
const HYSTART_MAX: Duration = Duration::from_millis(16);
/// A segment is lost when a segment this many later has arrived (RFC 5681 §3.2).
const REORDER_SEGMENTS: u64 = 3;
/// The retransmission timeout. Chosen: above any round trip of the scenarios.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The flow's sender, and its knowledge of the receiver.
#[derive(Debug)]
pub struct Competitor {
    /// The delay of an acknowledgement.
    back: Duration,
    start: Instant,
    window: f64,
    /// In segments; infinite before the first loss.
    slow_start_until: f64,
    /// The start of growth after the last decrease, the window to return to (W_max), and the
    /// seconds until then (K).
    epoch: Option<(Instant, f64, f64)>,
    last_max: f64,
    /// The window that Reno would have.
    reno: f64,
    next: u64,
    /// Segments in flight, in order, with their times of sending.
    under_way: VecDeque<(u64, Instant)>,
    /// Acknowledgements in flight.
    acks: VecDeque<(Instant, u64)>,
    /// Losses of segments sent before this one cause no second decrease.
    recover: u64,
    rtt_min: Duration,
    delivered_bytes: u64,
}

impl Competitor {
    /// A flow over a link with this round-trip time, from `start` on.
    pub fn new(rtt: Duration, start: Instant) -> Self {
        Self {
            back: rtt / 2,
            start,
            window: INITIAL_WINDOW,
            slow_start_until: f64::INFINITY,
            epoch: None,
            last_max: 0.0,
            reno: INITIAL_WINDOW,
            next: 0,
            under_way: VecDeque::new(),
            acks: VecDeque::new(),
            recover: 0,
            rtt_min: Duration::MAX,
            delivered_bytes: 0,
        }
    }

    /// Bytes that arrived.
    pub const fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// When the flow acts next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.next == 0 {
            return Some(self.start);
        }
        let silent = self.under_way.front().map(|(_, sent_at)| *sent_at + SILENCE_MAX);
        self.acks.front().map(|(due, _)| *due).into_iter().chain(silent).min()
    }

    /// The number of the segment to send now; `None`: the window is full.
    pub fn poll_segment(&mut self, now: Instant) -> Option<u64> {
        if now < self.start || self.under_way.len() as f64 >= self.window {
            return None;
        }
        self.under_way.push_back((self.next, now));
        self.next += 1;
        Some(self.next - 1)
    }

    /// Notes a segment that arrived at the other end.
    pub fn on_delivered(&mut self, number: u64, now: Instant) {
        self.delivered_bytes += u64::from(SEGMENT_BYTES);
        self.acks.push_back((now + self.back, number));
    }

    /// Processes the acknowledgements that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, number)) = self.acks.pop_front_if(|(due, _)| *due <= now) {
            self.on_ack(number, now);
        }
        if self.under_way.front().is_some_and(|(_, sent_at)| *sent_at + SILENCE_MAX <= now) {
            self.under_way.clear();
            self.shrink();
            self.window = WINDOW_MIN;
        }
    }

    fn on_ack(&mut self, number: u64, now: Instant) {
        let Some(at) = self.under_way.iter().position(|(known, _)| *known == number) else { return };
        if let Some((_, sent_at)) = self.under_way.remove(at) {
            self.grow(now - sent_at, now);
        }
        while let Some((lost, _)) =
            self.under_way.pop_front_if(|(oldest, _)| *oldest + REORDER_SEGMENTS <= number)
        {
            if lost >= self.recover {
                self.shrink();
            }
        }
    }

    fn grow(&mut self, rtt: Duration, now: Instant) {
        self.rtt_min = self.rtt_min.min(rtt);
        if self.window < self.slow_start_until {
            self.window += 1.0;
            if rtt > self.rtt_min + (self.rtt_min / 8).clamp(HYSTART_MIN, HYSTART_MAX) {
                self.slow_start_until = self.window;
            }
            return;
        }
        let window = self.window;
        let (begun, origin, back_s) = *self.epoch.get_or_insert_with(|| {
            let origin = self.last_max.max(window);
            (now, origin, ((origin - window) / CUBIC_C).cbrt())
        });
        let wanted = origin + CUBIC_C * ((now - begun + rtt).as_secs_f64() - back_s).powi(3);
        // RFC 9438 §4.3.
        self.reno += 3.0 * (1.0 - BETA) / (1.0 + BETA) / self.window;
        let wanted = wanted.max(self.reno).min(self.window * 1.5);
        self.window += ((wanted - self.window) / self.window).max(0.01 / self.window);
    }

    fn shrink(&mut self) {
        self.recover = self.next;
        // RFC 9438 §4.7: fast convergence.
        let is_less = self.window < self.last_max;
        self.last_max = if is_less { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(WINDOW_MIN);
        self.slow_start_until = self.window;
        self.reno = self.window;
        self.epoch = None;
    }
}
