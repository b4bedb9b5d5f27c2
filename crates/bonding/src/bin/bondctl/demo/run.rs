//! The demonstration's course, step by step.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bonding::cli::layout::wrap;
use bonding::engine::overhead::Overhead;
use bonding_lab::addr::{INTERNET_V4, SERVER_V4};
use bonding_lab::tools::{Echo, EchoReport, EchoServer};
use bonding_lab::{Direction, Host, Lab, LabOptions, Scenario, Snapshot};
use bonding_os::signals::Signals;

use super::bond::{Bond, Files, Interrupted};
use super::closing::table;
use super::download::Download;
use super::figures::{FIRST, Latency, Measured, Outcome, Readings, STOP_WINDOW, mbps, payload_share};
use super::screen::{LinkView, Screen, View};

/// The steps that the picture counts.
const STEPS: usize = 5;
/// How long a download is measured, over a single link as over the bond. Chosen: more than three
/// times the seconds in which TCP looks for its rate.
const DOWNLOAD: Duration = Duration::from_secs(14);
/// A file of this size is fetched over a new connection, over a single link as over the bond.
/// Chosen: a large photograph, an update of an application.
const FILE_BYTES: u64 = 10_000_000;
/// A file that takes longer counts as not fetched.
const FILE_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks whether the file is there. Chosen: a hundredth of the time that it takes.
const FILE_POLL: Duration = Duration::from_millis(3);
/// The other steps. Chosen: the game's percentiles need some hundred packets, and all steps
/// together take less than a minute.
const IDLE: Duration = Duration::from_secs(4);
const CUT: Duration = Duration::from_secs(10);
const RESTORED: Duration = Duration::from_secs(8);
/// The end of the download's step, in which the game's packets are counted on each link. Chosen:
/// 50 packets there and back.
const COUNT: Duration = Duration::from_secs(1);
/// Between two pictures. Chosen: fluent for the eye.
const TICK: Duration = Duration::from_millis(200);
/// As a voice call's packets, or a game's.
const GAME_PER_SECOND: u32 = 50;
/// The bond's headers around the game's packets: the links are sealed, and IPv4.
const OVERHEAD: Overhead = Overhead { sealed: true, ipv6: false };
/// RFC 862: echo.
const GAME_PORT: u16 = 7;
/// IANA: http-alt.
const DOWNLOAD_PORT: u16 = 8_080;
const FILE_PORT: u16 = 8_081;
/// The folder goes with the sandbox.
const FOLDER: &str = "/run/bonding-demo";

