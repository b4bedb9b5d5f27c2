//! The hairpin with a real device and the kernel's TCP: programs connect to addresses that do not
//! exist, and a listener of this process serves them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of the helpers")]
mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bonding_os::hairpin::{Event, FlowKey, Hairpin, Redirect, Redirects, Refusal, Unreachable};
use bonding_os::poll::{Interest, Poller};
use bonding_os::tun::{Inbound, Tun, TunConfig, TunCounters};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const NAME: &str = "tun-hairpin";
/// As of a tunnel over Ethernet.
const MTU: u16 = 1_420;

/// The decision on a connection, by its destination's port.
const SERVED: u16 = 80;
const RESET: u16 = 81;
const UNREACHABLE: u16 = 82;
const PROHIBITED: u16 = 83;
const RELEASED: u16 = 84;

fn tun(offload: bool) -> Tun {
    let tun = Tun::create(&TunConfig {
        name: NAME.to_owned(),
        mtu: MTU,
        addresses: vec!["10.99.0.2/24".parse().unwrap(), "fd99::2/64".parse().unwrap()],
        offload,
    })
    .expect("this test needs /dev/net/tun and CAP_NET_ADMIN");
    common::run(&["ip", "route", "add", "default", "dev", NAME]);
    common::run(&["ip", "-6", "route", "add", "default", "dev", NAME]);
    // As strict as a distribution may be.
    for name in ["all", NAME] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "1").unwrap();
    }
    tun
}

/// Listens on the own address of the device, only for what comes from it.
fn listener(own: &str) -> TcpListener {
    let address: SocketAddr = own.parse().unwrap();
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.bind_device(Some(NAME.as_bytes())).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(64).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// What the owner counted.
#[derive(Debug)]
struct Report {
    counters: TunCounters,
    accepted: u32,
    /// Packets that went as packets, and the SYN among them.
    passed: Vec<Inbound>,
    /// Flows once all was over.
    left: usize,
    /// Hundredths of a second that the owner's thread ran for, in user and kernel mode.
    ticks: [u64; 2],
}

/// Those of the calling thread (proc(5)).
fn ticks() -> [u64; 2] {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let field = |at| fields.split_whitespace().nth(at).unwrap().parse().unwrap();
    [field(11), field(12)]
}

/// The owner of device, listeners and hairpin.
struct Owner {
    tun: Tun,
    listeners: [TcpListener; 2],
    hairpin: Hairpin,
    epoch: Instant,
    back: Vec<Inbound>,
    done: (Sender<FlowKey>, Receiver<FlowKey>),
    /// Told the families whose listener answers.
    reachable: Sender<bool>,
    report: Report,
}

impl Owner {
    fn new(tun: Tun, reachable: Sender<bool>) -> Self {
        let listeners = [listener("10.99.0.2:0"), listener("[fd99::2]:0")];
        let [ipv4, ipv6] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let redirects = Redirects {
            ipv4: Some(Redirect {
                own: "10.99.0.2".parse().unwrap(),
                stand_in: "10.99.0.3".parse().unwrap(),
                port: ipv4,
            }),
            ipv6: Some(Redirect {
                own: "fd99::2".parse().unwrap(),
                stand_in: "fd99::3".parse().unwrap(),
                port: ipv6,
            }),
        };
        let report =
            Report { counters: tun.counters(), accepted: 0, passed: Vec::new(), left: 0, ticks: [0; 2] };
        let hairpin = Hairpin::new(redirects);
        let (epoch, back, done) = (Instant::now(), Vec::new(), channel());
        Self { tun, listeners, hairpin, epoch, back, done, reachable, report }
    }

    /// Runs until `stop`; each accepted connection is served by a thread.
    fn run(mut self, stop: &AtomicBool, serve: fn(TcpStream)) -> Report {
        let mut poller = Poller::new().unwrap();
        poller.add(&self.tun, 0, Interest::Readable).unwrap();
        for (listener, token) in self.listeners.iter().zip(1..) {
            poller.add(listener, token, Interest::Readable).unwrap();
        }
        let (mut ready, mut packets) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            poller.wait(&mut ready, Some(Duration::from_millis(20))).unwrap();
            while packets.len() < 256 && self.tun.recv_batch(&mut packets).unwrap() {}
            let now = self.epoch.elapsed();
            for packet in packets.drain(..) {
                let passed = self.hairpin.take(packet, now, |_| true, &mut self.back);
                self.report.passed.extend(passed);
            }
            self.decide(now);
            self.tun.send_batch(&self.back, Inbound::outbound).unwrap();
            self.back.clear();
            self.accept(serve);
            while let Ok(key) = self.done.1.try_recv() {
                self.hairpin.forget(key, now);
            }
            self.hairpin.handle_timeout(now, &mut self.back);
        }
        self.report.ticks = ticks();
        for _ in 0..3 {
            self.epoch -= Duration::from_secs(1_000);
            self.hairpin.handle_timeout(self.epoch.elapsed(), &mut self.back);
        }
        Report { counters: self.tun.counters(), left: self.hairpin.flows(), ..self.report }
    }

    fn decide(&mut self, now: Duration) {
        while let Some(event) = self.hairpin.poll_event() {
            if let Event::Reachable { is_ipv6, is_reachable: true } = event {
                let _ = self.reachable.send(is_ipv6);
            }
            let Event::Requested(key, connection) = event else { continue };
            let (hairpin, back) = (&mut self.hairpin, &mut self.back);
            match connection.destination.port() {
                SERVED => hairpin.admit(key, now, back),
                RESET => hairpin.refuse(key, Refusal::Reset, now, back),
                UNREACHABLE => hairpin.refuse(key, Refusal::Unreachable(Unreachable::Host), now, back),
                PROHIBITED => hairpin.refuse(key, Refusal::Unreachable(Unreachable::Prohibited), now, back),
                RELEASED => self.report.passed.extend(hairpin.release(key, now)),
                port => panic!("nothing connects to port {port}"),
            }
        }
    }

    fn accept(&mut self, serve: fn(TcpStream)) {
        for listener in &self.listeners {
            while let Ok((stream, peer)) = listener.accept() {
                let Some(key) = self.hairpin.accept(peer) else { continue };
                stream.set_nonblocking(false).unwrap();
                self.report.accepted += 1;
                let done = self.done.0.clone();
                thread::spawn(move || {
                    serve(stream);
                    let _ = done.send(key);
                });
            }
        }
    }
}

