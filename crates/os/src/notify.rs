//! Tells the service manager that the program runs, and goes on running.
//!
//! Contract: nothing happens where no service manager waits. The calls do not block; a message that
//! does not fit is lost, and the next one follows.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// Half of the time after which the manager takes a silent program for dead.
    interval: Option<Duration>,
    next: Instant,
}

impl Notifier {
    /// As the environment says; `None`: no service manager waits for this process.
    ///
    /// # Errors
    /// When the environment names no usable socket.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let manager = match name.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|_| is_ours).map(Duration::from_micros);
        Ok(Some(Self { socket, manager, interval: patience.map(|all| all / 2), next: Instant::now() }))
    }

    /// The program does its work.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// How long until [`Self::alive`] is due.
    pub fn due_in(&self) -> Option<Duration> {
        self.interval.map(|_| self.next.saturating_duration_since(Instant::now()))
    }

    /// To be called in every turn of the program's loop.
    pub fn alive(&mut self) {
        if let Some(interval) = self.interval.filter(|_| self.due_in() == Some(Duration::ZERO)) {
            self.next = Instant::now() + interval;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.manager) {
            tracing::debug!(%error, state, "the service manager was not told");
        }
    }
}
