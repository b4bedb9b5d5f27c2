//! Packets that may be forged, beside authentic ones.

use bytes::Bytes;

use super::*;

const LINKS: [LinkDelay; 2] = [LinkDelay {
    usable: true,
    delay_us: 0,
    jitter_us: 0,
    reorders_by: Duration::ZERO,
    resend: Duration::from_millis(200),
}; 2];

/// A resequencer, and what left it: the first byte of each packet.
struct Bench {
    reorder: Resequencer,
    now: Instant,
    out: VecDeque<PacketBuf>,
}

/// A forged packet, and a true one of this number.
const FORGED: u8 = 0xff;

impl Bench {
    fn new() -> Self {
        Self {
            reorder: Resequencer::new(Limits::default()),
            now: Instant::from_nanos(1_000_000_000),
            out: VecDeque::new(),
        }
    }

    fn give(&mut self, counter: u64, trust: Trust, byte: u8) -> Result<(), Discard> {
        let link = LinkId(u8::from(trust == Trust::Plain));
        let packet = PacketBuf::from(Bytes::from(vec![byte; 20]));
        self.reorder.on_packet(counter, Origin { link, trust }, packet, &LINKS, self.now, &mut self.out)
    }

    fn sealed(&mut self, counter: u64) -> Result<(), Discard> {
        self.give(counter, Trust::Sealed, u8::try_from(counter % 200).unwrap())
    }

    fn forged(&mut self, counter: u64) -> Result<(), Discard> {
        self.give(counter, Trust::Plain, FORGED)
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.reorder.on_timeout(&LINKS, self.now, &mut self.out);
    }

    /// What left that is true.
    fn taken(&mut self) -> Vec<u8> {
        self.out.drain(..).map(|packet| packet[0]).filter(|byte| *byte != FORGED).collect()
    }
}

#[test]
fn both_kinds_of_links_carry_one_flow_in_order() {
    let mut bench = Bench::new();
    for counter in [0, 2, 1, 3, 5, 4, 7, 6] {
        let trust = if counter % 2 == 0 { Trust::Sealed } else { Trust::Plain };
        bench.give(counter, trust, u8::try_from(counter).unwrap()).unwrap();
    }
    assert_eq!(bench.taken(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.give(5, Trust::Plain, 5), Err(Discard::Duplicate));
    assert_eq!(bench.sealed(4), Err(Discard::Duplicate));
}

/// A forged packet far ahead, or a row of them, would move the slot away from what is true.
#[test]
fn forged_packets_stop_no_flow() {
    let mut bench = Bench::new();
    let mut all = Vec::new();
    for counter in 0..2_000 {
        let _ = bench.forged(counter + 16_000);
        for ahead in 0..4 {
            let _ = bench.forged(counter * 4 + ahead);
        }
        bench.sealed(counter).unwrap();
        bench.pass(1);
        all.extend(bench.taken());
    }
    bench.pass(400);
    all.extend(bench.taken());
    let expected: Vec<_> = (0..2_000_u64).map(|counter| u8::try_from(counter % 200).unwrap()).collect();
    assert_eq!(all, expected, "all that is true arrives, in order");
}

/// Before anything true came.
#[test]
fn a_slot_that_forged_packets_made_is_moved_by_the_first_true_one() {
    let mut bench = Bench::new();
    bench.forged(1 << 40).unwrap();
    for counter in 0..10 {
        bench.sealed(counter).unwrap();
    }
    assert_eq!(bench.taken(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_true_packet_is_no_copy_of_a_forged_one() {
    let mut bench = Bench::new();
    bench.sealed(0).unwrap();
    // In order, held, and urgent.
    bench.forged(1).unwrap();
    bench.forged(3).unwrap();
    bench.sealed(1).unwrap();
    bench.sealed(3).unwrap();
    bench.sealed(2).unwrap();
    let packet = PacketBuf::from(Bytes::from(vec![FORGED; 20]));
    bench.reorder.on_urgent_packet(4, Trust::Plain, packet, bench.now, &mut bench.out).unwrap();
    bench.sealed(4).unwrap();
    assert_eq!(bench.taken(), [0, 1, 2, 3, 4]);
    assert_eq!(bench.sealed(4), Err(Discard::Duplicate));
}

#[test]
fn plain_links_go_on_alone_once_sealed_ones_are_dead() {
    let mut bench = Bench::new();
    bench.sealed(0).unwrap();
    for counter in 1..3_000_u64 {
        bench.give(counter, Trust::Plain, u8::try_from(counter % 200).unwrap()).unwrap();
        bench.pass(1);
    }
    assert_eq!(bench.taken().len(), 3_000);
    bench.pass(400);
    assert_eq!(bench.reorder.stats().held, 0);
}
