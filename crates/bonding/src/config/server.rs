//! server.toml.

use std::net::{IpAddr, Ipv6Addr};

use bonding_proto::config::Prefix;
use bonding_proto::units::BitRate;

use super::common::{self, Mtu, Sending, Status};
use super::section::{Item, Located, Section};
use super::value::{self, Ports};
use super::{LINKS_MAX, PLAIN_CLIENT_ADDRESS, SERVER_SOCKET};

const IDENTITY_DEFAULT: &str = "/var/lib/bonding/server.key";
/// 10.99.0.1/24 and fd99::1/64.
const ADDRESSES_DEFAULT: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 1)), length: 24 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)), length: 64 },
];
/// A session number has 16 bits.
const CLIENTS_MAX: usize = 65_535;

/// What server.toml says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `[listen] address`.
    pub listen: IpAddr,
    /// `[listen] ports`: one socket each.
    pub ports: Ports,
    /// `[tunnel] interface`.
    pub interface: String,
    /// `[tunnel] address`: at least one.
    pub addresses: Vec<Prefix>,
    /// `[tunnel] mtu`.
    pub mtu: Mtu,
    /// `[nat]`; `None` when it is switched off.
    pub nat: Option<Nat>,
    /// `[[client]]`.
    pub clients: Vec<Peer>,
    /// How packets are sent.
    pub sending: Sending,
    /// `[status]`.
    pub status: Status,
}

/// `[nat]`, switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// The interface to the internet; `None`: whichever has the default route.
    pub egress: Option<String>,
}

/// One `[[client]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Unique among the clients.
    pub name: String,
    /// Its addresses in the tunnel: at least one.
    pub addresses: Vec<IpAddr>,
    /// What lies behind it.
    pub routes: Vec<Prefix>,
    /// `[[client.link]]`: from 1 to [`LINKS_MAX`].
    pub links: Vec<PeerLink>,
}

impl Peer {
    /// All prefixes that are the client's: its addresses and its routes.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.addresses.iter().map(|address| host_prefix(*address)).chain(self.routes.iter().copied())
    }
}

/// One `[[client.link]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLink {
    /// Unique among the client's links.
    pub name: String,
    /// Who may speak on it.
    pub remote: IpAddr,
    /// Ceiling for what the server sends on it.
    pub down: Option<BitRate>,
}

impl Server {
    /// Whether an outer datagram may be IPv6.
    pub fn outer_ipv6(&self) -> bool {
        outer_ipv6(self.listen, self.clients.iter().flat_map(|client| &client.links).map(|link| link.remote))
    }
}

fn outer_ipv6(listen: IpAddr, remotes: impl Iterator<Item = IpAddr>) -> bool {
    let remotes: Vec<IpAddr> = remotes.collect();
    listen.is_ipv6() && (remotes.is_empty() || remotes.iter().any(IpAddr::is_ipv6))
}

fn host_prefix(address: IpAddr) -> Prefix {
    Prefix { address, length: value::address_bits(address) }
}

/// Reads the document; everything has a default. What is wrong is reported, and the answer is then of no use.
pub(super) fn read(mut document: Section<'_, '_>) -> Server {
    let (listen, ports) = self::listen(document.section("listen", "[listen]"));
    common::identity(&mut document, IDENTITY_DEFAULT);
    let mut tunnel = document.section("tunnel", "[tunnel]");
    let interface = common::tunnel_interface(&mut tunnel);
    let addresses = addresses(&mut tunnel);
    let nat = nat(document.section("nat", "[nat]"));
    let clients = clients(&mut document, &addresses, ports);
    let remotes = clients.iter().flat_map(|client| &client.links).map(|link| link.remote);
    let mtu = common::tunnel_mtu(&mut tunnel, &addresses, outer_ipv6(listen, remotes));
    tunnel.finish(&[]);
    let sending = common::sending(&mut document);
    let status = common::status(&mut document, SERVER_SOCKET);
    document.finish(&[
        ("server", "client.toml"),
        ("link", "client.toml"),
        ("discovery", "client.toml"),
        ("routing", "client.toml"),
    ]);
    Server { listen, ports, interface, addresses, mtu, nat, clients, sending, status }
}

fn listen(mut section: Section<'_, '_>) -> (IpAddr, Ports) {
    let any =
        |text: &str| text.parse().map_err(|_| format!("\"{text}\" is not an IP address; \"::\" is any"));
    let address = section.item("address").and_then(|item| item.parsed("an address such as \"::\"", any));
    let ports = section.item("ports").and_then(|item| item.parsed(value::PORTS, value::ports));
    section.finish(&[]);
    (address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), ports.unwrap_or(Ports::DEFAULT))
}

