//! Waiting for descriptors, with deadlines in nanoseconds.
//!
//! A thin layer over epoll through rustix, level-triggered. A deadline uses epoll_pwait2(2), which
//! takes nanoseconds and exists since Linux 5.11. On older kernels ppoll(2) waits on the epoll
//! instance itself, since epoll_wait(2) rounds up to a millisecond. That is one system call, or two
//! for an event on an old kernel. General-purpose pollers arm a timerfd before each wait, and a
//! bond waits thousands of times a second.
//!
//! Source: epoll_wait(2), ppoll(2), prctl(2) `PR_SET_TIMERSLACK`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// The readiness to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Errors only.
    Nothing,
    /// Something to read.
    Readable,
    /// Room to write.
    Writable,
    /// Something to read, or room to write.
    ReadableWritable,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Nothing => EventFlags::empty(),
            Self::Readable => EventFlags::IN,
            Self::Writable => EventFlags::OUT,
            Self::ReadableWritable => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// One ready descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The token given to [`Poller::add`].
    pub token: u64,
    /// Readable: data, an end of file, or an error that reading will report.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
    /// An error or hang-up is pending on the descriptor.
    pub error: bool,
}

/// An epoll instance. Itself a descriptor that is readable when one of its descriptors is ready.
pub struct Poller {
    epoll: OwnedFd,
    /// Whether the kernel lacks epoll_pwait2.
    is_old: bool,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Descriptors reported by one wait.
    const EVENTS_MAX: usize = 64;

    /// An empty poller.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut events = Vec::with_capacity(Self::EVENTS_MAX);
        let shortest = timespec(Duration::from_nanos(1));
        let is_old = epoll::wait(&epoll, spare_capacity(&mut events), Some(&shortest)) == Err(Errno::NOSYS);
        Ok(Self { epoll, is_old, events })
    }

    /// Adds `fd` until it is closed or removed; `token` names it in [`Ready`].
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Changes the interest in a descriptor that was added.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Removes `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor is ready or `timeout` has passed (`None`: for ever), and fills
    /// `ready`, which is cleared first. A signal ends the wait with no descriptor ready.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let mut timeout = timeout;
        if let Some(span) = timeout.filter(|span| self.is_old && !span.is_zero()) {
            if !self.wait_precisely(span)? {
                return Ok(());
            }
            timeout = Some(Duration::ZERO);
        }
        let timeout = timeout.map(timespec);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let error = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                token: event.data.u64(),
                readable: error || flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                error,
            }
        }));
        Ok(())
    }

    /// Whether a descriptor is ready before `timeout` has passed.
    fn wait_precisely(&self, timeout: Duration) -> io::Result<bool> {
        let mut instance = [PollFd::new(&self.epoll, PollFlags::IN)];
        match event::poll(&mut instance, Some(&timespec(timeout))) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

/// Asks the kernel to fire this thread's timers as precisely as it can, instead of up to 50 µs
/// late: a pacer's deadlines are some 100 µs apart.
pub fn set_precise_timers() -> io::Result<()> {
    const SLACK_NS: u64 = 1;
    Ok(rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(SLACK_NS))?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn reports_readiness_and_nests() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut inner = Poller::new().unwrap();
        inner.add(&far, 7, Interest::Readable).unwrap();
        let mut outer = Poller::new().unwrap();
        outer.add(&inner, 9, Interest::Readable).unwrap();
        let mut ready = Vec::new();
        outer.wait(&mut ready, Some(Duration::from_micros(50))).unwrap();
        assert!(ready.is_empty());

        near.write_all(b"x").unwrap();
        outer.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [Ready { token: 9, readable: true, writable: false, error: false }]);
        inner.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready, [Ready { token: 7, readable: true, writable: false, error: false }]);

        inner.modify(&far, 8, Interest::ReadableWritable).unwrap();
        inner.wait(&mut ready, None).unwrap();
        assert_eq!(ready, [Ready { token: 8, readable: true, writable: true, error: false }]);
        inner.remove(&far).unwrap();
        inner.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
    }
}
