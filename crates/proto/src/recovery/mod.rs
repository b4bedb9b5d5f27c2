//! Lost packets are sent again, over whichever link delivers them first.
//!
//! A link's log of what it sent ([`crate::link`]) keeps each packet until feedback tells its fate.
//! It gives the packet back when the link has lost it, when it was the end of what was sent and no
//! feedback came in time, or when the link is given up. All land in [`Recovery`]'s queue. A packet
//! keeps its sequence number and gets a new counter on its new link, so the receiver's resequencer
//! sees one packet.
//!
//! # Which link, and whether at all
//! The link of the least arrival ([`arrival_us`]) carries it; that may be the first link again. The
//! receiver waits at most [`RESENT_WITHIN`] longer for a gap than the first packet would have
//! taken: what cannot be there by then is given up. A packet is sent again at most [`TRIES_MAX`]
//! times, the last time over two links where there are two, and the first time too where the link
//! is lossy: with independent losses `p`, what stays lost is `p⁴`, for `p + 2p²` of extra bytes, or
//! `p⁵` for `2p + 2p³`. Resends go ahead of bulk and behind sparse traffic, and spend the link's
//! pacing credit like all packets. Pieces of streams have no deadline, and no bound of tries.
//!
//! # Bounds
//! Packets that are kept are at most [`KEPT_BYTES_MAX`] together. What is sent beyond that is not
//! kept, and the inner transport repairs its loss. A server counts kept packets among what its
//! sessions may queue together.
//!
//! # What it does not know
//! How a loss is found, what is inside a packet, keys. It sees links as a scheduler does.
//!
//! # Sources
//! RFC 9002 §6 (loss detection), XLINK (SIGCOMM 2021: re-injection by the remaining deadline).
//! Measured: docs/decisions/0036-second-link-of-a-resend.md.

mod params;

pub(crate) use self::params::{KEPT_BYTES_MAX, TRIES_MAX};

use std::collections::VecDeque;
use std::time::Duration;

use self::params::{RESENT_WITHIN, SECOND_WITHIN, STOPPING_PERMILLE};
use crate::packet::{KeptPacket, LinkId};
use crate::position::StreamId;
use crate::scheduler::{Service, arrival_us, micros, of_first_role, serving};
use crate::stats::RecoveryStats;
use crate::time::Instant;
use crate::view::LinkView;

/// Where the next resend goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over this link, now.
    Now(LinkId),
    /// Its link has no credit before this.
    At(Instant),
}

/// The packets that wait to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    queue: VecDeque<KeptPacket>,
    queued_bytes: usize,
    stats: RecoveryStats,
}

impl Recovery {
    /// These were lost.
    pub(crate) fn on_lost(&mut self, frames: impl IntoIterator<Item = KeptPacket>) {
        for frame in frames {
            self.push(frame);
        }
    }

    /// These are under way on a link that was given up.
    pub(crate) fn on_link_lost(&mut self, frames: impl IntoIterator<Item = KeptPacket>) {
        for frame in frames {
            self.stats.reinjected += u64::from(self.push(frame));
        }
    }

    fn push(&mut self, frame: KeptPacket) -> bool {
        if frame.tries() >= TRIES_MAX && frame.stream().is_none() {
            self.stats.given_up += 1;
            return false;
        }
        self.queued_bytes += frame.kept_bytes();
        self.queue.push_back(frame);
        true
    }

    /// Bytes that wait.
    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What is counted here. The links and the resequencer count the rest.
    pub(crate) const fn stats(&self) -> RecoveryStats {
        self.stats
    }

