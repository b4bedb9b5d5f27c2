//! The picture: lines of text for a terminal of 80 columns and more.

use bonding::cli::layout::narrow;
use bonding::events::Kind;
use bonding::status::{Client, Link, PeerSending, Role, Status};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::model::{Model, SAMPLES_MAX};

/// The widest that a name is shown.
const NAME_COLUMNS: usize = 10;
/// Columns of a row of links without the two sparklines.
const ROW_COLUMNS: usize = 65;
/// The heights of a sparkline's cells.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let Some(status) = &model.status else {
        let is_said = !model.message.is_empty();
        let said = is_said.then_some(model.message.as_str()).or(model.ended.as_deref());
        let text = said.unwrap_or("waiting for the first figures");
        frame.render_widget(Paragraph::new(text), frame.area());
        return;
    };
    let rows = if model.is_of_clients() { status.clients.len() } else { status.links.len() + 1 };
    let rows = u16::try_from(rows + 1).unwrap_or(u16::MAX);
    let [head, sentence, table, details, counts, events, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Max(rows),
        Constraint::Length(4),
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let columns = usize::from(frame.area().width);
    frame.render_widget(heading(status, model), head);
    let text = sentence_of(status, model);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), sentence);
    let room = usize::from(table.height);
    let lines =
        if model.is_of_clients() { clients(status, model, room) } else { links(model, columns, room) };
    frame.render_widget(Paragraph::new(lines), table);
    frame.render_widget(Paragraph::new(details_of(status, model)).wrap(Wrap { trim: false }), details);
    frame.render_widget(Paragraph::new(counts_of(status, model)), counts);
    frame.render_widget(Paragraph::new(events_of(model, usize::from(events.height))), events);
    frame.render_widget(keys_of(model), keys);
}

fn paint(model: &Model, colour: Color) -> Style {
    if model.colours { Style::new().fg(colour) } else { Style::new() }
}

fn state_style(model: &Model, state: &str) -> Style {
    let colour = match state {
        "OK" | "up" => Color::Green,
        "SATURATED" => Color::Cyan,
        "DOWN" | "refused" | "connecting" => Color::Red,
        _ => Color::Yellow,
    };
    paint(model, colour)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn heading<'a>(status: &'a Status, model: &'a Model) -> Line<'a> {
    let role = match status.role {
        Role::Client => "client",
        Role::Server => "server",
    };
    let state = status.session.state.as_str();
    if let Some(why) = &model.ended {
        return Line::from(vec![
            Span::styled(role, bold()),
            Span::styled(format!(": {why}"), paint(model, Color::Red)),
        ]);
    }
    let mut spans =
        vec![Span::styled(role, bold()), Span::raw(" "), Span::styled(state, state_style(model, state))];
    spans.extend(status.session.peer.iter().map(|peer| Span::raw(format!(" with {peer}"))));
    spans.push(Span::raw(format!(" · {} · {}", status.tunnel.interface, status.policy)));
    if model.paused {
        spans.push(Span::styled(" · PAUSED", bold()));
    }
    Line::from(spans)
}

/// Whether it bonds, or what a server's clients do together.
fn sentence_of(status: &Status, model: &Model) -> String {
    if status.role == Role::Client {
        return status.summary.clone();
    }
    let up = status.clients.iter().filter(|client| client.session.state == "up").count();
    let [down, from] = sums(&model.links());
    format!("{up} of {} clients up; {down:.1} Mbit/s down, {from:.1} up", status.clients.len())
}

/// Sent and received, together.
fn sums(links: &[&Link]) -> [f64; 2] {
    // The sum of no numbers is -0.
    let sum = |of: fn(&Link) -> f64| links.iter().map(|link| of(link)).fold(0.0, |sum, rate| sum + rate);
    [sum(|link| link.tx_mbps), sum(|link| link.rx_mbps)]
}

/// The rows from the first to be shown on, so that the selected one is among them.
fn first_row(model: &Model, room: usize) -> usize {
    (model.selected + 2).saturating_sub(room)
}

fn clients<'a>(status: &'a Status, model: &Model, room: usize) -> Vec<Line<'a>> {
    let mut lines = vec![Line::styled(
        format!("  {:<16} {:<10} {:>8} {:>8}  LINKS", "CLIENT", "STATE", "DOWN", "UP"),
        bold(),
    )];
    let row = |(at, client): (usize, &'a Client)| {
        let own: Vec<&Link> =
            status.links.iter().filter(|link| link.client.as_deref() == Some(&client.name)).collect();
        let [down, up] = sums(&own);
        let marker = if at == model.selected { '>' } else { ' ' };
        let good = own.iter().filter(|link| !matches!(link.state.as_str(), "DOWN" | "SUSPECT")).count();
        Line::from(vec![
            Span::raw(format!("{marker} {:<16} ", narrow(&client.name, 16))),
            Span::styled(format!("{:<10}", client.session.state), state_style(model, &client.session.state)),
            Span::raw(format!(" {down:>8.1} {up:>8.1}  {good} of {}", own.len())),
        ])
    };
    lines.extend(status.clients.iter().enumerate().skip(first_row(model, room)).map(row));
    lines
}

