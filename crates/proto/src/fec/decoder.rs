//! The receiver's side of one slot: the received packets, and the equations that still have unknown
//! packets.
//!
//! The equations are kept reduced. Each has a *pivot*: its lowest unknown counter, which no other
//! equation contains. An equation whose only unknown is its pivot yields that packet. A packet that
//! arrives or is restored is eliminated from all equations.
//!
//! A symbol whose packets have all arrived adds nothing and costs nothing; this is the usual case.
//!
//! Contract: each packet is restored at most once, and only if [`Decoder::on_packet`] did not
//! receive it while its counter was remembered. Memory: packets and equations of the last [`SPAN`]
//! counters, both bounded. The decoder counts its work for a caller that bounds it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cover::{COVER_MAX, Cover, PLACE_BYTES, ROWS_MAX, SPAN, coefficient};
use super::gf;
use crate::packet::PacketBuf;
use crate::qos::flow;

/// A malformed symbol: it cannot have been made from the packets that it claims to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// `Σ coefficient · packet = sum` over unknown packets.
#[derive(Debug)]
struct Row {
    /// The unknown packets' counters, ascending, with their coefficients, which are not zero.
    unknown: Vec<(u64, u8)>,
    pivot: u64,
    sum: Vec<u8>,
}

impl Row {
    fn coefficient_of(&self, counter: u64) -> Option<u8> {
        let at = self.unknown.binary_search_by_key(&counter, |(counter, _)| *counter).ok()?;
        self.unknown.get(at).map(|(_, coefficient)| *coefficient)
    }

    /// Memory of the equation, in bytes.
    const fn bytes(&self) -> usize {
        size_of::<Self>() + self.sum.len() + self.unknown.len() * size_of::<(u64, u8)>()
    }

    /// Eliminates a known packet. Returns the bytes of work.
    fn take_out(&mut self, counter: u64, packet: &[u8]) -> usize {
        let Some(coefficient) = self.coefficient_of(counter) else { return 0 };
        gf::add_multiple(&mut self.sum, packet, coefficient);
        self.unknown.retain(|(known, _)| *known != counter);
        packet.len()
    }

    /// Adds a multiple of `other` that eliminates `counter`, which both contain. Returns the bytes
    /// of work.
    fn cancel(&mut self, counter: u64, other: &Self) -> usize {
        let (Some(mine), Some(theirs)) = (self.coefficient_of(counter), other.coefficient_of(counter)) else {
            return 0;
        };
        let factor = gf::mul(mine, gf::inverse(theirs));
        gf::add_multiple(&mut self.sum, &other.sum, factor);
        let before = std::mem::take(&mut self.unknown);
        let (mut a, mut b) = (before.into_iter().peekable(), other.unknown.iter().copied().peekable());
        while a.peek().is_some() || b.peek().is_some() {
            let next_b = b.peek().copied();
            let item = match a.next_if(|(counter, _)| next_b.is_none_or(|(other, _)| *counter <= other)) {
                Some((counter, mine)) => {
                    let theirs = b.next_if(|(other, _)| *other == counter).map_or(0, |(_, value)| value);
                    Some((counter, mine ^ gf::mul(theirs, factor)))
                }
                None => b.next().map(|(counter, value)| (counter, gf::mul(value, factor))),
            };
            self.unknown.extend(item.filter(|(_, value)| *value != 0));
        }
        other.bytes()
    }
}

/// The decoder of one slot.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The packets of the counters `base..`; `None`: not received.
    packets: VecDeque<Option<Box<[u8]>>>,
    base: u64,
    rows: VecDeque<Row>,
    packet_bytes: usize,
    work_bytes: usize,
}

impl Decoder {
    /// Handles a packet of the slot that arrived as `counter`. Packets that it restores are added
    /// to `restored` with their counters. Returns the number of equations that turned out to be
    /// false.
    pub fn on_packet(&mut self, counter: u64, packet: &[u8], restored: &mut Vec<(u64, PacketBuf)>) -> u64 {
        if !self.learn(counter, packet) {
            return 0;
        }
        self.solve(restored)
    }

    /// Handles a symbol; otherwise as [`Self::on_packet`]. The counter in `cover` has 32 bits on
    /// the wire; the counter nearest to the known packets is assumed.
    ///
    /// # Errors
    /// The symbol covers fewer than two packets or more than allowed, or is shorter than a packet
    /// that it covers.
    pub fn on_symbol(
        &mut self,
        cover: Cover,
        symbol: &[u8],
        restored: &mut Vec<(u64, PacketBuf)>,
    ) -> Result<u64, Refused> {
        if !(2..=COVER_MAX).contains(&usize::from(cover.count)) || symbol.is_empty() {
            return Err(Refused);
        }
        // No packet of the slot is known, so the symbol cannot restore anything.
        let Some(newest) =
            (self.base + self.packets.len() as u64).checked_sub(1).filter(|_| !self.packets.is_empty())
        else {
            return Ok(0);
        };
        let Some(first) = widen(cover.first, newest) else { return Ok(0) };
        let cover = Cover { first, ..cover };
        let last = first + u64::from(cover.count) - 1;
        if first < self.base || last > newest + SPAN {
            return Ok(0);
        }
        self.work_bytes += usize::from(cover.count) * PLACE_BYTES;
        let mut all_came = true;
        for counter in cover.counters() {
            match self.packet(counter) {
                Some(packet) if packet.len() > symbol.len() => return Err(Refused),
                Some(_) => {}
                None => all_came = false,
            }
        }
        if all_came {
            return Ok(0);
        }
        let mut row = Row { unknown: Vec::new(), pivot: first, sum: symbol.to_vec() };
        let mut work = symbol.len();
        for counter in cover.counters() {
            let coefficient = coefficient(cover.number, counter);
            if let Some(packet) = self.packet(counter) {
                gf::add_multiple(&mut row.sum, packet, coefficient);
                work += packet.len();
            } else {
                row.unknown.push((counter, coefficient));
            }
        }
        self.work_bytes += work;
        self.extend_to(last);
        self.insert(row);
        Ok(self.solve(restored))
    }

