//! Messages with their lines, warnings, defaults, and that no text makes the reader panic.

use std::net::IpAddr;
use std::time::Duration;

use bonding_proto::config::{Fec, Policy, RecoveryConfig};
use bonding_proto::crypto::keys::PublicKey;
use bonding_proto::qos::{Class, RuleProtocol};
use bonding_proto::view::LinkRole;
use proptest::prelude::*;

use super::*;

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
    assert_eq!(config.status.socket, Path::new("/run/bonding/server.sock"));
    assert_eq!(config.mtu.bytes(config.overhead()), 1_409, "anybody may come, sealed and over IPv6");
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

/// One of the lines is exactly the expected one.
fn has_line(errors: &str, expected: &str, text: &str) {
    let found = errors.lines().any(|line| line == expected);
    assert!(found, "expected {expected}\n     got {errors}\nfor:\n{text}");
}

#[test]
fn messages_about_links_name_line_problem_and_remedy() {
    let cases: &[(String, &str)] = &[
        (
            client_with("name = \"adsl\"", "priorty = 1"),
            "client.toml:5:1: unknown key `priorty` in [[link]]; did you mean `priority`?",
        ),
        (
            client_with("[server]", "[sever]"),
            "client.toml:1:2: unknown section or key `sever`; did you mean `server`?",
        ),
        (
            CLIENT.replace("[[link]]", "[[links]]"),
            "client.toml:4:3: unknown section or key `links`; did you mean `link`?",
        ),
        (
            CLIENT.replace("[[link]]", "[link]"),
            "client.toml:4:1: [[link]] may exist several times: write it with double brackets",
        ),
        (
            client_with("up = \"10mbit\"", "up = 10"),
            "client.toml:7:6: `up` in [[link]] is an integer; expected a rate such as \"10mbit\"",
        ),
        (
            client_with("up = \"10mbit\"", "up = \"10mbt\""),
            "client.toml:7:6: `up` in [[link]]: unknown unit `mbt`; did you mean `mbit`?",
        ),
        (
            client_with("up = \"10mbit\"", "up = \"0mbit\""),
            "client.toml:7:6: `up` in [[link]]: a rate of \"0mbit\" is not usable; it must be from 1kbit to 1000gbit",
        ),
        (
            client_with("interface = \"wg0\"", "interface = \"a-name-that-is-too-long\""),
            "client.toml:6:13: `interface` in [[link]]: \"a-name-that-is-too-long\" is not the name of an interface; those have 1 to 15 characters, without spaces, `/` and `:`",
        ),
        (
            client_with("interface = \"wg0\"", "priority = 256"),
            "client.toml:6:12: `priority` in [[link]] is 256; expected an integer from 0 to 255",
        ),
        (
            client_with("interface = \"wg0\"", "role = \"backup2\""),
            "client.toml:6:8: `role` in [[link]]: unknown value \"backup2\"; did you mean `backup`?",
        ),
        (
            client_with("interface = \"wg0\"", "metered = \"yes\""),
            "client.toml:6:11: `metered` in [[link]] is a string; expected true or false",
        ),
        (
            client_with("security = \"plain\"", "security = \"open\""),
            "client.toml:9:12: `security` in [[link]]: unknown value \"open\"; known values: `sealed`, `plain`",
        ),
        (
            client_with("security = \"plain\"", ""),
            "client.toml:1:2: [server] has no `public_key`, by which the sealed link \"adsl\" knows the server: `bonding-client join 'bond://…'` writes it; only links that are already private may have security = \"plain\"",
        ),
        (
            CLIENT.split("[[link]]").next().unwrap_or("").to_owned() + "link = []",
            "client.toml:1:1: no [[link]]: this version finds no links by itself; add a [[link]] with its interface, or let `bonding-client join 'bond://…'` write one for each",
        ),
    ];
    for (text, expected) in cases {
        let errors = client_errors(text);
        has_line(&errors, expected, text);
    }
}

