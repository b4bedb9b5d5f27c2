//! The links of a world: a pipe in each direction, the addresses at its ends, and a competitor.
//!
//! The links own what is in flight and the bytes that no session counts. They do not know the
//! machines; the world hands over what [`Links::poll_deliver`] gives.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bonding_netem::{Change, Counters, Direction, Flow, Pipe, Scenario, Time};
use bonding_proto::limits::UDP_FLOWS_MAX;
use bonding_proto::wire::sealed::DatagramKind;
use bonding_proto::{Instant, Path, Transmit, UdpFlow};
use bytes::BytesMut;

use super::{Side, netem_time, proto_time};
use crate::competitor::{self, Competitor};
use crate::outer::{UDP_OVERHEAD, client_address, server_address};

/// A datagram in flight.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) from: SocketAddr,
    /// The client's UDP flow.
    pub(super) flow: UdpFlow,
    pub(super) data: BytesMut,
    /// A router marked it.
    pub(super) is_marked: bool,
    /// The number of a competitor's segment, which has no data.
    competitor: Option<u64>,
}

/// Bytes of handshakes and of a competitor in one direction of a link, counted as in [`Counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UncountedBytes {
    /// Offered to the link.
    pub offered: u64,
    /// Delivered by the link.
    pub delivered: u64,
}

/// One direction of a link.
#[derive(Debug)]
struct Lane {
    pipe: Pipe<Flight>,
    uncounted: UncountedBytes,
}

impl Lane {
    fn enqueue(&mut self, flight: Flight, flow: Flow, bytes: u32, uncounted: u64, time: Time) {
        self.uncounted.offered += uncounted;
        // The pipe counts the datagrams that it drops.
        let _ = self.pipe.enqueue_flow(flight, bytes, flow, time);
    }
}

/// One link: a pipe in each direction and the addresses at its ends.
#[derive(Debug)]
struct Link {
    name: String,
    up: Lane,
    down: Lane,
    /// The client's first flow as the server sees it; each further flow has a port of its own.
    client: SocketAddr,
    server: SocketAddr,
    /// Flows that the client sent on, a bit each: a NAT drops what comes for others.
    opened: u8,
}

/// The distance of the ports of two flows of a link.
const FLOW_PORTS: u16 = 1_000;

impl Link {
    /// The client's address of a flow.
    fn client_of(&self, flow: UdpFlow) -> SocketAddr {
        let port = self.client.port().wrapping_add(u16::from(flow.number()) * FLOW_PORTS);
        SocketAddr::new(self.client.ip(), port)
    }

    /// The flow whose address the server sends to, if the client opened it.
    fn flow_at(&self, to: SocketAddr) -> Option<UdpFlow> {
        let opened = |flow: &UdpFlow| self.opened & (1 << flow.number()) != 0;
        (0..UDP_FLOWS_MAX).filter_map(UdpFlow::new).filter(opened).find(|flow| self.client_of(*flow) == to)
    }

    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// All links.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<Link>,
    /// Events that the client's interfaces have not reported yet: time, link, and whether the link
    /// has a carrier.
    carriers: VecDeque<(Instant, usize, bool)>,
    competitor: Option<(usize, Direction, Competitor)>,
    misrouted: u64,
}