/// Runs `traffic` while the hairpin is at work.
fn hairpinned(offload: bool, serve: fn(TcpStream), traffic: impl FnOnce()) -> Report {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let (reachable, families) = channel();
    let owner = Owner::new(tun(offload), reachable);
    let owner = thread::spawn(move || owner.run(&flag, serve));
    for _ in 0..2 {
        families.recv_timeout(Duration::from_secs(5)).expect("the listeners answer");
    }
    traffic();
    stop.store(true, Ordering::Relaxed);
    owner.join().unwrap()
}

/// Answers once the other end has said all.
fn echo(mut stream: TcpStream) {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    stream.write_all(&received).unwrap();
}

fn exchange(destination: &str, own: &str) {
    let destination: SocketAddr = destination.parse().unwrap();
    let data: Vec<u8> = (0..1_000_000_u32).map(|i| ((i * 31) >> 7).to_le_bytes()[0]).collect();
    let mut stream = TcpStream::connect_timeout(&destination, Duration::from_secs(5)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), destination);
    assert_eq!(stream.local_addr().unwrap().ip().to_string(), own);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == data, "{destination}: the bytes differ");
}

/// Bytes go both ways over half-closed connections, and nothing of them is left or leaves.
fn exchanges(offload: bool) -> Report {
    let report = hairpinned(offload, echo, || {
        for _ in 0..3 {
            exchange("198.51.100.1:80", "10.99.0.2");
            exchange("[2001:db8::1]:80", "fd99::2");
        }
        let several: Vec<_> = (1..9)
            .map(|host| thread::spawn(move || exchange(&format!("203.0.113.{host}:80"), "10.99.0.2")))
            .collect();
        for one in several {
            one.join().unwrap();
        }
    });
    assert_eq!((report.accepted, report.left), (14, 0), "{report:?}");
    let tcp = |packet: &&Inbound| packet.bytes[if packet.bytes[0] >> 4 == 4 { 9 } else { 6 }] == 6;
    assert_eq!(report.passed.iter().filter(tcp).count(), 0, "{report:?}");
    assert_eq!((report.counters.read_errors, report.counters.write_errors), (0, 0));
    report
}

#[test]
fn connections_are_served_in_super_packets() {
    common::sandboxed("connections_are_served_in_super_packets", || {
        let counters = exchanges(true).counters;
        assert!(counters.packets_in > 2 * counters.reads, "hardly any super-packets: {counters:?}");
        assert!(counters.packets_out > 2 * counters.writes, "hardly anything coalesced: {counters:?}");
    });
}

#[test]
fn connections_are_served_without_offload() {
    common::sandboxed("connections_are_served_without_offload", || {
        exchanges(false);
    });
}

/// A host behind this one, in a namespace of its own, over a link of a smaller MTU than the
/// tunnel's.
struct Lan(Child);

