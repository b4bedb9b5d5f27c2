//! One client and its server over some links: composes everything below it, and is the only place where control flows
//! between modules.
//!
//! - `transmit`: heartbeats that are due, then data: the queue's head, the scheduler's link, a run for one batch.
//! - `copies`: the same packet over further links.
//! - `resend`: packets that were lost, once more.
//! - `protect`: repair symbols, and what they restore.
//! - `receive`: datagrams: open, read the frames, dispatch by kind; data goes to the resequencer.
//! - `seal`: what only sealed links have: handshakes, keys, paths that prove themselves.
//! - `keyring`, `dial`: the keys, and a client's handshakes.
//! - `sizes`: how large packets may be, and probes that find it out.
//! - `report`: figures.
//!
//! Client and server run the same session. They differ in how a link's path is known (configured, or learnt from the first
//! heartbeat) and whose priority counts (the client's).
//!
//! A run of one side is named by its epoch. A new epoch of the peer means that it was restarted: its clock, its counters and its
//! sequence numbers begin anew, and so does all that was learnt from them. The four epochs seen before stay retired, so that
//! what an old run still had in flight on a slow link does not come back as news. Which of two epochs is the old one is a guess when
//! this side is fresh itself: a retired one that goes on speaking while the current one is silent is taken back.

mod copies;
mod dial;
mod keyring;
mod protect;
mod receive;
mod report;
mod resend;
mod seal;
mod sizes;
mod transmit;

#[cfg(test)]
mod class_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use zeroize::Zeroizing;

use self::copies::Copies;
use self::dial::Dialer;
use self::keyring::{KeyLimits, Keyring};
use self::protect::Protection;
use self::sizes::Sizes;
use crate::StateMachine;
use crate::config::{Role, Security, SessionConfig};
use crate::crypto::rng::SecretRng;
use crate::discard::{Discard, DiscardCounts};
use crate::event::{Event, SocketEvent};
use crate::handshake::Welcome;
use crate::limits::{HOLD_MAX, RESEND_HOLD_MAX};
use crate::link::Link;
use crate::packet::{Datagram, LinkId, PacketBuf, SocketId, SocketSet, Transmit};
use crate::qos::classify::Classifier;
use crate::qos::flow::{self, InnerHeader};
use crate::qos::queue::{Queue, QueueConfig, Tier};
use crate::recovery::{self, Recovery, TRIES_MAX};
use crate::reorder::{Limits, LinkDelay, Resequencer};
use crate::scheduler::{self, Scheduler, Service};
use crate::time::Instant;
use crate::timer::Timer;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState, LinkView};
use crate::wire::control::CloseReason;
use crate::wire::heartbeat::Heartbeat;

/// Epochs of the peer that are over.
const RETIRED_EPOCHS: usize = 4;

/// So many heartbeats of a retired epoch, with none of the current one between them, show that it was retired wrongly.
const REVIVAL_HEARTBEATS: u8 = 3;

/// Counters of flow slots in one allocation.
const COUNTERS: usize = 32;

/// What a loss takes to be known to the sender and sent again, beside the round trip: three later packets, feedback's
/// spacing, a turn in the other link's credit, jitter.
const RESEND_SLACK: Duration = Duration::from_millis(40);

/// A link that delivered data this lately carries.
const CARRIES: Duration = Duration::from_secs(1);

