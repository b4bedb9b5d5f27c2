//! The nftables table as text.
//!
//! Source: nft(8).

use std::fmt::Write as _;

use super::reach::{METADATA, PRIVATE, Target};
use super::{Masquerade, NatConfig, NatError, interface, table_name};
use crate::address::Cidr;

/// The kernel's range of ephemeral ports.
const UNRESERVED: &str = "32768-60999";

/// What the table takes into account beside its configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// Other rules of this host need connection tracking, so the listeners' datagrams take part.
    pub(super) tracked: bool,
    /// By family, IPv4 first: nothing but the tunnel needs forwarding, so nothing else gets it.
    pub(super) only_tunnel: [bool; 2],
}

/// One transaction that makes the table, or replaces it.
pub(super) fn ruleset(config: &NatConfig, conditions: Conditions) -> Result<String, NatError> {
    let tunnel = interface(&config.tunnel)?;
    let name = table_name(tunnel);
    let (first, last) = config.listeners;
    let mut text = format!("table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
    let mut chain = |name: &str, hook: &str, rules: &[String]| {
        let rules = rules.iter().fold(String::new(), |text, rule| text + "    " + rule + "\n");
        let _ = write!(text, "  chain {name} {{\n{hook}{rules}  }}\n");
    };
    let at = |hook: &str, priority: &str| {
        let kind = if priority == "srcnat" { "nat" } else { "filter" };
        format!("    type {kind} hook {hook} priority {priority}; policy accept;\n")
    };
    // Chains stand before the rules that lead to them.
    for target in Target::ALL {
        chain(chain_of(target), "", &gate(config, target));
    }
    chain("own", "", &own(config));
    chain("leaving", "", &leaving(tunnel));
    let entering =
        ["ct state established,related accept", "ct status dnat accept", "drop"].map(str::to_owned);
    chain("entering", "", &entering);
    chain("prerouting", &at("prerouting", "raw"), &prerouting(config, conditions.tracked));
    if !conditions.tracked {
        chain("output", &at("output", "raw"), &[format!("udp sport {first}-{last} notrack")]);
    }
    chain("input", &at("input", "filter"), &input(config));
    chain("segments", &at("forward", "mangle"), &segments(tunnel));
    chain("forward", &at("forward", "filter"), &forward(config, conditions.only_tunnel));
    if let Some(masquerade) = &config.masquerade {
        chain("postrouting", &at("postrouting", "srcnat"), &postrouting(config, masquerade)?);
    }
    text.push_str("}\n");
    Ok(text)
}

/// The answer to what a client may not reach: a client is told, so that it need not wait.
const REFUSE: &str = "reject with icmpx type admin-prohibited";

/// The chain that says who may reach the target.
const fn chain_of(target: Target) -> &'static str {
    match target {
        Target::Internet => "to_internet",
        Target::Server => "to_server",
        Target::Private => "to_private",
        Target::Clients => "to_clients",
    }
}

/// Who may reach `target`. A session gives the kernel only packets whose source is its client's.
fn gate(config: &NatConfig, target: Target) -> Vec<String> {
    let verdict = |allowed: bool| if allowed { "accept" } else { REFUSE };
    let usual = target.is_in(config.reach);
    let others: Vec<Cidr> = config
        .exceptions
        .iter()
        .filter(|(_, reach)| target.is_in(*reach) != usual)
        .map(|(source, _)| *source)
        .collect();
    let mut rules = per_family(&others, "saddr", verdict(!usual));
    rules.push(verdict(usual).to_owned());
    rules
}

/// From the tunnel to this host.
fn own(config: &NatConfig) -> Vec<String> {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    let [ipv4, ipv6] = sets(&hosts(&config.addresses));
    rules.extend(ipv4.map(|own| format!("ip daddr {own} icmp type echo-request accept")));
    rules.extend(ipv6.map(|own| format!("ip6 daddr {own} icmpv6 type echo-request accept")));
    rules.push("goto to_server".to_owned());
    rules
}

