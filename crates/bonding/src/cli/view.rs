//! The status, for people on a terminal of 80 columns.

use std::time::SystemTime;

use super::layout::wrap;
use super::style::{Colour, Style};
use super::table::{Align, Cell, Table};
use crate::status::{Client, Discovery, Link, Role, Routing, Session, Status, Streams, Unused};

/// Between two things said in one line.
const BETWEEN: &str = " · ";
/// The widest that a link's name may be beside its figures; the table below has the whole name.
const NAME_COLUMNS: usize = 16;

/// The status as a heading and tables of links, in lines of at most 80 columns.
pub fn render(status: &Status, now: SystemTime, style: Style) -> String {
    let mut text = heading(status, now, style);
    text.push_str(&status.routing.as_ref().map(routing).unwrap_or_default());
    text.push_str(&sentence(&status.summary, 0));
    text.push('\n');
    match status.role {
        Role::Client => text.push_str(&links(&status.links.iter().collect::<Vec<_>>(), style)),
        Role::Server => text.push_str(&clients(status, now, style)),
    }
    text.push_str(&status.discovery.as_ref().map(unused).unwrap_or_default());
    text.push_str(&troubles(&status.links));
    text.push_str(&caps(&status.links));
    text.push_str(&by_hand(&status.links));
    text.push('\n');
    text.push_str(&counts(status));
    text.push_str(&streams(&status.streams));
    text
}

/// A line about streams, once there was any, or a connection that was none.
fn streams(streams: &Streams) -> String {
    let as_packets = streams.as_packets.sum();
    if streams.opened + streams.refused + as_packets == 0 {
        return String::new();
    }
    let mut parts = vec![
        format!("streams {}", streams.open),
        format!("sent {}", bytes(streams.tx_bytes)),
        format!("received {}", bytes(streams.rx_bytes)),
    ];
    parts.extend((as_packets > 0).then(|| format!("as packets {as_packets}")));
    wrap(&parts, BETWEEN, 2)
}

/// What is captured, and by which rules.
fn routing(routing: &Routing) -> String {
    let [first, last] = routing.rules;
    let way = match (routing.fallback, routing.active) {
        (true, true) => "directly if the bond is down",
        (true, false) => "directly now, as the bond is down",
        (false, _) => "never beside the bond",
    };
    let rules = format!("ip rules {first} to {last}, table {}", routing.table);
    wrap(&[format!("takes {}", routing.what), way.to_owned(), rules], BETWEEN, 2)
}

