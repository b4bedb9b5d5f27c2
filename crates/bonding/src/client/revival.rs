//! Brings links that are down up again.
//!
//! A link may be down for a reason that the client can get around. A NAT on the way keeps a mapping
//! that leads nowhere, which heartbeats from the same port keep alive for ever; a firewall has
//! blocked the addresses and ports that the link uses, or lets through only some of the server's
//! ports. So a link that has been down for a while gets another socket, with another port of its
//! own, and sends to another of the server's ports: each once, then again with growing pauses. The
//! other links notice nothing.
//!
//! A link that was up before tries another source port alone first. Ports over which other links
//! are up come before the rest.
//!
//! It knows names, states, ports and times. What is on the way it does not know: that a try helped
//! is said where the link answers soon after it. Why a link is down, as far as that is known, is
//! one sentence for the log and the status ([`super::diagnosis`]). ICMP is listened to only while a
//! link is down, and only for that sentence.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bonding_os::netlink::Requests;
use bonding_os::poll::Poller;
use bonding_os::reverse_path;
use bonding_proto::client::Client;
use bonding_proto::{Event, Instant, LinkId, SocketEvent, SocketId, StateMachine as _};

use super::diagnosis::{self, Known, Way};
use crate::config::Ports;
use crate::engine::plan::LinkPlan;
use crate::engine::sockets::Sockets;

/// The pause before the first try, and until each port was tried. Chosen: above the round trips
/// that bring up a satellite link, and the time of a short outage.
const PAUSE_MIN: Duration = Duration::from_secs(3);
/// The longest pause. Chosen: a try costs a socket and a handshake; a person notices a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A link that answers within this after a try was helped by it. Chosen: two handshakes and the
/// round trip of a satellite link.
const HELP: Duration = Duration::from_secs(3);

/// The log says why a link is down at most this often where the cause is another one, and at most
/// so often where it is the same. Chosen: a day of a dead link is 144 lines.
const SAID_AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

/// The tries for all links of a client.
#[derive(Debug)]
pub(super) struct Revival {
    ports: Ports,
    links: Vec<Attempts>,
    /// Why the server's name has no address.
    unknown: Option<String>,
    /// The tunnel's device: its index and its name.
    tunnel: (u32, String),
}

/// The tries for one link.
#[derive(Debug)]
struct Attempts {
    name: String,
    /// The device that it is bound to, and the address.
    interface: Option<String>,
    source: Option<IpAddr>,
    /// Since when it is down, if it is.
    down_at: Instant,
    /// Its socket listens for errors, which it does while it is down.
    listens: bool,
    /// What reverse-path filtering had dropped at the last look, and whether it dropped more since
    /// the look before, in a namespace where the interface is filtered strictly.
    filter_drops: Option<u64>,
    is_filtered: bool,
    /// A route led what it sends into the tunnel at the last look.
    is_looped: bool,
    /// The cause that was logged last, and when.
    said: Option<(String, Instant)>,
    /// The server's port that it sends to, and the one that it sent to when it was up, or began
    /// with.
    port: u16,
    port_before: u16,
    /// It was up before.
    was_up: bool,
    /// The number has no line.
    is_gone: bool,
    /// When the next try is due; `None`: the link is not down.
    due: Option<Instant>,
    /// The ports that are still to be tried before all are tried again.
    round: VecDeque<u16>,
    /// Tries since it went down, and when the last one was.
    tries: usize,
    tried_at: Instant,
}

impl Revival {
    /// All links are down as yet.
    pub(super) fn new(links: &[LinkPlan], ports: Ports, tunnel: (u32, String), now: Instant) -> Self {
        let attempts = links.iter().map(|link| Attempts::new(link, now));
        Self { ports, links: attempts.collect(), unknown: None, tunnel }
    }

