//! Forward error correction in a session: when a repair symbol is worth sending and over which
//! link, and what is restored from received symbols. The code itself is [`crate::fec`].
//!
//! Each flow slot has a window of its own. `auto` protects what is delivered at once, since that
//! cannot wait for a resend:
//!
//! ```text
//! redundancy = 6 × loss of the link × mean burst of its losses (at most 3)
//!              4 × where losses are also sent again; none below 0.3 % of loss; at most 1/4
//! one symbol for every 1 / redundancy packets, at the latest 100 ms after the first that no symbol
//! covers, from 4 packets on
//! ```
//! It covers the packets of three such spans (at least 12, no older than 400 ms). A packet with a
//! copy needs no symbol and is in no window. A fixed ratio protects every flow, one symbol for
//! every 1 / ratio packets. A symbol goes over the best link but the one that carried the last
//! packet, where one is free, so that an outage does not take both. Reasons:
//! docs/decisions/0051-repair-symbols.md.
//!
//! Bounds: windows and what is kept for restoring take at most [`BYTES_MAX`] and [`SLOTS_MAX`]
//! slots each; beyond, the slot that was longest without use is forgotten. Restoring begins with
//! the first symbol of a slot. A peer that sends symbols only to make work has little of it done:
//! each byte of the packets of slots with symbols pays for [`WORK_PER_BYTE`] bytes of arithmetic,
//! and a symbol for which nothing is left is refused.
//!
//! Contract: control frames, heartbeats and plain links are not protected. What is restored goes
//! through the resequencer, which delivers it if nothing else has; it tells nothing about any link.

use std::collections::VecDeque;
use std::time::Duration;

use super::slots::Slots;
use crate::config::{Fec, Security};
use crate::discard::Discard;
use crate::fec::{COVER_MAX, Cover, Decoder, Encoder, PLACE_BYTES};
use crate::link::Outgoing;
use crate::packet::{DataFrame, Destination, LinkId, PacketBuf, Transmit};
use crate::qos::queue::{Queued, Tier};
use crate::scheduler;
use crate::session::inbox::Inbox;
use crate::session::link_table::LinkTable;
use crate::session::sealing::{Keyring, SealedAs};
use crate::session::writer::{DatagramWriter, overhead};
use crate::time::Instant;
use crate::wire::{self, COUNTER_BITS, Kind, Modifiers};

/// From this loss on symbols are sent, permille. Chosen: below it losses of a call are not heard.
const LOSS_MIN_PERMILLE: u32 = 3;
/// Redundancy in units of the link's loss: at 3 % of random loss it takes three losses in a span of
/// five, or more in a row than symbols follow, before a packet is restored late.
const REDUNDANCY_PER_LOSS: u32 = 6;
/// The same where losses are also sent again. Chosen: a resend restores what symbols do not.
const REDUNDANCY_PER_LOSS_RESENT: u32 = 4;
/// The longest mean burst that redundancy follows, in tenths of a packet. Chosen: longer ones are
/// outages, which copies answer.
const BURST_MAX_TENTHS: u32 = 30;
/// Packets from one symbol to the next, at least: redundancy of 1/4. Chosen: beyond, copies are
/// better.
const SPACING_MIN: u32 = 4;
/// The same, at most. Chosen: what a symbol restores comes within this many packets.
const SPACING_MAX: u32 = 32;
/// A packet waits this long for a symbol at most. Chosen: what a call can wait for.
const PATIENCE: Duration = Duration::from_millis(100);
/// A symbol covers the packets of this many spacings, so that each packet is covered by as many
/// symbols.
const SPANS: u32 = 3;
/// The least window, packets. Chosen: three times [`SPACING_MIN`].
const WINDOW_MIN: u32 = 12;
/// The oldest packet that a symbol covers. Chosen: four times [`PATIENCE`].
const WINDOW_AGE: Duration = Duration::from_millis(400);

/// From this loss on a copy of each packet protects better than symbols, which would cost as much
/// and come later, permille.
pub(super) const COPIES_FROM_PERMILLE: u16 = 100;

/// Bytes of windows, and of what is kept for restoring, each. Chosen: what one session may hold.
const BYTES_MAX: usize = 4 << 20;
/// Slots with windows, and slots with what is kept for restoring, each. Chosen as above.
const SLOTS_MAX: usize = 1_024;
/// A window without use is forgotten after this. Chosen: longer than pauses within a call.
const IDLE: Duration = Duration::from_secs(1);

/// Bytes of arithmetic that each received byte pays for: a packet is in three symbols, and in
/// twelve where each has a symbol behind it; solving takes less than that again.
const WORK_PER_BYTE: usize = 16;
/// What is saved up at most, bytes of arithmetic. Chosen: some 2 ms of work.
const WORK_MAX: usize = 4 << 20;

