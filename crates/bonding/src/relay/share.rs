//! What the streams of a process share for compression: whether and at which level it is done, the
//! places for codecs, and the figures.
//!
//! Contract: a codec exists only with a [`Place`], which it gives back when it is dropped. A
//! session has [`RUNS_MAX`] encoders and lets its peer open twice as many runs; the process has
//! [`ENCODERS_MAX`] and [`DECODERS_MAX`]. No codec is used for two streams.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bonding_proto::units::BitRate;
use bonding_proto::wire::stream::StreamForm;

use super::blocks::{Breach, RUNS_MAX};
use super::effort::{Effort, Level};
use super::expander::ExpandError;
use crate::engine::plan::Compression;
use crate::status;

/// Encoders of a process. Chosen: 41 MiB.
const ENCODERS_MAX: usize = 64;
/// Decoders of a process. Chosen: 87 MiB, which sixteen clients need together that have as many as
/// they may.
const DECODERS_MAX: usize = 256;
/// Decoders beyond which new streams are not compressed. Chosen: half of what there is.
const DECODERS_LOW: usize = DECODERS_MAX / 2;

/// Links that together carry less are worth it. Text that shrinks to a third needs 3 % of a core
/// for them.
const SLOW: BitRate = BitRate::from_bps(20_000_000);
/// A run goes on up to this. Chosen: rates are estimates.
const STILL_SLOW: BitRate = BitRate::from_bps(25_000_000);

/// Codecs that exist.
#[derive(Debug, Default)]
struct Codecs {
    encoders: Rc<Cell<usize>>,
    decoders: Rc<Cell<usize>>,
}

/// The right to have a codec.
#[derive(Debug)]
pub(super) struct Place([Rc<Cell<usize>>; 2]);

impl Place {
    fn new(counts: [&Rc<Cell<usize>>; 2]) -> Self {
        counts.iter().for_each(|count| count.set(count.get() + 1));
        Self(counts.map(Rc::clone))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.iter().for_each(|count| count.set(count.get() - 1));
    }
}

#[derive(Debug)]
struct Process {
    mode: Compression,
    codecs: Codecs,
    effort: RefCell<Effort>,
    figures: Cell<status::Compression>,
}

/// The shares of all sessions.
#[derive(Debug)]
pub(super) struct Shares {
    process: Rc<Process>,
    sessions: BTreeMap<u16, Rc<Codecs>>,
}

/// What one stream sees. See the module.
#[derive(Debug, Clone)]
pub(super) struct Share {
    process: Rc<Process>,
    session: Rc<Codecs>,
}

impl Shares {
    pub(super) fn new(mode: Compression) -> Self {
        let process = Process {
            mode,
            codecs: Codecs::default(),
            effort: RefCell::new(Effort::new(Instant::now())),
            figures: Cell::default(),
        };
        Self { process: Rc::new(process), sessions: BTreeMap::new() }
    }

    /// The share of a stream of this session.
    pub(super) fn of(&mut self, session: u16) -> Share {
        if !self.sessions.contains_key(&session) {
            self.sessions.retain(|_, codecs| Rc::strong_count(codecs) > 1);
        }
        let codecs = self.sessions.entry(session).or_default();
        Share { process: Rc::clone(&self.process), session: Rc::clone(codecs) }
    }

    /// The form that new streams may have.
    pub(super) fn form(&self) -> StreamForm {
        let has_room = self.process.codecs.decoders.get() < DECODERS_LOW;
        if has_room && self.process.mode != Compression::Off { StreamForm::Blocks } else { StreamForm::Plain }
    }

    pub(super) fn figures(&self) -> status::Compression {
        self.process.figures.get()
    }

    /// The session that has most decoders.
    pub(super) fn fullest(&self) -> Option<u16> {
        let decoders = |(_, codecs): &(&u16, &Rc<Codecs>)| codecs.decoders.get();
        self.sessions.iter().max_by_key(decoders).map(|(session, _)| *session)
    }
}

impl Share {
    /// The level for links that carry `rate` together. `None`: nothing is to be compressed.
    pub(super) fn level(&self, rate: Option<BitRate>, has_run: bool) -> Option<Level> {
        let bound = if has_run { STILL_SLOW } else { SLOW };
        let is_worth_it = match self.process.mode {
            Compression::Off => false,
            Compression::On => true,
            Compression::Auto => rate.is_some_and(|rate| rate < bound),
        };
        is_worth_it.then(|| self.process.effort.borrow_mut().level(Instant::now())).flatten()
    }

    /// A place for an encoder, if there is one.
    pub(super) fn place_for_run(&self) -> Option<Place> {
        let (process, session) = (&self.process.codecs.encoders, &self.session.encoders);
        let is_free = process.get() < ENCODERS_MAX && session.get() < RUNS_MAX;
        is_free.then(|| Place::new([process, session]))
    }

    /// A place for a decoder.
    pub(super) fn place_for_decoder(&self) -> Result<Place, ExpandError> {
        let (process, session) = (&self.process.codecs.decoders, &self.session.decoders);
        if session.get() >= 2 * RUNS_MAX {
            return Err(Breach.into());
        }
        if process.get() >= DECODERS_MAX {
            return Err(ExpandError::Crowded);
        }
        Ok(Place::new([process, session]))
    }

    /// Does what compression does, whose time counts.
    pub(super) fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.process.effort.borrow_mut().on_spent(start.elapsed());
        done
    }

    /// So many of a connection's bytes became a block.
    pub(super) fn count_out(&self, plain: usize, block: usize) {
        let mut figures = self.process.figures.get();
        figures.tx_plain_bytes += plain as u64;
        figures.tx_bytes += block as u64;
        self.process.figures.set(figures);
    }

    /// A block that came is so many of a connection's bytes.
    pub(super) fn count_in(&self, plain: usize, block: usize) {
        let mut figures = self.process.figures.get();
        figures.rx_plain_bytes += plain as u64;
        figures.rx_bytes += block as u64;
        self.process.figures.set(figures);
    }
}