    /// The link with this number is this one from now on: one that there is already, or the next.
    pub(super) fn set(&mut self, id: LinkId, link: &LinkPlan, now: Instant) {
        match self.links.get_mut(id.index()) {
            Some(place) => *place = Attempts::new(link, now),
            None => self.links.push(Attempts::new(link, now)),
        }
    }

    /// The number has no line any more.
    pub(super) fn remove(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id.index()) {
            (link.is_gone, link.due, link.listens) = (true, None, false);
        }
    }

    /// Whether a link is up.
    fn any_up(&self) -> bool {
        self.links.iter().any(Attempts::is_up)
    }

    /// The server's name has no address for this reason, or has one.
    pub(super) fn set_unknown(&mut self, failure: Option<&str>) {
        self.unknown = failure.map(str::to_owned);
    }

    /// How many links are down.
    pub(super) fn links_down(&self) -> usize {
        self.links.iter().filter(|link| link.due.is_some()).count()
    }

    /// The server's port that the link at this place sends to.
    pub(super) fn port(&self, at: usize) -> u16 {
        self.links.get(at).map_or(0, |link| link.port)
    }

    /// When [`Self::tend`] has work.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.links.iter().any(Attempts::is_changed) {
            return Some(Instant::ZERO);
        }
        self.links.iter().filter_map(|link| link.due).min()
    }

    /// Why a link is down, as far as that is known; `None`: it is not down.
    pub(super) fn sentence(
        &self,
        id: LinkId,
        has_path: bool,
        sockets: &Sockets,
        now: Instant,
    ) -> Option<String> {
        let link = self.links.get(id.index()).filter(|link| link.due.is_some())?;
        let others_are_up = self.any_up();
        let way = Way::of(has_path, self.unknown.as_deref());
        let known = Known { looped: self.looped(link), ..link.known(id, way, others_are_up, sockets) };
        let cause = known.cause();
        Some(diagnosis::sentence(&cause, link.was_up, now.saturating_since(link.down_at), link.port))
    }

    /// The tunnel's device, if the link is led into it.
    fn looped(&self, link: &Attempts) -> Option<&str> {
        link.is_looped.then_some(self.tunnel.1.as_str())
    }

    /// A link may have gone down or answered: says whether a try helped.
    pub(super) fn on_event(&mut self, event: &Event, client: &Client, now: Instant) {
        if !matches!(event, Event::LinkState { .. } | Event::ServerChanged { .. }) {
            return;
        }
        let was_silent = !self.any_up();
        for (number, link) in (0..u8::MAX).zip(&mut self.links).filter(|(_, link)| !link.is_gone) {
            match (client.is_link_down(LinkId(number)), link.due) {
                (true, None) => link.on_down(now),
                (false, Some(_)) => link.on_answer(now),
                (true, Some(_)) | (false, None) => {}
            }
        }
        if was_silent && self.any_up() {
            // The server itself may have been away: no try could help until now.
            let all = self.ports.count();
            self.links.iter_mut().filter(|link| link.tries >= all).for_each(|link| link.begin_anew(now));
        }
    }

    /// Tries what is due. Whether the client was told of it.
    pub(super) fn tend(
        &mut self,
        client: &mut Client,
        sockets: &mut Sockets,
        poller: &Poller,
        now: Instant,
    ) -> bool {
        let mut told = false;
        let proven: Vec<u16> = self.links.iter().filter(|link| link.is_up()).map(|link| link.port).collect();
        let unknown = self.unknown.as_deref();
        for (number, link) in (0..u8::MAX).zip(&mut self.links) {
            let id = LinkId(number);
            link.settle(id, sockets);
            if link.due.is_none_or(|due| due > now) {
                continue;
            }
            link.look();
            link.look_for_loop(client.remote(id), self.tunnel.0);
            let looped = link.is_looped.then_some(self.tunnel.1.as_str());
            let way = Way::of(client.has_path(id), unknown);
            link.say(id, (way, looped), !proven.is_empty(), sockets, now);
            // An interface that comes back is no matter of ports.
            if !sockets.replace(poller, id) {
                link.due = Some(now + PAUSE_MIN);
                continue;
            }
            link.on_try(self.ports, &proven, now);
            client.set_port(id, link.port);
            client.handle_socket_event(SocketId(number), SocketEvent::Replaced, now);
            told = true;
        }
        told
    }
}

