//! Looks names up in a thread of its own, so that a nameserver that is silent holds up nothing.
//!
//! Contract: [`Lookups::ask`] never waits, and asks for a name once at a time; the descriptor is
//! readable when [`Lookups::poll`] has an answer. The system's resolver decides how long a look-up
//! takes and where it asks. The thread begins with the first name, after the process has given up
//! its rights, and never keeps the process from ending.
//!
//! It does not know for what the addresses are.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

/// Names that are looked up at once. Chosen: as many hosts as a configuration may reasonably have.
const NAMES_MAX: usize = 16;

/// What became of one look-up.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) name: String,
    /// Each address once, IPv4 in its own form.
    pub(crate) addresses: io::Result<Vec<IpAddr>>,
}

/// The look-ups under way.
#[derive(Debug)]
pub(crate) struct Lookups {
    wake: Arc<OwnedFd>,
    /// The thread, once there is one.
    thread: Option<(SyncSender<String>, Receiver<Answer>)>,
    pending: Vec<String>,
}

impl Lookups {
    /// None is under way.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { wake: Arc::new(wake), thread: None, pending: Vec::new() })
    }

    /// Looks `name` up, unless that is under way or too many others are.
    pub(crate) fn ask(&mut self, name: &str) -> io::Result<()> {
        if self.pending.len() >= NAMES_MAX || self.pending.iter().any(|pending| pending == name) {
            return Ok(());
        }
        if self.thread.is_none() {
            self.thread = Some(begin(Arc::clone(&self.wake))?);
        }
        // There is room for every pending name.
        let asked = self.thread.as_ref().is_some_and(|(orders, _)| orders.try_send(name.to_owned()).is_ok());
        if asked {
            self.pending.push(name.to_owned());
        }
        Ok(())
    }

    /// Whether a look-up is under way.
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next answer.
    pub(crate) fn poll(&mut self) -> Option<Answer> {
        if let Some((_, answers)) = &self.thread
            && let Ok(answer) = answers.try_recv()
        {
            self.pending.retain(|pending| *pending != answer.name);
            return Some(answer);
        }
        // One that comes between the last look and this makes it readable again.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        let (_, answers) = self.thread.as_ref()?;
        let answer = answers.try_recv().ok()?;
        self.pending.retain(|pending| *pending != answer.name);
        Some(answer)
    }
}

impl AsFd for Lookups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The thread: it ends when no more can be asked.
fn begin(wake: Arc<OwnedFd>) -> io::Result<(SyncSender<String>, Receiver<Answer>)> {
    let (orders, names) = sync_channel::<String>(NAMES_MAX);
    let (results, answers) = sync_channel(NAMES_MAX);
    std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        for name in names {
            // A look-up needs a port and does not use it.
            let found = (name.as_str(), 0).to_socket_addrs();
            let addresses = found.map(|found| distinct(found.map(|address| address.ip())));
            if results.send(Answer { name, addresses }).is_err() {
                return;
            }
            let _ = rustix::io::write(&wake, &1_u64.to_ne_bytes());
        }
    })?;
    Ok((orders, answers))
}

fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in addresses.map(|address| address.to_canonical()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bonding_os::poll::{Interest, Poller};

    use super::*;

    #[test]
    fn answers_come_one_by_one_and_wake_the_poller() {
        let mut poller = Poller::new().unwrap();
        let mut lookups = Lookups::new().unwrap();
        poller.add(&lookups, 5, Interest::Readable).unwrap();
        assert!(lookups.poll().is_none() && !lookups.is_waiting());
        lookups.ask("127.0.0.1").unwrap();
        lookups.ask("127.0.0.1").unwrap();
        lookups.ask("no such name").unwrap();
        let (mut answers, mut ready) = (Vec::new(), Vec::new());
        while lookups.is_waiting() {
            poller.wait(&mut ready, Some(Duration::from_secs(30))).unwrap();
            assert_eq!(ready.len(), 1, "no answer wakes it");
            answers.extend(std::iter::from_fn(|| lookups.poll()));
        }
        answers.sort_by(|one, other| one.name.cmp(&other.name));
        let [first, second] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(*first.addresses.as_ref().unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(second.name == "no such name" && second.addresses.is_err());
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty(), "it wakes once");
    }

    #[test]
    fn no_more_names_than_it_holds_are_asked() {
        let mut lookups = Lookups::new().unwrap();
        for number in 0..100 {
            lookups.ask(&format!("127.0.0.{number}")).unwrap();
        }
        assert!(lookups.pending.len() <= NAMES_MAX);
    }
}
