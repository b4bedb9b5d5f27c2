//! Redirects TCP connections that leave through the TUN device to a listener of this process, by
//! rewriting packets that came out of the device and are written back into it.
//!
//! ```text
//! application  S → D          ⇒  stand-in:port → own:listener   listener
//!              D → S          ⇐  own:listener → stand-in:port
//! ```
//!
//! The SYN of a connection is *held* until the owner decides: [`Hairpin::admit`] gives it to the
//! listener, [`Hairpin::refuse`] answers it, [`Hairpin::release`] lets it go as a packet. The
//! application sees its destination: all but addresses and ports stays (hops, marks,
//! identifications, options), and a partial checksum stays partial, so that the device merges the
//! packets again. The listener's kernel is told ICMP errors about its packets.
//!
//! ```text
//! Held ─ admit ► Admitted ─ accept ► Open ─ forget ► Closing ─ quiet ► (gone)
//!   ├─ release, refuse silently ► Passed, Silent ─ a minute ► (gone)
//!   └─ refuse ► (gone)
//! Held, Admitted ─ reset, or given up ► Abandoned is told
//! ```
//!
//! Contract: the owner gives each packet of the device, in order, and polls events after each
//! batch. `now` is a time since an epoch of the owner that never runs back. The stand-in is no
//! address of any host and its route is the device. The listener is bound to the own address and to
//! the device, and the owner closes accepted sockets that [`Hairpin::accept`] does not know.
//! Packets from the tunnel's far end are written only if [`Hairpin::may_enter`]. Total on any
//! bytes; memory is bounded (`flows`).
//!
//! A firewall of this host may drop what is written back: SYNs are held only while `probe` finds
//! that the listener answers.
//!
//! What passes as packets: all but TCP, fragments, packets with IP options or extension headers,
//! connections that began before or whose SYN names its addresses (MD5, TCP-AO, MPTCP), and any
//! when no port is free. Packets to the stand-in never leave.
//!
//! It does not know streams, the peer, sockets, or which connections are worth it.

mod flows;
mod made;
mod probe;
mod quote;
mod refusal;
mod segment;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;

pub use flows::FlowKey;
use flows::{Ended, Flows, Held, State, Way};
use probe::{Finding, Probe};
use quote::Quote;
pub use refusal::Unreachable;
use segment::{Difference, Segment, Tuple, octets};

use crate::tun::Inbound;

/// The longest first interval between two copies of a SYN (RFC 1122 §4.2.3.1: 3 s), and a second
/// for a busy machine. Later intervals at most double (RFC 9293 §3.8.1).
const FIRST_COPY_MAX: Duration = Duration::from_secs(4);
/// How long the owner may not get the socket of an admitted SYN. Linux gives up its SYN-ACK after
/// 63 s.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(75);
/// How long a flow without a packet is still rewritten once both directions have ended. Chosen: the
/// last FIN is sent again within seconds between two kernels of one machine.
const LINGER: Duration = Duration::from_secs(15);
/// The same while a direction has not ended: the kernel may still have bytes for a reader that does
/// not read. Linux probes a closed window every 120 s.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// How long a flow is passed or dropped. Chosen: the SYN's copies of the first minute, all that
/// most programs wait for.
const SET_ASIDE: Duration = Duration::from_secs(64);

/// The addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect<A> {
    /// The TUN device's own address.
    pub own: A,
    /// The address that stands for all destinations.
    pub stand_in: A,
    /// The listener's port.
    pub port: u16,
}

/// The addresses; connections of a family without any pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redirects {
    /// IPv4.
    pub ipv4: Option<Redirect<Ipv4Addr>>,
    /// IPv6.
    pub ipv6: Option<Redirect<Ipv6Addr>>,
}

/// A connection that an application wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The application's address.
    pub source: SocketAddr,
    /// The address that it connects to.
    pub destination: SocketAddr,
    /// The differentiated services code point of its SYN.
    pub dscp: u8,
}

