//! The sections that client.toml and server.toml share, and which of their settings this version
//! has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bonding_proto::config::{Fec, Policy, Prefix, RecoveryConfig, Security};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::qos::{Class, Rule, RuleProtocol};

use super::section::{Item, Located, Section, shown};
use super::value;
use crate::engine::overhead::Overhead;
use crate::engine::plan::{Compression, Split};

/// Bounds of the heartbeat. Chosen: faster heartbeats would be a load of their own, slower ones
/// would notice a dead link too late.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);
/// Chosen: ten heartbeats a second on each link notice an outage within some hundred milliseconds.
const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(100);

/// Bounds of the link report. Chosen: once a second is the most that a log takes, once a day the
/// least that is of use.
const REPORT_MIN: Duration = Duration::from_secs(1);
const REPORT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Chosen: the interval of the documented log.
const REPORT_DEFAULT: Duration = Duration::from_secs(5);

/// The smallest MTU each family allows, in bytes: RFC 791 §3.1 (every host takes 576), RFC 8200 §5.
const MTU_MIN_V4: i64 = 576;
const MTU_MIN_V6: i64 = 1_280;
/// The largest inner packet in a UDP datagram over IPv4: 65535 - 20 - 8 - 11.
const MTU_MAX: i64 = 65_496;
/// The MTU of a link that `auto` assumes, in bytes: Ethernet (RFC 894).
const LINK_MTU: u16 = 1_500;

/// `[tunnel] mtu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mtu {
    /// The largest inner packet that links of 1500 bytes carry.
    #[default]
    Auto,
    /// As written.
    Fixed(u16),
}

impl Mtu {
    /// The MTU of the TUN device, in bytes of inner packet, by the largest overhead of its links.
    pub fn bytes(self, overhead: Overhead) -> u16 {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::Auto => LINK_MTU - overhead.bytes(),
        }
    }
}

/// `[tunnel]` without its addresses, which have other defaults on each side.
pub(super) fn tunnel_interface(section: &mut Section<'_, '_>) -> String {
    section
        .item("interface")
        .and_then(|item| item.parsed("the name of an interface", value::interface))
        .unwrap_or_else(|| "tun-bond".to_owned())
}

/// `[tunnel] mtu`, checked against the addresses in the tunnel and the links' usual 1500 bytes.
pub(super) fn tunnel_mtu(section: &mut Section<'_, '_>, inner_ipv6: bool, overhead: Overhead) -> Mtu {
    let Some(item) = section.item("mtu") else { return Mtu::Auto };
    if !item.is_integer() {
        item.parsed("an integer, or \"auto\"", |text| match text {
            "auto" => Ok(()),
            other => {
                Err(format!("\"{}\" is not an MTU; write \"auto\", or a number such as 1400", shown(other)))
            }
        });
        return Mtu::Auto;
    }
    let min = if inner_ipv6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
    let unit = if inner_ipv6 { " bytes (IPv6 in the tunnel needs 1280)" } else { " bytes" };
    let Some(bytes) = item.integer(min..=MTU_MAX, unit).and_then(|bytes| u16::try_from(bytes).ok()) else {
        return Mtu::Auto;
    };
    let auto = Mtu::Auto.bytes(overhead);
    if bytes > auto {
        item.warn(format!(
            "[tunnel] mtu = {bytes} is more than links of 1500 bytes carry in one datagram ({auto}): \
             such links get smaller packets only"
        ));
    }
    Mtu::Fixed(bytes)
}

/// `[routing] mss_clamp`.
pub(super) fn mss_clamp(section: &mut Section<'_, '_>) -> bool {
    section.item("mss_clamp").and_then(Item::boolean).unwrap_or(true)
}

/// The settings of both sides about sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// `[scheduler] policy`.
    pub policy: Policy,
    /// `[heartbeat] interval`.
    pub heartbeat_interval: Duration,
    /// `[recovery]`.
    pub recovery: RecoveryConfig,
    /// `[compression] mode`.
    pub compression: Compression,
    /// The `[[qos.rule]]` sections, in their order.
    pub rules: Vec<Rule>,
}

/// `[status]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The control socket.
    pub socket: PathBuf,
    /// How often the link report is logged.
    pub interval: Duration,
}

impl Status {
    /// Where changes to the machine are written down: [`super::state_file`].
    pub fn state_file(&self) -> PathBuf {
        super::state_file(&self.socket)
    }
}

/// Reads `[scheduler]`, `[heartbeat]`, `[recovery]`, `[compression]` and `[[qos.rule]]`. `split`:
/// which connections end at the bond, as `[tcp]` says; only rules of a client can say more.
pub(super) fn sending(document: &mut Section<'_, '_>, split: Split, is_client: bool) -> Sending {
    let policy = scheduler(document.section("scheduler", "[scheduler]"));
    let heartbeat_interval = heartbeat(document.section("heartbeat", "[heartbeat]"));
    let recovery = recovery(document.section("recovery", "[recovery]"));
    let compression = compression(document.section("compression", "[compression]"), split);
    let mut qos = document.section("qos", "[qos]");
    let rules = qos.sections("rule", "[[qos.rule]]").into_iter();
    let splits = is_client.then_some(split);
    let rules = rules.filter_map(|rule| qos_rule(rule, splits)).collect();
    qos.finish(&[]);
    Sending { policy, heartbeat_interval, recovery, compression, rules }
}