impl Attempts {
    /// A link without an answer so far.
    fn new(link: &LinkPlan, now: Instant) -> Self {
        Self {
            name: link.name.clone(),
            interface: link.interface.clone(),
            source: link.source,
            down_at: now,
            listens: false,
            filter_drops: None,
            is_filtered: false,
            is_looped: false,
            said: None,
            port: link.port,
            port_before: link.port,
            was_up: false,
            is_gone: false,
            due: Some(now + PAUSE_MIN),
            round: VecDeque::new(),
            tries: 0,
            tried_at: Instant::ZERO,
        }
    }

    fn is_up(&self) -> bool {
        self.due.is_none() && !self.is_gone
    }

    fn on_down(&mut self, now: Instant) {
        self.down_at = now;
        self.due = Some(now + PAUSE_MIN);
    }

    /// It went down or came up since [`Self::settle`].
    fn is_changed(&self) -> bool {
        self.listens != self.due.is_some()
    }

    /// Its socket listens for errors while it is down.
    fn settle(&mut self, id: LinkId, sockets: &mut Sockets) {
        if self.is_changed() {
            self.listens = self.due.is_some();
            sockets.listen_for_errors(id, self.listens);
            self.filter_drops = None;
            self.look();
        }
    }

    /// Looks whether reverse-path filtering drops what comes in.
    fn look(&mut self) {
        let is_strict = self.interface.as_deref().is_some_and(reverse_path::is_strict);
        let drops = if is_strict { reverse_path::drops() } else { None };
        let before = std::mem::replace(&mut self.filter_drops, drops);
        self.is_filtered = drops.zip(before).is_some_and(|(drops, before)| drops > before);
    }

    /// Looks whether what it sends ends in the tunnel. What a bound interface sends does not.
    fn look_for_loop(&mut self, remote: Option<SocketAddr>, tunnel: u32) {
        let remote = remote.filter(|_| self.interface.is_none());
        let way = remote.and_then(|remote| Requests::open().ok()?.way_to(remote.ip(), self.source));
        self.is_looped = way == Some(tunnel);
    }

    fn known<'a>(&'a self, id: LinkId, way: Way<'a>, others_are_up: bool, sockets: &Sockets) -> Known<'a> {
        Known {
            interface: self.interface.as_deref(),
            trouble: sockets.trouble(id),
            way,
            is_filtered: self.is_filtered,
            looped: None,
            others_are_up,
        }
    }

