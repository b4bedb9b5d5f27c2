//! server.toml.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use bonding_os::nat::Reach;
use bonding_proto::config::{Prefix, Security};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::units::BitRate;

use super::common::{self, Mtu, Sending, Status};
use super::section::{Item, Located, Section, shown};
use super::value::{self, Ports};
use super::{LINKS_MAX, PLAIN_CLIENT_ADDRESS, SERVER_KEY, SERVER_SOCKET};
use crate::engine::overhead::Overhead;
use crate::engine::plan::Split;

/// 10.99.0.1/24 and fd99::1/64.
const ADDRESSES_DEFAULT: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 1)), length: 24 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1)), length: 64 },
];
/// Chosen: what a tunnel to the internet is for.
const REACH_DEFAULT: Reach = Reach { internet: true, server: false, private: false, clients: false };
/// A session number has 16 bits.
const CLIENTS_MAX: usize = 65_535;

/// The content of server.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `[listen] address`.
    pub listen: IpAddr,
    /// `[listen] ports`: one socket each.
    pub ports: Ports,
    /// `[identity] private_key_file`.
    pub private_key_file: PathBuf,
    /// `[tunnel] interface`.
    pub interface: String,
    /// `[tunnel] address`: at least one.
    pub addresses: Vec<Prefix>,
    /// `[tunnel] mtu`.
    pub mtu: Mtu,
    /// `[routing] mss_clamp`.
    pub mss_clamp: bool,
    /// `[routing] allow`.
    pub reach: Reach,
    /// `[tcp] split`.
    pub split: Split,
    /// `[nat]`; `None` when it is switched off.
    pub nat: Option<Nat>,
    /// `[[client]]`.
    pub clients: Vec<Peer>,
    /// `[[client]]` without a key, an address and links: what counts for a client that was invited.
    pub invited: Vec<Invited>,
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
    /// Its key on sealed links; a client without one has plain links only.
    pub public_key: Option<PublicKey>,
    /// The file with the pre-shared key, if it has one.
    pub preshared_key_file: Option<PathBuf>,
    /// Its addresses in the tunnel: at least one.
    pub addresses: Vec<IpAddr>,
    /// The networks behind it.
    pub routes: Vec<Prefix>,
    /// `allow`: in place of that of `[routing]`.
    pub reach: Option<Reach>,
    /// `[[client.link]]`, by the number of the link: at most [`LINKS_MAX`], and at least a plain
    /// one if the client has no key. The client may have more sealed links than are written here.
    pub links: Vec<PeerLink>,
}

/// A `[[client]]` of a client that `bondctl invite` enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invited {
    /// Unique among the sections.
    pub name: String,
    /// The networks behind it.
    pub routes: Vec<Prefix>,
    /// `allow`: in place of that of `[routing]`.
    pub reach: Option<Reach>,
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
    /// The only address that may send on it, if it is plain; `None`: it is sealed.
    pub remote: Option<IpAddr>,
    /// The interface that a plain link's datagrams come in by; `None`: that which has `remote` on
    /// its network.
    pub interface: Option<String>,
    /// Ceiling of the rate that the server sends on it.
    pub down: Option<BitRate>,
}

impl Server {
    /// The largest overhead of the links, as far as the configuration tells: invited clients are
    /// sealed.
    pub fn overhead(&self) -> Overhead {
        overhead(self.listen, &self.clients)
    }
}

fn overhead(listen: IpAddr, clients: &[Peer]) -> Overhead {
    let only_plain = !clients.is_empty() && clients.iter().all(|client| client.public_key.is_none());
    if !only_plain {
        return Overhead { sealed: true, ipv6: listen.is_ipv6() };
    }
    let remotes = clients.iter().flat_map(|client| &client.links).filter_map(|link| link.remote);
    let overheads = remotes.map(|remote| Overhead::of(remote, Security::Plain));
    overheads.max().unwrap_or(Overhead { sealed: false, ipv6: listen.is_ipv6() })
}

