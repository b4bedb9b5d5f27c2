//! Requests to the kernel's routing subsystem: links, addresses, routes.
//!
//! Blocking, one request and its answer at a time; the kernel answers within the call. For set-up
//! and the monitor's table, not for the packet path.
//!
//! Source: rtnetlink(7), netlink(7).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, Prop,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::address::Cidr;

/// Larger than any message the kernel puts together in one part of a dump.
pub(crate) const RECEIVE_BYTES: usize = 64 * 1024;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct NetlinkError {
    what: String,
    source: io::Error,
}

impl NetlinkError {
    /// The kernel's answer.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// One network interface as the kernel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Interface index: another one after it was removed and made anew.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The interface is up, has a carrier and is in no pending state: it can carry packets.
    pub usable: bool,
    /// Largest packet.
    pub mtu: u32,
    /// The addresses, sorted, without tentative and failed ones.
    pub addresses: Vec<Cidr>,
    /// The driver of a virtual interface, such as `wireguard` or `veth`.
    pub kind: Option<String>,
    /// The interface that it is a part of: a bridge, a bond, a VRF.
    pub controller: Option<u32>,
    /// The interface that it is on top of: a VLAN's, a tunnel's.
    pub below: Option<u32>,
    /// Other names that it goes by.
    pub alternative_names: Vec<String>,
}

impl Interface {
    /// Whether it goes by this name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternative_names.iter().any(|other| other == name)
    }
}

/// A default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The outgoing interface.
    pub index: u32,
    /// The metric: the smallest of a family is used.
    pub metric: u32,
    /// The family: IPv4, otherwise IPv6.
    pub ipv4: bool,
}

/// A socket for requests.
#[derive(Debug)]
pub struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    /// Opens one.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = (|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        })()
        .map_err(|source| NetlinkError { what: "cannot open a netlink socket".to_owned(), source })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sets the largest packet of interface `index`, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Mtu(mtu));
        self.order(format!("MTU {mtu}"), RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Bounds the segments of a super-packet given to interface `index`.
    pub fn set_gso_segments(&mut self, index: u32, segments: u32) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::GsoMaxSegs(segments));
        self.order(format!("gso_max_segs {segments}"), RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Limits interface `index` to the IPv6 addresses that it is given, without a link-local one.
    /// To be called before the interface is switched on.
    pub fn set_no_automatic_ipv6(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        self.order("no automatic IPv6 address".to_owned(), RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Switches interface `index` on.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.order("switch on".to_owned(), RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives interface `index` an address, and with it the route to the address's network. IPv6
    /// addresses are usable at once, without duplicate detection: a point-to-point device has no
    /// other hosts.
    pub fn add_address(&mut self, index: u32, address: Cidr) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address());
        message.header.prefix_len = address.length();
        message.header.index = index;
        if address.address().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message.attributes.push(AddressAttribute::Local(address.address()));
        message.attributes.push(AddressAttribute::Address(address.address()));
        let message = RouteNetlinkMessage::NewAddress(message);
        self.order(format!("address {address}"), message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes an address from interface `index`, and with it the address's route.
    pub fn remove_address(&mut self, index: u32, address: Cidr) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address());
        message.header.prefix_len = address.length();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.address()));
        self.order(format!("no address {address}"), RouteNetlinkMessage::DelAddress(message), 0)
    }

    /// Routes `network` (host bits are ignored) through interface `index`, in the main table.
    /// Replaces an equal route.
    pub fn add_route(&mut self, index: u32, network: Cidr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(route(index, network));
        self.order(format!("route to {network}"), message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes what [`Self::add_route`] added, if it is there.
    pub fn remove_route(&mut self, index: u32, network: Cidr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(route(index, network));
        match self.order(format!("no route to {network}"), message, 0) {
            Err(error) if error.io().raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Every interface with its addresses, by index.
    pub fn interfaces(&mut self) -> Result<BTreeMap<u32, Interface>, NetlinkError> {
        let mut table = BTreeMap::new();
        let links = self.dump("list interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        for message in &links {
            apply(&mut table, message);
        }
        let addresses =
            self.dump("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        for message in &addresses {
            apply(&mut table, message);
        }
        Ok(table)
    }

    /// The default routes of the main table, unordered.
    pub fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for ipv4 in [true, false] {
            let mut message = RouteMessage::default();
            message.header.address_family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let found = self.dump("list routes", RouteNetlinkMessage::GetRoute(message))?;
            routes.extend(found.iter().flat_map(|message| default_routes(message, ipv4)));
        }
        Ok(routes)
    }

    /// The index of the interface by which a packet to `to` leaves, with that source if one is
    /// given; `None`: nothing leads there.
    pub fn way_to(&mut self, to: IpAddr, source: Option<IpAddr>) -> Option<u32> {
        let mut message = RouteMessage::default();
        let (family, bits) =
            if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(to.into()));
        if let Some(source) = source.filter(|source| source.is_ipv4() == to.is_ipv4()) {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(source.into()));
        }
        let answers = self.talk(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST | NLM_F_ACK).ok()?;
        answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else { return None };
            let index = |attribute: &RouteAttribute| {
                if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
            };
            route.attributes.iter().find_map(index)
        })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn order(
        &mut self,
        what: String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.talk(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
            .map_err(|source| NetlinkError { what, source })
    }

    pub(crate) fn dump(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.talk(message, NLM_F_REQUEST | NLM_F_DUMP)
            .map_err(|source| NetlinkError { what: what.to_owned(), source })
    }

    pub(crate) fn talk(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut ended = None;
            decode(&buffer, |message| {
                if message.header.sequence_number != self.sequence {
                    return;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Done(_) => ended = Some(Ok(())),
                    NetlinkPayload::Error(error) if error.code.is_none() => ended = Some(Ok(())),
                    NetlinkPayload::Error(error) => ended = Some(Err(error.to_io())),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            });
            if let Some(result) = ended {
                return result.map(|()| answers);
            }
        }
    }
}

