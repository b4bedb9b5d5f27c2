//! Brings links that are down up again.
//!
//! A link may be down for a reason that the client can get around. A NAT on the way keeps a mapping
//! that leads nowhere, which heartbeats from the same port keep alive for ever; a firewall has
//! blocked the addresses and ports that the link uses. So a link that has been down for a while
//! gets another socket, with another port of its own, and then others, with growing pauses. The
//! other links notice nothing.
//!
//! It knows names, states and times. What is on the way it does not know: that a try helped is said
//! where the link answers soon after it.

use std::time::Duration;

use bonding_os::poll::Poller;
use bonding_proto::client::Client;
use bonding_proto::{Event, Instant, LinkId, SocketEvent, SocketId, StateMachine as _};

use crate::engine::plan::LinkPlan;
use crate::engine::sockets::Sockets;

/// The pause before the first try, and between the first ones. Chosen: above the round trips that
/// bring up a satellite link, and the time of a short outage.
const PAUSE_MIN: Duration = Duration::from_secs(3);
/// The longest pause. Chosen: a try costs a socket and a handshake; a person notices a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A link that answers within this after a try was helped by it. Chosen: two handshakes and the
/// round trip of a satellite link.
const HELP: Duration = Duration::from_secs(3);

/// The tries for all links of a client.
#[derive(Debug)]
pub(super) struct Revival {
    links: Vec<Attempts>,
}

/// The tries for one link.
#[derive(Debug)]
struct Attempts {
    name: String,
    /// When the next try is due; `None`: the link is not down.
    due: Option<Instant>,
    /// Tries since it went down, and when the last one was.
    tries: u32,
    tried_at: Instant,
}

impl Revival {
    /// All links are down as yet.
    pub(super) fn new(links: &[LinkPlan], now: Instant) -> Self {
        let attempts = |link: &LinkPlan| Attempts {
            name: link.name.clone(),
            due: Some(now + PAUSE_MIN),
            tries: 0,
            tried_at: Instant::ZERO,
        };
        Self { links: links.iter().map(attempts).collect() }
    }

    /// When [`Self::tend`] has work.
    pub(super) fn due(&self) -> Option<Instant> {
        self.links.iter().filter_map(|link| link.due).min()
    }

    /// A link may have gone down or answered: says whether a try helped.
    pub(super) fn on_event(&mut self, event: &Event, client: &Client, now: Instant) {
        if !matches!(event, Event::LinkState { .. } | Event::ServerChanged { .. }) {
            return;
        }
        for (number, link) in (0..u8::MAX).zip(&mut self.links) {
            match (client.is_link_down(LinkId(number)), link.due) {
                (true, None) => link.due = Some(now + PAUSE_MIN),
                (false, Some(_)) => link.on_answer(now),
                (true, Some(_)) | (false, None) => {}
            }
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
        for (number, link) in (0..u8::MAX).zip(&mut self.links) {
            if link.due.is_none_or(|due| due > now) {
                continue;
            }
            // An interface that comes back is no matter of ports.
            if !sockets.replace(poller, LinkId(number)) {
                link.due = Some(now + PAUSE_MIN);
                continue;
            }
            link.on_try(now);
            client.handle_socket_event(SocketId(number), SocketEvent::Replaced, now);
            told = true;
        }
        told
    }
}

impl Attempts {
    fn on_try(&mut self, now: Instant) {
        if self.tries == 0 {
            tracing::info!(link = self.name, "the link is down: trying another source port");
        }
        let pause = PAUSE_MIN * (1 << self.tries.min(5));
        self.tries += 1;
        self.tried_at = now;
        self.due = Some(now + pause.min(PAUSE_MAX));
    }

    fn on_answer(&mut self, now: Instant) {
        if self.tries > 0 && now.saturating_since(self.tried_at) <= HELP {
            tracing::info!(link = self.name, "{} is up again: a new source port helped", self.name);
        }
        self.due = None;
        self.tries = 0;
    }
}
