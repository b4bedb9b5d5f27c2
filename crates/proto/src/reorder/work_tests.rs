//! Work follows the bytes that came in, whatever numbers stand in them: what is looked at and what
//! is kept, for each byte of input.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// A frame header and the least IP packet, bytes.
const FRAME_BYTES: usize = 11;
const PACKET_BYTES: usize = 20;

/// Places for each byte of input. Chosen: the most that moving pages takes (512 of them, for one
/// packet among 1,024 pages) and twice the memory's words, over the least frame.
const TOUCHED_PER_BYTE: u64 = 20;
/// Bytes kept for each byte of input. Chosen: a page and a record for the least frame.
const KEPT_PER_BYTE: usize = 40;

#[derive(Debug, Clone)]
enum Step {
    /// A packet of a slot, ahead of the last one of this slot by so much.
    Packet {
        slot: u16,
        ahead: i64,
        is_urgent: bool,
        link: u8,
        payload: usize,
    },
    LinksChanged {
        usable: u8,
    },
    Time {
        us: u64,
    },
}

/// What a hostile sender has done so far.
struct Bench {
    reorder: Resequencer,
    links: Vec<LinkDelay>,
    now: Instant,
    out: VecDeque<PacketBuf>,
    last: BTreeMap<u16, i64>,
    bytes: usize,
    packets: (usize, usize),
    /// Time in which reviews were earned, µs.
    elapsed_us: u64,
    /// Slots whose time may have come.
    due: u64,
}

impl Bench {
    fn new(links: usize) -> Self {
        let link = |at: usize| LinkDelay {
            usable: true,
            delay_us: 1_000 * at as i64,
            jitter_us: 0,
            reorders_by: Duration::ZERO,
            resend: Duration::from_millis(200),
        };
        Self {
            reorder: Resequencer::new(Limits::default()),
            links: (0..links).map(link).collect(),
            now: Instant::from_nanos(1_000_000_000),
            out: VecDeque::new(),
            last: BTreeMap::new(),
            bytes: 0,
            packets: (0, 0),
            elapsed_us: 0,
            due: 0,
        }
    }

    fn packet(&mut self, slot: u16, counter: i64, is_urgent: bool, link: u8, payload: usize) {
        let seq = u64::from(slot) << 48 | (counter.cast_unsigned() & ((1 << 48) - 1));
        let packet = PacketBuf::from(Bytes::from(vec![0; PACKET_BYTES + payload]));
        self.bytes += FRAME_BYTES + packet.len();
        let Self { reorder, links, now, out, .. } = self;
        let taken = if is_urgent {
            reorder.on_urgent_packet(seq, packet, *now, out)
        } else {
            reorder.on_packet(seq, LinkId(link), packet, links, *now, out)
        };
        self.packets.0 += usize::from(taken.is_ok());
        self.packets.1 += self.out.drain(..).len();
        self.check();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Packet { slot, ahead, is_urgent, link, payload } => {
                let last = self.last.entry(slot).or_default();
                *last = last.wrapping_add(ahead);
                let counter = *last;
                self.packet(slot, counter, is_urgent, link, payload);
            }
            Step::LinksChanged { usable } => {
                for (at, link) in self.links.iter_mut().enumerate() {
                    link.usable = usable >> at & 1 != 0;
                }
                self.reorder.on_links_changed();
            }
            Step::Time { us } => {
                self.now = self.now + Duration::from_micros(us);
                self.elapsed_us += us;
                self.due += self.reorder.holding.len() as u64;
                self.reorder.on_timeout(&self.links, self.now, &mut self.out);
            }
        }
        self.reorder.review(&self.links, self.now, &mut self.out);
        self.packets.1 += self.out.drain(..).len();
        self.check();
    }

    fn check(&self) {
        // Reviews may look at a slot in 10 µs, and are 2 ms and one review in arrears.
        let reviewed = 200 + self.elapsed_us / 10 + self.due + self.reorder.live.len() as u64;
        let reviews = reviewed * (2 + self.links.len() as u64);
        let touched = self.reorder.stats().touched;
        assert!(
            touched <= self.bytes as u64 * TOUCHED_PER_BYTE + reviews,
            "{touched} touched for {} bytes",
            self.bytes
        );
        let kept = self.reorder.load.memory_bytes;
        assert!(kept <= self.bytes * KEPT_PER_BYTE, "{kept} bytes kept for {}", self.bytes);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let ahead = prop_oneof![
        4 => -3..4_i64,
        2 => -1_100..1_100_i64,
        2 => -16_400..16_400_i64,
        1 => any::<i64>(),
    ];
    let packet = (0..6_u16, ahead, prop::bool::weighted(0.2), 0..4_u8, 0..80_usize);
    prop_oneof![
        12 => packet.prop_map(|(slot, ahead, is_urgent, link, payload)| {
            Step::Packet { slot, ahead, is_urgent, link, payload }
        }),
        2 => any::<u8>().prop_map(|usable| Step::LinksChanged { usable }),
        1 => (0..40_000_u64).prop_map(|us| Step::Time { us }),
    ]
}

proptest! {
    #[test]
    fn no_input_takes_more_than_its_bytes_pay_for(steps in prop::collection::vec(step(), 1..600)) {
        let mut bench = Bench::new(4);
        steps.iter().for_each(|step| bench.step(step));
        bench.reorder.reset(&mut bench.out);
        bench.packets.1 += bench.out.len();
        prop_assert_eq!(bench.packets.0, bench.packets.1, "all that was taken left");
    }
}

/// What stopped a server: a packet as far ahead as may be, then an urgent one, in turn.
#[test]
fn far_counters_drained_by_urgent_ones_cost_what_near_ones_cost() {
    let touched = |far: i64| {
        let mut bench = Bench::new(1);
        let mut counter = 0;
        bench.packet(0, counter, false, 0, 0);
        for _ in 0..1_000 {
            bench.packet(0, counter + far, false, 0, 0);
            bench.packet(0, counter + far + 1, true, 0, 0);
            counter += far + 1;
        }
        assert_eq!(bench.reorder.stats().held, 0);
        bench.reorder.stats().touched
    };
    assert!(touched(16_000) <= touched(2) * 16, "{} and {}", touched(16_000), touched(2));
}

/// The most that moving pages takes: a packet in every page of the window, always the middle last.
#[test]
fn packets_strewn_over_the_window_stay_within_the_bound() {
    let mut bench = Bench::new(1);
    bench.links[0].usable = false;
    bench.packet(0, 0, false, 0, 0);
    for step in 0..500 {
        bench.packet(0, 16 * (step + 1), false, 0, 0);
        bench.packet(0, 16_300 - 16 * step, false, 0, 0);
    }
    assert!(bench.reorder.stats().touched > 100_000, "pages were moved");
}

/// Many slots that hold, and a link that goes and comes: reviews wait for their pause.
#[test]
fn a_link_that_flaps_costs_reviews_no_faster_than_their_pauses() {
    let mut bench = Bench::new(2);
    for slot in 0..4_000 {
        bench.packet(slot, 0, false, 0, 0);
        bench.packet(slot, 2, false, 0, 0);
    }
    let before = bench.reorder.stats().touched;
    for number in 0..1_000 {
        bench.step(&Step::LinksChanged { usable: if number % 2 == 0 { 1 } else { 3 } });
        bench.step(&Step::Time { us: 10 });
    }
    // One review, of a slot and two links each: 10 ms do not earn another.
    assert_eq!(bench.reorder.stats().touched - before, 4_000 * 3);
    assert!(bench.reorder.poll_timeout().is_some_and(|due| due > bench.now));
}
