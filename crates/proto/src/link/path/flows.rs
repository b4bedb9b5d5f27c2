//! The UDP flows of a sealed link: its source ports at the client. A carrier may police each
//! 5-tuple for itself, and a link with several flows then carries several times as much.
//!
//! Flow 0 is the link as it always is ([`super::address`]). Flows 1 to 7 come and go:
//!
//! ```text
//!  asked ─── heartbeats on it ──► client: one came back echoed         ──► live ──► carries data
//!    ▲                            server: its address answered a challenge  │
//!    └──────────── no heartbeat of it was echoed for some rounds ◄──────────┘
//! ```
//! All flows share the link's counters, feedback, round trip and rate: a datagram names its flow
//! in its header, which is authentic, so that another source port of a flow is never taken for a
//! client that roams. A client asks flows as soon as it or its server wants them; the server learns
//! their addresses, each as it learns a link's. Heartbeats take turns over the live flows, and
//! every second one asks a flow that is not live, each time after a longer pause. So a flow that
//! stops is left out, and is back after it delivers again; the link lives while one flow does. Data
//! goes in whole batches, each over the live flow that carried the least, so that batches stay
//! large and the shares even.
//!
//! It knows no rates: how many flows are wanted is [`crate::link::trial`]'s to find out.
//!
//! Measured: docs/decisions/0055-several-flows-where-each-is-policed.md.

use std::time::Duration;

use super::address::PathState;
use crate::limits::UDP_FLOWS_MAX;
use crate::packet::{Path, SocketId, UdpFlow};
use crate::time::Instant;
use crate::wire::control::CHALLENGE_BYTES;

/// A flow is left out when none of so many heartbeats in a row on it was echoed. Chosen: a policer
/// that takes a third of all loses four in a row once in eighty.
const ROUNDS: u32 = 4;
/// The first pause after a heartbeat on a flow that is not live; it doubles with each.
/// Chosen: the interval of heartbeats.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause. Chosen: a NAT keeps a UDP mapping for as long (RFC 4787 §4.3 asks for
/// two minutes, and some keep it for 30 s).
const ASK_PAUSE_MAX: Duration = Duration::from_secs(25);

/// One flow.
#[derive(Debug)]
struct Flow {
    /// Where a server sends it; a client's is the link's.
    address: PathState,
    /// What is sent on it arrives.
    is_live: bool,
    /// When the newest heartbeat was sent on it that is known to have arrived, and since when its
    /// address is what it is.
    proven_at: Instant,
    moved_at: Instant,
    /// When it is asked next while it is not live, and the pause after that.
    ask_at: Instant,
    pause: Duration,
    /// Bytes of data since the live flows were others.
    bytes: u64,
}

impl Flow {
    fn new(is_live: bool, now: Instant) -> Self {
        Self {
            address: PathState::learning(),
            is_live,
            proven_at: now,
            moved_at: now,
            ask_at: now,
            pause: ASK_PAUSE_MIN,
            bytes: 0,
        }
    }

    /// What was sent on it at `at` arrived.
    fn on_proof(&mut self, at: Instant) {
        (self.is_live, self.proven_at) = (true, self.proven_at.max(at));
        self.pause = ASK_PAUSE_MIN;
    }

