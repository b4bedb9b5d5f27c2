use super::*;
use crate::config::{client_from_text, server_from_text};

const CLIENT: &str =
    "[server]\nhost = \"192.0.2.1\"\npublic_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n";
const LINKS: &str =
    "[[link]]\nname = \"adsl\"\ninterface = \"a\"\n[[link]]\nname = \"lte\"\ninterface = \"b\"\n";
const HOME: &str = "[[client]]\nname = \"home\"\naddress = \"10.99.0.2\"\n\
                    public_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n";

fn client_plan(text: &str) -> ClientPlan {
    client_from_text("c", &format!("{CLIENT}{text}")).unwrap().config.plan()
}

fn server_plan(text: &str) -> ServerPlan {
    server_from_text("s", text).unwrap().config.plan()
}

fn of_client(before: &str, after: &str) -> Outcome<ClientPlan> {
    client(&client_plan(before), client_plan(after))
}

#[test]
fn the_same_file_changes_nothing() {
    let text = format!("{LINKS}[scheduler]\npolicy = \"score\"\n[[qos.rule]]\nclass = \"bulk\"\n");
    let plan = client_plan(&text);
    let outcome = client(&plan, client_plan(&text));
    assert_eq!(outcome, Outcome { plan, changed: Vec::new(), at_next_start: Vec::new() });
    let plan = server_plan(HOME);
    let outcome = server(&plan, server_plan(HOME));
    assert_eq!(outcome, Outcome { plan, changed: Vec::new(), at_next_start: Vec::new() });
}

#[test]
fn each_key_that_changes_at_run_time_has_its_line_and_its_value() {
    let after = "[[link]]\nname = \"adsl\"\ninterface = \"a\"\npriority = 3\nrole = \"backup\"\nup = \"8mbit\"\n\
                 down = \"20mbit\"\ncap = \"5GB/month\"\n[[link]]\nname = \"lte\"\ninterface = \"b\"\n\
                 [scheduler]\npolicy = \"redundant\"\n[recovery]\nresend = false\nfec = \"10%\"\n\
                 [tcp]\nsplit = \"all\"\n[status]\ninterval = \"30s\"\n[[qos.rule]]\nclass = \"bulk\"\n";
    let outcome = of_client(LINKS, after);
    assert_eq!(
        outcome.changed,
        [
            "[[link]] \"adsl\" priority: 1 → 3",
            "[[link]] \"adsl\" role: primary → backup",
            "[[link]] \"adsl\" up: none → 8.0 Mbit/s",
            "[[link]] \"adsl\" down: none → 20.0 Mbit/s",
            "[[link]] \"adsl\" cap: none → 5000 MB/month",
            "[tcp] split: auto → all",
            "[[qos.rule]]: 0 → 1 rules",
            "[scheduler] policy: adaptive → redundant",
            "[recovery] resend: true → false",
            "[recovery] fec: auto → 10 %",
            "[status] interval: 5s → 30s",
        ]
    );
    assert_eq!((outcome.at_next_start, outcome.plan), (Vec::<String>::new(), client_plan(after)));
}

#[test]
fn what_waits_keeps_its_running_value_and_is_named_again() {
    let after = "[tunnel]\nmtu = 1400\n[heartbeat]\ninterval = \"200ms\"\n[routing]\nmss_clamp = false\n\
                 [status]\nsocket = \"/run/x/c.sock\"\n\
                 [[link]]\nname = \"adsl\"\ninterface = \"a\"\n\
                 [[link]]\nname = \"lte\"\ninterface = \"b\"\npriority = 4\nsecurity = \"plain\"\nflows = 1\n\
                 [[link]]\nname = \"dsl2\"\ninterface = \"c\"\nsecurity = \"plain\"\n";
    let outcome = of_client(LINKS, after);
    let waiting = [
        "[tunnel]",
        "[[link]] \"lte\" security",
        "[[link]] \"lte\" flows",
        "[[link]] \"dsl2\" (added)",
        "[heartbeat] interval",
        "[routing] mss_clamp",
        "[status] socket",
    ];
    assert_eq!(outcome.at_next_start, waiting);
    assert_eq!(outcome.changed, ["[[link]] \"lte\" priority: 1 → 4"]);
    let mut expected = client_plan(LINKS);
    expected.links[1].priority = 4;
    assert_eq!(outcome.plan, expected);
    let again = client(&outcome.plan, client_plan(after));
    assert_eq!((again.changed, again.at_next_start), (Vec::new(), waiting.map(str::to_owned).to_vec()));
}

#[test]
fn links_are_known_by_their_names() {
    let swapped = "[[link]]\nname = \"lte\"\ninterface = \"b\"\nrole = \"never\"\n[[link]]\nname = \"adsl\"\ninterface = \"a\"\n";
    let outcome = of_client(LINKS, swapped);
    assert_eq!(outcome.changed, ["[[link]] \"lte\" role: primary → never"]);
    let ports: Vec<_> = outcome.plan.links.iter().map(|link| (link.name.as_str(), link.port)).collect();
    assert_eq!((ports, outcome.at_next_start), (vec![("lte", 9_002), ("adsl", 9_001)], Vec::new()));
}

