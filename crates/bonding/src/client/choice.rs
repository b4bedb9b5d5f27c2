//! Which TCP connections end at the bond, and why others cross it as packets.
//!
//! The first rule that matches the connection's first packet decides if it says `split`. Otherwise
//! `[tcp] split` does. With `off` no rule is asked.

use std::fmt;
use std::sync::Arc;

use bonding_os::hairpin::Connection;
use bonding_proto::qos::Rule;
use bonding_proto::qos::flow::InnerHeader;

use crate::engine::plan::Split;

/// IANA's protocol number.
const TCP: u8 = 6;

/// Services whose connections live long, carry little and miss their end when a process restarts:
/// ssh, telnet, BGP, RDP, VNC.
const LONG_LIVED: [std::ops::RangeInclusive<u16>; 5] =
    [22..=23, 179..=179, 3_389..=3_389, 5_900..=5_909, 2_222..=2_222];

/// Why a connection crosses the bond as packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AsPackets {
    /// `[tcp] split` is off.
    Off,
    /// The rule with this place in the list says so.
    Rule(usize),
    /// A service whose connections live long has the port.
    LongLived(u16),
}

impl fmt::Display for AsPackets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("split is off"),
            // Counted from 1, as a person does.
            Self::Rule(at) => write!(f, "rule {}", at + 1),
            Self::LongLived(port) => write!(f, "port {port} lives long"),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    split: Split,
    rules: Arc<[Rule]>,
}

impl Choice {
    pub(super) const fn new(split: Split, rules: Arc<[Rule]>) -> Self {
        Self { split, rules }
    }

    /// Whether it is made from the same settings as another, which costs no look at the rules.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.split == other.split && Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// Whether no connection ends at the bond.
    pub(super) fn is_off(&self) -> bool {
        self.split == Split::Off
    }

    /// Why a connection crosses the bond as packets; `None`: it ends at the bond.
    pub(super) fn as_packets(&self, connection: &Connection) -> Option<AsPackets> {
        let (source, destination) = (connection.source, connection.destination);
        self.of_header(&InnerHeader {
            source: source.ip(),
            destination: destination.ip(),
            protocol: TCP,
            ports: Some((source.port(), destination.port())),
            ecn: 0,
            dscp: connection.dscp,
        })
    }

    /// The same, by the header of a packet of the connection.
    pub(super) fn of_header(&self, header: &InnerHeader) -> Option<AsPackets> {
        if self.is_off() {
            return Some(AsPackets::Off);
        }
        let rule = self.rules.iter().enumerate().find(|(_, rule)| rule.matches(header));
        if let Some((at, Rule { split: Some(split), .. })) = rule {
            return (!split).then_some(AsPackets::Rule(at));
        }
        let (_, port) = header.ports?;
        let is_long_lived = self.split == Split::Auto && LONG_LIVED.iter().any(|ports| ports.contains(&port));
        is_long_lived.then_some(AsPackets::LongLived(port))
    }
}

#[cfg(test)]
mod tests {
    use bonding_proto::config::Prefix;
    use bonding_proto::qos::{Class, RuleProtocol};

    use super::*;

    fn rule(ports: &[(u16, u16)], class: Option<Class>, split: Option<bool>) -> Rule {
        Rule {
            protocol: None,
            ports: ports.to_vec(),
            source: Vec::new(),
            destination: Vec::new(),
            dscp: None,
            class,
            duplicate: false,
            split,
        }
    }

    fn why(split: Split, rules: &[Rule], port: u16) -> Option<AsPackets> {
        let connection = Connection {
            source: "192.168.1.7:50000".parse().unwrap(),
            destination: format!("203.0.113.9:{port}").parse().unwrap(),
            dscp: 10,
        };
        Choice::new(split, rules.into()).as_packets(&connection)
    }

    #[test]
    fn without_a_rule_the_setting_decides() {
        for (split, https, ssh) in [
            (Split::Auto, None, Some(AsPackets::LongLived(22))),
            (Split::All, None, None),
            (Split::Off, Some(AsPackets::Off), Some(AsPackets::Off)),
        ] {
            assert_eq!((why(split, &[], 443), why(split, &[], 22)), (https, ssh), "{split:?}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_says_whether() {
        let rules = [
            Rule { protocol: Some(RuleProtocol::Udp), ..rule(&[], None, Some(false)) },
            rule(&[(22, 22)], None, Some(true)),
            rule(&[(443, 443)], Some(Class::Bulk), None),
            rule(&[(443, 443), (8_000, 8_999)], Some(Class::Bulk), Some(false)),
        ];
        for split in [Split::Auto, Split::All] {
            assert_eq!(why(split, &rules, 22), None, "a rule splits what lives long");
            assert_eq!(why(split, &rules, 8_080), Some(AsPackets::Rule(3)));
            assert_eq!(why(split, &rules, 443), None, "the third rule decides, and does not say");
            assert_eq!(why(split, &rules, 80), None);
        }
        assert_eq!(why(Split::Off, &rules, 22), Some(AsPackets::Off), "off is off");
    }

    #[test]
    fn a_rule_sees_addresses_and_the_mark() {
        let home = Prefix { address: "192.168.1.0".parse().unwrap(), length: 24 };
        let matching = Rule { source: vec![home], dscp: Some(10), ..rule(&[], None, Some(false)) };
        assert_eq!(why(Split::Auto, std::slice::from_ref(&matching), 443), Some(AsPackets::Rule(0)));
        assert_eq!(why(Split::Auto, &[Rule { dscp: Some(11), ..matching }], 443), None);
    }
}
