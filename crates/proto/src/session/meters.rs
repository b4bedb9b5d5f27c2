//! Counts what each flow carries in one direction, and over which links. For figures.
//!
//! A meter belongs to a place: the sender's queue of the flow, or the slot of the peer's frames.
//! Flows that share a place share its queue and its order, and so its meter, which has the name of
//! the one that had packets first. A place gets another name once that flow had none for a second.
//!
//! Contract: constant work and no allocation for each packet but a flow's first. At most
//! [`METERS_MAX`] meters of [`METER_BYTES`] and 8 for each link, with 32 KiB for the places; none
//! 10 s after its last packet, and no place without meters. Flows beyond that have no meter until
//! others are forgotten.
//!
//! It does not know classes, or what becomes of a packet once it is sent or received.

use std::time::Duration;

use crate::limits::LINKS_MAX;
use crate::packet::LinkId;
use crate::position::StreamId;
use crate::qos::flow::{FlowId, InnerHeader, QUEUES, parse};
use crate::streams::StreamEnds;
use crate::time::Instant;
use crate::units::BitRate;

/// Meters of a direction. Chosen: as many as there are flow ids; with five links 0.25 MiB.
const METERS_MAX: usize = 1_024;
/// Memory of a meter beside its links.
const METER_BYTES: usize = 208;
const _: () = assert!(size_of::<Meter>() <= METER_BYTES);

/// Rates are those of one to two of these. Chosen: a second is what a person sees.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a flow without packets keeps its place's name. Chosen: as long as the queue remembers
/// it.
const NAME_HOLD: Duration = Duration::from_secs(1);
/// How often the header of a received packet is read. Chosen: it costs nothing then.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// How long a meter is kept. Chosen: a person asks seconds after what they saw.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// How often meters are looked through for those. Chosen: rarely.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A flow's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    /// Of packets with this header.
    Packets(InnerHeader),
    /// A stream, of which the first offset tells it from others of its number.
    Stream { id: StreamId, first: u64, ends: StreamEnds },
}

/// Bytes over a link, in the present window and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct OverLink {
    current: u32,
    last: u32,
}

/// One flow's counts.
#[derive(Debug)]
pub(super) struct Meter {
    name: Name,
    /// Tells flows of a place apart.
    tag: u64,
    named_at: Instant,
    /// When the name is checked again; of received packets.
    check_at: Instant,
    seen: Instant,
    bytes: u64,
    /// The present window's begin and end, and how long the one before was.
    since: Instant,
    until: Instant,
    last_span: Duration,
    links: Vec<OverLink>,
}

/// What a meter shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes of packets or of the stream, without what was sent again and without copies.
    pub bytes: u64,
    /// The rate of the last seconds.
    pub rate: BitRate,
    /// The bytes that each link carried of them lately; links without any are left out.
    pub links: Vec<(LinkId, u64)>,
}

impl Meter {
    fn new(name: Name, tag: u64, now: Instant) -> Self {
        Self {
            name,
            tag,
            named_at: now,
            check_at: now + CHECK_EVERY,
            seen: now,
            bytes: 0,
            since: now,
            until: now + WINDOW,
            last_span: Duration::ZERO,
            links: Vec::new(),
        }
    }

    #[inline]
    fn count(&mut self, link: LinkId, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        self.seen = now;
        if now >= self.until {
            self.roll(now);
        }
        let more = u32::try_from(bytes).unwrap_or(u32::MAX);
        match self.links.get_mut(usize::from(link.0)) {
            Some(over) => over.current = over.current.saturating_add(more),
            None => self.add_link(link, more),
        }
    }

    #[cold]
    fn add_link(&mut self, link: LinkId, current: u32) {
        let at = usize::from(link.0);
        if at < LINKS_MAX {
            self.links.reserve_exact(at + 1 - self.links.len());
            self.links.resize(at, OverLink::default());
            self.links.push(OverLink { current, last: 0 });
        }
    }

    /// A window is over.
    #[cold]
    fn roll(&mut self, now: Instant) {
        let span = now.saturating_since(self.since);
        let was_silent = span >= WINDOW * 2;
        self.last_span = if was_silent { Duration::ZERO } else { span };
        (self.since, self.until) = (now, now + WINDOW);
        for over in &mut self.links {
            *over = OverLink { current: 0, last: if was_silent { 0 } else { over.current } };
        }
    }