/// What the owner learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The SYN of a connection is held, until the owner decides.
    Requested(FlowKey, Connection),
    /// The application gave up before the owner had the socket. The key is not valid any more.
    Abandoned(FlowKey),
    /// Whether a firewall lets connections get to the listener changed: connections of this
    /// family are held, or pass.
    Reachable {
        /// The family.
        is_ipv6: bool,
        /// The listener answers.
        is_reachable: bool,
    },
}

/// How a held SYN is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// By a RST, as of a destination that does not listen.
    Reset,
    /// By an ICMP message, as of a router.
    Unreachable(Unreachable),
    /// Not at all. For a minute later copies are dropped, too.
    Silent,
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// To a flow.
    Flow(FlowKey, Way),
    /// To no flow of ours.
    Elsewhere,
    /// It is ours, and goes nowhere.
    Dropped,
    /// It is the listener's answer to a probe.
    Probe,
    /// It is a SYN that begins something new.
    New,
}

/// What becomes of a flow's segment.
#[derive(Debug)]
enum Fate {
    /// It goes as a packet.
    Passed,
    Dropped,
    /// It goes back with these addresses.
    Rewritten(Tuple, Difference),
}

/// Redirects connections to a listener.
#[derive(Debug)]
pub struct Hairpin {
    ipv4: Option<Listener>,
    ipv6: Option<Listener>,
    flows: Flows,
    events: VecDeque<Event>,
    /// Where the packet before this one belonged: most packets come in runs.
    last: Option<(bool, Tuple, Place)>,
}

/// The listener of one family.
#[derive(Debug)]
struct Listener {
    redirect: Redirect<[u8; 16]>,
    probe: Probe,
}

impl Redirect<[u8; 16]> {
    fn of<A: Into<IpAddr>>(Redirect { own, stand_in, port }: Redirect<A>) -> Self {
        Self { own: octets(own.into()), stand_in: octets(stand_in.into()), port }
    }

    /// The tuple of packets to the listener.
    fn tuple(&self, port: u16) -> Tuple {
        Tuple { source: self.stand_in, destination: self.own, source_port: port, destination_port: self.port }
    }
}

impl Listener {
    fn of<A: Into<IpAddr>>(redirect: Redirect<A>) -> Self {
        Self { redirect: Redirect::of(redirect), probe: Probe::default() }
    }
}

impl Hairpin {
    /// Without flows.
    pub fn new(redirects: Redirects) -> Self {
        Self {
            ipv4: redirects.ipv4.map(Listener::of),
            ipv6: redirects.ipv6.map(Listener::of),
            flows: Flows::default(),
            events: VecDeque::new(),
            last: None,
        }
    }

    /// Flows that are known, of whatever state.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Takes a packet that came out of the device, and returns it if it is to go as a packet.
    /// Otherwise it is held, dropped, or appended to `back`, which is to be written to the device.
    /// `wants` tells whether a new connection is to be held.
    pub fn take(
        &mut self,
        mut packet: Inbound,
        now: Duration,
        wants: impl FnOnce(&Connection) -> bool,
        back: &mut Vec<Inbound>,
    ) -> Option<Inbound> {
        let Some(segment) = Segment::of(&packet.bytes) else {
            self.last = None;
            return self.take_other(packet, back);
        };
        let tuple = segment.tuple(&packet.bytes);
        let place = match self.last_place(&segment, &tuple) {
            Some(place) => place,
            None => self.place(&segment, &tuple, &packet.bytes, now),
        };
        self.last = Some((segment.is_ipv6, tuple, place));
        match place {
            Place::Elsewhere => Some(packet),
            Place::Dropped => None,
            Place::Probe => {
                self.take_probe(&segment, &packet.bytes, back);
                None
            }
            Place::New => {
                self.last = None;
                self.request(packet, &segment, tuple, now, wants)
            }
            Place::Flow(key, way) => {
                match self.pass(key, way, &segment, now) {
                    Fate::Passed => return Some(packet),
                    Fate::Dropped => {}
                    Fate::Rewritten(to, difference) => {
                        segment.rewrite(&mut packet, &to, difference);
                        back.push(packet);
                    }
                }
                None
            }
        }
    }