#[test]
fn client_messages_name_line_problem_and_remedy() {
    let cases: &[(String, &str)] = &[
        (
            client_with("host = \"10.200.0.2\"", ""),
            "client.toml:1:2: [server] has no `host`: the client must know where its server is; add host = \"vps.example.net\"",
        ),
        (
            client_with("host = \"10.200.0.2\"", "host = \"10.200.0.2\"\nports = \"9005-9001\""),
            "client.toml:3:9: `ports` in [server]: the range \"9005-9001\" is reversed; write \"9001-9005\"",
        ),
        (
            client_with("host = \"10.200.0.2\"", "host = []"),
            "client.toml:2:8: `host` in [server] is empty; name at least one: host = \"vps.example.net\"",
        ),
        (
            client_with("interface = \"wg0\"", "role = \"never\""),
            "client.toml:1:1: every [[link]] has role = \"never\": no link is left to use",
        ),
        (
            format!(
                "{CLIENT}\n[[link]]\nname = \"adsl\"\nup = \"1mbit\"\ndown = \"1mbit\"\nsecurity = \"plain\""
            ),
            "client.toml:12:1: two [[link]] sections have the name \"adsl\"",
        ),
        (
            format!("{CLIENT}[tunnel]\nmtu = 575"),
            "client.toml:11:7: `mtu` in [tunnel] is 575; expected an integer from 576 to 65496 bytes",
        ),
        (
            format!("{CLIENT}[tunnel]\nmtu = 1279\naddress = [\"192.168.50.1/24\", \"fd50::1/64\"]"),
            "client.toml:11:7: `mtu` in [tunnel] is 1279; expected an integer from 1280 to 65496 bytes (IPv6 in the tunnel needs 1280)",
        ),
        (
            format!("{CLIENT}[tunnel]\nmtu = \"big\""),
            "client.toml:11:7: `mtu` in [tunnel]: \"big\" is not an MTU; write \"auto\", or a number such as 1400",
        ),
        (
            format!("{CLIENT}[tunnel]\naddress = \"192.168.50.1\""),
            "client.toml:11:11: `address` in [tunnel]: \"192.168.50.1\" has no prefix length; write it like \"192.168.50.1/24\"",
        ),
        (
            format!("{CLIENT}[heartbeat]\ninterval = \"1ms\""),
            "client.toml:11:12: `interval` in [heartbeat]: \"1ms\" is out of range; it must be from 10ms to 10s",
        ),
        (
            format!("{CLIENT}[recovery]\nfec = \"a bit\""),
            "client.toml:11:7: `fec` in [recovery]: \"a bit\" is not a ratio; write it like \"10%\"; or \"auto\", \"off\"",
        ),
        (
            format!("{CLIENT}[[qos.rule]]\nprotocol = \"icmp\"\nports = [\"7\"]\nclass = \"bulk\""),
            "client.toml:12:9: `ports` in [[qos.rule]]: ICMP has no ports, so this rule would match no packet",
        ),
        (
            format!("{CLIENT}[routing]\nlan = [\"192.168.1.5/24\"]"),
            "client.toml:11:8: `lan` in [routing]: \"192.168.1.5/24\" has bits beyond its length; write \"192.168.1.0/24\"",
        ),
        (
            format!("{CLIENT}[nat]\nenabled = true"),
            "client.toml:10:2: section `nat` belongs in server.toml, not in this file",
        ),
        (
            format!("{CLIENT}[status]\nsocket = \"run/x\""),
            "client.toml:11:10: `socket` in [status]: \"run/x\" is not an absolute path",
        ),
    ];
    for (text, expected) in cases {
        let errors = client_errors(text);
        has_line(&errors, expected, text);
    }
}

