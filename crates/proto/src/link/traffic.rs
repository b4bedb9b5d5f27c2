//! What a link carried: totals, the rate over the last half second, and what the peer tells of its
//! own sending.

use std::time::Duration;

use super::figures::Figures;
use crate::time::Instant;
use crate::units::BitRate;

/// Parts of the window of a rate. Chosen: a part is above the distance of two batches.
const PARTS: u32 = 10;
/// Length of a part, ns. Chosen: half a second in all is quick enough to see a link fill, and slow
/// enough not to flicker with every batch.
const PART_NS: u64 = 50_000_000;

/// Counts bytes and tells their recent rate.
#[derive(Debug, Clone, Default)]
struct RateMeter {
    /// Part number and bytes in it. Narrow, because every link of every session has two of these.
    parts: [(u32, u32); PARTS as usize],
}

impl RateMeter {
    /// Counts `bytes` now.
    fn on_bytes(&mut self, bytes: u64, now: Instant) {
        let number = part_number(now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(part) = self.parts.get_mut((number % PARTS) as usize) else { return };
        if part.0 == number {
            part.1 = part.1.saturating_add(bytes);
        } else {
            *part = (number, bytes);
        }
    }

    /// The rate over the nine whole parts before now and the part that has begun.
    fn rate(&self, now: Instant) -> BitRate {
        let number = part_number(now);
        let oldest = number.saturating_sub(PARTS - 1);
        // Of parts that come later the difference is large.
        let recent = self.parts.iter().filter(|part| number.wrapping_sub(part.0) < PARTS);
        let bytes = recent.map(|part| u64::from(part.1)).sum();
        let span = now.as_nanos().saturating_sub(u64::from(oldest) * PART_NS).max(PART_NS);
        BitRate::from_bytes_over(bytes, Duration::from_nanos(span))
    }
}

/// Which part a moment is in; good for six years.
fn part_number(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / PART_NS).unwrap_or(u32::MAX)
}

/// One direction. Bytes include IP and UDP headers.
#[derive(Debug, Clone, Default)]
struct Direction {
    packets: u64,
    bytes: u64,
    meter: RateMeter,
}

impl Direction {
    fn on_datagram(&mut self, bytes: u64, now: Instant) {
        self.packets += 1;
        self.bytes += bytes;
        self.meter.on_bytes(bytes, now);
    }
}

/// What one link carried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    tx: Direction,
    rx: Direction,
    /// Datagrams received since the peer's run began.
    rx_run_packets: u64,
    /// The counter of the newest data frame received, and when it arrived.
    last_seq: u64,
    data_at: Option<Instant>,
    /// What both sides tell each other of their sending.
    pub(super) figures: Figures,
}

impl Traffic {
    /// A datagram of `bytes` arrived.
    pub(super) fn on_received(&mut self, bytes: u64, now: Instant) {
        self.rx.on_datagram(bytes, now);
        self.rx_run_packets += 1;
    }

    /// A datagram of `bytes` goes out.
    pub(super) fn on_sent(&mut self, bytes: u64, now: Instant) {
        self.tx.on_datagram(bytes, now);
    }

    /// The datagram sent last does not count as one: its loss says nothing about the link.
    pub(super) const fn discount_sent(&mut self) {
        self.tx.packets = self.tx.packets.saturating_sub(1);
    }

    /// The same of the datagram received last.
    pub(crate) const fn discount_received(&mut self) {
        self.rx_run_packets = self.rx_run_packets.saturating_sub(1);
    }

    /// A data frame with this counter arrived.
    pub(crate) const fn on_data(&mut self, counter: u64, now: Instant) {
        self.last_seq = counter;
        self.data_at = Some(now);
    }

    /// The peer's run is another. Totals go on.
    pub(super) fn on_peer_restart(&mut self) {
        self.rx_run_packets = 0;
        self.figures.on_peer_restart();
    }

    /// Bytes sent and received so far, IP and UDP headers included.
    pub(crate) const fn total_bytes(&self) -> u64 {
        self.tx.bytes + self.rx.bytes
    }

    pub(super) const fn tx_packets(&self) -> u64 {
        self.tx.packets
    }

    pub(super) const fn tx_bytes(&self) -> u64 {
        self.tx.bytes
    }

    pub(super) const fn rx_packets(&self) -> u64 {
        self.rx.packets
    }

    pub(super) const fn rx_bytes(&self) -> u64 {
        self.rx.bytes
    }

    pub(super) const fn rx_run_packets(&self) -> u64 {
        self.rx_run_packets
    }

    pub(super) const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// When the newest data frame arrived.
    pub(crate) const fn data_at(&self) -> Option<Instant> {
        self.data_at
    }

    pub(super) fn tx_rate(&self, now: Instant) -> BitRate {
        self.tx.meter.rate(now)
    }

    pub(super) fn rx_rate(&self, now: Instant) -> BitRate {
        self.rx.meter.rate(now)
    }

    /// Share of `capacity` in use, permille; 0 where it is not known.
    pub(super) fn utilisation_permille(&self, capacity: Option<BitRate>, now: Instant) -> u16 {
        let Some(capacity) = capacity.map(BitRate::as_bps).filter(|bps| *bps > 0) else { return 0 };
        let used = self.tx_rate(now).as_bps();
        u16::try_from(used.saturating_mul(1_000) / capacity).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_read_as_it_is_and_silence_as_zero() {
        let mut meter = RateMeter::default();
        let mut now = Instant::from_nanos(7_000_000_000);
        for _ in 0..2_000 {
            meter.on_bytes(1_250, now); // 10 Mbit/s
            now = now + Duration::from_millis(1);
        }
        let rate = meter.rate(now).as_mbps();
        assert!((9.7..10.3).contains(&rate), "{rate}");
        assert_eq!(meter.rate(now + Duration::from_secs(1)), BitRate::from_bps(0));
    }
}