    /// Whether its last packet is so recent that the flow counts as active.
    fn is_active(&self, now: Instant) -> bool {
        now.saturating_since(self.seen) < FORGET_AFTER
    }

    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    /// How long ago its last packet was.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_since(self.seen)
    }

    pub(super) fn carried(&self, now: Instant) -> Carried {
        let span = now.saturating_since(self.since);
        let (mut links, mut sum) = (Vec::new(), 0);
        if span < WINDOW * 2 {
            for (number, over) in (0..).zip(&self.links) {
                let bytes = u64::from(over.current) + u64::from(over.last);
                sum += bytes;
                links.extend((bytes > 0).then_some((LinkId(number), bytes)));
            }
        }
        // A flow of one packet has no rate: it is spread over a window.
        let rate = BitRate::from_bytes_over(sum, (self.last_span + span).max(WINDOW));
        Carried { bytes: self.bytes, rate, links }
    }
}

/// The meters of a direction. See the module.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// By place; empty while there is no meter.
    places: Vec<Option<Box<Meter>>>,
    count: usize,
    sweep_at: Instant,
}

impl Meters {
    /// Notes that a flow is in its place. `name` is asked for when the place has another one.
    #[inline]
    pub(super) fn note(&mut self, flow: FlowId, tag: u64, name: impl FnOnce() -> Name, now: Instant) {
        match self.meter_mut(flow) {
            Some(meter) if meter.tag == tag => meter.named_at = now,
            _ => self.rename(flow, tag, name(), now),
        }
    }

    /// The same for a stream. `name`: its first offset and its ends; `None`: it is over.
    pub(super) fn note_stream(&mut self, id: StreamId, name: Option<(u64, StreamEnds)>, now: Instant) {
        let Some((first, ends)) = name else { return };
        let tag = first << 16 | u64::from(id.number());
        self.note(FlowId::of_stream(id), tag, || Name::Stream { id, first, ends }, now);
    }

    /// Counts bytes of the flow in a place.
    #[inline]
    pub(super) fn count(&mut self, flow: FlowId, link: LinkId, bytes: usize, now: Instant) {
        if let Some(meter) = self.meter_mut(flow) {
            meter.count(link, bytes, now);
        }
    }

    /// Notes whose packets come in a slot of the peer's frames: this is one of them.
    #[inline]
    pub(super) fn check(&mut self, slot: FlowId, packet: &[u8], now: Instant) {
        if self.meter_mut(slot).is_none_or(|meter| now >= meter.check_at) {
            self.check_anew(slot, packet, now);
        }
    }

    #[cold]
    fn check_anew(&mut self, slot: FlowId, packet: &[u8], now: Instant) {
        let is_full = self.count >= METERS_MAX && self.meter_mut(slot).is_none();
        if slot.0 >= QUEUES || (is_full && !self.makes_room(now)) {
            return;
        }
        let Ok(header) = parse(packet) else { return };
        if let Some(Meter { name: Name::Packets(name), named_at, check_at, .. }) = self.meter_mut(slot) {
            *check_at = now + CHECK_EVERY;
            if name.is_of_the_flow_of(&header) {
                *named_at = now;
                return;
            }
        }
        self.rename(slot, 0, Name::Packets(header), now);
    }

    /// Gives a place its name, unless it has one that still holds.
    #[inline(never)]
    fn rename(&mut self, flow: FlowId, tag: u64, name: Name, now: Instant) {
        match self.meter_mut(flow) {
            Some(meter) if now.saturating_since(meter.named_at) < NAME_HOLD => return,
            Some(meter) => {
                *meter = Meter::new(name, tag, now);
                return;
            }
            None => {}
        }
        if self.count >= METERS_MAX && !self.makes_room(now) {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(usize::from(QUEUES), || None);
            self.sweep_at = now + SWEEP_EVERY;
        }
        if let Some(place) = self.places.get_mut(flow.index()) {
            *place = Some(Box::new(Meter::new(name, tag, now)));
            self.count += 1;
        }
    }

    /// Whether there is room for another meter.
    fn makes_room(&mut self, now: Instant) -> bool {
        self.forget_idle(now);
        self.count < METERS_MAX
    }

    /// Forgets flows that had no packet for long. To be called now and then.
    #[inline]
    pub(super) fn forget_idle(&mut self, now: Instant) {
        if self.count != 0 && now >= self.sweep_at {
            self.sweep(now);
        }
    }

    #[cold]
    fn sweep(&mut self, now: Instant) {
        self.sweep_at = now + SWEEP_EVERY;
        for place in &mut self.places {
            if place.as_ref().is_some_and(|meter| !meter.is_active(now)) {
                *place = None;
                self.count -= 1;
            }
        }
        if self.count == 0 {
            self.places = Vec::new();
        }
    }