#[test]
fn server_messages_name_line_problem_and_remedy() {
    let second = |address: &str, remote: &str| {
        format!(
            "{SERVER}\n[[client]]\nname = \"van\"\naddress = \"{address}\"\nroutes = [\"192.168.1.0/24\"]\n\
             [[client.link]]\nremote = \"{remote}\"\nsecurity = \"plain\"\n"
        )
    };
    let cases: &[(String, &str)] = &[
        (
            second("10.99.0.2", "10.200.0.9"),
            "server.toml:12:11: 10.99.0.2 of client \"van\" overlaps 10.99.0.2 of client \"home\": an address has one client",
        ),
        (
            second("10.99.0.3", "10.200.0.1"),
            "server.toml:15:1: link \"link0\" of client \"van\" and link \"adsl\" of client \"home\" both have remote 10.200.0.1 on port 9001: a plain link cannot tell them apart",
        ),
        (
            second("10.99.0.1", "10.200.0.9"),
            "server.toml:12:11: 10.99.0.1 of client \"van\" contains the server's own address",
        ),
        (
            second("10.99.0.3/32", "10.200.0.9"),
            "server.toml:12:11: `address` in [[client]]: \"10.99.0.3/32\" is a prefix; write the address alone: \"10.99.0.3\"",
        ),
        (
            SERVER.replace("remote = \"10.200.0.1\"\n", ""),
            "server.toml:5:1: [[client.link]] has no `remote`: a plain link needs the address that may send on it",
        ),
        (
            SERVER.replace("\"10.200.0.1\"", "\"adsl.example.net\""),
            "server.toml:7:10: `remote` in [[client.link]]: \"adsl.example.net\" is not an IP address",
        ),
        (
            SERVER.replace("remote =", "up ="),
            "server.toml:7:1: unknown key `up` in [[client.link]]; known here: `name`, `remote`, `security`, `down`",
        ),
        (
            "[listen]\naddress = \"*\"".to_owned(),
            "server.toml:2:11: `address` in [listen]: \"*\" is not an IP address; \"::\" is any",
        ),
        (
            "[nat]\negress = 5".to_owned(),
            "server.toml:2:10: `egress` in [nat] is an integer; expected \"auto\" or the name of an interface",
        ),
        ("[[nat]]\n".to_owned(), "server.toml:1:1: [nat] exists once: write it with single brackets"),
        (
            "[tunnel]\naddress = []".to_owned(),
            "server.toml:2:11: `address` in [tunnel] is empty; leave it out for the default",
        ),
        (
            "[[client]]\nname = \"home\"".to_owned(),
            "server.toml:1:1: [[client]] has neither a `public_key` nor a [[client.link]]: no packet could come from it; `bondctl invite NAME` enrols a client without a section, and plain links need one [[client.link]] each",
        ),
        (
            SERVER.replace("security = \"plain\"\n", ""),
            "server.toml:7:10: [[client.link]] has a `remote`, which only plain links have: say security = \"plain\" if the link is private already; sealed links are known by the client's key",
        ),
        (
            format!("[[client]]\nname = \"home\"\npublic_key = \"{KEY}\""),
            "server.toml:1:1: [[client]] \"home\" has no `address`: give it one of the tunnel's network, such as \"10.99.0.2\"; only clients that `bondctl invite` enrols get theirs by themselves",
        ),
        (
            format!(
                "[[client]]\nname = \"home\"\npublic_key = \"{KEY}\"\naddress = \"10.99.0.2\"\n\
                 [[client]]\nname = \"van\"\npublic_key = \"{KEY}\"\naddress = \"10.99.0.3\""
            ),
            "server.toml:7:1: clients \"van\" and \"home\" have the same `public_key`",
        ),
        (
            "[[client]]\npublic_key = \"AAAA\"\naddress = \"10.99.0.2\"".to_owned(),
            "server.toml:2:14: `public_key` in [[client]]: not a key: it has 3 bytes instead of 32; a key is 44 characters of base64, as `bondctl pubkey` prints it",
        ),
        (
            "[[client]]\nname = \"home\"\n[[client.link]]\ndown = \"1mbit\"".to_owned(),
            "server.toml:3:1: [[client.link]] is sealed, which needs the `public_key` of its [[client]]",
        ),
        (
            "[server]\nhost = \"x\"".to_owned(),
            "server.toml:1:2: section `server` belongs in client.toml, not in this file",
        ),
        ("[listen\nports = 1".to_owned(), "server.toml:1:8: not valid TOML: unclosed table, expected `]`"),
    ];
    for (text, expected) in cases {
        let errors = server_errors(text);
        has_line(&errors, expected, text);
    }
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
    assert_eq!((game.class, game.duplicate, game.dscp), (Class::Realtime, true, None));
    assert_eq!((video.source.len(), video.destination.len(), video.dscp), (1, 1, Some(34)));
    assert_eq!((video.class, video.duplicate, video.protocol), (Class::Bulk, false, None));
    assert_eq!(
        (ping.protocol, ping.dscp, ping.class),
        (Some(RuleProtocol::Icmp), Some(7), Class::Interactive)
    );
    assert_eq!(*config.plan().run.rules, *config.sending.rules);
}

#[test]
fn recovery_is_read() {
    let recovery = |text: &str| client(&format!("{CLIENT}[recovery]\n{text}\n")).config.sending.recovery;
    assert_eq!(recovery(""), RecoveryConfig { resend: true, fec: Fec::Auto });
    assert_eq!(recovery("resend = false\nfec = \"off\""), RecoveryConfig { resend: false, fec: Fec::Off });
    assert_eq!(recovery("fec = \"12.5%\"").fec, Fec::Fixed(125));
}

