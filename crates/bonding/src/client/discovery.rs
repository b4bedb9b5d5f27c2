//! Which interfaces of this machine are links by themselves.
//!
//! ```text
//! interfaces, routes ─► a verdict for each interface ─► found: links of the client
//!                                                   └─► not used: why, for logs and status
//! ```
//! Contract: an interface is found if its name is among those that may be, it is none that never
//! is, it can carry packets, and the kernel has a way from it to the server (`bonding_os::way`). So
//! a LAN is never found. An interface of a `[[link]]` is that link's. Each change of a verdict is
//! one log line.
//!
//! It asks the kernel only, and changes nothing. It does not know whether a link delivers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bonding_os::monitor::Monitor;
use bonding_os::netlink::{Interface, Requests};
use bonding_os::way::Way;
use bonding_proto::config::{Security, UdpFlows};
use bonding_proto::view::LinkRole;

use crate::engine::plan::{DiscoveryPlan, LinkPlan};
use crate::status::{Discovery as Shown, Unused};

/// Names of interfaces that carry a line.
pub(crate) const INCLUDE: [&str; 8] = ["wg*", "eth*", "en*", "wlan*", "wl*", "wwan*", "usb*", "ppp*"];
/// Names of interfaces that never do.
pub(crate) const EXCLUDE: [&str; 5] = ["tun*", "docker*", "veth*", "br-*", "lo"];
/// Drivers of interfaces that lead to other interfaces of this machine, or to nowhere; one that
/// `include` in the file names may still be a line.
const NO_LINES: [&str; 5] = ["bridge", "dummy", "ifb", "nlmon", "vrf"];
/// The driver of interfaces that carry a line, however they are called.
const LINE: &str = "wireguard";
/// The longest chain of interfaces on top of one another that is followed. Chosen: more is a loop.
const STACK_MAX: usize = 8;

/// An interface that is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The interface's name.
    pub(super) interface: String,
    /// Only from this address the server is reached.
    pub(super) source: Option<IpAddr>,
}

/// Why an interface is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Found(Found),
    /// It could be one, and a person may want to know why it is not.
    Unused(String),
    /// It is none of those that may be.
    Foreign(String),
}

/// The interfaces, as they were judged last.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    verdicts: BTreeMap<String, Verdict>,
}

impl Discovery {
    /// Judges all interfaces. `tunnel`: the bond's own; `links`: those of the file; `remotes`: the
    /// servers' addresses.
    pub(super) fn look(
        &mut self,
        plan: &DiscoveryPlan,
        monitor: &Monitor,
        (tunnel, links): (&str, &[LinkPlan]),
        remotes: &[IpAddr],
    ) -> Vec<Found> {
        let mut requests = Requests::open().inspect_err(|error| tracing::debug!(%error, "routes")).ok();
        let mut way = |interface: &Interface| requests.as_mut()?.way(interface, remotes);
        let mut verdicts = BTreeMap::new();
        for interface in monitor.interfaces() {
            let is_own = interface.name == "lo" || interface.is_called(tunnel);
            if !is_own && !links.iter().any(|link| is_of(link, interface)) {
                let verdict = judge(plan, interface, (monitor, tunnel), &mut way);
                verdicts.insert(interface.name.clone(), verdict);
            }
        }
        self.tell(&verdicts);
        self.verdicts = verdicts;
        let found = self.verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Found(found) => Some(found.clone()),
            Verdict::Unused(_) | Verdict::Foreign(_) => None,
        });
        found.collect()
    }

    /// Nothing is looked for any more.
    pub(super) fn stop(&mut self) {
        self.verdicts.clear();
    }

    fn tell(&self, verdicts: &BTreeMap<String, Verdict>) {
        for (name, verdict) in
            verdicts.iter().filter(|(name, verdict)| self.verdicts.get(*name) != Some(verdict))
        {
            match verdict {
                Verdict::Found(Found { source, .. }) => {
                    let source = source.map_or_else(String::new, |source| format!(" from {source}"));
                    tracing::info!(interface = name, "{name} is used: it has a route to the server{source}");
                }
                Verdict::Unused(why) => tracing::info!(interface = name, "{name} is not used: {why}"),
                Verdict::Foreign(why) => tracing::debug!(interface = name, "{name} is not used: {why}"),
            }
        }
        for name in self.verdicts.keys().filter(|name| !verdicts.contains_key(*name)) {
            tracing::info!(interface = name, "{name} is gone");
        }
    }

    /// For people.
    pub(super) fn status(&self) -> Shown {
        let mut shown = Shown::default();
        for (name, verdict) in &self.verdicts {
            let (why, is_candidate) = match verdict {
                Verdict::Found(_) => {
                    shown.used.push(name.clone());
                    continue;
                }
                Verdict::Unused(why) => (why, true),
                Verdict::Foreign(why) => (why, false),
            };
            shown.unused.push(Unused { interface: name.clone(), why: why.clone(), is_candidate });
        }
        shown
    }
}

