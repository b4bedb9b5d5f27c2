//! Our table of nftables while other programs change theirs, or take ours away.
//!
//! [`TableWatch`] is a readable descriptor. It knows whether the table is as it was made, when the
//! tables are to be looked at again, and which chains of others drop forwarded packets. At most one
//! look is made in [`LOOK_INTERVAL`], but for one that is asked for.
//!
//! It does not know what the table is for: its owner makes the rules, and puts them in with
//! [`TableWatch::replace`].

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::tables::{Others, Watch};
use super::{NatError, nft, table_name};
use crate::throttle::Throttle;

/// Between two looks at the tables. Chosen: what was removed is back within a second, and a program
/// that changes rules all the time costs little.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The table, as far as other programs have a hand in it.
#[derive(Debug)]
pub(crate) struct TableWatch {
    tunnel: String,
    watch: Watch,
    /// The chains of others that were warned of.
    warned: BTreeSet<String>,
    /// The table is not as it was made, or is to be another one.
    is_broken: bool,
    look_at: Option<Instant>,
    looked_at: Instant,
    log: Throttle,
}

impl TableWatch {
    /// Watches the table of this tunnel's name.
    pub(crate) fn open(tunnel: &str) -> io::Result<Self> {
        Ok(Self {
            tunnel: tunnel.to_owned(),
            watch: Watch::open(&table_name(tunnel))?,
            warned: BTreeSet::new(),
            is_broken: false,
            look_at: None,
            looked_at: Instant::now(),
            log: Throttle::new(Duration::from_secs(10)),
        })
    }

    /// The table's name.
    pub(crate) fn table(&self) -> String {
        table_name(&self.tunnel)
    }

    /// Whether the table has to be made anew in any case.
    pub(crate) const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The table is to be another one: it is made at the next look, which is due now.
    pub(crate) fn ask(&mut self) {
        self.is_broken = true;
        self.look_at = Some(Instant::now());
    }

    /// Something changed: notes whether a look at the tables is due.
    pub(crate) fn note_changes(&mut self) -> Result<(), NatError> {
        let seen = self.watch.read()?;
        self.is_broken |= seen.own || seen.lost;
        if seen.own || seen.others || seen.lost {
            let due = (self.looked_at + LOOK_INTERVAL).max(Instant::now());
            self.look_at.get_or_insert(due);
        }
        Ok(())
    }

    /// How long until a look is due.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.look_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether a look is due; then it is made now.
    pub(crate) fn begin_look(&mut self) -> bool {
        if self.due_in() != Some(Duration::ZERO) {
            return false;
        }
        self.looked_at = Instant::now();
        self.look_at = None;
        true
    }

    /// The table cannot be put back; it is tried again. `Some`: this is worth a line in the log,
    /// with the number of failures that were not.
    pub(crate) fn on_failure(&mut self) -> Option<u64> {
        self.look_at = Some(Instant::now() + LOOK_INTERVAL);
        self.log.pass()
    }

    /// Our table cannot let pass what another drops. Docker's does so, if Docker is the first that
    /// needs forwarding for all interfaces.
    pub(crate) fn warn_of_drops(&mut self, others: &Others) {
        for chain in others.dropping.difference(&self.warned) {
            tracing::warn!(
                chain,
                tunnel = self.tunnel,
                "drops forwarded packets that none of its rules accepts: let those from and to the tunnel pass there"
            );
        }
        self.warned.clone_from(&others.dropping);
    }

    /// Makes the table anew in one transaction; on an error it stays as it was.
    pub(crate) fn replace(&mut self, rules: &str) -> Result<(), NatError> {
        nft(rules)?;
        // The notifications of our own transaction. If some are lost it is not made again: a large
        // table would then be made for ever.
        let seen = self.watch.read()?;
        self.is_broken = seen.own_less;
        if self.is_broken || seen.others {
            self.look_at = Some(Instant::now() + LOOK_INTERVAL);
        }
        Ok(())
    }
}

impl AsFd for TableWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
