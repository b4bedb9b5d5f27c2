//! A session's links, and everything that is derived from them: the views that schedulers read, the
//! delays that the resequencer reads, the rate at which the queue drains.
//!
//! Contract: every change of a link that matters to other parts goes through a method here, which
//! adds an [`Impact`]. The session settles the impact with one function; see [`changes`](self) for
//! the table of what follows from which change. [`LinkTable::get_mut`] is for what changes no
//! derived value: sending, and control frames.
//!
//! Views depend on time as well (credit, pacing rate). They are made anew for each batch of data
//! ([`LinkTable::refresh_views`]).
//!
//! The table knows no queue, no keys and no packets: it is told whether sealed links have keys.

mod capacity;
mod changes;
mod delays;
mod new_links;
mod silence;
mod views;

use self::changes::Changes;
pub(super) use self::changes::{Impact, Transition};
pub(super) use self::delays::ReceiveDelays;
use self::new_links::NewLinks;
use self::silence::SilenceChecks;
use self::views::Views;
use crate::config::{LINKS_MAX, LinkConfig, Role, Security, SessionConfig};
use crate::discard::Discard;
use crate::event::{Event, SocketEvent};
use crate::link::{Link, Outgoing};
use crate::packet::{LinkId, Path, SocketId, UdpFlow};
use crate::qos::queue::Delays;
use crate::recovery;
use crate::scheduler;
use crate::time::Instant;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};
use crate::wire::control::{CloseReason, Control};
use crate::wire::feedback::Feedback;
use crate::wire::heartbeat::Heartbeat;
use std::net::SocketAddr;
use std::time::Duration;

/// The links of one session.
#[derive(Debug)]
pub(super) struct LinkTable {
    links: Vec<Link>,
    new_links: NewLinks,
    /// Some links are plain. Links that are added later are sealed.
    has_plain: bool,
    /// Losses on sealed links are sent again.
    recovers: bool,
    /// Made anew for each batch of data; credit spent since is charged.
    pub(super) views: Views,
    delays: ReceiveDelays,
    silence: SilenceChecks,
    changes: Changes,
}

/// How long the queue may stand, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueDelays {
    /// Of near links: how much longer the slowest in use takes than the fastest, or what a resend
    /// or a dip takes; and their round trip.
    pub(super) near: Delays,
    /// The same of far links.
    pub(super) far: Delays,
    /// The least and the longest round trip of the links in use.
    pub(super) rounds: (Duration, Duration),
}

impl LinkTable {
    /// Links without proof. At most [`LINKS_MAX`] are used.
    pub(super) fn new(config: &SessionConfig, now: Instant) -> Self {
        let links = (0..u8::MAX)
            .zip(config.links.iter().take(LINKS_MAX))
            .map(|(id, link)| Link::new(LinkId(id), config.role, link, config.heartbeat_interval, now));
        let mut table = Self {
            has_plain: config.links.iter().any(|link| link.security == Security::Plain),
            links: links.collect(),
            new_links: NewLinks::new(config),
            recovers: config.recovery.resend,
            views: Views::default(),
            delays: ReceiveDelays::default(),
            silence: SilenceChecks::default(),
            changes: Changes::default(),
        };
        table.changes.add(Impact::ALL);
        table
    }

