//! Watches network interfaces: their existence, their ability to carry packets, and their
//! addresses.
//!
//! Contract: a readable descriptor; when it is ready, [`Monitor::handle_ready`] gives the
//! interfaces that changed. The table is always complete: when notifications were lost it is read
//! anew and compared.
//!
//! Source: rtnetlink(7).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::netlink::{self, Interface, NetlinkError, Requests};

/// A change of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceEvent {
    /// The interface appeared, or its state, MTU or addresses changed to these.
    Changed(Interface),
    /// The interface is gone or renamed; this is its last state.
    Removed(Interface),
}

/// The table of interfaces, kept up to date.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    table: BTreeMap<u32, Interface>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Starts to watch; the table is complete when this returns.
    pub fn open() -> Result<Self, MonitorError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        // After the subscription, so that no change is missed between the two.
        let table = Requests::open()?.interfaces()?;
        Ok(Self { socket, table, buffer: Vec::with_capacity(netlink::RECEIVE_BYTES) })
    }

    /// From now on the descriptor is ready, too, when routes or the rules of the routing policy
    /// changed. [`Self::handle_ready`] does not tell which.
    pub fn watch_routes(&mut self) -> Result<(), MonitorError> {
        for group in [
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
        ] {
            self.socket.add_membership(group)?;
        }
        Ok(())
    }

    /// The interface of that name, or else the one that goes by it.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        let named = self.table.values().find(|interface| interface.name == name);
        named.or_else(|| self.table.values().find(|interface| interface.is_called(name)))
    }

    /// Every interface, by index.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.table.values()
    }

    /// Reads the pending notifications. Returns the changed interfaces, each once.
    pub fn handle_ready(&mut self) -> Result<Vec<InterfaceEvent>, MonitorError> {
        let before = self.table.clone();
        let mut lost = false;
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => netlink::decode(&self.buffer, |message| {
                    if let NetlinkPayload::InnerMessage(inner) = &message.payload {
                        netlink::apply(&mut self.table, inner);
                    }
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // netlink(7): notifications were dropped.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error.into()),
            }
        }
        if lost {
            self.table = Requests::open()?.interfaces()?;
        }
        Ok(changes(&before, &self.table))
    }
}

fn changes(before: &BTreeMap<u32, Interface>, after: &BTreeMap<u32, Interface>) -> Vec<InterfaceEvent> {
    let gone = before.values().filter(|old| after.get(&old.index).is_none_or(|new| new.name != old.name));
    let changed = after.values().filter(|new| before.get(&new.index) != Some(new));
    gone.cloned().map(InterfaceEvent::Removed).chain(changed.cloned().map(InterfaceEvent::Changed)).collect()
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The reason why the interfaces cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the network interfaces: {0}")]
pub enum MonitorError {
    /// The notification socket failed.
    Socket(#[from] io::Error),
    /// The table could not be read.
    Netlink(#[from] NetlinkError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, usable: bool) -> (u32, Interface) {
        (index, Interface { index, name: name.to_owned(), usable, ..Interface::default() })
    }

    #[test]
    fn tells_apart_changed_renamed_and_removed() {
        let before = BTreeMap::from([
            interface(1, "lo", true),
            interface(2, "wg0", true),
            interface(3, "a", true),
            interface(4, "b", true),
        ]);
        let after = BTreeMap::from([
            interface(1, "lo", true),
            interface(2, "wg0", false),
            interface(3, "c", true),
            interface(5, "b", true),
        ]);
        let removed = |(_, interface)| InterfaceEvent::Removed(interface);
        let changed = |(_, interface)| InterfaceEvent::Changed(interface);
        assert_eq!(
            changes(&before, &after),
            [
                removed(interface(3, "a", true)),
                removed(interface(4, "b", true)),
                changed(interface(2, "wg0", false)),
                changed(interface(3, "c", true)),
                changed(interface(5, "b", true)),
            ]
        );
    }
}
