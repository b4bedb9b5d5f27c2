//! The control frame in which a side tells what it knows of its own sending over the link that
//! the frame comes on. The other side shows it to people, and decides nothing by it.
//!
//! ```text
//!  0 type     1 B   8
//!  1 phase    1 B   of the rate control: 0 startup, 1 steady, 2 competing
//!  2 loss     2 B   permille of the datagrams sent lately that did not arrive
//!  4 rate     4 B   kbit/s sent lately
//!  8 capacity 4 B   kbit/s that the link is taken to carry; 0: not known
//! 12 queue    2 B   100 µs that the newest acknowledged datagram waited in the link's queue
//! ```
//! Rates include IP and UDP headers. What does not fit its field is told as the field's largest
//! value.

use std::time::Duration;

use super::Reader;
use crate::discard::Discard;
use crate::units::BitRate;

/// Bytes of the payload.
pub const FIGURES_BYTES: u16 = 14;

/// The control frame's type.
const TYPE: u8 = 8;
/// What a unit of `queue` stands for.
const QUEUE_UNIT: Duration = Duration::from_micros(100);

/// What a side knows of what it sends over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendingFigures {
    /// The phase's number; a later version may have others.
    pub phase: u8,
    /// Lost lately, permille.
    pub loss_permille: u16,
    /// Sent lately, kbit/s.
    pub rate_kbps: u32,
    /// What the link is taken to carry, kbit/s; 0: not known.
    pub capacity_kbps: u32,
    /// The queue that the newest acknowledged datagram met, in units of 100 µs.
    pub queue_units: u16,
}

impl SendingFigures {
    /// The figures as they go over the wire.
    pub fn new(
        (phase, loss_permille): (u8, u16),
        rate: BitRate,
        capacity: Option<BitRate>,
        queue: Duration,
    ) -> Self {
        let kbps = |rate: BitRate| u32::try_from(rate.as_bps() / 1_000).unwrap_or(u32::MAX);
        let units = queue.as_micros() / QUEUE_UNIT.as_micros();
        Self {
            phase,
            loss_permille,
            rate_kbps: kbps(rate),
            // At least 1: zero means "not known".
            capacity_kbps: capacity.map_or(0, |rate| kbps(rate).max(1)),
            queue_units: u16::try_from(units).unwrap_or(u16::MAX),
        }
    }

    /// Sent lately.
    pub fn rate(&self) -> BitRate {
        BitRate::from_bps(u64::from(self.rate_kbps) * 1_000)
    }

    /// What the link is taken to carry, if that is known.
    pub fn capacity(&self) -> Option<BitRate> {
        (self.capacity_kbps != 0).then(|| BitRate::from_bps(u64::from(self.capacity_kbps) * 1_000))
    }

    /// The queue that the newest acknowledged datagram met.
    pub fn queue(&self) -> Duration {
        QUEUE_UNIT * u32::from(self.queue_units)
    }

    /// Reads a payload; `None`: it is another control frame.
    pub(super) fn parse(kind: u8, rest: &[u8]) -> Result<Option<Self>, Discard> {
        if kind != TYPE {
            return Ok(None);
        }
        let mut reader = Reader::new(rest, Discard::ControlMalformed);
        let [phase] = reader.take()?;
        Ok(Some(Self {
            phase,
            loss_permille: u16::from_be_bytes(reader.take()?).min(1_000),
            rate_kbps: u32::from_be_bytes(reader.take()?),
            capacity_kbps: u32::from_be_bytes(reader.take()?),
            queue_units: u16::from_be_bytes(reader.take()?),
        }))
    }

    /// Appends the payload.
    pub(super) fn put(&self, buf: &mut Vec<u8>) {
        buf.extend_from_slice(&[TYPE, self.phase]);
        buf.extend_from_slice(&self.loss_permille.to_be_bytes());
        buf.extend_from_slice(&self.rate_kbps.to_be_bytes());
        buf.extend_from_slice(&self.capacity_kbps.to_be_bytes());
        buf.extend_from_slice(&self.queue_units.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Control;

    /// The vector of PROTOCOL.md.
    #[test]
    fn vector() {
        let figures = SendingFigures::new(
            (1, 12),
            BitRate::from_bps(52_300_000),
            Some(BitRate::from_bps(70_000_999)),
            Duration::from_micros(3_250),
        );
        let mut buf = Vec::new();
        Control::Figures(figures).put(&mut buf);
        let text: String = buf.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "0801000c0000cc4c000111700020");
        assert_eq!(buf.len(), usize::from(FIGURES_BYTES));
        assert_eq!(Control::parse(&buf), Ok(Control::Figures(figures)));
        for cut in 1..buf.len() {
            assert_eq!(Control::parse(&buf[..cut]), Err(Discard::ControlMalformed), "{cut}");
        }
        buf.push(0xff);
        assert_eq!(Control::parse(&buf), Ok(Control::Figures(figures)));
    }

    #[test]
    fn what_does_not_fit_is_the_largest_and_what_is_impossible_is_bounded() {
        let rate = BitRate::from_bps(u64::MAX);
        let figures = SendingFigures::new((9, 1_000), rate, Some(BitRate::from_bps(1)), Duration::MAX);
        assert_eq!((figures.rate_kbps, figures.capacity_kbps, figures.queue_units), (u32::MAX, 1, u16::MAX));
        let unknown = SendingFigures::new((0, 0), BitRate::from_bps(0), None, Duration::ZERO);
        assert_eq!(unknown.capacity(), None);
        let mut buf = Vec::new();
        Control::Figures(SendingFigures { loss_permille: u16::MAX, ..unknown }).put(&mut buf);
        let Ok(Control::Figures(read)) = Control::parse(&buf) else { panic!("{buf:?}") };
        assert_eq!(read.loss_permille, 1_000);
    }
}
