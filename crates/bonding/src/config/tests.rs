//! Defaults, warnings, and the meaning of the settings.

mod messages;
mod properties;

use std::net::IpAddr;
use std::time::Duration;

use bonding_os::nat::Reach;
use bonding_proto::config::{Fec, Policy, RecoveryConfig, UdpFlows};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::qos::{Class, RuleProtocol};
use bonding_proto::view::LinkRole;

use bonding_os::capture::Scope;

use super::*;
use crate::engine::plan::{CapturePlan, Compression, DiscoveryPlan};

const CLIENT: &str = r#"[server]
host = "10.200.0.2"

[[link]]
name = "adsl"
interface = "wg0"
up = "10mbit"
down = "10mbit"
security = "plain"
"#;

const SERVER: &str = r#"[[client]]
name = "home"
address = "10.99.0.2"

[[client.link]]
name = "adsl"
remote = "10.200.0.1"
security = "plain"
"#;

/// Any 32 bytes.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn client(text: &str) -> Loaded<Client> {
    client_from_text("client.toml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn server(text: &str) -> Loaded<Server> {
    server_from_text("server.toml", text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn client_errors(text: &str) -> String {
    client_from_text("client.toml", text).expect_err(text).to_string()
}

fn server_errors(text: &str) -> String {
    server_from_text("server.toml", text).expect_err(text).to_string()
}

/// The valid client with one line replaced.
fn client_with(line: &str, replacement: &str) -> String {
    assert!(CLIENT.contains(line), "{line}");
    CLIENT.replacen(line, replacement, 1)
}

#[test]
fn the_smallest_client_has_the_documented_defaults() {
    let loaded = client(CLIENT);
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.interface, "tun-bond");
    assert_eq!(config.addresses, [PLAIN_CLIENT_ADDRESS]);
    assert_eq!(config.mtu.bytes(config.overhead()), 1_461);
    assert_eq!(config.sending.policy, Policy::Adaptive);
    assert_eq!(config.sending.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.status.interval, Duration::from_secs(5));
    assert_eq!(config.status.socket, Path::new("/run/bonding/client.sock"));
    assert_eq!((config.links[0].priority, config.links[0].port), (1, 9_001));
}

#[test]
fn a_server_without_a_file_has_the_documented_defaults() {
    let config = server_defaults();
    assert_eq!(config, server("").config);
    assert_eq!(config.listen, "::".parse::<IpAddr>().unwrap());
    assert_eq!(config.ports.iter().collect::<Vec<_>>(), [9_001, 9_002, 9_003, 9_004, 9_005]);
    assert_eq!(config.interface, "tun-bond");
    assert_eq!(config.addresses, ADDRESSES.map(prefix));
    assert_eq!(config.nat, Some(Nat { egress: None }));
    assert_eq!(config.reach, Reach { internet: true, ..Reach::default() });
    assert_eq!(config.status.socket, Path::new("/run/bonding/server.sock"));
    assert_eq!(config.mtu.bytes(config.overhead()), 1_409, "any client may come, sealed and over IPv6");
}

const ADDRESSES: [&str; 2] = ["10.99.0.1/24", "fd99::1/64"];

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
}

