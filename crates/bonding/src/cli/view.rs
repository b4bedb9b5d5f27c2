//! A status as people read it.

use std::time::SystemTime;

use super::style::{Colour, Style};
use super::table::{Align, Cell, Table};
use crate::status::{Link, Role, Session, Status};

/// The status as a heading and a table of links.
pub fn render(status: &Status, now: SystemTime, style: Style) -> String {
    let mut text = heading(status, now, style);
    text.push('\n');
    match status.role {
        Role::Client => text.push_str(&links(status.links.iter(), style)),
        Role::Server => {
            for client in &status.clients {
                let line = format!(
                    "{} · {}",
                    style.paint(Colour::Bold, &client.name),
                    session(&client.session, now, style)
                );
                text.push_str(&format!("{line}\n"));
                let theirs = status.links.iter().filter(|link| link.client.as_ref() == Some(&client.name));
                text.push_str(&links(theirs, style));
            }
            if status.clients.is_empty() {
                text.push_str("  no client yet: `bondctl invite NAME` invites one\n");
            }
        }
    }
    text.push_str(&caps(&status.links));
    let discarded: Vec<String> = status
        .discards
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(why, n)| format!("{why} {n}"))
        .collect();
    let (reorder, recovery) = (status.reorder, status.recovery);
    text.push_str(&format!(
        "\n  flows {}, {} realtime · reordering holds {} · released late {} · duplicates {} · sent again {} · repairs sent {}, \
         restored {} · lost {} · discarded {}\n",
        status.flows.active,
        status.flows.realtime,
        reorder.held,
        reorder.released_late,
        reorder.duplicates,
        recovery.resent,
        recovery.fec_sent,
        recovery.fec_recovered,
        recovery.lost,
        if discarded.is_empty() { "nothing".to_owned() } else { discarded.join(", ") }
    ));
    text
}

/// What of the links' data caps is used.
fn caps(links: &[Link]) -> String {
    let of = |link: &Link| {
        let (used, cap) = link.cap_used_bytes.zip(link.cap_bytes)?;
        Some(format!("\n  {} has used {} of {} this month", link.name, bytes(used), bytes(cap)))
    };
    let lines: String = links.iter().filter_map(of).collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

fn heading(status: &Status, now: SystemTime, style: Style) -> String {
    let tunnel = &status.tunnel;
    let device = format!("{} {} MTU {}", tunnel.interface, tunnel.address.join(" "), tunnel.mtu);
    match status.role {
        Role::Client => {
            let session = session(&status.session, now, style);
            format!("{} · {session} · {device}\n", style.paint(Colour::Bold, "client"))
        }
        Role::Server => {
            let up = status.clients.iter().filter(|client| client.session.state == "up").count();
            let title = style.paint(Colour::Bold, "server");
            format!("{title} · {up} of {} clients up · {device}\n", status.clients.len())
        }
    }
}

fn session(session: &Session, now: SystemTime, style: Style) -> String {
    if session.state != "up" {
        return style.paint(Colour::Red, &session.state);
    }
    let mut text = style.paint(Colour::Green, "up");
    let since = session.since.as_deref().and_then(|since| humantime::parse_rfc3339(since).ok());
    if let Some(span) = since.and_then(|since| now.duration_since(since).ok()) {
        text.push_str(&format!(" for {}", rough(span.as_secs())));
    }
    if let Some(peer) = &session.peer {
        text.push_str(&format!(" with {peer}"));
    }
    if session.cipher != "none" {
        text.push_str(&format!(" · {}", session.cipher));
    }
    text
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

fn links<'a>(links: impl Iterator<Item = &'a Link>, style: Style) -> String {
    let mut table = Table::new(&[
        ("LINK", Align::Left),
        ("STATE", Align::Left),
        ("RTT", Align::Right),
        ("LOSS", Align::Right),
        ("MTU", Align::Right),
        ("SENDS", Align::Right),
        ("OF", Align::Right),
        ("RECEIVES", Align::Right),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("PEER", Align::Left),
    ]);
    for link in links {
        table.push(vec![
            link.name.as_str().into(),
            Cell::coloured(link.state.as_str(), state_colour(&link.state)),
            link.rtt_ms.map_or_else(|| "–".to_owned(), |rtt| format!("{rtt:.1} ms")).into(),
            format!("{:.1} %", f64::from(link.loss_permille) / 10.0).into(),
            link.mtu.map_or_else(|| "–".to_owned(), |mtu| mtu.to_string()).into(),
            format!("{:.1} Mbit/s", link.tx_mbps).into(),
            link.capacity_mbps.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1}")).into(),
            format!("{:.1} Mbit/s", link.rx_mbps).into(),
            bytes(link.tx_bytes).into(),
            bytes(link.rx_bytes).into(),
            link.remote.as_deref().unwrap_or("–").into(),
        ]);
    }
    table.render(style)
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
fn bytes(count: u64) -> String {
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
    use crate::status::tests::{session, snapshot};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_766_400 + seconds)
    }

    #[test]
    fn a_client_is_a_heading_and_its_links() {
        let status = snapshot(Role::Client, vec![session("vps", true)]).status();
        assert_eq!(
            render(&status, at(75), Style::PLAIN),
            "client · up for 1 min 15 s with 10.200.0.1 · tun-bond 192.168.50.1/24 MTU 1461\n\n\
             \x20 LINK  STATE          RTT   LOSS   MTU       SENDS    OF    RECEIVES  SENT  RECEIVED  PEER\n\
             \x20 adsl  SATURATED  22.5 ms  0.0 %  1492  8.2 Mbit/s  10.0  4.1 Mbit/s   2 B   18.4 MB  10.200.0.1:54321\n\n\
             \x20 flows 3, 2 realtime · reordering holds 4 · released late 5 · duplicates 6 · sent again 7 · repairs sent 7, \
             restored 8 · lost 3 · discarded stale 2, unknown_peer 1\n"
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
    fn a_sealed_session_says_with_what() {
        let mut status = snapshot(Role::Client, vec![session("vps", true)]).status();
        status.session.cipher = "aes-256-gcm".to_owned();
        let text = render(&status, at(0), Style::PLAIN);
        assert!(text.starts_with("client · up for 0 s with 10.200.0.1 · aes-256-gcm · tun-bond"), "{text}");
        let nobody = render(&snapshot(Role::Server, Vec::new()).status(), at(0), Style::PLAIN);
        assert!(nobody.contains("bondctl invite NAME"), "{nobody}");
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
