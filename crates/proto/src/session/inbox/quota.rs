//! How many frames of a kind count in one datagram, where a frame makes this side do more than its
//! bytes pay for: an answer is sent, or what follows from links is made anew.

use crate::discard::Discard;
use crate::wire::Kind;
use crate::wire::feedback::FRAMES_MAX;

/// What the frames of one datagram have taken.
#[derive(Debug, Default)]
pub(in crate::session) struct Quota {
    heartbeats: usize,
    controls: usize,
    feedbacks: usize,
}

impl Quota {
    /// Whether another frame of the kind counts; otherwise it is ignored for this reason.
    #[inline]
    pub(in crate::session) const fn take(&mut self, kind: Kind) -> Result<(), Discard> {
        let (taken, max, refusal) = match kind {
            Kind::Data | Kind::Repair => return Ok(()),
            Kind::Heartbeat => (&mut self.heartbeats, 1, Discard::HeartbeatRepeated),
            Kind::Control => (&mut self.controls, 1, Discard::ControlRepeated),
            Kind::Feedback => (&mut self.feedbacks, FRAMES_MAX, Discard::FeedbackRepeated),
        };
        if *taken == max {
            return Err(refusal);
        }
        *taken += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_counts_always_and_what_costs_more_than_its_bytes_a_few_times() {
        let mut quota = Quota::default();
        let mut taken = |kind| (0..20).filter(|_| quota.take(kind).is_ok()).count();
        assert_eq!([Kind::Data, Kind::Repair].map(&mut taken), [20, 20]);
        assert_eq!([Kind::Heartbeat, Kind::Control, Kind::Feedback].map(&mut taken), [1, 1, FRAMES_MAX]);
        assert_eq!(quota.take(Kind::Control), Err(Discard::ControlRepeated));
        assert_eq!(quota.take(Kind::Feedback), Err(Discard::FeedbackRepeated));
    }
}