#[test]
fn a_plain_client_without_address_has_the_default_one() {
    let text = SERVER.replace("address = \"10.99.0.2\"\n", "");
    let config = server(&text).config;
    assert_eq!(config.clients[0].addresses, ["192.168.50.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.mtu.bytes(config.overhead()), 1_461, "its only remote is IPv4");
}

#[test]
fn mtu_depends_on_what_the_links_may_be() {
    let mtu = |text: &str| {
        let config = client(text).config;
        config.mtu.bytes(config.overhead())
    };
    assert_eq!(mtu(&client_with("\"10.200.0.2\"", "\"vps.example.net\"")), 1_441);
    assert_eq!(mtu(&client_with("\"10.200.0.2\"", "[\"10.200.0.2\", \"fd00::2\"]")), 1_441);
    let bound = client_with("\"10.200.0.2\"", "\"vps.example.net\"")
        .replace("interface = \"wg0\"", "source = \"10.200.0.1\"");
    assert_eq!(mtu(&bound), 1_461, "an IPv4 socket sends no IPv6");
}

#[test]
fn segments_are_clamped_unless_either_side_says_no() {
    for (section, clamp) in
        [("", true), ("[routing]\nmss_clamp = true\n", true), ("[routing]\nmss_clamp = false\n", false)]
    {
        let client = client(&format!("{CLIENT}{section}"));
        let server = server(&format!("{SERVER}{section}"));
        assert_eq!((client.config.plan().run.mss_clamp, client.warnings.len()), (clamp, 0));
        assert_eq!((server.config.plan().run.mss_clamp, server.warnings.len()), (clamp, 0));
    }
}

#[test]
fn links_are_sealed_unless_they_say_plain() {
    let text = CLIENT
        .replace("security = \"plain\"\n", "")
        .replace("host = \"10.200.0.2\"", &format!("host = \"10.200.0.2\"\npublic_key = \"{KEY}\""));
    let loaded = client(&text);
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    assert_eq!(config.public_key, Some(PublicKey(std::array::from_fn(|at| u8::try_from(at).unwrap()))));
    assert_eq!(config.links[0].security, Security::Sealed);
    assert_eq!(config.addresses, [], "leased");
    assert_eq!(config.private_key_file, Path::new("/var/lib/bonding/client.key"));
    assert_eq!(config.mtu.bytes(config.overhead()), 1_429);

    let mixed = format!(
        "{text}[[link]]\nname = \"wg\"\ninterface = \"wg1\"\nup = \"1mbit\"\ndown = \"1mbit\"\n\
         security = \"plain\"\n[tunnel]\naddress = \"10.99.0.7/24\"\n[identity]\nprivate_key_file = \"/k\"\n"
    );
    let config = client(&mixed).config;
    assert_eq!(
        config.links.iter().map(|link| link.security).collect::<Vec<_>>(),
        [Security::Sealed, Security::Plain]
    );
    assert_eq!((config.addresses.len(), config.private_key_file.as_path()), (1, Path::new("/k")));
    assert_eq!(config.mtu.bytes(config.overhead()), 1_429, "the larger overhead of both");

    let useless = CLIENT.replace("[[link]]", &format!("public_key = \"{KEY}\"\n[[link]]"));
    let warnings: Vec<String> = client(&useless).warning_lines().collect();
    assert_eq!(
        warnings,
        [
            "client.toml:4:1: warning: [server] public_key has no effect: all links are plain, and plain links have no keys"
        ]
    );
}

#[test]
fn a_client_of_a_server_has_a_key_or_plain_links_or_both() {
    let key = format!("[[client]]\nname = \"home\"\npublic_key = \"{KEY}\"\naddress = \"10.99.0.2\"\n");
    let loaded = server(&key);
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    assert!(config.clients[0].public_key.is_some() && config.clients[0].links.is_empty());
    assert_eq!(config.mtu.bytes(config.overhead()), 1_409);
    assert_eq!(config.private_key_file, Path::new("/var/lib/bonding/server.key"));

    let both = format!(
        "{key}preshared_key_file = \"/psk\"\n[[client.link]]\nname = \"lte\"\ndown = \"5mbit\"\n\
         [[client.link]]\nname = \"wg\"\nremote = \"10.200.0.1\"\nsecurity = \"plain\"\n"
    );
    let config = server(&both).config;
    let client = &config.clients[0];
    assert_eq!(client.preshared_key_file.as_deref(), Some(Path::new("/psk")));
    let remotes: Vec<Option<IpAddr>> = client.links.iter().map(|link| link.remote).collect();
    assert_eq!(remotes, [None, Some("10.200.0.1".parse().unwrap())]);
    let plan = &config.plan().clients[0];
    assert_eq!(plan.config.plain.iter().map(|peer| peer.link.0).collect::<Vec<_>>(), [1]);
    assert_eq!(plan.config.tx_rates.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn links_that_share_a_remote_each_need_a_port() {
    let link = |remote: &str| {
        format!("[[client.link]]\nname = \"{remote}-{{n}}\"\nremote = \"{remote}\"\nsecurity = \"plain\"\n")
    };
    let file = |count: usize, remote: &dyn Fn(usize) -> String| {
        let links: String = (0..count).map(|n| link(&remote(n)).replace("{n}", &n.to_string())).collect();
        format!("[listen]\nports = \"9001-9003\"\n[[client]]\nname = \"home\"\n{links}")
    };
    let same = |_: usize| "192.0.2.1".to_owned();
    server(&file(3, &same));
    server(&file(8, &|n| format!("192.0.2.{}", n + 1)));
    let errors = server_errors(&file(4, &same));
    assert!(errors.contains("has no port of its own: it is number 4, and [listen] has 3 ports"), "{errors}");
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_the_order_of_its_lines() {
    let text = "[server]\nprots = \"1\"\n[[link]]\nup = 1\nsecurity = \"plain\"\n[tunel]\n";
    let lines: Vec<usize> =
        client_from_text("client.toml", text).unwrap_err().list.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 4, 6]);
}

#[test]
fn garbage_does_not_fill_the_screen() {
    let text: String = (0..500).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(server_from_text("s", &text).unwrap_err().list.len(), 50);
}

#[test]
fn rules_are_read_in_their_order() {
    let text = format!(
        "{CLIENT}[[qos.rule]]\nprotocol = \"udp\"\nports = [\"27000-27100\", \"53\"]\nclass = \"realtime\"\nduplicate = true\n\
         [[qos.rule]]\nsource = \"192.168.1.0/24\"\ndestination = [\"2001:db8::/32\"]\ndscp = \"af41\"\nclass = \"bulk\"\n\
         [[qos.rule]]\nprotocol = \"icmp\"\ndscp = 7\nclass = \"interactive\"\n"
    );
    let config = client(&text);
    assert_eq!(config.warnings, []);
    let config = config.config;
    let [game, video, ping] = config.sending.rules.as_slice() else { panic!("{config:?}") };
    assert_eq!(
        (game.protocol, game.ports.as_slice()),
        (Some(RuleProtocol::Udp), &[(27_000, 27_100), (53, 53)][..])
    );
    assert_eq!((game.class, game.duplicate, game.dscp), (Some(Class::Realtime), true, None));
    assert_eq!((video.source.len(), video.destination.len(), video.dscp), (1, 1, Some(34)));
    assert_eq!((video.class, video.duplicate, video.protocol), (Some(Class::Bulk), false, None));
    assert_eq!(
        (ping.protocol, ping.dscp, ping.class),
        (Some(RuleProtocol::Icmp), Some(7), Some(Class::Interactive))
    );
    assert_eq!(*config.plan().run.sending.rules, *config.sending.rules);
}

#[test]
fn a_rule_says_which_connections_are_split() {
    let text = format!(
        "{CLIENT}[[qos.rule]]\nprotocol = \"tcp\"\nports = [\"22\"]\nsplit = true\n\
         [[qos.rule]]\nports = [\"8080\"]\nclass = \"bulk\"\nsplit = false\n"
    );
    let config = client(&text);
    assert_eq!(config.warnings, []);
    let said: Vec<_> = config.config.sending.rules.iter().map(|rule| (rule.class, rule.split)).collect();
    assert_eq!(said, [(None, Some(true)), (Some(Class::Bulk), Some(false))]);
    let off = client(&format!("{text}[tcp]\nsplit = \"off\"\n"));
    let [warning] = off.warnings.as_slice() else { panic!("{:?}", off.warnings) };
    assert_eq!(warning.line, 13);
    assert!(warning.message.starts_with("[[qos.rule]] split = true has no effect"), "{warning:?}");
}

#[test]
fn recovery_is_read() {
    let recovery = |text: &str| client(&format!("{CLIENT}[recovery]\n{text}\n")).config.sending.recovery;
    assert_eq!(recovery(""), RecoveryConfig { resend: true, fec: Fec::Auto });
    assert_eq!(recovery("resend = false\nfec = \"off\""), RecoveryConfig { resend: false, fec: Fec::Off });
    assert_eq!(recovery("fec = \"12.5%\"").fec, Fec::Fixed(125));
}

#[test]
fn compression_is_read_on_both_sides() {
    for (text, mode) in [
        ("", Compression::Auto),
        ("[compression]\nmode = \"auto\"", Compression::Auto),
        ("[compression]\nmode = \"on\"", Compression::On),
        ("[compression]\nmode = \"off\"", Compression::Off),
    ] {
        let loaded = client(&format!("{CLIENT}{text}\n"));
        assert_eq!((loaded.config.plan().run.compression, loaded.warnings.len()), (mode, 0), "{text}");
        let loaded = server_from_text("server.toml", text).unwrap();
        assert_eq!((loaded.config.plan().run.compression, loaded.warnings.len()), (mode, 0), "{text}");
    }
}

#[test]
fn an_unsupported_setting_is_a_warning_and_the_defaults_give_no_warning() {
    let silent = "[discovery]\nenabled = false\n[scheduler]\npolicy = \"redundant\"\n[recovery]\nresend = true\nfec = \"auto\"\n\
                  [compression]\nmode = \"auto\"\n[routing]\ncapture = \"none\"\nmss_clamp = true\n\
                  [status]\nmetrics = \"off\"\n[identity]\nprivate_key_file = \"/var/lib/bonding/client.key\"\n";
    assert_eq!(client(&format!("{CLIENT}{silent}")).warnings, []);
    let cases = [
        (
            "[compression]\nmode = \"on\"\n[tcp]\nsplit = \"off\"",
            "[compression] mode = \"on\" has no effect with [tcp] split = \"off\": only the bytes of connections that \
             end at the bond are compressed",
        ),
        (
            "[status]\nmetrics = \"127.0.0.1:9400\"",
            "[status] metrics = \"127.0.0.1:9400\" has no effect in this version",
        ),
        ("[routing]\nlan = [\"10.0.0.0/8\"]", "[routing] lan has no effect without capture = \"lan\""),
        ("[routing]\nfallback = true", "[routing] fallback has no effect without `capture`"),
        (
            "[routing]\ncapture = \"all\"\nlan = [\"10.0.0.0/8\"]",
            "[routing] lan has no effect with capture = \"all\", which captures every network",
        ),
        (
            "[tunnel]\nmtu = 1500",
            "[tunnel] mtu = 1500 is more than links of 1500 bytes carry in one datagram (1461): such links get smaller packets only",
        ),
    ];
    for (text, expected) in cases {
        let warnings = client(&format!("{CLIENT}{text}\n")).warnings;
        let messages: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(messages, [expected]);
    }
    let links = [(
        "metered = true",
        "[[link]] metered = true has no effect in this version: heartbeats go on while the link is idle",
    )];
    for (line, expected) in links {
        let warnings =
            client(&client_with("interface = \"wg0\"", &format!("interface = \"wg0\"\n{line}"))).warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!((warnings[0].line, warnings[0].message.as_str()), (7, expected));
    }
}

#[test]
fn what_is_captured_has_defaults() {
    let capture = |text: &str| client(&format!("{CLIENT}[routing]\n{text}\n")).config.capture;
    assert_eq!(capture("capture = \"none\""), None);
    let lan = CapturePlan {
        scope: Scope::Lan,
        lan: Vec::new(),
        fallback: false,
        masquerade: true,
        priority: 20_000,
    };
    assert_eq!(capture("capture = \"lan\""), Some(lan.clone()));
    assert_eq!(capture_words(&lan), "what comes in by interfaces that are no links");
    let all = capture("capture = \"all\"\nfallback = true\nmasquerade = false\nrule_priority = 256").unwrap();
    assert_eq!((all.scope, all.fallback, all.masquerade, all.priority), (Scope::All, true, false, 256));
    let named = capture("capture = \"lan\"\nlan = [\"192.168.1.0/24\", \"fd01::/64\"]").unwrap();
    assert_eq!(capture_words(&named), "what comes from 192.168.1.0/24, fd01::/64");
}

#[test]
fn rates_are_optional() {
    let loaded = client(&client_with("up = \"10mbit\"\ndown = \"10mbit\"\n", ""));
    assert_eq!(loaded.warnings, []);
    assert_eq!((loaded.config.links[0].up, loaded.config.links[0].down), (None, None));
}

#[test]
fn a_cap_is_in_bytes_a_month() {
    let loaded = client(&client_with("interface = \"wg0\"", "interface = \"wg0\"\ncap = \"1.5GB/month\""));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.links[0].cap, Some(1_500_000_000));
    let plan = loaded.config.plan();
    assert_eq!(plan.links[0].cap, Some(1_500_000_000));
    assert_eq!(plan.usage_file, Path::new("/var/lib/bonding/client.usage"));
}

#[test]
fn every_link_has_a_role() {
    for (line, role) in [
        ("", LinkRole::Primary),
        ("role = \"primary\"\n", LinkRole::Primary),
        ("role = \"secondary\"\n", LinkRole::Secondary),
        ("role = \"backup\"\n", LinkRole::Backup),
        ("role = \"never\"\n", LinkRole::Never),
    ] {
        let text =
            format!("{CLIENT}[[link]]\nname = \"lte\"\ninterface = \"wwan0\"\n{line}security = \"plain\"\n");
        let loaded = client(&text);
        assert_eq!(loaded.warnings, []);
        let roles: Vec<_> = loaded.config.links.iter().map(|link| (link.name.as_str(), link.role)).collect();
        assert_eq!(roles, [("adsl", LinkRole::Primary), ("lte", role)]);
    }
}

#[test]
fn links_take_their_name_from_what_they_are_bound_to() {
    let name = |replacement: &str| {
        let text = client_with("name = \"adsl\"\ninterface = \"wg0\"\n", replacement);
        client(&text).config.links[0].name.clone()
    };
    assert_eq!(name("interface = \"wg0\"\n"), "wg0");
    assert_eq!(name("source = \"10.0.0.1\"\n"), "10.0.0.1");
    assert_eq!(name(""), "link0");
}

#[test]
fn two_links_on_one_interface_are_warned_about() {
    let text = format!(
        "{CLIENT}[[link]]\nname = \"b\"\ninterface = \"wg0\"\nup = \"1mbit\"\ndown = \"1mbit\"\nsecurity = \"plain\"\n"
    );
    let warnings = client(&text).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].message,
        "[[link]] \"b\" and \"adsl\" leave by the same interface: they are one line"
    );
}

