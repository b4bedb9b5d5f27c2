//! A notification about the virtual machine's generation, as the kernel sends it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of the helpers")]
mod common;

use std::time::Duration;

use bonding_os::generation::Generation;
use bonding_os::poll::{Interest, Poller};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};

/// To all that listen in this network namespace. A process may, with CAP_NET_ADMIN.
fn notify(text: &str) {
    let socket = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(KOBJECT_UEVENT)).unwrap();
    let bytes = text.replace(' ', "\0");
    sendto(&socket, bytes.as_bytes(), SendFlags::empty(), &SocketAddrNetlink::new(0, 1)).unwrap();
}

#[test]
fn a_new_generation_makes_the_descriptor_readable() {
    common::sandboxed("a_new_generation_makes_the_descriptor_readable", || {
        let mut generation = Generation::open().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&generation, 7, Interest::Readable).unwrap();
        let mut is_ready = |wait| {
            let mut ready = Vec::new();
            poller.wait(&mut ready, Some(wait)).unwrap();
            ready.iter().any(|ready| ready.token == 7)
        };
        assert!(!is_ready(Duration::ZERO) && !generation.has_changed().unwrap());
        notify("change@/devices/platform/VMGENCTR:00 ACTION=change NEW_VMGENID=1 SEQNUM=9 ");
        notify("add@/devices/virtual/net/eth0 ACTION=add SEQNUM=10 ");
        assert!(is_ready(Duration::from_secs(5)) && generation.has_changed().unwrap());
        assert!(!is_ready(Duration::ZERO) && !generation.has_changed().unwrap());
        // The kernel's own, about devices of this namespace.
        common::run(&["ip", "link", "add", "one", "type", "veth", "peer", "name", "other"]);
        assert!(is_ready(Duration::from_secs(5)) && !generation.has_changed().unwrap());
    });
}
