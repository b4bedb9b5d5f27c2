//! Whether this process may do what a bond does, and that it may do no more once it is set up.
//!
//! [`reduce`] gives up for good what a running bond does not need. What is left carries the rest of a life: sockets bound to
//! a device (CAP_NET_RAW), addresses and routes of the tunnel, the settings that are put back and nft(8) at the end
//! (CAP_NET_ADMIN). Files are then those that this user may write, even for root.
//!
//! Sources: capabilities(7); prctl(2); proc(5) `/proc/[pid]/status`; user_namespaces(7); sched_setattr(2), and `custom_slice` and
//! `PREEMPT_SHORT` in Linux's kernel/sched/fair.c.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Which capabilities are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is needed for TUN devices, routes and bound sockets; run as root", .missing.join(" and "))]
pub struct Unprivileged {
    /// Their names, as capabilities(7) has them.
    pub missing: Vec<&'static str>,
}

/// The bits of capabilities(7).
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

/// Checks for what is needed: CAP_NET_ADMIN (devices, routes, nftables) and CAP_NET_RAW (SO_BINDTODEVICE).
pub fn check() -> Result<(), Unprivileged> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status);
    if missing.is_empty() { Ok(()) } else { Err(Unprivileged { missing }) }
}

/// How far above ordinary programs a bond runs: as far as a sound server, say.
const NICE: i32 = -10;

/// What is asked for at a time of the processor: the least that Linux grants. Whoever asks for less than the program that runs may interrupt it
/// when it wakes (Linux 6.12 and later); else it waits for that one's turn to end, or for the next tick. Measured on two
/// processors busy with compilers, and a timer of 2 ms: 99 % of wake-ups late by at most 1.3 to 2.6 ms, against 3.8 to 4.4 ms with the usual
/// slice of 1.4 ms.
const SLICE: Duration = Duration::from_micros(100);

/// The kernel weighs sessions against each other before it looks at what is in them (sched(7), "The autogroup feature").
const AUTOGROUP: &str = "/proc/self/autogroup";

/// Runs this process before ordinary ones, and soon after it wakes: packets of everybody wait while it waits. Without the
/// right to (a user namespace, say) it stays as it is, which costs latency on a busy machine and nothing else. As the leader of a session,
/// as every systemd service is, it takes the session with it: a priority counts only within one. (Measured as below, the compilers in other
/// sessions: half of the wake-ups late by 0.1 to 0.5 ms at nice -10 alone, by 25 µs where the session's is -20.)
///
/// Priority belongs to threads: to be called while there is only one.
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

/// Whether this process leads its session. In a process namespace whose session began outside of it the leader has no number, 0 is what the
/// kernel says then, and rustix takes that for impossible.
#[expect(unsafe_code, reason = "rustix panics where the session's leader is outside of the namespace")]
fn leads_session() -> bool {
    // SAFETY: getsid(2) and getpid(2) take no pointers and change nothing.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// Asks for `slice` of the processor at a time, at the priority `nice` that this thread has.
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
    // SAFETY: sched_setattr(2) reads `size` bytes at the pointer, which are there and initialised, and keeps nothing.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a bond keeps.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Gives up every capability but CAP_NET_ADMIN and CAP_NET_RAW, for this process and what it starts, and all ways to get
/// one back. Inside a user namespace as well: what is given up is what the namespace gave.
///
/// Capabilities belong to threads: to be called while there is only one.
///
/// # Errors
/// When the kernel refuses; what was given up until then stays so.
pub fn reduce() -> io::Result<()> {
    // The bounding set first: it takes CAP_SETPCAP, which goes with the next step. A service manager that keeps us without
    // that capability has set the bounds itself.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(capability) {
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
    let kept = now.permitted.intersection(KEPT);
    // Inheritable, because the ambient set is a part of it: an ordinary user's nft(8) has its rights from there.
    thread::set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
    thread::set_no_new_privs(true)?;
    Ok(())
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Without a proc file system nothing can be told: then let the kernel refuse.
    let Some(effective) = effective else { return Vec::new() };
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
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
    fn reads_the_effective_set() {
        assert_eq!(missing("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(missing("CapEff:\t0000000000001000\n"), ["CAP_NET_RAW"]);
        assert_eq!(
            Unprivileged { missing: vec!["CAP_NET_RAW"] }.to_string(),
            "CAP_NET_RAW is needed for TUN devices, routes and bound sockets; run as root"
        );
    }
}
