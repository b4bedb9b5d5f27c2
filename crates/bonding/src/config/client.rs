//! client.toml.

use std::net::IpAddr;
use std::path::PathBuf;

use bonding_os::capture::Scope;
use bonding_proto::config::{Prefix, Security, UdpFlows};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::limits::UDP_FLOWS_MAX;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkRole;

use super::common::{self, Mtu, Sending, Status};
use super::section::{Located, Section};
use super::value::{self, Host, Ports};
use super::{CLIENT_KEY, CLIENT_SOCKET, LINKS_MAX, PLAIN_CLIENT_ADDRESS};
use crate::engine::overhead::Overhead;
use crate::engine::plan::{CapturePlan, DiscoveryPlan, Split};

/// Chosen: a link with `priority = 0` still goes before the links that do not say.
const PRIORITY_DEFAULT: u8 = 1;

/// Chosen: links that are configured go before those that are found.
const DISCOVERY_PRIORITY: u8 = 2;

/// Chosen: room for a user's rules before it, and behind it up to the main table's (32766).
const RULE_PRIORITY_DEFAULT: u32 = 20_000;
/// Above the numbers of the kernel's own tables (up to 255), and four below the main table's rule.
const RULE_PRIORITIES: std::ops::RangeInclusive<i64> = 256..=32_762;

/// The content of client.toml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `[server] host`: at least one, in order of preference.
    pub hosts: Vec<Host>,
    /// `[server] ports`.
    pub ports: Ports,
    /// `[server] public_key`: given where any link is sealed.
    pub public_key: Option<PublicKey>,
    /// `[server] preshared_key_file`.
    pub preshared_key_file: Option<PathBuf>,
    /// `[identity] private_key_file`.
    pub private_key_file: PathBuf,
    /// `[tunnel] interface`.
    pub interface: String,
    /// `[tunnel] address`; none: leased by the server.
    pub addresses: Vec<Prefix>,
    /// `[tunnel] mtu`.
    pub mtu: Mtu,
    /// `[routing] mss_clamp`.
    pub mss_clamp: bool,
    /// `[routing]` beyond that, if it captures anything.
    pub capture: Option<CapturePlan>,
    /// `[tcp] split`.
    pub split: Split,
    /// `[[link]]`: at most [`LINKS_MAX`]; none only with `discovery`.
    pub links: Vec<Link>,
    /// `[discovery]`, where it is on: by default without a `[[link]]`.
    pub discovery: Option<DiscoveryPlan>,
    /// How packets are sent.
    pub sending: Sending,
    /// `[status]`.
    pub status: Status,
}

/// One `[[link]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Unique among the links.
    pub name: String,
    /// The device its socket is bound to.
    pub interface: Option<String>,
    /// The address its socket is bound to.
    pub source: Option<IpAddr>,
    /// How it is protected.
    pub security: Security,
    /// Lower is preferred.
    pub priority: u8,
    /// What the link is used for.
    pub role: LinkRole,
    /// Ceiling of the rate that is sent on it.
    pub up: Option<BitRate>,
    /// Ceiling of the rate that is received on it.
    pub down: Option<BitRate>,
    /// The bytes it may carry in a month, both ways; after them it is a backup.
    pub cap: Option<u64>,
    /// The server's port that it sends to.
    pub port: u16,
    /// Over how many UDP flows it goes.
    pub flows: UdpFlows,
}

impl Client {
    /// The largest overhead of the links. A server known by name may have an address of either
    /// family, unless every link is bound to an IPv4 address.
    pub fn overhead(&self) -> Overhead {
        overhead(&self.hosts, &self.links)
    }

    /// Whether any link is sealed. Those that are found are.
    pub fn sealed(&self) -> bool {
        self.discovery.is_some() || self.links.iter().any(|link| link.security == Security::Sealed)
    }
}

fn overhead(hosts: &[Host], links: &[Link]) -> Overhead {
    let hosts_v4 = hosts.iter().all(|host| matches!(host, Host::Address(IpAddr::V4(_))));
    let of = |link: &Link| {
        let ipv4 = hosts_v4 || matches!(link.source, Some(IpAddr::V4(_)));
        Overhead { sealed: link.security == Security::Sealed, ipv6: !ipv4 }
    };
    // A link that carries no data does not lower the MTU.
    let used = links.iter().filter(|link| link.role != LinkRole::Never);
    used.map(of).max().unwrap_or(Overhead { sealed: true, ipv6: !hosts_v4 })
}

