//! The control socket: how `bondctl` asks a running client or server.
//!
//! A Unix stream socket, mode 0600, in a folder of mode 0700 where it makes the folder. A request
//! is one line ([`Request`]), its answer one line of JSON; a connection may ask again. Unknown and
//! impossible requests are answered with `{"error":"…"}`.
//!
//! [`Control`] never blocks and needs no thread: it is one descriptor ([`AsFd`]) that is readable
//! when there is work, which [`Control::handle_ready`] then does. A long answer comes in portions
//! ([`Answers`]), each made when the reader has taken the one before: no answer is too long, and
//! none is kept whole. Connections and the length of a request are bounded. A connection that
//! exceeds them, or that takes nothing of an answer for some time, is closed. A subscriber is sent
//! figures and events by itself ([`Control::push`]); one that does not keep up misses figures, and
//! holds no other up. The module does not know what the answers mean. docs/control.md has the
//! protocol for people.

mod ask;
mod connection;
mod request;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bonding_os::poll::{Interest, Poller, Ready};
use socket2::{Domain, SockAddr, Socket, Type};

use self::connection::Connection;
use self::subscription::{Budget, Push};

pub use self::ask::{Ask, AskError};
pub use self::request::Request;

/// The version of the protocol. Fields and requests are added without another number.
pub const PROTOCOL: u32 = 1;

/// Connections at most. Chosen: more tools than run at once. The oldest connection makes room.
const CONNECTIONS_MAX: usize = 16;
/// Connections that wait to be accepted. Chosen: as many as are served.
const BACKLOG: i32 = 16;
/// The poller's token of the listening socket; connections have the following ones.
const LISTENER: u64 = 0;

/// The reason why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another instance answers there.
    #[error("another instance is running: it answers on {}; stop it first, or give this one another [status] socket", .0.display())]
    Running(PathBuf),
    /// A file that is not a socket has the name.
    #[error("{} exists and is not a socket; remove it, or choose another [status] socket", .0.display())]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("the control socket {} cannot be made: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion<R> {
    /// The text; all portions of an answer together are one line.
    pub text: String,
    /// What the next portion is made from; `None`: this is the last one.
    pub rest: Option<R>,
}

/// The side that answers requests.
pub trait Answers {
    /// What the next portion of an answer is made from.
    type Rest;
    /// The answer to a request, or its first portion.
    fn answer(&mut self, request: Request) -> Portion<Self::Rest>;
    /// The next portion of an answer.
    fn proceed(&mut self, rest: Self::Rest) -> Portion<Self::Rest>;
    /// The line of figures of this moment, for subscribers.
    fn figures(&mut self) -> String;
    /// The line of some events behind the one with this number, and the last one's number; `None`:
    /// there is none.
    fn events(&self, after: u64) -> Option<(String, u64)>;
}

/// The listening side; `R` is the rest of an answer that came in part.
pub struct Control<R> {
    listener: UnixListener,
    poller: Poller,
    ready: Vec<Ready>,
    connections: BTreeMap<u64, Connection<R>>,
    next_token: u64,
    budget: Budget,
    /// Held as long as the instance lives.
    _turn: File,
    path: PathBuf,
    /// Device and inode of the socket file: only this very file is removed at the end.
    identity: (u64, u64),
}

