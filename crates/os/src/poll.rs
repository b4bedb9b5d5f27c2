//! Waiting for descriptors, with deadlines in nanoseconds.
//!
//! A thin layer over epoll through rustix, level-triggered. `epoll_pwait2` takes the timeout itself, so that a
//! wake-up costs one system call; the general-purpose pollers arm a timerfd for each wait, which costs two more,
//! and a bond waits tens of thousands of times a second. Where the kernel is older than 5.11 the timeout is rounded
//! up to a millisecond.
//!
//! Source: epoll_wait(2), prctl(2) `PR_SET_TIMERSLACK`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Readable,
    /// Something to read, or room to write.
    ReadableWritable,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN,
            Self::ReadableWritable => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// One ready descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// As given to [`Poller::add`].
    pub token: u64,
    /// Something to read, an end of file, or an error that reading will tell.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
    /// An error or hang-up is pending on the descriptor.
    pub error: bool,
}

/// An epoll instance. Itself a descriptor that is readable when one of its descriptors is ready.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Descriptors reported by one wait.
    const EVENTS_MAX: usize = 64;

    /// An empty poller.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(Self::EVENTS_MAX) })
    }

    /// Waits for `fd` too, until it is closed or removed; `token` names it in [`Ready`].
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what is waited for on a descriptor that was added.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits no longer for `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor is ready or `timeout` has passed (`None`: for ever), and fills `ready`, which is
    /// cleared first. An interrupting signal ends the wait with nothing ready.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.map(timespec);
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // epoll_pwait2 came with Linux 5.11: before it, whole milliseconds, rounded up.
            Err(Errno::NOSYS) => {
                let millis = timeout.map(round_up_to_millis);
                match epoll::wait(&self.epoll, spare_capacity(&mut self.events), millis.as_ref()) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
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

fn round_up_to_millis(span: Timespec) -> Timespec {
    let millis = (span.tv_nsec + 999_999) / 1_000_000;
    Timespec { tv_sec: span.tv_sec.saturating_add(millis / 1_000), tv_nsec: millis % 1_000 * 1_000_000 }
}

/// Asks the kernel to fire this thread's timers as precisely as it can, instead of up to 50 µs late: a pacer's
/// deadlines are some 100 µs apart.
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

    #[test]
    fn old_kernels_wait_at_least_as_long() {
        let rounded = round_up_to_millis(timespec(Duration::new(3, 999_000_001)));
        assert_eq!((rounded.tv_sec, rounded.tv_nsec), (4, 0));
        let rounded = round_up_to_millis(timespec(Duration::from_nanos(1)));
        assert_eq!((rounded.tv_sec, rounded.tv_nsec), (0, 1_000_000));
    }
}
