//! The servers' addresses, as each link uses them, while they and the links' own change.
//!
//! Names are looked up at the start, and again: at once when a link goes down, every few seconds
//! while the bond is down, and now and then else, since no resolver of the system tells how long an
//! answer holds. A name that has no address, or no other one, changes nothing that is known. What a
//! link can send to follows the families of its interface's addresses, which may come later.
//!
//! Contract: nothing here waits ([`Lookups`]); the descriptor is readable when there is an answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_proto::config::Security;
use bonding_proto::{Instant, Path, SocketId};

use crate::config::Host;
use crate::engine::plan::LinkPlan;
use crate::names::Lookups;

/// A name with more addresses than this for one link is not one server's. Chosen: far more than a
/// server has.
const PATHS_MAX: usize = 8;
/// Names are asked no more often than this, whatever happens. Chosen: a link that flaps is no flood
/// for a nameserver.
const ASK_MIN: Duration = Duration::from_secs(1);
/// Between two look-ups while the bond is down. Chosen: a server that moved is found as fast.
const ASK_BOND_DOWN: Duration = Duration::from_secs(3);
/// The same while only some links are down.
const ASK_LINK_DOWN: Duration = Duration::from_secs(60);
/// The same while a name has no address and another server carries the traffic.
const ASK_UNKNOWN: Duration = Duration::from_secs(10);
/// The same while all is well. Chosen: the usual life of a dynamic name, and an address that is not
/// used yet costs nothing.
const ASK_IDLE: Duration = Duration::from_secs(600);

/// One server, and what is known of where it is.
#[derive(Debug)]
struct Entry {
    host: Host,
    /// In order of preference.
    addresses: Vec<IpAddr>,
    /// Why its name has no address.
    failure: Option<String>,
}

/// All servers, in order of preference.
#[derive(Debug)]
pub(super) struct Directory {
    entries: Vec<Entry>,
    families: Vec<Families>,
    lookups: Lookups,
    asked_at: Option<Instant>,
    /// How long after that the names are asked again, if nothing is urgent.
    pause: Duration,
    is_urgent: bool,
    links_down: usize,
    /// Paths may be others than at the last look.
    is_changed: bool,
}

