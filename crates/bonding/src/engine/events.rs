//! One log line for each event of a session.

use std::time::SystemTime;

use bonding_proto::event::LinkState;
use bonding_proto::{Event, LinkId};

/// What a session is called in the log, and since when it is connected.
#[derive(Debug, Clone)]
pub(crate) struct Journalist {
    /// The peer, for people.
    pub(crate) peer: String,
    /// The links' names, by number.
    pub(crate) links: Vec<String>,
    /// When the session became usable; `None` while it is not.
    pub(crate) since: Option<SystemTime>,
}

impl Journalist {
    pub(crate) fn new(peer: String, links: Vec<String>) -> Self {
        Self { peer, links, since: None }
    }

    /// Notes and logs one event.
    pub(crate) fn on_event(&mut self, event: &Event) {
        let peer = &self.peer;
        match event {
            Event::Connected => {
                self.since = Some(SystemTime::now());
                tracing::info!(%peer, "connected");
            }
            Event::Disconnected => {
                self.since = None;
                tracing::warn!(%peer, "disconnected: no link is usable");
            }
            Event::LinkState { link, from, to } => {
                tracing::info!(%peer, link = self.link(*link), "link is {}, was {}", word(*to), word(*from));
            }
            Event::PathChanged { link, path } => {
                tracing::info!(%peer, link = self.link(*link), remote = %path.remote, "peer's address on the link");
            }
            Event::PeerRestarted => tracing::info!(%peer, "the peer was restarted"),
            other => tracing::info!(%peer, ?other, "event"),
        }
    }

    fn link(&self, link: LinkId) -> &str {
        self.links.get(link.index()).map_or("?", String::as_str)
    }
}

fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Down => "down",
        LinkState::Suspect => "suspect",
        LinkState::Up => "up",
    }
}
