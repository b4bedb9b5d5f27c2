//! The server's side: one endpoint, many sessions. Datagrams find their session by where they come from, inner packets by
//! where they go to.
//!
//! A plain datagram is accepted from a configured address only; where one address speaks on several links, the
//! listener tells them apart (link *i* uses the *i*-th port). Anything else is counted and gets no answer. What a client
//! sends must carry one of its own inner addresses. The endpoint looks at nothing inside a frame.
//!
//! Work is proportional to the sessions that have something to do, not to those that exist: inputs mark their session, due
//! timers are kept in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroUsize;

use crate::StateMachine;
use crate::config::{ClientConfig, EndpointConfig, LinkConfig, PlainPeer, Prefix, Role, SessionConfig};
use crate::discard::{Discard, DiscardCounts};
use crate::event::Event;
use crate::packet::{Datagram, LinkId, PacketBuf, Path, Transmit};
use crate::qos::flow;
use crate::session::Session;
use crate::stats::SessionStats;
use crate::time::Instant;

/// Bytes of IP and UDP header.
const IPV4_HEADERS: u16 = 20 + 8;
const IPV6_HEADERS: u16 = 40 + 8;

/// Names a session: the index of its client in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u16);

/// Many sessions behind one set of sockets and one TUN device.
#[derive(Debug)]
pub struct Endpoint {
    sessions: Vec<Slot>,
    peers: BTreeMap<IpAddr, Vec<(SessionId, LinkId)>>,
    routes: RouteTable,
    /// Sessions with undrained output, each once.
    pending: VecDeque<SessionId>,
    timers: BTreeSet<(Instant, SessionId)>,
    events: VecDeque<(SessionId, Event)>,
    released: VecDeque<PacketBuf>,
    discards: DiscardCounts,
}

/// A session and what the endpoint keeps about it.
#[derive(Debug)]
struct Slot {
    session: Session,
    pending: bool,
    timer: Option<Instant>,
}

impl Endpoint {
    /// Sessions for all of the configuration's clients; at most 65,536.
    pub fn new(config: &EndpointConfig, now: Instant) -> Self {
        let mut endpoint = Self {
            sessions: Vec::new(),
            peers: BTreeMap::new(),
            routes: RouteTable::default(),
            pending: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            released: VecDeque::new(),
            discards: DiscardCounts::default(),
        };
        for (number, client) in (0..=u16::MAX).zip(&config.clients) {
            let id = SessionId(number);
            for peer in &client.plain {
                endpoint.peers.entry(peer.remote.to_canonical()).or_default().push((id, peer.link));
            }
            for prefix in &client.prefixes {
                endpoint.routes.insert(*prefix, id);
            }
            let session = Session::new(session_config(config, client, number), now);
            endpoint.sessions.push(Slot { session, pending: false, timer: None });
        }
        endpoint
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<(SessionId, Event)> {
        self.events.pop_front()
    }

    /// Figures of every session.
    pub fn stats(&self, now: Instant) -> Vec<(SessionId, SessionStats)> {
        (0..=u16::MAX)
            .zip(&self.sessions)
            .map(|(number, slot)| (SessionId(number), slot.session.stats(now)))
            .collect()
    }

    /// What was thrown away before it reached a session.
    pub const fn discards(&self) -> &DiscardCounts {
        &self.discards
    }

    fn refuse(&mut self, reason: Discard) -> Result<(), Discard> {
        self.discards.count(reason);
        Err(reason)
    }

    /// The session and link that a plain datagram on `path` belongs to.
    fn peer(&self, path: &Path) -> Option<(SessionId, LinkId)> {
        let peers = self.peers.get(&path.remote.ip().to_canonical())?;
        match peers.as_slice() {
            [only] => Some(*only),
            several => several.iter().copied().find(|(_, link)| link.0 == path.socket.0),
        }
    }

    fn slot(&mut self, id: SessionId) -> Option<&mut Slot> {
        self.sessions.get_mut(usize::from(id.0))
    }

    /// The session has been given something to do: collects what it has for TUN and logs, and lets it transmit.
    fn mark(&mut self, id: SessionId) {
        let Some(slot) = self.sessions.get_mut(usize::from(id.0)) else { return };
        if !slot.pending {
            slot.pending = true;
            self.pending.push_back(id);
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        while let Some(packet) = slot.session.poll_packet() {
            let source = flow::parse(&packet).map(|header| header.source);
            if source.ok().and_then(|source| self.routes.lookup(source)) == Some(id) {
                self.released.push_back(packet);
            } else {
                self.discards.count(Discard::ForeignSource);
            }
        }
    }

    /// The session's outputs are drained: its next deadline stands.
    fn settle(&mut self, id: SessionId) {
        let Some(slot) = self.slot(id) else { return };
        slot.pending = false;
        let next = slot.session.poll_timeout().map(|(at, _)| at);
        let old = std::mem::replace(&mut slot.timer, next);
        if old == next {
            return;
        }
        if let Some(old) = old {
            self.timers.remove(&(old, id));
        }
        if let Some(next) = next {
            self.timers.insert((next, id));
        }
    }
}

impl StateMachine for Endpoint {
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let header = match flow::parse(&packet) {
            Ok(header) => header,
            Err(reason) => return self.refuse(reason),
        };
        let Some(id) = self.routes.lookup(header.destination) else { return self.refuse(Discard::NoRoute) };
        let slot = self.slot(id).ok_or(Discard::NoRoute)?;
        let result = slot.session.handle_parsed(packet, &header, now);
        self.mark(id);
        result
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        let Some((id, link)) = self.peer(&datagram.path) else { return self.refuse(Discard::UnknownPeer) };
        let slot = self.slot(id).ok_or(Discard::UnknownPeer)?;
        let result = slot.session.handle_link_datagram(link, datagram, now);
        self.mark(id);
        result
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(slot) = self.slot(id) {
                slot.timer = None;
                slot.session.handle_timeout(now);
            }
            self.mark(id);
        }
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        while let Some(id) = self.pending.front().copied() {
            if let Some(transmit) = self.slot(id)?.session.poll_transmit(buf, max_segments, now) {
                // Sessions take turns, batch by batch.
                self.pending.rotate_left(1);
                return Some(transmit);
            }
            self.pending.pop_front();
            self.settle(id);
        }
        None
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.released.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let (at, id) = self.timers.first()?;
        let slot = self.sessions.get(usize::from(id.0))?;
        Some((*at, slot.session.poll_timeout().map_or("session", |(_, reason)| reason)))
    }
}