impl Directory {
    /// The servers that the hosts are. A name is one server, and so are an IPv4 and an IPv6 address
    /// that stand side by side, as in an invitation. Nothing is looked up yet.
    pub(super) fn new(hosts: &[Host], links: &[LinkPlan], monitor: &Monitor) -> io::Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for host in hosts {
            match (host, entries.last_mut()) {
                (Host::Address(address), Some(Entry { host: Host::Address(_), addresses, .. }))
                    if completes(addresses, *address) =>
                {
                    addresses.push(*address);
                }
                (Host::Address(address), _) => {
                    entries.push(Entry { host: host.clone(), addresses: vec![*address], failure: None });
                }
                (Host::Name(_), _) => {
                    entries.push(Entry { host: host.clone(), addresses: Vec::new(), failure: None });
                }
            }
        }
        Ok(Self {
            entries,
            families: links.iter().map(|link| Families::of(link, monitor)).collect(),
            lookups: Lookups::new()?,
            asked_at: None,
            pause: ASK_BOND_DOWN,
            is_urgent: false,
            links_down: links.len(),
            is_changed: false,
        })
    }

    /// Later look-ups are in a new thread, which has no more rights than the process has now.
    /// Another descriptor tells of them.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.lookups = Lookups::new()?;
        // What was under way is asked again.
        self.asked_at = None;
        Ok(())
    }

    /// Every address of every server that is known.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.entries.iter().flat_map(|entry| &entry.addresses).copied().collect()
    }

    /// Whether no look-up is under way.
    pub(super) const fn is_answered(&self) -> bool {
        !self.lookups.is_waiting()
    }

    /// The servers, for a person.
    pub(super) fn names(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.host.to_string()).collect()
    }

    /// Why a server's name has no address, if one has none.
    pub(super) fn failure(&self) -> Option<&str> {
        self.entries.iter().find_map(|entry| entry.failure.as_deref().filter(|_| entry.addresses.is_empty()))
    }

    /// Looks the names up.
    pub(super) fn ask(&mut self, now: Instant) {
        (self.asked_at, self.is_urgent) = (Some(now), false);
        for entry in &self.entries {
            if let Host::Name(name) = &entry.host
                && let Err(error) = self.lookups.ask(name)
            {
                tracing::warn!(%error, "a name cannot be looked up");
            }
        }
    }

    /// When names are to be asked again; the past: at once. `None`: there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.is_changed {
            return Some(Instant::ZERO);
        }
        let is_name = |entry: &Entry| matches!(entry.host, Host::Name(_));
        let due =
            self.asked_at.map_or(Instant::ZERO, |at| at + if self.is_urgent { ASK_MIN } else { self.pause });
        self.entries.iter().any(is_name).then_some(due)
    }

    /// The bond is up or down, and so many links are down: decides when to ask again. A link that
    /// went down is a reason to ask at once.
    pub(super) fn follow(&mut self, bond_is_up: bool, links_down: usize) {
        self.is_urgent |= links_down > self.links_down;
        self.links_down = links_down;
        self.pause = match (bond_is_up, links_down) {
            (false, _) => ASK_BOND_DOWN,
            (true, _) if self.failure().is_some() => ASK_UNKNOWN,
            (true, 0) => ASK_IDLE,
            (true, _) => ASK_LINK_DOWN,
        };
    }

    /// Takes the answers that are there.
    pub(super) fn handle_ready(&mut self) {
        while let Some(answer) = self.lookups.poll() {
            let named = |entry: &&mut Entry| matches!(&entry.host, Host::Name(name) if *name == answer.name);
            for entry in self.entries.iter_mut().filter(named) {
                self.is_changed |= entry.learn(&answer.addresses);
            }
        }
    }

    /// Interfaces and their addresses may have changed.
    pub(super) fn handle_interfaces(&mut self, links: &[LinkPlan], monitor: &Monitor) {
        let families: Vec<Families> = links.iter().map(|link| Families::of(link, monitor)).collect();
        self.is_changed |= self.families != families;
        self.families = families;
    }

    /// Whether paths may be others than at the last call.
    pub(super) const fn take_change(&mut self) -> bool {
        std::mem::replace(&mut self.is_changed, false)
    }

    /// The addresses that each link can try, of each server: those of the families that the link
    /// can use. A plain link has the first only, since the server knows a plain link by its
    /// address. `port` is the one that a link sends to, `active` the server that carries the
    /// traffic.
    pub(super) fn paths(
        &self,
        links: &[LinkPlan],
        port: &dyn Fn(usize) -> u16,
        active: usize,
    ) -> Vec<Vec<Vec<Path>>> {
        let server = |addresses: Vec<IpAddr>| {
            let links = (0..=u8::MAX).zip(links).zip(&self.families);
            let paths = links.map(|((id, link), families)| {
                let fitting = addresses.iter().filter(|address| families.allow(**address));
                let most = if link.security == Security::Plain { 1 } else { PATHS_MAX };
                let remote = |address: &IpAddr| SocketAddr::new(*address, port(usize::from(id)));
                let path =
                    |address: &IpAddr| Path { socket: SocketId(id), remote: remote(address), local: None };
                fitting.take(most).map(path).collect()
            });
            paths.collect()
        };
        self.merged(active).into_iter().map(server).collect()
    }

    /// Each server's addresses. Two that share an address are one server, which two sessions would
    /// fight for: all goes to the active one of them, or to the first.
    fn merged(&self, active: usize) -> Vec<Vec<IpAddr>> {
        let mut all: Vec<Vec<IpAddr>> = self.entries.iter().map(|entry| entry.addresses.clone()).collect();
        let kept = (active < all.len()).then_some(active).into_iter();
        let places: Vec<usize> = kept.chain((0..all.len()).filter(|at| *at != active)).collect();
        for (turn, at) in places.iter().enumerate() {
            let keeper = places.iter().take(turn).find(|keeper| {
                let (kept, own) = (all.get(**keeper), all.get(*at));
                kept.zip(own).is_some_and(|(kept, own)| own.iter().any(|address| kept.contains(address)))
            });
            if let Some(keeper) = keeper
                && let Some(own) = all.get_mut(*at).map(std::mem::take)
                && let Some(kept) = all.get_mut(*keeper)
            {
                let new = own.into_iter().filter(|address| !kept.contains(address)).collect::<Vec<_>>();
                kept.extend(new);
            }
        }
        all
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lookups.as_fd()
    }
}