/// Reads `[tcp]`: which connections end at the bond.
pub(super) fn split(mut section: Section<'_, '_>) -> Split {
    let choices = [("auto", Split::Auto), ("all", Split::All), ("off", Split::Off)];
    let split = section.item("split").and_then(|item| item.choice(&choices));
    section.finish(&[]);
    split.unwrap_or_default()
}

fn scheduler(mut section: Section<'_, '_>) -> Policy {
    let policies = [Policy::Adaptive, Policy::Score, Policy::Redundant, Policy::RoundRobin];
    let choices = policies.map(|policy| (policy_word(policy), policy));
    let policy = section.item("policy").and_then(|item| item.choice(&choices));
    section.finish(&[]);
    policy.unwrap_or_default()
}

/// A policy as it is written.
pub fn policy_word(policy: Policy) -> &'static str {
    match policy {
        Policy::Adaptive => "adaptive",
        Policy::Score => "score",
        Policy::Redundant => "redundant",
        Policy::RoundRobin => "round_robin",
    }
}

fn heartbeat(mut section: Section<'_, '_>) -> Duration {
    let interval = section.item("interval").and_then(|item| {
        item.parsed(value::DURATION, |text| value::duration(text, HEARTBEAT_MIN, HEARTBEAT_MAX))
    });
    section.finish(&[]);
    interval.unwrap_or(HEARTBEAT_DEFAULT)
}

fn recovery(mut section: Section<'_, '_>) -> RecoveryConfig {
    let default = RecoveryConfig::default();
    let resend = section.item("resend").and_then(Item::boolean).unwrap_or(default.resend);
    let fec = section.item("fec").and_then(|item| {
        item.parsed("\"auto\", \"off\" or a ratio such as \"10%\"", |text| match text {
            "auto" => Ok(Fec::Auto),
            "off" => Ok(Fec::Off),
            ratio => {
                value::percent(ratio).map(Fec::Fixed).map_err(|why| format!("{why}; or \"auto\", \"off\""))
            }
        })
    });
    section.finish(&[]);
    RecoveryConfig { resend, fec: fec.unwrap_or(default.fec) }
}

fn compression(mut section: Section<'_, '_>, split: Split) -> Compression {
    let choices = [("auto", Compression::Auto), ("on", Compression::On), ("off", Compression::Off)];
    let item = section.item("mode");
    let mode = item.and_then(|item| item.choice(&choices));
    if let Some(item) = item
        && mode == Some(Compression::On)
        && split == Split::Off
    {
        item.warn(
            "[compression] mode = \"on\" has no effect with [tcp] split = \"off\": only the bytes of connections \
             that end at the bond are compressed"
                .to_owned(),
        );
    }
    section.finish(&[]);
    mode.unwrap_or_default()
}

/// `None`: the rule says nothing, or its class is unknown, which is reported.
fn qos_rule(mut section: Section<'_, '_>, splits: Option<Split>) -> Option<Rule> {
    let protocols = [("tcp", RuleProtocol::Tcp), ("udp", RuleProtocol::Udp), ("icmp", RuleProtocol::Icmp)];
    let protocol = section.item("protocol").and_then(|item| item.choice(&protocols));
    let ports_item = section.item("ports");
    let ports: Vec<(u16, u16)> = ports_item
        .map(|item| item.list("ports such as [\"27000-27100\"]", value::port_range))
        .into_iter()
        .flatten()
        .map(|located| located.value)
        .collect();
    if let Some(item) = ports_item
        && protocol == Some(RuleProtocol::Icmp)
    {
        item.fail("`ports` in [[qos.rule]]: ICMP has no ports, so this rule would match no packet");
    }
    let mut prefixes = |key| -> Vec<Prefix> {
        let item = section.item(key);
        let found = item.map(|item| item.list(value::PREFIX, value::prefix));
        found.into_iter().flatten().map(|located| located.value).collect()
    };
    let (source, destination) = (prefixes("source"), prefixes("destination"));
    let dscp = section.item("dscp").and_then(dscp);
    let split = section.item("split");
    let class = match section.item("class") {
        Some(item) => {
            let classes = [Class::Realtime, Class::Interactive, Class::Bulk];
            Some(item.choice(&classes.map(|class| (class.name(), class)))?)
        }
        None if split.is_some() => None,
        None => {
            section.fail(
                "a [[qos.rule]] without `class`: say \"realtime\", \"interactive\" or \"bulk\"; only a rule that says \
                 `split` needs none",
            );
            return None;
        }
    };
    let split = split.and_then(|item| rule_split(item, protocol, splits));
    let duplicate = section.item("duplicate").and_then(Item::boolean).unwrap_or(false);
    section.finish(&[]);
    Some(Rule { protocol, ports, source, destination, dscp, class, duplicate, split })
}

