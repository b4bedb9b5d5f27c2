//! The records that the tracers make, and their bounds.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::packet::{DataFrame, KeptPacket, LinkId, PacketBuf};
use crate::reorder::{Limits, LinkDelay, Resequencer};
use crate::time::Instant;
use crate::view::LinkState;
use crate::wire;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000) + Duration::from_millis(ms)
}

fn drained(tracer: &mut Tracer) -> Vec<TraceEvent> {
    let mut records = Vec::new();
    tracer.drain([&mut HoldTracer::default(), &mut HoldTracer::default()], &mut records);
    records.into_iter().map(|record| record.event).collect()
}

fn tracer(level: Level) -> Tracer {
    let mut tracer = Tracer::default();
    tracer.set_level(level);
    tracer
}

#[test]
fn nothing_is_recorded_while_it_is_off() {
    let mut tracer = tracer(Level::Off);
    tracer.on_link_state(LinkId(0), LinkState::Down, LinkState::Up, at(0));
    tracer.on_data(LinkId(0), 1, 1_400, at(0));
    assert_eq!(drained(&mut tracer), []);
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() {
    let mut tracer = tracer(Level::Packets);
    // One record more: the flow's links.
    for counter in 0..RING_MAX as u64 + 4 {
        tracer.on_data(LinkId(0), counter, 1_400, at(counter / 1_000));
    }
    let events = drained(&mut tracer);
    assert_eq!(events.len(), RING_MAX + 1);
    assert_eq!(events.last(), Some(&TraceEvent::RecordsLost { records: 5 }));
    assert_eq!(drained(&mut tracer), [], "drained");
}

#[test]
fn a_flows_links_are_recorded_when_they_change() {
    let mut tracer = tracer(Level::Decisions);
    let packet = |flow: u16| wire::data_seq_num(flow, 7);
    let links = |flow, before, links| TraceEvent::FlowLinks { flow, before, links };
    for ms in 0..2_000 {
        tracer.on_data(LinkId(u8::try_from(ms % 2).unwrap()), packet(3), 1_400, at(ms));
    }
    assert_eq!(drained(&mut tracer), [links(3, 0, 0b01), links(3, 0b01, 0b11)]);
    // A link that is not used any more is missed after a window.
    for ms in 2_000..4_000 {
        tracer.on_data(LinkId(1), packet(3), 1_400, at(ms));
    }
    assert_eq!(drained(&mut tracer), [links(3, 0b11, 0b10)]);
    // Flows that share a place are two flows all the same.
    tracer.on_data(LinkId(1), packet(3 + 256), 1_400, at(4_000));
    tracer.on_data(LinkId(1), packet(3), 1_400, at(4_001));
    assert_eq!(drained(&mut tracer), [links(259, 0, 0b10), links(3, 0, 0b10)]);
}

#[test]
fn losses_in_a_row_are_one_record_and_resends_say_how_they_were_found() {
    let mut tracer = tracer(Level::Decisions);
    let kept = |seq_num| KeptPacket::new(DataFrame::zeros(seq_num, 100), 0, at(0));
    let lost: Vec<KeptPacket> = [5, 6, 7, 9].map(kept).into();
    tracer.on_lost(LinkId(2), LossTrigger::EndOverdue, &lost, at(50));
    let run = |first, count| {
        let (link, trigger) = (LinkId(2), LossTrigger::EndOverdue);
        TraceEvent::PacketsLost { link, trigger, tries: 0, first, count }
    };
    assert_eq!(drained(&mut tracer), [run(5, 3), run(9, 1)]);
    let mut again = kept(6);
    again.on_try();
    tracer.on_resent(LinkId(1), &again, true, at(51));
    tracer.on_resent(LinkId(0), &again, false, at(51));
    let resent = |link, trigger, is_second| TraceEvent::PacketResent {
        link: LinkId(link),
        trigger,
        tries: 1,
        is_second,
        seq_num: 6,
        bytes: 100,
    };
    let found = Some(LossTrigger::EndOverdue);
    assert_eq!(drained(&mut tracer), [resent(1, found, true), resent(0, found, false)]);
    tracer.on_resent(LinkId(0), &again, false, at(52));
    assert_eq!(drained(&mut tracer), [resent(0, None, false)], "its trigger is told once");
}

const LINKS: [LinkDelay; 2] = [LinkDelay {
    usable: true,
    delay_us: 0,
    jitter_us: 0,
    reorders_by: Duration::ZERO,
    resend: Duration::ZERO,
}; 2];

/// A resequencer whose slot 0 has handed out counter 0.
struct Slot {
    reorder: Resequencer,
    out: VecDeque<PacketBuf>,
}

impl Slot {
    fn new() -> Self {
        let mut slot = Self { reorder: Resequencer::new(Limits::default()), out: VecDeque::new() };
        slot.reorder.tracer().set_level(Level::Decisions);
        slot.take(0, 0, 0);
        assert_eq!(slot.drained(), []);
        slot
    }

    fn packet() -> PacketBuf {
        PacketBuf::from(Bytes::from_static(&[0x45; 40]))
    }

    fn take(&mut self, counter: u64, link: u8, ms: u64) {
        let _ = self.reorder.on_packet(counter, LinkId(link), Self::packet(), &LINKS, at(ms), &mut self.out);
    }

    fn drained(&mut self) -> Vec<TraceEvent> {
        let mut records = Vec::new();
        let mut tracer = tracer(Level::Decisions);
        tracer.drain([self.reorder.tracer(), &mut HoldTracer::default()], &mut records);
        records.into_iter().map(|record| record.event).collect()
    }
}

fn opened(first: u64, count: u32, link: u8) -> TraceEvent {
    TraceEvent::GapOpened { link: Some(LinkId(link)), first, count }
}

fn closed(by: GapEnd, link: Option<u8>, first: u64, count: u32, waited_ms: u32, held: u32) -> TraceEvent {
    let waited_us = waited_ms * 1_000;
    TraceEvent::GapClosed { by, link: link.map(LinkId), first, count, waited_us, held }
}

#[test]
fn a_gap_that_is_filled_is_recorded_from_its_first_packet_to_its_last() {
    let mut slot = Slot::new();
    slot.take(3, 0, 10);
    assert_eq!(slot.drained(), [opened(1, 2, 0)]);
    slot.take(1, 1, 12);
    assert_eq!(slot.drained(), [], "one is still missing");
    slot.take(5, 0, 13);
    assert_eq!(slot.drained(), [], "the gap behind is not the first one");
    slot.take(2, 1, 15);
    let next = TraceEvent::GapOpened { link: Some(LinkId(1)), first: 4, count: 1 };
    assert_eq!(slot.drained(), [closed(GapEnd::Arrived, Some(1), 1, 2, 5, 1), next]);
    let (packet, now) = (Slot::packet(), at(20));
    slot.reorder.on_restored_packet(4, packet, &LINKS, now, &mut slot.out).unwrap();
    assert_eq!(slot.drained(), [closed(GapEnd::Restored, None, 4, 1, 5, 0)]);
    assert_eq!(slot.out.len(), 6);
}

#[test]
fn a_gap_that_is_given_up_says_by_what_and_a_late_packet_is_recorded() {
    let mut slot = Slot::new();
    // Three later packets on each link.
    for (counter, link) in [(2, 0), (3, 1), (4, 0), (5, 1), (6, 0)] {
        slot.take(counter, link, 10);
    }
    assert_eq!(slot.drained(), [opened(1, 1, 0)]);
    slot.take(7, 1, 11);
    assert_eq!(slot.drained(), [closed(GapEnd::Known, Some(1), 1, 1, 1, 0)]);
    slot.take(1, 0, 12);
    assert_eq!(slot.drained(), [TraceEvent::PacketLate { link: Some(LinkId(0)), seq_num: 1 }]);
    // Only one link carries: the other one is waited for by time.
    slot.take(9, 0, 20);
    let due = slot.reorder.poll_timeout().unwrap();
    slot.reorder.on_timeout(&LINKS, due, &mut slot.out);
    assert_eq!(slot.drained(), [opened(8, 1, 0), closed(GapEnd::Time, None, 8, 1, 30, 0)]);
    // Delivered at once, across a gap with a packet held behind it.
    slot.take(11, 0, 100);
    slot.reorder.on_urgent_packet(12, Slot::packet(), at(101), &mut slot.out).unwrap();
    assert_eq!(slot.drained(), [opened(10, 1, 0), closed(GapEnd::Urgent, None, 10, 1, 1, 0)]);
}