    /// Logs why it is down, at most once a minute.
    fn say(
        &mut self,
        id: LinkId,
        (way, looped): (Way<'_>, Option<&str>),
        others_are_up: bool,
        sockets: &Sockets,
        now: Instant,
    ) {
        let [other, same] = SAID_AGAIN;
        if self.said.as_ref().is_some_and(|(_, at)| now.saturating_since(*at) < other) {
            return;
        }
        let cause = Known { looped, ..self.known(id, way, others_are_up, sockets) }.cause();
        if self.said.as_ref().is_some_and(|(said, at)| *said == cause && now.saturating_since(*at) < same) {
            return;
        }
        let sentence =
            diagnosis::sentence(&cause, self.was_up, now.saturating_since(self.down_at), self.port);
        tracing::warn!(link = self.name, "{} is down: {sentence}", self.name);
        self.said = Some((cause, now));
    }

    /// Another socket is open: chooses the port that it sends to.
    fn on_try(&mut self, ports: Ports, proven: &[u16], now: Instant) {
        if self.tries == 0 {
            let ports = (ports.count() > 1).then(|| format!(" and the server's ports {ports}"));
            let ports = ports.unwrap_or_default();
            tracing::info!(link = self.name, "the link is down: trying other source ports{ports}");
        }
        if self.round.is_empty() {
            self.round = round(ports, self.port, proven);
            if self.tries == 0 && self.was_up {
                // Its port is the one that was good.
                self.round.rotate_right(1);
            }
        }
        self.port = self.round.pop_front().unwrap_or(self.port);
        let doublings = self.tries.saturating_sub(ports.count() - 1).min(5);
        self.due = Some(now + (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX));
        self.tries += 1;
        self.tried_at = now;
    }

    fn on_answer(&mut self, now: Instant) {
        if self.tries > 0 && now.saturating_since(self.tried_at) <= HELP {
            let name = &self.name;
            if self.port == self.port_before {
                tracing::info!(link = name, "{name} is up again: a new source port helped");
            } else {
                tracing::info!(link = name, "{name} is up: port {} of the server helped", self.port);
            }
        }
        self.port_before = self.port;
        self.was_up = true;
        self.due = None;
        self.tries = 0;
        self.round.clear();
    }

    fn begin_anew(&mut self, now: Instant) {
        if self.due.is_some() {
            self.due = self.due.min(Some(now + PAUSE_MIN));
            self.tries = 0;
            self.round.clear();
        }
    }
}

/// All ports in the order in which they are tried: those that are `proven`, then the others from
/// `own` on, and `own` last.
fn round(ports: Ports, own: u16, proven: &[u16]) -> VecDeque<u16> {
    let (first, _) = ports.range();
    let from = usize::from(own.saturating_sub(first));
    let others = (1..ports.count()).map(|step| ports.cycle(from + step));
    let (mut found, rest): (Vec<u16>, Vec<u16>) = others.partition(|port| proven.contains(port));
    found.extend(rest);
    found.push(own);
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn attempts(was_up: bool) -> Attempts {
        Attempts {
            name: "sat1".to_owned(),
            interface: None,
            source: None,
            down_at: Instant::ZERO,
            listens: false,
            filter_drops: None,
            is_filtered: false,
            is_looped: false,
            said: None,
            port: 9_002,
            port_before: 9_002,
            was_up,
            is_gone: false,
            due: Some(Instant::ZERO),
            round: VecDeque::new(),
            tries: 0,
            tried_at: Instant::ZERO,
        }
    }

    /// The ports of the next tries, and the pauses after them in seconds.
    fn tries(link: &mut Attempts, ports: Ports, proven: &[u16], count: usize) -> (Vec<u16>, Vec<u64>) {
        let one = |_| {
            let now = link.due.unwrap();
            link.on_try(ports, proven, now);
            (link.port, link.due.unwrap().saturating_since(now).as_secs())
        };
        (0..count).map(one).unzip()
    }

    #[test]
    fn each_port_has_its_turn_and_then_the_pauses_grow() {
        let five = Ports::DEFAULT;
        let (ports, pauses) = tries(&mut attempts(false), five, &[9_004, 9_001], 11);
        assert_eq!(ports, [9_004, 9_001, 9_003, 9_005, 9_002, 9_004, 9_001, 9_003, 9_005, 9_002, 9_004]);
        assert_eq!(pauses, [3, 3, 3, 3, 3, 6, 12, 24, 48, 60, 60]);
    }

    #[test]
    fn a_link_that_was_up_tries_another_source_port_alone_first() {
        let (ports, _) = tries(&mut attempts(true), Ports::DEFAULT, &[], 6);
        assert_eq!(ports, [9_002, 9_003, 9_004, 9_005, 9_001, 9_002]);
        let (ports, pauses) = tries(&mut attempts(true), config::ports("9002").unwrap(), &[], 4);
        assert_eq!((ports, pauses), (vec![9_002; 4], vec![3, 6, 12, 24]));
    }
}
