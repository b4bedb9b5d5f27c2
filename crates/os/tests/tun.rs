//! The TUN device against the kernel's own TCP and UDP. A mirror plays the far end: it swaps the
//! addresses of each packet and writes it back, so that the kernel talks to itself through the
//! device, both ways.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[allow(dead_code, reason = "each test binary uses its part of the helpers")]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bonding_os::poll::{Interest, Poller};
use bonding_os::tun::{Inbound, Tun, TunConfig, TunCounters};
use bytes::BytesMut;

const MTU: u16 = 1461;

fn tun(offload: bool) -> Tun {
    let config = TunConfig {
        name: "tun-test".to_owned(),
        mtu: MTU,
        addresses: vec!["10.9.0.1/24".parse().unwrap(), "fd09::1/64".parse().unwrap()],
        offload,
    };
    Tun::create(&config).expect("this test needs /dev/net/tun and CAP_NET_ADMIN")
}

/// Swapping source and destination leaves every checksum as it is: valid, or partial.
fn swapped(Inbound { bytes, is_partial, follows }: &Inbound) -> Inbound {
    let mut packet = bytes.clone();
    let (source, length) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    for position in source..source + length {
        packet.swap(position, position + length);
    }
    Inbound { bytes: packet, is_partial: *is_partial, follows: *follows }
}

/// Mirrors packets until `stop`, then gives the device's counters.
fn mirror(mut tun: Tun, stop: &AtomicBool) -> TunCounters {
    let mut poller = Poller::new().unwrap();
    poller.add(&tun, 0, Interest::Readable).unwrap();
    let (mut ready, mut packets) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        poller.wait(&mut ready, Some(Duration::from_millis(20))).unwrap();
        packets.clear();
        while packets.len() < 256 && tun.recv_batch(&mut packets).unwrap() {}
        assert!(packets.iter().all(|packet| packet.bytes.len() <= usize::from(MTU)));
        let back: Vec<_> = packets.iter().map(swapped).collect();
        tun.send_batch(&back, Inbound::outbound).unwrap();
    }
    tun.counters()
}

/// Runs `traffic` while a mirror serves the device.
fn mirrored(tun: Tun, traffic: impl FnOnce()) -> TunCounters {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let mirror = thread::spawn(move || mirror(tun, &flag));
    traffic();
    stop.store(true, Ordering::Relaxed);
    mirror.join().unwrap()
}

/// Sends `size` bytes over TCP to ourselves through the mirror and compares them.
fn transfer(near: &str, far: &str, size: usize) {
    let listener = TcpListener::bind((near, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let data: Vec<u8> = (0..size).map(|i| ((i * 31) >> 7).to_le_bytes()[0]).collect();
    let expected = data.clone();
    let far = far.to_owned();
    let sender = thread::spawn(move || {
        TcpStream::connect((far.as_str(), port)).unwrap().write_all(&data).unwrap();
    });
    let mut received = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert!(received == expected, "the bytes differ");
}

#[test]
fn tcp_passes_in_super_packets() {
    common::sandboxed("tcp_passes_in_super_packets", || {
        let tun = tun(true);
        assert!(tun.offload(), "the kernel refused offloads");
        let counters = mirrored(tun, || {
            transfer("10.9.0.1", "10.9.0.2", 8_000_000);
            transfer("fd09::1", "fd09::2", 8_000_000);
        });
        // Acknowledgements are read one by one, so that the ratio of data is higher than this.
        assert!(counters.packets_in > 2 * counters.reads, "hardly any super-packets: {counters:?}");
        assert!(counters.packets_out > 2 * counters.writes, "hardly anything coalesced: {counters:?}");
        assert_eq!((counters.read_errors, counters.write_errors), (0, 0));
    });
}

#[test]
fn tcp_passes_without_offload() {
    common::sandboxed("tcp_passes_without_offload", || {
        let tun = tun(false);
        assert!(!tun.offload());
        let counters = mirrored(tun, || transfer("10.9.0.1", "10.9.0.2", 2_000_000));
        assert_eq!(counters.packets_in, counters.reads);
        assert_eq!((counters.read_errors, counters.write_errors), (0, 0));
    });
}

#[test]
fn datagrams_of_every_size_pass() {
    common::sandboxed("datagrams_of_every_size_pass", || {
        let counters = mirrored(tun(true), || {
            let socket = UdpSocket::bind("10.9.0.1:7000").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 2000];
            for size in 0..=usize::from(MTU) - 28 {
                let data = vec![size.to_le_bytes()[0]; size];
                socket.send_to(&data, "10.9.0.2:7000").unwrap();
                let (received, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..received], from), (&data[..], "10.9.0.2:7000".parse().unwrap()));
            }
        });
        assert_eq!((counters.read_errors, counters.write_errors), (0, 0));
    });
}

#[test]
fn a_bad_packet_does_not_lose_its_batch() {
    common::sandboxed("a_bad_packet_does_not_lose_its_batch", || {
        let mut tun = tun(true);
        let receiver = UdpSocket::bind("10.9.0.1:7000").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sender = UdpSocket::bind("10.9.0.1:7001").unwrap();
        let mut good = Vec::new();
        for text in ["one", "two"] {
            sender.send_to(text.as_bytes(), "10.9.0.2:7000").unwrap();
            let mut packets = Vec::new();
            while packets.is_empty() {
                tun.recv_batch(&mut packets).unwrap();
                packets.retain(|packet: &Inbound| packet.bytes[0] >> 4 == 4);
            }
            good.push(swapped(&packets[0]));
        }
        let noise: &[&[u8]] =
            &[b"", b"\x00", b"not an IP packet at all", &[0x45; 19], &[0x60; 39], &[0xff; 64]];
        // A packet marked as partially checksummed is checked as strictly.
        for is_partial in [false, true] {
            let mut batch: Vec<_> = noise
                .iter()
                .map(|noise| Inbound { bytes: BytesMut::from(*noise), is_partial, follows: false })
                .collect();
            batch.insert(3, good[0].clone());
            batch.push(good[1].clone());
            tun.send_batch(&batch, Inbound::outbound).unwrap();
        }
        let mut buffer = [0; 16];
        for text in ["one", "two", "one", "two"] {
            let (size, _) = receiver.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..size], text.as_bytes());
        }
        assert!(tun.counters().write_errors > 0);
    });
}

#[test]
fn a_taken_name_is_explained() {
    common::sandboxed("a_taken_name_is_explained", || {
        let first = tun(true);
        assert!(
            !common::run(&["ip", "-6", "-brief", "addr"]).contains("fe80:"),
            "the device has a link-local address that was not configured"
        );
        let config =
            TunConfig { name: "tun-test".to_owned(), mtu: MTU, addresses: Vec::new(), offload: true };
        let error = Tun::create(&config).unwrap_err().to_string();
        assert!(error.contains("tun-test") && error.contains("another process"), "{error}");
        drop(first);
        assert!(
            !common::run(&["ip", "-brief", "link"]).contains("tun-test"),
            "the device outlived its owner"
        );
    });
}