/// Whether a `[[link]]` has the interface.
fn is_of(link: &LinkPlan, interface: &Interface) -> bool {
    let has = |source: IpAddr| interface.addresses.iter().any(|address| address.address() == source);
    match &link.interface {
        Some(name) => interface.is_called(name),
        None => link.source.is_some_and(has),
    }
}

fn judge(
    plan: &DiscoveryPlan,
    interface: &Interface,
    (monitor, tunnel): (&Monitor, &str),
    way: &mut impl FnMut(&Interface) -> Option<Way>,
) -> Verdict {
    if let Some(why) = foreign(plan, interface) {
        return Verdict::Foreign(why);
    }
    let by_index = |index: u32| monitor.interfaces().find(|other| other.index == index);
    if let Some(controller) = interface.controller {
        let name = by_index(controller).map_or("another interface", |other| other.name.as_str());
        return Verdict::Unused(format!("it is a part of {name}"));
    }
    let below = |one: &&Interface| one.below.filter(|index| *index != one.index).and_then(by_index);
    let stack = std::iter::successors(Some(interface), below).take(STACK_MAX);
    if stack.skip(1).any(|other| other.is_called(tunnel)) {
        return Verdict::Unused(format!("it runs over {tunnel}"));
    }
    if !interface.usable {
        return Verdict::Unused("it is down, or has no carrier".to_owned());
    }
    if !interface.addresses.iter().any(|address| is_usable(address.address())) {
        return Verdict::Unused("it has no address".to_owned());
    }
    match way(interface) {
        None => Verdict::Unused("no route to the server".to_owned()),
        Some(way) => Verdict::Found(Found {
            interface: interface.name.clone(),
            source: match way {
                Way::Any => None,
                Way::From(source) => Some(source),
            },
        }),
    }
}

/// Why the interface is none of those that may be links.
fn foreign(plan: &DiscoveryPlan, interface: &Interface) -> Option<String> {
    let like = |pattern: &str| {
        std::iter::once(&interface.name)
            .chain(&interface.alternative_names)
            .any(|name| matches(pattern, name))
    };
    let excluded = match &plan.exclude {
        Some(patterns) => patterns.iter().map(String::as_str).find(|pattern| like(pattern)),
        None => EXCLUDE.into_iter().find(|pattern| like(pattern)),
    };
    if let Some(pattern) = excluded {
        return Some(format!("`exclude` has \"{pattern}\""));
    }
    let kind = interface.kind.as_deref();
    match &plan.include {
        Some(patterns) if patterns.iter().any(|pattern| like(pattern)) => None,
        None if kind == Some(LINE) => None,
        None if kind.is_some_and(|kind| NO_LINES.contains(&kind)) => {
            Some(format!("a {} is no line", kind.unwrap_or_default()))
        }
        None if INCLUDE.into_iter().any(like) => None,
        Some(_) | None => Some("`include` does not have its name".to_owned()),
    }
}

fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// `*` stands for any characters, `?` for one.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern.as_str();
            (0..=name.len()).filter_map(|at| name.get(at..)).any(|tail| matches(rest, tail))
        }
        Some(wanted) => {
            let mut name = name.chars();
            name.next().is_some_and(|found| wanted == '?' || wanted == found)
                && matches(pattern.as_str(), name.as_str())
        }
    }
}