/// One session.
#[derive(Debug)]
pub struct Session {
    role: Role,
    epoch: u32,
    mtu: usize,
    sizes: Sizes,
    links: Vec<Link>,
    classes: Classifier,
    queue: Queue,
    scheduler: Box<dyn Scheduler>,
    /// Next counter of each flow slot, so many together; made on demand, because most sessions have few flows.
    slot_counters: Vec<Option<Box<[u64; COUNTERS]>>>,
    reorder: Resequencer,
    released: VecDeque<PacketBuf>,
    events: VecDeque<Event>,
    peer_epoch: Option<u32>,
    /// The peer takes frames that are to be delivered at once.
    peer_at_once: bool,
    /// The peer takes packets whose checksum is yet to be computed.
    peer_partial: bool,
    /// Links that the peer counts as failed, a bit each, and its clock when it said so, µs.
    peer_failed: (u32, u64),
    retired_epochs: VecDeque<u32>,
    /// A retired epoch that spoke last, and how often in a row.
    revenant: Option<(u32, u8)>,
    connected: bool,
    keyring: Keyring,
    /// A client with sealed links.
    dialer: Option<Dialer>,
    /// Draws challenges and what else must not be guessed.
    rng: SecretRng,
    /// What the server leased to us.
    lease: Option<Welcome>,
    /// Ceilings of links that a server has not met yet, by number.
    tx_rates: Vec<Option<BitRate>>,
    heartbeat_interval: Duration,
    /// Kept to be reused; valid within one `poll_transmit`.
    views: Vec<LinkView>,
    /// The same for a packet that not every link carries.
    fitting: Vec<LinkView>,
    delays: Vec<LinkDelay>,
    /// Until then all links are saving up for a run of bulk.
    bulk_from: Instant,
    /// The driver's sockets that take no more.
    full: SocketSet,
    copies: Copies,
    /// Whether losses are sent again.
    recovers: bool,
    recovery: Recovery,
    protection: Protection,
    /// Since when links are looked at for silence without a pause, and when they were last.
    looking_since: Instant,
    looked_at: Instant,
    /// When data that waits may go; `None`: nothing waits, or only an input can help.
    transmit_at: Option<Instant>,
    /// While packets wait for links: when the first link has credit again; and by how much the driver was late for that the last time.
    due_at: Option<Instant>,
    late: Duration,
    /// By tier: since when its head is held back for a better link.
    held_from: [Option<Instant>; Tier::ALL.len()],
    counters: Counters,
}

/// Counts of one session.
#[derive(Debug, Clone, Default)]
struct Counters {
    packets_in: u64,
    packets_out: u64,
    bytes_out: u64,
    /// Packets that had come over another link before.
    duplicates: u64,
    /// Packets that went over a further link.
    copies: u64,
    discards: DiscardCounts,
}

/// The queue may stand for so long, times how far what the links carry is from its mean. Ours: that is all that the queue
/// grants for delays (60 ms) where it is 12 %, and next to nothing on steady links.
const DIP: Duration = Duration::from_millis(500);

/// A link that failed may be back within this time, and the queue of those that stay may stand for as long as what would fill it takes
/// them. Ours: radios and handovers are out for seconds.
const OUTAGE: Duration = Duration::from_secs(30);