fn links<'a>(model: &'a Model, columns: usize, room: usize) -> Vec<Line<'a>> {
    let spark = (columns.saturating_sub(ROW_COLUMNS) / 2).clamp(4, SAMPLES_MAX);
    let is_client = model.status.as_ref().is_some_and(|status| status.role == Role::Client);
    let [tx, rx] = if is_client { ["UP", "DOWN"] } else { ["DOWN", "UP"] };
    let heading = format!(
        "  {:<NAME_COLUMNS$} {:<9} {:>9} {:>4} {:>5} {:>9} {:<spark$} {:>9} {:<spark$}",
        "LINK", "STATE", "RTT/LEAST", "JIT", "LOSS", tx, "", rx, ""
    );
    let all = model.links();
    let mut lines = vec![Line::styled(heading, bold())];
    let first = first_row(model, room.saturating_sub(1));
    let last = room.saturating_sub(2).max(1);
    for (at, link) in all.iter().enumerate().skip(first).take(last) {
        lines.push(row(model, link, at == model.selected, spark));
    }
    let [tx, rx] = sums(&all);
    lines.push(Line::styled(
        format!(
            "  {:<NAME_COLUMNS$} {:<9} {:>9} {:>4} {:>5} {tx:>9.1} {:<spark$} {rx:>9.1} {}",
            "together",
            "",
            "",
            "",
            "",
            "",
            best(&all, is_client)
        ),
        bold(),
    ));
    lines
}

/// The sum against the best link.
fn best(links: &[&Link], is_client: bool) -> String {
    if !is_client {
        // The links of several clients are no bond.
        return String::new();
    }
    let [sent, received] = sums(links);
    let is_sending = sent >= received;
    let capacity = |link: &&Link| {
        let of = if is_sending { link.capacity_mbps } else { link.peer.as_ref()?.capacity_mbps };
        of.filter(|_| link.state != "DOWN")
    };
    let best = links.iter().filter_map(capacity).fold(0.0, f64::max);
    let rate = sent.max(received);
    if best > 0.0 { format!("{:.1}×best", rate / best) } else { String::new() }
}

fn row<'a>(model: &Model, link: &'a Link, is_selected: bool, spark: usize) -> Line<'a> {
    let marker = if is_selected { '>' } else { ' ' };
    let name = match &link.client {
        Some(client) => narrow(&format!("{client}/{}", link.name), NAME_COLUMNS),
        None => narrow(&link.name, NAME_COLUMNS),
    };
    let round = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"));
    let rtt = format!("{}/{}", round(link.rtt_ms), round(link.rtt_min_ms));
    let loss = link.loss_permille.max(link.peer.as_ref().map_or(0, |peer| peer.loss_permille));
    let peer_capacity = link.peer.as_ref().and_then(|peer| peer.capacity_mbps);
    let of = |rate: f64, capacity: Option<f64>| {
        let rate = if rate < 99.95 { format!("{rate:.1}") } else { format!("{rate:.0}") };
        match capacity {
            Some(capacity) => format!("{rate}/{capacity:.0}"),
            None => rate,
        }
    };
    let bars = |which: usize, capacity| {
        let samples = model.samples(link).and_then(|samples| samples.get(which));
        sparkline(samples.into_iter().flatten().copied(), capacity, spark)
    };
    Line::from(vec![
        Span::raw(format!("{marker} {name:<NAME_COLUMNS$} ")),
        Span::styled(format!("{:<9}", link.state), state_style(model, &link.state)),
        Span::raw(format!(" {rtt:>9} {:>4.0} {:>4.1}%", link.control.noise_ms, f64::from(loss) / 10.0)),
        Span::raw(format!(" {:>9} ", of(link.tx_mbps, link.capacity_mbps))),
        Span::styled(bars(0, link.capacity_mbps), paint(model, Color::Blue)),
        Span::raw(format!(" {:>9} ", of(link.rx_mbps, peer_capacity))),
        Span::styled(bars(1, peer_capacity), paint(model, Color::Green)),
    ])
}