/// `split` of a rule, where it can have an effect.
fn rule_split(item: Item<'_, '_>, protocol: Option<RuleProtocol>, splits: Option<Split>) -> Option<bool> {
    let is_split = item.boolean()?;
    if !matches!(protocol, None | Some(RuleProtocol::Tcp)) {
        item.fail(
            "`split` in [[qos.rule]]: only TCP connections can end at the bond; write protocol = \"tcp\"",
        );
    }
    match splits {
        None => item.fail(
            "`split` in [[qos.rule]] belongs in client.toml: the client chooses the connections that end at the bond; a \
             server takes them all, or none with [tcp] split = \"off\"",
        ),
        Some(Split::Off) if is_split => item.warn(
            "[[qos.rule]] split = true has no effect: [tcp] split is \"off\"; to split nothing else, write \"auto\" there and \
             add a last rule with protocol = \"tcp\" and split = false",
        ),
        Some(Split::Off | Split::Auto | Split::All) => {}
    }
    Some(is_split)
}

/// A DSCP as a number of 6 bits or by its name (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622).
fn dscp(item: Item<'_, '_>) -> Option<u8> {
    if item.is_integer() {
        return item.integer(0..=63, "").and_then(|number| u8::try_from(number).ok());
    }
    item.choice(&[
        ("cs0", 0),
        ("cs1", 8),
        ("cs2", 16),
        ("cs3", 24),
        ("cs4", 32),
        ("cs5", 40),
        ("cs6", 48),
        ("cs7", 56),
        ("af11", 10),
        ("af12", 12),
        ("af13", 14),
        ("af21", 18),
        ("af22", 20),
        ("af23", 22),
        ("af31", 26),
        ("af32", 28),
        ("af33", 30),
        ("af41", 34),
        ("af42", 36),
        ("af43", 38),
        ("ef", 46),
        ("va", 44),
        ("le", 1),
        ("nqb", 45),
    ])
}

/// Reads `[status]`; `socket` is where the control socket is by default.
pub(super) fn status(document: &mut Section<'_, '_>, socket: &str) -> Status {
    let mut section = document.section("status", "[status]");
    let socket = section
        .item("socket")
        .and_then(|item| item.parsed("an absolute path", value::absolute_path))
        .unwrap_or_else(|| socket.into());
    if let Some(item) = section.item("metrics")
        && item.parsed("\"off\" or an address such as \"127.0.0.1:9400\"", metrics) == Some(true)
    {
        item.no_effect("");
    }
    let interval = section
        .item("interval")
        .and_then(|item| item.parsed(value::DURATION, |text| value::duration(text, REPORT_MIN, REPORT_MAX)));
    section.finish(&[]);
    Status { socket, interval: interval.unwrap_or(REPORT_DEFAULT) }
}

fn metrics(text: &str) -> Result<bool, String> {
    if text == "off" {
        return Ok(false);
    }
    text.parse::<SocketAddr>()
        .map(|_| true)
        .map_err(|_| "write \"off\", or an address with a port such as \"127.0.0.1:9400\"".to_owned())
}

/// Reads `[identity]`: where the private key is.
pub(super) fn identity(document: &mut Section<'_, '_>, default: &str) -> PathBuf {
    let mut section = document.section("identity", "[identity]");
    let file = section
        .item("private_key_file")
        .and_then(|item| item.parsed("an absolute path", value::absolute_path));
    section.finish(&[]);
    file.unwrap_or_else(|| default.into())
}

/// Reads `security`; `None`: it is missing or unknown.
pub(super) fn security(section: &mut Section<'_, '_>) -> Option<Security> {
    section.item("security")?.choice(&[("sealed", Security::Sealed), ("plain", Security::Plain)])
}

/// Reads `public_key`: where it stands, and the key if it is valid.
pub(super) fn public_key(section: &mut Section<'_, '_>) -> Option<Located<Option<PublicKey>>> {
    let item = section.item("public_key")?;
    Some(Located { value: item.parsed(value::KEY, value::key).map(PublicKey), at: item.at() })
}

/// Reads `preshared_key_file`.
pub(super) fn preshared_key_file(section: &mut Section<'_, '_>) -> Option<PathBuf> {
    section.item("preshared_key_file")?.parsed("an absolute path", value::absolute_path)
}

/// Reports names that occur twice.
pub(super) fn distinct_names<'n>(
    names: impl Iterator<Item = &'n Located<String>>,
    section: &Section<'_, '_>,
    title: &str,
) {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name.value.as_str()) {
            section.fail_at(name.at, format!("two {title} have the name \"{}\"", name.value));
        }
        seen.push(&name.value);
    }
}