/// Bits of a repair frame's `seq_num` below its slot: count, number, and the first counter's lower
/// bits.
const FIRST_BITS: u32 = 32;
const NUMBER_BITS: u32 = 8;

/// A slot that is protected.
#[derive(Debug, Default)]
struct Sender {
    encoder: Encoder,
    /// Packets that no symbol covers, and when the first of them was sent.
    uncovered: u32,
    uncovered_since: Instant,
}

/// A symbol that waits for the present drain to send it.
#[derive(Debug)]
struct Symbol {
    link: LinkId,
    seq_num: u64,
    modifiers: Modifiers,
    bytes: Vec<u8>,
}

/// Windows of what was sent, and what is kept for restoring.
#[derive(Debug)]
pub(in crate::session) struct Protection {
    fec: Fec,
    redundancy_per_loss: u32,
    senders: Slots<Sender>,
    sender_bytes: usize,
    receivers: Slots<Decoder>,
    receiver_bytes: usize,
    symbols: VecDeque<Symbol>,
    restored: Vec<(u64, PacketBuf)>,
    /// Bytes of arithmetic that are paid for.
    work_left: usize,
    /// Bytes of arithmetic so far.
    work: u64,
    swept: Instant,
    pub(in crate::session) sent: u64,
    pub(in crate::session) recovered: u64,
    pub(in crate::session) refused: u64,
}

/// `resends`: what is lost is sent again too.
const fn redundancy_per_loss(resends: bool) -> u32 {
    if resends { REDUNDANCY_PER_LOSS_RESENT } else { REDUNDANCY_PER_LOSS }
}

impl Protection {
    /// `resends`: what is lost is sent again too.
    pub(super) fn new(fec: Fec, resends: bool) -> Self {
        Self {
            fec,
            redundancy_per_loss: redundancy_per_loss(resends),
            senders: Slots::new(),
            sender_bytes: 0,
            receivers: Slots::new(),
            receiver_bytes: 0,
            symbols: VecDeque::new(),
            restored: Vec::new(),
            work_left: WORK_MAX,
            work: 0,
            swept: Instant::ZERO,
            sent: 0,
            recovered: 0,
            refused: 0,
        }
    }

    /// What is sent is protected in this way from now on.
    pub(super) const fn set_fec(&mut self, fec: Fec, resends: bool) {
        (self.fec, self.redundancy_per_loss) = (fec, redundancy_per_loss(resends));
    }

    /// The peer began anew: what came and what was sent has other numbers.
    pub(super) fn clear(&mut self) {
        self.senders.clear();
        self.sender_bytes = 0;
        self.forget_received();
        self.symbols.clear();
    }

    /// Whether symbols may cover what is not realtime.
    pub(in crate::session) const fn covers_all(&self) -> bool {
        matches!(self.fec, Fec::Fixed(_))
    }

    /// Packets from one symbol to the next; `None`: none is worth it.
    fn spacing(&self, at_once: bool, loss_permille: u16, burst_tenths: u16) -> Option<u32> {
        match self.fec {
            Fec::Off => None,
            Fec::Fixed(permille) => {
                let most = u32::try_from(COVER_MAX).unwrap_or(u32::MAX);
                Some((1_000 / u32::from(permille.max(1))).clamp(1, most))
            }
            Fec::Auto => {
                let loss = u32::from(loss_permille);
                if !at_once || loss < LOSS_MIN_PERMILLE {
                    return None;
                }
                let burst = u32::from(burst_tenths).clamp(10, BURST_MAX_TENTHS);
                let redundancy = (loss * self.redundancy_per_loss * burst / 10).max(1);
                Some(((1_000 + redundancy / 2) / redundancy).clamp(SPACING_MIN, SPACING_MAX))
            }
        }
    }

    /// A packet of the slot was sent with this spacing; the symbol that is due.
    fn on_sent(&mut self, frame: &DataFrame, spacing: u32, now: Instant) -> Option<(Cover, Vec<u8>)> {
        self.sweep(now);
        let (slot, counter) = split(frame.seq_num);
        let sender = self.senders.used(slot, now);
        let before = sender.encoder.bytes();
        sender.encoder.push(counter, frame.packet.clone(), now);
        if sender.uncovered == 0 {
            sender.uncovered_since = now;
        }
        sender.uncovered += 1;
        let is_late = self.fec == Fec::Auto
            && sender.uncovered >= SPACING_MIN
            && now.saturating_since(sender.uncovered_since) >= PATIENCE;
        let window = (spacing * SPANS).clamp(WINDOW_MIN, WINDOW_MIN * SPANS).max(spacing);
        sender.encoder.keep(usize::try_from(window).unwrap_or(COVER_MAX), now.saturating_sub(WINDOW_AGE));
        let mut symbol = None;
        if sender.uncovered >= spacing || is_late {
            symbol = sender.encoder.symbol();
            if symbol.is_some() {
                sender.uncovered = 0;
            }
        }
        self.sender_bytes = self.sender_bytes + sender.encoder.bytes() - before;
        while self.sender_bytes > BYTES_MAX || self.senders.len() > SLOTS_MAX {
            let Some(oldest) = self.senders.pop_oldest() else { break };
            self.sender_bytes -= oldest.encoder.bytes();
        }
        symbol
    }