impl Links {
    /// The links of `scenario`, idle.
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let lane = |link, direction| Lane {
            pipe: scenario.pipe_with_events(link, direction, seed, Time::ZERO),
            uncounted: UncountedBytes::default(),
        };
        let links = scenario.links.iter().enumerate().map(|(index, link)| Link {
            name: link.name.clone(),
            up: lane(link, Direction::Up),
            down: lane(link, Direction::Down),
            client: client_address(index),
            server: server_address(index),
            opened: 1,
        });
        let carriers = scenario.carriers.iter().filter_map(|event| {
            Some((Instant::ZERO + event.at, scenario.link_index(&event.link)?, event.present))
        });
        Self { links: links.collect(), carriers: carriers.collect(), competitor: None, misrouted: 0 }
    }

    /// The number of links.
    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    /// A link's name.
    pub(super) fn name(&self, link: usize) -> &str {
        self.links.get(link).map_or("", |link| link.name.as_str())
    }

    /// Datagrams that found no link.
    pub(super) const fn misrouted(&self) -> u64 {
        self.misrouted
    }

    /// The counters of one direction of a link at `now`.
    pub(super) fn counters(&mut self, link: usize, direction: Direction, now: Instant) -> Counters {
        self.links.get_mut(link).map_or_else(Counters::default, |link| {
            let pipe = &mut link.lane_mut(direction).pipe;
            pipe.advance(netem_time(now));
            pipe.counters()
        })
    }

    /// The bytes that one direction of a link carries in the `span` before `now`, and the duration
    /// of its queue.
    pub(super) fn present(
        &mut self,
        link: usize,
        direction: Direction,
        span: Duration,
        now: Instant,
    ) -> (Option<u64>, Option<Duration>) {
        let now = netem_time(now);
        let Some(link) = self.links.get_mut(link) else { return (None, None) };
        let pipe = &mut link.lane_mut(direction).pipe;
        pipe.advance(now);
        let from = Time::ZERO + (now - Time::ZERO).saturating_sub(span);
        let bytes = if pipe.is_out() { Some(0) } else { pipe.config().bytes_between(from, now) };
        (bytes, pipe.queue_delay())
    }

    /// Bytes that no session counts in one direction of a link.
    pub(super) fn uncounted(&self, link: usize, direction: Direction) -> UncountedBytes {
        self.links.get(link).map_or_else(UncountedBytes::default, |link| link.lane(direction).uncounted)
    }

    /// Bytes in the queue of one direction of a link.
    pub(super) fn queue_bytes(&self, link: usize, direction: Direction) -> u64 {
        self.links.get(link).map_or(0, |link| link.lane(direction).pipe.counters().queue_bytes)
    }

    /// Changes one direction of a link.
    pub(super) fn change(&mut self, link: usize, direction: Direction, change: Change, now: Instant) {
        if let Some(link) = self.links.get_mut(link) {
            link.lane_mut(direction).pipe.apply(change, netem_time(now));
        }
    }

    /// The client's NAT gives the link's flows other ports; datagrams to the old ports are lost.
    pub(super) fn rebind(&mut self, link: usize) {
        if let Some(link) = self.links.get_mut(link) {
            link.client.set_port(link.client.port().wrapping_add(1));
        }
    }

    /// UDP flows on which the client sent on a link so far.
    pub(super) fn flows_opened(&self, link: usize) -> u32 {
        self.links.get(link).map_or(0, |link| link.opened.count_ones())
    }

    /// Adds a competitor to one direction of a link.
    pub(super) fn set_competitor(&mut self, link: usize, direction: Direction, competitor: Competitor) {
        self.competitor = Some((link, direction, competitor));
    }

    /// The competitor.
    pub(super) fn competitor(&self) -> Option<&Competitor> {
        self.competitor.as_ref().map(|(_, _, competitor)| competitor)
    }

    /// The next time at which anything happens here, and its reason.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let competitor = self.competitor().and_then(Competitor::poll_timeout);
        let links = self.links.iter().flat_map(|link| {
            let up = link.up.pipe.poll_timeout().map(|due| (proto_time(due), "link up"));
            let down = link.down.pipe.poll_timeout().map(|due| (proto_time(due), "link down"));
            up.into_iter().chain(down)
        });
        let competitor = competitor.map(|due| (due, "competitor"));
        let carrier = self.carriers.front().map(|(due, ..)| (*due, "carrier"));
        competitor.into_iter().chain(links).chain(carrier).min_by_key(|(due, _)| *due)
    }

    /// The next report of a client's interface that is due: the link, and whether it has a carrier.
    pub(super) fn poll_carrier(&mut self, now: Instant) -> Option<(usize, bool)> {
        let (_, link, present) = self.carriers.pop_front_if(|(due, ..)| *due <= now)?;
        Some((link, present))
    }

    /// Puts the competitor's segments on its link.
    pub(super) fn run_competitor(&mut self, now: Instant) {
        let Some((index, direction, competitor)) = &mut self.competitor else { return };
        let Some(link) = self.links.get_mut(*index) else { return };
        competitor.handle_timeout(now);
        while let Some(number) = competitor.poll_segment(now) {
            let from = link.client;
            let flow = UdpFlow::FIRST;
            let data = BytesMut::new();
            let flight = Flight { from, flow, data, is_marked: false, competitor: Some(number) };
            let bytes = competitor::SEGMENT_BYTES;
            link.lane_mut(*direction).enqueue(flight, Flow::default(), bytes, bytes.into(), netem_time(now));
        }
    }

    /// The next datagram of a session that has arrived on one direction of a link. The competitor's
    /// segments that arrive before it reach their receiver.
    pub(super) fn poll_deliver(
        &mut self,
        index: usize,
        direction: Direction,
        now: Instant,
    ) -> Option<Flight> {
        let lane = self.links.get_mut(index)?.lane_mut(direction);
        loop {
            let flight = lane.pipe.poll_deliver(netem_time(now))?;
            let Some(number) = flight.competitor else {
                lane.uncounted.delivered += handshake_bytes(&flight.data);
                return Some(flight);
            };
            lane.uncounted.delivered += u64::from(competitor::SEGMENT_BYTES);
            if let Some((_, _, competitor)) = &mut self.competitor {
                competitor.on_delivered(number, now);
            }
        }
    }

    /// Puts a datagram of `transmit` on the link that its path names. `false`: no link connects the
    /// path's socket and address, and the datagram is counted and lost.
    pub(super) fn send(&mut self, side: Side, transmit: &Transmit, data: &[u8], now: Instant) -> bool {
        let Path { socket, remote, .. } = transmit.path;
        let link = match side {
            Side::Client => self.links.get_mut(socket.link().index()).and_then(|link| {
                let flow = socket.flow();
                link.opened |= 1 << flow.number();
                let from = link.client_of(flow);
                (remote == link.server).then_some((link, from, flow))
            }),
            Side::Server => self.links.get_mut(socket.index()).and_then(|link| {
                let flow = link.flow_at(remote)?;
                let from = link.server;
                Some((link, from, flow))
            }),
        };
        let Some((link, from, number)) = link else {
            self.misrouted += 1;
            return false;
        };
        let time = netem_time(now);
        let lane = link.lane_mut(side.sends());
        let is_marked = transmit.is_ect && lane.pipe.marks(time);
        let flight = Flight { from, flow: number, data: BytesMut::from(data), is_marked, competitor: None };
        let flow = Flow::udp(from, remote);
        lane.enqueue(flight, flow, link_bytes(data), handshake_bytes(data), time);
        true
    }
}

/// Bytes of a datagram as its link counts them.
fn link_bytes(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX).saturating_add(UDP_OVERHEAD.into())
}

/// Those bytes if the datagram belongs to a handshake, otherwise 0.
fn handshake_bytes(data: &[u8]) -> u64 {
    match DatagramKind::of(data) {
        Some(DatagramKind::Initiation | DatagramKind::Response | DatagramKind::Cookie) => {
            link_bytes(data).into()
        }
        Some(DatagramKind::Sealed) | None => 0,
    }
}
