//! The monitor, sockets bound to interfaces, and NAT, on real interfaces.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bonding_os::coalesce::Outbound;
use bonding_os::monitor::{InterfaceEvent, Monitor};
use bonding_os::nat::{Masquerade, Nat, NatConfig, Reach};
use bonding_os::netlink::Requests;
use bonding_os::poll::{Interest, Poller};
use bonding_os::privileges::{self, Rights};
use bonding_os::tun::{Tun, TunConfig};
use bonding_os::udp::{Batch, ReceiveBuffers, Sent, UdpConfig, UdpSocket};
use bonding_os::undo::{self, Journal};
use common::{run, sandboxed};
use socket2::{Domain, Protocol, Socket, Type};

fn veth() {
    run(&["ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"]);
    run(&["ip", "link", "set", "va", "up"]);
    run(&["ip", "link", "set", "vb", "up"]);
}

/// Handles notifications until `done`.
fn watch(monitor: &mut Monitor, mut done: impl FnMut(&Monitor, &[InterfaceEvent]) -> bool) {
    let mut poller = Poller::new().unwrap();
    poller.add(&*monitor, 0, Interest::Readable).unwrap();
    let mut ready = Vec::new();
    let mut events = Vec::new();
    while !done(monitor, &events) {
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert!(!ready.is_empty(), "no notification within 5 s; so far {events:?}");
        events.extend(monitor.handle_ready().unwrap());
    }
}

#[test]
fn the_monitor_follows_interfaces() {
    sandboxed("the_monitor_follows_interfaces", || {
        let mut monitor = Monitor::open().unwrap();
        assert!(monitor.interface("va").is_none());
        veth();
        run(&["ip", "addr", "add", "10.7.0.1/24", "dev", "va"]);
        let usable = |monitor: &Monitor| monitor.interface("va").is_some_and(|interface| interface.usable);
        watch(&mut monitor, |monitor, _| {
            usable(monitor) && monitor.interface("va").unwrap().addresses.iter().any(|a| a.length() == 24)
        });
        let index = monitor.interface("va").unwrap().index;

        // The other end goes down: no carrier.
        run(&["ip", "link", "set", "vb", "down"]);
        watch(&mut monitor, |monitor, _| !usable(monitor));
        run(&["ip", "link", "set", "vb", "up"]);
        watch(&mut monitor, |monitor, _| usable(monitor));

        run(&["ip", "link", "del", "va"]);
        watch(&mut monitor, |monitor, events| {
            monitor.interface("va").is_none()
                && events.iter().any(|event| {
                    matches!(event, InterfaceEvent::Removed(gone) if gone.index == index && gone.name == "va")
                })
        });
    });
}

#[test]
fn a_socket_uses_its_interface_only() {
    sandboxed("a_socket_uses_its_interface_only", || {
        veth();
        run(&["ip", "addr", "add", "10.7.0.1/24", "dev", "va"]);
        // The routing table sends an own address to `lo`; the bound socket uses `va`.
        run(&["ip", "neigh", "add", "10.7.0.2", "lladdr", "02:00:00:00:00:09", "dev", "va"]);
        let mut capture = capture("vb");
        let config = UdpConfig { bind: "0.0.0.0:0".parse().unwrap(), interface: Some("va".to_owned()) };
        let mut socket = UdpSocket::bind(&config).unwrap();
        let remote: SocketAddr = "10.7.0.2:9".parse().unwrap();
        let contents = vec![7; 3000];
        let batch = Batch { remote, local: None, contents: &contents, segment_size: 1000, is_ect: false };
        assert_eq!(socket.send(&batch), Sent::Done);
        let packet = receive_ipv4(&mut capture, |packet| packet[9] == 17);
        assert_eq!(packet[16..20], [10, 7, 0, 2]);
        assert_eq!(packet[6] & 0x40, 0x40, "may be fragmented on the way");

        // Larger than the interface carries: lost and counted, and the offload stays.
        run(&["ip", "link", "set", "va", "mtu", "800"]);
        assert_eq!(socket.send(&batch), Sent::Done);
        let counters = socket.counters();
        assert_eq!((counters.sent, counters.send_errors, counters.too_big), (3, 3, 3));
        assert_eq!(socket.max_segments().get(), 64);
        run(&["ip", "link", "set", "va", "mtu", "1500"]);
        assert_eq!(socket.send(&batch), Sent::Done);
        assert_eq!(socket.counters().sent, 6);

        // The sender does not fragment IPv6 either.
        run(&["ip", "addr", "add", "fd07::1/64", "dev", "va", "nodad"]);
        run(&["ip", "-6", "neigh", "add", "fd07::2", "lladdr", "02:00:00:00:00:09", "dev", "va"]);
        run(&["ip", "link", "set", "va", "mtu", "1300"]);
        let config = UdpConfig { bind: "[::]:0".parse().unwrap(), interface: Some("va".to_owned()) };
        let mut dual = UdpSocket::bind(&config).unwrap();
        for remote in ["[fd07::2]:9", "10.7.0.2:9"] {
            for (size, too_big) in [(1_252, 0), (1_273, 1)] {
                let before = dual.counters().too_big;
                let batch = Batch {
                    remote: remote.parse().unwrap(),
                    local: None,
                    contents: &contents[..size],
                    segment_size: size,
                    is_ect: false,
                };
                assert_eq!(dual.send(&batch), Sent::Done);
                assert_eq!(dual.counters().too_big - before, too_big, "{size} bytes to {remote}");
            }
        }

        // The interface vanishes under the socket: still nothing worse than lost datagrams.
        run(&["ip", "link", "del", "va"]);
        assert_eq!(socket.send(&batch), Sent::Done);
        assert_eq!(socket.counters().send_errors, 6);
        assert!(!socket.recv(&mut ReceiveBuffers::new(), &mut Vec::new()));
    });
}