#[test]
fn more_links_than_a_session_has_are_refused() {
    let links: String = (0..=LINKS_MAX)
        .map(|n| format!("[[link]]\nname = \"l{n}\"\nsource = \"10.0.0.{n}\"\nsecurity = \"plain\"\n"))
        .collect();
    let errors = client_errors(&format!("[server]\nhost = \"10.0.0.200\"\n{links}"));
    assert!(errors.contains("more than 32 [[link]] sections"), "{errors}");
}

#[test]
fn kinds_are_told_apart() {
    assert_eq!(Kind::of_text(CLIENT), Some(Kind::Client));
    assert_eq!(Kind::of_text(SERVER), Some(Kind::Server));
    assert_eq!(Kind::of_text("[nat]\nenabled = maybe"), Some(Kind::Server), "broken files too");
    assert_eq!(Kind::of_text("[tunnel]\n"), None);
}

#[test]
fn unreadable_files_say_why() {
    let missing = load_client(Path::new("/nonexistent/client.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/client.toml:1:1: cannot be read: No such file"), "{missing}");
    assert!(missing.ends_with("`bonding-client join 'bond://…'` writes it"), "{missing}");
    let directory = load_client(Path::new("/")).unwrap_err().to_string();
    assert!(directory.contains("cannot be read"), "{directory}");
}