    /// The meters of flows that were active lately.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = &Meter> {
        self.places.iter().flatten().map(|meter| &**meter).filter(move |meter| meter.is_active(now))
    }

    fn meter_mut(&mut self, flow: FlowId) -> Option<&mut Meter> {
        self.places.get_mut(flow.index())?.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    fn header(port: u16) -> InnerHeader {
        InnerHeader {
            source: "10.99.0.2".parse().unwrap(),
            destination: "203.0.113.9".parse().unwrap(),
            protocol: 17,
            ports: Some((port, 443)),
            ecn: 0,
            dscp: 0,
        }
    }

    fn port(meter: &Meter) -> Option<u16> {
        match meter.name() {
            Name::Packets(header) => header.ports.map(|(source, _)| source),
            Name::Stream { .. } => None,
        }
    }

    /// A UDP packet from this port.
    fn packet(port: u16) -> Vec<u8> {
        let mut packet = vec![0; 28];
        (packet[0], packet[3], packet[9]) = (0x45, 28, 17);
        packet[12..16].copy_from_slice(&[203, 0, 113, 9]);
        packet[16..20].copy_from_slice(&[10, 99, 0, 2]);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    }

    #[test]
    fn a_rate_and_its_links_are_those_of_the_last_seconds() {
        let mut meters = Meters::default();
        let (flow, slow, fast) = (FlowId(7), LinkId(0), LinkId(3));
        // 8 and 24 Mbit/s.
        for ms in 0..2_500 {
            meters.note(flow, 1, || Name::Packets(header(1)), at(ms));
            meters.count(flow, slow, 1_000, at(ms));
            meters.count(flow, fast, 3_000, at(ms));
        }
        let meter = meters.iter(at(2_500)).next().unwrap();
        let carried = meter.carried(at(2_500));
        assert_eq!(carried.bytes, 10_000_000);
        assert!((31.9..32.1).contains(&carried.rate.as_mbps()), "{carried:?}");
        let [(first, less), (second, more)] = carried.links.as_slice() else { panic!("{carried:?}") };
        assert_eq!((*first, *second, *more), (slow, fast, less * 3));

        let later = meter.carried(at(6_000));
        assert_eq!((later.bytes, later.rate.as_bps(), later.links.len()), (10_000_000, 0, 0));
        // Another packet after a pause: what was before it does not count.
        meters.count(flow, slow, 1_000, at(9_000));
        let carried = meters.iter(at(9_000)).next().unwrap().carried(at(9_000));
        assert_eq!((carried.rate.as_bps(), carried.links.as_slice()), (8_000, &[(slow, 1_000)][..]));
    }

    #[test]
    fn a_place_keeps_its_name_until_its_flow_is_silent() {
        let mut meters = Meters::default();
        let flow = FlowId(7);
        let named = |meters: &Meters, ms| meters.iter(at(ms)).map(port).collect::<Vec<_>>();
        for ms in 0..100 {
            meters.note(flow, 1, || Name::Packets(header(1)), at(ms));
            meters.note(flow, 2, || Name::Packets(header(2)), at(ms));
        }
        assert_eq!(named(&meters, 100), [Some(1)]);
        meters.count(flow, LinkId(0), 100, at(100));
        meters.note(flow, 2, || Name::Packets(header(2)), at(1_200));
        assert_eq!(named(&meters, 1_200), [Some(2)]);
        assert_eq!(meters.iter(at(1_200)).next().unwrap().carried(at(1_200)).bytes, 0, "counted anew");

        let mut received = Meters::default();
        for (ms, port) in [(0, 1), (10, 2), (300, 2), (600, 2), (900, 2)] {
            received.check(flow, &packet(port), at(ms));
            assert_eq!(named(&received, ms), [Some(1)], "{ms}");
        }
        received.check(flow, &packet(2), at(1_200));
        assert_eq!(named(&received, 1_200), [Some(2)]);
    }

    #[test]
    fn a_flood_of_flows_is_bounded_and_idle_meters_take_no_memory() {
        let (mut sent, mut received) = (Meters::default(), Meters::default());
        for number in 0..u16::MAX {
            let flow = FlowId(number);
            if number < QUEUES {
                sent.note(flow, u64::from(number), || Name::Packets(header(number)), at(0));
            }
            // A peer may name any slot.
            received.check(flow, &packet(number), at(0));
            received.count(flow, LinkId(255), 100, at(0));
        }
        for meters in [&mut sent, &mut received] {
            assert_eq!((meters.count, meters.iter(at(0)).count()), (METERS_MAX, METERS_MAX));
            assert!(meters.iter(at(0)).all(|meter| meter.links.capacity() <= LINKS_MAX));
            assert_eq!(meters.iter(at(10_000)).count(), 0);
            meters.forget_idle(at(10_000));
            assert_eq!((meters.count, meters.places.capacity()), (0, 0));
        }
        received.check(FlowId(5), &[0; 28], at(20_000));
        assert_eq!(received.count, 0, "not a packet");
    }
}