#[test]
fn a_full_socket_blocks_and_recovers() {
    sandboxed("a_full_socket_blocks_and_recovers", || {
        veth();
        run(&["ip", "addr", "add", "10.7.0.1/24", "dev", "va"]);
        run(&["ip", "neigh", "add", "10.7.0.2", "lladdr", "02:00:00:00:00:09", "dev", "va"]);
        // The queue holds a full socket buffer, and drains in a fraction of a second.
        run(&[
            "tc", "qdisc", "add", "dev", "va", "root", "tbf", "rate", "50mbit", "burst", "64kb", "limit",
            "100mb",
        ]);
        let config = UdpConfig { bind: "0.0.0.0:0".parse().unwrap(), interface: Some("va".to_owned()) };
        let mut socket = UdpSocket::bind(&config).unwrap();
        let remote: SocketAddr = "10.7.0.2:9".parse().unwrap();
        let contents = vec![7; 40_000];
        let batch = Batch { remote, local: None, contents: &contents, segment_size: 1000, is_ect: false };
        let sent = (0..1000).take_while(|_| socket.send(&batch) == Sent::Done).count();
        assert!((1..1000).contains(&sent), "{sent} batches of 40 kB were taken");
        let counters = socket.counters();
        assert_eq!((counters.sent, counters.blocked), (40 * sent as u64, 1));
        assert_eq!(counters.send_errors, 0);

        let mut poller = Poller::new().unwrap();
        poller.add(&socket, 5, Interest::ReadableWritable).unwrap();
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert!(ready.iter().any(|ready| ready.token == 5 && ready.writable));
        assert_eq!(socket.send(&batch), Sent::Done);
    });
}

/// Everything that arrives at `interface`, with its link header.
fn capture(interface: &str) -> Socket {
    // packet(7): the protocol in network byte order.
    const ETH_P_ALL: i32 = 0x0300;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL))).unwrap();
    socket.bind_device(Some(interface.as_bytes())).ok();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// The next captured IPv4 packet that is `wanted`.
fn receive_ipv4(capture: &mut Socket, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut frame = [0; 70_000];
    loop {
        let size = capture.read(&mut frame).expect("the packet did not arrive within 5 s");
        if size > 34 && frame[12..14] == [8, 0] && wanted(&frame[14..size]) {
            return frame[14..size].to_vec();
        }
    }
}

fn state_file() -> PathBuf {
    std::env::temp_dir().join(format!("bonding-nat-{}.state", std::process::id()))
}