/// As a shell reports death by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs it on `scenario`, inside a sandbox. Success: the bond did its work.
pub(crate) fn run(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let signals = Signals::install().context("cannot listen to signals")?;
    let links = scenario.links.len();
    if links < 2 {
        bail!("the scenario \"{}\" has one link: there is nothing to bond", scenario.name);
    }
    let starting = format!("Starting three hosts and {links} emulated links in namespaces of their own");
    eprint!("{}", wrap(&[starting, scenario.description.clone()], ": ", 0));
    let lab = Lab::start(scenario, LabOptions::default())?;
    let outcome = {
        let mut show = Show::new(scenario, signals);
        course(&lab, &mut show)
    };
    drop(lab);
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("\nInterrupted; everything it made is gone.");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        Err(error) => return Err(error),
    };
    let screen = Screen::new();
    let text = table(&outcome, screen.style());
    std::io::Write::write_all(&mut std::io::stdout(), format!("\n{text}\n").as_bytes())?;
    eprintln!("Done. Hosts, links and processes are gone; nothing was changed on this machine.");
    Ok(if outcome.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn course(lab: &Lab, show: &mut Show) -> anyhow::Result<Outcome> {
    let best_link = fastest(lab.scenario());
    let file_alone = file_alone(lab, show, &best_link)?;
    let alone = alone(lab, show, &best_link)?;
    let game_ms = alone.game.map(|game| game.median_ms);
    show.view.best = Some((best_link.clone(), alone.then_mbps, game_ms));

    show.begin(2, "Starting server and client, one on each host");
    show.tick(&mut Sources::none())?;
    let files = Files::write(Path::new(FOLDER), lab.scenario())?;
    let mut bond = Bond::start(lab, &files, &|| show.signals.terminating())?;
    let game = Game::start(lab, Host::Internet, IpAddr::V4(INTERNET_V4), None)?;
    show.begin(2, "The bond is up. Only the game runs over it, on the quickest link");
    let idle = show.play(IDLE, &mut Sources { bond: Some(&mut bond), game: Some(&game), download: None })?;
    let idle_game = Latency::of(&game.within(idle.from + Duration::from_secs(1), idle.to));

    show.begin(2, "A file of 10 MB over a new connection");
    let mut sources = Sources { bond: Some(&mut bond), game: Some(&game), download: None };
    let file = fetch(lab, show, (Host::Internet, IpAddr::V4(INTERNET_V4), None), &mut sources)?;
    let address = SocketAddr::new(IpAddr::V4(INTERNET_V4), DOWNLOAD_PORT);
    let download = Download::start(lab.host(Host::Internet), lab.host(Host::Client), address, None)?;
    show.restart_readings();
    let mut sources = Sources { bond: Some(&mut bond), game: Some(&game), download: Some(&download) };
    let (full, cut_index) = full(lab, show, &mut sources)?;
    let attainable_mbps = attainable_mbps(lab, full, &mut sources)?;
    let memory_bytes = sources.bond.as_ref().map_or([None, None], |bond| bond.memory_bytes());
    let measured = |show: &Show, span: Span| show.measured(span, &game);

    let cut_link = lab.scenario().links.get(cut_index).map_or_else(String::new, |link| link.name.clone());
    show.begin(4, format!("{cut_link}, which carries the game, is CUT: every packet on it is lost"));
    lab.cut(cut_index);
    show.cut = Some(cut_index);
    let cut = show.play(CUT, &mut sources)?;
    lab.restore(cut_index);
    show.cut = None;
    show.begin(5, format!("{cut_link} works again, and the bond takes it back by itself"));
    let restored = show.play(RESTORED, &mut sources)?;
    bond.check()?;

    Ok(Outcome {
        best_link,
        files: [file_alone, file],
        alone,
        idle_game,
        bond: measured(show, full),
        cut_link,
        // The game from the moment of the cut on, not after the first seconds.
        cut: Measured { game: Latency::of(&game.within(cut.from, cut.to)), ..measured(show, cut) },
        cut_slowest_mbps: show.slowest(cut.from, cut.to),
        restored: measured(show, restored),
        attainable_mbps,
        memory_bytes,
    })
}

/// The download over all links. At its end, also which link carries the game.
fn full(lab: &Lab, show: &mut Show, sources: &mut Sources<'_>) -> anyhow::Result<(Span, usize)> {
    show.begin(3, "One download over TCP fills the quickest link, then all others");
    let begin = show.play(DOWNLOAD - COUNT, sources)?;
    // The game's packets are the only ones of their size: alone in a datagram, sealed, over IPv4.
    lab.count_size(Echo::PACKET_BYTES + usize::from(OVERHEAD.bytes()));
    let before = lab.snapshot();
    let end = show.play(COUNT, sources)?;
    let carrier = game_carrier(&before, &lab.snapshot());
    let span = Span { from: begin.from, to: end.to };
    Ok((span, carrier.unwrap_or_else(|| nearest(lab.scenario()))))
}

/// The link that carried the most packets of the counted size between two moments; nothing if none
/// did.
fn game_carrier(before: &Snapshot, after: &Snapshot) -> Option<usize> {
    let count = |snapshot: &Snapshot, index: usize| -> u64 {
        snapshot.links.get(index).map_or(0, |pipes| pipes.iter().map(|pipe| pipe.sized_pkts).sum())
    };
    let carried = |index: usize| count(after, index).saturating_sub(count(before, index));
    (0..after.links.len()).filter(|index| carried(*index) > 0).max_by_key(|index| carried(*index))
}

/// The link with the shortest round trip; the first listed of equals.
fn nearest(scenario: &Scenario) -> usize {
    let links = scenario.links.iter().enumerate();
    links.min_by_key(|(_, link)| link.rtt()).map_or(0, |(index, _)| index)
}

/// The most that a download over the bond could have after the first seconds of `span`.
fn attainable_mbps(lab: &Lab, span: Span, sources: &mut Sources<'_>) -> anyhow::Result<Option<f64>> {
    let Some(bond) = &mut sources.bond else { return Ok(None) };
    let now = lab.elapsed();
    let at = |moment: Instant| now.saturating_sub(moment.elapsed());
    let rate = lab.capacity_bps(Direction::Down, at(span.from + FIRST), at(span.to));
    let share = payload_share(bond.status()?.tunnel.mtu, OVERHEAD.bytes());
    Ok(rate.map(|bps| bps as f64 / 1e6 * share))
}

/// The link with the highest rate down; of several, the first.
fn fastest(scenario: &Scenario) -> String {
    let mut best: Option<(u64, &str)> = None;
    for link in &scenario.links {
        let rate = link.down.rate.mean_bps().unwrap_or(u64::MAX);
        if best.is_none_or(|(other, _)| rate > other) {
            best = Some((rate, &link.name));
        }
    }
    best.map_or_else(String::new, |(_, name)| name.to_owned())
}

fn sum_mbps(scenario: &Scenario) -> Option<f64> {
    let rates: Option<Vec<u64>> = scenario.links.iter().map(|link| link.down.rate.mean_bps()).collect();
    rates.map(|rates| rates.iter().sum::<u64>() as f64 / 1e6)
}

/// The file over the fastest link, without the bond.
fn file_alone(lab: &Lab, show: &mut Show, name: &str) -> anyhow::Result<Option<Duration>> {
    show.begin(1, format!("To compare: a file of 10 MB over the fastest link, {name}, alone"));
    show.view.alone = Some(name.to_owned());
    fetch(lab, show, (Host::Server, IpAddr::V4(SERVER_V4), Some(name)), &mut Sources::none())
}

/// Fetches a file over a new connection from a host's address, over a device if one is given; gives
/// the time from the connect to the last byte.
fn fetch(
    lab: &Lab,
    show: &mut Show,
    (host, address, device): (Host, IpAddr, Option<&str>),
    sources: &mut Sources<'_>,
) -> anyhow::Result<Option<Duration>> {
    let start = Instant::now();
    let address = SocketAddr::new(address, FILE_PORT);
    let file = Download::start(lab.host(host), lab.host(Host::Client), address, device)?;
    let mut next = start;
    let time = loop {
        let time = start.elapsed();
        if file.received_bytes() >= FILE_BYTES {
            break Some(time);
        }
        if time > FILE_PATIENCE {
            break None;
        }
        if Instant::now() >= next {
            show.view.mbps = mbps(file.received_bytes(), time);
            show.tick(sources)?;
            next += TICK;
        }
        std::thread::sleep(FILE_POLL);
    };
    show.restart_readings();
    Ok(time)
}

/// The same download and the same game over the fastest link, without the bond.
fn alone(lab: &Lab, show: &mut Show, name: &str) -> anyhow::Result<Measured> {
    show.begin(1, format!("To compare: the fastest link, {name}, alone, without the bond"));
    show.view.alone = Some(name.to_owned());
    let server = IpAddr::V4(SERVER_V4);
    let game = Game::start(lab, Host::Server, server, Some(name))?;
    let address = SocketAddr::new(server, DOWNLOAD_PORT);
    let download = Download::start(lab.host(Host::Server), lab.host(Host::Client), address, Some(name))?;
    let mut sources = Sources { bond: None, game: Some(&game), download: Some(&download) };
    let span = show.play(DOWNLOAD, &mut sources)?;
    let measured = show.measured(span, &game);
    show.view.alone = None;
    show.view.game_ms = None;
    show.restart_readings();
    Ok(measured)
}

/// The echo that stands for a game.
struct Game {
    echo: Echo,
    origin: Instant,
    _server: EchoServer,
}

impl Game {
    fn start(lab: &Lab, host: Host, address: IpAddr, device: Option<&str>) -> anyhow::Result<Self> {
        let server = EchoServer::start(lab.host(host), SocketAddr::new(address, GAME_PORT))?;
        let origin = Instant::now();
        let echo = Echo::start(lab.host(Host::Client), server.address(), GAME_PER_SECOND, device)?;
        Ok(Self { echo, origin, _server: server })
    }

    /// The requests sent between two moments.
    fn within(&self, from: Instant, to: Instant) -> EchoReport {
        let since = |moment: Instant| moment.saturating_duration_since(self.origin);
        self.echo.report().between(since(from), since(to))
    }
}

/// The sources of the picture.
struct Sources<'a> {
    bond: Option<&'a mut Bond>,
    game: Option<&'a Game>,
    download: Option<&'a Download>,
}

