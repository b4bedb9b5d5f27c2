//! Namespaces of the process, whose contents end with it.
//!
//! [`enter`] runs the program again inside new network, mount and process-id namespaces, and, for a
//! plain user, a user namespace in which it is root. The kernel removes the devices, routes,
//! firewall tables, mounts and processes of the namespaces when the last process is gone, and the
//! last process ends with the first, also when that is killed.
//!
//! ```text
//! program ──► (unshare) program, new namespaces ──► init, process 1 ──► program: enter() returns
//!  waits, hands signals on      waits                reaps, hands on      the real work
//! ```
//!
//! Each of the three that wait dies with the one before it (`PR_SET_PDEATHSIG`), and with process 1
//! the kernel kills all. Exit codes come back unchanged; death by signal N comes back as 128 + N,
//! as a shell reports it. SIGTERM and SIGHUP are handed on. SIGINT is handed on unless the terminal
//! sent it, since then every process in the foreground has it already.
//!
//! Inside, `/proc` shows the sandbox's processes and `/run` is empty.

use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::requirements::find;

/// The stage of a process on its way into the sandbox.
const STAGE: &str = "BONDING_LAB_SANDBOX";

/// The reason why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The TUN device cannot be opened.
    #[error("sudo is needed: this user may not open /dev/net/tun ({0})")]
    TunDenied(io::Error),
    /// The kernel has no TUN device.
    #[error("the kernel offers no /dev/net/tun ({0}): try `sudo modprobe tun`")]
    NoTun(io::Error),
    /// The kernel refuses namespaces to this user.
    #[error("sudo is needed: this kernel refuses namespaces to plain users ({0})")]
    NamespacesDenied(String),
    /// The kernel refuses namespaces even to root, as inside most containers.
    #[error(
        "this system refuses network namespaces even to root ({0}); in a container, give it CAP_SYS_ADMIN and CAP_NET_ADMIN"
    )]
    NamespacesRefused(String),
    /// `unshare` is missing.
    #[error("missing: unshare; install with: apt-get install util-linux")]
    NoUnshare,
    /// A step failed.
    #[error("cannot set up the sandbox: {step}: {source}")]
    Step {
        /// The step.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Step { step, source }
}

/// Whether this process is in a sandbox.
pub fn is_inside() -> bool {
    env::var_os(STAGE).is_some_and(|stage| stage == "inside")
}

/// Continues in a sandbox. Call it first thing, before there are threads, files or output.
///
/// Returns once inside. The process that called it first never returns: it waits for the process
/// inside and exits with its code. The program is run again with the same arguments and
/// environment.
///
/// # Errors
/// When the system permits no sandbox; the message says in one line what is missing.
pub fn enter() -> Result<(), SandboxError> {
    let stage = env::var(STAGE).unwrap_or_default();
    match stage.as_str() {
        "inside" => Ok(()),
        "init" => init(),
        "" => outside(),
        unshared => spawn_init(unshared),
    }
}

/// The process that the user started: checks the requirements, then runs itself in new namespaces.
fn outside() -> Result<(), SandboxError> {
    check_tun()?;
    let unshare = find("unshare").ok_or(SandboxError::NoUnshare)?;
    let root = rustix::process::geteuid().is_root();
    let mut flags = vec!["--net", "--mount", "--pid"];
    if !root {
        flags.extend(["--user", "--map-root-user"]);
    }
    // A dry run first: its failure is the kernel's refusal, not the program's.
    let probe =
        Command::new(&unshare).args(&flags).args(["--fork", "true"]).output().map_err(step("run unshare"))?;
    if !probe.status.success() {
        let message = String::from_utf8_lossy(&probe.stderr).trim().replace('\n', "; ");
        return Err(if root {
            SandboxError::NamespacesRefused(message)
        } else {
            SandboxError::NamespacesDenied(message)
        });
    }
    let mut command = Command::new(unshare);
    command.args(flags).arg("--").arg(env::current_exe().map_err(step("find this program"))?);
    supervise(command, &std::process::id().to_string())
}

fn check_tun() -> Result<(), SandboxError> {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(SandboxError::TunDenied(error)),
        Err(error) => Err(SandboxError::NoTun(error)),
    }
}

/// In the new namespaces, except that of process ids, which begins with the next process.
fn spawn_init(parent: &str) -> Result<(), SandboxError> {
    die_with_parent()?;
    let alive =
        rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().get().to_string() == parent);
    if !alive {
        std::process::exit(1);
    }
    supervise(Command::new(env::current_exe().map_err(step("find this program"))?), "init")
}

/// Process 1: mounts its own `/proc` and `/run`, runs the program, and reaps orphans.
fn init() -> Result<(), SandboxError> {
    die_with_parent()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(|error| step("mount /proc")(error.into()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/run", "tmpfs", flags, None).map_err(|error| step("mount /run")(error.into()))?;
    supervise(Command::new(env::current_exe().map_err(step("find this program"))?), "inside")
}

/// Runs `command` with this program's arguments at `stage`, hands signals on to it, reaps every
/// process that ends, and exits with its code.
///
/// All on one thread: after `unshare --pid` the kernel permits no other.
fn supervise(mut command: Command, stage: &str) -> Result<(), SandboxError> {
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM, SIGHUP]).map_err(step("listen to signals"))?;
    let child =
        command.args(env::args_os().skip(1)).env(STAGE, stage).spawn().map_err(step("run this program"))?;
    let pid = Pid::from_child(&child);
    for number in signals.forever() {
        match Signal::from_named_raw(number) {
            Some(Signal::CHILD) => reap(pid)?,
            Some(Signal::INT) if in_foreground() => {}
            Some(signal) => {
                // It may just have ended.
                let _ = kill_process(pid, signal);
            }
            None => {}
        }
    }
    Ok(())
}

/// Reaps the processes that have ended; exits if the program is one of them.
fn reap(program: Pid) -> Result<(), SandboxError> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => {
                std::process::exit(exit_code(ExitStatus::from_raw(status.as_raw())));
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(step("wait for the program")(error.into())),
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn die_with_parent() -> Result<(), SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| step("bind to the parent's life")(error.into()))
}

/// Whether the terminal sends its signals to this process, and so to all of the sandbox.
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(rustix::stdio::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
