//! Linux, as far as a bond needs it: a TUN device with offloads, UDP sockets with GSO and GRO bound to a link's
//! interface, a monitor of interfaces, routes, forwarding and NAT, signals, and a poller that waits in
//! nanoseconds.
//!
//! Everything here is a thin shell around the kernel or a well-kept crate. Nothing here knows a frame, a session or
//! a configuration file. What this crate changes on a machine it undoes when dropped, and what a crash left
//! behind is undone at the next start from a state file ([`undo`]).
//!
//! The one crate of the workspace where `unsafe` is allowed: narrowly, by `expect` on one function, with a SAFETY
//! comment.

pub mod address;
mod checksum;
pub mod coalesce;
pub mod monitor;
pub mod nat;
pub mod netlink;
pub mod poll;
pub mod privileges;
pub mod signals;
pub mod slab;
mod split;
pub mod throttle;
pub mod tun;
pub mod udp;
pub mod undo;
mod virtio;

pub use address::Cidr;

/// A number nobody can guess, from the kernel.
pub fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes are never cut short.
    debug_assert_eq!(count, bytes.len());
    Ok(u64::from_ne_bytes(bytes))
}