#[test]
fn what_this_version_cannot_do_is_a_warning_and_defaults_are_none() {
    let silent = "[discovery]\nenabled = false\n[scheduler]\npolicy = \"redundant\"\n[recovery]\nresend = true\nfec = \"auto\"\n\
                  [compression]\nmode = \"auto\"\n[routing]\ncapture = \"none\"\nmss_clamp = true\n\
                  [status]\nmetrics = \"off\"\n[identity]\nprivate_key_file = \"/var/lib/bonding/client.key\"\n";
    assert_eq!(client(&format!("{CLIENT}{silent}")).warnings, []);
    let cases = [
        ("[compression]\nmode = \"on\"", "[compression] mode = \"on\" has no effect in this version"),
        (
            "[discovery]\nenabled = true",
            "[discovery] enabled = true has no effect in this version: the client uses the [[link]] sections only",
        ),
        (
            "[status]\nmetrics = \"127.0.0.1:9400\"",
            "[status] metrics = \"127.0.0.1:9400\" has no effect in this version",
        ),
        (
            "[routing]\ncapture = \"all\"",
            "[routing] capture = \"all\" has no effect in this version: route what is meant for the bond to the tunnel's interface",
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

/// Lines that are nearly a configuration: deeper than arbitrary text would reach.
fn fragment() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "host",
        "public_key",
        "ports",
        "address",
        "mtu",
        "name",
        "interface",
        "source",
        "priority",
        "role",
        "up",
        "down",
        "cap",
        "metered",
        "security",
        "enabled",
        "include",
        "policy",
        "interval",
        "fec",
        "mode",
        "protocol",
        "dscp",
        "class",
        "capture",
        "lan",
        "mss_clamp",
        "socket",
        "metrics",
        "egress",
        "routes",
        "remote",
        "zzz",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        "\"[ -!#-\\[\\]-~]{0,20}\"",
        prop::sample::select(vec![
            "\"10mbit\"",
            "\"9001-9005\"",
            "\"::/0\"",
            "\"fd00::1/64\"",
            "\"plain\"",
            "\"sealed\"",
            "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"",
            "[]",
            "[[]]"
        ])
        .prop_map(str::to_owned),
        "[0-9.]{1,30}[a-z%/]{0,5}".prop_map(|text| format!("[\"{text}\"]")),
    ];
    let title = prop::sample::select(vec![
        "[server]",
        "[tunnel]",
        "[[link]]",
        "[discovery]",
        "[scheduler]",
        "[heartbeat]",
        "[recovery]",
        "[[qos.rule]]",
        "[routing]",
        "[status]",
        "[listen]",
        "[nat]",
        "[[client]]",
        "[[client.link]]",
        "[client.link]",
        "[link]",
    ]);
    prop_oneof![
        1 => title.prop_map(str::to_owned),
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

fn reads_without_panic(text: &str) {
    for problems in
        [client_from_text("c", text).err(), server_from_text("s", text).err()].into_iter().flatten()
    {
        assert!(!problems.list.is_empty(), "an error without a message for {text:?}");
        let lines = text.lines().count() + 1;
        assert!(problems.list.iter().all(|one| (1..=lines).contains(&one.line) && one.column >= 1));
    }
    Kind::of_text(text);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        reads_without_panic(&text);
    }

    #[test]
    fn near_configurations_never_panic(lines in prop::collection::vec(fragment(), 0..20)) {
        reads_without_panic(&lines.join("\n"));
    }

    #[test]
    fn accepted_clients_keep_their_promises(lines in prop::collection::vec(fragment(), 0..6)) {
        if let Ok(loaded) = client_from_text("c", &format!("{CLIENT}{}", lines.join("\n"))) {
            prop_assert!(!loaded.config.hosts.is_empty());
            prop_assert!(!loaded.config.sealed() || loaded.config.public_key.is_some());
            prop_assert!(loaded.config.sealed() || !loaded.config.addresses.is_empty());
            prop_assert!((1..=LINKS_MAX).contains(&loaded.config.links.len()));
            prop_assert!(loaded.config.mtu.bytes(loaded.config.overhead()) >= 576);
        }
    }
}