fn addresses(section: &mut Section<'_, '_>) -> Vec<Prefix> {
    let Some(item) = section.item("address") else { return ADDRESSES_DEFAULT.to_vec() };
    let written = item.list(value::INTERFACE_ADDRESS, value::interface_address);
    if item.is_empty_array() {
        item.fail("`address` in [tunnel] is empty; leave it out for the default");
    }
    for (index, one) in written.iter().enumerate() {
        if written.iter().take(index).any(|other| value::overlap(other.value, one.value)) {
            section.fail_at(one.at, "`address` in [tunnel]: two addresses of one network");
        }
    }
    written.into_iter().map(|one| one.value).collect()
}

fn nat(mut section: Section<'_, '_>) -> Option<Nat> {
    let enabled = section.item("enabled").and_then(Item::boolean).unwrap_or(true);
    let egress = section.item("egress").and_then(|item| {
        item.parsed("\"auto\" or the name of an interface", |text| match text {
            "auto" => Ok(None),
            name => value::interface(name).map(Some),
        })
    });
    section.finish(&[]);
    enabled.then(|| Nat { egress: egress.flatten() })
}

/// A client and where what must be unique was written.
struct Written {
    peer: Peer,
    name: Located<String>,
    prefixes: Vec<Located<Prefix>>,
    remotes: Vec<Located<IpAddr>>,
}

fn clients(document: &mut Section<'_, '_>, own: &[Prefix], ports: Ports) -> Vec<Peer> {
    let sections = document.sections("client", "[[client]]");
    if let Some(beyond) = sections.get(CLIENTS_MAX) {
        beyond.fail(format!("more than {CLIENTS_MAX} [[client]] sections"));
    }
    let written: Vec<Written> =
        sections.into_iter().take(CLIENTS_MAX).enumerate().map(|(index, one)| client(one, index)).collect();
    common::distinct_names(written.iter().map(|one| &one.name), document, "[[client]] sections");
    overlapping(&written, own, document);
    same_remote(&written, ports, document);
    written.into_iter().map(|one| one.peer).collect()
}

fn client(mut section: Section<'_, '_>, index: usize) -> Written {
    let at = section.at();
    let name = section.item("name").and_then(|item| {
        let at = item.at();
        item.parsed("a name", value::name).map(|value| Located { value, at })
    });
    let name = name.unwrap_or_else(|| Located { value: format!("client{index}"), at });
    if let Some(item) = section.item("public_key")
        && item.parsed(value::KEY, value::key).is_some()
    {
        item.no_effect(": plain links have no keys");
    }
    let mut addresses = section.item("address").map_or_else(Vec::new, |item| {
        if item.is_empty_array() {
            item.fail("`address` in [[client]] is empty; leave it out for 192.168.50.1");
        }
        item.list("an address such as \"10.99.0.2\", or an array of them", value::address)
    });
    if addresses.is_empty() {
        addresses.push(Located { value: PLAIN_CLIENT_ADDRESS.address, at });
    }
    let routes = section.item("routes").map_or_else(Vec::new, |item| item.list(value::PREFIX, value::prefix));
    if let Some(item) = section.item("up")
        && item.parsed("\"none\" or a rate such as \"10mbit\"", limit) == Some(true)
    {
        item.no_effect(": the client is not limited");
    }
    let (links, remotes) = links(&mut section);
    section.finish(&[]);
    let hosts = addresses.iter().map(|one| Located { value: host_prefix(one.value), at: one.at });
    let prefixes = hosts.chain(routes.iter().cloned()).collect();
    let peer = Peer {
        name: name.value.clone(),
        addresses: addresses.into_iter().map(|one| one.value).collect(),
        routes: routes.into_iter().map(|one| one.value).collect(),
        links,
    };
    Written { peer, name, prefixes, remotes }
}

/// A client's limit: whether there is one.
fn limit(text: &str) -> Result<bool, String> {
    if text == "none" { Ok(false) } else { value::rate(text).map(|_| true) }
}

fn links(client: &mut Section<'_, '_>) -> (Vec<PeerLink>, Vec<Located<IpAddr>>) {
    let sections = client.sections("link", "[[client.link]]");
    if client.is_absent("link") {
        client.fail(
            "[[client]] has no [[client.link]]: this version only has plain links, and the server must be told \
             who may speak on each; add one with `remote` and security = \"plain\"",
        );
    }
    if let Some(beyond) = sections.get(LINKS_MAX) {
        beyond.fail(format!("more than {LINKS_MAX} [[client.link]] sections for one client"));
    }
    let read: Vec<(Option<PeerLink>, Located<String>, usize)> =
        sections.into_iter().take(LINKS_MAX).enumerate().map(|(index, one)| link(one, index)).collect();
    common::distinct_names(read.iter().map(|(_, name, _)| name), client, "[[client.link]] sections");
    let mut links = Vec::new();
    let mut remotes = Vec::new();
    for (link, _, at) in read {
        if let Some(link) = link {
            remotes.push(Located { value: link.remote, at });
            links.push(link);
        }
    }
    (links, remotes)
}

