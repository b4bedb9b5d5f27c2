//! Clients and their flows as `bondctl` lists them.
//!
//! It deliberately does not know how a list is cut into pages.

use bonding_os::nat::Reach;
use bonding_proto::endpoint::{Endpoint, SessionId};
use bonding_proto::qos::InnerHeader;
use bonding_proto::{Instant, LinkId};

use super::{Member, roster};
use crate::engine::command::KnownClient;
use crate::engine::events::EventLogger;
use crate::engine::reload;
use crate::flows::Namer;
use crate::state::keys;
use crate::status;

/// What a server adds to the figures of a client's flows.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) logger: &'a EventLogger,
    pub(super) takes_streams: bool,
}

impl Namer for Named<'_> {
    fn role(&self) -> status::Role {
        status::Role::Server
    }

    fn client(&self) -> Option<&str> {
        Some(&self.logger.peer)
    }

    fn link(&self, link: LinkId) -> String {
        self.logger.link_name(link.index())
    }

    fn packets_by(&self, _: &InnerHeader) -> String {
        if self.takes_streams { "the client's choice" } else { "split is off" }.to_owned()
    }
}

/// A client as the list shows it.
pub(super) fn known_client(
    member: &Member,
    usual: Reach,
    endpoint: &Endpoint,
    id: SessionId,
    now: Instant,
) -> KnownClient {
    let entry = &member.entry;
    let stats = endpoint.session(id).map(|session| session.stats(now));
    let words = |reach| reload::allow_words(reach).into_iter().map(str::to_owned).collect();
    let up = stats.as_ref().is_some_and(|stats| stats.connected);
    let state = match (member.expired, up) {
        (true, _) => "expired",
        (false, true) => "up",
        (false, false) => "down",
    };
    KnownClient {
        name: entry.config.name.clone(),
        state: state.to_owned(),
        origin: if entry.enrolled.is_some() { "invited" } else { "configured" }.to_owned(),
        enrolled: entry.enrolled.map(roster::time),
        expires: entry.expires.map(roster::time),
        public_key: entry.config.public_key.as_ref().map(keys::show),
        addresses: entry.addresses.clone(),
        allow: words(entry.reach.unwrap_or(usual)),
        peer: stats.as_ref().and_then(status::usable_remote).map(|remote| remote.to_string()),
    }
}
