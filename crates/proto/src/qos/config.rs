//! The constants of the queue, given by its owner.

use std::time::Duration;

/// The queue's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Bound on the memory held by waiting packets, overhead included.
    pub bytes_max: usize,
    /// CoDel: the acceptable standing delay.
    pub target: Duration,
    /// CoDel: how long the delay must exceed the target before a flow is signalled; about the RTT
    /// of the inner flows.
    pub interval: Duration,
    /// Deficit round robin: bytes per flow and round. Also taken as the MTU. At least 1.
    pub quantum: usize,
}

impl Default for QueueConfig {
    /// RFC 8290 §5.2's interval and quantum. 8 MiB: 200 ms at 300 Mbit/s. The target is three times
    /// the RFC's: docs/decisions/0073-delay-of-the-queue.md.
    fn default() -> Self {
        Self {
            bytes_max: 8 * 1024 * 1024,
            target: Duration::from_millis(15),
            interval: Duration::from_millis(100),
            quantum: 1514,
        }
    }
}
