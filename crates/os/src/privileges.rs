//! Checks the process's privileges, and reduces them after set-up.
//!
//! [`reduce`] drops for good all privileges that a running bond does not need. It keeps those for
//! the rest of its life: addresses and routes of the tunnel, and at the end the settings to restore
//! and nft(8) (CAP_NET_ADMIN); for a client, sockets bound to a device (CAP_NET_RAW). Files must
//! then be writable by this user, even for root.
//!
//! Sources: capabilities(7); prctl(2); proc(5) `/proc/[pid]/status`; user_namespaces(7);
//! sched_setattr(2), and `custom_slice` and `PREEMPT_SHORT` in Linux's kernel/sched/fair.c.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// The missing capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is needed for TUN devices, routes and bound sockets; run as root", .missing.join(" and "))]
pub struct Unprivileged {
    /// Their names, as capabilities(7) has them.
    pub missing: Vec<&'static str>,
}

/// The capabilities that a process needs for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// CAP_NET_ADMIN: devices, routes, nftables.
    Network,
    /// CAP_NET_RAW (SO_BINDTODEVICE) as well.
    NetworkAndBoundSockets,
}

impl Rights {
    const fn set(self) -> CapabilitySet {
        match self {
            Self::Network => CapabilitySet::NET_ADMIN,
            Self::NetworkAndBoundSockets => CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW),
        }
    }
}

/// By the names of capabilities(7).
const NAMES: [(&str, CapabilitySet); 2] =
    [("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN), ("CAP_NET_RAW", CapabilitySet::NET_RAW)];

/// Checks for the needed capabilities.
pub fn check(rights: Rights) -> Result<(), Unprivileged> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status, rights);
    if missing.is_empty() { Ok(()) } else { Err(Unprivileged { missing }) }
}

/// Lets this process open as many files as it may: each TCP connection that ends at the bond is
/// one. The usual limit (1,024) is a default for programs that use select(2).
pub fn raise_file_limit() -> io::Result<()> {
    let limit = process::getrlimit(process::Resource::Nofile);
    Ok(process::setrlimit(process::Resource::Nofile, process::Rlimit { current: limit.maximum, ..limit })?)
}

/// Keeps the memory of this process to itself: other processes of its user cannot look into it, and
/// no core file is written, which would hold keys.
pub fn hide_memory() -> io::Result<()> {
    process::set_dumpable_behavior(process::DumpableBehavior::NotDumpable)?;
    let none = process::Rlimit { current: Some(0), maximum: Some(0) };
    Ok(process::setrlimit(process::Resource::Core, none)?)
}

/// The bond's nice value. Chosen: that of a sound server.
const NICE: i32 = -10;

/// The requested time slice of the processor: the least that Linux grants. A process with a shorter
/// slice than the running program may interrupt that program when it wakes (Linux 6.12 and later);
/// otherwise it waits for the end of that program's turn or the next tick. Measured:
/// docs/decisions/0076-scheduling-of-the-process.md.
const SLICE: Duration = Duration::from_micros(100);

/// The kernel weighs sessions against each other before the processes within them (sched(7), "The
/// autogroup feature").
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Runs this process before ordinary ones, and soon after it wakes, since all packets wait while it
/// waits. Without the right to do so (for example in a user namespace) nothing changes, which costs
/// latency on a busy machine. The leader of a session, as every systemd service is, raises its
/// session too: a priority counts only within a session. Measured:
/// docs/decisions/0076-scheduling-of-the-process.md.
///
/// Priorities belong to threads: to be called while there is only one.
pub fn raise_priority() {
    let nice = process::getpriority_process(None).unwrap_or(0);
    let raised = nice.min(NICE);
    let nice = match process::setpriority_process(None, raised) {
        Ok(()) => raised,
        Err(error) => {
            tracing::debug!(%error, "runs at ordinary priority");
            nice
        }
    };
    if leads_session()
        && let Err(error) = fs::write(AUTOGROUP, NICE.to_string())
    {
        tracing::debug!(%error, "its session has ordinary priority");
    }
    if let Err(error) = set_slice(nice, SLICE) {
        tracing::debug!(%error, "asks for the usual share of time at once");
    }
}