fn link(mut section: Section<'_, '_>, index: usize) -> (Option<PeerLink>, Located<String>, usize) {
    let mut at = section.at();
    let name = section.item("name").and_then(|item| {
        let at = item.at();
        item.parsed("a name", value::name).map(|value| Located { value, at })
    });
    let name = name.unwrap_or_else(|| Located { value: format!("link{index}"), at });
    let remote = match section.item("remote") {
        Some(item) => {
            at = item.at();
            let remote = item.parsed(value::ADDRESS, value::address_and_port);
            if let Some((_, Some(_))) = remote {
                item.no_effect(" beyond its address: the port is learnt from what arrives");
            }
            remote.map(|(address, _)| address)
        }
        None => {
            section
                .fail("[[client.link]] has no `remote`: a plain link needs the address that may speak on it");
            None
        }
    };
    common::security(&mut section, "[[client.link]]");
    let down = section.item("down").and_then(|item| item.parsed(value::RATE, value::rate));
    section.finish(&[]);
    let link = remote.map(|remote| PeerLink { name: name.value.clone(), remote, down });
    (link, name, at)
}

/// An inner address must have one owner.
fn overlapping(written: &[Written], own: &[Prefix], document: &Section<'_, '_>) {
    // Sorted by first address, overlapping prefixes are neighbours or inside one another; but clients are few and
    // the file is read once, so every pair is looked at.
    for (index, one) in written.iter().enumerate() {
        for prefix in &one.prefixes {
            if own.iter().any(|own| value::overlap(host_prefix(own.address), prefix.value)) {
                let shown = show(prefix.value);
                document.fail_at(
                    prefix.at,
                    format!("{shown} of client \"{}\" contains the server's own address", one.peer.name),
                );
            }
            let others = written.iter().take(index);
            let taken = others.flat_map(|other| other.prefixes.iter().map(move |p| (other, p)));
            for (other, theirs) in taken.filter(|(_, theirs)| value::overlap(theirs.value, prefix.value)) {
                document.fail_at(
                    prefix.at,
                    format!(
                        "{} of client \"{}\" overlaps {} of client \"{}\": an address has one client",
                        show(prefix.value),
                        one.peer.name,
                        show(theirs.value),
                        other.peer.name
                    ),
                );
            }
        }
    }
}

fn show(prefix: Prefix) -> String {
    if prefix.length == value::address_bits(prefix.address) {
        prefix.address.to_string()
    } else {
        format!("{}/{}", prefix.address, prefix.length)
    }
}

/// A plain datagram says who sent it by its address and the port it came to, and by nothing else: the same remote
/// on the same port would be two links at once. Where a remote is on several links, each needs a port of its own.
fn same_remote(written: &[Written], ports: Ports, document: &Section<'_, '_>) {
    let mut uses: std::collections::HashMap<IpAddr, usize> = std::collections::HashMap::new();
    for remote in written.iter().flat_map(|one| &one.remotes) {
        *uses.entry(remote.value).or_default() += 1;
    }
    let mut seen: std::collections::HashMap<(IpAddr, u16), (&str, &str)> = std::collections::HashMap::new();
    for one in written {
        for (index, remote) in one.remotes.iter().enumerate() {
            let port = ports.cycle(index);
            let link = one.peer.links.get(index).map_or("", |link| link.name.as_str());
            let name = one.peer.name.as_str();
            if index >= ports.count() && uses.get(&remote.value).is_some_and(|count| *count > 1) {
                document.fail_at(
                    remote.at,
                    format!(
                        "link \"{link}\" of client \"{name}\" shares remote {} with another link and has no port \
                         of its own: it is number {}, and [listen] has {} ports",
                        remote.value,
                        index + 1,
                        ports.count()
                    ),
                );
            } else if let Some((other, other_link)) = seen.insert((remote.value, port), (name, link)) {
                document.fail_at(
                    remote.at,
                    format!(
                        "link \"{link}\" of client \"{name}\" and link \"{other_link}\" of client \"{other}\" \
                         both have remote {} on port {port}: a plain link cannot tell them apart",
                        remote.value
                    ),
                );
            }
        }
    }
}