/// From the tunnel to anywhere else.
fn leaving(tunnel: &str) -> Vec<String> {
    let [metadata4, metadata6] = METADATA.map(|list| list.join(", "));
    let [private4, private6] = PRIVATE.map(|list| list.join(", "));
    vec![
        "ct state established,related accept".to_owned(),
        format!("ip daddr {{ {metadata4} }} {REFUSE}"),
        format!("ip6 daddr {{ {metadata6} }} {REFUSE}"),
        // A packet that no connection knows would leave with its inner source.
        "ct state invalid drop".to_owned(),
        format!("oifname \"{tunnel}\" goto to_clients"),
        format!("ip daddr {{ {private4} }} goto to_private"),
        format!("ip6 daddr {{ {private6} }} goto to_private"),
        "goto to_internet".to_owned(),
    ]
}

fn prerouting(config: &NatConfig, tracked: bool) -> Vec<String> {
    let (tunnel, (first, last)) = (&config.tunnel, config.listeners);
    let networks: Vec<Cidr> = config.addresses.iter().map(|address| address.network()).collect();
    let listeners = format!("udp dport {first}-{last} fib daddr type local");
    // A client's own datagrams do not belong into its tunnel.
    let mut rules = vec![format!("iifname \"{tunnel}\" {listeners} drop")];
    let forged = per_family(&networks, "saddr", "drop");
    rules.extend(forged.iter().map(|rule| format!("iifname != {{ \"{tunnel}\", \"lo\" }} {rule}")));
    if !tracked {
        rules.push(format!("{listeners} notrack"));
    }
    rules
}

fn input(config: &NatConfig) -> Vec<String> {
    let mut rules = vec![format!("iifname \"{}\" goto own", config.tunnel)];
    // The host itself reaches the tunnel's addresses over `lo`.
    let others = per_family(&hosts(&config.addresses), "daddr", "drop");
    rules.extend(others.iter().map(|rule| format!("iifname != \"lo\" {rule}")));
    rules
}

/// `rt mtu` is the smaller of the MTUs towards both ends, so that either direction's SYN is clamped
/// to what the tunnel carries.
fn segments(tunnel: &str) -> Vec<String> {
    let clamp = "tcp flags syn / syn,rst tcp option maxseg size set rt mtu";
    ["iifname", "oifname"].map(|side| format!("{side} \"{tunnel}\" {clamp}")).to_vec()
}

fn forward(config: &NatConfig, only_tunnel: [bool; 2]) -> Vec<String> {
    let tunnel = &config.tunnel;
    let mut rules = vec![format!("iifname \"{tunnel}\" goto leaving")];
    if config.masquerade.is_some() {
        rules.push(format!("oifname \"{tunnel}\" goto entering"));
    }
    let [ipv4, ipv6] = only_tunnel;
    rules.extend(ipv4.then(|| "meta nfproto ipv4 drop".to_owned()));
    rules.extend(ipv6.then(|| "meta nfproto ipv6 drop".to_owned()));
    rules
}

fn postrouting(config: &NatConfig, masquerade: &Masquerade) -> Result<Vec<String>, NatError> {
    let (tunnel, (first, last)) = (&config.tunnel, config.listeners);
    let leaving = match &masquerade.egress {
        Some(egress) => format!("oifname \"{}\"", interface(egress)?),
        None => format!("oifname != \"{tunnel}\""),
    };
    let rule = format!("iifname \"{tunnel}\" {leaving}");
    // A flow with a listener's port would lose its answers to the listener.
    let ports = format!("{rule} udp sport {first}-{last} masquerade to :{UNRESERVED}");
    Ok(vec![ports, format!("{rule} masquerade")])
}

/// The addresses alone, without their networks.
fn hosts(addresses: &[Cidr]) -> Vec<Cidr> {
    addresses.iter().map(|address| Cidr::host(address.address())).collect()
}

/// A rule for each family that has a prefix.
pub(crate) fn per_family(prefixes: &[Cidr], field: &str, verdict: &str) -> Vec<String> {
    let rule = |(family, set)| format!("{family} {field} {set} {verdict}");
    let [ipv4, ipv6] = sets(prefixes);
    [ipv4.map(|set| ("ip", set)), ipv6.map(|set| ("ip6", set))].into_iter().flatten().map(rule).collect()
}