    /// Memory of packets and equations, in bytes.
    pub fn bytes(&self) -> usize {
        let places = self.packets.len() * size_of::<Option<Box<[u8]>>>();
        self.packet_bytes + places + self.rows.iter().map(Row::bytes).sum::<usize>()
    }

    /// Takes the count of bytes multiplied and added since the last call.
    pub const fn take_work(&mut self) -> usize {
        std::mem::replace(&mut self.work_bytes, 0)
    }

    #[cfg(test)]
    pub(super) fn rows_within_bounds(&self) -> bool {
        let packets: usize = self.packets.iter().flatten().map(|packet| packet.len()).sum();
        let reduced = self.rows.iter().all(|row| {
            row.unknown.is_sorted_by(|a, b| a.0 < b.0)
                && self
                    .rows
                    .iter()
                    .all(|other| other.pivot == row.pivot || other.coefficient_of(row.pivot).is_none())
        });
        reduced
            && self.packet_bytes == packets
            && self.rows.len() <= ROWS_MAX
            && self.packets.len() as u64 <= SPAN
    }

    fn packet(&self, counter: u64) -> Option<&[u8]> {
        let at = usize::try_from(counter.checked_sub(self.base)?).ok()?;
        self.packets.get(at)?.as_deref()
    }

    /// Stores a packet and eliminates it from the equations; `false` if it is known already, or too
    /// old.
    fn learn(&mut self, counter: u64, packet: &[u8]) -> bool {
        self.extend_to(counter);
        self.work_bytes += self.rows.len() * PLACE_BYTES;
        let at = counter.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        let Some(place) = at.and_then(|at| self.packets.get_mut(at)).filter(|place| place.is_none()) else {
            return false;
        };
        *place = Some(Box::from(packet));
        self.packet_bytes += packet.len();
        for row in &mut self.rows {
            self.work_bytes += row.take_out(counter, packet);
        }
        // An equation whose pivot was this packet needs another pivot.
        let mut orphans = Vec::new();
        while let Some(at) = self.rows.iter().position(|row| row.pivot == counter) {
            orphans.extend(self.rows.remove(at));
        }
        for row in orphans {
            self.insert(row);
        }
        true
    }

    /// Makes room for `counter`; older packets and equations leave the window.
    fn extend_to(&mut self, counter: u64) {
        let end = self.base + self.packets.len() as u64;
        if self.packets.is_empty() || counter >= end + SPAN {
            self.packets.clear();
            self.rows.clear();
            self.packet_bytes = 0;
            self.base = counter;
        }
        while self.base + self.packets.len() as u64 <= counter {
            self.packets.push_back(None);
            self.work_bytes += PLACE_BYTES;
        }
        while self.packets.len() as u64 > SPAN {
            let gone = self.packets.pop_front().flatten();
            self.packet_bytes -= gone.map_or(0, |packet| packet.len());
            self.base += 1;
        }
        let base = self.base;
        while let Some(at) =
            self.rows.iter().position(|row| row.unknown.first().is_some_and(|(counter, _)| *counter < base))
        {
            self.rows.remove(at);
        }
    }

    /// Reduces a new equation by the others, and the others by the new one.
    fn insert(&mut self, mut row: Row) {
        for other in &self.rows {
            self.work_bytes += row.cancel(other.pivot, other);
        }
        let Some((pivot, _)) = row.unknown.first().copied() else { return };
        row.pivot = pivot;
        for other in &mut self.rows {
            self.work_bytes += other.cancel(pivot, &row);
        }
        self.rows.push_back(row);
        if self.rows.len() > ROWS_MAX {
            self.rows.pop_front();
        }
    }

    /// Takes the packets of equations with one unknown. Returns the number of equations whose
    /// packet was refused.
    fn solve(&mut self, restored: &mut Vec<(u64, PacketBuf)>) -> u64 {
        let mut refused = 0;
        while let Some(at) = self.rows.iter().position(|row| row.unknown.len() <= 1) {
            let Some(mut row) = self.rows.remove(at) else { break };
            let Some((counter, coefficient)) = row.unknown.first().copied() else { continue };
            gf::scale(&mut row.sum, gf::inverse(coefficient));
            self.work_bytes += row.sum.len();
            let Some(packet) = whole_packet(row.sum) else {
                refused += 1;
                continue;
            };
            self.learn(counter, &packet);
            restored.push((counter, packet));
        }
        refused
    }
}

/// One IP packet followed by zeros only.
fn whole_packet(mut bytes: Vec<u8>) -> Option<PacketBuf> {
    let length = flow::length(&bytes)?;
    if bytes.get(length..)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    bytes.truncate(length);
    flow::parse(&bytes).ok()?;
    Some(PacketBuf::from(Bytes::from(bytes)))
}

/// The counter nearest to `near` whose lower 32 bits are `low`.
fn widen(low: u64, near: u64) -> Option<u64> {
    const PERIOD: u64 = 1 << 32;
    let ahead = low.wrapping_sub(near) % PERIOD;
    if ahead < PERIOD / 2 { near.checked_add(ahead) } else { near.checked_sub(PERIOD - ahead) }
}
