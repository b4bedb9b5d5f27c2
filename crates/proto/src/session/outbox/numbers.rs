//! Sequence numbers of data frames.

use crate::qos::flow::FlowId;
use crate::wire;

/// Counters of flow slots in one allocation. Chosen: most sessions have few flows, and their slots
/// are spread over all numbers.
const COUNTERS: usize = 32;

/// The next counter of each flow slot; made on demand.
#[derive(Debug, Default)]
pub(super) struct FlowNumbers(Vec<Option<Box<[u64; COUNTERS]>>>);

impl FlowNumbers {
    /// Counts the flow's slot on.
    pub(super) fn next(&mut self, flow: FlowId) -> u64 {
        let (at, within) = (flow.index() / COUNTERS, flow.index() % COUNTERS);
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        let counters = self.0.get_mut(at).map(|some| some.get_or_insert_default());
        let Some(counter) = counters.and_then(|some| some.get_mut(within)) else { return 0 };
        let seq_num = wire::data_seq_num(flow.0, *counter);
        *counter += 1;
        seq_num
    }
}