impl Session {
    /// A session without proven links. At most 255 links are used.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let links: Vec<Link> = (0..u8::MAX)
            .zip(&config.links)
            .map(|(id, link)| Link::new(LinkId(id), config.role, link, config.heartbeat_interval, now))
            .collect();
        // Flow hashes and challenges come from different draws.
        let entropy = config.sealing.as_ref().map_or_else(|| seeded(config.seed), |sealing| sealing.entropy);
        let mut rng = SecretRng::new(*Zeroizing::new(entropy));
        let epoch = u32::try_from(config.epoch & u64::from(u32::MAX)).unwrap_or_default();
        let dialer = config.sealing.map(|mut sealing| {
            rng.fill(&mut sealing.entropy);
            Dialer::new(sealing, epoch, now)
        });
        let mut session = Self {
            role: config.role,
            // The wire carries 32 bits.
            epoch,
            mtu: usize::from(config.mtu),
            sizes: Sizes::new(config.mtu, config.mss_clamp),
            links,
            classes: Classifier::new(config.seed, config.rules),
            queue: Queue::new(QueueConfig::default()),
            scheduler: scheduler::of(config.policy),
            slot_counters: Vec::new(),
            reorder: Resequencer::new(Limits::default()),
            released: VecDeque::new(),
            events: VecDeque::new(),
            peer_epoch: None,
            peer_at_once: false,
            peer_partial: false,
            peer_failed: (0, 0),
            retired_epochs: VecDeque::new(),
            revenant: None,
            connected: false,
            keyring: Keyring::new(KeyLimits::DEFAULT),
            dialer,
            rng,
            lease: None,
            tx_rates: Vec::new(),
            heartbeat_interval: config.heartbeat_interval,
            views: Vec::new(),
            fitting: Vec::new(),
            delays: Vec::new(),
            bulk_from: Instant::ZERO,
            full: SocketSet::default(),
            copies: Copies::default(),
            recovers: config.recovery.resend,
            recovery: Recovery::default(),
            protection: Protection::new(config.recovery.fec, config.recovery.resend),
            looking_since: Instant::ZERO,
            looked_at: Instant::ZERO,
            transmit_at: None,
            due_at: None,
            late: Duration::ZERO,
            held_from: [None; Tier::ALL.len()],
            counters: Counters::default(),
        };
        session.on_links_changed(now);
        session
    }

    /// Names this run of the session.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Takes one inner packet whose header the caller has read already.
    pub fn handle_parsed(
        &mut self,
        packet: PacketBuf,
        header: &InnerHeader,
        now: Instant,
    ) -> Result<(), Discard> {
        if !self.connected {
            self.counters.discards.count(Discard::NotConnected);
            return Err(Discard::NotConnected);
        }
        // What the queue drops it counts itself.
        if let Some(packet) = self.fitted(packet, header, now)? {
            self.enqueue(header, packet, now)?;
        }
        self.counters.packets_in += 1;
        // Whatever is waited for, this packet may not have to wait for it.
        self.transmit_at = Some(now);
        Ok(())
    }

    /// The same for packets of a run: all are of the flow and class that the header says.
    pub(crate) fn handle_parsed_run(
        &mut self,
        run: impl Iterator<Item = PacketBuf>,
        header: &InnerHeader,
        now: Instant,
    ) {
        for packet in run {
            debug_assert_eq!(flow::parse(&packet).as_ref(), Ok(header), "a run is of one flow");
            let _ = self.handle_parsed(packet, header, now);
        }
    }

    /// Puts a packet that some link carries into the queue of its flow and class.
    fn enqueue(&mut self, header: &InnerHeader, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        let classified = self.classes.classify(header, &packet, now);
        self.queue.push(classified.flow, classified.class, packet, now)
    }

    /// Bytes of packets that wait to be sent, or are kept to be sent again or to restore others.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes() + self.kept_bytes() + self.protection.bytes()
    }

    /// Whether it has events, indices that are free again, or packets to give.
    pub(crate) fn has_output(&self) -> bool {
        self.has_events() || self.keyring.has_freed() || !self.released.is_empty() || self.sizes.has_answers()
    }

    /// Something happened to a client's link, whose socket has the link's number.
    fn on_link_event(&mut self, link: LinkId, event: SocketEvent, now: Instant) {
        let Some(link) = self.links.get_mut(link.index()) else { return };
        let (id, before) = (link.id(), link.state());
        match event {
            SocketEvent::CarrierFound => link.on_carrier(true, now),
            SocketEvent::CarrierLost => link.on_carrier(false, now),
            SocketEvent::NoRoute => link.on_send_failed(now),
            SocketEvent::Full | SocketEvent::Writable | SocketEvent::TooBig { .. } => {}
        }
        let after = link.state();
        self.note_state(id, before, after, now);
        if event == SocketEvent::CarrierFound {
            self.note_found(id, now);
        }
    }

    /// The next thing worth a log line.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A link may have changed from `before` to `after`: everything that follows from a link's change of state begins here.
    fn note_state(&mut self, link: LinkId, before: LinkState, after: LinkState, now: Instant) {
        if before == after {
            return;
        }
        self.events.push_back(Event::LinkState { link, from: before, to: after });
        if after == LinkState::Down {
            // The peer need not find out by itself.
            self.links.iter_mut().filter(|other| other.state() == LinkState::Up).for_each(|other| {
                other.hasten_heartbeat(now);
            });
        }
        self.note_proof(before, after, now);
        self.reinject(link, before, after, now);
        self.note_connected();
        self.on_links_changed(now);
    }

    /// The links that failed, a bit each.
    fn failed_links(&self) -> u32 {
        let failed = self.links.iter().filter(|link| link.has_failed());
        failed.fold(0, |bits, link| bits | 1_u32.checked_shl(u32::from(link.id().0)).unwrap_or(0))
    }

    /// The peer says which links failed. What it says anew is so here as well: a lost carrier is known at one end only, and one
    /// direction alone is no link. It comes over all links, and what was said before something else may arrive after it.
    fn note_peer_failures(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let (known, said_at) = self.peer_failed;
        if heartbeat.stamp_us < said_at {
            return;
        }
        self.peer_failed = (heartbeat.failed, heartbeat.stamp_us);
        let news = heartbeat.failed & !known;
        for at in 0..self.links.len() {
            let Some(link) = self.links.get_mut(at).filter(|_| news != 0) else { break };
            let (id, before) = (link.id(), link.state());
            if news.checked_shr(u32::from(id.0)).unwrap_or(0) & 1 == 0 {
                continue;
            }
            link.on_peer_failure(now);
            let after = link.state();
            self.note_state(id, before, after, now);
        }
    }

    /// Rates or states of links changed: the queue and the resequencer want to know.
    fn on_links_changed(&mut self, now: Instant) {
        self.on_rates_changed(now);
        self.refresh_delays(now);
        self.refresh_sizes();
        self.reorder.on_links_changed(&self.delays, now, &mut self.released);
    }

    /// Rates of links changed: the queue wants to know.
    pub(super) fn on_rates_changed(&mut self, now: Instant) {
        let service = Service::of(self.links.iter().map(|link| (link.state(), link.link_role())));
        let serves = |link: &&Link| service.is_some_and(|kind| kind.includes(link.state(), link.link_role()));
        let serving = || self.links.iter().filter(serves);
        let bps: u64 = serving().map(|link| link.likely_capacity(now).as_bps()).sum();
        let is_starting = serving().any(|link| link.is_starting(now));
        self.queue.set_drain_rate(Some(bps).filter(|bps| *bps > 0).map(BitRate::from_bps), is_starting);
        self.transmit_at = Some(now);
    }

    /// For how long the queue may stand because what the links carry varies, and because some are out.
    fn dip(&self, now: Instant) -> Duration {
        let service = Service::of(self.links.iter().map(|link| (link.state(), link.link_role())));
        let (mut carried, mut varying, mut missing_bits) = (0.0, 0.0, 0.0);
        for link in &self.links {
            if service.is_some_and(|kind| kind.includes(link.state(), link.link_role())) {
                let rate = link.likely_capacity(now).as_bps() as f64;
                carried += rate;
                varying += rate * link.volatility(now);
            } else if link.state() != LinkState::Up {
                missing_bits += link.full_bits(OUTAGE, now);
            }
        }
        if carried <= 0.0 {
            return Duration::ZERO;
        }
        DIP.mul_f64((varying / carried).min(1.0)) + Duration::from_secs_f64((missing_bits / carried).min(1.0))
    }

    fn refresh_delays(&mut self, now: Instant) {
        self.refresh_views(now);
        let stop = recovery::longest_stop(&self.views);
        let (spread, round) = scheduler::bulk_delays(&self.views);
        // A packet of a flow that resends stop takes as much longer until its sender knows of it.
        self.queue.set_delays(spread.max(stop).max(self.dip(now)), round + stop);
        self.delays.clear();
        self.delays.extend(self.links.iter().map(|link| {
            let (delay_us, jitter_us) = link.rx_delay_us(now);
            let usable = link.state() != LinkState::Down;
            LinkDelay { usable, delay_us, jitter_us, resend: Duration::ZERO }
        }));
        // A link that carries nothing is waited for where it could carry the next packet: not a backup beside others, and
        // not one so slow that the wait would end before.
        let carries = |link: &Link| link.data_at().is_some_and(|at| now.saturating_since(at) < CARRIES);
        let service = Service::of(self.links.iter().map(|link| (link.state(), link.link_role())));
        let serves = |link: &Link| {
            service.is_some_and(|kind| match link.link_role() {
                LinkRole::Primary | LinkRole::Secondary => true,
                role @ (LinkRole::Backup | LinkRole::Never) => kind.includes(link.state(), role),
            })
        };
        let known = || self.links.iter().zip(&self.delays).filter(|(_, delay)| delay.usable);
        let fastest =
            known().filter(|(link, _)| serves(link) || carries(link)).map(|(_, delay)| delay.delay_us);
        let latest_us = fastest
            .min()
            .unwrap_or(0)
            .saturating_add(i64::try_from(HOLD_MAX.as_micros()).unwrap_or(i64::MAX));
        for (link, delay) in self.links.iter().zip(&mut self.delays) {
            delay.usable &= carries(link) || (serves(link) && delay.delay_us <= latest_us);
        }
        let usable = || self.links.iter().zip(&self.delays).filter(|(_, delay)| delay.usable);
        let round = usable().map(|(link, _)| link.rtt()).max().unwrap_or_default() + RESEND_SLACK;
        let resend = (round * u32::from(TRIES_MAX)).min(RESEND_HOLD_MAX);
        for (link, delay) in self.links.iter().zip(&mut self.delays) {
            delay.resend = if link.peer_resends() { resend } else { Duration::ZERO };
        }
    }

    /// The links as the scheduler is to see them.
    fn refresh_views(&mut self, now: Instant) {
        let sealed = self.keyring.can_seal(now);
        self.views.clear();
        self.views.extend(self.links.iter().map(|link| {
            let mut view = link.view(now);
            view.recovers = self.recovers && link.security() == Security::Sealed;
            if !sealed && link.security() == Security::Sealed {
                view.usable = false;
            }
            view
        }));
        if !self.full.is_empty() {
            self.wait_for_room(now);
        }
    }

    /// Bytes that a link sent and received so far, IP and UDP headers included; handshakes are not counted.
    pub fn link_bytes(&self, link: LinkId) -> u64 {
        self.links.get(link.index()).map_or(0, Link::carried_total_bytes)
    }

    /// The same of all links, by number.
    pub fn links_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        self.links.iter().map(Link::carried_total_bytes)
    }

    /// A link of ours is used for something else from now on. A server's links follow their client's.
    pub fn set_link_role(&mut self, link: LinkId, role: LinkRole, now: Instant) {
        let Some(link) = self.links.get_mut(link.index()).filter(|link| link.link_role() != role) else {
            return;
        };
        link.set_link_role(role, now);
        self.note_connected();
        self.on_links_changed(now);
    }

    fn note_connected(&mut self) {
        let carries = |link: &Link| link.state() != LinkState::Down && link.link_role() != LinkRole::Never;
        let connected = self.links.iter().any(carries);
        if connected != self.connected {
            self.connected = connected;
            self.events.push_back(if connected { Event::Connected } else { Event::Disconnected });
        }
    }

    /// The peer's run is `epoch`; `Err` when that run is over.
    fn note_epoch(&mut self, epoch: u32, now: Instant) -> Result<(), Discard> {
        if self.peer_epoch == Some(epoch) {
            self.revenant = None;
            return Ok(());
        }
        if self.retired_epochs.contains(&epoch) {
            let count = self.revenant.filter(|(known, _)| *known == epoch).map_or(1, |(_, count)| count + 1);
            if count < REVIVAL_HEARTBEATS {
                self.revenant = Some((epoch, count));
                return Err(Discard::Stale);
            }
            self.retired_epochs.retain(|retired| *retired != epoch);
        }
        self.revenant = None;
        if let Some(over) = self.peer_epoch.replace(epoch) {
            if self.retired_epochs.len() == RETIRED_EPOCHS {
                self.retired_epochs.pop_front();
            }
            self.retired_epochs.push_back(over);
            self.peer_failed = (0, 0);
            self.reorder.reset(&mut self.released);
            self.recovery.clear();
            self.protection.clear();
            for at in 0..self.links.len() {
                let Some(link) = self.links.get_mut(at) else { break };
                let (id, before) = (link.id(), link.state());
                link.on_peer_restart(now);
                let after = link.state();
                self.note_state(id, before, after, now);
            }
            self.events.push_back(Event::PeerRestarted);
        }
        Ok(())
    }
}

