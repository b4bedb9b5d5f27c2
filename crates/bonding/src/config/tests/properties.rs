//! No text makes the reader panic, and an accepted file keeps its promises.

use proptest::prelude::*;

use super::*;

/// Keys of both files, and one that neither has.
const KEYS: [&str; 37] = [
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
    "split",
    "capture",
    "lan",
    "fallback",
    "masquerade",
    "rule_priority",
    "mss_clamp",
    "socket",
    "metrics",
    "egress",
    "routes",
    "remote",
    "zzz",
];

/// Titles of sections, right and wrong.
const TITLES: [&str; 17] = [
    "[server]",
    "[tunnel]",
    "[[link]]",
    "[discovery]",
    "[scheduler]",
    "[heartbeat]",
    "[recovery]",
    "[[qos.rule]]",
    "[tcp]",
    "[routing]",
    "[status]",
    "[listen]",
    "[nat]",
    "[[client]]",
    "[[client.link]]",
    "[client.link]",
    "[link]",
];

/// Lines that are nearly a configuration: deeper than arbitrary text would reach.
fn fragment() -> impl Strategy<Value = String> {
    let key = prop::sample::select(&KEYS);
    let title = prop::sample::select(&TITLES);
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
