use proptest::prelude::*;

use super::*;
use crate::inner::samples::{v4, v6};

/// A segment of a connection from either of its ends.
#[derive(Debug, Clone)]
struct Segment {
    seq: u32,
    ack: u32,
    flags: u8,
    reserved: u8,
    window: u16,
    sent_at: Option<u32>,
    blocks: Vec<(u32, u32)>,
    other: Vec<u8>,
    payload: usize,
}

/// An acknowledgement as a packet.
pub(in crate::qos) fn ack_packet(number: u32) -> crate::PacketBuf {
    crate::PacketBuf::from(bytes::Bytes::from(v4(TCP, 0, &ack(number).tcp())))
}

fn ack(ack: u32) -> Segment {
    Segment {
        seq: 7,
        ack,
        flags: ACK,
        reserved: 0,
        window: 500,
        sent_at: Some(1_000),
        blocks: Vec::new(),
        other: Vec::new(),
        payload: 0,
    }
}

impl Segment {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn tcp(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(sent_at) = self.sent_at {
            options.extend_from_slice(&[1, 1, 8, 10]);
            options.extend_from_slice(&sent_at.to_be_bytes());
            options.extend_from_slice(&[0, 0, 0, 9]);
        }
        if !self.blocks.is_empty() {
            options.extend_from_slice(&[1, 1, 5, u8::try_from(2 + 8 * self.blocks.len()).unwrap()]);
            for (start, end) in &self.blocks {
                options.extend_from_slice(&start.to_be_bytes());
                options.extend_from_slice(&end.to_be_bytes());
            }
        }
        options.extend_from_slice(&self.other);
        options.resize(options.len().next_multiple_of(4), 0);
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let mut segment = vec![0x14, 0x51, 0xc0, 0x01];
        segment.extend_from_slice(&self.seq.to_be_bytes());
        segment.extend_from_slice(&self.ack.to_be_bytes());
        segment.extend_from_slice(&[words << 4 | self.reserved, self.flags]);
        segment.extend_from_slice(&self.window.to_be_bytes());
        segment.extend_from_slice(&[0xab, 0xcd, 0, 0]);
        segment.extend_from_slice(&options);
        segment.resize(segment.len() + self.payload, 0);
        segment
    }

    fn takes_the_place_of(&self, older: &Self) -> bool {
        let both = [v4(TCP, 0, &self.tcp()), v4(TCP, 0, &older.tcp())];
        let both_v6 = [v6(TCP, &self.tcp()), v6(TCP, &older.tcp())];
        let [is_so, is_so_v6] = [both, both_v6].map(|[newer, older]| supersedes(&newer, &older));
        assert_eq!(is_so, is_so_v6, "the same by IPv6");
        is_so
    }
}

#[test]
fn a_newer_one_takes_the_place_of_an_older_one_and_never_the_other_way() {
    assert!(ack(2_000).takes_the_place_of(&ack(1_000)));
    assert!(!ack(1_000).takes_the_place_of(&ack(2_000)));
    // Sequence numbers wrap.
    assert!(ack(500).takes_the_place_of(&ack(u32::MAX - 500)));
    assert!(!ack(u32::MAX - 500).takes_the_place_of(&ack(500)));
}

#[test]
fn what_says_something_of_its_own_stays() {
    let newer = ack(2_000);
    let stays: [(&str, Segment); 10] = [
        ("data", ack(1_000).with(|old| old.payload = 1)),
        ("the end", ack(1_000).with(|old| old.flags |= 0x01)),
        ("a push", ack(1_000).with(|old| old.flags |= 0x08)),
        ("an echo of a mark", ack(1_000).with(|old| old.flags |= 0x40)),
        ("a bit of a counter of marks", ack(1_000).with(|old| old.reserved = 0x01)),
        ("a reserved bit", ack(1_000).with(|old| old.reserved = 0x04)),
        ("a probe", ack(1_000).with(|old| old.seq -= 1)),
        ("another option", ack(1_000).with(|old| old.other = vec![30, 4, 0, 0])),
        ("later than it", ack(1_000).with(|old| old.sent_at = Some(1_001))),
        ("without a time", ack(1_000).with(|old| old.sent_at = None)),
    ];
    for (what, old) in stays {
        assert!(!newer.takes_the_place_of(&old), "{what}");
    }
    for flags in [ACK | 0x40, ACK | 0x80, ACK | 0xc0] {
        let (newer, old) =
            (newer.clone().with(|new| new.flags = flags), ack(1_000).with(|old| old.flags = flags));
        assert!(newer.takes_the_place_of(&old), "the same message, of which one is enough");
    }
}

#[test]
fn equal_ones_stay_unless_the_newer_one_acknowledges_more_selectively() {
    let plain = ack(1_000);
    assert!(!plain.takes_the_place_of(&plain), "it is counted as a duplicate");
    assert!(!plain.clone().with(|new| new.window = 900).takes_the_place_of(&plain));
    let some = plain.clone().with(|new| new.blocks = vec![(3_000, 4_000)]);
    let more = plain.clone().with(|new| new.blocks = vec![(3_000, 5_000)]);
    let other = plain.clone().with(|new| new.blocks = vec![(6_000, 7_000), (3_000, 4_000)]);
    assert!(some.takes_the_place_of(&plain));
    assert!(more.takes_the_place_of(&some));
    assert!(other.takes_the_place_of(&some));
    for (newer, old) in [(&some, &some), (&some, &more), (&some, &other), (&plain, &some)] {
        assert!(!newer.takes_the_place_of(old), "{newer:?} {old:?}");
    }
}

#[test]
fn what_was_acknowledged_selectively_must_be_in_the_newer_one() {
    let old = ack(1_000).with(|old| old.blocks = vec![(3_000, 4_000), (6_000, 7_000)]);
    assert!(ack(7_000).takes_the_place_of(&old));
    assert!(!ack(4_000).takes_the_place_of(&old));
    assert!(ack(4_000).with(|new| new.blocks = vec![(5_000, 8_000)]).takes_the_place_of(&old));
    let duplicate = ack(3_000).with(|old| old.blocks = vec![(1_000, 2_000)]);
    assert!(!ack(5_000).takes_the_place_of(&duplicate), "it reports a duplicate");
}

#[test]
fn only_of_the_same_connection_and_class_and_only_whole_packets() {
    let newer = v4(TCP, 0, &ack(2_000).tcp());
    let old = v4(TCP, 0, &ack(1_000).tcp());
    assert!(supersedes(&newer, &old));
    // Traffic class, flags of fragments, offset, protocol, either address, either port.
    for place in [1, 6, 7, 9, 15, 19, 21, 23] {
        let mut changed = old.clone();
        changed[place] ^= 0x02 << (4 * u8::from(place == 6));
        assert!(!supersedes(&newer, &changed), "byte {place}");
    }
    let newer = v6(TCP, &ack(2_000).tcp());
    let old = v6(TCP, &ack(1_000).tcp());
    for place in [0, 1, 6, 23, 39, 41, 43] {
        let mut changed = old.clone();
        changed[place] ^= if place == 1 { 0x20 } else { 0x02 };
        assert!(!supersedes(&newer, &changed), "byte {place}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_bytes(newer: Vec<u8>, older: Vec<u8>, options in proptest::collection::vec(any::<u8>(), 0..40)) {
        prop_assert!(!supersedes(&newer, &older));
        let strange = v4(TCP, 0, &ack(2_000).with(|new| (new.sent_at, new.other) = (None, options)).tcp());
        // Whatever the options are: an acknowledgement does not supersede itself.
        prop_assert!(!supersedes(&strange, &strange));
    }
}