/// Reads the document. `None` when a key without a default is missing or wrong. Every mistake that
/// was found is reported.
pub(super) fn read(mut document: Section<'_, '_>) -> Option<Client> {
    let server = server(document.section("server", "[server]"));
    let private_key_file = common::identity(&mut document, CLIENT_KEY);
    let links = links(&mut document, server.ports);
    let discovery = discovery(document.section("discovery", "[discovery]"), &links);
    let sealed = links.iter().find(|link| link.security == Security::Sealed);
    let sealed = sealed.map(|link| format!("the sealed link \"{}\" knows", link.name));
    let sealed =
        sealed.or_else(|| discovery.as_ref().map(|_| "links that are found by themselves know".to_owned()));
    needs_key(&server, sealed.as_deref(), &document);
    let mut tunnel = document.section("tunnel", "[tunnel]");
    let interface = common::tunnel_interface(&mut tunnel);
    let addresses = match addresses(&mut tunnel) {
        addresses if addresses.is_empty() && sealed.is_none() => vec![PLAIN_CLIENT_ADDRESS],
        addresses => addresses,
    };
    // The server may lease an IPv6 address.
    let inner_ipv6 = addresses.is_empty() || addresses.iter().any(|prefix| prefix.address.is_ipv6());
    let mtu = common::tunnel_mtu(&mut tunnel, inner_ipv6, overhead(&server.hosts, &links));
    tunnel.finish(&[]);
    let split = common::split(document.section("tcp", "[tcp]"));
    let sending = common::sending(&mut document, split, true);
    let (mss_clamp, capture) = routing(document.section("routing", "[routing]"), &links);
    let status = common::status(&mut document, CLIENT_SOCKET);
    document.finish(&[("listen", "server.toml"), ("nat", "server.toml"), ("client", "server.toml")]);
    if server.hosts.is_empty() || (links.is_empty() && discovery.is_none()) {
        return None;
    }
    Some(Client {
        hosts: server.hosts,
        ports: server.ports,
        public_key: server.public_key,
        preshared_key_file: server.preshared_key_file,
        private_key_file,
        interface,
        addresses,
        mtu,
        mss_clamp,
        capture,
        split,
        links,
        discovery,
        sending,
        status,
    })
}

/// `[server]`.
struct WrittenServer {
    hosts: Vec<Host>,
    ports: Ports,
    public_key: Option<PublicKey>,
    preshared_key_file: Option<PathBuf>,
    /// Where the section stands.
    at: usize,
    /// Where `public_key` stands, right or wrong.
    key_at: Option<usize>,
}

