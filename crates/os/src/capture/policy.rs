//! Rules of the routing policy, and the routes of the table that they lead to: what a bond makes,
//! finds again and removes.
//!
//! Contract: each rule and route carries [`PROTOCOL`], by which it is told from those of others.
//!
//! Source: ip-rule(8), rtnetlink(7); linux/fib_rules.h.

use std::io;
use std::ops::RangeInclusive;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::Cidr;
use crate::nat::Family;
use crate::netlink::{NetlinkError, Requests};

/// Marks our rules and routes. Chosen: no routing program has this number
/// (linux/rtnetlink.h, `RTPROT_*`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(176);
/// The metric of the route into the tunnel, and of the one that holds traffic without it. Chosen:
/// the second is the worst that there is.
const TUNNEL_METRIC: u32 = 100;
const CLOSED_METRIC: u32 = u32::MAX;
/// "No prefix length is suppressed", as the kernel writes it.
const NOT_SUPPRESSED: u32 = u32::MAX;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) family: Family,
    /// The rules apply in the order of their priorities.
    pub(super) priority: u32,
    /// Only packets from there.
    pub(super) source: Option<Cidr>,
    /// Only packets that come in by this interface; `lo`: those of this host.
    pub(super) incoming: Option<String>,
    /// Only packets of sockets that are bound to this interface.
    pub(super) outgoing: Option<String>,
    /// Only packets whose mark has this bit.
    pub(super) mark: Option<u32>,
    pub(super) action: Action,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Goes on with the rule of that priority.
    GoTo(u32),
    /// Asks the main table for all but its default routes.
    Specific,
    /// Asks our table.
    Table(u32),
    /// The end of a jump.
    Nothing,
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = address_family(self.family);
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(PROTOCOL));
        if let Some(source) = self.source.map(Cidr::network) {
            message.header.src_len = source.length();
            attributes.push(RuleAttribute::Source(source.address()));
        }
        attributes.extend(self.incoming.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.outgoing.clone().map(RuleAttribute::Oifname));
        if let Some(bit) = self.mark {
            attributes.extend([RuleAttribute::FwMark(bit), RuleAttribute::FwMask(bit)]);
        }
        message.header.action = match self.action {
            Action::GoTo(priority) => {
                attributes.push(RuleAttribute::Goto(priority));
                RuleAction::Goto
            }
            Action::Specific => {
                attributes.push(RuleAttribute::Table(RouteHeader::RT_TABLE_MAIN.into()));
                attributes.push(RuleAttribute::SuppressPrefixLen(0));
                RuleAction::ToTable
            }
            Action::Table(table) => {
                attributes.push(RuleAttribute::Table(table));
                RuleAction::ToTable
            }
            Action::Nothing => RuleAction::Nop,
        };
        message
    }

    /// `None`: not one of ours.
    fn parse(family: Family, message: &RuleMessage) -> Option<Self> {
        let mut rule = Self {
            family,
            priority: 0,
            source: None,
            incoming: None,
            outgoing: None,
            mark: None,
            action: Action::Nothing,
        };
        let (mut is_own, mut table, mut target, mut suppressed) = (false, None, None, NOT_SUPPRESSED);
        for attribute in &message.attributes {
            if let RuleAttribute::Priority(priority) = attribute {
                rule.priority = *priority;
            } else if let RuleAttribute::Protocol(protocol) = attribute {
                is_own = *protocol == PROTOCOL;
            } else if let RuleAttribute::Source(address) = attribute {
                rule.source = Cidr::new(*address, message.header.src_len).ok();
            } else if let RuleAttribute::Iifname(name) = attribute {
                rule.incoming = Some(name.clone());
            } else if let RuleAttribute::Oifname(name) = attribute {
                rule.outgoing = Some(name.clone());
            } else if let RuleAttribute::FwMark(mark) = attribute {
                // The kernel writes it for rules without one, too.
                rule.mark = Some(*mark).filter(|mark| *mark != 0);
            } else if let RuleAttribute::Table(number) = attribute {
                table = Some(*number);
            } else if let RuleAttribute::Goto(priority) = attribute {
                target = Some(*priority);
            } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
                suppressed = *length;
            }
        }
        let action = message.header.action;
        rule.action = if action == RuleAction::Goto {
            Action::GoTo(target?)
        } else if action == RuleAction::ToTable {
            if suppressed == 0 { Action::Specific } else { Action::Table(table?) }
        } else if action == RuleAction::Nop {
            Action::Nothing
        } else {
            return None;
        };
        is_own.then_some(rule)
    }
}