    /// Whether a packet that the tunnel's far end sent may be written to the device: it neither
    /// claims to be from the stand-in nor begins a connection to the listener.
    pub fn may_enter(&self, packet: &[u8]) -> bool {
        let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let Some(redirect) = self.redirect(is_ipv6) else { return true };
        let (at, length) = if is_ipv6 { (8, 16) } else { (12, 4) };
        if packet.get(at..at + length) == redirect.stand_in.get(..length) {
            return false;
        }
        let Some(segment) = Segment::of(packet).filter(Segment::is_opening) else { return true };
        let tuple = segment.tuple(packet);
        (tuple.destination, tuple.destination_port) != (redirect.own, redirect.port)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the held SYN to the listener.
    pub fn admit(&mut self, key: FlowKey, now: Duration, back: &mut Vec<Inbound>) {
        let Some(Held { mut syn, .. }) = self.decide(key, State::Admitted, now + ACCEPTED_WITHIN) else {
            return;
        };
        let (Some(redirect), Some(flow)) = (self.redirect(key.is_ipv6()), self.flows.get(key)) else {
            return;
        };
        if let Some(segment) = Segment::of(&syn.bytes) {
            segment.rewrite(&mut syn, &redirect.tuple(key.port()), flow.difference);
            back.push(syn);
        }
    }

    /// Answers the held SYN; the connection does not come about.
    pub fn refuse(&mut self, key: FlowKey, refusal: Refusal, now: Duration, back: &mut Vec<Inbound>) {
        let Some(tuple) = self.flows.get(key).map(|flow| flow.tuple) else { return };
        let Some(Held { syn, .. }) = self.decide(key, State::Silent, now + SET_ASIDE) else { return };
        let (Some(redirect), Some(segment)) = (self.redirect(key.is_ipv6()), Segment::of(&syn.bytes)) else {
            return;
        };
        back.push(match refusal {
            Refusal::Silent => return,
            Refusal::Reset => refusal::reset(&syn.bytes, &segment, &tuple),
            Refusal::Unreachable(why) => refusal::unreachable(&syn, &segment, &tuple, redirect.stand_in, why),
        });
        self.flows.remove(key);
    }

    /// Lets the flow go as packets. Returns the held SYN, the first of them.
    pub fn release(&mut self, key: FlowKey, now: Duration) -> Option<Inbound> {
        self.decide(key, State::Passed, now + SET_ASIDE).map(|held| held.syn)
    }

    /// The flow of a socket that the listener accepted, by the socket's peer. `None`: the socket
    /// belongs to no flow that waits for one, and is to be closed.
    pub fn accept(&mut self, peer: SocketAddr) -> Option<FlowKey> {
        let is_ipv6 = peer.is_ipv6();
        self.redirect(is_ipv6).filter(|redirect| redirect.stand_in == octets(peer.ip()))?;
        let key = self.flows.by_port(peer.port(), is_ipv6)?;
        self.flows.get(key).filter(|flow| matches!(flow.state, State::Admitted))?;
        self.flows.enter(key, State::Open, None);
        Some(key)
    }

    /// The owner is through with a flow: it has closed the socket. Packets are still rewritten
    /// while the kernels have any.
    pub fn forget(&mut self, key: FlowKey, now: Duration) {
        let Some(flow) = self.flows.get(key) else { return };
        match flow.state {
            State::Admitted | State::Open => self.close(key, now),
            State::Held(_) | State::Passed | State::Silent => self.flows.remove(key),
            State::Closing(_) => {}
        }
    }

    /// When [`Self::handle_timeout`] has work.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let probes = [&self.ipv4, &self.ipv6].into_iter().flatten();
        probes.filter_map(|listener| listener.probe.deadline()).chain(self.flows.deadline()).min()
    }

