//! SIGINT, SIGTERM and SIGHUP as a readable descriptor.
//!
//! Handlers only set a flag and write to a pipe; the owner of the descriptor decides the reaction.
//!
//! Source: signal-safety(7); the signal-hook crate.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// A request to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM: end.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process, from now on.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    terminate: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers; they stay for the life of the process.
    pub fn install() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let terminate = Arc::new(AtomicBool::new(false));
        let reload = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&terminate))?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        flag::register(SIGHUP, Arc::clone(&reload))?;
        pipe::register(SIGHUP, sender)?;
        Ok(Self { pipe: receiver, terminate, reload })
    }

    /// The pending signal, when the descriptor is readable. Once [`Signal::Terminate`] came, it is
    /// given for ever.
    pub fn poll_signal(&mut self) -> Option<Signal> {
        let mut bytes = [0; 64];
        while matches!(self.pipe.read(&mut bytes), Ok(count) if count > 0) {}
        if self.terminating() {
            return Some(Signal::Terminate);
        }
        self.reload.swap(false, Ordering::SeqCst).then_some(Signal::Reload)
    }

    /// Whether the process was asked to end. Stays true.
    pub fn terminating(&self) -> bool {
        self.terminate.load(Ordering::SeqCst)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll::{Interest, Poller};

    #[test]
    fn a_signal_wakes_the_poller() {
        let mut signals = Signals::install().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&signals, 1, Interest::Readable).unwrap();
        let mut ready = Vec::new();
        assert_eq!(signals.poll_signal(), None);
        for (number, signal) in [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Terminate)] {
            signal_hook::low_level::raise(number).unwrap();
            poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ready.len(), 1);
            assert_eq!(signals.poll_signal(), Some(signal));
        }
        assert!(signals.terminating());
    }
}
