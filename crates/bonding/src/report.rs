//! The two periodic reports in the log: a line for each link, in a shape that scripts may read.
//!
//! The shapes are part of the user's contract; the tests below assert them literally. The printed
//! score is the formula without its saturation term: it says how good a link is, and the state says
//! whether it is full.

use std::fmt::Write as _;
use std::time::Duration;

use bonding_proto::limits::LOSSY_PERMILLE;
use bonding_proto::stats::LinkStats;
use bonding_proto::view::{LinkRole, LinkState};

use crate::status::LinkLabel;

/// The one word for a link's condition, the most serious first: `DOWN`, `SUSPECT`, `LOSSY`,
/// `SATURATED`, `BACKUP`, `OK`.
pub fn state_word(link: &LinkStats) -> &'static str {
    match link.state {
        LinkState::Down => "DOWN",
        LinkState::Suspect => "SUSPECT",
        LinkState::Up if link.loss_permille >= LOSSY_PERMILLE => "LOSSY",
        LinkState::Up if link.saturated => "SATURATED",
        LinkState::Up if link.role == LinkRole::Backup => "BACKUP",
        LinkState::Up => "OK",
    }
}

/// A client's report: each link by its local address, else its name, and at the end by its name.
pub fn link_metrics<'a>(links: impl Iterator<Item = (&'a LinkLabel, &'a LinkStats)>) -> String {
    let mut text = String::from("=== Link Metrics ===");
    for (label, link) in links {
        let rtt = link.rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{:.1}ms", millis(rtt)));
        let bandwidth = match link.capacity {
            Some(capacity) => format!(
                "{:.1}/{:.1} Mbps ({}%)",
                link.tx_rate.as_mbps(),
                capacity.as_mbps(),
                (u32::from(link.utilisation_permille) + 5) / 10
            ),
            None => format!("{:.1} Mbps", link.tx_rate.as_mbps()),
        };
        let (id, score, state) = (link.id.index(), link.score, state_word(link));
        append(
            &mut text,
            format_args!(
                "\n  Link{id} ({}) - RTT: {rtt}, BW: {bandwidth}, Score: {score}, {state}, Link: {}",
                label.in_report(),
                label.name
            ),
        );
    }
    text
}

/// A server's report of one client: each link by its remote, else its name, and at the end by its
/// name.
pub fn link_statistics<'a>(
    client: &str,
    links: impl Iterator<Item = (&'a LinkLabel, &'a LinkStats)>,
) -> String {
    let mut text = String::from("=== Link Statistics ===");
    for (label, link) in links {
        let remote = link.path.map_or_else(|| label.name.clone(), |path| path.remote.to_string());
        let rtt = link.rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{:.0}ms", millis(rtt)));
        append(
            &mut text,
            format_args!(
                "\n  {remote} - Packets: {}, Bytes: {}, Last seq: {}, RTT: {rtt}, Client: {client}, Link: {}",
                link.rx_packets, link.rx_bytes, link.last_seq, label.name
            ),
        );
    }
    text
}

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use bonding_proto::stats::ControlStats;
    use bonding_proto::units::BitRate;
    use bonding_proto::{LinkId, Path, SocketId};

    use super::*;

    pub(crate) fn link(id: u8, rtt_ms: f64, tx_mbps: f64, capacity_mbps: f64, score: u32) -> LinkStats {
        let rate = |mbps: f64| BitRate::from_bps(format!("{:.0}", mbps * 1e6).parse().unwrap());
        LinkStats {
            is_retired: false,
            id: LinkId(id),
            state: LinkState::Up,
            path: Some(Path {
                socket: SocketId(id),
                remote: "10.200.0.1:54321".parse().unwrap(),
                local: None,
            }),
            priority: 1,
            role: LinkRole::Primary,
            score,
            saturated: tx_mbps / capacity_mbps > 0.8,
            rtt: Some(Duration::from_secs_f64(rtt_ms / 1e3)),
            rtt_min: Some(Duration::from_secs_f64(rtt_ms / 2e3)),
            loss_permille: 0,
            tx_rate: rate(tx_mbps),
            rx_rate: rate(tx_mbps / 2.0),
            capacity: Some(rate(capacity_mbps)),
            utilisation_permille: format!("{:.0}", tx_mbps / capacity_mbps * 1e3).parse().unwrap(),
            tx_packets: 1,
            tx_bytes: 2,
            tx_marked: 0,
            rx_packets: 15_234,
            rx_bytes: 18_432_156,
            last_seq: 15_234,
            mtu: Some(1_492),
            flows: 1,
            control: ControlStats::default(),
            peer: None,
        }
    }

    fn label(name: &str, local: Option<&str>) -> LinkLabel {
        LinkLabel {
            name: name.to_owned(),
            local: local.map(|local| local.parse().unwrap()),
            ..LinkLabel::default()
        }
    }

    #[test]
    fn the_client_report_has_the_documented_lines() {
        let links = [link(0, 22.5, 8.2, 10.0, 1_225), link(1, 78.3, 45.1, 70.0, 2_783)];
        let labels = [label("adsl", Some("10.200.0.1")), label("sat1", Some("10.200.1.1"))];
        assert_eq!(
            link_metrics(labels.iter().zip(&links)),
            "=== Link Metrics ===\n\
             \x20 Link0 (10.200.0.1) - RTT: 22.5ms, BW: 8.2/10.0 Mbps (82%), Score: 1225, SATURATED, Link: adsl\n\
             \x20 Link1 (10.200.1.1) - RTT: 78.3ms, BW: 45.1/70.0 Mbps (64%), Score: 2783, OK, Link: sat1"
        );
    }

    #[test]
    fn the_server_report_has_the_documented_lines() {
        let links = [link(0, 22.0, 8.2, 10.0, 1_225)];
        assert_eq!(
            link_statistics("home", [label("adsl", None)].iter().zip(&links)),
            "=== Link Statistics ===\n\
             \x20 10.200.0.1:54321 - Packets: 15234, Bytes: 18432156, Last seq: 15234, RTT: 22ms, Client: home, Link: adsl"
        );
    }

    #[test]
    fn what_is_unknown_is_a_dash_or_left_out() {
        let mut unknown = link(3, 0.0, 0.0, 1.0, 1_000);
        (unknown.rtt, unknown.capacity, unknown.path, unknown.state) = (None, None, None, LinkState::Down);
        assert!(
            link_metrics([(&label("wg3", None), &unknown)].into_iter())
                .ends_with("\n  Link3 (wg3) - RTT: -, BW: 0.0 Mbps, Score: 1000, DOWN, Link: wg3")
        );
        assert!(link_statistics("van", [(&label("lte", None), &unknown)].into_iter()).ends_with(
            "\n  lte - Packets: 15234, Bytes: 18432156, Last seq: 15234, RTT: -, Client: van, Link: lte"
        ));
    }

    #[test]
    fn the_state_word_is_the_most_serious_condition() {
        let mut one = link(0, 20.0, 9.0, 10.0, 1_000);
        assert_eq!(state_word(&one), "SATURATED");
        one.loss_permille = 20;
        assert_eq!(state_word(&one), "LOSSY");
        one.state = LinkState::Suspect;
        assert_eq!(state_word(&one), "SUSPECT");
        one.state = LinkState::Down;
        assert_eq!(state_word(&one), "DOWN");
        (one.state, one.loss_permille, one.saturated) = (LinkState::Up, 19, false);
        assert_eq!(state_word(&one), "OK");
        one.role = LinkRole::Backup;
        assert_eq!(state_word(&one), "BACKUP");
        one.saturated = true;
        assert_eq!(state_word(&one), "SATURATED");
    }
}
