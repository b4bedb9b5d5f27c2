//! Links that come and go: brings the links that there are in line with the file and with the
//! interfaces that were found.
//!
//! ```text
//! file, interfaces, routes ─► wanted ─┬─ gone:     what the link carried goes over others;
//!                                     │            its sockets are closed
//!                                     └─ there now: a number, a socket, heartbeats at once
//! ```
//! Contract: [`Comings::note`] says that something changed; what follows is done soon after, since
//! changes come in groups. A line that goes and comes back has the number that it had. Every part
//! that knows links ([`Parts`]) is told here, and nowhere else.

use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_os::poll::Poller;
use bonding_proto::client::Client;
use bonding_proto::config::LinkConfig;
use bonding_proto::{Instant, LinkId, Path, SocketId, StateMachine as _};

use super::caps::Caps;
use super::capturing::Capturing;
use super::discovery::{self, Discovery};
use super::duties::Duties;
use super::lines::{Lines, Origin, is_same_line};
use super::resolve::Directory;
use super::revival::Revival;
use super::{link_config, loosen_filter, spec};
use crate::config::LINKS_MAX;
use crate::engine::events::EventLogger;
use crate::engine::plan::{ClientPlan, LinkPlan};
use crate::engine::sockets::Sockets;
use crate::status;

/// Between two looks at the interfaces. Chosen: the changes of one plug come within it, and a link
/// is used a second after it came.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A line that found no number asks again. Chosen: numbers rest for minutes.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What knows links.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) client: &'a mut Client,
    pub(super) sockets: &'a mut Sockets,
    pub(super) monitor: &'a Monitor,
    pub(super) poller: &'a Poller,
    pub(super) lines: &'a mut Lines,
    pub(super) directory: &'a mut Directory,
    pub(super) caps: &'a mut Caps,
    pub(super) duties: &'a mut Duties,
    pub(super) revival: &'a mut Revival,
    pub(super) logger: &'a mut EventLogger,
    pub(super) capturing: &'a mut Capturing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Comings {
    discovery: Discovery,
    due: Option<Instant>,
    looked_at: Instant,
    /// Lines without a number, which the log has.
    without_number: Vec<String>,
}

impl Comings {
    /// The first look is due at once.
    pub(super) fn new(now: Instant) -> Self {
        let (discovery, without_number) = (Discovery::default(), Vec::new());
        Self { discovery, due: Some(now), looked_at: now, without_number }
    }

