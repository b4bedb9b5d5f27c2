//! `bondctl flows`: what crosses the bond, as JSON or as a table.

use std::io::Write;

use anyhow::Context as _;

use super::layout::narrow;
use super::style::Style;
use super::table::{Align, Cell, Table};
use super::view::bytes;
use crate::control::{Ask, Request};
use crate::flows::{Flow, Flows, LIMIT_DEFAULT, Share, Sort};

/// The widest that the links of a flow may be: they stand in a line of their own then.
const LINKS_COLUMNS: usize = 70;

/// Options of `bondctl flows`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FlowsArguments {
    /// One line of JSON
    #[arg(long)]
    json: bool,
    /// Show at most N flows, up to 1000
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT)]
    limit: usize,
    /// Show those with the most of this: rate of the last second or two, bytes so far, or wait on
    /// this side
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
}

impl FlowsArguments {
    /// Whether JSON is wanted.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// What is asked.
    pub(super) const fn request(&self) -> Request {
        Request::Flows { limit: self.limit, sort: self.sort }
    }
}

/// Writes the flows of one side to `out`. Their JSON is handed on as it comes.
pub(super) fn flows(
    ask: &mut Ask,
    arguments: FlowsArguments,
    style: Style,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if arguments.is_json() {
        ask.copy(&arguments.request(), out)?;
    } else {
        let answer = ask.ask(&arguments.request())?;
        let flows: Flows = serde_json::from_str(&answer)
            .context("the running program is of another version than this bondctl")?;
        out.write_all(render(&flows, style).as_bytes()).context("standard output")?;
    }
    out.flush().context("standard output")
}

fn render(flows: &Flows, style: Style) -> String {
    if flows.flows.is_empty() {
        return "  no flow had packets in the last 10 s\n".to_owned();
    }
    let has_clients = flows.flows.iter().any(|flow| flow.client.is_some());
    let columns = [
        ("CLIENT", Align::Left),
        ("PROTO", Align::Left),
        ("SOURCE", Align::Left),
        ("DESTINATION", Align::Left),
        ("UP", Align::Right),
        ("DOWN", Align::Right),
        ("Mbit/s", Align::Left),
        ("CLASS", Align::Left),
        ("GOES AS", Align::Left),
        ("WAITS", Align::Right),
        ("SENT UP", Align::Right),
        ("SENT DOWN", Align::Right),
        ("LINKS", Align::Left),
    ];
    let left_out = usize::from(!has_clients);
    let mut table = Table::new(columns.get(left_out..).unwrap_or(&columns));
    for flow in &flows.flows {
        let dash = || "–".to_owned();
        let row: [String; 13] = [
            flow.client.clone().unwrap_or_default(),
            flow.protocol.clone(),
            flow.source.clone().unwrap_or_else(dash),
            flow.destination.clone(),
            format!("{:.1}", flow.up_mbps),
            format!("{:.1}", flow.down_mbps),
            String::new(),
            class(flow),
            goes_as(flow),
            format!("{:.1} ms", flow.queue_ms),
            bytes(flow.up_bytes),
            bytes(flow.down_bytes),
            links(flow),
        ];
        table.push(row.into_iter().skip(left_out).map(Cell::from).collect());
    }
    let mut text = table.render(style);
    let shown = u64::try_from(flows.flows.len()).unwrap_or(u64::MAX);
    if shown < flows.active {
        text.push_str(&format!("  {shown} of {} flows; --limit N shows others\n", flows.active));
    }
    text
}

fn class(flow: &Flow) -> String {
    match (&flow.class, &flow.class_by, &flow.tier) {
        (Some(class), Some(by), _) => format!("{class} ({by})"),
        (Some(class), None, _) => class.clone(),
        (None, _, Some(tier)) => tier.clone(),
        (None, _, None) => "–".to_owned(),
    }
}

