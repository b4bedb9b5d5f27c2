//! What this host sends into a tunnel: rules of the routing policy with a table of our own, beside
//! the main table; and forwarding and masquerading for the networks behind this host.
//!
//! Contract: a [`Capture`] leads into the tunnel what its [`Scope`] says, but for destinations that
//! the main table knows by more than a default route, and for what the links send. What is captured
//! never leaves by another way: without the tunnel it is unreachable, also after this process was
//! killed, until [`crate::undo`] undoes it. With `fallback` it goes as without a bond while
//! [`Capture::set_up`] says that the bond is down. An address family that the tunnel does not have
//! is unreachable, too. Where nothing was forwarded before, nothing beside the tunnel is. All
//! changes go through a [`Journal`] and are undone with it.
//!
//! [`Capture`] is a readable descriptor: interfaces come and go, and other programs change rules of
//! nftables and of the routing policy, or set the device down, which takes its routes
//! ([`Capture::handle_ready`], [`Capture::look`]). What is ours is put back.
//!
//! It does not know sessions, and makes no tunnel. It does not switch IPv6 forwarding on.

mod changes;
mod policy;
mod rules;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use self::rules::DIRECT;

use self::changes::RuleChanges;
use self::policy::Default as Route;
use self::table::ruleset;
use crate::address::Cidr;
use crate::monitor::{InterfaceEvent, Monitor};
use crate::nat::{self, Family, NatError, Others, TableWatch, forwarding};
use crate::netlink::{NetlinkError, Requests};
use crate::poll::{Interest, Poller};
use crate::throttle::Throttle;
use crate::undo::{Journal, UndoError};

/// Between a change of the rules and a look at them. Chosen: as for the tables of nftables.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What comes in by interfaces that are neither links nor the tunnel.
    Lan,
    /// That, and what this host itself sends.
    All,
}

/// How a link's own datagrams are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEnd {
    /// Its sockets are bound to this interface.
    pub interface: Option<String>,
    /// Its sockets are bound to this address.
    pub source: Option<IpAddr>,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// What is captured.
    pub scope: Scope,
    /// With [`Scope::Lan`] only packets from these prefixes, of the families that they name.
    pub lan: Vec<Cidr>,
    /// The links.
    pub links: Vec<LinkEnd>,
    /// The TUN device.
    pub tunnel: String,
    /// The first of four priorities of the rules, and the number of the table.
    pub priority: u32,
    /// While the bond is down, what is captured goes as without a bond.
    pub fallback: bool,
    /// What enters the tunnel has its address, but for [`Capture::set_routed`]. Otherwise the other
    /// end knows the prefixes.
    pub masquerade: bool,
}

impl CaptureConfig {
    const fn table(&self) -> u32 {
        self.priority
    }
}

/// Rules, routes and table, while they are there. Dropping it undoes all changes of its journal.
#[derive(Debug)]
pub struct Capture {
    config: CaptureConfig,
    journal: Journal,
    requests: Requests,
    families: Vec<Family>,
    /// The device's index, once it is made.
    tunnel: Option<u32>,
    has_ipv6: bool,
    /// Networks behind this host that the other end knows.
    routed: Vec<Cidr>,
    /// The bond is up.
    is_up: bool,
    table: TableWatch,
    monitor: Monitor,
    rules: RuleChanges,
    /// Ready when one of the three is.
    inputs: Poller,
    /// IPv4 was not forwarded before, and what needed forwarding then.
    was_off: bool,
    claims: BTreeSet<String>,
    only_tunnel: bool,
    /// When to look whether rules and routes are there.
    policy_at: Option<Instant>,
    log: Throttle,
}

impl Capture {
    /// Holds what is to be captured, until [`Self::start`]; with `fallback` it does nothing yet.
    /// `scope`: how much of it is held. What an earlier run holds stays held.
    pub fn hold(journal: Journal, config: CaptureConfig, scope: Scope) -> Result<Self, UndoError> {
        let table = TableWatch::open(&config.tunnel).map_err(NatError::Watch)?;
        let monitor = Monitor::open()?;
        let rules = RuleChanges::open().map_err(NatError::Watch)?;
        let inputs = Poller::new().map_err(NatError::Watch)?;
        inputs.add(&table, 0, Interest::Readable).map_err(NatError::Watch)?;
        inputs.add(&monitor, 1, Interest::Readable).map_err(NatError::Watch)?;
        inputs.add(&rules, 2, Interest::Readable).map_err(NatError::Watch)?;
        let others = Others::read().map_err(NatError::Watch)?;
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let mut capture = Self {
            was_off: !Family::V4.is_forwarded(),
            claims: nat::claims_of_others(Family::V4, &others, &table.table()),
            config,
            journal,
            requests: Requests::open()?,
            families: Family::BOTH.into_iter().filter(|one| *one == Family::V4 || has_ipv6).collect(),
            tunnel: None,
            has_ipv6: false,
            routed: Vec::new(),
            is_up: false,
            table,
            monitor,
            rules,
            inputs,
            only_tunnel: false,
            policy_at: None,
            log: Throttle::new(Duration::from_secs(10)),
        };
        capture.journal.record_capture(capture.config.priority)?;
        if !capture.config.fallback {
            capture.install(scope)?;
        }
        Ok(capture)
    }