/// The newest rates as bars, of what the link carries, or of the highest.
pub(super) fn sparkline(
    samples: impl DoubleEndedIterator<Item = f64> + Clone,
    capacity: Option<f64>,
    columns: usize,
) -> String {
    let most = samples.clone().fold(capacity.unwrap_or(0.0), f64::max).max(0.1);
    let bar = |rate: f64| {
        let height =
            BARS.iter().zip(1..).take_while(|(_, part)| rate * 8.0 >= most * f64::from(*part)).count();
        // What is nearly nothing has no bar.
        if rate < most * 0.02 { ' ' } else { BARS.get(height.saturating_sub(1)).copied().unwrap_or(' ') }
    };
    let bars: Vec<char> = samples.rev().take(columns).map(bar).collect();
    let padding = columns - bars.len();
    std::iter::repeat_n(' ', padding).chain(bars.into_iter().rev()).collect()
}

/// The selected link or client, in full.
fn details_of<'a>(status: &'a Status, model: &Model) -> Vec<Line<'a>> {
    if model.is_of_clients() {
        let client = status.clients.get(model.selected);
        return client.map(|one| Line::from(format!("{}: {}", one.name, one.summary))).into_iter().collect();
    }
    let links = model.links();
    let Some(link) = links.get(model.selected) else { return Vec::new() };
    let control = &link.control;
    let cause = control.cause.as_ref().map_or_else(String::new, |cause| format!(" ({cause})"));
    let mut lines = vec![Line::styled(
        format!(
            "{}: {}{}, priority {}, score {}, MTU {}, {}",
            link.name,
            link.role,
            if link.by_hand { " by hand" } else { "" },
            link.priority,
            link.score,
            link.mtu.map_or_else(|| "–".to_owned(), |mtu| mtu.to_string()),
            link.remote.as_deref().unwrap_or("no address"),
        ),
        bold(),
    )];
    lines.push(Line::from(format!(
        "  sends: {}{cause}, queue {:.1} ms, {:.1} % lost, {} bytes",
        control.phase,
        control.queue_ms,
        f64::from(link.loss_permille) / 10.0,
        link.tx_bytes
    )));
    let told = |peer: &PeerSending| {
        let loss = f64::from(peer.loss_permille) / 10.0;
        format!("{}, queue {:.1} ms, {loss:.1} % lost, ", peer.phase, peer.queue_ms)
    };
    let told = link.peer.as_ref().map(told).unwrap_or_default();
    lines.push(Line::from(format!("  receives: {told}{} bytes", link.rx_bytes)));
    lines.extend(link.trouble.as_ref().map(|trouble| Line::from(format!("  down: {trouble}"))));
    lines
}

/// What concerns the whole.
fn counts_of<'a>(status: &Status, model: &Model) -> Vec<Line<'a>> {
    let (flows, streams, recovery) = (status.flows, status.streams, status.recovery);
    vec![
        Line::from(format!(
            "flows {}, {} realtime · streams {}, {} as packets · held {} · late {}",
            flows.active,
            flows.realtime,
            streams.open,
            streams.as_packets.sum(),
            status.reorder.held,
            status.reorder.released_late
        )),
        Line::from(format!(
            "sent again {}, for failed links {} · repairs {}, restored {} · lost {}",
            recovery.resent, recovery.reinjected, recovery.fec_sent, recovery.fec_recovered, recovery.lost
        )),
        Line::from(Span::styled("events", if model.colours { bold() } else { Style::new() })),
    ]
}

/// The newest events that there is room for, the newest last.
fn events_of(model: &Model, room: usize) -> Vec<Line<'_>> {
    let skip = model.events.len().saturating_sub(room);
    let line = |record: &bonding::events::Record| {
        let time = record.time.get(11..19).unwrap_or_default();
        let client = record.client.as_ref().map(|client| format!("{client}: ")).unwrap_or_default();
        let is_bad = matches!(record.kind, Kind::LinkDown | Kind::SessionDown | Kind::Refused);
        let is_doubtful = matches!(
            record.kind,
            Kind::LinkSuspect | Kind::CapacityHalved | Kind::CapWarning | Kind::CapUsedUp
        );
        let style = match (is_bad, is_doubtful) {
            (true, _) => paint(model, Color::Red),
            (false, true) => paint(model, Color::Yellow),
            (false, false) => Style::new(),
        };
        Line::from(vec![Span::raw(format!("{time} {client}")), Span::styled(record.text.clone(), style)])
    };
    model.events.iter().skip(skip).map(line).collect()
}

fn keys_of(model: &Model) -> Line<'_> {
    if !model.message.is_empty() {
        return Line::styled(model.message.as_str(), bold());
    }
    let is_server = model.status.as_ref().is_some_and(|status| status.role == Role::Server);
    let own = if is_server { "c clients/links" } else { "d demote  e enable" };
    Line::from(format!("q quit  ↑↓ choose  s sort ({})  p pause  {own}", model.sort.word()))
}
