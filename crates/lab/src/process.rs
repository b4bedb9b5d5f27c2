//! A process that does not outlive its owner.

use std::io;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::LabError;

/// The time that a process has to end when asked to. Chosen: time to undo its changes to the
/// machine.
const GRACE: Duration = Duration::from_secs(5);
/// The time between two checks whether it has ended. Chosen: short beside a test.
const POLL: Duration = Duration::from_millis(10);

/// A running process. When dropped it is asked to end (SIGTERM), killed if it has not within five
/// seconds, and reaped.
#[derive(Debug)]
pub struct Process {
    /// Its standard input, if piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if piped.
    pub stderr: Option<ChildStderr>,
    pid: u32,
    child: Arc<Mutex<Child>>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, LabError> {
        let mut child =
            command.spawn().map_err(|source| LabError::Run { program: format!("{command:?}"), source })?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            pid: child.id(),
            child: Arc::new(Mutex::new(child)),
        })
    }

    /// Its process id, inside the sandbox.
    pub const fn id(&self) -> u32 {
        self.pid
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        lock(&self.child).try_wait()
    }

    /// Waits until it ends by itself, at most for `limit`; `None` if it runs on.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end, kills it if it has not within five seconds, and says how it ended.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn terminate(self) -> io::Result<ExitStatus> {
        terminate(&self.child)
    }

    /// Kills it without a warning, as a crash would.
    ///
    /// # Errors
    /// When the kernel does not tell how it ended.
    pub fn kill(self) -> io::Result<ExitStatus> {
        let mut child = lock(&self.child);
        child.kill()?;
        child.wait()
    }

    /// Sends it a signal; a process that has ended gets none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        signal_child(&mut lock(&self.child), signal)
    }

    /// A handle for the lab, which ends the process if its owner does not.
    pub(crate) fn watch(&self) -> Weak<Mutex<Child>> {
        Arc::downgrade(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failure cannot be reported from here.
        let _ = terminate(&self.child);
    }
}

/// Sends SIGTERM.
pub(crate) fn ask_to_end(child: &Mutex<Child>) -> io::Result<()> {
    signal_child(&mut lock(child), Signal::TERM)
}

/// Ends a process; see [`Process::terminate`].
pub(crate) fn terminate(child: &Mutex<Child>) -> io::Result<ExitStatus> {
    let mut child = lock(child);
    signal_child(&mut child, Signal::TERM)?;
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()
}

/// The id is the child's as long as it has not been waited for.
fn signal_child(child: &mut Child, signal: Signal) -> io::Result<()> {
    if child.try_wait()?.is_none() {
        kill_process(Pid::from_child(child), signal)?;
    }
    Ok(())
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
