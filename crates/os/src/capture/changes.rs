//! Learns that rules of the routing policy came or went, by any program's hand.
//!
//! Contract: a readable descriptor; when it is ready, [`RuleChanges::read`] takes what is pending.
//! A notification that was lost counts as a change.
//!
//! Source: rtnetlink(7), `RTNLGRP_IPV4_RULE`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::netlink;

/// The notifications of both families.
#[derive(Debug)]
pub(super) struct RuleChanges {
    socket: Socket,
    buffer: Vec<u8>,
}

impl RuleChanges {
    /// Starts to listen.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in [libc::RTNLGRP_IPV4_RULE, libc::RTNLGRP_IPV6_RULE] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(netlink::RECEIVE_BYTES) })
    }

    /// Whether rules changed since the last call.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                // Only the kernel's count.
                Ok((_, sender)) => changed |= sender.port_number() == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // netlink(7): notifications were dropped.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for RuleChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
