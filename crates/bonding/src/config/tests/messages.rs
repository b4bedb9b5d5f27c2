//! Messages: each has its line, the mistake and the remedy.

use super::*;

/// Each text has an error line that is exactly the expected one.
fn client_has(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        has_line(&client_errors(text), expected, text);
    }
}

/// As [`client_has`], for server.toml.
fn server_has(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        has_line(&server_errors(text), expected, text);
    }
}

/// One of the lines is exactly the expected one.
fn has_line(errors: &str, expected: &str, text: &str) {
    let found = errors.lines().any(|line| line == expected);
    assert!(found, "expected {expected}\n     got {errors}\nfor:\n{text}");
}

#[test]
fn misspelt_keys_and_values_of_links_are_named() {
    client_has(&[
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
    ]);
}

#[test]
fn contradictions_of_routing_are_named() {
    client_has(&[
        (
            client_with("interface = \"wg0\"", "") + "[routing]\ncapture = \"all\"\n",
            "client.toml:11:1: capture = \"all\" would send the datagrams of [[link]] \"adsl\" into the tunnel that \
             they carry: give it its `interface`, or `source`",
        ),
        (
            format!("{CLIENT}[routing]\ncapture = \"lan\"\nlan = []\n"),
            "client.toml:12:7: `lan` in [routing] is empty; leave it out to capture what comes in by every \
             interface that is no link",
        ),
        (
            format!("{CLIENT}[routing]\ncapture = \"lan\"\nrule_priority = 255\n"),
            "client.toml:12:17: `rule_priority` in [routing] is 255; expected an integer from 256 to 32762",
        ),
    ]);
}

#[test]
fn impossible_values_of_links_are_named() {
    client_has(&[
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
            "client.toml:1:2: [server] has no `public_key`, by which links that are found by themselves know the server: `bonding-client join 'bond://…'` writes it; only links that are already private may have security = \"plain\"",
        ),
        (
            CLIENT.split("[[link]]").next().unwrap_or("").to_owned() + "[discovery]\nenabled = false\n",
            "client.toml:4:2: there is no link: [discovery] enabled = false, and no [[link]]; add a [[link]] with its interface, or leave `enabled` out",
        ),
        (
            format!("{CLIENT}[discovery]\ninclude = []\n"),
            "client.toml:11:11: `include` in [discovery] is empty: no interface would be found; leave it out",
        ),
    ]);
}

#[test]
fn mistakes_of_server_link_and_tunnel_are_named() {
    client_has(&[
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
    ]);
}

#[test]
fn mistakes_of_the_other_client_sections_are_named() {
    client_has(&[
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
            format!("{CLIENT}[[qos.rule]]\nprotocol = \"udp\"\nsplit = false"),
            "client.toml:12:9: `split` in [[qos.rule]]: only TCP connections can end at the bond; write protocol = \"tcp\"",
        ),
        (
            format!("{CLIENT}[[qos.rule]]\nsplit = \"auto\""),
            "client.toml:11:9: `split` in [[qos.rule]] is a string; expected true or false",
        ),
        (
            format!("{CLIENT}[[qos.rule]]\nprotocol = \"tcp\""),
            "client.toml:10:1: a [[qos.rule]] without `class`: say \"realtime\", \"interactive\" or \"bulk\"; only a rule that \
             says `split` needs none",
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
    ]);
}

#[test]
fn clients_that_conflict_are_named() {
    let second = |address: &str, remote: &str| {
        format!(
            "{SERVER}\n[[client]]\nname = \"van\"\naddress = \"{address}\"\nroutes = [\"192.168.1.0/24\"]\n\
             [[client.link]]\nremote = \"{remote}\"\nsecurity = \"plain\"\n"
        )
    };
    server_has(&[
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
    ]);
}

#[test]
fn mistakes_of_plain_links_are_named() {
    server_has(&[
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
            "server.toml:7:1: unknown key `up` in [[client.link]]; known here: `name`, `remote`, `interface`, `security`, `down`",
        ),
        (
            SERVER.replace("security = \"plain\"\n", ""),
            "server.toml:7:10: [[client.link]] has a `remote`, which only plain links have: say security = \"plain\" if the link is private already; sealed links are known by the client's key",
        ),
        (
            "[[client]]\nname = \"home\"\n[[client.link]]\ninterface = \"wg0\"".to_owned(),
            "server.toml:4:13: [[client.link]] has an `interface`, which only plain links have: sealed datagrams prove where they come from",
        ),
        (
            "[[client]]\nname = \"home\"\n[[client.link]]\ndown = \"1mbit\"".to_owned(),
            "server.toml:3:1: [[client.link]] is sealed, which needs the `public_key` of its [[client]]",
        ),
    ]);
}

#[test]
fn mistakes_of_server_sections_are_named() {
    server_has(&[
        (
            "[listen]\naddress = \"*\"".to_owned(),
            "server.toml:2:11: `address` in [listen]: \"*\" is not an IP address; \"::\" is any",
        ),
        (
            "[nat]\negress = 5".to_owned(),
            "server.toml:2:10: `egress` in [nat] is an integer; expected \"auto\" or the name of an interface",
        ),
        (
            "[routing]\nallow = [\"internet\", \"lan\"]".to_owned(),
            "server.toml:2:22: `allow` in [routing]: \"lan\" is none of \"internet\", \"server\", \"private\", \"clients\"",
        ),
        (
            "[[qos.rule]]\nprotocol = \"tcp\"\nsplit = false".to_owned(),
            "server.toml:3:9: `split` in [[qos.rule]] belongs in client.toml: the client chooses the connections that end at \
             the bond; a server takes them all, or none with [tcp] split = \"off\"",
        ),
        ("[[nat]]\n".to_owned(), "server.toml:1:1: [nat] exists once: write it with single brackets"),
        (
            "[tunnel]\naddress = []".to_owned(),
            "server.toml:2:11: `address` in [tunnel] is empty; leave it out for the default",
        ),
        (
            "[server]\nhost = \"x\"".to_owned(),
            "server.toml:1:2: section `server` belongs in client.toml, not in this file",
        ),
        ("[listen\nports = 1".to_owned(), "server.toml:1:8: not valid TOML: unclosed table, expected `]`"),
    ]);
}

#[test]
fn clients_without_key_or_address_are_named() {
    server_has(&[
        (
            "[[client]]\nname = \"home\"".to_owned(),
            "server.toml:1:1: [[client]] has neither a `public_key` nor a [[client.link]]: no packet could come from it; `bondctl invite NAME` enrols a client without a section, or with one that has `name`, `allow` and `routes` alone, and plain links need one [[client.link]] each",
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
    ]);
}
