//! Whether the listener can be reached: a firewall of this host may drop what the hairpin writes.
//!
//! A SYN of the probe's own goes to the listener. Its answer shows that the way is open, and is
//! reset. The first probe goes out at once, another when there is a doubt, and one every ten
//! seconds while the way is shut.
//!
//! Contract: the way counts as open from the answer on until a later probe gets none within half a
//! second. A probe never becomes a connection at the listener. One family's way says nothing about
//! the other's.

use std::time::Duration;

use super::made::bare_segment;
use super::segment::{RST, SYN, Segment, Tuple};
use crate::tun::Inbound;

/// The port of the stand-in that the probe comes from. Chosen: the lowest that is not privileged.
pub(crate) const PORT: u16 = 1_024;
/// The probe's sequence number. Always the same: a SYN that comes again is a copy for the kernel
/// that still waits for the end of the one before.
const SEQUENCE: u32 = 0x6270_0001;
/// How long an answer may take. Chosen: the kernel answers within the write; the rest is for a busy
/// machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// The pause between probes of a way that is shut. Chosen: a firewall that is opened is found in
/// time for the next page.
const PAUSE: Duration = Duration::from_secs(10);

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The way is open now.
    Open,
    /// The way is shut now.
    Shut,
}

/// The way to the listener of one family.
#[derive(Debug)]
pub(crate) struct Probe {
    found: Option<Finding>,
    /// When the SYN went that is not answered yet.
    asked: Option<Duration>,
    /// When the next one goes; `None`: not before there is a doubt.
    next: Option<Duration>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { found: None, asked: None, next: Some(Duration::ZERO) }
    }
}

impl Probe {
    pub(crate) fn is_open(&self) -> bool {
        self.found == Some(Finding::Open)
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.found == Some(Finding::Shut)
    }

    /// An admitted SYN seems to have got no answer.
    pub(crate) fn doubt(&mut self, now: Duration) {
        if self.asked.is_none() && self.is_open() {
            self.next = Some(now);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.asked.map(|asked| asked + PATIENCE).or(self.next)
    }

    /// Does what is due; `to` is the tuple of the probe's SYN. A finding is told when it is another
    /// than before.
    pub(crate) fn handle_timeout(
        &mut self,
        is_ipv6: bool,
        to: &Tuple,
        now: Duration,
        back: &mut Vec<Inbound>,
    ) -> Option<Finding> {
        if self.asked.is_some_and(|asked| asked + PATIENCE <= now) {
            self.asked = None;
            self.next = Some(now + PAUSE);
            return self.find(Finding::Shut);
        }
        if self.asked.is_none() && self.next.is_some_and(|next| next <= now) {
            self.asked = Some(now);
            self.next = None;
            back.push(bare_segment(is_ipv6, to, (SEQUENCE, 0), SYN));
        }
        None
    }

    /// Takes a segment from the listener to the probe's port.
    pub(crate) fn take(
        &mut self,
        segment: &Segment,
        packet: &[u8],
        to: &Tuple,
        back: &mut Vec<Inbound>,
    ) -> Option<Finding> {
        let next = SEQUENCE.wrapping_add(1);
        if !segment.is_accepting() || segment.acknowledged(packet) != next {
            return None;
        }
        back.push(bare_segment(segment.is_ipv6, to, (next, 0), RST));
        self.asked = None;
        self.next = None;
        self.find(Finding::Open)
    }

    fn find(&mut self, finding: Finding) -> Option<Finding> {
        let is_new = self.found != Some(finding);
        self.found = Some(finding);
        is_new.then_some(finding)
    }
}
