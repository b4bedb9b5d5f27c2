//! The steps of a packet's path that are counted.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark on fixed data may panic")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::IoSlice;
use std::time::Duration;

use bonding_os::coalesce::{Coalescer, Outbound};
use bonding_proto::config::Policy;
use bonding_proto::crypto::aead::{AeadKey, Cipher};
use bonding_proto::qos::classify::Classifier;
use bonding_proto::qos::flow::{self, FlowId};
use bonding_proto::qos::queue::{Demand, Queue, QueueConfig, Queued, Tier};
use bonding_proto::reorder::{Limits, LinkDelay, Resequencer};
use bonding_proto::scheduler;
use bonding_proto::units::BitRate;
use bonding_proto::view::{LinkRole, LinkState, LinkView};
use bonding_proto::wire::data_seq_num;
use bonding_proto::{Instant, LinkId, PacketBuf};
use bonding_testkit::pump::Pump;
use bytes::Bytes;

const PACKET_BYTES: u16 = 1_400;
/// Packets of one write to the device.
const RUN: usize = 48;

/// One step.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The number of packets is divided by this: the step is slow under callgrind.
    pub(crate) scale: usize,
    pub(crate) run: fn(usize),
}

const fn step(name: &'static str, about: &'static str, scale: usize, run: fn(usize)) -> Step {
    Step { name, about, scale, run }
}

pub(crate) const ALL: [Step; 17] = [
    step("seal", "AES-256-GCM over 1,400 bytes", 4, seal),
    step("open", "the same, with a copy of the datagram", 4, open),
    step("classify", "header, flow and class; 64 flows", 1, classify),
    step("queue", "in and out; 64 flows", 1, queue),
    step("schedule", "adaptive, 4 links", 1, schedule),
    step("resequence", "in order", 1, resequence),
    step("resequence-2", "over two links, every second packet held", 1, resequence_held),
    step("coalesce", "48 segments to a write, partial checksums", 1, coalesce_partial),
    step("coalesce-sums", "the same with checksums to be checked", 4, coalesce_sums),
    step("way-1", "the whole way through both ends, 1 link, 1,400 bytes", 4, |n| way(1, 1, PACKET_BYTES, n)),
    step("way-16", "the same over 16 links", 4, |n| way(16, 1, PACKET_BYTES, n)),
    step("way-runs", "super-packets of 40 segments from the server, 1 link", 4, |n| way_back(1, n)),
    step("way-runs-16", "the same over 16 links", 4, |n| way_back(16, n)),
    step("way-flows", "1,400 bytes in 10,000 flows in turn, 1 link", 4, |n| way(1, 10_000, PACKET_BYTES, n)),
    step("way-small", "packets of 100 bytes in 200 flows, 1 link", 4, |n| way(1, 200, 100, n)),
    step("way-small-16", "the same over 16 links", 4, |n| way(16, 200, 100, n)),
    step("way-clients", "100 clients in turn: 20 packets up and a super-packet of 20 down", 4, |n| {
        crowd(100, n)
    }),
];

fn at(micros: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + micros * 1_000)
}

fn seal(count: usize) {
    let key = AeadKey::new(Cipher::Aes256Gcm, &[1; 32]);
    let mut packet = vec![7; usize::from(PACKET_BYTES)];
    for counter in 0..count as u64 {
        black_box(key.seal(0, counter, &[0; 16], &mut packet));
    }
}

fn open(count: usize) {
    let key = AeadKey::new(Cipher::Aes256Gcm, &[1; 32]);
    let mut sealed = vec![7; usize::from(PACKET_BYTES)];
    let tag = key.seal(0, 9, &[0; 16], &mut sealed);
    sealed.extend_from_slice(&tag);
    let mut datagram = sealed.clone();
    for _ in 0..count {
        datagram.copy_from_slice(&sealed);
        assert!(black_box(key.open(0, 9, &[0; 16], &mut datagram)).is_ok());
    }
}

/// A TCP segment of a flow over IPv4, checksums left out.
fn segment(flow: u8, sequence: usize) -> Vec<u8> {
    let mut packet = vec![0; usize::from(PACKET_BYTES)];
    let mut put = |at: usize, part: &[u8]| packet[at..at + part.len()].copy_from_slice(part);
    put(0, &[0x45, 0]);
    put(2, &PACKET_BYTES.to_be_bytes());
    put(6, &[0x40, 0, 64, 6]);
    put(12, &[10, 99, 0, 2, 10, 99, 0, 1]);
    put(20, &[0x30, flow, 0, 80]);
    put(24, &u32::try_from(sequence * 1_360).unwrap_or_default().to_be_bytes());
    put(32, &[0x50, 0x10, 4, 0]);
    packet
}

fn classify(count: usize) {
    let mut classes = Classifier::new(1, [].into());
    let packets: Vec<_> = (0..64).map(|flow| segment(flow, 0)).collect();
    for (number, packet) in (0..count as u64).zip(packets.iter().cycle()) {
        let header = flow::parse(packet).unwrap();
        black_box(classes.classify(&header, packet, at(number * 10)));
    }
}

