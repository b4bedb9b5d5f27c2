//! What the client sends into the bond by itself, where its configuration asks for it.
//!
//! Contract: made before the server's name is looked up, so that what is captured is held from then
//! on ([`Capture`] says how). What the router itself sends is held from the start only where no
//! server has to be looked up by its name: the look-up leaves as the main table says.
//!
//! It holds the journal of all changes of this run.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use bonding_os::capture::{Capture, CaptureConfig, LinkEnd, Scope};
use bonding_os::monitor::Monitor;
use bonding_os::netlink::{Interface, Requests};
use bonding_os::undo::Journal;
use bonding_proto::config::Prefix;

use super::lines::Lines;
use crate::config::{Host, capture_words};
use crate::engine::RunError;
use crate::engine::plan::{CapturePlan, ClientPlan, LinkPlan};
use crate::engine::setup;
use crate::status::Routing;

/// See the module.
#[derive(Debug)]
pub(super) enum Capturing {
    /// Nothing is captured.
    Off(Journal),
    /// What the plan says.
    On(CapturePlan, Box<Capture>),
}

impl Capturing {
    /// Holds what is to be captured.
    pub(super) fn hold(plan: &ClientPlan, journal: Journal, monitor: &Monitor) -> Result<Self, RunError> {
        let Some(capture) = &plan.capture else { return Ok(Self::Off(journal)) };
        let lan = capture.lan.iter().map(|prefix| setup::cidr(*prefix)).collect::<Result<Vec<_>, _>>()?;
        let config = CaptureConfig {
            scope: capture.scope,
            lan,
            links: [ends(plan.links.iter(), monitor), candidates(plan, monitor)].concat(),
            tunnel: plan.tunnel.interface.clone(),
            priority: capture.priority,
            fallback: capture.fallback,
            masquerade: capture.masquerade,
        };
        let is_looked_up = plan.hosts.iter().any(|host| matches!(host, Host::Name(_)));
        let scope = if is_looked_up { Scope::Lan } else { capture.scope };
        Ok(Self::On(capture.clone(), Box::new(Capture::hold(journal, config, scope)?)))
    }

    /// The tunnel's device is there, with these addresses.
    pub(super) fn start(&mut self, index: u32, addresses: &[Prefix]) -> Result<(), RunError> {
        let Self::On(plan, capture) = self else { return Ok(()) };
        capture.start(index, has_ipv6(addresses))?;
        let (first, last) = capture.priorities();
        tracing::info!(
            rules = format!("{first}-{last}"),
            table = first,
            fallback = plan.fallback,
            "the bond takes {}",
            capture_words(plan)
        );
        Ok(())
    }

    /// The links are these from now on. What was a link stays one to the rules: what comes in by a
    /// line that is away is no LAN's.
    pub(super) fn set_links(&mut self, lines: &Lines, monitor: &Monitor) {
        let Self::On(_, capture) = self else { return };
        let new = ends(lines.all().map(|(_, link)| link), monitor);
        let mut all = capture.config().links.clone();
        // What an interface was before would only pile up.
        all.retain(|old| old.interface.is_none() || !new.iter().any(|one| one.interface == old.interface));
        all.extend(new);
        if let Err(error) = capture.set_links(all) {
            tracing::error!(%error, "cannot tell the links' own packets from those to be captured");
        }
    }

    pub(super) const fn journal(&mut self) -> &mut Journal {
        match self {
            Self::Off(journal) => journal,
            Self::On(_, capture) => capture.journal(),
        }
    }

    /// The bond is up or down, and the tunnel has these addresses.
    pub(super) fn follow(&mut self, is_up: bool, addresses: &[Prefix]) {
        let Self::On(plan, capture) = self else { return };
        let was_active = capture.is_active();
        let result = capture.set_ipv6(has_ipv6(addresses)).and_then(|()| capture.set_up(is_up));
        if let Err(error) = result {
            tracing::error!(%error, "cannot change what is sent into the bond");
        } else if capture.is_active() != was_active && plan.fallback {
            let way = if is_up { "goes into the bond" } else { "goes directly while the bond is down" };
            tracing::info!("{} {way}", capture_words(plan));
        }
    }

    /// The server routes these networks to this client.
    pub(super) fn route(&mut self, routes: &[Prefix]) {
        let Self::On(_, capture) = self else { return };
        if !routes.is_empty() {
            tracing::info!(
                networks = routes.len(),
                "the server knows networks behind this client: they keep their addresses"
            );
        }
        capture.set_routed(routes.iter().filter_map(|prefix| setup::cidr(*prefix).ok()).collect());
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Off(_) => None,
            Self::On(_, capture) => Some(capture.as_fd()),
        }
    }

    pub(super) fn handle_ready(&mut self) {
        if let Self::On(_, capture) = self
            && let Err(error) = capture.handle_ready()
        {
            tracing::warn!(%error, "cannot follow the interfaces and rules of this host");
        }
    }

    pub(super) fn due_in(&self) -> Option<Duration> {
        match self {
            Self::Off(_) => None,
            Self::On(_, capture) => capture.due_in(),
        }
    }

    pub(super) fn handle_due(&mut self) {
        if let Self::On(_, capture) = self {
            capture.look();
        }
    }

    pub(super) fn status(&self) -> Option<Routing> {
        let Self::On(plan, capture) = self else { return None };
        let (first, last) = capture.priorities();
        Some(Routing {
            capture: if plan.scope == Scope::All { "all" } else { "lan" }.to_owned(),
            what: capture_words(plan),
            active: capture.is_active(),
            fallback: plan.fallback,
            rules: [first, last],
            table: first,
        })
    }
}

/// Interfaces with a default route, where links are found by themselves: none of them is a LAN.
fn candidates(plan: &ClientPlan, monitor: &Monitor) -> Vec<LinkEnd> {
    let Some(_) = &plan.discovery else { return Vec::new() };
    let routes = Requests::open().and_then(|mut requests| requests.default_routes()).unwrap_or_default();
    let leads_out = |interface: &&Interface| {
        routes.iter().any(|route| route.index == interface.index) && interface.name != plan.tunnel.interface
    };
    let end = |one: &Interface| LinkEnd { interface: Some(one.name.clone()), source: None };
    monitor.interfaces().filter(leads_out).map(end).collect()
}

/// The links. One that is bound to an address alone leaves by the interface that has it now.
fn ends<'a>(links: impl Iterator<Item = &'a LinkPlan>, monitor: &Monitor) -> Vec<LinkEnd> {
    let end = |link: &LinkPlan| {
        let home = || {
            let has = |interface: &&Interface| {
                interface.addresses.iter().any(|one| Some(one.address()) == link.source)
            };
            monitor.interfaces().find(has).map(|interface| interface.name.clone())
        };
        LinkEnd { interface: link.interface.clone().or_else(home), source: link.source }
    };
    links.map(end).collect()
}

fn has_ipv6(addresses: &[Prefix]) -> bool {
    addresses.iter().any(|prefix| prefix.address.is_ipv6())
}