fn host_prefix(address: IpAddr) -> Prefix {
    Prefix { address, length: value::address_bits(address) }
}

/// Reads the document; every key has a default. After a reported mistake the answer is of no use.
pub(super) fn read(mut document: Section<'_, '_>) -> Server {
    let (listen, ports) = self::listen(document.section("listen", "[listen]"));
    let private_key_file = common::identity(&mut document, SERVER_KEY);
    let mut tunnel = document.section("tunnel", "[tunnel]");
    let interface = common::tunnel_interface(&mut tunnel);
    let addresses = addresses(&mut tunnel);
    let nat = nat(document.section("nat", "[nat]"));
    let (clients, invited) = clients(&mut document, &addresses, ports);
    let inner_ipv6 = addresses.iter().any(|prefix| prefix.address.is_ipv6());
    let mtu = common::tunnel_mtu(&mut tunnel, inner_ipv6, overhead(listen, &clients));
    tunnel.finish(&[]);
    let mut routing = document.section("routing", "[routing]");
    let mss_clamp = common::mss_clamp(&mut routing);
    let reach = allow(&mut routing).unwrap_or(REACH_DEFAULT);
    let clients_keys = ["capture", "lan", "fallback", "masquerade", "rule_priority"];
    routing.finish(&clients_keys.map(|key| (key, "client.toml")));
    let split = common::split(document.section("tcp", "[tcp]"));
    let sending = common::sending(&mut document, split, false);
    let status = common::status(&mut document, SERVER_SOCKET);
    document.finish(&[("server", "client.toml"), ("link", "client.toml"), ("discovery", "client.toml")]);
    Server {
        listen,
        ports,
        private_key_file,
        interface,
        addresses,
        mtu,
        mss_clamp,
        reach,
        split,
        nat,
        clients,
        invited,
        sending,
        status,
    }
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

/// `allow`, of `[routing]` or of a client.
fn allow(section: &mut Section<'_, '_>) -> Option<Reach> {
    let item = section.item("allow")?;
    if item.is_empty_array() {
        return Some(Reach::default());
    }
    let nothing = Reach::default();
    let word = |text: &str| match text {
        "internet" => Ok(Reach { internet: true, ..nothing }),
        "server" => Ok(Reach { server: true, ..nothing }),
        "private" => Ok(Reach { private: true, ..nothing }),
        "clients" => Ok(Reach { clients: true, ..nothing }),
        other => {
            Err(format!("\"{}\" is none of \"internet\", \"server\", \"private\", \"clients\"", shown(other)))
        }
    };
    let words = item.list("an array such as [\"internet\", \"server\"]", word);
    Some(words.into_iter().fold(nothing, |all, one| all.or(one.value)))
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

/// A client, and the places of its values that must be unique.
struct Written {
    peer: Peer,
    /// It is invited, and has neither key nor address here.
    is_invited: bool,
    name: Located<String>,
    key: Option<Located<PublicKey>>,
    prefixes: Vec<Located<Prefix>>,
    /// Of its plain links, each with the link's number.
    remotes: Vec<(usize, Located<IpAddr>)>,
}

fn clients(document: &mut Section<'_, '_>, own: &[Prefix], ports: Ports) -> (Vec<Peer>, Vec<Invited>) {
    let sections = document.sections("client", "[[client]]");
    if let Some(beyond) = sections.get(CLIENTS_MAX) {
        beyond.fail(format!("more than {CLIENTS_MAX} [[client]] sections"));
    }
    let written: Vec<Written> =
        sections.into_iter().take(CLIENTS_MAX).enumerate().map(|(index, one)| client(one, index)).collect();
    common::distinct_names(written.iter().map(|one| &one.name), document, "[[client]] sections");
    distinct_keys(&written, document);
    overlapping(&written, own, document);
    same_remote(&written, ports, document);
    let (invited, peers): (Vec<_>, Vec<_>) = written.into_iter().partition(|one| one.is_invited);
    let invited = invited.into_iter().map(|one| {
        let Peer { name, routes, reach, .. } = one.peer;
        Invited { name, routes, reach }
    });
    (peers.into_iter().map(|one| one.peer).collect(), invited.collect())
}

/// Whether a section has nothing that says which packets come from its client, and something that
/// counts for a client that is invited under its name.
fn is_of_invited(section: &Section<'_, '_>) -> bool {
    let is_any = |keys: &[&str]| keys.iter().any(|key| section.has(key));
    section.has("name")
        && is_any(&["allow", "routes"])
        && !is_any(&["public_key", "preshared_key_file", "address", "link"])
}

fn client(mut section: Section<'_, '_>, index: usize) -> Written {
    let at = section.at();
    let is_invited = is_of_invited(&section);
    let name = section.item("name").and_then(|item| {
        let at = item.at();
        item.parsed("a name", value::name).map(|value| Located { value, at })
    });
    let name = name.unwrap_or_else(|| Located { value: format!("client{index}"), at });
    let key = common::public_key(&mut section);
    let has_key = key.is_some();
    let key = key.and_then(|key| key.value.map(|value| Located { value, at: key.at }));
    let preshared_key_file = common::preshared_key_file(&mut section);
    let mut addresses = section.item("address").map_or_else(Vec::new, |item| {
        if item.is_empty_array() {
            item.fail("`address` in [[client]] is empty; write one such as \"10.99.0.2\"");
        }
        item.list("an address such as \"10.99.0.2\", or an array of them", value::address)
    });
    if has_key && section.is_absent("address") {
        section.fail(format!(
            "[[client]] \"{}\" has no `address`: give it one of the tunnel's network, such as \"10.99.0.2\"; only \
             clients that `bondctl invite` enrols get theirs by themselves",
            name.value
        ));
    }
    if addresses.is_empty() && !is_invited {
        addresses.push(Located { value: PLAIN_CLIENT_ADDRESS.address, at });
    }
    let reach = allow(&mut section);
    let routes = section.item("routes").map_or_else(Vec::new, |item| item.list(value::PREFIX, value::prefix));
    if let Some(item) = section.item("up")
        && item.parsed("\"none\" or a rate such as \"10mbit\"", limit) == Some(true)
    {
        item.no_effect(": the client is not limited");
    }
    let (links, remotes) = if is_invited { Default::default() } else { links(&mut section, has_key) };
    section.finish(&[]);
    let hosts = addresses.iter().map(|one| Located { value: host_prefix(one.value), at: one.at });
    let prefixes = hosts.chain(routes.iter().cloned()).collect();
    let peer = Peer {
        name: name.value.clone(),
        public_key: key.as_ref().map(|key| key.value),
        preshared_key_file,
        addresses: addresses.into_iter().map(|one| one.value).collect(),
        routes: routes.into_iter().map(|one| one.value).collect(),
        reach,
        links,
    };
    Written { peer, is_invited, name, key, prefixes, remotes }
}

/// A client's limit: whether there is one.
fn limit(text: &str) -> Result<bool, String> {
    if text == "none" { Ok(false) } else { value::rate(text).map(|_| true) }
}

fn links(client: &mut Section<'_, '_>, has_key: bool) -> (Vec<PeerLink>, Vec<(usize, Located<IpAddr>)>) {
    let sections = client.sections("link", "[[client.link]]");
    if client.is_absent("link") && !has_key {
        client.fail(
            "[[client]] has neither a `public_key` nor a [[client.link]]: no packet could come from it; `bondctl invite \
             NAME` enrols a client without a section, or with one that has `name`, `allow` and `routes` alone, and plain \
             links need one [[client.link]] each",
        );
    }
    if let Some(beyond) = sections.get(LINKS_MAX) {
        beyond.fail(format!("more than {LINKS_MAX} [[client.link]] sections for one client"));
    }
    let read: Vec<WrittenLink> = sections
        .into_iter()
        .take(LINKS_MAX)
        .enumerate()
        .map(|(index, section)| link(section, index, has_key))
        .collect();
    common::distinct_names(read.iter().map(|one| &one.name), client, "[[client.link]] sections");
    let mut links = Vec::new();
    let mut remotes = Vec::new();
    for (index, one) in read.into_iter().enumerate() {
        let WrittenLink { name, remote, interface, down, at } = one;
        links.push(PeerLink { name: name.value, remote, interface, down });
        remotes.extend(remote.map(|value| (index, Located { value, at })));
    }
    (links, remotes)
}

/// A `[[client.link]]` and where its remote stands.
struct WrittenLink {
    name: Located<String>,
    remote: Option<IpAddr>,
    interface: Option<String>,
    down: Option<BitRate>,
    at: usize,
}

fn link(mut section: Section<'_, '_>, index: usize, has_key: bool) -> WrittenLink {
    let mut at = section.at();
    let name = section.item("name").and_then(|item| {
        let at = item.at();
        item.parsed("a name", value::name).map(|value| Located { value, at })
    });
    let name = name.unwrap_or_else(|| Located { value: format!("link{index}"), at });
    let remote_item = section.item("remote");
    let remote = remote_item.and_then(|item| {
        at = item.at();
        let remote = item.parsed(value::ADDRESS, value::address_and_port);
        if let Some((_, Some(_))) = remote {
            item.no_effect(" beyond its address: the port is learnt from what arrives");
        }
        remote.map(|(address, _)| address)
    });
    let interface_item = section.item("interface");
    let interface = interface_item.and_then(|item| item.parsed("the name of an interface", value::interface));
    let security = common::security(&mut section).unwrap_or_default();
    if let Some(item) = interface_item.filter(|_| security == Security::Sealed) {
        item.fail(
            "[[client.link]] has an `interface`, which only plain links have: sealed datagrams prove where they come from",
        );
    }
    match (security, remote_item) {
        (Security::Plain, None) => section
            .fail("[[client.link]] has no `remote`: a plain link needs the address that may send on it"),
        (Security::Sealed, Some(item)) => item.fail(
            "[[client.link]] has a `remote`, which only plain links have: say security = \"plain\" if the link is \
             private already; sealed links are known by the client's key",
        ),
        (Security::Sealed, None) if !has_key => {
            section.fail("[[client.link]] is sealed, which needs the `public_key` of its [[client]]");
        }
        (Security::Plain, Some(_)) | (Security::Sealed, None) => {}
    }
    let down = section.item("down").and_then(|item| item.parsed(value::RATE, value::rate));
    section.finish(&[]);
    WrittenLink { name, remote, interface, down, at }
}

/// Reports keys that two clients have.
fn distinct_keys(written: &[Written], document: &Section<'_, '_>) {
    let mut seen: std::collections::BTreeMap<PublicKey, &str> = std::collections::BTreeMap::new();
    for one in written {
        let Some(key) = &one.key else { continue };
        if let Some(other) = seen.insert(key.value, &one.peer.name) {
            let name = &one.peer.name;
            document
                .fail_at(key.at, format!("clients \"{name}\" and \"{other}\" have the same `public_key`"));
        }
    }
}

/// Reports inner addresses that two clients have.
fn overlapping(written: &[Written], own: &[Prefix], document: &Section<'_, '_>) {
    // Every pair is compared: clients are few, and the file is read once.
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

/// The source address of a plain datagram and the port that it came to are all that tells its link:
/// the same remote on the same port would be two links at once. A remote on several links needs a
/// port for each.
fn same_remote(written: &[Written], ports: Ports, document: &Section<'_, '_>) {
    let mut uses: std::collections::HashMap<IpAddr, usize> = std::collections::HashMap::new();
    for (_, remote) in written.iter().flat_map(|one| &one.remotes) {
        *uses.entry(remote.value).or_default() += 1;
    }
    let mut seen: std::collections::HashMap<(IpAddr, u16), (&str, &str)> = std::collections::HashMap::new();
    for one in written {
        for (index, remote) in &one.remotes {
            let index = *index;
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