    /// What it takes.
    pub(in crate::session) const fn bytes(&self) -> usize {
        self.sender_bytes + self.receiver_bytes
    }

    /// Forgets what is kept to restore others: the memory is needed.
    pub(in crate::session) fn forget_received(&mut self) {
        self.receivers.clear();
        self.receiver_bytes = 0;
    }

    /// Forgets what is idle.
    pub(in crate::session) fn sweep(&mut self, now: Instant) {
        if now.saturating_since(self.swept) < IDLE || (self.senders.is_empty() && self.receivers.is_empty()) {
            return;
        }
        self.swept = now;
        while let Some(idle) = self.senders.pop_unused(now.saturating_sub(IDLE)) {
            self.sender_bytes -= idle.encoder.bytes();
        }
        // A slot whose losses are rare has rare symbols.
        while let Some(idle) = self.receivers.pop_unused(now.saturating_sub(IDLE * 10)) {
            self.receiver_bytes -= idle.bytes();
        }
    }

    /// A data frame arrived: what it restores of others.
    fn on_packet(&mut self, slot: u16, counter: u64, packet: &[u8]) {
        let Some(decoder) = self.receivers.get_mut(slot) else { return };
        let before = decoder.bytes();
        self.refused += decoder.on_packet(counter, packet, &mut self.restored);
        let work = decoder.take_work();
        self.receiver_bytes = self.receiver_bytes + decoder.bytes() - before;
        self.work_left = self.work_left.saturating_add(packet.len() * WORK_PER_BYTE).min(WORK_MAX);
        self.pay(work);
        self.bound_receivers();
    }

    /// A repair frame arrived.
    fn on_symbol(&mut self, slot: u16, cover: Cover, symbol: &[u8], now: Instant) -> Result<(), Discard> {
        self.sweep(now);
        if self.work_left == 0 {
            self.refused += 1;
            return Err(Discard::RepairUnpaid);
        }
        let decoder = self.receivers.used(slot, now);
        let before = decoder.bytes();
        let result = decoder.on_symbol(cover, symbol, &mut self.restored);
        let work = decoder.take_work();
        self.receiver_bytes = self.receiver_bytes + decoder.bytes() - before;
        self.pay(work);
        self.bound_receivers();
        self.refused += result.map_or(1, |refused| refused);
        result.map(|_| ()).map_err(|_| Discard::RepairMalformed)
    }

    fn bound_receivers(&mut self) {
        while self.receiver_bytes > BYTES_MAX || self.receivers.len() > SLOTS_MAX {
            let Some(oldest) = self.receivers.pop_oldest() else { break };
            self.receiver_bytes -= oldest.bytes();
        }
    }

    const fn pay(&mut self, work: usize) {
        self.work += work as u64;
        self.work_left = self.work_left.saturating_sub(work);
    }

    /// Places that restoring touched so far: [`PLACE_BYTES`] of arithmetic each.
    pub(in crate::session) const fn touched(&self) -> u64 {
        self.work / PLACE_BYTES as u64
    }

    /// Whether symbols are sent at all.
    pub(super) fn is_on(&self) -> bool {
        self.fec != Fec::Off
    }

    /// `frame` went over the link and nowhere else, to a peer that takes frames at once: a symbol
    /// may be due.
    pub(in crate::session) fn protect(
        &mut self,
        head: &Queued,
        link: LinkId,
        frame: &DataFrame,
        links: &mut LinkTable,
        now: Instant,
    ) {
        let Some(view) = links.views.get(link) else { return };
        // A frame that is at once and not realtime is an acknowledgement: the next one says as
        // much.
        let at_once = head.tier == Tier::Realtime && frame.modifiers.has(Modifiers::AT_ONCE);
        let spacing = self.spacing(at_once, view.loss_permille, view.burst_tenths);
        let Some(spacing) = spacing.filter(|_| links.is_sealed(link)) else { return };
        let Some((cover, bytes)) = self.on_sent(frame, spacing, now) else { return };
        let head = Queued { bytes: bytes.len(), ..*head };
        let other = scheduler::second(&head, link, links.views.all(), now);
        let fits = |id: &LinkId| {
            links.is_sealed(*id) && links.views.get(*id).is_some_and(|view| view.mtu >= bytes.len())
        };
        let Some(link) = other.filter(fits).or(Some(link).filter(fits)) else { return };
        links.views.charge(link, bytes.len(), now);
        let (slot, _) = split(frame.seq_num);
        let seq_num = repair_seq_num(slot, cover);
        self.symbols.push_back(Symbol { link, seq_num, modifiers: frame.modifiers, bytes });
    }

