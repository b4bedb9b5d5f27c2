//! Which rules capture what: from a configuration to the list, without the kernel.
//!
//! Per family, with the first priority P (rules of one priority select different packets or have
//! the same action, so that their order does not matter):
//!
//! - P: the bond's own packets, what comes in by a link or out of the tunnel, answers that leave
//!   where their question came in, and without [`Scope::All`] the host's own packets go to P + 3.
//! - P + 1: what is captured asks the main table, without its default routes.
//! - P + 2: what is captured asks our table.
//! - P + 3: nothing. The other rules of the host follow.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::policy::{Action, Rule};
use super::{CaptureConfig, Scope};
use crate::address::Cidr;
use crate::nat::Family;

/// The bit in the marks of packets and connections that are not captured. Chosen: wg-quick, mwan3,
/// Tailscale and Kubernetes use lower ones.
pub(crate) const DIRECT: u32 = 1 << 24;

/// Priorities of one bond: the first is configured.
const PRIORITIES: u32 = 4;

/// The priorities that belong to a bond.
pub(super) const fn priorities(first: u32) -> RangeInclusive<u32> {
    first..=first + PRIORITIES - 1
}

/// All rules of `scope`.
pub(super) fn rules(config: &CaptureConfig, scope: Scope) -> Vec<Rule> {
    Family::BOTH.into_iter().flat_map(|family| rules_of(config, scope, family)).collect()
}

fn rules_of(config: &CaptureConfig, scope: Scope, family: Family) -> Vec<Rule> {
    let first = config.priority;
    let end = first + PRIORITIES - 1;
    let blank = |priority, action| Rule {
        family,
        priority,
        source: None,
        incoming: None,
        outgoing: None,
        mark: None,
        action,
    };
    let skip = || blank(first, Action::GoTo(end));
    let mut rules = vec![Rule { mark: Some(DIRECT), ..skip() }];
    let mut by = |incoming: &str| rules.push(Rule { incoming: Some(incoming.to_owned()), ..skip() });
    by(&config.tunnel);
    if scope == Scope::Lan {
        by("lo");
    }
    for link in &config.links {
        if let Some(interface) = &link.interface {
            by(interface);
        }
    }
    for link in &config.links {
        if let Some(interface) = &link.interface {
            rules.push(Rule { outgoing: Some(interface.clone()), ..skip() });
        }
        if let Some(source) = link.source.filter(|source| is_of(family, *source)) {
            let source = Some(Cidr::host(source));
            rules.push(Rule { source, incoming: Some("lo".to_owned()), ..skip() });
        }
    }
    rules.sort_by_key(|rule| (rule.incoming.clone(), rule.outgoing.clone(), rule.source));
    rules.dedup();
    for source in sources(config, scope, family) {
        rules.push(Rule { source, ..blank(first + 1, Action::Specific) });
        rules.push(Rule { source, ..blank(first + 2, Action::Table(config.table())) });
    }
    rules.push(blank(end, Action::Nothing));
    rules
}

/// The sources that are captured; `None`: any. A family of which no prefix is named is captured
/// whole, so that none of its packets leaves beside the bond.
fn sources(config: &CaptureConfig, scope: Scope, family: Family) -> Vec<Option<Cidr>> {
    let named: Vec<Option<Cidr>> =
        config.lan.iter().filter(|prefix| is_of(family, prefix.address())).map(|one| Some(*one)).collect();
    if scope == Scope::All || named.is_empty() { vec![None] } else { named }
}

fn is_of(family: Family, address: IpAddr) -> bool {
    address.is_ipv4() == (family == Family::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::LinkEnd;

    fn config(lan: &[&str]) -> CaptureConfig {
        let link = |interface: Option<&str>, source: Option<&str>| LinkEnd {
            interface: interface.map(str::to_owned),
            source: source.map(|source| source.parse().unwrap()),
        };
        CaptureConfig {
            scope: Scope::All,
            lan: lan.iter().map(|one| one.parse().unwrap()).collect(),
            links: vec![link(Some("wan"), None), link(None, Some("10.1.0.2")), link(Some("wan"), None)],
            tunnel: "tun-bond".to_owned(),
            priority: 20_000,
            fallback: false,
            masquerade: true,
        }
    }

    /// What selects, and where it leads.
    fn shown(rules: &[Rule], family: Family) -> Vec<String> {
        let of_family = rules.iter().filter(|rule| rule.family == family);
        let show = |rule: &Rule| {
            let source = rule.source.map(|source| format!(" from {source}"));
            let incoming = rule.incoming.as_ref().map(|name| format!(" iif {name}"));
            let outgoing = rule.outgoing.as_ref().map(|name| format!(" oif {name}"));
            let mark = rule.mark.map(|mark| format!(" mark {mark:#x}"));
            let words: String = [source, incoming, outgoing, mark].into_iter().flatten().collect();
            format!("{}{words} {:?}", rule.priority, rule.action)
        };
        of_family.map(show).collect()
    }

    #[test]
    fn the_hosts_own_packets_are_captured_by_all_only() {
        let config = config(&["192.168.1.0/24", "192.168.2.0/24"]);
        let lan = rules(&config, Scope::Lan);
        assert_eq!(
            shown(&lan, Family::V4),
            [
                "20000 mark 0x1000000 GoTo(20003)",
                "20000 oif wan GoTo(20003)",
                "20000 iif lo GoTo(20003)",
                "20000 from 10.1.0.2/32 iif lo GoTo(20003)",
                "20000 iif tun-bond GoTo(20003)",
                "20000 iif wan GoTo(20003)",
                "20001 from 192.168.1.0/24 Specific",
                "20002 from 192.168.1.0/24 Table(20000)",
                "20001 from 192.168.2.0/24 Specific",
                "20002 from 192.168.2.0/24 Table(20000)",
                "20003 Nothing",
            ]
        );
        let all = shown(&rules(&config, Scope::All), Family::V4);
        assert!(!all.contains(&"20000 iif lo GoTo(20003)".to_owned()), "{all:?}");
        assert_eq!(all[all.len() - 3..], ["20001 Specific", "20002 Table(20000)", "20003 Nothing"]);
    }

    #[test]
    fn a_family_without_a_prefix_is_captured_whole() {
        let ipv6 = shown(&rules(&config(&["192.168.1.0/24"]), Scope::Lan), Family::V6);
        assert_eq!(ipv6[ipv6.len() - 3..], ["20001 Specific", "20002 Table(20000)", "20003 Nothing"]);
        assert!(!ipv6.iter().any(|rule| rule.contains("10.1.0.2")), "{ipv6:?}");
        let none = shown(&rules(&config(&[]), Scope::Lan), Family::V4);
        assert!(none.contains(&"20002 Table(20000)".to_owned()), "{none:?}");
    }
}