impl Entry {
    /// A look-up is over. Whether the server has other addresses than before; in another order they
    /// are the same.
    fn learn(&mut self, answer: &io::Result<Vec<IpAddr>>) -> bool {
        let host = self.host.to_string();
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                let error = format!("looking up `{host}`: {error}");
                if self.failure.is_none() {
                    tracing::warn!("{error}; trying again");
                }
                self.failure = Some(error);
                return false;
            }
        };
        if self.failure.take().is_some() {
            tracing::info!("`{host}` has an address again");
        }
        let known = |address: &IpAddr| self.addresses.contains(address);
        if found.len() == self.addresses.len() && found.iter().all(known) {
            return false;
        }
        if !self.addresses.is_empty() {
            tracing::info!("`{host}` has other addresses than before");
        }
        tracing::debug!(addresses = ?found, "the addresses of `{host}`");
        self.addresses.clone_from(found);
        true
    }
}

/// Whether the server has a single address, and this one is of the other family.
fn completes(addresses: &[IpAddr], other: IpAddr) -> bool {
    matches!(addresses, [only] if only.is_ipv4() != other.is_ipv4())
}

/// The families that a link can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Families {
    ipv4: bool,
    ipv6: bool,
}

impl Families {
    /// Told by its source address, else by the addresses of its interface, or of all interfaces.
    /// Both families while no address is known.
    fn of(link: &LinkPlan, monitor: &Monitor) -> Self {
        if let Some(source) = link.source {
            return Self { ipv4: source.is_ipv4(), ipv6: source.is_ipv6() };
        }
        let ours = |name: &str| name != "lo" && link.interface.as_deref().is_none_or(|own| own == name);
        let addresses = monitor.interfaces().filter(|interface| ours(&interface.name));
        Self::among(addresses.flat_map(|interface| &interface.addresses).map(|address| address.address()))
    }

    fn among(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut found = Self { ipv4: false, ipv6: false };
        for address in addresses {
            match address {
                IpAddr::V4(_) => found.ipv4 = true,
                IpAddr::V6(v6) => found.ipv6 |= !v6.is_unicast_link_local(),
            }
        }
        if found.ipv4 || found.ipv6 { found } else { Self { ipv4: true, ipv6: true } }
    }