fn goes_as(flow: &Flow) -> String {
    match (&flow.packets_by, flow.credit_blocked_ms) {
        (Some(by), _) => format!("packets: {by}"),
        (None, Some(blocked)) if blocked >= 1.0 => format!("split, {:.1} s without credit", blocked / 1e3),
        (None, _) => "split".to_owned(),
    }
}

/// Of both directions, weighted by their rates.
fn links(flow: &Flow) -> String {
    let rate = flow.up_mbps + flow.down_mbps;
    let share = |up: f64, down: f64| {
        // A rate too small to be shown: all directions count alike.
        if rate > 0.0 { (up * flow.up_mbps + down * flow.down_mbps) / rate } else { up.max(down) }
    };
    let of = |link: &Share| format!("{} {:.0} %", link.name, share(link.up, link.down) * 100.0);
    let words: Vec<String> = flow.links.iter().map(of).collect();
    if words.is_empty() { "–".to_owned() } else { narrow(&words.join(" · "), LINKS_COLUMNS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download() -> Flow {
        let share = |name: &str, up, down| Share { name: name.to_owned(), up, down };
        Flow {
            client: None,
            protocol: "tcp".to_owned(),
            source: Some("192.168.1.7:40000".to_owned()),
            destination: "203.0.113.9:443".to_owned(),
            class: None,
            class_by: None,
            tier: Some("bulk".to_owned()),
            split: true,
            packets_by: None,
            up_mbps: 10.0,
            down_mbps: 90.0,
            up_bytes: 1_200,
            down_bytes: 45_600_000,
            queue_ms: 12.34,
            queue_bytes: 9_000,
            credit_blocked_ms: Some(2_500.0),
            idle_ms: 0.0,
            links: vec![share("adsl", 1.0, 0.1), share("sat1", 0.0, 0.9)],
        }
    }

    #[test]
    fn a_flow_is_a_row_with_what_it_is_why_and_where() {
        let call = Flow {
            client: Some("home".to_owned()),
            protocol: "udp".to_owned(),
            source: None,
            class: Some("realtime".to_owned()),
            class_by: Some("traffic".to_owned()),
            split: false,
            packets_by: Some("UDP".to_owned()),
            links: Vec::new(),
            credit_blocked_ms: None,
            ..download()
        };
        let flows = Flows { flows: vec![download(), call], active: 812 };
        assert_eq!(
            render(&flows, Style::PLAIN),
            "  CLIENT  PROTO  SOURCE             DESTINATION        UP  DOWN  Mbit/s\n\
             \x20     CLASS               GOES AS                        WAITS  SENT UP\n\
             \x20     SENT DOWN  LINKS\n\
             \x20         tcp    192.168.1.7:40000  203.0.113.9:443  10.0  90.0\n\
             \x20     bulk                split, 2.5 s without credit  12.3 ms   1.2 kB\n\
             \x20       45.6 MB  adsl 19 % · sat1 81 %\n\
             \x20 home    udp    –                  203.0.113.9:443  10.0  90.0\n\
             \x20     realtime (traffic)  packets: UDP                 12.3 ms   1.2 kB\n\
             \x20       45.6 MB  –\n\
             \x20 2 of 812 flows; --limit N shows others\n"
        );
    }

    #[test]
    fn no_flow_is_said() {
        assert_eq!(render(&Flows::default(), Style::PLAIN), "  no flow had packets in the last 10 s\n");
    }

    #[test]
    fn every_line_fits_a_terminal_of_80_columns() {
        let long = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535";
        let mut flow = download();
        (flow.source, flow.destination) = (Some(long.to_owned()), long.to_owned());
        flow.client = Some("n".repeat(32));
        let link = |at: u8| Share { name: format!("starlink-on-the-roof-{at}"), up: 0.125, down: 0.125 };
        flow.links = (0..8).map(link).collect();
        (flow.up_mbps, flow.down_bytes) = (9_999.9, 999_900_000_000);
        let text = render(&Flows { flows: vec![flow], active: 1 }, Style::PLAIN);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
    }
}