    /// Does what is due; what is to be written to the device is appended to `back`.
    pub fn handle_timeout(&mut self, now: Duration, back: &mut Vec<Inbound>) {
        for is_ipv6 in [false, true] {
            let Some(redirect) = self.redirect(is_ipv6) else { continue };
            let to = redirect.tuple(probe::PORT);
            let finding = self.probe(is_ipv6).and_then(|probe| probe.handle_timeout(is_ipv6, &to, now, back));
            self.on_finding(is_ipv6, finding);
        }
        while let Some(key) = self.flows.pop_due(now) {
            let Some(flow) = self.flows.get(key) else { continue };
            let patience = if flow.is_over() || flow.is_retired { LINGER } else { SILENCE_MAX };
            match flow.state {
                State::Held(_) | State::Admitted => self.abandon(key, now),
                State::Closing(heard_at) if heard_at + patience > now => {
                    self.flows.set_deadline(key, Some(heard_at + patience));
                }
                State::Closing(_) | State::Passed | State::Silent => self.flows.remove(key),
                State::Open => {}
            }
        }
    }

    /// Takes what is no segment: passed, dropped, or an ICMP error about a flow's packet, which the
    /// listener's kernel is told.
    fn take_other(&mut self, mut packet: Inbound, back: &mut Vec<Inbound>) -> Option<Inbound> {
        if self.is_to_stand_in(&packet.bytes) {
            return None;
        }
        let Some(quote) = Quote::of(&packet.bytes) else { return Some(packet) };
        let Some(redirect) = self.redirect(quote.is_ipv6) else { return Some(packet) };
        let tuple = quote.tuple(&packet.bytes).reversed();
        let Some(key) = self.flows.by_tuple(&tuple, quote.is_ipv6) else { return Some(packet) };
        let flow = self.flows.get(key)?;
        match flow.state {
            State::Passed => return Some(packet),
            State::Held(_) | State::Silent => return None,
            State::Admitted | State::Open | State::Closing(_) => {}
        }
        let about = redirect.tuple(key.port()).reversed();
        quote.rewrite(&mut packet, redirect.stand_in, &about, flow.difference);
        back.push(packet);
        None
    }

    fn redirect(&self, is_ipv6: bool) -> Option<Redirect<[u8; 16]>> {
        let listener = if is_ipv6 { &self.ipv6 } else { &self.ipv4 };
        listener.as_ref().map(|listener| listener.redirect)
    }

    fn probe(&mut self, is_ipv6: bool) -> Option<&mut Probe> {
        let listener = if is_ipv6 { &mut self.ipv6 } else { &mut self.ipv4 };
        listener.as_mut().map(|listener| &mut listener.probe)
    }

    /// Takes the listener's answer to a probe.
    fn take_probe(&mut self, segment: &Segment, packet: &[u8], back: &mut Vec<Inbound>) {
        let is_ipv6 = segment.is_ipv6;
        let Some(redirect) = self.redirect(is_ipv6) else { return };
        let to = redirect.tuple(probe::PORT);
        let finding = self.probe(is_ipv6).and_then(|probe| probe.take(segment, packet, &to, back));
        self.on_finding(is_ipv6, finding);
    }

    fn on_finding(&mut self, is_ipv6: bool, finding: Option<Finding>) {
        let event = finding.map(|found| Event::Reachable { is_ipv6, is_reachable: found == Finding::Open });
        self.events.extend(event);
    }