    /// The peer knows nothing of what was sent.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
    }

    /// What waits of this stream is not sent again.
    pub(crate) fn forget_stream(&mut self, stream: StreamId) {
        let is_piece =
            |frame: &KeptPacket| frame.data().packet.position().is_some_and(|at| at.stream() == stream);
        self.queue.retain(|frame| !is_piece(frame));
        self.queued_bytes = self.queue.iter().map(KeptPacket::kept_bytes).sum();
    }

    /// The way of the oldest packet that can still be in time; what cannot is given up. `None`:
    /// nothing waits, or no link is usable.
    pub(crate) fn next(&mut self, links: &[LinkView], now: Instant) -> Option<Way> {
        if self.queue.is_empty() {
            return None;
        }
        sealed(links).next()?;
        while let Some(frame) = self.queue.front() {
            if frame.stream().is_some() && candidates(links, frame).next().is_none() {
                self.cut_front(links)?;
                continue;
            }
            let best = candidates(links, frame).min_by_key(|link| (arrival_of(frame, link, now), link.id));
            let first_us = frame.first_arrival_us(now);
            let in_time = |link: &&LinkView| {
                frame.stream().is_some()
                    || arrival_of(frame, link, now).saturating_sub(first_us) <= micros(RESENT_WITHIN)
            };
            if let Some(best) = best.filter(in_time) {
                return Some(self.way(links, frame, best, now));
            }
            self.pop_front();
            self.stats.given_up += 1;
        }
        None
    }

    /// Cuts the piece of a stream at the front so that a link carries it; `None`: there is no link.
    fn cut_front(&mut self, links: &[LinkView]) -> Option<()> {
        let most = of_first_role(sealed(links)).map(|link| link.mtu).max()?;
        let first = self.queue.front_mut()?.split_to(most)?;
        self.queued_bytes += first.kept_bytes() - first.data().packet.len();
        self.queue.push_front(first);
        Some(())
    }

    /// The best link, or, where it is busy, another link that delivers before the best alone had
    /// carried all that waits: a link that dies has more under way than its nearest neighbour
    /// carries in time.
    fn way(&self, links: &[LinkView], frame: &KeptPacket, best: &LinkView, now: Instant) -> Way {
        let behind = self.queued_bytes.saturating_sub(frame.kept_bytes()) as u64;
        let all_us = arrival_of(frame, best, now).saturating_add(micros(best.time_to_send(behind)));
        let helps = |link: &&LinkView| link.id == best.id || arrival_of(frame, link, now) < all_us;
        let helping = candidates(links, frame).filter(helps);
        let free = helping.clone().filter(|link| link.free_at <= now);
        match free.min_by_key(|link| (arrival_of(frame, link, now), link.id)) {
            Some(link) => Way::Now(link.id),
            None => Way::At(helping.map(|link| link.free_at).min().unwrap_or(best.free_at)),
        }
    }

    /// The oldest packet, which goes out again now, if it has no more than `bytes`.
    pub(crate) fn pop(&mut self, bytes: usize) -> Option<KeptPacket> {
        self.queue.front().filter(|frame| bytes_of(frame) <= bytes)?;
        let mut frame = self.pop_front()?;
        frame.on_try();
        self.stats.resent += 1;
        Some(frame)
    }

    fn pop_front(&mut self) -> Option<KeptPacket> {
        let frame = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(frame.kept_bytes());
        Some(frame)
    }
}

/// Whether a resend over this link goes over a second one too: a packet that is lost twice stops
/// its flow for two more rounds, and with 5 % on each of three links that would be most of the
/// time.
/// A stream waits for nothing else than its own bytes: only a piece that was lost twice goes twice.
pub(crate) const fn is_risky(frame: &KeptPacket, link: &LinkView) -> bool {
    frame.tries() >= TRIES_MAX || (link.is_lossy() && frame.stream().is_none())
}

/// The link beside `first` that is to carry a resend too.
pub(crate) fn second_link(
    links: &[LinkView],
    frame: &KeptPacket,
    first: LinkId,
    now: Instant,
) -> Option<LinkId> {
    let others =
        candidates(links, frame).filter(|link| link.id != first && link.free_at <= now + SECOND_WITHIN);
    others.min_by_key(|link| (arrival_of(frame, link, now), link.id)).map(|link| link.id)
}

/// For how long resends stop a flow at a time: the longest round trip of the lossy links in use.
/// After the stop the flow's packets come at once, its acknowledgements too, and so do the packets
/// that these let its sender send.
pub(crate) fn longest_stop(links: &[LinkView]) -> Duration {
    let stops = serving(links).filter(|link| link.recovers && link.loss_permille >= STOPPING_PERMILLE);
    stops.map(|link| link.rtt).max().unwrap_or_default()
}

/// The sealed links that serve: what is sent again has its number, which is one of sealed links.
fn sealed(links: &[LinkView]) -> impl Iterator<Item = &LinkView> + Clone {
    let usable = links.iter().filter(|link| link.usable && link.is_sealed);
    let service = Service::of(usable.clone().map(|link| (link.state, link.role)));
    usable.filter(move |link| service.is_some_and(|kind| kind.includes_view(link)))
}

/// The links that may carry it.
fn candidates<'a>(links: &'a [LinkView], frame: &KeptPacket) -> impl Iterator<Item = &'a LinkView> + Clone {
    let bytes = bytes_of(frame);
    of_first_role(sealed(links).filter(move |link| link.mtu >= bytes))
}

/// When it would arrive over the link, µs from now.
fn arrival_of(frame: &KeptPacket, link: &LinkView, now: Instant) -> i64 {
    arrival_us(link, bytes_of(frame), now)
}

fn bytes_of(frame: &KeptPacket) -> usize {
    frame.data().packet.len()
}

#[cfg(test)]
mod tests;