impl Sources<'_> {
    const fn none() -> Self {
        Self { bond: None, game: None, download: None }
    }
}

/// A step's time.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Instant,
    to: Instant,
}

/// The picture over time, and the download's readings behind it.
struct Show {
    signals: Signals,
    screen: Screen,
    view: View,
    started: Instant,
    readings: Readings,
    /// The link that is cut now.
    cut: Option<usize>,
}

impl Show {
    fn new(scenario: &Scenario, signals: Signals) -> Self {
        let link = |link: &bonding_netem::LinkSpec| LinkView {
            name: link.name.clone(),
            capacity_mbps: link.pipe(Direction::Down).rate.mean_bps().map(|bps| bps as f64 / 1e6),
            state: "–".to_owned(),
            ..LinkView::default()
        };
        let view = View {
            total: DOWNLOAD + IDLE + DOWNLOAD + CUT + RESTORED,
            links: scenario.links.iter().map(link).collect(),
            scale_mbps: sum_mbps(scenario).unwrap_or(1_000.0),
            ..View::default()
        };
        Self {
            signals,
            screen: Screen::new(),
            view,
            started: Instant::now(),
            readings: Readings::default(),
            cut: None,
        }
    }

    /// Another step begins.
    fn begin(&mut self, number: usize, what: impl Into<String>) {
        self.view.number = (number, STEPS);
        self.view.step = what.into();
    }