impl<R> Control<R> {
    /// Makes the socket, and its folder if need be. A file that a crash left behind is replaced.
    ///
    /// # Errors
    /// When another instance answers there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let io = |error: io::Error| ControlError::Io { path: path.to_owned(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        let turn = lock(path)?;
        remove_stale(path)?;
        let listener = listen(path).map_err(io)?;
        let made = std::fs::metadata(path).map_err(io)?;
        let poller = Poller::new().map_err(io)?;
        poller.add(&listener, LISTENER, Interest::Readable).map_err(io)?;
        Ok(Self {
            listener,
            poller,
            ready: Vec::new(),
            connections: BTreeMap::new(),
            next_token: LISTENER + 1,
            budget: Budget::default(),
            _turn: turn,
            path: path.to_owned(),
            identity: (made.dev(), made.ino()),
        })
    }

    /// Accepts connections, reads requests and answers them, all without waiting.
    pub fn handle_ready(&mut self, answers: &mut impl Answers<Rest = R>) {
        let mut ready = std::mem::take(&mut self.ready);
        if let Err(error) = self.poller.wait(&mut ready, Some(Duration::ZERO)) {
            tracing::debug!(%error, "control socket");
        }
        let now = Instant::now();
        for event in &ready {
            if event.token == LISTENER {
                self.accept(now);
            } else {
                self.serve(event.token, answers, now);
            }
        }
        self.ready = ready;
    }

    /// How long until there is work for [`Self::handle_due`] or [`Self::push`].
    pub fn due_in(&self) -> Option<Duration> {
        let ends = self.connections.values().filter_map(Connection::ends_at);
        let soonest = ends.chain(self.figures_at()).min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }

    /// When a subscriber is due figures.
    fn figures_at(&self) -> Option<Instant> {
        let due = |connection: &Connection<R>| {
            let at = connection.subscription()?.due_at()?;
            Some(if connection.owes() { at } else { self.budget.allows(at) })
        };
        self.connections.values().filter_map(due).min()
    }

    /// Whether there is work for [`Self::push`]; `newest` is the number of the newest event.
    pub fn is_push_due(&self, newest: u64) -> bool {
        let wants = |connection: &Connection<R>| {
            let subscription = connection.subscription().filter(|_| !connection.owes());
            subscription.is_some_and(|subscription| subscription.wants_events(newest))
        };
        self.connections.values().any(wants) || self.figures_at().is_some_and(|at| at <= Instant::now())
    }

    /// Sends subscribers what is due, without waiting.
    pub fn push(&mut self, answers: &mut impl Answers<Rest = R>) {
        let now = Instant::now();
        let answers = std::cell::RefCell::new(answers);
        let mut make = || answers.borrow_mut().figures();
        let events = |told| subscription::events_line(&**answers.borrow(), told);
        let mut push = Push::new(&mut make, &events, &mut self.budget);
        let poller = &self.poller;
        self.connections.retain(|token, connection| {
            if connection.subscription().is_none() {
                return true;
            }
            let waited = connection.interest();
            connection.push(&mut push, now).is_ok() && {
                let wanted = connection.interest();
                wanted == waited || poller.modify(connection, *token, wanted).is_ok()
            }
        });
    }

    /// Drops the readers that take nothing.
    pub fn handle_due(&mut self) {
        if self.connections.values().any(|connection| connection.ends_at().is_some()) {
            self.drop_readers(Instant::now());
        }
    }

    fn drop_readers(&mut self, now: Instant) {
        // Closing the descriptor takes it out of the poller.
        self.connections.retain(|_, connection| connection.ends_at().is_none_or(|at| at > now));
    }

    fn accept(&mut self, now: Instant) {
        // One at a time: the descriptor stays readable while there are more.
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.pop_first();
        }
        let token = self.next_token;
        self.next_token += 1;
        if self.poller.add(&stream, token, Interest::Readable).is_ok() {
            self.connections.insert(token, Connection::new(stream, now));
        }
    }

    fn serve(&mut self, token: u64, answers: &mut impl Answers<Rest = R>, now: Instant) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let waited = connection.interest();
        let kept = connection.handle_ready(answers, now).is_ok() && {
            let wanted = connection.interest();
            wanted == waited || self.poller.modify(connection, token, wanted).is_ok()
        };
        if !kept {
            self.connections.remove(&token);
        }
    }
}

/// The answer to a request that failed.
pub fn error(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

/// Removes the socket file of an instance that is gone.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let io = |error: io::Error| ControlError::Io { path: path.to_owned(), error };
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    if !file.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.to_owned()));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None).map_err(io)?;
    let address = SockAddr::unix(path).map_err(io)?;
    match probe.connect(&address) {
        // unix(7): no process listens on it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io(error)),
        // Connected, or its backlog is full.
        Ok(()) | Err(_) => Err(ControlError::Running(path.to_owned())),
    }
}

/// Of two instances that start at once only one goes on, so that neither removes the other's new
/// socket. The lock is a file that no other user can open, so that none can hold it, and it is not
/// waited for. It stays when the instance ends: a lock whose file is removed may be held twice.
fn lock(path: &Path) -> Result<File, ControlError> {
    let io = |error: io::Error| ControlError::Io { path: path.to_owned(), error };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW);
    let file = options.open(path.with_extension("lock")).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ControlError::Running(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

#[expect(clippy::cast_possible_wrap, reason = "a flag of open(2)")]
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// A listening socket that only its owner may use from its first moment: the mode is set before the
/// file exists.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

impl<R> AsFd for Control<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

impl<R> Drop for Control<R> {
    fn drop(&mut self) {
        let is_own =
            std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if is_own {
            // A file that cannot be removed now is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl<R> fmt::Debug for Control<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("path", &self.path)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