#[test]
fn sealed_links_come_and_go_and_plain_ones_wait() {
    let sealed =
        |name: &str, interface: &str| format!("[[link]]\nname = \"{name}\"\ninterface = \"{interface}\"\n");
    let after =
        sealed("lte", "c") + &sealed("dsl2", "d") + "[discovery]\nenabled = true\nexclude = [\"eth9\"]\n";
    let outcome = of_client(LINKS, &after);
    let expected = [
        "[[link]] \"adsl\": removed",
        "[[link]] \"lte\" interface: b → c",
        "[[link]] \"dsl2\": added",
        "[discovery]: off → the usual names but eth9, priority 2",
    ];
    assert_eq!((outcome.changed, outcome.at_next_start), (expected.map(str::to_owned).to_vec(), Vec::new()));
    let names: Vec<_> = outcome.plan.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["lte", "dsl2"]);
    // Plain links are known to the server's file, and a client without keys has no sealed ones.
    let plain = |name: &str| sealed(name, name) + "security = \"plain\"\n";
    let outcome =
        client(&client_plan(&(plain("a") + &plain("b"))), client_plan(&(plain("b") + &sealed("c", "c"))));
    assert_eq!(outcome.changed, Vec::<String>::new());
    let waits =
        ["[server] or [identity]: a key or its file", "[[link]] \"a\" (removed)", "[[link]] \"c\" (added)"];
    assert_eq!(outcome.at_next_start[1..], waits, "{:?}", outcome.at_next_start);
    let names: Vec<_> = outcome.plan.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn clients_come_change_and_go() {
    let other = HOME.replace("home", "van").replace("10.99.0.2", "10.99.0.3").replace("BwcH", "CAgI");
    let moved = HOME.replace("10.99.0.2", "10.99.0.9");
    let rate = format!("{HOME}allow = [\"clients\"]\n[[client.link]]\nname = \"adsl\"\ndown = \"5mbit\"\n");
    let cases: [(&str, &str, &[&str]); 4] = [
        (HOME, &format!("{HOME}{other}"), &["[[client]] \"van\": added"]),
        (HOME, "", &["[[client]] \"home\": removed, its session ends"]),
        (HOME, &moved, &["[[client]] \"home\": changed, its session begins anew"]),
        (
            HOME,
            &rate,
            &[
                "[[client]] \"home\" allow: as all → clients",
                "[[client]] \"home\" link down: changed",
                "[[client]] \"home\" link name: changed",
            ],
        ),
    ];
    for (before, after, lines) in cases {
        let outcome = server(&server_plan(before), server_plan(after));
        assert_eq!(outcome.changed, lines);
        assert_eq!((outcome.at_next_start, outcome.plan), (Vec::<String>::new(), server_plan(after)));
    }
    let plans = [HOME, &moved, &rate].map(|text| server_plan(text).clients.remove(0));
    assert!(!keeps_session(&plans[0], &plans[1]) && keeps_session(&plans[0], &plans[2]));
}

#[test]
fn a_server_that_listens_elsewhere_waits_for_its_next_start() {
    let after =
        "[listen]\nports = \"7001\"\n[nat]\nenabled = false\n[routing]\nallow = []\n[tcp]\nsplit = \"off\"\n";
    let outcome = server(&server_plan(""), server_plan(after));
    assert_eq!(outcome.at_next_start, ["[listen] ports", "[nat]"]);
    assert_eq!(outcome.changed, ["[tcp] split: on → off", "[routing] allow: internet → nothing"]);
}

#[test]
fn what_counts_for_a_client_that_was_invited_has_its_lines() {
    let section = |rest: &str| server_plan(&format!("{HOME}[[client]]\nname = \"van\"\n{rest}"));
    let outcome = server(&server_plan(HOME), section("allow = [\"private\"]"));
    assert_eq!(outcome.changed, ["[[client]] \"van\" allow: as all → private"]);
    assert_eq!(outcome.plan, section("allow = [\"private\"]"));
    let outcome = server(&outcome.plan, section("routes = \"192.168.7.0/24\""));
    assert_eq!(
        outcome.changed,
        [
            "[[client]] \"van\" allow: private → as all",
            "[[client]] \"van\" routes: changed, its session begins anew"
        ]
    );
    let outcome = server(&outcome.plan, section("allow = []"));
    assert_eq!(
        outcome.changed,
        [
            "[[client]] \"van\" allow: as all → nothing",
            "[[client]] \"van\" routes: changed, its session begins anew"
        ]
    );
    let outcome = server(&outcome.plan, server_plan(HOME));
    assert_eq!(outcome.changed, ["[[client]] \"van\" allow: nothing → as all"]);
    assert_eq!(outcome.at_next_start, [""; 0]);
}
