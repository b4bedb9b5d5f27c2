//! The feedback frame: the receiver of a sealed link's datagrams tells the sender which datagrams
//! arrived, when, and how late. A feedback frame goes over the link that it describes, with
//! `seq_num` 0. Indirect feedback goes over another link; its `seq_num` is the described link's
//! number plus 1.
//!
//! ```text
//!  0  version (1) 1B | range count 1B
//!  2  marked 2B       datagrams received with a congestion mark (CE), modulo 2^16
//!  4  key 4B          the receiver index in those datagrams
//!  8  largest 8B      the largest counter received under that key
//! 16  arrival 4B      arrival time of the largest, µs of the receiver's clock modulo 2^32
//! 20  hold 4B         time from that arrival to the sending of this feedback, µs
//! 24  least back 2B   the datagram with the least delay since the last feedback: its counter is
//!                     this much below the largest ...
//! 26  least before 2B ... and it arrived this much earlier, in units of 16 µs
//! 28  received 4B     datagrams received under that key, modulo 2^32
//! 32  first run 2B    counters received in a row: the largest and those right below it; at least 1
//! 34  ranges          range count times, downwards: gap 2B (not received), run 2B (received),
//!                     each at least 1
//! ```
//! A reader ignores bytes behind the ranges: later versions may append. A counter outside all runs
//! has not arrived yet, or is below the last range; `received` counts it in either case once it
//! arrived.
//!
//! Sources: QUIC's ACK frame (RFC 9000 §19.3) for the ranges, RFC 9000 §13.2.5 for the hold.

use super::Reader;
use crate::discard::Discard;

/// The `seq_num` of indirect feedback: feedback about `link` that goes over another link.
pub const fn seq_num_about(link: u8) -> u64 {
    link as u64 + 1
}

/// The link that indirect feedback describes; `None`: the feedback describes the link that carried
/// it.
pub fn parse_about(seq_num: u64) -> Result<Option<u8>, Discard> {
    match seq_num.checked_sub(1) {
        None => Ok(None),
        Some(link) => u8::try_from(link).map(Some).map_err(|_| Discard::FeedbackMalformed),
    }
}

/// The most pairs of gap and run in one frame. Chosen: 162 bytes of payload, and enough for a burst
/// of scattered losses.
pub const RANGES_MAX: usize = 32;

/// The most feedback frames in one datagram; further ones are ignored. Chosen: on a link that
/// reorders 128 gaps, which 100 Mbit/s with a jitter of 20 ms deviation have at a time; 700 bytes.
pub const FRAMES_MAX: usize = 4;

/// Bytes of a payload without ranges.
const FIXED_BYTES: u16 = 34;
const RANGE_BYTES: u16 = 4;

const VERSION: u8 = 1;

/// One gap, and the run of received counters below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// Counters that were not received; at least 1.
    pub gap: u16,
    /// Counters that were received; at least 1.
    pub run: u16,
}

/// The counters received under a key, from the largest downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Length of the first run: the largest counter and the counters right below it, at least 1.
    pub first: u16,
    count: usize,
    ranges: [Range; RANGES_MAX],
}

impl Runs {
    /// One run of `first` counters.
    pub const fn new(first: u16) -> Self {
        Self { first, count: 0, ranges: [Range { gap: 0, run: 0 }; RANGES_MAX] }
    }

    /// Adds a gap and a run below the others; `false` if there is no room.
    pub fn push(&mut self, range: Range) -> bool {
        let slot = self.ranges.get_mut(self.count);
        let has_room = slot.is_some();
        if let Some(slot) = slot {
            *slot = range;
            self.count += 1;
        }
        has_room
    }

    /// The ranges below the first run.
    pub fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// The counter below all of these, where there was no room for more.
    pub fn rest(&self, largest: u64) -> Option<u64> {
        let (lowest, _) = self.counters(largest).last().filter(|_| self.count == RANGES_MAX)?;
        lowest.checked_sub(1)
    }

    /// Each run as its lowest and highest counter (inclusive), downwards from `largest`.
    pub fn counters(&self, largest: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let first = std::iter::once(Range { gap: 0, run: self.first });
        let mut next = Some(largest);
        first.chain(self.ranges().iter().copied()).map_while(move |range| {
            let high = next?.checked_sub(u64::from(range.gap))?;
            let low = high.checked_sub(u64::from(range.run).checked_sub(1)?)?;
            next = low.checked_sub(1);
            Some((low, high))
        })
    }
}

/// A feedback frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback {
    /// Datagrams received with a congestion mark under this key, modulo 2^16.
    pub marked: u16,
    /// The receiver index in the datagrams that this describes.
    pub key: u32,
    /// The largest counter received.
    pub largest: u64,
    /// When the largest arrived, µs of the receiver's clock modulo 2^32.
    pub arrival_us: u32,
    /// Time from that arrival to the sending of the feedback, µs.
    pub hold_us: u32,
    /// The datagram with the least delay since the last feedback: its counter's distance below the
    /// largest.
    pub least_back: u16,
    /// How much earlier than the largest that datagram arrived, in units of 16 µs.
    pub least_before: u16,
    /// Datagrams received under this key, modulo 2^32.
    pub received: u32,
    /// The counters received.
    pub runs: Runs,
}

impl Feedback {
    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> u16 {
        FIXED_BYTES + RANGE_BYTES * u16::try_from(self.runs.count).unwrap_or(0)
    }