/// A static route of the main table to `network` through the interface with this index.
fn route(index: u32, network: Cidr) -> RouteMessage {
    let network = network.network();
    let mut message = RouteMessage::default();
    message.header.address_family = family(network.address());
    message.header.destination_prefix_length = network.length();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if network.address().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(network.address())));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// Calls `each` for every message in `bytes`; unknown messages are skipped.
pub(crate) fn decode(bytes: &[u8], mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
        // netlink(7): a message is at least its header of 16 bytes, and the next one starts
        // 4-aligned.
        let Some(one) = rest.get(..length).filter(|one| one.len() >= 16) else { break };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
            Ok(message) => each(message),
            Err(error) => tracing::trace!(%error, "a netlink message that is not understood"),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Applies one notification to `table`. Returns the index of its interface.
pub(crate) fn apply(table: &mut BTreeMap<u32, Interface>, message: &RouteNetlinkMessage) -> Option<u32> {
    if let RouteNetlinkMessage::NewLink(link) = message {
        if is_of_bridge(link) {
            return None;
        }
        let interface = table.entry(link.header.index).or_default();
        interface.index = link.header.index;
        interface.usable =
            link.header.flags.contains(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp);
        change_link(interface, &link.attributes);
        Some(link.header.index)
    } else if let RouteNetlinkMessage::DelLink(link) = message {
        if is_of_bridge(link) {
            return None;
        }
        table.remove(&link.header.index)?;
        Some(link.header.index)
    } else if let RouteNetlinkMessage::NewAddress(address) = message {
        change_address(table, address, true)
    } else if let RouteNetlinkMessage::DelAddress(address) = message {
        change_address(table, address, false)
    } else {
        None
    }
}

/// A bridge tells of its ports so, beside what is told of interfaces.
fn is_of_bridge(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Bridge
}

fn change_link(interface: &mut Interface, attributes: &[LinkAttribute]) {
    // Some notifications have only what is new to them, and no name.
    if attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(_))) {
        (interface.controller, interface.below, interface.alternative_names) = (None, None, Vec::new());
    }
    for attribute in attributes {
        if let LinkAttribute::IfName(name) = attribute {
            interface.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            interface.mtu = *mtu;
        } else if let LinkAttribute::Controller(index) = attribute {
            interface.controller = Some(*index);
        } else if let LinkAttribute::Link(index) = attribute {
            interface.below = Some(*index);
        } else if let LinkAttribute::PropList(properties) = attribute {
            for property in properties {
                if let Prop::AltIfName(name) = property {
                    interface.alternative_names.push(name.clone());
                }
            }
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Kind(kind) = info {
                    interface.kind = Some(kind.to_string());
                } else if let LinkInfo::Data(InfoData::Vxlan(data)) = info {
                    // It names the interface below in its own way.
                    for one in data {
                        if let InfoVxlan::Link(index) = one {
                            interface.below = Some(*index);
                        }
                    }
                }
            }
        }
    }
}