impl Lan {
    fn new() -> Self {
        let host = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let id = host.id().to_string();
        let lan = Self(host);
        // Until unshare(1) has made its namespace.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(lan.namespace()).unwrap() == own {
            thread::sleep(Duration::from_millis(5));
        }
        let ip = |words: &str| common::run(&[&["ip"], &*words.split(' ').collect::<Vec<_>>()].concat());
        ip(&format!("link add lan type veth peer name lan netns {id}"));
        ip("addr add 192.168.7.1/24 dev lan");
        ip("addr add fd07::1/64 dev lan nodad");
        ip("link set lan up");
        ip("route change 192.168.7.0/24 dev lan mtu 1000");
        ip("-6 route add fd07::/64 dev lan metric 1 mtu 1280");
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{setting}"), "1").unwrap();
        }
        lan.enter(|| {
            ip("addr add 192.168.7.2/24 dev lan");
            ip("addr add fd07::2/64 dev lan nodad");
            ip("link set lan up");
            ip("route add default via 192.168.7.1");
            ip("-6 route add default via fd07::1");
        });
        lan
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs on a thread that is inside.
    fn enter(&self, body: impl FnOnce() + Send) {
        let namespace = File::open(self.namespace()).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body();
            });
            inside.join().unwrap();
        });
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Forwarded and (IPv4) translated to this machine's address. The path MTU is found, although the
/// destination that the router tells of it is not the sender.
#[test]
fn a_host_behind_this_one_is_served() {
    common::sandboxed("a_host_behind_this_one_is_served", || {
        let report = hairpinned(true, echo, || {
            let lan = Lan::new();
            common::run(&["nft", "add table ip translate"]);
            common::run(&["nft", "add chain ip translate out { type nat hook postrouting priority 100; }"]);
            common::run(&["nft", &format!("add rule ip translate out oifname {NAME} masquerade")]);
            lan.enter(|| {
                exchange("198.51.100.1:80", "192.168.7.2");
                exchange("[2001:db8::1]:80", "fd07::2");
                for address in ["198.51.100.1", "[2001:db8::1]"] {
                    assert_eq!(error(address, RESET), Some(libc::ECONNREFUSED), "{address}");
                    assert_eq!(error(address, UNREACHABLE), Some(libc::EHOSTUNREACH), "{address}");
                }
            });
        });
        assert_eq!((report.accepted, report.left), (2, 0), "{report:?}");
    });
}

/// What connecting ends with, which is to be at once.
fn error(address: &str, port: u16) -> Option<i32> {
    let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let begun = Instant::now();
    let error = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1), "{address}: {error}");
    error.raw_os_error()
}

#[test]
fn refusals_are_those_of_the_destination() {
    common::sandboxed("refusals_are_those_of_the_destination", || {
        let report = hairpinned(true, echo, || {
            for address in ["198.51.100.1", "[2001:db8::1]"] {
                assert_eq!(error(address, RESET), Some(libc::ECONNREFUSED), "{address}");
                assert_eq!(error(address, UNREACHABLE), Some(libc::EHOSTUNREACH), "{address}");
            }
            // Each family has its own word for it.
            assert_eq!(error("198.51.100.1", PROHIBITED), Some(libc::EHOSTUNREACH));
            assert_eq!(error("[2001:db8::1]", PROHIBITED), Some(libc::EACCES));
        });
        assert_eq!((report.accepted, report.left), (0, 0));
    });
}

#[test]
fn a_released_connection_goes_as_packets() {
    common::sandboxed("a_released_connection_goes_as_packets", || {
        let report = hairpinned(true, echo, || {
            let address = format!("198.51.100.1:{RELEASED}").parse().unwrap();
            // Nothing answers; a copy of the SYN is sent after a second.
            let error = TcpStream::connect_timeout(&address, Duration::from_millis(1_500)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
        let syns = report.passed.iter().filter(|packet| packet.bytes[0] == 0x45 && packet.bytes[33] == 2);
        assert_eq!((syns.count(), report.left), (2, 0));
    });
}

/// Bytes of a download.
const BULK_BYTES: usize = 1 << 29;

/// Says how many bytes came.
fn sink(mut stream: TcpStream) {
    let (mut buffer, mut sum) = (vec![0; 1 << 18], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        sum += count;
    }
    stream.write_all(&sum.to_be_bytes()).unwrap();
}

/// Prints the rate, to be read on an idle machine (`--release --nocapture`).
#[test]
fn a_bulk_connection_passes() {
    common::sandboxed("a_bulk_connection_passes", || {
        let report = hairpinned(true, sink, || {
            let mut stream = TcpStream::connect("198.51.100.1:80").unwrap();
            let (begun, data) = (Instant::now(), vec![7; 1 << 18]);
            for _ in 0..BULK_BYTES / data.len() {
                stream.write_all(&data).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            let mut sum = [0; 8];
            stream.read_exact(&mut sum).unwrap();
            assert_eq!(usize::from_be_bytes(sum), BULK_BYTES);
            let seconds = begun.elapsed().as_secs_f64();
            println!("{:.2} Gbit/s, {seconds:.2} s", BULK_BYTES as f64 * 8.0 / 1e9 / seconds);
        });
        println!("ticks in user and kernel mode {:?}, {:?}", report.ticks, report.counters);
        assert_eq!((report.accepted, report.left), (1, 0));
    });
}
