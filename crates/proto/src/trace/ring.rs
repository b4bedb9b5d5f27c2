//! A bounded list of records between two drains.

use super::event::{Record, TraceEvent};
use crate::time::Instant;

/// Records that a session keeps until they are drained. Chosen: a second of an outage in which
/// 10,000 packets are lost and sent again.
pub const RING_MAX: usize = 16_384;

/// An empty ring keeps room for so many records. Chosen: a busy session makes so many between two
/// drains.
const RING_KEPT: usize = 256;

/// Records in the order of their time, at most [`RING_MAX`]: one that finds the ring full is
/// counted.
#[derive(Debug, Default)]
pub(super) struct Ring {
    records: Vec<Record>,
    lost: u32,
    lost_at: Instant,
}

impl Ring {
    pub(super) fn push(&mut self, event: TraceEvent, now: Instant) {
        self.push_record(Record { at: now, session: 0, event });
    }

    pub(super) fn push_record(&mut self, record: Record) {
        if self.records.len() < RING_MAX {
            self.records.push(record);
        } else {
            self.lost = self.lost.saturating_add(1);
            self.lost_at = record.at;
        }
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Record>) {
        out.append(&mut self.records);
        self.records.shrink_to(RING_KEPT);
        if self.lost > 0 {
            let event = TraceEvent::RecordsLost { records: std::mem::take(&mut self.lost) };
            out.push(Record { at: self.lost_at, session: 0, event });
        }
    }
}

/// Puts the records from this place on in the order of their time.
pub(crate) fn sort(records: &mut [Record], from: usize) {
    if let Some(fresh) = records.get_mut(from..) {
        fresh.sort_by_key(|record| record.at);
    }
}