#[test]
fn a_sealed_link_has_as_many_udp_flows_as_it_says() {
    let sealed = CLIENT
        .replace("security = \"plain\"\n", "")
        .replace("host = \"10.200.0.2\"", &format!("host = \"10.200.0.2\"\npublic_key = \"{KEY}\""));
    let with = |value: &str| sealed.replace("up = \"10mbit\"", &format!("flows = {value}"));
    for (text, flows) in [
        (sealed.clone(), UdpFlows::Auto),
        (with("\"auto\""), UdpFlows::Auto),
        (with("1"), UdpFlows::Fixed(1)),
        (with("8"), UdpFlows::Fixed(8)),
    ] {
        let loaded = client(&text);
        assert_eq!(loaded.warnings, []);
        assert_eq!((loaded.config.links[0].flows, loaded.config.plan().links[0].flows), (flows, flows));
    }
    for value in ["0", "9", "-1"] {
        let expected =
            format!("`flows` in [[link]] is {value}; expected an integer from 1 to 8, or \"auto\"");
        assert!(client_errors(&with(value)).contains(&expected), "{}", client_errors(&with(value)));
    }
    for value in ["\"many\"", "\"4\"", "true"] {
        let errors = client_errors(&with(value));
        assert!(errors.contains("flows") && errors.contains("\"auto\", or a number from 1 to 8"), "{errors}");
    }
    let errors = client_errors(&client_with("up = \"10mbit\"", "flows = 2"));
    assert!(errors.contains("a plain link has one UDP flow"), "{errors}");
    assert_eq!(
        client(&client_with("up = \"10mbit\"", "flows = 1")).config.links[0].flows,
        UdpFlows::Fixed(1)
    );
}

#[test]
fn links_are_found_where_none_is_configured() {
    let (server, _) = CLIENT.split_once("[[link]]").unwrap();
    let head = format!("{server}public_key = \"{KEY}\"\n");
    let discovery = |text: &str| client(&format!("{head}{text}")).config.discovery;
    let usual = DiscoveryPlan { include: None, exclude: None, priority: 2 };
    assert_eq!(discovery(""), Some(usual.clone()));
    assert_eq!(discovery("[[link]]\ninterface = \"a\"\n"), None);
    assert_eq!(discovery("[[link]]\ninterface = \"a\"\n[discovery]\nenabled = true\n"), Some(usual));
    let said = discovery("[discovery]\ninclude = [\"sat*\"]\nexclude = []\npriority = 9\n").unwrap();
    let include = Some(vec!["sat*".to_owned()]);
    assert_eq!(said, DiscoveryPlan { include, exclude: Some(Vec::new()), priority: 9 });
}
