//! Learns that this machine is a copy of an earlier state of itself: the hypervisor gave the
//! virtual machine another generation, as after a restore or for a clone.
//!
//! Contract: a readable descriptor; when it is ready, [`Generation::has_changed`] takes the pending
//! notifications. The kernel tells of all its devices over the same socket, and of this one in
//! words that its driver chose. Only the kernel and processes with CAP_NET_ADMIN can send there.
//!
//! What it does not see: kernels before 6.10, machines without such a device, and network
//! namespaces in user namespaces tell nothing. Where the socket overflows, a notification is lost.
//!
//! Sources: netlink(7), `NETLINK_KOBJECT_UEVENT`; drivers/virt/vmgenid.c and
//! lib/kobject_uevent.c of Linux.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};

use crate::netlink;

/// The group of the kernel's own notifications; udev passes them on to another.
const KERNEL_GROUP: u32 = 1;
/// The driver's variable.
const CHANGED: &[u8] = b"NEW_VMGENID=1";

/// The kernel's notifications about devices.
#[derive(Debug)]
pub struct Generation {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Generation {
    /// Starts to listen.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(netlink::RECEIVE_BYTES) })
    }

    /// Reads the pending notifications. Whether the generation changed.
    pub fn has_changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                Ok(_) => changed |= tells(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // netlink(7): notifications were dropped, most likely about other devices.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a notification tells of another generation: `change@PATH`, then variables, each ended by
/// a zero byte.
fn tells(notification: &[u8]) -> bool {
    let mut fields = notification.split(|byte| *byte == 0);
    fields.next().is_some_and(|head| head.starts_with(b"change@")) && fields.any(|field| field == CHANGED)
}

impl AsFd for Generation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_and_one_variable_tell() {
        let of = |text: &str| tells(text.replace(' ', "\0").as_bytes());
        let path = "/devices/platform/VMGENCTR:00";
        assert!(of(&format!("change@{path} ACTION=change DEVPATH={path} NEW_VMGENID=1 SEQNUM=812 ")));
        assert!(!of(&format!("change@{path} ACTION=change DEVPATH={path} SEQNUM=812 ")));
        // A person that writes to the device's file `uevent`.
        assert!(!of(&format!("change@{path} ACTION=change SYNTH_ARG_NEW_VMGENID=1 SEQNUM=813 ")));
        assert!(!of(&format!("add@{path} ACTION=add NEW_VMGENID=1 SEQNUM=3 ")));
        assert!(!of("change@/devices/NEW_VMGENID=1 ACTION=change "));
        assert!(!tells(b""));
    }
}