    fn allow(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

#[cfg(test)]
mod tests {
    use bonding_os::poll::{Interest, Poller};
    use bonding_proto::config::UdpFlows;

    use super::*;

    #[test]
    fn families_follow_the_addresses() {
        let among = |list: &[&str]| {
            let found = Families::among(list.iter().map(|address| address.parse().unwrap()));
            (found.ipv4, found.ipv6)
        };
        assert_eq!(among(&[]), (true, true));
        assert_eq!(among(&["fe80::1"]), (true, true));
        assert_eq!(among(&["10.0.0.1", "fe80::1"]), (true, false));
        assert_eq!(among(&["2001:db8::1", "fe80::1"]), (false, true));
    }

    fn link(source: &str, security: Security) -> LinkPlan {
        LinkPlan {
            name: source.to_owned(),
            interface: None,
            source: Some(source.parse().unwrap()),
            security,
            port: 9_001,
            priority: 1,
            role: bonding_proto::view::LinkRole::Primary,
            tx_rate: None,
            rx_rate: None,
            cap: None,
            flows: UdpFlows::Auto,
        }
    }

    fn directory(hosts: &[Host], links: &[LinkPlan]) -> Directory {
        Directory::new(hosts, links, &Monitor::open().unwrap()).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_link_tries_the_addresses_of_its_family() {
        let links = [
            link("10.0.0.1", Security::Sealed),
            link("fd00::1", Security::Sealed),
            link("10.0.0.2", Security::Plain),
        ];
        let mut directory = directory(&[Host::Name("vps".to_owned())], &links);
        assert!(directory.paths(&links, &|_| 9_001, 0).iter().flatten().all(Vec::is_empty));
        let both = addresses(&["2001:db8::7", "203.0.113.7", "203.0.113.8"]);
        assert!(directory.entries[0].learn(&Ok(both)));
        let paths = directory.paths(&links, &|link| if link == 2 { 9_003 } else { 9_001 }, 0);
        let remotes: Vec<Vec<String>> =
            paths[0].iter().map(|paths| paths.iter().map(|path| path.remote.to_string()).collect()).collect();
        assert_eq!(remotes[0], ["203.0.113.7:9001", "203.0.113.8:9001"]);
        assert_eq!(remotes[1], ["[2001:db8::7]:9001"]);
        assert_eq!(remotes[2], ["203.0.113.7:9003"]);
        assert_eq!(paths[0][1][0].socket, SocketId(1));
    }

    #[test]
    fn two_families_side_by_side_are_one_server() {
        let texts = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "2001:db8::3", "2001:db8::4"];
        let hosts: Vec<Host> = addresses(&texts).into_iter().map(Host::Address).collect();
        let directory = directory(&hosts, &[]);
        let servers: Vec<Vec<IpAddr>> =
            directory.entries.iter().map(|entry| entry.addresses.clone()).collect();
        let expected: [&[&str]; 4] =
            [&texts[..2], &["192.0.2.2"], &["192.0.2.3", "2001:db8::3"], &["2001:db8::4"]];
        assert_eq!(servers, expected.map(addresses));
        assert_eq!(directory.due(), None, "no name");
    }

    /// A spare's address does not end the questions for a name that has none, and a name that has
    /// none any more keeps those that were known.
    #[test]
    fn names_are_asked_until_they_have_an_address_and_again() {
        let spare = Host::Address("192.0.2.1".parse().unwrap());
        let mut directory = directory(&[Host::Name("no such name".to_owned()), spare], &[]);
        let mut poller = Poller::new().unwrap();
        poller.add(&directory, 0, Interest::Readable).unwrap();
        let now = Instant::from_nanos(5_000_000_000);
        assert_eq!(directory.due(), Some(Instant::ZERO));
        directory.ask(now);
        poller.wait(&mut Vec::new(), Some(Duration::from_secs(30))).unwrap();
        directory.handle_ready();
        assert!(directory.failure().unwrap().starts_with("looking up `no such name`: "));
        assert!(!directory.take_change());
        let due = |directory: &mut Directory, up, down| {
            directory.follow(up, down);
            directory.due().unwrap().saturating_since(now)
        };
        assert_eq!(due(&mut directory, false, 0), ASK_BOND_DOWN);
        assert_eq!(due(&mut directory, true, 0), ASK_UNKNOWN);
        directory.entries[0].failure = None;
        assert_eq!(due(&mut directory, true, 0), ASK_IDLE);
        assert_eq!(due(&mut directory, true, 1), ASK_MIN, "it went down");
        assert_eq!(due(&mut directory, true, 1), ASK_MIN, "not asked since");
        directory.ask(now);
        assert_eq!(due(&mut directory, true, 1), ASK_LINK_DOWN);
        let entry = &mut directory.entries[0];
        assert!(entry.learn(&Ok(addresses(&["192.0.2.7", "192.0.2.8"]))) && entry.failure.is_none());
        assert!(!entry.learn(&Ok(addresses(&["192.0.2.8", "192.0.2.7"]))), "another order");
        assert!(!entry.learn(&Err(io::ErrorKind::TimedOut.into())));
        assert_eq!(entry.addresses, addresses(&["192.0.2.7", "192.0.2.8"]));
        assert!(directory.failure().is_none(), "it has addresses");
        assert!(directory.entries[0].learn(&Ok(addresses(&["192.0.2.9"]))));
        assert_eq!(directory.merged(1), [addresses(&["192.0.2.9"]), addresses(&["192.0.2.1"])]);
        // The name's server is the spare, which goes on if it is in use.
        directory.entries[0].learn(&Ok(addresses(&["192.0.2.9", "192.0.2.1"])));
        assert_eq!(directory.merged(0), [addresses(&["192.0.2.9", "192.0.2.1"]), Vec::new()]);
        assert_eq!(directory.merged(1), [Vec::new(), addresses(&["192.0.2.1", "192.0.2.9"])]);
    }
}
