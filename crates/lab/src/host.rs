//! A host of the lab: a network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::LabError;
use crate::requirements::search_path;

/// A host's place in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// Behind the links.
    Client,
    /// At the links' other end.
    Server,
    /// Behind the server; knows no address but those of its wire.
    Internet,
}

impl Host {
    /// All hosts.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Internet];

    /// The namespace's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Internet => "internet",
        }
    }
}

/// A running host: where to run programs.
#[derive(Debug, Clone, Copy)]
pub struct HostRef {
    host: Host,
}

impl HostRef {
    pub(crate) const fn new(host: Host) -> Self {
        Self { host }
    }

    /// The host it is.
    pub const fn host(self) -> Host {
        self.host
    }

    /// A command that runs `program` on this host. It is the process that is spawned: its id and
    /// its exit status are those of the program.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host.name()]).arg(program).env("PATH", search_path());
        command
    }

    /// Calls `work` on a thread of this host and gives its result. Sockets it opens stay on this
    /// host.
    ///
    /// # Errors
    /// When the host is gone.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                self.move_this_thread()
                    .map_err(LabError::io(format!("enter the host {}", self.host.name())))?;
                Ok(work())
            });
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn move_this_thread(self) -> io::Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.host.name()))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// Runs `command` to its end, with `input` on its standard input, and gives its standard output.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> Result<String, LabError> {
    use std::io::Write as _;
    let line = command_line(command);
    let run = |source| LabError::Run { program: line.clone(), source };
    let mut running = command_with_pipes(command, input.is_some()).map_err(run)?;
    if let (Some(text), Some(mut stdin)) = (input, running.stdin.take()) {
        // A program that ends without reading says why on its standard error.
        let _ = stdin.write_all(text.as_bytes());
    }
    let result = running.wait_with_output().map_err(run)?;
    let stdout = String::from_utf8_lossy(&result.stdout).into_owned();
    if result.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&result.stderr);
    let message = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
    Err(LabError::Failed { command: line, status: result.status.to_string(), message: message.to_owned() })
}

fn command_with_pipes(command: &mut Command, input: bool) -> io::Result<std::process::Child> {
    let stdin = if input { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// The command as a person would type it.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
