//! The client's nftables table as text: masquerading into the tunnel, what comes out of it, and
//! answers that leave by the line by which their question came in.
//!
//! Source: nft(8).

use super::CaptureConfig;
use super::rules::DIRECT;
use crate::address::Cidr;
use crate::nat::{NatError, interface, per_family, table_name};

/// One transaction that makes the table, or replaces it. `only_tunnel`: nothing was forwarded
/// before, so nothing beside the tunnel is. `routed`: networks that keep their addresses.
pub(super) fn ruleset(
    config: &CaptureConfig,
    routed: &[Cidr],
    only_tunnel: bool,
) -> Result<String, NatError> {
    let tunnel = interface(&config.tunnel)?;
    let name = table_name(tunnel);
    let links = config.links.iter().filter_map(|link| link.interface.as_deref());
    let links: Vec<String> =
        links.map(|link| Ok(format!("\"{}\"", interface(link)?))).collect::<Result<_, NatError>>()?;
    let lines = (!links.is_empty()).then(|| links.join(", "));
    let mut forward = vec![format!("oifname \"{tunnel}\" accept")];
    if config.masquerade {
        let behind = per_family(routed, "daddr", "accept");
        forward.extend(behind.iter().map(|rule| format!("iifname \"{tunnel}\" {rule}")));
        let entering = ["ct state established,related accept", "ct status dnat accept", "drop"];
        forward.extend(entering.map(|verdict| format!("iifname \"{tunnel}\" {verdict}")));
    } else {
        forward.push(format!("iifname \"{tunnel}\" accept"));
    }
    if only_tunnel && !config.fallback {
        forward.push("meta nfproto ipv4 drop".to_owned());
    }
    let mut postrouting = Vec::new();
    if config.masquerade {
        let behind = per_family(routed, "saddr", "accept");
        postrouting.extend(behind.iter().map(|rule| format!("oifname \"{tunnel}\" {rule}")));
        postrouting.push(format!("oifname \"{tunnel}\" masquerade"));
    }
    let (mut arriving, mut leaving) = (Vec::new(), Vec::new());
    if let Some(lines) = lines {
        if config.fallback {
            postrouting
                .push(format!("iifname != {{ \"{tunnel}\", {lines} }} oifname {{ {lines} }} masquerade"));
        }
        let set = format!("mark set meta mark | {DIRECT:#x}");
        let is_direct = format!("ct mark & {DIRECT:#x} != 0 ct direction reply");
        arriving.push(format!("iifname {{ {lines} }} ct state new ct mark set ct mark | {DIRECT:#x}"));
        arriving.push(format!("iifname != {{ {lines} }} {is_direct} meta {set}"));
        leaving.push(format!("{is_direct} meta {set}"));
    }
    let chains = [
        ("arriving", "type filter hook prerouting priority mangle", arriving),
        ("leaving", "type route hook output priority mangle", leaving),
        ("forward", "type filter hook forward priority filter", forward),
        ("postrouting", "type nat hook postrouting priority srcnat", postrouting),
    ];
    let mut text = format!("table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
    for (name, hook, rules) in chains {
        let rules: String = rules.iter().flat_map(|rule| ["    ", rule, "\n"]).collect();
        text += &format!("  chain {name} {{\n    {hook}; policy accept;\n{rules}  }}\n");
    }
    Ok(text + "}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{LinkEnd, Scope};

    fn config() -> CaptureConfig {
        CaptureConfig {
            scope: Scope::Lan,
            lan: Vec::new(),
            links: ["a", "b"].map(|name| LinkEnd { interface: Some(name.to_owned()), source: None }).into(),
            tunnel: "tun-bond".to_owned(),
            priority: 20_000,
            fallback: false,
            masquerade: true,
        }
    }

    #[test]
    fn masquerades_into_the_tunnel_and_over_lines_only_to_fall_back() {
        let text = ruleset(&config(), &[], true).unwrap();
        assert!(text.contains("oifname \"tun-bond\" masquerade") && text.contains("nfproto ipv4 drop"));
        assert!(text.contains("iifname { \"a\", \"b\" } ct state new ct mark set"), "{text}");
        assert!(!text.contains("oifname { \"a\", \"b\" } masquerade"), "{text}");
        let falls_back = ruleset(&CaptureConfig { fallback: true, ..config() }, &[], true).unwrap();
        assert!(falls_back.contains("oifname { \"a\", \"b\" } masquerade"), "{falls_back}");
        assert!(!falls_back.contains("nfproto"), "what goes directly is forwarded");
        let routed = ruleset(&CaptureConfig { masquerade: false, ..config() }, &[], false).unwrap();
        assert!(!routed.contains("masquerade") && !routed.contains("drop"), "{routed}");
    }

    #[test]
    fn networks_that_the_server_knows_keep_their_addresses() {
        let text = ruleset(&config(), &["192.168.1.7/24".parse().unwrap()], true).unwrap();
        let place = |rule: &str| text.find(rule).unwrap_or_else(|| panic!("{rule}: {text}"));
        let kept = place("oifname \"tun-bond\" ip saddr { 192.168.1.0/24 } accept");
        assert!(kept < place("oifname \"tun-bond\" masquerade"));
        let entering = place("iifname \"tun-bond\" ip daddr { 192.168.1.0/24 } accept");
        assert!(entering < place("iifname \"tun-bond\" drop"));
    }

    #[test]
    fn nothing_but_an_interface_gets_into_a_rule() {
        let link = LinkEnd { interface: Some("a\" accept".to_owned()), source: None };
        assert!(ruleset(&CaptureConfig { links: vec![link], ..config() }, &[], true).is_err());
        assert!(ruleset(&CaptureConfig { tunnel: "t\"".to_owned(), ..config() }, &[], true).is_err());
    }
}