fn queue(count: usize) {
    let mut queue = Queue::new(QueueConfig::default());
    let bytes = Bytes::from(segment(0, 0));
    for number in 0..count as u64 {
        let now = at(number * 10);
        let flow = FlowId(u16::try_from(number % 64).unwrap_or_default() + 1);
        // Twelve packets wait at any time.
        queue.push(flow, None, PacketBuf::from(bytes.clone()), now).unwrap();
        if number >= 12 {
            for tier in Tier::ALL {
                if let Some(head) = queue.head(tier, now) {
                    black_box(queue.pop(head.tier, now));
                    break;
                }
            }
        }
    }
}

fn schedule(count: usize) {
    let mut scheduler = scheduler::of(Policy::Adaptive);
    let view = |number: u8| LinkView {
        id: LinkId(number),
        usable: true,
        state: LinkState::Up,
        priority: 1,
        role: LinkRole::Primary,
        rtt: Duration::from_millis(20 + 20 * u64::from(number)),
        loss_permille: 0,
        random_loss_permille: 0,
        is_sealed: true,
        is_apart: false,
        recovers: true,
        burst_tenths: 10,
        is_competing: false,
        is_at_ceiling: false,
        utilisation_permille: 500,
        rate: BitRate::from_bps(50_000_000),
        capacity: Some(BitRate::from_bps(50_000_000)),
        delay_us: 10_000 + 10_000 * i64::from(number),
        free_at: at(0),
        header_bytes: 28,
        mtu: 1_429,
    };
    let mut views: Vec<_> = (0..4).map(view).collect();
    for number in 0..count as u64 {
        let now = at(number * 60);
        let waited = Duration::from_millis(number % 40);
        let head = Queued {
            flow: FlowId(1),
            bytes: 1_400,
            tier: Tier::Bulk,
            backlog_bytes: 200_000,
            waited,
            demand: Demand::default(),
        };
        if let scheduler::Decision::Send(link) = black_box(scheduler.select(&head, &views, now)) {
            views[link.index()].free_at = views[link.index()].free_at.max(now) + Duration::from_micros(240);
        }
    }
}

fn delays() -> [LinkDelay; 2] {
    [10_000, 20_000].map(|delay_us| LinkDelay {
        usable: true,
        delay_us,
        jitter_us: 100,
        reorders_by: Duration::ZERO,
        resend: Duration::ZERO,
    })
}

fn resequence(count: usize) {
    let mut reorder = Resequencer::new(Limits::default());
    let (bytes, mut out) = (Bytes::from(segment(0, 0)), VecDeque::new());
    for number in 0..count as u64 {
        let packet = PacketBuf::from(bytes.clone());
        let seq_num = data_seq_num(3, number);
        reorder.on_packet(seq_num, LinkId(0), packet, &delays(), at(number * 10), &mut out).unwrap();
        assert!(black_box(out.pop_front()).is_some());
    }
}

fn resequence_held(count: usize) {
    let mut reorder = Resequencer::new(Limits::default());
    let (bytes, mut out) = (Bytes::from(segment(0, 0)), VecDeque::new());
    for number in 0..count as u64 {
        let packet = PacketBuf::from(bytes.clone());
        // 1, 0, 3, 2, …
        let (seq_num, link) = (data_seq_num(3, number ^ 1), LinkId(u8::from(number % 2 == 1)));
        reorder.on_packet(seq_num, link, packet, &delays(), at(number * 10), &mut out).unwrap();
        while black_box(out.pop_front()).is_some() {}
    }
}

fn coalesce(count: usize, is_partial: bool) {
    let mut packets: Vec<_> = (0..RUN).map(|number| segment(1, number)).collect();
    for packet in packets.iter_mut().filter(|_| !is_partial) {
        sum_up(packet);
    }
    let mut coalescer = Coalescer::new(true);
    let mut writes = 0;
    for _ in 0..count / RUN {
        coalescer.coalesce(
            &packets,
            |packet| Outbound { bytes: packet, is_partial },
            |slices: &[IoSlice<'_>], _| writes += black_box(slices).len().min(1),
        );
    }
    assert_eq!(writes, count / RUN, "a run is one write");
}

fn coalesce_partial(count: usize) {
    coalesce(count, true);
}

fn coalesce_sums(count: usize) {
    coalesce(count, false);
}

/// Fills in TCP's checksum.
fn sum_up(packet: &mut [u8]) {
    let length = u32::from(PACKET_BYTES) - 20;
    let mut sum: u32 = 6 + length;
    for pair in packet[12..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or_default();
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
}

fn way_back(links: u8, count: usize) {
    let mut pump = Pump::new(links, 1, PACKET_BYTES, |_| ());
    while pump.returned < 2_000 + count as u64 {
        pump.step_both(0, 40);
    }
}

/// Traffic both ways: in each step of time half of the packets go up, from the clients in turn, and
/// half down.
fn crowd(clients: u16, count: usize) {
    let mut pump = Pump::crowd(clients, 1, 1, PACKET_BYTES, |_| ());
    while pump.delivered + pump.returned < 2_000 + count as u64 {
        pump.step_both(20, 20);
    }
}

fn way(links: u8, flows: u16, packet_bytes: u16, count: usize) {
    let mut pump = Pump::new(links, flows, packet_bytes, |_| ());
    while pump.delivered < 2_000 + count as u64 {
        pump.step(40);
    }
}