/// The prefixes of each family as a set, IPv4 first. nft(8) refuses sets whose members overlap.
fn sets(prefixes: &[Cidr]) -> [Option<String>; 2] {
    let is_in_another =
        |one: Cidr| prefixes.iter().any(|other| other.contains(one) && other.network() != one.network());
    [true, false].map(|ipv4| {
        let of_family = prefixes.iter().filter(|one| one.address().is_ipv4() == ipv4);
        let mut written: Vec<String> =
            of_family.filter(|one| !is_in_another(**one)).map(|one| one.network().to_string()).collect();
        written.sort_unstable();
        written.dedup();
        (!written.is_empty()).then(|| format!("{{ {} }}", written.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Reach;

    fn config() -> NatConfig {
        NatConfig {
            tunnel: "tun-bond".to_owned(),
            addresses: ["10.99.0.1/24", "fd99::1/64"].map(|one| one.parse().unwrap()).to_vec(),
            reach: Reach { internet: true, ..Reach::default() },
            exceptions: Vec::new(),
            masquerade: Some(Masquerade { egress: None }),
            listeners: (9_001, 9_005),
        }
    }

    fn text(config: &NatConfig) -> String {
        ruleset(config, Conditions::default()).unwrap()
    }

    /// The rules of one chain.
    fn chain(text: &str, name: &str) -> Vec<String> {
        let (_, rest) = text.split_once(&format!("  chain {name} {{\n")).unwrap();
        let (rules, _) = rest.split_once("  }\n").unwrap();
        rules.lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn masquerades_what_came_out_of_the_tunnel() {
        let rules = text(&config());
        assert!(rules.starts_with("table inet bonding-tun-bond\ndelete table inet bonding-tun-bond\n"));
        let from = "iifname \"tun-bond\" oifname != \"tun-bond\"";
        assert_eq!(
            chain(&rules, "postrouting")[1..],
            [format!("{from} udp sport 9001-9005 masquerade to :32768-60999"), format!("{from} masquerade")]
        );
        let off = text(&NatConfig { masquerade: None, ..config() });
        assert!(!off.contains("masquerade") && !off.contains("goto entering"), "{off}");
        assert!(off.contains("goto leaving"), "what clients may reach holds nevertheless");
    }

    #[test]
    fn exceptions_stand_before_the_usual_verdict() {
        let all = Reach { internet: true, server: true, private: true, clients: true };
        let prefixes = ["10.99.0.2/32", "10.7.0.9/16", "10.7.3.0/24", "fd99::2/128"];
        let exceptions = prefixes.map(|one| (one.parse().unwrap(), all)).to_vec();
        let rules = text(&NatConfig { exceptions, ..config() });
        assert_eq!(chain(&rules, "to_internet"), ["accept"]);
        for name in ["to_server", "to_private", "to_clients"] {
            assert_eq!(
                chain(&rules, name),
                ["ip saddr { 10.7.0.0/16, 10.99.0.2/32 } accept", "ip6 saddr { fd99::2/128 } accept", REFUSE]
            );
        }
        let exceptions = vec![("10.99.0.2".parse().unwrap(), Reach::default())];
        let rules = text(&NatConfig { exceptions, ..config() });
        assert_eq!(chain(&rules, "to_internet")[0], format!("ip saddr {{ 10.99.0.2/32 }} {REFUSE}"));
    }

    #[test]
    fn conditions_show_in_the_rules() {
        let of = |conditions| ruleset(&config(), conditions).unwrap();
        let plain = of(Conditions::default());
        assert_eq!(plain.matches("notrack").count(), 2);
        assert_eq!(of(Conditions { tracked: true, ..Conditions::default() }).matches("notrack").count(), 0);
        assert!(!plain.contains("nfproto"));
        let only = of(Conditions { only_tunnel: [true, false], ..Conditions::default() });
        assert_eq!(chain(&only, "forward").last().unwrap(), "meta nfproto ipv4 drop");
        assert!(!only.contains("nfproto ipv6"));
    }

    #[test]
    fn nothing_but_an_interface_gets_into_a_rule() {
        let egress = |name: &str| NatConfig {
            masquerade: Some(Masquerade { egress: Some(name.to_owned()) }),
            ..config()
        };
        assert!(text(&egress("eth0.7")).contains("oifname \"eth0.7\" masquerade"));
        for name in ["", "a\" accept\n", "eth*", "sixteen-letters-", "a b", "a/b"] {
            assert!(ruleset(&egress(name), Conditions::default()).is_err(), "{name}");
            let tunnel = NatConfig { tunnel: name.to_owned(), ..config() };
            assert!(ruleset(&tunnel, Conditions::default()).is_err(), "{name}");
        }
    }
}