/// A default route for each of its interfaces; none for any other message.
fn default_routes(message: &RouteNetlinkMessage, ipv4: bool) -> Vec<DefaultRoute> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return Vec::new() };
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    let mut metric = 0;
    let mut indices = Vec::new();
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            indices.push(*index);
        } else if let RouteAttribute::Priority(priority) = attribute {
            metric = *priority;
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            indices.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    indices.into_iter().map(|index| DefaultRoute { index, metric, ipv4 }).collect()
}

fn change_address(
    table: &mut BTreeMap<u32, Interface>,
    message: &AddressMessage,
    present: bool,
) -> Option<u32> {
    let interface = table.get_mut(&message.header.index)?;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        // On a point-to-point interface IFA_ADDRESS is the peer's, IFA_LOCAL ours: rtnetlink(7).
        if let AddressAttribute::Local(local) = attribute {
            address = Some(*local);
        } else if let AddressAttribute::Address(other) = attribute {
            address = address.or(Some(*other));
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    let cidr = Cidr::new(address?, message.header.prefix_len).ok()?;
    interface.addresses.retain(|known| *known != cidr);
    if present && !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
        interface.addresses.push(cidr);
        interface.addresses.sort_unstable();
    }
    Some(interface.index)
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_loopback_interface() {
        let table = Requests::open().unwrap().interfaces().unwrap();
        let lo = table.values().find(|interface| interface.name == "lo").unwrap();
        assert_eq!(table.get(&lo.index), Some(lo));
        assert!(lo.mtu >= 1280);
    }

    #[test]
    fn a_way_has_an_interface() {
        let mut requests = Requests::open().unwrap();
        let lo = requests.interfaces().unwrap().values().find(|one| one.name == "lo").unwrap().index;
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(requests.way_to(own, None), Some(lo));
        assert_eq!(requests.way_to(own, Some(own)), Some(lo));
        assert_eq!(
            requests.way_to("255.255.255.254".parse().unwrap(), Some("192.0.2.9".parse().unwrap())),
            None
        );
    }

    #[test]
    fn what_a_bridge_tells_of_its_ports_is_left_alone() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes.push(LinkAttribute::IfName("eth1".to_owned()));
        link.attributes.push(LinkAttribute::Controller(3));
        let mut table = BTreeMap::new();
        apply(&mut table, &RouteNetlinkMessage::NewLink(link.clone()));
        assert_eq!(table[&7].controller, Some(3));
        let mut told = link.clone();
        told.header.interface_family = AddressFamily::Bridge;
        assert_eq!(apply(&mut table, &RouteNetlinkMessage::DelLink(told)), None);
        assert!(table.contains_key(&7), "it left the bridge, and is there");
        // Then its interface is told of, without one that it is a part of.
        link.attributes.truncate(1);
        apply(&mut table, &RouteNetlinkMessage::NewLink(link));
        assert_eq!(table[&7].controller, None);
    }

    #[test]
    fn a_refusal_says_what_was_asked() {
        let error = Requests::open().unwrap().set_mtu(u32::MAX >> 1, 1400).unwrap_err();
        assert!(error.to_string().starts_with("MTU 1400: "), "{error}");
    }

    #[test]
    fn garbage_is_skipped() {
        for length in 0..64_u8 {
            let mut bytes = vec![0xff; usize::from(length)];
            if let Some(first) = bytes.first_chunk_mut() {
                *first = u32::from(length).to_ne_bytes();
            }
            decode(&bytes, |_| {});
        }
    }
}