/// A client's session as its server runs it.
fn session_config(config: &EndpointConfig, client: &ClientConfig, number: u16) -> SessionConfig {
    let links = client.plain.iter().map(|peer| usize::from(peer.link.0) + 1).max().unwrap_or(0);
    let link = |at: usize| client.plain.iter().find(|peer| peer.link.index() == at);
    SessionConfig {
        role: Role::Server,
        links: (0..links).map(|at| link_config(link(at))).collect(),
        policy: config.policy,
        heartbeat_interval: config.heartbeat_interval,
        mtu: config.mtu,
        seed: config.seed ^ u64::from(number),
        epoch: config.epoch,
    }
}

fn link_config(peer: Option<&PlainPeer>) -> LinkConfig {
    let ipv6 = peer.is_some_and(|peer| peer.remote.to_canonical().is_ipv6());
    LinkConfig {
        priority: 1,
        tx_rate: peer.and_then(|peer| peer.tx_rate),
        rx_rate: None,
        path: None,
        header_bytes: if ipv6 { IPV6_HEADERS } else { IPV4_HEADERS },
    }
}

/// Longest-prefix match: one ordered look-up for each prefix length in use.
#[derive(Debug, Default)]
struct RouteTable {
    entries: BTreeMap<Prefix, SessionId>,
    /// Lengths in use, longest first; IPv4 and IPv6.
    lengths: [Vec<u8>; 2],
}

impl RouteTable {
    fn insert(&mut self, prefix: Prefix, id: SessionId) {
        let prefix = masked(prefix.address, prefix.length);
        // The first client to name a prefix has it; configuration refuses overlaps before.
        self.entries.entry(prefix).or_insert(id);
        let [ipv4, ipv6] = &mut self.lengths;
        let lengths = if prefix.address.is_ipv4() { ipv4 } else { ipv6 };
        if !lengths.contains(&prefix.length) {
            lengths.push(prefix.length);
            lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<SessionId> {
        let [ipv4, ipv6] = &self.lengths;
        let lengths = if address.is_ipv4() { ipv4 } else { ipv6 };
        lengths.iter().find_map(|length| self.entries.get(&masked(address, *length)).copied())
    }
}

/// The prefix with the bits that do not count cleared, and a length that its family allows.
fn masked(address: IpAddr, length: u8) -> Prefix {
    match address {
        IpAddr::V4(ipv4) => {
            let length = length.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Prefix { address: IpAddr::V4((ipv4.to_bits() & mask).into()), length }
        }
        IpAddr::V6(ipv6) => {
            let length = length.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Prefix { address: IpAddr::V6((ipv6.to_bits() & mask).into()), length }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut routes = RouteTable::default();
        let prefix = |text: &str, length| Prefix { address: text.parse().unwrap(), length };
        routes.insert(prefix("10.99.0.2", 32), SessionId(1));
        routes.insert(prefix("10.99.0.0", 16), SessionId(2));
        routes.insert(prefix("0.0.0.0", 0), SessionId(3));
        routes.insert(prefix("fd99::2", 128), SessionId(4));
        let lookup = |text: &str| routes.lookup(text.parse().unwrap()).map(|id| id.0);
        assert_eq!(lookup("10.99.0.2"), Some(1));
        assert_eq!(lookup("10.99.0.3"), Some(2));
        assert_eq!(lookup("8.8.8.8"), Some(3));
        assert_eq!(lookup("fd99::2"), Some(4));
        assert_eq!(lookup("fd99::3"), None);
    }
}
