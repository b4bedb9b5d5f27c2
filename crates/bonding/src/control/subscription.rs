//! What a subscriber is sent, and when: figures at its interval, events as they happen.
//!
//! All figures that are due at one moment are one line, made once and shared. They cost the
//! engine's thread at most a hundredth of its time: after a line that took long to make, the next
//! one waits (docs/decisions/0110-figures-are-pushed-at-a-bounded-cost.md).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Answers, PROTOCOL};

/// Bounds of the interval of figures, ms. Chosen: ten a second is smooth to the eye.
const INTERVAL_MS_MIN: u64 = 100;
/// See [`INTERVAL_MS_MIN`].
const INTERVAL_MS_MAX: u64 = 3_600_000;
/// Figures take at most one part of so many of the engine's time.
const COST_PARTS: u32 = 100;

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// `None`: no figures are wanted.
    interval: Option<Duration>,
    /// When figures are due next, if any are.
    due_at: Instant,
    /// The number of the last event that was sent; `None`: none is wanted.
    told: Option<u64>,
    /// Figures that were skipped since the last ones, as the reader had not taken those before.
    skipped: u64,
}

impl Subscription {
    /// Figures at this interval (0: none), and the events behind a number, if any are wanted.
    ///
    /// # Errors
    /// The mistake, for a person.
    pub(super) fn new(interval_ms: u64, after: Option<u64>, now: Instant) -> Result<Self, String> {
        if interval_ms != 0 && !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&interval_ms) {
            return Err(format!(
                "an interval of {interval_ms} ms is not from {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"
            ));
        }
        let interval = (interval_ms != 0).then(|| Duration::from_millis(interval_ms));
        Ok(Self { interval, due_at: now, told: after, skipped: 0 })
    }

    /// The line that answers the request.
    pub(super) fn answer(&self) -> String {
        let interval_ms = self.interval.map_or(0, |interval| interval.as_millis());
        serde_json::json!({ "subscribed": { "protocol": PROTOCOL, "interval_ms": interval_ms } }).to_string()
    }

    /// When figures are due next.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.interval.map(|_| self.due_at)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// Whether an event behind those that were sent is there; `newest` is the newest one's number.
    pub(super) fn wants_events(&self, newest: u64) -> bool {
        self.told.is_some_and(|told| told < newest)
    }

    /// The reader has not taken the last push: figures that are due are skipped.
    pub(super) fn skip(&mut self, now: Instant) {
        if self.is_due(now) {
            self.skipped += 1;
            self.advance(now);
        }
    }

    /// The next figures are due an interval later, however late these are.
    fn advance(&mut self, now: Instant) {
        let interval = self.interval.unwrap_or_default();
        let next = self.due_at + interval;
        self.due_at = if next > now { next } else { now + interval };
    }

    /// The lines that are due now.
    pub(super) fn lines(&mut self, push: &mut Push<'_>, now: Instant) -> Vec<Bytes> {
        let mut lines = Vec::new();
        if let Some(told) = self.told
            && let Some((line, newest)) = (push.events)(told)
        {
            self.told = Some(newest);
            lines.push(line.into());
        }
        if self.is_due(now)
            && let Some(figures) = push.figures(now)
        {
            self.advance(now);
            let skipped = std::mem::take(&mut self.skipped);
            if skipped > 0 {
                lines.push(format!("{{\"skipped\":{skipped}}}\n").into());
            }
            lines.push(figures);
        }
        lines
    }
}

/// Where the lines of one moment come from.
pub(super) struct Push<'a> {
    make: &'a mut dyn FnMut() -> String,
    /// The line of the events behind a number, and the last one's number.
    pub(super) events: &'a dyn Fn(u64) -> Option<(String, u64)>,
    figures: Option<Bytes>,
    budget: &'a mut Budget,
}

impl<'a> Push<'a> {
    pub(super) fn new(
        make: &'a mut dyn FnMut() -> String,
        events: &'a dyn Fn(u64) -> Option<(String, u64)>,
        budget: &'a mut Budget,
    ) -> Self {
        Self { make, events, figures: None, budget }
    }

    /// The figures of this moment; `None`: those before cost too much.
    fn figures(&mut self, now: Instant) -> Option<Bytes> {
        if self.figures.is_none() && self.budget.free_at.is_none_or(|at| at <= now) {
            let mut line = (self.make)();
            line.push('\n');
            self.budget.free_at = Some(now + now.elapsed() * COST_PARTS);
            self.figures = Some(line.into());
        }
        self.figures.clone()
    }
}

/// The time that figures may take.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Until then none are made.
    free_at: Option<Instant>,
}

impl Budget {
    /// When figures that are due at `at` are made.
    pub(super) fn allows(&self, at: Instant) -> Instant {
        self.free_at.map_or(at, |free_at| free_at.max(at))
    }
}

/// The line of events: the first records behind a number, as [`Answers`] has them.
pub(super) fn events_line(answers: &impl Answers, told: u64) -> Option<(String, u64)> {
    let (text, newest) = answers.events(told)?;
    Some((text + "\n", newest))
}