fn sysctl(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

#[test]
fn default_routes_and_addresses_are_told_and_taken_away() {
    sandboxed("default_routes_and_addresses_are_told_and_taken_away", || {
        let mut requests = Requests::open().unwrap();
        assert_eq!(requests.default_routes().unwrap(), []);
        veth();
        run(&["ip", "addr", "add", "10.7.0.1/24", "dev", "va"]);
        run(&["ip", "addr", "add", "fd07::1/64", "dev", "va", "nodad"]);
        run(&["ip", "addr", "add", "10.8.0.1/24", "dev", "vb"]);
        run(&["ip", "route", "add", "default", "via", "10.7.0.9", "metric", "30"]);
        run(&[
            "ip", "route", "add", "default", "metric", "40", "nexthop", "via", "10.7.0.9", "nexthop", "via",
            "10.8.0.9",
        ]);
        run(&["ip", "-6", "route", "add", "default", "via", "fd07::9", "metric", "50"]);
        run(&["ip", "route", "add", "default", "via", "10.7.0.9", "table", "77"]);
        run(&["ip", "route", "add", "unreachable", "default", "metric", "99"]);
        let interfaces = requests.interfaces().unwrap();
        let name = |index| interfaces.get(&index).unwrap().name.clone();
        let mut routes: Vec<_> = requests
            .default_routes()
            .unwrap()
            .iter()
            .map(|route| (route.metric, name(route.index), route.ipv4))
            .collect();
        routes.sort();
        let expected = [(30, "va", true), (40, "va", true), (40, "vb", true), (50, "va", false)];
        assert_eq!(routes, expected.map(|(metric, name, ipv4)| (metric, name.to_owned(), ipv4)));

        let index = interfaces.values().find(|interface| interface.name == "va").unwrap().index;
        for address in ["10.7.0.1/24", "fd07::1/64"] {
            requests.remove_address(index, address.parse().unwrap()).unwrap();
        }
        let left = requests.interfaces().unwrap().get(&index).unwrap().addresses.clone();
        assert!(left.iter().all(|address| address.to_string().starts_with("fe80:")), "{left:?}");
        assert!(requests.remove_address(index, "10.7.0.1/24".parse().unwrap()).is_err());
    });
}

fn own_status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    value.trim_start_matches(':').trim().to_owned()
}

/// The operations of a bond after its set-up and at its end, with the capabilities that it keeps.
#[test]
fn the_rights_that_are_kept_suffice() {
    sandboxed("the_rights_that_are_kept_suffice", || {
        let path = state_file();
        let (tun, nat) = gateway(Journal::open(&path).unwrap());
        privileges::reduce(Rights::NetworkAndBoundSockets).unwrap();
        for key in ["CapInh", "CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(u64::from_str_radix(&own_status(key), 16), Ok(0x3000), "{key}");
        }
        assert_eq!(u64::from_str_radix(&own_status("CapAmb"), 16), Ok(0));
        assert_eq!(own_status("NoNewPrivs"), "1");
        assert_eq!(privileges::check(Rights::NetworkAndBoundSockets), Ok(()));
        privileges::reduce(Rights::NetworkAndBoundSockets).expect("a second reduction changes nothing");

        let config = UdpConfig { bind: "0.0.0.0:0".parse().unwrap(), interface: Some("va".to_owned()) };
        drop(UdpSocket::bind(&config).expect("a socket bound to a device"));
        let mut requests = Requests::open().unwrap();
        requests.add_route(tun.index(), "192.168.77.0/24".parse().unwrap()).expect("a route");
        let table = run(&["nft", "list", "ruleset"]);
        assert!(table.contains("masquerade"), "nft(8) may not look: {table}");
        drop(nat);
        assert_eq!(switches(), ["0", "0", "0", "0"]);
        assert_eq!(run(&["nft", "list", "ruleset"]), "");
        assert!(!path.exists());
        drop(tun);
        assert!(!run(&["ip", "-oneline", "link"]).contains(" tun-test: "));
        // Any other privilege is gone.
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "none", "/mnt"]).output().unwrap();
        assert!(!output.status.success(), "a child has more rights than it was left");
    });
}

/// A TUN device, an egress interface with a neighbour `203.0.113.2`, forwarding and NAT.
fn gateway(journal: Journal) -> (Tun, Nat) {
    // A namespace has the switch of its machine.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    veth();
    run(&["ip", "addr", "add", "203.0.113.1/24", "dev", "va"]);
    run(&["ip", "neigh", "add", "203.0.113.2", "lladdr", "02:00:00:00:00:09", "dev", "va"]);
    let tun = Tun::create(&TunConfig {
        name: "tun-test".to_owned(),
        mtu: 1461,
        addresses: vec!["10.99.0.1/24".parse().unwrap(), "fd99::1/64".parse().unwrap()],
        offload: true,
    })
    .unwrap();
    Requests::open().unwrap().add_route(tun.index(), "192.168.1.5/24".parse().unwrap()).unwrap();
    Requests::open().unwrap().add_route(tun.index(), "fd77::/48".parse().unwrap()).unwrap();
    let config = NatConfig {
        tunnel: "tun-test".to_owned(),
        addresses: vec!["10.99.0.1/24".parse().unwrap(), "fd99::1/64".parse().unwrap()],
        reach: Reach { internet: true, ..Reach::default() },
        exceptions: Vec::new(),
        masquerade: Some(Masquerade { egress: None }),
        listeners: (9_001, 9_005),
    };
    let nat = Nat::install(journal, config, Monitor::open().unwrap()).unwrap();
    (tun, nat)
}

/// Whether interfaces have switches of their own for IPv6, as they have from Linux 6.17 on.
fn has_own_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()
}