/// A sealed link needs the server's key. Without a sealed link the key has no use.
fn needs_key(server: &WrittenServer, sealed: Option<&str>, document: &Section<'_, '_>) {
    match (sealed, server.key_at) {
        (Some(sealed), None) => document.fail_at(
            server.at,
            format!(
                "[server] has no `public_key`, by which {sealed} the server: \
                 `bonding-client join 'bond://…'` writes it; only links that are already private may have \
                 security = \"plain\""
            ),
        ),
        (None, Some(at)) => {
            document.warn_at(
                at,
                "[server] public_key has no effect: all links are plain, and plain links have no keys",
            );
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn server(mut section: Section<'_, '_>) -> WrittenServer {
    const EXAMPLE: &str = "host = \"vps.example.net\"";
    let at = section.at();
    let hosts = match section.item("host") {
        Some(item) => {
            let hosts = item.list("a host name or address, or an array of them", value::host);
            if hosts.is_empty() && item.is_empty_array() {
                item.fail(format!("`host` in [server] is empty; name at least one: {EXAMPLE}"));
            }
            hosts
        }
        None => {
            let place = if section.is_written() { "[server] has no `host`" } else { "[server] is missing" };
            section.fail(format!("{place}: the client must know where its server is; add {EXAMPLE}"));
            Vec::new()
        }
    };
    let public_key = common::public_key(&mut section);
    let ports = section.item("ports").and_then(|item| item.parsed(value::PORTS, value::ports));
    let preshared_key_file = common::preshared_key_file(&mut section);
    section.finish(&[]);
    WrittenServer {
        hosts: hosts.into_iter().map(|host| host.value).collect(),
        ports: ports.unwrap_or(Ports::DEFAULT),
        key_at: public_key.as_ref().map(|key| key.at),
        public_key: public_key.and_then(|key| key.value),
        preshared_key_file,
        at,
    }
}

/// `[tunnel] address`; empty: the server leases.
fn addresses(section: &mut Section<'_, '_>) -> Vec<Prefix> {
    let Some(item) = section.item("address") else { return Vec::new() };
    let expected = "\"auto\", or an address such as \"192.168.50.1/24\", or an array of them";
    let written = item.list(expected, |text| match text {
        "auto" => Ok(None),
        address => value::interface_address(address).map(Some),
    });
    if written.iter().any(|one| one.value.is_none()) {
        if written.len() > 1 {
            item.fail("`address` in [tunnel]: \"auto\" stands alone");
        }
        return Vec::new();
    }
    if item.is_empty_array() {
        item.fail("`address` in [tunnel] is empty; leave it out for \"auto\"");
    }
    written.into_iter().filter_map(|one| one.value).collect()
}

/// A link, and what the checks across links need.
struct Written {
    link: Link,
    name: Located<String>,
    at: usize,
}

fn links(document: &mut Section<'_, '_>, ports: Ports) -> Vec<Link> {
    let sections = document.sections("link", "[[link]]");
    if let Some(beyond) = sections.get(LINKS_MAX) {
        beyond.fail(format!(
            "more than {LINKS_MAX} [[link]] sections; a session has at most {LINKS_MAX} links"
        ));
    }
    let written: Vec<Written> = sections
        .into_iter()
        .take(LINKS_MAX)
        .enumerate()
        .map(|(index, section)| link(section, index, ports.cycle(index)))
        .collect();
    common::distinct_names(written.iter().map(|one| &one.name), document, "[[link]] sections");
    same_way(&written, document);
    if !written.is_empty() && written.iter().all(|one| one.link.role == LinkRole::Never) {
        document.fail_at(0, "every [[link]] has role = \"never\": no link is left to use");
    }
    written.into_iter().map(|one| one.link).collect()
}

fn link(mut section: Section<'_, '_>, index: usize, port: u16) -> Written {
    let name = section.item("name").and_then(|item| {
        let at = item.at();
        item.parsed("a name", value::name).map(|value| Located { value, at })
    });
    let interface =
        section.item("interface").and_then(|item| item.parsed("the name of an interface", value::interface));
    let source = section.item("source").and_then(|item| item.parsed(value::ADDRESS, value::address));
    let priority = section.item("priority").and_then(|item| item.integer(0..=255, ""));
    let role = role(&mut section);
    let mut rate = |key| section.item(key).and_then(|item| item.parsed(value::RATE, value::rate));
    let (up, down) = (rate("up"), rate("down"));
    let cap = section
        .item("cap")
        .and_then(|item| item.parsed("an amount such as \"100GB/month\"", value::monthly_bytes));
    if let Some(item) = section.item("metered")
        && item.boolean() == Some(true)
    {
        item.no_effect(": heartbeats go on while the link is idle");
    }
    let security = common::security(&mut section).unwrap_or_default();
    let flows = flows(&mut section, security);
    let at = section.at();
    let fallback = || {
        let value = interface.clone().or_else(|| source.map(|source| source.to_string()));
        Located { value: value.unwrap_or_else(|| format!("link{index}")), at }
    };
    let name = name.unwrap_or_else(fallback);
    section.finish(&[]);
    let priority = priority.and_then(|p| u8::try_from(p).ok()).unwrap_or(PRIORITY_DEFAULT);
    let name_value = name.value.clone();
    let link =
        Link { name: name_value, interface, source, security, priority, role, up, down, cap, port, flows };
    Written { link, name, at }
}

/// `flows`: `"auto"`, or a number.
fn flows(section: &mut Section<'_, '_>, security: Security) -> UdpFlows {
    let Some(item) = section.item("flows") else { return UdpFlows::Auto };
    let flows = if item.is_integer() {
        let count = item.integer(1..=i64::from(UDP_FLOWS_MAX), ", or \"auto\"");
        count.and_then(|count| u8::try_from(count).ok()).map(UdpFlows::Fixed)
    } else {
        item.parsed("\"auto\", or a number from 1 to 8", |text| match text {
            "auto" => Ok(UdpFlows::Auto),
            _ => Err("write \"auto\", or a number from 1 to 8 without quotes".to_owned()),
        })
    };
    if security == Security::Plain && flows.is_some_and(|flows| matches!(flows, UdpFlows::Fixed(2..))) {
        item.fail(
            "`flows` in [[link]]: a plain link has one UDP flow, since its datagrams prove nothing; leave \
             `flows` out, or seal the link",
        );
    }
    flows.unwrap_or_default()
}

fn role(section: &mut Section<'_, '_>) -> LinkRole {
    let roles = [LinkRole::Primary, LinkRole::Secondary, LinkRole::Backup, LinkRole::Never];
    let choices = roles.map(|role| (role_word(role), role));
    section.item("role").and_then(|item| item.choice(&choices)).unwrap_or_default()
}

/// A role as it is written.
pub fn role_word(role: LinkRole) -> &'static str {
    match role {
        LinkRole::Primary => "primary",
        LinkRole::Secondary => "secondary",
        LinkRole::Backup => "backup",
        LinkRole::Never => "never",
    }
}

/// Warns of links that leave by the same interface: they share one line, which is rarely intended.
fn same_way(written: &[Written], document: &Section<'_, '_>) {
    let used = |one: &&Written| one.link.role != LinkRole::Never;
    for (index, one) in written.iter().enumerate().filter(|(_, one)| used(one)) {
        let way = |one: &Written| (one.link.interface.clone(), one.link.source);
        let before = written.iter().take(index).filter(used).find(|other| way(other) == way(one));
        let Some(other) = before else { continue };
        let (name, other) = (&one.link.name, &other.link.name);
        let message = if one.link.interface.is_none() && one.link.source.is_none() {
            format!(
                "[[link]] \"{name}\" and \"{other}\" have neither `interface` nor `source`: \
                 both take the default route, so they are one line"
            )
        } else {
            format!("[[link]] \"{name}\" and \"{other}\" leave by the same interface: they are one line")
        };
        document.warn_at(one.at, message);
    }
}

/// `[discovery]`: on by default without a `[[link]]`.
fn discovery(mut section: Section<'_, '_>, links: &[Link]) -> Option<DiscoveryPlan> {
    let at = section.at();
    let enabled = section.item("enabled").and_then(|item| item.boolean());
    let mut patterns = |key| {
        let item = section.item(key)?;
        let found = item.list("patterns such as [\"wg*\", \"eth*\"]", value::pattern);
        if key == "include" && item.is_empty_array() {
            item.fail("`include` in [discovery] is empty: no interface would be found; leave it out");
        }
        Some(found.into_iter().map(|one| one.value).collect())
    };
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    let priority = section.item("priority").and_then(|item| item.integer(0..=255, ""));
    let priority = priority.and_then(|priority| u8::try_from(priority).ok());
    if enabled == Some(false) && links.is_empty() {
        section.fail_at(
            at,
            "there is no link: [discovery] enabled = false, and no [[link]]; add a [[link]] with its interface, or \
             leave `enabled` out",
        );
    }
    section.finish(&[]);
    let priority = priority.unwrap_or(DISCOVERY_PRIORITY);
    enabled.unwrap_or(links.is_empty()).then_some(DiscoveryPlan { include, exclude, priority })
}

/// Whether TCP's segment sizes are clamped, and what is captured.
fn routing(mut section: Section<'_, '_>, links: &[Link]) -> (bool, Option<CapturePlan>) {
    const SCOPES: [(&str, Option<Scope>); 3] =
        [("none", None), ("lan", Some(Scope::Lan)), ("all", Some(Scope::All))];
    let mut scope = None;
    if let Some(item) = section.item("capture") {
        let at = item.at();
        scope = item.choice(&SCOPES).flatten();
        let loose = links.iter().find(|link| link.interface.is_none() && link.source.is_none());
        if let (Some(Scope::All), Some(link)) = (scope, loose) {
            section.fail_at(
                at,
                format!(
                    "capture = \"all\" would send the datagrams of [[link]] \"{}\" into the tunnel that they \
                     carry: give it its `interface`, or `source`",
                    link.name
                ),
            );
        }
    }
    let mut lan = Vec::new();
    if let Some(item) = section.item("lan") {
        if scope == Some(Scope::All) {
            item.warn("[routing] lan has no effect with capture = \"all\", which captures every network");
        } else if scope.is_none() {
            item.warn("[routing] lan has no effect without capture = \"lan\"");
        } else if item.is_empty_array() {
            item.fail(
                "`lan` in [routing] is empty; leave it out to capture what comes in by every interface that \
                 is no link",
            );
        }
        lan = item.list(value::PREFIX, value::prefix).into_iter().map(|one| one.value).collect();
    }
    let mut flag = |key: &'static str, default: bool| {
        let item = section.item(key)?;
        let at = item.at();
        let value = item.boolean().filter(|value| *value != default)?;
        if scope.is_none() {
            section.warn_at(at, format!("[routing] {key} has no effect without `capture`"));
        }
        Some(value)
    };
    let fallback = flag("fallback", false).is_some();
    let masquerade = flag("masquerade", true).is_none();
    let priority = section.item("rule_priority").and_then(|item| item.integer(RULE_PRIORITIES, ""));
    let priority = priority.and_then(|number| u32::try_from(number).ok()).unwrap_or(RULE_PRIORITY_DEFAULT);
    let mss_clamp = common::mss_clamp(&mut section);
    section.finish(&[("allow", "server.toml")]);
    if scope != Some(Scope::Lan) {
        lan.clear();
    }
    (mss_clamp, scope.map(|scope| CapturePlan { scope, lan, fallback, masquerade, priority }))
}

/// What is captured, for a person.
pub fn capture_words(capture: &CapturePlan) -> String {
    let prefix = |one: &Prefix| format!("{}/{}", one.address, one.length);
    match capture.scope {
        Scope::All => "all that this host sends and forwards".to_owned(),
        Scope::Lan if capture.lan.is_empty() => "what comes in by interfaces that are no links".to_owned(),
        Scope::Lan => {
            let prefixes: Vec<String> = capture.lan.iter().map(prefix).collect();
            format!("what comes from {}", prefixes.join(", "))
        }
    }
}