    /// Interfaces, routes or the file may have changed.
    pub(super) fn note(&mut self, now: Instant) {
        let at = now.max(self.looked_at + LOOK_INTERVAL);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When [`Self::settle`] has something to do.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What was found, and what was not.
    pub(super) fn status(&self, plan: &ClientPlan) -> Option<status::Discovery> {
        plan.discovery.as_ref().map(|_| self.discovery.status())
    }

    /// Brings the links in line. Whether one came or went.
    pub(super) fn settle(&mut self, plan: &ClientPlan, parts: &mut Parts<'_>, now: Instant) -> bool {
        (self.due, self.looked_at) = (None, now);
        let wanted = self.wanted(plan, parts);
        let is_wanted = |link: &LinkPlan| wanted.iter().any(|(other, _)| is_same_line(link, other));
        let gone: Vec<LinkId> =
            parts.lines.present().filter(|(_, link)| !is_wanted(link)).map(|(id, _)| id).collect();
        for id in &gone {
            remove(parts, *id, now);
        }
        let mut came = false;
        self.without_number.retain(|name| wanted.iter().any(|(link, _)| link.name == *name));
        for (link, origin) in wanted {
            let known = parts.lines.present().find(|(_, known)| known.name == link.name);
            match known.map(|(id, known)| (id, known.clone())) {
                Some(known) => adopt(parts, known, (link, origin), now),
                None => came |= self.add(parts, plan, (link, origin), now),
            }
        }
        if came || !gone.is_empty() {
            parts.capturing.set_links(parts.lines, parts.monitor);
        }
        came || !gone.is_empty()
    }

    /// The links that there should be: those of the file, and then those that were found.
    fn wanted(&mut self, plan: &ClientPlan, parts: &Parts<'_>) -> Vec<(LinkPlan, Origin)> {
        let mut wanted: Vec<_> = plan.links.iter().map(|link| (link.clone(), Origin::File)).collect();
        let Some(discovery) = &plan.discovery else {
            self.discovery.stop();
            return wanted;
        };
        let remotes = parts.directory.addresses();
        let links = (plan.tunnel.interface.as_str(), plan.links.as_slice());
        let mut found = self.discovery.look(discovery, parts.monitor, links, &remotes);
        // Those that are links already keep their place before new ones.
        let is_known = |interface: &str| {
            parts.lines.of(Origin::Found).any(|(_, link)| link.interface.as_deref() == Some(interface))
        };
        found.sort_by_key(|found| !is_known(&found.interface));
        for found in found.iter().take(LINKS_MAX.saturating_sub(wanted.len())) {
            let taken = |name: &str| wanted.iter().any(|(link, _): &(LinkPlan, _)| link.name == name);
            let link = discovery::link(found, discovery.priority, taken);
            wanted.push((link, Origin::Found));
        }
        wanted
    }

    fn add(
        &mut self,
        parts: &mut Parts<'_>,
        plan: &ClientPlan,
        (mut link, origin): (LinkPlan, Origin),
        now: Instant,
    ) -> bool {
        let former = parts.lines.former(&link.name);
        let Some(id) = former.or_else(|| parts.client.free_number(now)) else {
            if !self.without_number.contains(&link.name) {
                tracing::warn!(
                    link = link.name,
                    "{} is not used yet: all {LINKS_MAX} numbers of links were in use in the last minutes",
                    link.name
                );
                self.without_number.push(link.name);
            }
            self.due = Some(now + RETRY_INTERVAL);
            return false;
        };
        if origin == Origin::Found {
            link.port = plan.ports.cycle(id.index());
        }
        parts.caps.set((id, &link.name), link.cap, parts.client.link_bytes(id));
        parts.lines.set(id, link.clone(), origin);
        parts.revival.set(id, &link, now);
        let plans = parts.lines.plans();
        parts.directory.handle_interfaces(&plans, parts.monitor);
        let paths = parts.directory.paths(&plans, &|at| parts.revival.port(at), parts.client.active());
        let own = |server: Vec<Vec<Path>>| server.into_iter().nth(id.index()).unwrap_or_default();
        let paths = paths.into_iter().map(own).collect();
        let event = parts.sockets.add(id, spec(&link, &plan.hosts), parts.monitor, parts.poller);
        let config = link_config(&link, parts.monitor);
        let role = parts.duties.role(id, &link, parts.caps.is_used_up(id));
        parts.client.set_link(id, LinkConfig { role, ..config }, paths, now);
        if let Some(event) = event {
            parts.client.handle_socket_event(SocketId(id.0), event, now);
        }
        parts.logger.set_link(id, link.name.clone());
        loosen_filter(&link, parts.capturing.journal());
        if origin == Origin::File {
            tracing::info!(link = link.name, number = id.0, "the link is added");
        }
        true
    }
}

/// A link that there is already is of the file from now on, or was found, or has another priority.
fn adopt(
    parts: &mut Parts<'_>,
    (id, known): (LinkId, LinkPlan),
    (link, origin): (LinkPlan, Origin),
    now: Instant,
) {
    let link = LinkPlan { port: known.port, ..link };
    if link == known && parts.lines.of(origin).any(|(other, _)| other == id) {
        return;
    }
    parts.caps.set((id, &link.name), link.cap, parts.client.link_bytes(id));
    parts.client.set_link_rates(id, [link.tx_rate, link.rx_rate], now);
    parts.client.set_link_role(id, parts.duties.role(id, &link, parts.caps.is_used_up(id)), now);
    parts.client.set_link_priority(id, parts.duties.priority(id, &link), now);
    parts.lines.set(id, link, origin);
}

fn remove(parts: &mut Parts<'_>, id: LinkId, now: Instant) {
    let Some((_, link)) = parts.lines.present().find(|(known, _)| *known == id) else { return };
    let name = link.name.clone();
    if parts.lines.of(Origin::File).any(|(known, _)| known == id) {
        tracing::info!(link = name, "the link is removed");
    }
    parts.client.retire_link(id, now);
    parts.sockets.remove(id);
    parts.caps.remove((id, &name));
    parts.duties.forget_link(id);
    parts.revival.remove(id);
    parts.lines.retire(id);
}