/// Those that the gateway switches on, and the one for all of IPv4, which it does not.
fn switches() -> [String; 4] {
    let ipv6 =
        if has_own_ipv6() { "ipv6/conf/tun-test/force_forwarding" } else { "ipv6/conf/all/forwarding" };
    ["ipv4/conf/va/forwarding", "ipv4/conf/vb/forwarding", ipv6, "ipv4/ip_forward"].map(sysctl)
}

#[test]
fn masquerades_clamps_and_undoes_everything() {
    sandboxed("masquerades_clamps_and_undoes_everything", || {
        let path = state_file();
        run(&["ip", "link", "add", "vc", "type", "veth", "peer", "name", "vd"]);
        std::fs::write("/proc/sys/net/ipv6/conf/vc/accept_ra", "1").unwrap();
        let (mut tun, mut nat) = gateway(Journal::open(&path).unwrap());
        // Of the interfaces those with an address, by which answers can come.
        assert_eq!(switches(), ["1", "0", "1", "0"]);
        assert_eq!(sysctl("ipv4/conf/tun-test/forwarding"), "1");
        // One switch for all ends router advertisements, but for an exception.
        assert_eq!(sysctl("ipv6/conf/vc/accept_ra"), if has_own_ipv6() { "1" } else { "2" });
        assert!(run(&["ip", "route"]).contains("192.168.1.0/24 dev tun-test"));
        assert!(run(&["ip", "-6", "route"]).contains("fd77::/48 dev tun-test"));

        let mut capture = capture("vb");
        tun.send_batch(&[tcp_syn([10, 99, 0, 2].into(), 1460)], |bytes| Outbound {
            bytes,
            is_partial: false,
        })
        .unwrap();
        let syn = receive_ipv4(&mut capture, |packet| packet[9] == 6);
        assert_eq!(syn[12..16], [203, 0, 113, 1], "not masqueraded");
        // 1461 less 40 bytes of IPv4 and TCP header.
        assert_eq!(syn[42..44], 1421_u16.to_be_bytes(), "the segment size is not clamped");

        // An interface that comes later takes part as well.
        run(&["ip", "addr", "add", "198.51.100.1/24", "dev", "vb"]);
        nat.handle_ready().unwrap();
        assert_eq!(switches(), ["1", "1", "1", "0"]);

        drop(nat);
        assert_eq!(switches(), ["0", "0", "0", "0"]);
        assert_eq!(sysctl("ipv6/conf/vc/accept_ra"), "1");
        assert_eq!(run(&["nft", "list", "ruleset"]), "");
        assert!(!path.exists());
    });
}

#[test]
fn forwarding_stays_on_for_others() {
    sandboxed("forwarding_stays_on_for_others", || {
        let path = state_file();
        let (tun, nat) = gateway(Journal::open(&path).unwrap());
        // IPv6 has no sign but the rules of the other program.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        drop(nat);
        assert_eq!(switches(), ["1", "1", "0", "1"]);

        run(&["ip", "link", "del", "va"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        drop(tun);
        let (_tun, nat) = gateway(Journal::open(&path).unwrap());
        run(&[
            "nft",
            "add table ip6 other; add chain ip6 other pass { type filter hook forward priority 0; }",
        ]);
        drop(nat);
        assert_eq!(switches(), ["0", "0", "1", "0"]);
    });
}

#[test]
fn a_crash_is_cleaned_up_later() {
    sandboxed("a_crash_is_cleaned_up_later", || {
        let path = state_file();
        let (_tun, nat) = gateway(Journal::open(&path).unwrap());
        // As after SIGKILL: the lock is gone, the file stays.
        let text = std::fs::read(&path).unwrap();
        std::mem::forget(nat);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        assert!(run(&["nft", "list", "ruleset"]).contains("bonding-tun-test"));

        assert!(undo::cleanup(&path).unwrap());
        assert_eq!(switches(), ["0", "0", "0", "0"]);
        assert_eq!(run(&["nft", "list", "ruleset"]), "");
        assert!(!undo::cleanup(&path).unwrap());
    });
}

/// A TCP SYN from `source` to 203.0.113.2 with a segment size option and valid checksums.
fn tcp_syn(source: Ipv4Addr, segment_size: u16) -> Vec<u8> {
    let destination = [203, 0, 113, 2];
    let mut packet = vec![0x45, 0, 0, 44, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination);
    let sum = !checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4]);
    packet.extend(segment_size.to_be_bytes());
    // RFC 9293 §3.1: the pseudo header is addresses, protocol and length.
    let pseudo = u32::from(checksum(&packet[12..20], 0)) + 6 + 24;
    let sum = !checksum(&packet[20..], pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 1071, for an even number of bytes.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