    // Reading.

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id.index())
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Link> {
        self.links.iter()
    }

    pub(super) fn sealed(&self) -> impl Iterator<Item = &Link> + Clone {
        self.links.iter().filter(|link| link.security() == Security::Sealed)
    }

    pub(super) fn is_sealed(&self, id: LinkId) -> bool {
        self.get(id).is_some_and(|link| link.security() == Security::Sealed)
    }

    /// How the link is protected; `None`: there is no such link.
    pub(super) fn security(&self, id: LinkId) -> Option<Security> {
        self.get(id).map(Link::security)
    }

    /// Whether a plain datagram of the link may come on this path. A client accepts the address
    /// that it was told; a server's caller has matched address and link.
    pub(super) fn accepts_plain(&self, id: LinkId, path: &Path) -> Result<(), Discard> {
        let link = self.get(id).filter(|link| link.security() == Security::Plain);
        let known = link.ok_or(Discard::UnknownPeer)?.path().current();
        if self.new_links.role == Role::Client && known.is_none_or(|known| known.remote != path.remote) {
            return Err(Discard::UnknownPeer);
        }
        Ok(())
    }

    /// A well-formed plain datagram of `bytes` arrived.
    pub(super) fn on_plain_datagram(&mut self, id: LinkId, bytes: usize, now: Instant) {
        if let Some(link) = self.get_mut(id) {
            link.on_datagram(bytes, now);
        }
    }

    /// Whether a sealed datagram of the link and flow may come on this path. A client's comes over
    /// the flow's own socket, from an address that the client sends to.
    pub(super) fn accepts_sealed(&self, id: LinkId, flow: UdpFlow, path: &Path) -> bool {
        let link = self.get(id);
        let is_sealed = link.is_none_or(|link| link.security() == Security::Sealed);
        match self.new_links.role {
            Role::Client => {
                is_sealed
                    && path.socket == SocketId::of(id, flow)
                    && link.is_some_and(|link| link.path().accepts_from(path))
            }
            Role::Server => is_sealed && id.index() < LINKS_MAX,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether a sealed link is proven.
    pub(super) fn has_proven(&self) -> bool {
        self.sealed().any(|link| link.state() == LinkState::Up)
    }

    /// Whether a link carries data.
    pub(super) fn is_connected(&self) -> bool {
        self.links.iter().any(is_in_use)
    }

    /// The links that failed, a bit each. An earlier version of the peer knows no retired ones.
    pub(super) fn failed(&self) -> u32 {
        let failed = self.links.iter().filter(|link| link.liveness().has_failed());
        bits(failed) | self.retired()
    }

    /// The sealed links that a client retired, a bit each.
    pub(super) fn retired(&self) -> u32 {
        match self.new_links.role {
            Role::Client => bits(self.sealed().filter(|link| link.is_retired())),
            Role::Server => 0,
        }
    }

    /// One of the sealed links that a server's client retired, a bit each, and that this side did
    /// not retire yet.
    pub(super) fn newly_retired(&self, retired: u32) -> Option<LinkId> {
        if self.new_links.role == Role::Client {
            return None;
        }
        let mut sealed = self.sealed().filter(|link| !link.is_retired());
        sealed.find(|link| bits(std::iter::once(*link)) & retired != 0).map(Link::id)
    }

    /// Bytes of packets kept to be sent again.
    pub(super) fn kept_bytes(&self) -> usize {
        self.links.iter().map(|link| link.deliveries().kept_bytes()).sum()
    }

    /// What feedback made links look at.
    pub(super) fn touched(&self) -> u64 {
        self.links.iter().map(|link| link.deliveries().touched()).sum()
    }

    /// When links are to be checked for silence though nothing arrives.
    pub(super) fn silence_timeout(&self) -> Option<Instant> {
        let checks = self.links.len() > 1 && self.links.iter().any(Link::may_fall_silent);
        checks.then(|| self.silence.next_at())
    }

    // Changes.

    pub(super) fn has_changes(&self) -> bool {
        self.changes.has_any()
    }

    pub(super) fn take_changes(&mut self, transitions: &mut Vec<Transition>) -> Impact {
        self.changes.take(transitions)
    }

    pub(super) fn give_back(&mut self, transitions: Vec<Transition>) {
        self.changes.give_back(transitions);
    }

    /// A link, to do what changes no derived value.
    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.index())
    }

    /// The same for all links.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Link> {
        self.links.iter_mut()
    }

    /// Does what may change the link's state.
    fn update(&mut self, id: LinkId, now: Instant, change: impl FnOnce(&mut Link)) {
        let Some(link) = self.links.get_mut(id.index()) else { return };
        let before = link.state();
        change(link);
        self.note_state(id, before, now);
    }

    fn update_all(&mut self, now: Instant, mut change: impl FnMut(&mut Link)) {
        for at in 0..self.links.len() {
            self.update(LinkId(u8::try_from(at).unwrap_or(u8::MAX)), now, &mut change);
        }
    }

    /// A link's state, which was `before`, may have changed.
    fn note_state(&mut self, link: LinkId, before: LinkState, now: Instant) {
        self.end_wait(link, now);
        let Some(after) = self.links.get(link.index()).map(Link::state) else { return };
        if before == after {
            return;
        }
        if after == LinkState::Down {
            // The peer need not find out by itself.
            self.links.iter_mut().filter(|other| other.state() == LinkState::Up).for_each(|other| {
                other.hasten_heartbeat(now);
            });
        }
        let why = self.get(link).map(|link| link.liveness().why()).unwrap_or_default();
        self.changes.add_transition(Transition { link, before, after, why });
    }

    /// A proven link that waits because it flaps is used where there is no other.
    fn end_wait(&mut self, id: LinkId, now: Instant) {
        if !self.links.get(id.index()).is_some_and(Link::only_waits) {
            return;
        }
        let has_other = self.links.iter().any(|link| link.state() == LinkState::Up && is_in_use(link));
        if let Some(link) = self.links.get_mut(id.index()).filter(|_| !has_other) {
            link.end_wait(now);
            // Its proof may be old by now.
            link.on_time(now);
        }
    }

    /// Time has passed: states may change.
    pub(super) fn on_time(&mut self, now: Instant) {
        self.update_all(now, |link| link.on_time(now));
    }

    /// A client's socket, which has its link's number, told of its interface.
    pub(super) fn on_socket_event(&mut self, id: LinkId, event: SocketEvent, now: Instant) {
        self.update(id, now, |link| match event {
            SocketEvent::CarrierFound => link.on_carrier(true, now),
            SocketEvent::CarrierLost => link.on_carrier(false, now),
            SocketEvent::NoRoute => link.on_send_failed(now),
            SocketEvent::Replaced => link.hasten_heartbeat(now),
            SocketEvent::Full | SocketEvent::Writable | SocketEvent::TooBig { .. } => {}
        });
    }

    /// The kernel refused a datagram of `bytes` as too large. Whether a link has that path.
    pub(super) fn on_too_big(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> bool {
        let on_path = |link: &&mut Link| link.path().sends_to(socket, Some(remote));
        let Some(link) = self.links.iter_mut().find(on_path) else { return false };
        if link.path_mut().on_refused(bytes, now) {
            self.changes.add(Impact::SIZES);
        }
        true
    }

    /// A client's link may send to these addresses of its server from now on. Whether it is down,
    /// and sends to another one from now on.
    pub(super) fn set_candidates(&mut self, id: LinkId, candidates: Vec<Path>, now: Instant) -> bool {
        let link = self.links.get_mut(id.index());
        let is_moved = link.is_some_and(|link| link.set_candidates(candidates, now));
        if is_moved {
            self.changes.add(Impact::ALL);
        }
        is_moved
    }

    /// A client's link sends to this port of its server from now on.
    pub(super) fn set_port(&mut self, id: LinkId, port: u16) {
        if let Some(link) = self.links.get_mut(id.index()) {
            link.path_mut().set_port(port);
        }
    }

    /// The link is used for something else from now on.
    pub(super) fn set_role(&mut self, id: LinkId, role: LinkRole, now: Instant) {
        let Some(link) = self.links.get_mut(id.index()).filter(|link| link.link_role() != role) else {
            return;
        };
        link.set_link_role(role, now);
        self.changes.add(Impact::ALL);
    }

    /// The link has another priority from now on.
    pub(super) fn set_priority(&mut self, id: LinkId, priority: u8, now: Instant) {
        if let Some(link) = self.links.get_mut(id.index())
            && link.set_priority(priority, now)
        {
            self.changes.add(Impact::ALL);
        }
    }

    /// The link has these ceilings from now on: of what is sent, and of what is received.
    pub(super) fn set_rates(&mut self, id: LinkId, [tx, rx]: [Option<BitRate>; 2], now: Instant) {
        if let Some(link) = self.links.get_mut(id.index()) {
            link.set_tx_ceiling(tx, now);
            link.set_rx_ceiling(rx, now);
            self.changes.add(Impact::RATES);
        }
    }

    /// Losses on sealed links are sent again from now on, or not any more.
    pub(super) fn set_recovers(&mut self, recovers: bool) {
        self.recovers = recovers;
        self.changes.add(Impact::ALL);
    }

    /// Ceilings of what is sent, by number, also of links that are yet to be added.
    pub(super) fn set_tx_rates(&mut self, rates: Vec<Option<BitRate>>, now: Instant) {
        self.new_links.tx_rates = rates;
        for (at, link) in self.links.iter_mut().enumerate() {
            link.set_tx_ceiling(self.new_links.tx_rate(at), now);
        }
        self.changes.add(Impact::RATES);
    }

    /// A client's link with this number is this line from now on.
    pub(super) fn set(&mut self, id: LinkId, config: &LinkConfig, now: Instant) {
        self.has_plain |= config.security == Security::Plain;
        let (at, count) = (id.index(), self.links.len());
        match self.links.get_mut(at) {
            Some(link) => link.renew(config, now),
            None if at == count && count < LINKS_MAX => {
                self.links.reserve_exact(1);
                self.links.push(self.new_links.make_as(at, config, now));
            }
            None => return,
        }
        self.changes.add(Impact::ALL);
    }

    /// The link is not to be used any more, whatever it did so far.
    pub(super) fn give_up(&mut self, id: LinkId, now: Instant) {
        self.update(id, now, |link| link.on_carrier(false, now));
    }

    /// No line has this number from now on; the link was given up.
    pub(super) fn retire(&mut self, id: LinkId, now: Instant) {
        let blank = self.new_links.blank(id.index());
        if let Some(link) = self.links.get_mut(id.index()) {
            link.retire(&LinkConfig { security: link.security(), ..blank }, now);
            self.changes.add(Impact::ALL);
        }
    }

    /// A server adds its client's links when a datagram of them authenticates.
    pub(super) fn ensure_link(&mut self, id: LinkId, now: Instant) {
        let is_server = self.new_links.role == Role::Server;
        let count = (id.index() + 1).min(LINKS_MAX);
        while is_server && self.links.len() < count {
            // Links are few, and large.
            self.links.reserve_exact(count - self.links.len());
            self.links.push(self.new_links.make(self.links.len(), now));
        }
    }

    /// A heartbeat of the peer's present run. Returns the new path if the peer moved to another
    /// address.
    pub(super) fn on_heartbeat(
        &mut self,
        id: LinkId,
        (seq_num, heartbeat): (u64, &Heartbeat),
        path: Path,
        epoch: u32,
        now: Instant,
    ) -> Result<Option<Path>, Discard> {
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let (before, role_before) = (link.state(), link.link_role());
        let known = link.path().current().is_some();
        let moved = link.on_heartbeat(seq_num, heartbeat, path, epoch, now)?;
        let impact = if role_before == link.link_role() { Impact::MEASURED } else { Impact::ALL };
        self.changes.add(impact);
        self.note_state(id, before, now);
        Ok(moved.filter(|_| known))
    }

    /// The peer says that these links failed, a bit each: a lost carrier is known at one end only,
    /// and one direction alone is no link. What a plain link's heartbeat says counts for plain
    /// ones.
    pub(super) fn on_peer_failures(&mut self, failed: u32, came_over: Security, now: Instant) {
        if failed != 0 {
            self.update_all(now, |link| {
                let may_tell = came_over == Security::Sealed || link.security() == Security::Plain;
                if may_tell && failed.checked_shr(u32::from(link.id().0)).unwrap_or(0) & 1 != 0 {
                    link.liveness_mut().on_peer_failure(now);
                }
            });
        }
    }

    /// The peer was restarted, as links of these kinds are to know.
    pub(super) fn on_peer_restart(&mut self, kinds: &[Security], now: Instant) {
        self.update_all(now, |link| {
            if kinds.contains(&link.security()) {
                link.on_peer_restart(now);
            }
        });
    }

    /// The peer ended the session of the sealed links.
    pub(super) fn on_close(&mut self, now: Instant) {
        self.on_peer_restart(&[Security::Sealed], now);
    }

    /// The peer tells what arrived on the link; `indirect`: over another link.
    pub(super) fn on_feedback(
        &mut self,
        id: LinkId,
        feedback: &Feedback,
        indirect: bool,
        now: Instant,
    ) -> Result<(), Discard> {
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let before = link.state();
        link.on_feedback(feedback, indirect, now)?;
        self.changes.add(Impact::RATES);
        self.note_state(id, before, now);
        Ok(())
    }

    /// The change of the link's congestion control since the last call, if it is worth an event.
    pub(super) fn take_control_change(&mut self, id: LinkId) -> Option<Event> {
        let change = self.links.get_mut(id.index())?.take_control_change()?;
        Some(Event::ControlChanged { link: id, change })
    }

    /// The change of the link's number of UDP flows since the last call.
    pub(super) fn take_flows_change(&mut self, id: LinkId) -> Option<Event> {
        let (from, to) = self.links.get_mut(id.index())?.take_flows_change()?;
        Some(Event::FlowsChanged { link: id, from, to })
    }

    /// A data frame arrived. A link that carries data again may be what the resequencer waits for.
    pub(super) fn on_data(&mut self, id: LinkId, counter: u64, now: Instant) -> Result<(), Discard> {
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        link.traffic_mut().on_data(counter, now);
        if !self.delays.waits_for(id) && link.state() != LinkState::Down {
            self.changes.add(Impact::DELAYS);
        }
        Ok(())
    }

    /// A data datagram was sent: the first one on a link starts the search for its rate.
    pub(super) fn on_data_sent(&mut self, id: LinkId, size: usize, outgoing: Outgoing, now: Instant) {
        let Some(link) = self.links.get_mut(id.index()) else { return };
        if link.on_data_sent(size, outgoing, now) {
            self.changes.add(Impact::RATES);
        }
        if let Some(view) = self.views.get_mut(id) {
            view.free_at = link.pacer().free_at();
        }
    }

    /// A datagram of a sealed link authenticated: its path may follow. That a server's peer moved
    /// is told only when the new path is trusted ([`Self::on_control`]).
    pub(super) fn on_authenticated(
        &mut self,
        id: LinkId,
        (flow, path): (UdpFlow, Path),
        (is_newest, bytes): (bool, usize),
        token: impl FnOnce() -> [u8; 8],
        now: Instant,
    ) -> Result<(), Discard> {
        self.ensure_link(id, now);
        let role = self.new_links.role;
        let link = self.links.get_mut(id.index()).ok_or(Discard::UnknownPeer)?;
        let known = link.path().is_known();
        let moved = match role {
            // A proven link has its path.
            Role::Client => link.state() == LinkState::Down && is_newest && link.path_mut().adopt(path),
            Role::Server => link.follow((flow, path), is_newest, bytes, token, now),
        };
        if role == Role::Server {
            link.on_heard();
        }
        link.on_datagram(bytes, now);
        if moved && known && role == Role::Server {
            // What may be sent to a path depends on whether it is trusted.
            self.changes.add(Impact::MEASURED);
        }
        Ok(())
    }

    /// A control frame about the link itself came on this flow and path, in a datagram of `bytes`.
    /// The path that the peer moved to, once it is trusted.
    pub(super) fn on_control(
        &mut self,
        id: LinkId,
        control: &Control,
        (flow, path): (UdpFlow, &Path),
        bytes: usize,
        now: Instant,
    ) -> Option<Path> {
        let link = self.links.get_mut(id.index())?;
        match control {
            Control::Challenge(token) => link.path_mut().push_control(flow, Control::Response(*token)),
            Control::Response(token) => {
                let moved = flow == UdpFlow::FIRST && link.path().trusts_another(path);
                if link.path_mut().on_response(token, (flow, path), now) {
                    self.changes.add(Impact::ALL);
                    return moved.then_some(*path);
                }
            }
            Control::Probe { id: probe, .. } => {
                link.traffic_mut().discount_received();
                let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
                link.path_mut().push_control(flow, Control::ProbeReceived { id: *probe, bytes });
            }
            Control::ProbeReceived { id: probe, bytes } => {
                if link.path_mut().on_probe_answer(*probe, *bytes, now) {
                    self.changes.add(Impact::SIZES);
                }
            }
            Control::Figures(figures) => link.on_peer_figures(*figures, now),
            Control::Close(_) | Control::Stream(_) | Control::Unknown => {}
        }
        None
    }

    /// This side ends the session: every sealed link tells the peer.
    pub(super) fn push_close(&mut self, reason: CloseReason) {
        let sealed = self.links.iter_mut().filter(|link| link.security() == Security::Sealed);
        sealed.for_each(|link| link.path_mut().push_close(Control::Close(reason)));
    }

    /// The server's first answer came on this path: every sealed link tells the server at once.
    pub(super) fn on_welcome(&mut self, path: Path, now: Instant) {
        for link in self.links.iter_mut().filter(|link| link.security() == Security::Sealed) {
            if link.id() == path.socket.link() && link.state() == LinkState::Down {
                link.path_mut().adopt(path);
            }
            // Those that are up have one soon, and keep the time at which it comes: echoes are the
            // fresher the sooner after the peer's heartbeat this side's goes out.
            if link.state() != LinkState::Up {
                link.hasten_heartbeat(now);
            }
        }
    }

    /// Answers to probes may be overdue.
    pub(super) fn on_probe_time(&mut self, now: Instant) {
        for link in &mut self.links {
            if link.on_probe_time(now) {
                self.changes.add(Impact::SIZES);
            }
        }
    }

    /// A probe is about another path than the last one.
    pub(super) const fn on_probed_path_moved(&mut self) {
        self.changes.add(Impact::SIZES);
    }

    /// Checks whether links are silent. Called when data arrived, and by the timer.
    pub(super) fn check_silence(&mut self, now: Instant) {
        if let Some(since) = self.silence.begin(now) {
            self.links.iter_mut().for_each(|link| link.check_silence(since, now));
        }
    }

    // What is derived.

    /// What the links in use carry together, and whether one of them is still finding out.
    pub(super) fn drain_rate(&self, now: Instant) -> (Option<BitRate>, bool) {
        capacity::drain_rate(&self.links, now)
    }

    /// Whether every link is sealed.
    pub(super) fn are_sealed(&self) -> bool {
        self.links.iter().all(|link| link.security() == Security::Sealed || link.is_retired())
    }

    /// The longest round trip of the links in use, and how many bytes keep all of them busy until
    /// the next ones come.
    pub(super) fn stream_backlog(&self, now: Instant) -> (Duration, usize) {
        capacity::stream_backlog(&self.links, now)
    }

    /// Brings views and receive delays up to date. Returns how long the queue may stand.
    pub(super) fn refresh_delays(&mut self, has_keys: bool, now: Instant) -> QueueDelays {
        self.refresh_views(has_keys, now);
        self.delays.refresh(&self.links, now);
        let stop = recovery::longest_stop(self.views.all());
        let dip = capacity::dip(&self.links, now);
        let [near, far] = scheduler::bulk_delays(self.views.all()).map(|delays| Delays {
            spread: delays.spread.max(stop).max(dip),
            // A packet of a flow that resends stop takes as much longer until its sender knows.
            round: delays.round + stop,
        });
        QueueDelays { near, far, rounds: scheduler::rounds(self.views.all()) }
    }

    /// The links as the scheduler sees them now; `has_keys`: sealed links may send.
    pub(super) fn refresh_views(&mut self, has_keys: bool, now: Instant) {
        self.views.refresh(&self.links, self.recovers, has_keys, now);
        if self.has_plain {
            self.views.set_apart();
        }
    }

    /// What the resequencer knows of each link.
    pub(super) const fn delays(&self) -> &ReceiveDelays {
        &self.delays
    }
}

/// A bit for each link.
fn bits<'a>(links: impl Iterator<Item = &'a Link>) -> u32 {
    links.fold(0, |bits, link| bits | 1_u32.checked_shl(u32::from(link.id().0)).unwrap_or(0))
}

/// Whether packets may go over the link.
pub(super) fn is_in_use(link: &Link) -> bool {
    link.state() != LinkState::Down && link.link_role() != LinkRole::Never
}

/// Whether the link may send at all: it needs somewhere to send to, and a sealed one keys that
/// serve.
pub(super) fn may_send(link: &Link, keys_serve: bool) -> bool {
    link.path().is_known()
        && match link.security() {
            Security::Plain => true,
            Security::Sealed => keys_serve,
        }
}
