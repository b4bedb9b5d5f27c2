//! The configured rules: the first rule that matches a packet decides.
//!
//! A rule matches if all its conditions match: the protocol, either port, the source, the
//! destination, the DSCP. An absent condition matches everything. A port names a service on either
//! side, so one rule serves both directions. A packet that shows no ports (a fragment) matches no
//! rule with a port.

use std::net::IpAddr;

use super::class::Class;
use super::flow::InnerHeader;
use crate::prefix::Prefix;

/// Protocols that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleProtocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 1 for IPv4, 58 for IPv6.
    Icmp,
}

impl RuleProtocol {
    const fn includes(self, protocol: u8) -> bool {
        match self {
            Self::Tcp => protocol == 6,
            Self::Udp => protocol == 17,
            Self::Icmp => matches!(protocol, 1 | 58),
        }
    }
}

/// One rule. An empty or `None` condition matches every packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The protocol that the packet carries.
    pub protocol: Option<RuleProtocol>,
    /// Ranges of ports (first and last). One of the packet's two ports lies within one range.
    pub ports: Vec<(u16, u16)>,
    /// The source lies in any of these.
    pub source: Vec<Prefix>,
    /// The destination lies in any of these.
    pub destination: Vec<Prefix>,
    /// The DSCP.
    pub dscp: Option<u8>,
    /// The class of a packet that matches; `None`: its mark and its flow's traffic decide.
    pub class: Option<Class>,
    /// Whether a copy of the packet goes over a second link.
    pub duplicate: bool,
    /// Whether a TCP connection that matches ends at the bond or crosses it as packets; `None`: as
    /// usual. The driver decides that; the core carries both.
    pub split: Option<bool>,
}

impl Rule {
    /// Whether a packet with this header matches.
    pub fn matches(&self, header: &InnerHeader) -> bool {
        let within = |port: u16| self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        let among = |prefixes: &[Prefix], address: IpAddr| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(address))
        };
        self.protocol.is_none_or(|protocol| protocol.includes(header.protocol))
            && self.dscp.is_none_or(|dscp| dscp == header.dscp)
            && (self.ports.is_empty()
                || header.ports.is_some_and(|(source, destination)| within(source) || within(destination)))
            && among(&self.source, header.source)
            && among(&self.destination, header.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> InnerHeader {
        InnerHeader {
            source: "192.168.1.7".parse().unwrap(),
            destination: "2001:db8::1".parse().unwrap(),
            protocol: 17,
            ports: Some((50_000, 27_015)),
            ecn: 0,
            dscp: 46,
        }
    }

    fn any() -> Rule {
        Rule {
            protocol: None,
            ports: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            dscp: None,
            class: Some(Class::Bulk),
            duplicate: false,
            split: None,
        }
    }

    fn prefix(text: &str, length: u8) -> Prefix {
        Prefix { address: text.parse().unwrap(), length }
    }

    #[test]
    fn everything_named_must_match() {
        assert!(any().matches(&header()));
        let yes = [
            Rule { protocol: Some(RuleProtocol::Udp), ..any() },
            Rule { ports: vec![(1, 2), (27_000, 27_100)], ..any() },
            Rule { ports: vec![(50_000, 50_000)], ..any() },
            Rule { source: vec![prefix("10.0.0.0", 8), prefix("192.168.1.0", 24)], ..any() },
            Rule { destination: vec![prefix("2001:db8::", 32)], ..any() },
            Rule { dscp: Some(46), ..any() },
        ];
        for rule in yes {
            assert!(rule.matches(&header()), "{rule:?}");
            assert!(!Rule { protocol: Some(RuleProtocol::Tcp), ..rule }.matches(&header()));
        }
        let no = [
            Rule { ports: vec![(27_016, 27_100)], ..any() },
            Rule { source: vec![prefix("192.168.2.0", 24), prefix("::", 8)], ..any() },
            Rule { destination: vec![prefix("2001:db9::", 32)], ..any() },
            Rule { dscp: Some(0), ..any() },
        ];
        for rule in no {
            assert!(!rule.matches(&header()), "{rule:?}");
        }
        let fragment = InnerHeader { ports: None, ..header() };
        assert!(!Rule { ports: vec![(1, 65_535)], ..any() }.matches(&fragment));
        let ping = InnerHeader { protocol: 58, ports: None, ..header() };
        assert!(Rule { protocol: Some(RuleProtocol::Icmp), ..any() }.matches(&ping));
    }
}
