//! Whether an interface leads to an address, as the kernel's routing policy says.
//!
//! Contract: the kernel is asked for the route that a socket would get that is bound to the
//! interface. A way may need a source address: tables of an interface's own are often chosen by
//! rules such as `from 192.0.2.7 lookup 5`, and the main table then has no default route over it.
//! Without a route the kernel would take the destination to be on the interface's own network, and
//! ask for it there in vain; that is no way.
//!
//! Source: rtnetlink(7); linux/net/ipv4/route.c, `ip_route_output_key_hash_rcu`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType};

use crate::capture::DIRECT;
use crate::netlink::{Interface, Requests, family};

/// How a socket that is bound to an interface reaches an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whichever address the kernel chooses.
    Any,
    /// From this address of the interface only.
    From(IpAddr),
}

impl Requests {
    /// The way from `interface` to the first of `remotes` that it leads to. What a
    /// [`crate::capture::Capture`] of this host captures is not in the way of it.
    pub fn way(&mut self, interface: &Interface, remotes: &[IpAddr]) -> Option<Way> {
        let has = |remote: &&IpAddr| own(interface, **remote).next().is_some();
        for remote in remotes.iter().filter(has) {
            if self.is_routed(interface.index, None, *remote) {
                return Some(Way::Any);
            }
        }
        for remote in remotes {
            for source in own(interface, *remote) {
                if self.is_routed(interface.index, Some(source), *remote) {
                    return Some(Way::From(source));
                }
            }
        }
        None
    }

    fn is_routed(&mut self, index: u32, source: Option<IpAddr>, remote: IpAddr) -> bool {
        let length = if remote.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = family(remote);
        message.header.destination_prefix_length = length;
        // The entry that matched: an error where none did.
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(remote)));
        message.attributes.push(RouteAttribute::Oif(index));
        message.attributes.push(RouteAttribute::Mark(DIRECT));
        if let Some(source) = source {
            message.header.source_prefix_length = length;
            message.attributes.push(RouteAttribute::Source(RouteAddress::from(source)));
        }
        let answers = self.talk(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST | NLM_F_ACK);
        answers.is_ok_and(|answers| answers.iter().any(|answer| leads(answer, index)))
    }
}

/// Addresses of the interface from which `remote` may be sent to.
fn own(interface: &Interface, remote: IpAddr) -> impl Iterator<Item = IpAddr> + '_ {
    let is_of_family = move |address: &IpAddr| match address {
        IpAddr::V4(_) => remote.is_ipv4(),
        IpAddr::V6(v6) => remote.is_ipv6() && !v6.is_unicast_link_local(),
    };
    interface.addresses.iter().map(|cidr| cidr.address()).filter(is_of_family)
}

/// Whether the answer is a route over the interface.
fn leads(answer: &RouteNetlinkMessage, index: u32) -> bool {
    let RouteNetlinkMessage::NewRoute(route) = answer else { return false };
    let over = |attribute: &RouteAttribute| {
        if let RouteAttribute::Oif(oif) = attribute {
            *oif == index
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            hops.iter().any(|hop| hop.interface_index == index)
        } else {
            // A next hop of its own: the kernel has matched its interface.
            matches!(attribute, RouteAttribute::NhId(_))
        }
    };
    route.header.kind == RouteType::Unicast && route.attributes.iter().any(over)
}