/// Adds a rule; one that is there stays.
pub(super) fn add(requests: &mut Requests, rule: &Rule) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::NewRule(rule.message());
    match requests.order(format!("rule {}", rule.priority), message, NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.io().kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Our rules of these priorities.
pub(super) fn list(
    requests: &mut Requests,
    priorities: &RangeInclusive<u32>,
) -> Result<Vec<Rule>, NetlinkError> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let found = match requests.dump("list rules", RouteNetlinkMessage::GetRule(message)) {
            // This kernel has no IPv6.
            Err(_) if family == Family::V6 => continue,
            found => found?,
        };
        let rule = |message: &RouteNetlinkMessage| {
            let RouteNetlinkMessage::NewRule(rule) = message else { return None };
            Rule::parse(family, rule)
        };
        rules.extend(found.iter().filter_map(rule).filter(|rule| priorities.contains(&rule.priority)));
    }
    Ok(rules)
}

/// Removes a rule.
pub(super) fn remove(requests: &mut Requests, rule: &Rule) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelRule(rule.message());
    requests.order(format!("no rule {}", rule.priority), message, 0)
}

/// A default route of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// Into the interface with this index.
    Through(u32),
    /// Nowhere: senders are told. It outlives this process.
    Closed,
}

impl Default {
    fn message(self, table: u32, family: Family) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.protocol = PROTOCOL;
        message.attributes.push(RouteAttribute::Table(table));
        match self {
            Self::Through(index) => {
                message.header.kind = RouteType::Unicast;
                message.header.scope =
                    if family == Family::V4 { RouteScope::Link } else { RouteScope::Universe };
                message.attributes.push(RouteAttribute::Priority(TUNNEL_METRIC));
                message.attributes.push(RouteAttribute::Oif(index));
            }
            Self::Closed => {
                message.header.kind = RouteType::Unreachable;
                message.header.scope = RouteScope::Universe;
                message.attributes.push(RouteAttribute::Priority(CLOSED_METRIC));
            }
        }
        message
    }
}

/// Makes the route, or replaces an equal one.
pub(super) fn route(
    requests: &mut Requests,
    table: u32,
    family: Family,
    default: Default,
) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::NewRoute(default.message(table, family));
    requests.order(format!("default route of table {table}"), message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// Removes the route, if it is there.
pub(super) fn unroute(
    requests: &mut Requests,
    table: u32,
    family: Family,
    default: Default,
) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelRoute(default.message(table, family));
    match requests.order(format!("no default route of table {table}"), message, 0) {
        Err(error) if error.io().raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_again_and_anothers_is_not_ours() {
        let rule = |action| Rule {
            family: Family::V4,
            priority: 20_000,
            source: Some("192.168.1.0/24".parse().unwrap()),
            incoming: Some("br0".to_owned()),
            outgoing: None,
            mark: Some(1 << 24),
            action,
        };
        for action in [Action::GoTo(20_003), Action::Specific, Action::Table(20_000), Action::Nothing] {
            let mut message = rule(action).message();
            assert_eq!(Rule::parse(Family::V4, &message), Some(rule(action)));
            message.attributes.retain(|one| !matches!(one, RuleAttribute::Protocol(_)));
            assert_eq!(Rule::parse(Family::V4, &message), None);
        }
    }
}