    /// Begins: the tunnel's device is there. `has_ipv6`: it has an IPv6 address.
    pub fn start(&mut self, index: u32, has_ipv6: bool) -> Result<(), UndoError> {
        self.tunnel = Some(index);
        self.has_ipv6 = has_ipv6;
        self.journal.record_table(&self.table.table())?;
        self.table.ask();
        self.try_look()?;
        // After the rules, so that no packet is forwarded without them; undone before them.
        forwarding::enable(&mut self.journal, &self.config.tunnel, &[Family::V4])?;
        self.enable_interfaces()?;
        if !self.config.fallback {
            self.install(self.config.scope)?;
        }
        Ok(())
    }

    /// The journal, for changes that end with these.
    pub const fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The settings.
    pub const fn config(&self) -> &CaptureConfig {
        &self.config
    }

    /// The priorities of the first and the last rule.
    pub fn priorities(&self) -> (u32, u32) {
        let all = rules::priorities(self.config.priority);
        (*all.start(), *all.end())
    }

    /// Whether packets are captured now.
    pub const fn is_active(&self) -> bool {
        self.is_up || !self.config.fallback
    }

    /// The bond is up, or down.
    pub fn set_up(&mut self, is_up: bool) -> Result<(), NetlinkError> {
        if is_up == self.is_up {
            return Ok(());
        }
        self.is_up = is_up;
        if !self.config.fallback {
            return Ok(());
        }
        if is_up { self.install(self.config.scope).map(drop) } else { self.withdraw() }
    }

    /// The tunnel has an IPv6 address, or has none.
    pub fn set_ipv6(&mut self, has_ipv6: bool) -> Result<(), NetlinkError> {
        if has_ipv6 == self.has_ipv6 {
            return Ok(());
        }
        self.has_ipv6 = has_ipv6;
        if self.is_active() { self.install_routes() } else { Ok(()) }
    }

    /// The links are these from now on.
    pub fn set_links(&mut self, links: Vec<LinkEnd>) -> Result<(), NetlinkError> {
        if links == self.config.links {
            return Ok(());
        }
        self.config.links = links;
        // The table of nftables has them, too.
        self.table.ask();
        if self.is_active() && self.tunnel.is_some() {
            self.install(self.config.scope)?;
        }
        Ok(())
    }

    /// The other end knows these networks behind this host: they keep their addresses.
    pub fn set_routed(&mut self, routed: Vec<Cidr>) {
        if routed != self.routed {
            self.routed = routed;
            self.table.ask();
        }
    }

    /// Makes the rules and routes that are missing. How many rules were.
    fn install(&mut self, scope: Scope) -> Result<usize, NetlinkError> {
        self.install_routes()?;
        let mut wanted = rules::rules(&self.config, scope);
        wanted.retain(|rule| self.families.contains(&rule.family));
        // New ones first: nothing is let out in between.
        let present = policy::list(&mut self.requests, &rules::priorities(self.config.priority))?;
        let mut missing = 0;
        for rule in wanted.iter().filter(|rule| !present.contains(rule)) {
            policy::add(&mut self.requests, rule)?;
            missing += 1;
        }
        for rule in present.iter().filter(|rule| !wanted.contains(rule)) {
            policy::remove(&mut self.requests, rule)?;
        }
        Ok(missing)
    }

    fn install_routes(&mut self) -> Result<(), NetlinkError> {
        let table = self.config.table();
        for family in self.families.clone() {
            let is_carried = family == Family::V4 || self.has_ipv6;
            let requests = &mut self.requests;
            if !self.config.fallback || !is_carried {
                policy::route(requests, table, family, Route::Closed)?;
            }
            match self.tunnel.map(Route::Through) {
                Some(tunnel) if is_carried => policy::route(requests, table, family, tunnel)?,
                Some(tunnel) => policy::unroute(requests, table, family, tunnel)?,
                None => {}
            }
            if self.config.fallback && is_carried {
                policy::unroute(requests, table, family, Route::Closed)?;
            }
        }
        Ok(())
    }

