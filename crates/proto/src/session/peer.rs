//! The peer's run, and what the peer told about itself: its epoch, the frames it takes, the links
//! it counts as failed.
//!
//! A run of one side is named by its epoch. A new epoch of the peer means that the peer was
//! restarted: its clock, its counters and its sequence numbers begin anew, and all that was learnt
//! from them is void. The last [`RETIRED_EPOCHS`] epochs stay retired, so that packets of an old
//! run on a slow link do not count as news.
//!
//! Which of two epochs is the older one is a guess when this side is fresh itself. A retired epoch
//! that sends [`RESUMED_HEARTBEATS`] heartbeats while the current epoch sends none becomes current
//! again.
//!
//! What sealed links bring is authentic, what plain links bring is not. So a peer has two [`Run`]s,
//! one for each kind of link: no plain heartbeat changes what is known from sealed ones. The
//! epoch of sealed links is that of their keys, which a handshake proved.
//!
//! This module knows no links: it returns what changed, and the session acts on it.

use std::collections::VecDeque;

use crate::config::Security;
use crate::discard::Discard;
use crate::wire::heartbeat::Heartbeat;

/// Retired epochs that are remembered. Chosen: restarts within the delay of the slowest link.
const RETIRED_EPOCHS: usize = 4;

/// Heartbeats of a retired epoch in a row, with none of the current one between them, that show
/// that it was retired wrongly. Chosen: a reordered heartbeat or two must not bring an old run
/// back.
const RESUMED_HEARTBEATS: u8 = 3;

/// What is known of the peer: from sealed links, and from plain ones.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) sealed: Run,
    pub(super) plain: Run,
}

impl Peer {
    /// What is known of the peer over links of this kind.
    pub(super) const fn over(&self, security: Security) -> &Run {
        match security {
            Security::Sealed => &self.sealed,
            Security::Plain => &self.plain,
        }
    }

    /// The same, to be told of what came.
    pub(super) const fn over_mut(&mut self, security: Security) -> &mut Run {
        match security {
            Security::Sealed => &mut self.sealed,
            Security::Plain => &mut self.plain,
        }
    }
}

/// What a heartbeat says of a session's links, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ToldLinks {
    /// They failed, and had not failed before.
    pub(super) newly_failed: u32,
    /// The peer retired them.
    pub(super) retired: u32,
}

/// What is known of the peer over links of one kind.
#[derive(Debug, Default)]
pub(super) struct Run {
    epoch: Option<u32>,
    retired_epochs: VecDeque<u32>,
    /// The retired epoch that sent the last heartbeat, and how many it sent in a row.
    resumed_epoch: Option<(u32, u8)>,
    /// The peer takes frames that are to be delivered at once.
    at_once: bool,
    /// The peer takes packets whose checksum is yet to be computed.
    partial: bool,
    /// The peer takes streams.
    streams: bool,
    /// Links that the peer counts as failed, a bit each, and the peer's clock when it said so, µs.
    failed: (u32, u64),
}

impl Run {
    /// The peer's current run; `None` before its first heartbeat or handshake.
    pub(super) const fn epoch(&self) -> Option<u32> {
        self.epoch
    }

    /// Whether the peer takes frames that are to be delivered at once.
    pub(super) const fn takes_at_once(&self) -> bool {
        self.at_once
    }

    /// Whether the peer takes packets whose checksum is yet to be computed.
    pub(super) const fn takes_partial(&self) -> bool {
        self.partial
    }

    /// Whether the peer takes streams.
    pub(super) const fn takes_streams(&self) -> bool {
        self.streams
    }

    /// The peer's run is `epoch`. `Ok(true)`: this run replaced another one. `Err`: that run is
    /// over.
    pub(super) fn on_epoch(&mut self, epoch: u32) -> Result<bool, Discard> {
        if self.epoch == Some(epoch) {
            self.resumed_epoch = None;
            return Ok(false);
        }
        if self.retired_epochs.contains(&epoch) {
            let known = self.resumed_epoch.filter(|(known, _)| *known == epoch);
            let count = known.map_or(1, |(_, count)| count + 1);
            if count < RESUMED_HEARTBEATS {
                self.resumed_epoch = Some((epoch, count));
                return Err(Discard::Stale);
            }
            self.retired_epochs.retain(|retired| *retired != epoch);
        }
        self.resumed_epoch = None;
        let Some(over) = self.epoch.replace(epoch) else { return Ok(false) };
        if self.retired_epochs.len() == RETIRED_EPOCHS {
            self.retired_epochs.pop_front();
        }
        self.retired_epochs.push_back(over);
        self.failed = (0, 0);
        Ok(true)
    }

    /// A handshake proved that `epoch` is the present run, even if it was retired.
    pub(super) fn on_proven_epoch(&mut self, epoch: u32) {
        self.retired_epochs.retain(|retired| *retired != epoch);
    }

    /// A heartbeat of the present run told what the peer takes.
    pub(super) const fn on_heartbeat(&mut self, heartbeat: &Heartbeat) {
        self.at_once = heartbeat.at_once;
        self.partial = heartbeat.partial;
        self.streams = heartbeat.streams;
    }

    /// What this heartbeat says of the links. Heartbeats come over all links: one that was
    /// overtaken by a later one tells nothing.
    pub(super) fn told(&mut self, heartbeat: &Heartbeat) -> ToldLinks {
        let (known, said_at) = self.failed;
        if heartbeat.stamp_us < said_at {
            return ToldLinks::default();
        }
        self.failed = (heartbeat.failed, heartbeat.stamp_us);
        ToldLinks { newly_failed: heartbeat.failed & !known, retired: heartbeat.retired }
    }
}
