//! The event loop: one thread that carries packets between the kernel and the core.
//!
//! [`client::run`](crate::client::run) and [`server::run`](crate::server::run) take a plan and a
//! [`Service`], make devices and sockets, run until a signal ends them, and undo everything.

pub(crate) mod cipher;
pub(crate) mod clock;
pub mod command;
mod copies;
pub(crate) mod event_loop;
pub(crate) mod events;
mod gathering;
mod moderation;
pub mod overhead;
pub mod plan;
pub mod reload;
pub(crate) mod setup;
pub(crate) mod sockets;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use self::command::{Command, Reply};
use crate::events::Happening;
use crate::status::Snapshot;

pub use self::event_loop::LoopError;
pub use self::setup::RunError;

/// The work of the rest of the program while the engine runs, on the engine's thread: it must not
/// block.
pub trait Service {
    /// A descriptor to wait for; an epoll instance ([`bonding_os::poll::Poller`]) where there are
    /// several. It stays the same for the life of the service.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// The descriptor is readable. Level-triggered: it is called again until it is not.
    fn handle_ready(&mut self, running: &mut dyn Running);
    /// The status interval has passed.
    fn handle_interval(&mut self, snapshot: &Snapshot);
    /// SIGHUP.
    fn handle_reload(&mut self, running: &mut dyn Running);
    /// The loop begins.
    fn handle_start(&mut self) {}
    /// How long until there is work for [`Self::handle_due`].
    fn due_in(&self) -> Option<Duration> {
        None
    }
    /// Does the work that is due now; called in every turn of the loop.
    fn handle_due(&mut self) {}
    /// Something happened that a person may ask about.
    fn handle_happening(&mut self, _happening: Happening) {}
    /// Whether readers are to be sent something; asked in every turn of the loop.
    fn is_push_due(&self) -> bool {
        false
    }
    /// Sends readers what is due.
    fn push(&mut self, _running: &mut dyn Running) {}
}

/// The running engine, for the questions and commands that a service gets.
pub trait Running {
    /// Everything known at this moment, at some cost.
    fn snapshot(&self) -> Snapshot;
    /// Carries a command out.
    ///
    /// # Errors
    /// The reason why it is not done, for a person.
    fn command(&mut self, command: Command) -> Result<Reply, String>;
}