impl StateMachine for Session {
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard> {
        match flow::parse(&packet) {
            Ok(header) => self.handle_parsed(packet, &header, now),
            Err(discard) => {
                self.counters.discards.count(discard);
                Err(discard)
            }
        }
    }

    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        let (first, header) = loop {
            let Some(first) = run.next() else { return };
            match flow::parse(&first) {
                Ok(header) => break (first, header),
                Err(discard) => self.counters.discards.count(discard),
            }
        };
        self.handle_parsed_run(std::iter::once(first).chain(run), &header, now);
    }

    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard> {
        // A client's sockets are its links', one each.
        let link = LinkId(datagram.path.socket.0);
        match self.links.get(link.index()).map(Link::security) {
            Some(Security::Sealed) => self.handle_sealed_datagram(datagram, now),
            Some(Security::Plain) | None => self.handle_link_datagram(link, datagram, now),
        }
    }

    fn handle_socket_event(&mut self, socket: SocketId, event: SocketEvent, now: Instant) {
        match event {
            SocketEvent::Full | SocketEvent::Writable => {
                let mut full = self.full;
                full.set(socket, event == SocketEvent::Full);
                self.set_full(full);
            }
            SocketEvent::TooBig { remote, bytes } => {
                self.handle_too_big(socket, remote, bytes, now);
            }
            SocketEvent::NoRoute | SocketEvent::CarrierLost | SocketEvent::CarrierFound => {
                self.on_link_event(LinkId(socket.0), event, now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for at in 0..self.links.len() {
            let Some(link) = self.links.get_mut(at) else { break };
            let (id, before) = (link.id(), link.state());
            link.on_time(now);
            let after = link.state();
            self.note_state(id, before, after, now);
        }
        if self.silence_timeout().is_some_and(|due| due <= now) {
            self.note_silence(now);
        }
        self.on_sealing_time(now);
        self.on_probe_time(now);
        self.on_resend_time(now);
        self.protection.sweep(now);
        if self.reorder.poll_timeout().is_some_and(|due| due <= now) {
            self.reorder.on_timeout(&self.delays, now, &mut self.released);
        }
    }

    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit> {
        // As a rule only data is to go, if anything.
        if let Some(handshake) = self.transmit_handshake(buf) {
            return Some(handshake);
        }
        let transmit = 'any: {
            if let Some(due) = self.transmit_due(buf, now) {
                break 'any due;
            }
            if let Some(copies) = self.transmit_copies(buf, max_segments, now) {
                break 'any copies;
            }
            if let Some(repair) = self.transmit_repair(buf, now) {
                break 'any repair;
            }
            self.transmit_data(buf, max_segments, now)?
        };
        let may_be_marked = self.links.get(transmit.link.index()).is_some_and(Link::may_be_marked);
        Some(Transmit { is_ect: transmit.is_ect || may_be_marked, ..transmit })
    }

    fn close(&mut self, now: Instant) {
        Self::close(self, CloseReason::Shutdown, now);
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        if let Some(answer) = self.sizes.poll_answer() {
            return Some(answer);
        }
        let packet = self.sizes.clamped(self.released.pop_front()?);
        self.counters.packets_out += 1;
        self.counters.bytes_out += packet.len() as u64;
        Some(packet)
    }

    fn round_trip(&self, socket: SocketId) -> Option<Duration> {
        let over = |link: &&Link| link.path().is_some_and(|path| path.socket == socket);
        self.links.iter().filter(over).map(Link::rtt).filter(|rtt| !rtt.is_zero()).min()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let mut first = First::default();
        for link in &self.links {
            if self.speaks(link) {
                first.offer(link.heartbeat_at(), Timer::Heartbeat);
                first.offer(link.control_at(), Timer::Control);
                if link.is_trusted() {
                    first.offer(link.feedback_at(), Timer::Feedback);
                }
            }
            if link.has_relay() {
                first.offer(Some(Instant::ZERO), Timer::IndirectFeedback);
            }
            debug_assert!(
                link.poll_timeout().is_none_or(|at| at >= link.unchanged_until()),
                "that is a bound"
            );
            if !first.is_by(link.unchanged_until()) {
                first.offer(link.poll_timeout(), Timer::LinkState);
            }
            first.offer(link.end_overdue_at(), Timer::Resend);
            first.offer(link.probe_timeout(), Timer::MtuProbe);
        }
        first.offer(self.dialer.as_ref().and_then(Dialer::poll_timeout), Timer::Handshake);
        first.offer(self.keyring.poll_timeout(), Timer::Keys);
        first.offer(self.transmit_at, Timer::Pacing);
        first.offer(self.reorder.poll_timeout(), Timer::Reorder);
        first.offer(self.silence_timeout(), Timer::Silence);
        first.0
    }
}

/// The first of what is due, and of two at the same time the one that was named first.
#[derive(Debug, Default)]
struct First(Option<(Instant, Timer)>);

impl First {
    fn offer(&mut self, at: Option<Instant>, timer: Timer) {
        if let Some(at) = at
            && !self.is_by(at)
        {
            self.0 = Some((at, timer));
        }
    }

    /// Whether something is due by then.
    fn is_by(&self, at: Instant) -> bool {
        self.0.is_some_and(|(first, _)| first <= at)
    }
}

/// A server's session draws challenges only: the endpoint gives it a seed that nobody can guess.
fn seeded(seed: u64) -> [u8; 32] {
    let mut entropy = [0; 32];
    if let Some(head) = entropy.first_chunk_mut() {
        *head = seed.to_be_bytes();
    }
    entropy
}
