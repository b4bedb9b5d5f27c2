//! A hostile network: datagrams duplicated, held back, replayed much later, forged from true ones,
//! truncated, and random bytes in between.
//!
//! Flipped bits are for sealed links only: on a plain link only a UDP checksum protects against
//! them.

use std::collections::VecDeque;

use bonding_netem::Direction;
use bytes::BytesMut;

use crate::rng::Rng;

/// The number of earlier datagrams that can be replayed.
const MEMORY: usize = 1_024;
/// The most random bytes in one datagram.
const RUBBISH_MAX: u64 = 1_600;

/// The probability of each attack, in permille of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mangling {
    /// The datagram arrives twice.
    pub double: u64,
    /// It arrives after the next one.
    pub hold: u64,
    /// An earlier one arrives again.
    pub replay: u64,
    /// A truncated copy arrives before it.
    pub cut: u64,
    /// A copy with one flipped bit arrives before it.
    pub flip: u64,
    /// A datagram of random bytes arrives before it.
    pub rubbish: u64,
}

/// Applies [`Mangling`] to the datagrams that arrive.
#[derive(Debug)]
pub struct Mangler {
    mangling: Mangling,
    rng: Rng,
    held: Vec<(usize, Direction, BytesMut)>,
    memory: VecDeque<(usize, Direction, BytesMut)>,
    copied: u64,
    forged: u64,
}

impl Mangler {
    /// A mangler that draws from `seed`.
    pub fn new(mangling: Mangling, seed: u64) -> Self {
        let (held, memory) = (Vec::new(), VecDeque::new());
        Self { mangling, rng: Rng::new(seed), held, memory, copied: 0, forged: 0 }
    }

    /// True datagrams that arrived more often than they were sent.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Datagrams that arrived but were never sent.
    pub fn forged(&self) -> u64 {
        self.forged
    }

    /// The datagrams that arrive instead of `data`.
    pub fn pass(&mut self, link: usize, direction: Direction, data: BytesMut) -> Vec<BytesMut> {
        let mut out = Vec::new();
        if self.rng.chance(self.mangling.rubbish) {
            let length = usize::try_from(self.rng.below(RUBBISH_MAX)).unwrap_or(0);
            let mut rubbish = BytesMut::zeroed(length);
            self.rng.fill(&mut rubbish);
            out.push(rubbish);
        }
        if self.rng.chance(self.mangling.cut) {
            let length = usize::try_from(self.rng.below(data.len() as u64)).unwrap_or(0);
            out.push(BytesMut::from(data.get(..length).unwrap_or(&[])));
        }
        if self.mangling.flip > 0 && self.rng.chance(self.mangling.flip) {
            let bit = self.rng.below(8 * data.len() as u64);
            let mut forged = data.clone();
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| forged.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
                out.push(forged);
            }
        }
        let forged = out.len();
        self.forged += forged as u64;
        if self.rng.chance(self.mangling.replay) {
            let place = usize::try_from(self.rng.below(self.memory.len() as u64)).unwrap_or(0);
            let earlier = self.memory.get(place);
            out.extend(earlier.filter(|it| (it.0, it.1) == (link, direction)).map(|it| it.2.clone()));
        }
        self.memory.push_back((link, direction, data.clone()));
        if self.memory.len() > MEMORY {
            self.memory.pop_front();
        }
        if self.rng.chance(self.mangling.double) {
            out.push(data.clone());
        }
        self.copied += (out.len() - forged) as u64;
        let mut released = Vec::new();
        self.held.retain_mut(|(held_link, held_direction, held)| {
            let mine = (*held_link, *held_direction) == (link, direction);
            if mine {
                released.push(std::mem::take(held));
            }
            !mine
        });
        if self.rng.chance(self.mangling.hold) {
            self.held.push((link, direction, data));
        } else {
            out.push(data);
        }
        out.extend(released);
        out
    }
}