    /// Appends the payload.
    pub fn put(&self, buf: &mut Vec<u8>) {
        buf.extend_from_slice(&[VERSION, u8::try_from(self.runs.count).unwrap_or(0)]);
        buf.extend_from_slice(&self.marked.to_be_bytes());
        buf.extend_from_slice(&self.key.to_be_bytes());
        buf.extend_from_slice(&self.largest.to_be_bytes());
        buf.extend_from_slice(&self.arrival_us.to_be_bytes());
        buf.extend_from_slice(&self.hold_us.to_be_bytes());
        buf.extend_from_slice(&self.least_back.to_be_bytes());
        buf.extend_from_slice(&self.least_before.to_be_bytes());
        buf.extend_from_slice(&self.received.to_be_bytes());
        buf.extend_from_slice(&self.runs.first.to_be_bytes());
        for range in self.runs.ranges() {
            buf.extend_from_slice(&range.gap.to_be_bytes());
            buf.extend_from_slice(&range.run.to_be_bytes());
        }
    }

    /// Reads a payload. The runs lie within the counters from 0 to `largest`.
    pub fn parse(payload: &[u8]) -> Result<Self, Discard> {
        let mut reader = Reader::new(payload, Discard::FeedbackMalformed);
        let [version, count] = reader.take()?;
        if version != VERSION || usize::from(count) > RANGES_MAX {
            return Err(Discard::FeedbackMalformed);
        }
        let mut feedback = Self {
            marked: u16::from_be_bytes(reader.take()?),
            key: u32::from_be_bytes(reader.take()?),
            largest: u64::from_be_bytes(reader.take()?),
            arrival_us: u32::from_be_bytes(reader.take()?),
            hold_us: u32::from_be_bytes(reader.take()?),
            least_back: u16::from_be_bytes(reader.take()?),
            least_before: u16::from_be_bytes(reader.take()?),
            received: u32::from_be_bytes(reader.take()?),
            runs: Runs::new(u16::from_be_bytes(reader.take()?)),
        };
        for _ in 0..count {
            let gap = u16::from_be_bytes(reader.take()?);
            let run = u16::from_be_bytes(reader.take()?);
            if gap == 0 || !feedback.runs.push(Range { gap, run }) {
                return Err(Discard::FeedbackMalformed);
            }
        }
        // An empty run, or one that reaches below zero, ends the iteration early.
        let whole = feedback.runs.counters(feedback.largest).count() == usize::from(count) + 1;
        if whole { Ok(feedback) } else { Err(Discard::FeedbackMalformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Feedback {
        let mut runs = Runs::new(5);
        assert!(runs.push(Range { gap: 2, run: 10 }));
        Feedback {
            marked: 3,
            key: 0xaabb_ccdd,
            largest: 1_000,
            arrival_us: 0x0102_0304,
            hold_us: 500,
            least_back: 4,
            least_before: 62,
            received: 998,
            runs,
        }
    }

    /// The vector of PROTOCOL.md.
    #[test]
    fn vector() {
        let mut bytes = Vec::new();
        sample().put(&mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "01010003aabbccdd00000000000003e801020304000001f40004003e000003e600050002000a";
        assert_eq!(text, expected);
        assert_eq!(usize::from(sample().payload_bytes()), bytes.len());
        assert_eq!(Feedback::parse(&bytes), Ok(sample()));
        bytes.push(0xff);
        assert_eq!(Feedback::parse(&bytes), Ok(sample()), "later versions may append");
    }

    #[test]
    fn runs_name_their_counters() {
        let counters: Vec<_> = sample().runs.counters(1_000).collect();
        assert_eq!(counters, [(996, 1_000), (984, 993)]);
        assert_eq!(Runs::new(1).counters(0).collect::<Vec<_>>(), [(0, 0)]);
    }

    #[test]
    fn impossible_ones_are_refused() {
        let mut bytes = Vec::new();
        sample().put(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Feedback::parse(&bytes[..cut]), Err(Discard::FeedbackMalformed));
        }
        // Version, too many ranges, an empty first run, an empty gap, an empty run, below zero.
        for (at, value) in [(0, 2), (1, 17), (33, 0), (35, 0), (37, 0)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            assert_eq!(Feedback::parse(&bytes), Err(Discard::FeedbackMalformed), "{at}");
        }
        bytes[8..16].fill(0);
        assert_eq!(Feedback::parse(&bytes), Err(Discard::FeedbackMalformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), count in 0u8..20, largest: u32,
        ) {
            let mut bytes = bytes;
            if let Some(head) = bytes.first_chunk_mut::<2>() {
                *head = [1, count];
            }
            if let Some(field) = bytes.get_mut(8..16) {
                field.copy_from_slice(&u64::from(largest).to_be_bytes());
            }
            if let Ok(feedback) = Feedback::parse(&bytes) {
                let mut again = Vec::new();
                feedback.put(&mut again);
                prop_assert_eq!(Feedback::parse(&again), Ok(feedback));
                let counters: Vec<_> = feedback.runs.counters(feedback.largest).collect();
                prop_assert!(counters.iter().all(|(low, high)| low <= high && *high <= feedback.largest));
                prop_assert!(counters.windows(2).all(|pair| pair[1].1 + 1 < pair[0].0));
            }
        }
    }
}
