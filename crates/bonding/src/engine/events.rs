//! One log line for each event of a session.

use std::time::SystemTime;

use bonding_proto::handshake::Refusal;
use bonding_proto::link::Cause;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkState;
use bonding_proto::wire::control::CloseReason;
use bonding_proto::{Event, LinkId};

/// Logs the events of one session: its name in the log, and since when it is connected.
#[derive(Debug, Clone)]
pub(crate) struct EventLogger {
    /// The peer, for people.
    pub(crate) peer: String,
    /// The links' names, by number.
    pub(crate) links: Vec<String>,
    /// When the session became usable; `None` while it is not.
    pub(crate) since: Option<SystemTime>,
}

impl EventLogger {
    pub(crate) fn new(peer: String, links: Vec<String>) -> Self {
        Self { peer, links, since: None }
    }

    /// The name of a link.
    pub(crate) fn link_name(&self, at: usize) -> String {
        self.links.get(at).cloned().unwrap_or_else(|| format!("link{at}"))
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
            Event::Closed(reason) => match reason {
                CloseReason::Shutdown => tracing::info!(%peer, "the peer has stopped"),
                CloseReason::Revoked => {
                    tracing::error!(%peer, "the server has revoked this client's key; ask for a new invitation");
                }
            },
            Event::Refused(refusal) => {
                tracing::error!(%peer, "the server refused this client: {}", why(*refusal))
            }
            Event::ServerChanged { .. } => tracing::warn!(%peer, "the client uses this server from now on"),
            Event::LinkMtu { link, bytes } => {
                tracing::info!(%peer, link = self.link(*link), bytes, "the link carries packets of this size");
            }
            Event::TunnelMtu(bytes) => {
                tracing::debug!(%peer, bytes, "the links in use carry inner packets of this size")
            }
            Event::Leased => tracing::debug!(%peer, "the server sent this client's addresses"),
            Event::ControlChanged { link, change } => {
                let cause = change.cause.map_or("none", Cause::name);
                let [before, now] = [change.before, change.now].map(|rate| rate.map(BitRate::as_bps));
                tracing::debug!(
                    %peer, link = self.link(*link), phase = change.to.name(), cause, before, now,
                    "the link's congestion control changed"
                );
            }
            Event::FlowsChanged { link, from, to } => {
                tracing::info!(
                    %peer, link = self.link(*link),
                    "the link sends over {to} UDP flows, was {from}: its carrier limits each"
                );
            }
            Event::PeerRestarted => tracing::info!(%peer, "the peer has restarted"),
            other => tracing::info!(%peer, ?other, "event"),
        }
    }

    fn link(&self, link: LinkId) -> String {
        self.link_name(link.index())
    }
}

fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Used => "the invitation was used already",
        Refusal::Expired => "the invitation has expired",
        Refusal::Refused => "the server's log says why",
    }
}

fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Down => "down",
        LinkState::Suspect => "suspect",
        LinkState::Up => "up",
    }
}