    /// An application repeats a SYN that the listener has, which the listener's kernel should have
    /// answered. Whether the listener cannot be reached: the connection is the owner's no more, and
    /// goes as packets.
    fn give_back(&mut self, key: FlowKey, now: Duration) -> bool {
        let Some(probe) = self.probe(key.is_ipv6()) else { return false };
        if !probe.is_shut() {
            probe.doubt(now);
            return false;
        }
        self.events.push_back(Event::Abandoned(key));
        self.flows.enter(key, State::Passed, Some(now + SET_ASIDE));
        true
    }

    /// By the destination address alone, of any packet.
    fn is_to_stand_in(&self, packet: &[u8]) -> bool {
        let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let (at, length) = if is_ipv6 { (24, 16) } else { (16, 4) };
        let redirect = self.redirect(is_ipv6);
        redirect.is_some_and(|redirect| packet.get(at..at + length) == redirect.stand_in.get(..length))
    }

    /// The place of the packet before this one, if that is this one's.
    fn last_place(&mut self, segment: &Segment, tuple: &Tuple) -> Option<Place> {
        let (is_ipv6, last, place) = self.last.as_ref()?;
        if segment.is_opening() || *is_ipv6 != segment.is_ipv6 || last != tuple {
            return None;
        }
        let place = *place;
        match place {
            Place::Flow(key, _) => self.flows.get(key).map(|_| place),
            Place::Elsewhere | Place::Dropped | Place::Probe | Place::New => Some(place),
        }
    }

    /// Finds where a segment belongs. A SYN's copy and an older flow of the same tuple are dealt
    /// with on the way.
    fn place(&mut self, segment: &Segment, tuple: &Tuple, packet: &[u8], now: Duration) -> Place {
        let is_ipv6 = segment.is_ipv6;
        let Some(redirect) = self.redirect(is_ipv6) else { return Place::Elsewhere };
        let is_of_listener = (tuple.source, tuple.source_port) == (redirect.own, redirect.port);
        if tuple.destination == redirect.stand_in {
            if is_of_listener && tuple.destination_port == probe::PORT {
                return Place::Probe;
            }
            let flow = self.flows.by_port(tuple.destination_port, is_ipv6).filter(|_| is_of_listener);
            return flow.map_or(Place::Dropped, |key| Place::Flow(key, Way::Back));
        }
        if is_of_listener && segment.is_accepting() {
            // The listener serves nothing but flows. Other segments from its port may be those of a
            // host behind this one, whose addresses the kernel translates.
            return Place::Dropped;
        }
        let known = self.flows.by_tuple(tuple, is_ipv6);
        if !segment.is_opening() {
            return known.map_or(Place::Elsewhere, |key| Place::Flow(key, Way::Out));
        }
        let Some(key) = known else { return Place::New };
        let Some(flow) = self.flows.get(key) else { return Place::New };
        if flow.sequence == segment.sequence(packet) {
            if let State::Held(held) = &flow.state {
                let deadline = now + now.saturating_sub(held.since) + FIRST_COPY_MAX;
                self.flows.set_deadline(key, Some(deadline));
            }
            return Place::Flow(key, Way::Out);
        }
        if matches!(flow.state, State::Open) && !flow.is_over() {
            // The listener's kernel decides (RFC 5961 §4), as the destination's would.
            return Place::Flow(key, Way::Out);
        }
        self.replace(key, now);
        Place::New
    }