    fn give_up(&mut self, now: Instant) {
        (self.is_live, self.ask_at, self.pause) = (false, now, ASK_PAUSE_MIN);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flows {
    /// How many this side keeps alive, and over how many of them it sends data.
    asked: u8,
    used: u8,
    /// A server learns the flows' addresses; a client's are the link's.
    learns: bool,
    /// By number; empty while there was only the first.
    flows: Vec<Flow>,
    /// The flow of the last heartbeat, and whether the next one may ask.
    turn: u8,
    asks_next: bool,
    /// The one that data goes over next.
    next: UdpFlow,
}

impl Flows {
    /// One flow.
    pub(super) const fn new(learns: bool) -> Self {
        let next = UdpFlow::FIRST;
        Self { asked: 1, used: 1, learns, flows: Vec::new(), turn: 0, asks_next: true, next }
    }

    fn get(&self, flow: UdpFlow) -> Option<&Flow> {
        self.flows.get(usize::from(flow.number()))
    }

    fn get_mut(&mut self, flow: UdpFlow) -> Option<&mut Flow> {
        self.flows.get_mut(usize::from(flow.number()))
    }

    /// The flow, made if it is not there.
    fn ensure(&mut self, flow: UdpFlow, now: Instant) -> Option<&mut Flow> {
        let least = usize::from(flow.number()) + 1;
        while self.flows.len() < least {
            // The first was there before.
            let is_first = self.flows.is_empty();
            self.flows.reserve_exact(1);
            self.flows.push(Flow::new(is_first, now));
        }
        self.get_mut(flow)
    }

    fn numbered(&self) -> impl Iterator<Item = (UdpFlow, &Flow)> {
        (0..UDP_FLOWS_MAX).filter_map(UdpFlow::new).zip(&self.flows)
    }

    /// This side keeps `asked` flows alive from now on and sends data over `used` of them. Whether
    /// these are more than before.
    pub(in crate::link) fn set_count(&mut self, asked: u8, used: u8, now: Instant) -> bool {
        let asked = asked.max(used).clamp(1, UDP_FLOWS_MAX);
        let used = used.clamp(1, UDP_FLOWS_MAX);
        let is_more = asked > self.asked;
        if asked == self.asked && used == self.used {
            return false;
        }
        (self.asked, self.used) = (asked, used);
        if let Some(last) = UdpFlow::new(asked - 1).filter(|_| asked > 1) {
            self.ensure(last, now);
        }
        if is_more {
            for flow in &mut self.flows {
                // What was asked long ago is asked at once, and the first is judged from now on.
                flow.proven_at = now;
                (flow.ask_at, flow.pause) = (now, ASK_PAUSE_MIN);
            }
        } else {
            self.flows.iter_mut().skip(usize::from(asked).max(1)).for_each(|flow| flow.is_live = false);
            if asked == 1 {
                self.flows.iter_mut().take(1).for_each(|first| first.is_live = true);
            }
        }
        self.share_anew();
        is_more
    }

    /// Whether the first flow delivers, as far as is known.
    pub(super) fn is_first_live(&self) -> bool {
        self.asked == 1 || self.flows.first().is_none_or(|first| first.is_live)
    }

    /// How many of those that are kept alive deliver.
    pub(in crate::link) fn live(&self) -> u8 {
        self.live_of(self.asked)
    }

    /// How many of those that data uses deliver.
    pub(in crate::link) fn used_live(&self) -> u8 {
        self.live_of(self.used)
    }

    fn live_of(&self, count: u8) -> u8 {
        let others = self.flows.iter().take(usize::from(count)).skip(1);
        let live = others.filter(|flow| flow.is_live).count();
        u8::from(self.is_first_live()) + u8::try_from(live).unwrap_or(0)
    }

    /// A flow other than the first that is kept alive and delivers.
    pub(super) fn other_live(&self) -> Option<UdpFlow> {
        let mut others = self.numbered().take(usize::from(self.asked)).skip(1);
        others.find(|(_, flow)| flow.is_live).map(|(number, _)| number)
    }

    /// Which flow data goes over now.
    pub(super) const fn next(&self) -> UdpFlow {
        self.next
    }

    /// Whether the flow's address answered, or is not of the kind that is asked.
    pub(super) fn trusts(&self, flow: UdpFlow) -> bool {
        self.get(flow).is_some_and(|flow| flow.address.is_trusted())
    }

    /// A server's path of a flow; `None` while it is not known. A client's are the link's.
    pub(super) fn path(&self, flow: UdpFlow) -> Option<Path> {
        self.get(flow).and_then(|flow| flow.address.current())
    }

    /// Whether a server sends to `remote` from `socket` on another flow than the first.
    pub(super) fn sends_to(&self, socket: SocketId, remote: Option<std::net::SocketAddr>) -> bool {
        self.flows
            .iter()
            .filter_map(|flow| flow.address.known())
            .any(|path| path.socket == socket && remote.is_none_or(|remote| path.remote == remote))
    }

    // Data.

    /// Data of `bytes` goes over the flow.
    pub(super) fn on_data_sent(&mut self, flow: UdpFlow, bytes: u64) {
        if self.used == 1 {
            return;
        }
        if let Some(flow) = self.get_mut(flow) {
            flow.bytes += bytes;
        }
        self.choose();
    }

    /// The flow that carried the least is next.
    fn choose(&mut self) {
        let used = usize::from(self.used);
        let live = self.numbered().take(used).filter(|(_, flow)| flow.is_live);
        let least = live.min_by_key(|(number, flow)| (flow.bytes, *number)).map(|(number, _)| number);
        self.next = least.or_else(|| self.other_live()).unwrap_or(UdpFlow::FIRST);
    }

    /// The live flows are others.
    fn share_anew(&mut self) {
        self.flows.iter_mut().for_each(|flow| flow.bytes = 0);
        self.choose();
    }

    // Heartbeats.

    /// Whether a flow is to be asked now.
    pub(in crate::link) fn has_ask(&self, now: Instant) -> bool {
        self.askable(now).is_some()
    }

    fn askable(&self, now: Instant) -> Option<UdpFlow> {
        if self.asked == 1 {
            return None;
        }
        let asked = self.numbered().take(usize::from(self.asked));
        let is_known = |number, flow: &Flow| {
            let is_learnt = !self.learns || number == UdpFlow::FIRST || flow.address.known().is_some();
            is_learnt && flow.address.is_trusted()
        };
        let due =
            asked.filter(|(number, flow)| !flow.is_live && flow.ask_at <= now && is_known(*number, flow));
        due.min_by_key(|(_, flow)| flow.ask_at).map(|(number, _)| number)
    }

    /// The flow of the next heartbeat, after those are left out of which none of the last
    /// heartbeats came back. `interval`: the usual distance of two heartbeats; `round`: an echo
    /// takes no longer.
    pub(in crate::link) fn take_turn(
        &mut self,
        interval: Duration,
        round: Duration,
        now: Instant,
    ) -> UdpFlow {
        if self.asked == 1 {
            return UdpFlow::FIRST;
        }
        self.judge(interval, round, now);
        let asks = self.asks_next;
        self.asks_next = !asks;
        if let Some(flow) = self.askable(now).filter(|_| asks) {
            if let Some(asked) = self.get_mut(flow) {
                asked.ask_at = now + asked.pause;
                asked.pause = (asked.pause * 2).min(ASK_PAUSE_MAX);
            }
            return flow;
        }
        let asked = self.asked;
        let after = |number: UdpFlow| (number.number() + asked - self.turn % asked - 1) % asked;
        let live = self.numbered().take(usize::from(asked)).filter(|(_, flow)| flow.is_live);
        let next = live.map(|(number, _)| number).min_by_key(|number| after(*number));
        let next = next.or_else(|| self.other_live()).unwrap_or(UdpFlow::FIRST);
        self.turn = next.number();
        next
    }

    fn judge(&mut self, interval: Duration, round: Duration, now: Instant) {
        let patience = interval * u32::from(self.asked) * ROUNDS + round;
        let mut changed = false;
        for flow in self.flows.iter_mut().take(usize::from(self.asked)) {
            if flow.is_live && now.saturating_since(flow.proven_at) > patience {
                flow.give_up(now);
                changed = true;
            }
        }
        if changed {
            self.share_anew();
        }
    }

    /// The link is back after a failure: what was left out in it is asked at once.
    pub(in crate::link) fn ask_again(&mut self, now: Instant) {
        for flow in self.flows.iter_mut().filter(|flow| !flow.is_live) {
            (flow.ask_at, flow.pause) = (now, ASK_PAUSE_MIN);
        }
    }

    /// The heartbeat that was sent on the flow at `sent_at` arrived.
    pub(in crate::link) fn on_proof(&mut self, flow: UdpFlow, sent_at: Instant) {
        let asked = self.asked;
        let Some(known) = self.get_mut(flow).filter(|known| known.address.is_trusted()) else { return };
        if asked == 1 || sent_at < known.moved_at {
            return;
        }
        let was_live = known.is_live;
        known.on_proof(sent_at);
        if !was_live {
            self.share_anew();
        }
    }

    // A server's addresses.

    /// A server's authenticated datagram of `bytes` came on another flow than the first, from
    /// `path`. Whether the flow's address is another one.
    pub(super) fn follow(
        &mut self,
        (flow, path): (UdpFlow, Path),
        newest: bool,
        bytes: u64,
        token: impl FnOnce() -> [u8; CHALLENGE_BYTES],
        now: Instant,
    ) -> bool {
        let Some(known) = self.ensure(flow, now) else { return false };
        let moved = known.address.follow(path, newest, bytes, token, now);
        if moved {
            known.moved_at = now;
            known.is_live = known.address.is_trusted();
            known.proven_at = now;
            self.share_anew();
        }
        moved
    }

    /// An answer to a challenge came on the flow from `path`. Whether it made that path trusted.
    pub(super) fn on_response(
        &mut self,
        flow: UdpFlow,
        token: &[u8; CHALLENGE_BYTES],
        path: &Path,
        now: Instant,
    ) -> bool {
        let Some(known) = self.get_mut(flow) else { return false };
        let answered = known.address.on_response(token, path);
        if answered {
            known.on_proof(now);
            self.share_anew();
        }
        answered
    }

    /// The challenge to send now, with its flow.
    pub(super) fn poll_challenge(&mut self, now: Instant) -> Option<(UdpFlow, [u8; CHALLENGE_BYTES])> {
        let numbers = (0..UDP_FLOWS_MAX).filter_map(UdpFlow::new);
        numbers
            .zip(&mut self.flows)
            .find_map(|(number, flow)| flow.address.poll_challenge(now).map(|token| (number, token)))
    }

    /// When a challenge is due.
    pub(super) fn challenge_at(&self) -> Option<Instant> {
        self.flows.iter().filter_map(|flow| flow.address.challenge_at()).min()
    }

    /// Whether `bytes` may be sent on the flow now; if so, they count as sent.
    pub(super) fn try_spend(&mut self, flow: UdpFlow, bytes: u64) -> bool {
        self.get_mut(flow).is_some_and(|known| known.address.try_spend(bytes))
    }

    /// The peer was restarted: nothing is proven any more, and a server learns addresses anew. The
    /// first is as good as the link.
    pub(super) fn forget(&mut self) {
        for (at, flow) in self.flows.iter_mut().enumerate() {
            flow.address.forget();
            flow.is_live = at == 0;
            (flow.ask_at, flow.pause) = (Instant::ZERO, ASK_PAUSE_MIN);
        }
        self.share_anew();
    }
}
