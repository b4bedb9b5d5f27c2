//! What the view knows, and what keys do.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bonding::engine::command::{LinkOrder, Ordered};
use bonding::events::Record;
use bonding::status::{Link, Role, Status};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Deserialize;

/// Samples of a rate that are kept. Chosen: as wide as a sparkline becomes.
pub(super) const SAMPLES_MAX: usize = 60;
/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Events that are kept. Chosen: a high terminal.
const EVENTS_MAX: usize = 200;

/// A line of the subscription, as far as the view reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pushed {
    figures: Option<Status>,
    events: Vec<Record>,
}

/// The number of the last event of a line.
pub(super) fn last_event(line: &str) -> Option<u64> {
    serde_json::from_str::<Pushed>(line).ok()?.events.last().map(|record| record.number)
}

/// What links are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Number,
    Rate,
    Rtt,
    Loss,
}

impl Sort {
    /// The word for people.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Rate => "rate",
            Self::Rtt => "RTT",
            Self::Loss => "loss",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Number => Self::Rate,
            Self::Rate => Self::Rtt,
            Self::Rtt => Self::Loss,
            Self::Loss => Self::Number,
        }
    }
}

/// What a key asks for beyond the view.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Order { name: String, order: LinkOrder },
}

/// The rates of a link lately, Mbit/s, newest last: sent, received.
pub(super) type Samples = [VecDeque<f64>; 2];

/// See the module.
pub(super) struct Model {
    pub(super) colours: bool,
    pub(super) status: Option<Status>,
    pub(super) events: VecDeque<Record>,
    /// By client and link.
    samples: BTreeMap<(Option<String>, String), Samples>,
    sampled_at: Option<Instant>,
    pub(super) selected: usize,
    pub(super) sort: Sort,
    pub(super) paused: bool,
    /// On a server: clients are shown, not links.
    pub(super) shows_clients: bool,
    /// What is to be said below.
    pub(super) message: String,
    /// Why no figures come.
    pub(super) ended: Option<String>,
}

impl Model {
    pub(super) fn new(colours: bool) -> Self {
        Self {
            colours,
            status: None,
            events: VecDeque::new(),
            samples: BTreeMap::new(),
            sampled_at: None,
            selected: 0,
            sort: Sort::Number,
            paused: false,
            shows_clients: true,
            message: String::new(),
            ended: None,
        }
    }

    /// A line of the subscription came.
    pub(super) fn on_line(&mut self, line: &str, now: Instant) {
        let pushed: Pushed = match serde_json::from_str(line) {
            Ok(pushed) => pushed,
            Err(error) => {
                self.message =
                    format!("the running program is of another version than this bondctl: {error}");
                return;
            }
        };
        // A view that connects again is sent what it has.
        let new = pushed.events.into_iter().filter(|record| !self.events.contains(record));
        let new: Vec<Record> = new.collect();
        self.events.extend(new);
        self.events.make_contiguous().sort_by(|a, b| a.time.cmp(&b.time));
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        let Some(status) = pushed.figures else { return };
        self.ended = None;
        self.sample(&status, now);
        if !self.paused {
            let selected = self.selected_key();
            self.status = Some(status);
            self.select(selected);
        }
    }

    /// The client or server ended.
    pub(super) fn on_ended(&mut self, why: String) {
        self.ended = Some(why);
    }

    /// An order was answered.
    pub(super) fn on_answer(&mut self, answer: &str) {
        self.message = match serde_json::from_str::<Ordered>(answer) {
            Ok(done) => format!("{}: {}, priority {}, until a reload", done.name, done.role, done.priority),
            Err(_) => answer.trim().to_owned(),
        };
    }

    fn sample(&mut self, status: &Status, now: Instant) {
        if self.sampled_at.is_some_and(|at| now.saturating_duration_since(at) < SAMPLE_INTERVAL) {
            return;
        }
        self.sampled_at = Some(now);
        let key = |link: &Link| (link.client.clone(), link.name.clone());
        self.samples.retain(|known, _| status.links.iter().any(|link| key(link) == *known));
        for link in &status.links {
            let samples = self.samples.entry(key(link)).or_default();
            for (samples, rate) in samples.iter_mut().zip([link.tx_mbps, link.rx_mbps]) {
                if samples.len() == SAMPLES_MAX {
                    samples.pop_front();
                }
                samples.push_back(rate);
            }
        }
    }

    /// The rates of a link lately.
    pub(super) fn samples(&self, link: &Link) -> Option<&Samples> {
        self.samples.get(&(link.client.clone(), link.name.clone()))
    }

    /// Whether clients are shown.
    pub(super) fn is_of_clients(&self) -> bool {
        self.shows_clients && self.status.as_ref().is_some_and(|status| status.role == Role::Server)
    }

    /// The links in the order in which they are shown.
    pub(super) fn links(&self) -> Vec<&Link> {
        let mut links: Vec<&Link> = self.status.iter().flat_map(|status| &status.links).collect();
        let by = |of: fn(&Link) -> f64| move |a: &&Link, b: &&Link| of(b).total_cmp(&of(a));
        match self.sort {
            Sort::Number => {}
            Sort::Rate => links.sort_by(by(|link| link.tx_mbps + link.rx_mbps)),
            Sort::Rtt => links.sort_by(by(|link| link.rtt_ms.unwrap_or(0.0))),
            Sort::Loss => links.sort_by(by(|link| {
                let peer = link.peer.as_ref().map_or(0, |peer| peer.loss_permille);
                f64::from(link.loss_permille.max(peer))
            })),
        }
        links
    }

    /// The link that is selected, where links are shown.
    fn selected_key(&self) -> Option<(Option<String>, String)> {
        let links = self.links();
        let link = links.get(self.selected).filter(|_| !self.is_of_clients())?;
        Some((link.client.clone(), link.name.clone()))
    }

    /// Rows move where they are sorted, and vanish: the same link stays selected.
    fn select(&mut self, key: Option<(Option<String>, String)>) {
        let is_it = |link: &&Link| {
            key.as_ref().is_some_and(|(client, name)| (&link.client, &link.name) == (client, name))
        };
        let at = self.links().iter().position(is_it);
        self.selected = at.unwrap_or(self.selected).min(self.rows().saturating_sub(1));
    }

    fn rows(&self) -> usize {
        let status = self.status.as_ref();
        let count =
            |status: &Status| if self.is_of_clients() { status.clients.len() } else { status.links.len() };
        status.map_or(0, count)
    }

    /// A key was pressed.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than the view")]
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        self.message.clear();
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Action::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = (self.selected + 1).min(self.rows().saturating_sub(1));
            }
            KeyCode::Char('s') => {
                let selected = self.selected_key();
                self.sort = self.sort.next();
                self.select(selected);
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('c') => {
                self.shows_clients = !self.shows_clients;
                self.selected = 0;
            }
            KeyCode::Char('d') => return self.order(LinkOrder::Demote),
            KeyCode::Char('e') => return self.order(LinkOrder::Enable),
            _ => {}
        }
        Action::None
    }

    fn order(&mut self, order: LinkOrder) -> Action {
        if self.status.as_ref().is_none_or(|status| status.role == Role::Server) {
            "links are the client's: `bondctl top` there".clone_into(&mut self.message);
            return Action::None;
        }
        let name = self.links().get(self.selected).map(|link| link.name.clone());
        name.map_or(Action::None, |name| Action::Order { name, order })
    }
}