    /// A repair frame that waits.
    pub(in crate::session) fn transmit(&mut self, writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
        while let Some(symbol) = self.symbols.pop_front() {
            let destination = writer.destination(symbol.link).filter(|_| writer.can_seal());
            let Some((Destination { path, flow }, _)) = destination else { continue };
            let DatagramWriter { buf, links, keyring, now, .. } = writer;
            let start = buf.len();
            buf.extend_from_slice(&Keyring::HEADER_ROOM);
            // As long as the longest packet that it covers.
            let len = u16::try_from(symbol.bytes.len()).unwrap_or(u16::MAX);
            wire::put_frame_header(buf, symbol.seq_num, Kind::Repair, symbol.modifiers, len);
            buf.extend_from_slice(&symbol.bytes);
            let sealed_as = keyring.seal((symbol.link, flow), buf, start, *now);
            let size = buf.len() - start;
            debug_assert_eq!(size, overhead(Security::Sealed) + symbol.bytes.len());
            if let Some(link) = links.get_mut(symbol.link) {
                let sealed = sealed_as.map(SealedAs::name);
                link.on_sent(size, Outgoing { flow: Some(flow), ..Outgoing::control(sealed) }, *now);
            }
            self.sent += 1;
            return Some(Transmit::new(symbol.link, path, size, size));
        }
        None
    }

    /// Whether data frames of this number's slot are of use for restoring others.
    pub(in crate::session) fn restores(&self, seq_num: u64) -> bool {
        !self.receivers.is_empty() && self.receivers.contains(split(seq_num).0)
    }

    /// A data frame arrived, and has been handed on: what it restores of others is handed on too.
    pub(in crate::session) fn restore_with(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        packet: &[u8],
        inbox: &mut Inbox,
        links: &LinkTable,
        now: Instant,
    ) {
        let (slot, counter) = split(seq_num);
        self.on_packet(slot, counter, packet);
        self.hand_out(slot, modifiers, inbox, links, now);
    }

    /// A repair frame arrived: what it restores is handed on.
    pub(in crate::session) fn on_repair(
        &mut self,
        (seq_num, modifiers): (u64, Modifiers),
        symbol: &[u8],
        inbox: &mut Inbox,
        links: &LinkTable,
        now: Instant,
    ) -> Result<(), Discard> {
        let (slot, cover) = parse_repair(seq_num);
        let result = self.on_symbol(slot, cover, symbol, now);
        self.hand_out(slot, modifiers, inbox, links, now);
        result
    }

    fn hand_out(
        &mut self,
        slot: u16,
        modifiers: Modifiers,
        inbox: &mut Inbox,
        links: &LinkTable,
        now: Instant,
    ) {
        for (counter, packet) in self.restored.drain(..) {
            let seq_num = wire::data_seq_num(slot, counter);
            let result = inbox.on_restored((seq_num, modifiers), packet, links.delays(), now);
            // What had come, or is too old to tell, is of no use.
            self.recovered += u64::from(result.is_ok());
        }
    }
}

/// Slot and counter of a data frame.
fn split(seq_num: u64) -> (u16, u64) {
    let slot = u16::try_from(seq_num >> COUNTER_BITS).unwrap_or(0);
    (slot, seq_num & ((1 << COUNTER_BITS) - 1))
}

/// A repair frame's `seq_num`.
fn repair_seq_num(slot: u16, cover: Cover) -> u64 {
    let low = (u64::from(cover.count) << (FIRST_BITS + NUMBER_BITS))
        | (u64::from(cover.number) << FIRST_BITS)
        | (cover.first & ((1 << FIRST_BITS) - 1));
    wire::data_seq_num(slot, low)
}

fn parse_repair(seq_num: u64) -> (u16, Cover) {
    let [s0, s1, count, number, ..] = seq_num.to_be_bytes();
    let first = seq_num & ((1 << FIRST_BITS) - 1);
    (u16::from_be_bytes([s0, s1]), Cover { first, count, number })
}

#[cfg(test)]
mod tests;
