//! The kernel's nftables, over netlink: what changes in them, and what the rules of others need.
//!
//! Contract: [`Watch`] is a readable descriptor; [`Watch::read`] says what happened since it was
//! asked last. [`Others::read`] looks at all tables. Neither runs a program.
//!
//! Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h; netlink(7), rtnetlink(7).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::{Family, is_own_table};
use crate::netlink::RECEIVE_BYTES;
use crate::poll::{Interest, Poller};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const SUBSYSTEM: u8 = 10;
/// `NFT_MSG_DELTABLE`, `_NEWCHAIN`, `_GETCHAIN`, `_DELCHAIN`, `_NEWRULE`, `_GETRULE`, `_DELRULE`.
const DELETED_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const ASK_CHAINS: u8 = 4;
const DELETED_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const ASK_RULES: u8 = 7;
const DELETED_RULE: u8 = 8;
/// `NFT_MSG_NEWGEN`: the end of a transaction. It names no table.
const NEW_GENERATION: u8 = 15;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and the like: each is the first.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// `NFTA_CHAIN_HOOK`, and `NFTA_HOOK_HOOKNUM` in it.
const CHAIN_HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NFTA_CHAIN_POLICY`, and `NF_DROP`.
const CHAIN_POLICY: u16 = 5;
const DROP: u32 = 0;
/// `NFTA_RULE_EXPRESSIONS`, a list of `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_MATCH_NAME`: which match of iptables it is.
const MATCH_NAME: u16 = 1;
/// Expressions that need connection tracking.
const TRACKING: [&[u8]; 4] = [b"ct", b"nat", b"redir", b"masq"];
/// Matches of iptables that do.
const TRACKING_MATCHES: [&[u8]; 2] = [b"conntrack", b"state"];
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// What happened in the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Our table changed.
    pub(crate) own: bool,
    /// The last change of our table took something out of it.
    pub(crate) own_less: bool,
    /// Other rules, or the switches of forwarding.
    pub(crate) others: bool,
    /// Notifications were lost.
    pub(crate) lost: bool,
}

/// Tells of changes in the tables and in the switches of forwarding.
#[derive(Debug)]
pub(crate) struct Watch {
    tables: Socket,
    switches: Socket,
    both: Poller,
    buffer: Vec<u8>,
    /// The name of our table.
    own: String,
}

impl Watch {
    pub(crate) fn open(own: &str) -> io::Result<Self> {
        let open = |protocol, group| {
            let mut socket = Socket::new(protocol)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(group)?;
            socket.set_non_blocking(true)?;
            io::Result::Ok(socket)
        };
        let tables = open(NETLINK_NETFILTER, GROUP)?;
        let switches = open(NETLINK_ROUTE, libc::RTNLGRP_IPV4_NETCONF)?;
        switches.add_membership(libc::RTNLGRP_IPV6_NETCONF)?;
        let both = Poller::new()?;
        both.add(&tables, 0, Interest::Readable)?;
        both.add(&switches, 1, Interest::Readable)?;
        Ok(Self { tables, switches, both, buffer: Vec::with_capacity(RECEIVE_BYTES), own: own.to_owned() })
    }

    /// Reads what there is, without waiting.
    pub(crate) fn read(&mut self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        while receive(&self.tables, &mut self.buffer, &mut seen.lost)? {
            note(&self.buffer, &self.own, &mut seen);
        }
        while receive(&self.switches, &mut self.buffer, &mut seen.lost)? {
            seen.others = true;
        }
        Ok(seen)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

/// One datagram of the kernel's; `false`: there is none.
fn receive(socket: &Socket, buffer: &mut Vec<u8>, lost: &mut bool) -> io::Result<bool> {
    loop {
        buffer.clear();
        match socket.recv_from(buffer, 0) {
            // Other processes may send to us.
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // netlink(7): notifications were dropped.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => *lost = true,
            Err(error) => return Err(error),
        }
    }
}

fn note(bytes: &[u8], own: &str, seen: &mut Seen) {
    for message in Messages(bytes) {
        if message.subsystem != SUBSYSTEM || message.kind == NEW_GENERATION {
            continue;
        }
        let table = message.attribute(TABLE).map(text).unwrap_or_default();
        if message.family == INET && table == own.as_bytes() {
            seen.own = true;
            seen.own_less = [DELETED_TABLE, DELETED_CHAIN, DELETED_RULE].contains(&message.kind);
        } else {
            seen.others = true;
        }
    }
}

/// What the rules on this host need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// Rules beside our tables need connection tracking.
    pub(crate) track: bool,
    /// The chains in the way of forwarded packets, ours as well, with their family.
    forward: BTreeSet<(u8, String)>,
    /// Those of them that drop what no rule of theirs accepts, as nft(8) names them.
    pub(crate) dropping: BTreeSet<String>,
}

impl Others {
    /// Looks at the tables of this moment.
    pub(crate) fn read() -> io::Result<Self> {
        let mut others = Self { track: legacy().is_some(), ..Self::default() };
        ask(ASK_CHAINS, |message| {
            if message.kind == NEW_CHAIN {
                let chain = forward_chain(message);
                others.dropping.extend(chain.as_ref().and_then(|_| dropping_chain(message)));
                others.forward.extend(chain);
            }
        })?;
        ask(ASK_RULES, |message| {
            others.track |= message.kind == NEW_RULE && message.is_of_others() && needs_tracking(message);
        })?;
        Ok(others)
    }

    /// The chains that forwarded packets of `family` pass, and older tables of the same use.
    pub(crate) fn forward_chains(&self, family: Family) -> BTreeSet<String> {
        let own = if family == Family::V4 { IPV4 } else { IPV6 };
        let of_family = self.forward.iter().filter(|(family, _)| [INET, own].contains(family));
        let legacy = legacy().filter(|tables| tables.lines().any(|table| table == "filter"));
        of_family.map(|(_, name)| name.clone()).chain(legacy.map(|_| "iptables-legacy".to_owned())).collect()
    }
}

/// The tables of iptables before nftables, which netlink does not show.
fn legacy() -> Option<String> {
    let files = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let names = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<String>();
    (!names.is_empty()).then_some(names)
}

/// Family, table and name of a chain at the hook for forwarded packets.
fn forward_chain(message: &Message<'_>) -> Option<(u8, String)> {
    let hook = Attributes(message.attribute(CHAIN_HOOK)?);
    let number = hook.into_iter().find(|(kind, _)| *kind == HOOK_NUMBER)?.1;
    if number_of(number) != Some(FORWARD) {
        return None;
    }
    // Without spaces: the names go into a journal.
    let name = format!("{}/{}/{}", message.family, message.name(TABLE), message.name(CHAIN_NAME));
    Some((message.family, name.replace(|c: char| c.is_whitespace() || c.is_control(), "_")))
}

/// The name of a chain that drops what no rule of it accepts.
fn dropping_chain(message: &Message<'_>) -> Option<String> {
    if message.attribute(CHAIN_POLICY).and_then(number_of) != Some(DROP) {
        return None;
    }
    let family = match message.family {
        INET => "inet",
        IPV4 => "ip",
        IPV6 => "ip6",
        _ => return None,
    };
    Some(format!("{family} {} {}", message.name(TABLE), message.name(CHAIN_NAME)))
}

fn number_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|number| u32::from_be_bytes(*number))
}

fn needs_tracking(message: &Message<'_>) -> bool {
    let expressions = Attributes(message.attribute(RULE_EXPRESSIONS).unwrap_or_default());
    expressions.into_iter().any(|(_, expression)| {
        let of = |kind| {
            Attributes(expression).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
        };
        let name = of(EXPRESSION_NAME).map(text).unwrap_or_default();
        let is_match = |data| {
            let matched = Attributes(data).into_iter().find(|(kind, _)| *kind == MATCH_NAME);
            matched.is_some_and(|(_, name)| TRACKING_MATCHES.contains(&text(name)))
        };
        TRACKING.contains(&name) || (name == b"match" && of(EXPRESSION_DATA).is_some_and(is_match))
    })
}

/// Asks for all chains or rules, and calls `each` for every message of the answer.
fn ask(kind: u8, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // nlmsghdr, then nfgenmsg: any family, version 0, no resource.
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let mut request = Vec::with_capacity(20);
    request.extend(20_u32.to_ne_bytes());
    request.extend((u16::from(SUBSYSTEM) << 8 | u16::from(kind)).to_ne_bytes());
    request.extend(u16::try_from(flags).map_err(io::Error::other)?.to_ne_bytes());
    request.extend([0; 12]);
    socket.send(&request, 0)?;
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in Messages(&buffer) {
            match (message.subsystem, i32::from(message.kind)) {
                (0, libc::NLMSG_DONE | libc::NLMSG_ERROR) => return Ok(()),
                _ => each(&message),
            }
        }
    }
}

/// A message of the kernel's.
struct Message<'a> {
    subsystem: u8,
    kind: u8,
    family: u8,
    attributes: &'a [u8],
}

impl<'a> Message<'a> {
    fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        Attributes(self.attributes).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    fn name(&self, kind: u16) -> String {
        String::from_utf8_lossy(text(self.attribute(kind).unwrap_or_default())).into_owned()
    }

    fn is_of_others(&self) -> bool {
        let table = self.attribute(TABLE).map(text).unwrap_or_default();
        !(self.family == INET && std::str::from_utf8(table).is_ok_and(is_own_table))
    }
}

/// The messages in a datagram. A malformed one ends them.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        // nlmsghdr has 16 bytes: length, type, flags, sequence, port. nfgenmsg has 4; the first is
        // the family.
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let (one, _) = self.0.split_at_checked(length.max(16))?;
        self.0 = self.0.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes(*one.get(4..)?.first_chunk()?);
        let [kind, subsystem] = kind.to_le_bytes();
        let family = one.get(16).copied().unwrap_or_default();
        Some(Message { subsystem, kind, family, attributes: one.get(20..).unwrap_or_default() })
    }
}

/// Attributes: type and value. A malformed one ends them.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        // The two upper bits of the type are flags.
        const KIND: u16 = 0x3fff;
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let (one, _) = self.0.split_at_checked(length.max(4))?;
        self.0 = self.0.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes(*one.get(2..)?.first_chunk()?) & KIND;
        Some((kind, one.get(4..)?))
    }
}

/// A text without the zero byte at its end.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u8, family: u8, attributes: &[&[u8]]) -> Vec<u8> {
        let body = attributes.concat();
        let mut bytes = u32::try_from(20 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend((u16::from(SUBSYSTEM) << 8 | u16::from(kind)).to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_last_word_on_our_table_counts() {
        let own = attribute(TABLE, b"bonding-t\0");
        let other = attribute(TABLE, b"filter\0");
        let seen = |messages: &[&[u8]]| {
            let mut seen = Seen::default();
            note(&messages.concat(), "bonding-t", &mut seen);
            seen
        };
        let gone = message(DELETED_TABLE, INET, &[&own]);
        let made = message(0, INET, &[&own]);
        let end = message(NEW_GENERATION, 0, &[&attribute(1, &[0, 0, 0, 1])]);
        assert_eq!(seen(&[&end]), Seen::default());
        assert_eq!(seen(&[&gone]), Seen { own: true, own_less: true, ..Seen::default() });
        assert_eq!(seen(&[&gone, &made, &end]), Seen { own: true, ..Seen::default() });
        assert_eq!(seen(&[&message(NEW_RULE, IPV4, &[&own])]), Seen { others: true, ..Seen::default() });
        assert_eq!(seen(&[&message(NEW_RULE, INET, &[&other])]), Seen { others: true, ..Seen::default() });
    }

    #[test]
    fn chains_for_forwarded_packets_are_named() {
        let chain = |hook: u32, policy: u32| {
            let hook = attribute(CHAIN_HOOK, &attribute(HOOK_NUMBER, &hook.to_be_bytes()));
            let policy = attribute(CHAIN_POLICY, &policy.to_be_bytes());
            let name = attribute(CHAIN_NAME, b"FORWARD\0");
            let bytes = message(NEW_CHAIN, IPV4, &[&attribute(TABLE, b"my filter\0"), &name, &hook, &policy]);
            let message = Messages(&bytes).next().unwrap();
            (forward_chain(&message).map(|(_, name)| name), dropping_chain(&message))
        };
        let name = Some("2/my_filter/FORWARD".to_owned());
        assert_eq!(chain(FORWARD, DROP), (name.clone(), Some("ip my filter FORWARD".to_owned())));
        assert_eq!(chain(FORWARD, 1), (name, None));
        assert_eq!(chain(1, 1), (None, None));
    }

    #[test]
    fn rules_that_need_tracking_are_known() {
        let rule = |name: &[u8], data: &[u8]| {
            let expression = [attribute(EXPRESSION_NAME, name), attribute(EXPRESSION_DATA, data)].concat();
            let bytes = message(NEW_RULE, IPV4, &[&attribute(RULE_EXPRESSIONS, &attribute(1, &expression))]);
            needs_tracking(&Messages(&bytes).next().unwrap())
        };
        assert!(rule(b"ct\0", &[]) && rule(b"redir\0", &[]));
        assert!(rule(b"match\0", &attribute(MATCH_NAME, b"conntrack\0")));
        assert!(!rule(b"match\0", &attribute(MATCH_NAME, b"udp\0")) && !rule(b"cmp\0", &[]));
    }

    #[test]
    fn garbage_ends_the_list() {
        for length in 0..64_u32 {
            let mut bytes = vec![0xff; 64];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Messages(&bytes).count() <= 4);
            assert!(Attributes(&bytes).count() <= 16);
        }
    }
}