/// Each client of a server with its links.
fn clients(status: &Status, now: SystemTime, style: Style) -> String {
    if status.clients.is_empty() {
        return "  no client yet: `bondctl invite NAME` invites one\n".to_owned();
    }
    let of = |client: &Client| {
        let mut parts = vec![style.paint(Colour::Bold, &client.name)];
        parts.extend(session(&client.session, now, style));
        let links_of: Vec<&Link> =
            status.links.iter().filter(|link| link.client.as_ref() == Some(&client.name)).collect();
        wrap(&parts, BETWEEN, 0) + &sentence(&client.summary, 2) + &links(&links_of, style)
    };
    status.clients.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// The sentence that says whether it bonds, unless there is none.
fn sentence(summary: &str, indent: usize) -> String {
    let parts: Vec<String> = summary.split("; ").map(str::to_owned).collect();
    if summary.is_empty() { String::new() } else { wrap(&parts, "; ", indent) }
}

/// Counters of the bond as a whole.
fn counts(status: &Status) -> String {
    let discarded: Vec<String> = status
        .discards
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    let discarded = if discarded.is_empty() { "nothing".to_owned() } else { discarded.join(", ") };
    let (flows, reorder, recovery) = (status.flows, status.reorder, status.recovery);
    let parts = [
        format!("flows {}, {} realtime", flows.active, flows.realtime),
        format!("reordering holds {}", reorder.held),
        format!("released late {}", reorder.released_late),
        format!("duplicates {}", reorder.duplicates),
        format!("sent again {}", recovery.resent),
        format!("repairs sent {}, restored {}", recovery.fec_sent, recovery.fec_recovered),
        format!("lost {}", recovery.lost),
        format!("discarded {discarded}"),
    ];
    wrap(&parts, BETWEEN, 2)
}

/// The interfaces that could be links, and are not.
fn unused(discovery: &Discovery) -> String {
    let of = |one: &Unused| {
        let words = format!("{} is not used: {}", one.interface, one.why);
        wrap(&words.split(' ').map(str::to_owned).collect::<Vec<_>>(), " ", 2)
    };
    let lines: String = discovery.unused.iter().filter(|one| one.is_candidate).map(of).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Why links are down.
fn troubles(links: &[Link]) -> String {
    let of = |link: &Link| {
        let trouble = link.trouble.as_ref()?;
        let words: Vec<String> =
            format!("{} is down: {trouble}", link.name).split(' ').map(str::to_owned).collect();
        Some(wrap(&words, " ", 2))
    };
    let lines: String = links.iter().filter_map(of).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// How much of the links' data caps is used.
fn caps(links: &[Link]) -> String {
    let of = |link: &Link| {
        let (used, cap) = link.cap_used_bytes.zip(link.cap_bytes)?;
        Some(format!("\n  {} has used {} of {} this month", link.name, bytes(used), bytes(cap)))
    };
    let lines: String = links.iter().filter_map(of).collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// Links that an operator uses for something else.
fn by_hand(links: &[Link]) -> String {
    let of = |link: &Link| {
        let text = format!("{} by hand: {}, priority {}", link.name, link.role, link.priority);
        format!("\n  {text}, until a reload")
    };
    let lines: String = links.iter().filter(|link| link.by_hand).map(of).collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

fn heading(status: &Status, now: SystemTime, style: Style) -> String {
    let mut parts = Vec::new();
    match status.role {
        Role::Client => {
            parts.push(style.paint(Colour::Bold, "client"));
            parts.extend(session(&status.session, now, style));
        }
        Role::Server => {
            let up = status.clients.iter().filter(|client| client.session.state == "up").count();
            parts.push(style.paint(Colour::Bold, "server"));
            parts.push(format!("{up} of {} clients up", status.clients.len()));
        }
    }
    let tunnel = &status.tunnel;
    parts.push(format!("{} {} MTU {}", tunnel.interface, tunnel.address.join(" "), tunnel.mtu));
    wrap(&parts, BETWEEN, 0)
}

/// A session's state, since when, with which peer and cipher.
fn session(session: &Session, now: SystemTime, style: Style) -> Vec<String> {
    if session.state != "up" {
        let why = session.refused.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        return vec![style.paint(Colour::Red, &session.state) + &why];
    }
    let mut text = style.paint(Colour::Green, "up");
    let since = session.since.as_deref().and_then(|since| humantime::parse_rfc3339(since).ok());
    if let Some(span) = since.and_then(|since| now.duration_since(since).ok()) {
        text.push_str(&format!(" for {}", rough(span.as_secs())));
    }
    if let Some(peer) = &session.peer {
        text.push_str(&format!(" with {peer}"));
    }
    let mut parts = vec![text];
    if session.cipher != "none" {
        parts.push(session.cipher.clone());
        parts.push(if session.hybrid { "x25519+ml-kem-768" } else { "x25519" }.to_owned());
    }
    parts
}

/// The two largest units of a span.
fn rough(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// Two tables: the links' figures now, and their totals and peers.
fn links(links: &[&Link], style: Style) -> String {
    let mut now = Table::new(&[
        ("LINK", Align::Left),
        ("STATE", Align::Left),
        ("RTT", Align::Right),
        ("SENDS Mbit/s", Align::Right),
        ("LOSS", Align::Right),
        ("RECEIVES", Align::Right),
        ("LOSS", Align::Right),
    ])
    .narrow_first(NAME_COLUMNS);
    let mut so_far = Table::new(&[
        ("LINK", Align::Left),
        ("ROLE", Align::Left),
        ("PRIO", Align::Right),
        ("SCORE", Align::Right),
        ("MTU", Align::Right),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("PEER", Align::Left),
    ]);
    let dash = || "–".to_owned();
    for link in links {
        now.push(vec![
            link.name.as_str().into(),
            Cell::coloured(link.state.as_str(), state_colour(&link.state)),
            link.rtt_ms.map_or_else(dash, |rtt| format!("{rtt:.1} ms")).into(),
            of(link.tx_mbps, link.capacity_mbps).into(),
            percent(link.loss_permille).into(),
            of(link.rx_mbps, link.peer.as_ref().and_then(|peer| peer.capacity_mbps)).into(),
            link.peer.as_ref().map_or_else(dash, |peer| percent(peer.loss_permille)).into(),
        ]);
        so_far.push(vec![
            link.name.as_str().into(),
            link.role.as_str().into(),
            link.priority.to_string().into(),
            link.score.to_string().into(),
            link.mtu.map_or_else(dash, |mtu| mtu.to_string()).into(),
            bytes(link.tx_bytes).into(),
            bytes(link.rx_bytes).into(),
            peer(link).into(),
        ]);
    }
    if links.len() > 1 {
        let [row, totals] = together(links);
        now.push(row);
        so_far.push(totals);
    }
    format!("{}\n{}", now.render(style), so_far.render(style))
}

/// The rows of the links' sums, for both tables.
fn together(links: &[&Link]) -> [Vec<Cell>; 2] {
    let sum = |of: fn(&Link) -> f64| links.iter().map(|link| of(link)).sum::<f64>();
    let rate = |mbps: f64| Cell::from(format!("{mbps:.1}"));
    let total = |of: fn(&Link) -> u64| Cell::from(bytes(links.iter().map(|link| of(link)).sum()));
    let head = |empty: usize| std::iter::once("together".into()).chain((0..empty).map(|_| Cell::default()));
    let rates = [rate(sum(|link| link.tx_mbps)), Cell::default(), rate(sum(|link| link.rx_mbps))];
    let totals = [total(|link| link.tx_bytes), total(|link| link.rx_bytes)];
    [head(2).chain(rates).collect(), head(4).chain(totals).collect()]
}

/// A rate, of the rate that the link carries where that is known.
fn of(mbps: f64, capacity: Option<f64>) -> String {
    capacity.map_or_else(|| format!("{mbps:.1}"), |capacity| format!("{mbps:.1}/{capacity:.1}"))
}

fn percent(permille: u16) -> String {
    format!("{:.1} %", f64::from(permille) / 10.0)
}

/// The peer's address, and over how many UDP flows, where they are several.
fn peer(link: &Link) -> String {
    let remote = link.remote.as_deref().unwrap_or("–");
    if link.flows > 1 { format!("{remote}, {} UDP flows", link.flows) } else { remote.to_owned() }
}

/// The colour that goes with a state word.
pub fn state_colour(word: &str) -> Colour {
    match word {
        "OK" => Colour::Green,
        "SATURATED" => Colour::Cyan,
        "DOWN" => Colour::Red,
        _ => Colour::Yellow,
    }
}

/// An amount with one decimal and a decimal unit.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (size, unit) in units {
        if count >= size {
            let tenths = count / (size / 10);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::status::AsPackets;
    use crate::status::tests::{session, snapshot};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_766_400 + seconds)
    }

    #[test]
    fn a_client_is_a_heading_and_its_links() {
        let status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert_eq!(
            render(&status, at(75), Style::PLAIN),
            "client · up for 1 min 15 s with 10.200.0.1 · tun-bond 192.168.50.1/24 MTU 1461\n\
             carrying 8 of 10 Mbit/s up over adsl alone; adsl full\n\n\
             \x20 LINK  STATE          RTT  SENDS Mbit/s   LOSS  RECEIVES   LOSS\n\
             \x20 adsl  SATURATED  22.5 ms      8.2/10.0  0.0 %  4.1/70.0  1.2 %\n\n\
             \x20 LINK  ROLE     PRIO  SCORE   MTU  SENT  RECEIVED  PEER\n\
             \x20 adsl  primary     1   1225  1492   2 B   18.4 MB  10.200.0.1:54321\n\n\
             \x20 flows 3, 2 realtime · reordering holds 4 · released late 5 · duplicates 6\n\
             \x20 sent again 7 · repairs sent 7, restored 8 · lost 3\n\
             \x20 discarded stale 2, unknown_peer 1\n\
             \x20 streams 2 · sent 5 B · received 6 B · as packets 6\n"
        );
    }

    #[test]
    fn streams_are_one_line_and_none_while_there_was_none() {
        let figures = Streams {
            open: 4_096,
            opened: 99_999,
            tx_bytes: 999_900_000_000,
            rx_bytes: 999_900_000_000,
            as_packets: AsPackets { port: 99_999, ..AsPackets::default() },
            ..Streams::default()
        };
        let text = streams(&figures);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(streams(&Streams::default()), "");
    }

    #[test]
    fn what_is_captured_stands_below_the_heading() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        let lan = Routing {
            capture: "lan".to_owned(),
            what: "what comes from 192.168.1.0/24".to_owned(),
            active: true,
            fallback: false,
            rules: [20_000, 20_003],
            table: 20_000,
        };
        assert_eq!(
            routing(&lan),
            "  takes what comes from 192.168.1.0/24 · never beside the bond\n\
             \x20 ip rules 20000 to 20003, table 20000\n"
        );
        status.routing = Some(Routing { fallback: true, active: false, ..lan });
        let text = render(&status, at(75), Style::PLAIN);
        assert!(
            text.contains("MTU 1461\n  takes what comes from 192.168.1.0/24 · directly now, as"),
            "{text}"
        );
    }

    #[test]
    fn why_a_link_is_down_stands_below_the_links() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert_eq!(troubles(&status.links), "");
        status.links[0].trouble =
            Some("nothing comes back, but over other links: something on the way drops it".to_owned());
        let text = render(&status, at(0), Style::PLAIN);
        assert!(
            text.contains(
                "  adsl is down: nothing comes back, but over other links: something on the way\n  drops it\n\n  flows"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_cap_and_what_is_used_of_it_stand_below_the_links() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert_eq!(caps(&status.links), "");
        status.links[0].cap_bytes = Some(100_000_000_000);
        status.links[0].cap_used_bytes = Some(80_150_000_000);
        let text = render(&status, at(0), Style::PLAIN);
        assert!(
            text.contains("10.200.0.1:54321\n\n  adsl has used 80.1 GB of 100.0 GB this month\n\n  flows"),
            "{text}"
        );
    }

    #[test]
    fn what_was_set_by_hand_stands_below_the_links() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert_eq!(by_hand(&status.links), "");
        status.links[0].by_hand = true;
        let text = render(&status, at(0), Style::PLAIN);
        assert!(
            text.contains("\n\n  adsl by hand: primary, priority 1, until a reload\n\n  flows"),
            "{text}"
        );
    }

    #[test]
    fn a_sealed_session_says_with_what() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        status.session.cipher = "aes-256-gcm".to_owned();
        for (hybrid, keys) in [(false, "x25519"), (true, "x25519+ml-kem-768")] {
            status.session.hybrid = hybrid;
            let text = render(&status, at(0), Style::PLAIN);
            let line = format!("client · up for 0 s with 10.200.0.1 · aes-256-gcm · {keys}\ntun-bond");
            assert!(text.starts_with(&line), "{text}");
        }
        let without_clients = render(&snapshot(Role::Server, Vec::new()).status(), at(0), Style::PLAIN);
        assert!(without_clients.contains("bondctl invite NAME"), "{without_clients}");
    }

    #[test]
    fn a_server_groups_links_by_client() {
        let status = snapshot(Role::Server, vec![session("home", false), session("van", true)]).status();
        let text = render(&status, at(0), Style::PLAIN);
        assert!(text.starts_with("server · 1 of 2 clients up · tun-bond"), "{text}");
        let home = text.find("\nhome · connecting\n").unwrap();
        let van = text.find("\nvan · up for 0 s with 10.200.0.1\n").unwrap();
        assert!(home < van, "{text}");
    }

    /// Long names, long addresses, large figures: every line fits, and nothing but a name's middle
    /// is lost.
    #[test]
    fn every_line_fits_a_terminal_of_80_columns() {
        let peer = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535";
        let name = "starlink-on-the-roof-of-the-barn";
        for role in [Role::Client, Role::Server] {
            let mut snapshot = snapshot(role, vec![session(name, true), session("van", true)]);
            for one in &mut snapshot.sessions {
                one.links[0].name = name.to_owned();
                let figures = &mut one.stats.links[0];
                figures.rtt = Some(Duration::from_micros(999_900));
                figures.tx_rate = bonding_proto::units::BitRate::from_bps(9_999_900_000);
                figures.rx_rate = figures.tx_rate;
                figures.capacity = Some(figures.tx_rate);
                figures.loss_permille = 1_000;
                figures.tx_bytes = 999_900_000_000;
                figures.path.as_mut().unwrap().remote = peer.parse().unwrap();
            }
            let mut status = snapshot.status();
            status.tunnel.address.push("fd99:1111:2222:3333:4444:5555:6666:7777/64".to_owned());
            status.links[0].cap_bytes = Some(999_900_000_000);
            status.links[0].cap_used_bytes = Some(999_900_000_000);
            let text = render(&status, at(75), Style::PLAIN);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}\n{text}");
            }
            for whole in
                [name, peer, "starlink…he-barn", "9999.9", "fd99:1111:2222:3333:4444:5555:6666:7777/64"]
            {
                assert!(text.contains(whole), "{whole} is missing in\n{text}");
            }
            let coloured = render(&status, at(75), Style::COLOURED);
            assert_eq!(coloured.lines().count(), text.lines().count());
        }
    }

    #[test]
    fn spans_and_amounts_are_rough() {
        assert_eq!(rough(59), "59 s");
        assert_eq!(rough(3_725), "1 h 2 min");
        assert_eq!(rough(90_000), "1 d 1 h");
        assert_eq!(
            (bytes(999), bytes(1_960), bytes(45_000_000)),
            ("999 B".into(), "1.9 kB".into(), "45.0 MB".into())
        );
    }
}
