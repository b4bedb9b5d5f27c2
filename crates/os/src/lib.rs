//! Linux, as far as a bond needs it: a TUN device with offloads, connections redirected from it to
//! a listener ([`hairpin`]), UDP sockets with GSO and GRO bound to a link's interface, a monitor of
//! interfaces, routes, forwarding and NAT, signals, and a poller with deadlines in nanoseconds.
//!
//! The modules are thin layers over the kernel or a maintained crate. They do not know frames,
//! sessions or configuration files. The crate undoes its changes of the machine when their owner is
//! dropped. After a crash, the next start undoes them from a state file ([`undo`]).
//!
//! This is the only crate of the workspace in which `unsafe` is allowed: by `expect` on one
//! function, with a SAFETY comment.

pub mod address;
pub mod capture;
mod checksum;
pub mod clocks;
pub mod coalesce;
pub mod generation;
pub mod hairpin;
pub mod monitor;
pub mod nat;
pub mod netlink;
pub mod notify;
pub mod poll;
pub mod privileges;
pub mod reverse_path;
pub mod signals;
pub mod slab;
mod split;
pub mod throttle;
pub mod tun;
pub mod udp;
pub mod undo;
mod virtio;
pub mod way;

pub use address::Cidr;

/// A random number from the kernel.
pub fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let count = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes are never cut short.
    debug_assert_eq!(count, bytes.len());
    Ok(u64::from_ne_bytes(bytes))
}