    /// Holds a SYN, or returns it.
    fn request(
        &mut self,
        packet: Inbound,
        segment: &Segment,
        tuple: Tuple,
        now: Duration,
        wants: impl FnOnce(&Connection) -> bool,
    ) -> Option<Inbound> {
        let is_ipv6 = segment.is_ipv6;
        let Some(redirect) = self.redirect(is_ipv6) else { return Some(packet) };
        let (source, destination) = tuple.sockets(is_ipv6);
        let connection = Connection { source, destination, dscp: segment.dscp(&packet.bytes) };
        let is_ours = is_host(source.ip())
            && is_host(destination.ip())
            && !segment.is_bound_to_addresses(&packet.bytes)
            && self.probe(is_ipv6).is_some_and(|probe| probe.is_open())
            && wants(&connection);
        if !is_ours {
            return Some(packet);
        }
        // A copy: the packet may be a small part of a large buffer.
        let syn = Inbound { bytes: BytesMut::from(&packet.bytes[..]), follows: false, ..packet };
        let held = Held { syn, since: now };
        let difference = |port| Difference::between(&tuple, &redirect.tuple(port));
        let sequence = segment.sequence(&packet.bytes);
        let Some(key) = self.flows.hold(tuple, is_ipv6, sequence, held, difference) else {
            return Some(packet);
        };
        self.flows.set_deadline(key, Some(now + FIRST_COPY_MAX));
        self.events.push_back(Event::Requested(key, connection));
        if let Some(oldest) = self.flows.surplus() {
            self.abandon(oldest, now);
        }
        None
    }

    /// What becomes of a flow's segment.
    fn pass(&mut self, key: FlowKey, way: Way, segment: &Segment, now: Duration) -> Fate {
        let Some(redirect) = self.redirect(key.is_ipv6()) else { return Fate::Dropped };
        let Some(flow) = self.flows.get(key) else { return Fate::Dropped };
        match &mut flow.state {
            State::Passed if way == Way::Out => return Fate::Passed,
            State::Held(_) if way == Way::Out && segment.is_reset() => {
                self.abandon(key, now);
                return Fate::Dropped;
            }
            State::Held(_) | State::Passed | State::Silent => return Fate::Dropped,
            State::Closing(heard_at) => *heard_at = now,
            State::Admitted if segment.is_opening() => {
                if self.give_back(key, now) {
                    return Fate::Passed;
                }
            }
            State::Admitted | State::Open => {}
        }
        let Some(flow) = self.flows.get(key) else { return Fate::Dropped };
        if flow.is_retired {
            return Fate::Dropped;
        }
        let fate = match way {
            Way::Out => Fate::Rewritten(redirect.tuple(key.port()), flow.difference),
            Way::Back => Fate::Rewritten(flow.tuple.reversed(), flow.difference.reversed()),
        };
        if segment.is_reset() {
            flow.ended = Ended::BOTH;
            if matches!(flow.state, State::Admitted) {
                self.abandon(key, now);
            }
        } else if segment.is_end() {
            flow.ended.add(way);
        }
        fate
    }

    /// Makes room for a new flow of the same tuple.
    fn replace(&mut self, key: FlowKey, now: Duration) {
        let Some(flow) = self.flows.get(key) else { return };
        match flow.state {
            State::Held(_) | State::Admitted => self.abandon(key, now),
            State::Passed | State::Silent => self.flows.remove(key),
            State::Open | State::Closing(_) => {}
        }
        self.flows.retire(key);
    }

    /// The application wants the connection no more, and the owner has no socket of it.
    fn abandon(&mut self, key: FlowKey, now: Duration) {
        self.events.push_back(Event::Abandoned(key));
        if self.flows.get(key).is_some_and(|flow| matches!(flow.state, State::Admitted)) {
            // The kernel may have a socket, and ends it.
            self.close(key, now);
        } else {
            self.flows.remove(key);
        }
    }

    fn close(&mut self, key: FlowKey, now: Duration) {
        self.flows.enter(key, State::Closing(now), Some(now + LINGER));
    }

    /// Takes the SYN out of a held flow, which enters another state.
    fn decide(&mut self, key: FlowKey, state: State, deadline: Duration) -> Option<Held> {
        self.flows.get(key).filter(|flow| matches!(flow.state, State::Held(_)))?;
        let State::Held(held) = self.flows.enter(key, state, Some(deadline))? else { return None };
        Some(*held)
    }
}

/// Whether the address is one host's (RFC 1122 §3.2.1.3; RFC 4291 §2).
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}

#[cfg(test)]
mod tests;