    fn withdraw(&mut self) -> Result<(), NetlinkError> {
        for rule in policy::list(&mut self.requests, &rules::priorities(self.config.priority))? {
            policy::remove(&mut self.requests, &rule)?;
        }
        for family in self.families.clone() {
            policy::unroute(&mut self.requests, self.config.table(), family, Route::Closed)?;
        }
        Ok(())
    }

    /// Packets to be captured may come in by any interface but the links'.
    fn enable_interfaces(&mut self) -> Result<(), UndoError> {
        let links = &self.config.links;
        let is_link = |name: &str| links.iter().any(|link| link.interface.as_deref() == Some(name));
        for interface in self.monitor.interfaces().filter(|interface| !is_link(&interface.name)) {
            forwarding::enable_interface(&mut self.journal, interface, &[Family::V4])?;
        }
        Ok(())
    }

    /// Something changed: lets new interfaces take part, and notes whether a look at the tables is
    /// due.
    pub fn handle_ready(&mut self) -> Result<(), UndoError> {
        self.table.note_changes()?;
        let changed = self.monitor.handle_ready()?;
        if !changed.is_empty() {
            self.enable_interfaces()?;
        }
        let is_tunnel = |event: &InterfaceEvent| matches!(event, InterfaceEvent::Changed(interface) if Some(interface.index) == self.tunnel);
        let is_touched = changed.iter().any(is_tunnel) || self.rules.read().map_err(NatError::Watch)?;
        if is_touched && self.tunnel.is_some() {
            self.policy_at.get_or_insert(Instant::now() + LOOK_INTERVAL);
        }
        Ok(())
    }

    /// How long until [`Self::look`] is due.
    pub fn due_in(&self) -> Option<Duration> {
        let policy = self.policy_at.map(|at| at.saturating_duration_since(Instant::now()));
        self.table.due_in().into_iter().chain(policy).min()
    }

    /// Makes the table, the rules and the routes anew if they are not as they are to be. A failure
    /// is logged, and tried again.
    pub fn look(&mut self) {
        if self.policy_at.is_some_and(|at| at <= Instant::now()) {
            self.policy_at = None;
            self.restore();
        }
        if self.table.begin_look()
            && let Err(error) = self.try_look()
            && let Some(more) = self.table.on_failure()
        {
            tracing::error!(%error, more, "networks behind this host have no NAT: the nftables table cannot be put back");
        }
    }

    /// Puts back the rules and routes that are missing.
    fn restore(&mut self) {
        if !self.is_active() {
            return;
        }
        match self.install(self.config.scope) {
            Ok(0) => {}
            Ok(rules) => {
                if let Some(more) = self.log.pass() {
                    tracing::warn!(
                        rules,
                        more,
                        "another program removed rules of the routing policy that lead into the bond: put back"
                    );
                }
            }
            Err(error) => {
                self.policy_at = Some(Instant::now() + LOOK_INTERVAL);
                if let Some(more) = self.log.pass() {
                    tracing::error!(%error, more, "what leads into the bond is missing and cannot be put back yet");
                }
            }
        }
    }

    fn try_look(&mut self) -> Result<(), NatError> {
        let others = Others::read()?;
        self.table.warn_of_drops(&others);
        let claims = nat::claims_of_others(Family::V4, &others, &self.table.table());
        let only_tunnel = self.was_off && claims.is_subset(&self.claims);
        if !self.table.is_broken() && only_tunnel == self.only_tunnel {
            return Ok(());
        }
        self.table.replace(&ruleset(&self.config, &self.routed, only_tunnel)?)?;
        self.only_tunnel = only_tunnel;
        Ok(())
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inputs.as_fd()
    }
}

/// Removes the rules and the route that a bond with this priority left.
pub(crate) fn undo(priority: u32) -> Result<(), NetlinkError> {
    let mut requests = Requests::open()?;
    for rule in policy::list(&mut requests, &rules::priorities(priority))? {
        policy::remove(&mut requests, &rule)?;
    }
    for family in Family::BOTH {
        match policy::unroute(&mut requests, priority, family, Route::Closed) {
            // This kernel has no IPv6.
            Err(_) if family == Family::V6 => {}
            result => result?,
        }
    }
    Ok(())
}