/// The link of an interface that was found. `taken`: names that other links have.
pub(super) fn link(found: &Found, priority: u8, taken: impl Fn(&str) -> bool) -> LinkPlan {
    // An interface's name may have what a link's may not.
    let holdable = |c: char| if c.is_control() || c.is_whitespace() { '_' } else { c };
    let mut name: String = found.interface.chars().map(holdable).collect();
    while taken(&name) {
        name.push('\'');
    }
    LinkPlan {
        name,
        interface: Some(found.interface.clone()),
        source: found.source,
        security: Security::Sealed,
        port: 0,
        priority,
        role: LinkRole::Primary,
        tx_rate: None,
        rx_rate: None,
        cap: None,
        flows: UdpFlows::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, address: &str) -> Interface {
        let addresses = if address.is_empty() { Vec::new() } else { vec![address.parse().unwrap()] };
        let name = name.to_owned();
        Interface { index, name, usable: true, mtu: 1_500, addresses, ..Interface::default() }
    }

    fn plan(include: Option<&[&str]>, exclude: Option<&[&str]>) -> DiscoveryPlan {
        let owned =
            |list: Option<&[&str]>| list.map(|list| list.iter().map(|one| (*one).to_owned()).collect());
        DiscoveryPlan { include: owned(include), exclude: owned(exclude), priority: 2 }
    }

    fn words(plan: &DiscoveryPlan, interface: &Interface, way: Option<Way>) -> String {
        let monitor = Monitor::open().unwrap();
        match judge(plan, interface, (&monitor, "tun-bond"), &mut |_| way) {
            Verdict::Found(found) => {
                format!("found {}", found.source.map_or(String::new(), |s| s.to_string()))
            }
            Verdict::Unused(why) => why,
            Verdict::Foreign(why) => format!("foreign: {why}"),
        }
    }

    #[test]
    fn each_interface_has_its_verdict() {
        let usual = plan(None, None);
        let kind = |kind: &str| Some(kind.to_owned());
        let eth = || interface(500, "eth1", "192.0.2.2/24");
        let cases = [
            (eth(), Some(Way::Any), "found "),
            (eth(), Some(Way::From("192.0.2.2".parse().unwrap())), "found 192.0.2.2"),
            (eth(), None, "no route to the server"),
            (interface(501, "eth1", ""), Some(Way::Any), "it has no address"),
            (interface(502, "eth1", "169.254.7.7/16"), Some(Way::Any), "it has no address"),
            (interface(503, "wlan0", "fe80::1/64"), Some(Way::Any), "it has no address"),
            (Interface { usable: false, ..eth() }, Some(Way::Any), "it is down, or has no carrier"),
            (Interface { controller: Some(1), ..eth() }, Some(Way::Any), "it is a part of lo"),
            (
                Interface { kind: kind("wireguard"), ..interface(504, "office", "10.1.1.1/32") },
                Some(Way::Any),
                "found ",
            ),
            (Interface { kind: kind("veth"), ..eth() }, Some(Way::Any), "found "),
            (Interface { kind: kind("bridge"), ..eth() }, Some(Way::Any), "foreign: a bridge is no line"),
            (interface(508, "veth7", "10.0.0.1/24"), Some(Way::Any), "foreign: `exclude` has \"veth*\""),
            (
                interface(505, "docker0", "172.17.0.1/16"),
                Some(Way::Any),
                "foreign: `exclude` has \"docker*\"",
            ),
            (
                interface(506, "lan0", "192.168.1.1/24"),
                Some(Way::Any),
                "foreign: `include` does not have its name",
            ),
            (
                Interface {
                    alternative_names: vec!["enp7s0".to_owned()],
                    ..interface(507, "lan0", "192.0.2.2/24")
                },
                Some(Way::Any),
                "found ",
            ),
        ];
        for (interface, way, expected) in cases {
            assert_eq!(words(&usual, &interface, way), expected, "{interface:?}");
        }
    }

    #[test]
    fn the_file_says_which_names_may_be() {
        let bridge = Interface { kind: Some("bridge".to_owned()), ..interface(500, "sat1", "192.0.2.2/24") };
        let by = |include, exclude| words(&plan(include, exclude), &bridge, Some(Way::Any));
        assert_eq!(by(Some(&["sat*"]), None), "found ", "whatever its driver");
        assert_eq!(by(Some(&["sat*"]), Some(&["*1"])), "foreign: `exclude` has \"*1\"");
        assert_eq!(by(Some(&["eth*"]), None), "foreign: `include` does not have its name");
        let tun = interface(501, "tun9", "192.0.2.2/24");
        assert_eq!(words(&plan(Some(&["*"]), Some(&[])), &tun, Some(Way::Any)), "found ");
    }

    #[test]
    fn names_are_made_holdable_and_differ() {
        let found = Found { interface: "a\u{1}b".to_owned(), source: None };
        let link = link(&found, 7, |name| name == "a_b");
        assert_eq!(
            (link.name.as_str(), link.interface.as_deref(), link.priority),
            ("a_b'", Some("a\u{1}b"), 7)
        );
    }

    #[test]
    fn patterns_are_whole_names() {
        for (pattern, name, expected) in [
            ("wg*", "wg0", true),
            ("wg*", "wg", true),
            ("wg*", "xwg0", false),
            ("*0", "eth0", true),
            ("e?h*", "eth12", true),
            ("e?h", "eh", false),
            ("lo", "lo0", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