/// Whether this process leads its session. In a process namespace whose session began outside, the
/// leader has no number: the kernel returns 0, which rustix takes for impossible.
#[expect(unsafe_code, reason = "rustix panics where the session's leader is outside of the namespace")]
fn leads_session() -> bool {
    // SAFETY: getsid(2) and getpid(2) take no pointers and change nothing.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// Requests `slice` of the processor at a time, at this thread's priority `nice`.
#[expect(unsafe_code, reason = "libc has no wrapper for this system call")]
fn set_slice(nice: i32, slice: Duration) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: u64::try_from(slice.as_nanos()).map_err(io::Error::other)?,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads `size` bytes at the pointer, which are there and initialised,
    // and keeps nothing.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Drops every capability but those of `rights`, for this process and its children, and all ways to
/// regain one; inside a user namespace as well.
///
/// Capabilities belong to threads: to be called while there is only one.
///
/// # Errors
/// If the kernel refuses; capabilities dropped until then stay dropped.
pub fn reduce(rights: Rights) -> io::Result<()> {
    let needed = rights.set();
    // The bounding set first: it takes CAP_SETPCAP, which goes with the next step. A service
    // manager that keeps us without that capability has set the bounds itself.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if needed.contains(capability) {
            continue;
        }
        // EINVAL: a capability that this kernel does not know.
        let bounded = thread::capability_is_in_bounding_set(capability).unwrap_or(false);
        if bounded && let Err(error) = thread::remove_capability_from_bounding_set(capability) {
            tracing::debug!(%error, "the bounding set stays as it is");
            break;
        }
    }
    if process::geteuid().is_root() {
        thread::clear_ambient_capability_set()?;
    }
    let now = thread::capabilities(None)?;
    let kept = now.permitted.intersection(needed);
    // Inheritable, because the ambient set is a part of it: an ordinary user's nft(8) has its
    // rights from there.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    // A service manager that gave exactly these may forbid the call.
    if now != sets {
        thread::set_capabilities(None, sets)?;
    }
    thread::set_no_new_privs(true)?;
    Ok(())
}

fn missing(status: &str, rights: Rights) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Without a proc file system the capabilities are unknown: the kernel will refuse if needed.
    let Some(effective) = effective else { return Vec::new() };
    let lacks = rights.set().difference(CapabilitySet::from_bits_retain(effective));
    NAMES.iter().filter(|(_, one)| lacks.contains(*one)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older kernels take the request and ignore it.
    #[test]
    fn the_kernel_takes_the_slice() {
        let nice = process::getpriority_process(None).unwrap();
        set_slice(nice, SLICE).unwrap();
    }

    #[test]
    fn a_session_leader_is_known() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // Behind the program's name, which may hold anything: state, parent, group, session.
        let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
        assert_eq!(leads_session(), session == std::process::id().to_string());
    }

    #[test]
    fn memory_is_hidden() {
        hide_memory().unwrap();
        assert_eq!(process::dumpable_behavior().unwrap(), process::DumpableBehavior::NotDumpable);
        assert_eq!(process::getrlimit(process::Resource::Core).maximum, Some(0));
        raise_file_limit().unwrap();
        let files = process::getrlimit(process::Resource::Nofile);
        assert_eq!(files.current, files.maximum);
    }

    #[test]
    fn reads_the_effective_set() {
        let both = Rights::NetworkAndBoundSockets;
        assert_eq!(missing("CapPrm:\t0\nCapEff:\t000001ffffffffff\n", both), [""; 0]);
        assert_eq!(missing("CapEff:\t0000000000000000\n", both), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(missing("CapEff:\t0000000000001000\n", both), ["CAP_NET_RAW"]);
        assert_eq!(missing("CapEff:\t0000000000001000\n", Rights::Network), [""; 0]);
        assert_eq!(
            Unprivileged { missing: vec!["CAP_NET_RAW"] }.to_string(),
            "CAP_NET_RAW is needed for TUN devices, routes and bound sockets; run as root"
        );
    }
}