    /// Forgets the download before: another begins to count at zero.
    fn restart_readings(&mut self) {
        self.readings = Readings::default();
        self.view.mbps = 0.0;
    }

    /// The figures of a step: the download's first seconds apart, the game after them.
    fn measured(&self, span: Span, game: &Game) -> Measured {
        let after = span.from + FIRST;
        Measured {
            first_mbps: self.rate(span.from, after),
            then_mbps: self.rate(after, span.to),
            game: Latency::of(&game.within(after, span.to)),
        }
    }

    /// The download's rate between two moments.
    fn rate(&self, from: Instant, to: Instant) -> f64 {
        self.readings.mbps_between(self.since(from), self.since(to))
    }

    /// The lowest rate of any half second between two moments.
    fn slowest(&self, from: Instant, to: Instant) -> f64 {
        self.readings.slowest_mbps(self.since(from), self.since(to), STOP_WINDOW)
    }

    fn since(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Draws the picture again and again for a while.
    fn play(&mut self, span: Duration, sources: &mut Sources<'_>) -> anyhow::Result<Span> {
        let from = Instant::now();
        let end = from + span;
        while Instant::now() < end {
            self.tick(sources)?;
            let next = Instant::now() + TICK;
            std::thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
        }
        self.tick(sources)?;
        Ok(Span { from, to: Instant::now() })
    }

    /// Reads all sources and draws once.
    fn tick(&mut self, sources: &mut Sources<'_>) -> anyhow::Result<()> {
        if self.signals.poll_signal().is_some() {
            return Err(Interrupted.into());
        }
        let now = Instant::now();
        let elapsed = self.since(now);
        if let Some(download) = sources.download {
            self.readings.push(elapsed, download.received_bytes());
            self.view.mbps = self.readings.mbps_over_last(Duration::from_secs(1));
        }
        if let Some(game) = sources.game {
            self.read_game(game, now);
        }
        match &mut sources.bond {
            Some(bond) => self.read_links(bond)?,
            None => self.show_single_link(),
        }
        if elapsed.as_secs() > self.view.elapsed.as_secs() && sources.download.is_some() {
            self.view.history.push(self.view.mbps);
        }
        self.view.elapsed = elapsed;
        self.screen.show(&self.view).context("cannot draw")
    }

    fn read_game(&mut self, game: &Game, now: Instant) {
        let second = Duration::from_secs(1);
        let before = |span: Duration| now.checked_sub(span).unwrap_or(now);
        let latest = game.within(before(second), now);
        self.view.game_ms = latest.percentile(500).map(|rtt| rtt.as_secs_f64() * 1e3);
        // A request without an answer after a second is lost.
        let answered = game.within(before(second * 2), before(second));
        let lost = answered.samples.iter().filter(|sample| sample.rtt.is_none()).count();
        self.view.game_lost = (lost, answered.samples.len());
    }

    fn read_links(&mut self, bond: &mut Bond) -> anyhow::Result<()> {
        let status = bond.status()?;
        for (index, (shown, link)) in self.view.links.iter_mut().zip(&status.links).enumerate() {
            shown.mbps = link.rx_mbps;
            shown.rtt_ms = link.rtt_ms;
            shown.state.clone_from(&link.state);
            shown.cut = self.cut == Some(index);
        }
        Ok(())
    }

    /// Without the bond, the download and the game are the only sources.
    fn show_single_link(&mut self) {
        let (alone, mbps, game_ms) = (&self.view.alone, self.view.mbps, self.view.game_ms);
        for link in &mut self.view.links {
            let used = alone.as_ref() == Some(&link.name);
            link.mbps = if used { mbps } else { 0.0 };
            link.rtt_ms = game_ms.filter(|_| used);
            link.state = if used { "ALONE" } else { "unused" }.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use bonding_lab::PipeSnapshot;

    use super::*;

    fn snapshot(sized_pkts: &[u64]) -> Snapshot {
        let pipe = |sized_pkts| PipeSnapshot { sized_pkts, ..PipeSnapshot::default() };
        Snapshot { links: sized_pkts.iter().map(|count| [pipe(*count); 2]).collect(), ..Snapshot::default() }
    }

    #[test]
    fn the_game_is_on_the_link_that_carries_most_of_its_packets() {
        assert_eq!(game_carrier(&snapshot(&[90, 0, 5]), &snapshot(&[91, 50, 9])), Some(1));
        assert_eq!(game_carrier(&snapshot(&[90, 0]), &snapshot(&[90, 0])), None);
    }

    #[test]
    fn the_nearest_link_stands_in_where_nothing_was_counted() {
        let scenario = bonding_netem::scenario::builtin("reference").unwrap();
        assert_eq!(scenario.links[nearest(&scenario)].name, "adsl");
        assert_eq!(fastest(&scenario), "sat1");
    }
}
