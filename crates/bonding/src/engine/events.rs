//! One log line for each event of a session, and a record for those that a person may ask about,
//! while there are few of their kind.
//!
//! A peer makes events with a few bytes each: it moves, or says that links failed. So each kind of
//! event of each peer has a number of lines at once and one more in some seconds; the next line
//! says how many were left out.

use std::time::{Duration, Instant, SystemTime};

use bonding_proto::event::StateChange;
use bonding_proto::handshake::Refusal;
use bonding_proto::link::{Cause, ControlChange, PhaseKind};
use bonding_proto::units::BitRate;
use bonding_proto::view::{LinkState, StateCause};
use bonding_proto::wire::control::CloseReason;
use bonding_proto::{Event, LinkId};

use crate::events::{Happening, Kind};

/// Lines of one kind at once. Chosen: five links that go and come back twice.
const LINES_MAX: u32 = 20;
/// And one more after this. Chosen: a log of a kilobyte a minute for each kind.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The lines of one kind of event.
#[derive(Debug, Clone, Copy, Default)]
struct Lines {
    written: u32,
    /// `written` counts down from this time on.
    since: Option<Instant>,
    left_out: u64,
}

impl Lines {
    /// Whether a line is written now; if so, how many were left out before it.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.duration_since(since).as_secs() / LINE_INTERVAL.as_secs();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.written = self.written.saturating_sub(earned);
            self.since = Some(if self.written == 0 { now } else { since + LINE_INTERVAL * earned });
        }
        if self.written >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Which lines count together.
const fn kind(event: &Event) -> usize {
    match event {
        Event::Connected | Event::Disconnected => 0,
        Event::LinkState { .. } => 1,
        Event::PathChanged { .. } => 2,
        Event::PeerRestarted
        | Event::Closed(_)
        | Event::Refused(_)
        | Event::KeyReplaced
        | Event::KeyRefused(_) => 3,
        Event::LinkMtu { .. } | Event::TunnelMtu(_) => 4,
        Event::ControlChanged { .. } => 5,
        Event::FlowsChanged { .. } => 6,
        Event::ServerChanged { .. } | Event::Leased => 7,
        Event::LinkRetired { .. } => 8,
        _ => 9,
    }
}

/// Changes of what links carry that are told as events.
const TOLD_ONCE: usize = 10;
/// How many kinds there are.
const KINDS: usize = 11;

/// Logs the events of one session: its name in the log, and since when it is connected.
#[derive(Debug, Clone)]
pub(crate) struct EventLogger {
    /// The peer, for people.
    pub(crate) peer: String,
    /// The links' names, by number.
    pub(crate) links: Vec<String>,
    /// When the session became usable; `None` while it is not.
    pub(crate) since: Option<SystemTime>,
    lines: [Lines; KINDS],
    /// What is known of the links, by number.
    known: Vec<Known>,
}

/// What the events so far told of a link.
#[derive(Debug, Clone, Default)]
struct Known {
    state: LinkState,
    /// Why it is down.
    trouble: Option<String>,
    capacity: Halving,
}

/// What a link was known to carry, to tell of a halving.
#[derive(Debug, Clone, Copy, Default)]
struct Halving {
    /// The most since the last halving, bit/s.
    high_bps: u64,
    /// What it carried before the last halving, until it carries that again.
    before_bps: Option<u64>,
}

impl Halving {
    /// The link carries this now. Whether that is half of what it did (`LinkHalved`), or again what
    /// it did; with what it did.
    fn on_capacity(&mut self, bps: u64) -> Option<(Kind, u64)> {
        if bps.saturating_mul(2) <= self.high_bps {
            let before = std::mem::replace(&mut self.high_bps, bps);
            self.before_bps.get_or_insert(before);
            return Some((Kind::CapacityHalved, before));
        }
        self.high_bps = self.high_bps.max(bps);
        let before = self.before_bps.take_if(|before| bps >= *before / 10 * 9)?;
        Some((Kind::CapacityRestored, before))
    }
}

impl EventLogger {
    pub(crate) fn new(peer: String, links: Vec<String>) -> Self {
        Self { peer, links, since: None, lines: [Lines::default(); KINDS], known: Vec::new() }
    }

    /// The name of a link.
    pub(crate) fn link_name(&self, at: usize) -> String {
        self.links.get(at).cloned().unwrap_or_else(|| format!("link{at}"))
    }

    /// A link came, which has this name.
    pub(crate) fn set_link(&mut self, link: LinkId, name: String) {
        if self.links.len() <= link.index() {
            self.links.resize(link.index() + 1, String::new());
        }
        if let Some(place) = self.links.get_mut(link.index())
            && *place != name
        {
            *place = name;
            // What is known is of another line.
            if let Some(known) = self.known.get_mut(link.index()) {
                *known = Known::default();
            }
        }
    }

    /// Why the link is down, as far as its events tell.
    pub(crate) fn trouble(&self, at: usize) -> Option<String> {
        self.known.get(at)?.trouble.clone()
    }

    /// Notes one event, and logs it unless there are too many of its kind. What is to be told of
    /// it.
    pub(crate) fn on_event(&mut self, event: &Event) -> Option<Happening> {
        let happening = self.happening(event);
        if *event == Event::Connected {
            self.since = Some(SystemTime::now());
        } else if *event == Event::Disconnected {
            self.since = None;
        }
        // What is told once is not lost among the many small changes.
        let is_told_once = happening
            .as_ref()
            .is_some_and(|happening| matches!(happening.kind, Kind::CapacityHalved | Kind::CapacityRestored));
        let left_out = self.passes(if is_told_once { TOLD_ONCE } else { kind(event) }, Instant::now())?;
        if left_out > 0 {
            tracing::info!(peer = self.peer, left_out, "events like the next one were not logged");
        }
        self.log(event);
        happening
    }

    /// What is to be told of an event. What it says of links is noted, whether or not it is told.
    fn happening(&mut self, event: &Event) -> Option<Happening> {
        let peer = &self.peer;
        let link_of = |kind, link: LinkId, text: String| {
            Some(Happening::new(kind, text).of_link(self.link_name(link.index())))
        };
        match event {
            Event::Connected => Some(Happening::new(Kind::SessionUp, format!("connected with {peer}"))),
            Event::Disconnected => Some(Happening::new(
                Kind::SessionDown,
                format!("disconnected from {peer}: no link is usable"),
            )),
            Event::LinkState { link, from, to, why } => {
                let text = self.state_text(*link, *from, *to, why);
                self.note_state(*link, *to, why);
                let kind = match to {
                    LinkState::Up => Kind::LinkUp,
                    LinkState::Suspect => Kind::LinkSuspect,
                    LinkState::Down => Kind::LinkDown,
                };
                Some(Happening::new(kind, text).of_link(self.link_name(link.index())))
            }
            Event::ControlChanged { link, change } => self.capacity(*link, change),
            Event::PathChanged { link, path } => {
                let name = self.link_name(link.index());
                link_of(Kind::LinkChanged, *link, format!("{name}: the peer sends from {}", path.remote))
            }
            Event::FlowsChanged { link, from, to } => {
                let name = self.link_name(link.index());
                let text = format!("{name} goes over {to} UDP flows, was {from}: its carrier limits each");
                link_of(Kind::LinkChanged, *link, text)
            }
            Event::PeerRestarted => {
                Some(Happening::new(Kind::PeerRestarted, format!("{peer} was restarted")))
            }
            Event::Closed(reason) => Some(closed(peer, *reason)),
            Event::Refused(refusal) => {
                let text = format!("{peer} refused this client: {}", why(*refusal));
                Some(Happening::new(Kind::Refused, text))
            }
            Event::KeyRefused(refusal) => {
                let text = format!("{peer} refused this client's new key: {}", why(*refusal));
                Some(Happening::new(Kind::Refused, text))
            }
            Event::KeyReplaced => {
                Some(Happening::new(Kind::KeyReplaced, format!("{peer} knows this client by its new key")))
            }
            Event::ServerChanged { .. } => {
                Some(Happening::new(Kind::ServerChanged, format!("uses {peer} from now on")))
            }
            Event::LinkMtu { .. } | Event::TunnelMtu(_) | Event::Leased | _ => None,
        }
    }

    /// A change of a link's state in words, with its cause.
    fn state_text(&self, link: LinkId, from: LinkState, to: LinkState, why: &StateChange) -> String {
        let name = self.link_name(link.index());
        let cause = cause(why);
        match to {
            LinkState::Up if from == LinkState::Down => format!("{name} UP: {cause}"),
            LinkState::Up => format!("{name} UP again: {cause}"),
            LinkState::Suspect if from == LinkState::Down => format!("{name} is on its way back: {cause}"),
            LinkState::Suspect => format!("{name} SUSPECT: {cause}{}", self.resent(link, why)),
            LinkState::Down => format!("{name} DOWN: {cause}{}", self.resent(link, why)),
        }
    }

    /// Over which links the packets go that were under way on one that failed.
    fn resent(&self, link: LinkId, why: &StateChange) -> String {
        let up = |(at, known): (usize, &Known)| {
            (at != link.index() && known.state == LinkState::Up).then(|| self.link_name(at))
        };
        let others: Vec<String> = self.known.iter().enumerate().filter_map(up).collect();
        match (why.resent, others.as_slice()) {
            (0, _) => String::new(),
            (count, []) => format!("; {count} wait for a link"),
            (count, [only]) => format!("; {count} sent again over {only}"),
            (count, several) => format!("; {count} sent again over {} other links", several.len()),
        }
    }

    fn note_state(&mut self, link: LinkId, to: LinkState, why: &StateChange) {
        let Some(known) = self.known_mut(link) else { return };
        known.state = to;
        known.trouble = (to == LinkState::Down).then(|| cause(why));
    }

    fn known_mut(&mut self, link: LinkId) -> Option<&mut Known> {
        let at = link.index();
        if at >= self.known.len() && at < bonding_proto::limits::LINKS_MAX {
            self.known.resize(at + 1, Known::default());
        }
        self.known.get_mut(at)
    }

    /// The link's capacity was halved, or is again what it was.
    fn capacity(&mut self, link: LinkId, change: &ControlChange) -> Option<Happening> {
        // The search for the capacity begins too high at times.
        let now = change.now.filter(|_| change.from != PhaseKind::Startup)?.as_bps();
        let (kind, before) = self.known_mut(link)?.capacity.on_capacity(now)?;
        let name = self.link_name(link.index());
        let mbps = |bps: u64| format!("{:.1}", BitRate::from_bps(bps).as_mbps());
        let cause = change.cause.map_or("unknown", Cause::name);
        let text = if kind == Kind::CapacityHalved {
            format!("{name} carries {} Mbit/s, was {}: {cause}", mbps(now), mbps(before))
        } else {
            format!("{name} carries {} Mbit/s again", mbps(now))
        };
        Some(Happening::new(kind, text).of_link(name))
    }

    /// Whether the event is logged; if so, how many of its kind were not.
    fn passes(&mut self, which: usize, now: Instant) -> Option<u64> {
        self.lines.get_mut(which)?.pass(now)
    }

    fn log(&self, event: &Event) {
        let peer = &self.peer;
        match event {
            Event::Connected => tracing::info!(%peer, "connected"),
            Event::Disconnected => tracing::warn!(%peer, "disconnected: no link is usable"),
            Event::LinkState { link, from, to, why } => {
                let (to, from, cause) = (word(*to), word(*from), cause(why));
                tracing::info!(%peer, link = self.link(*link), "link is {to}, was {from}: {cause}");
            }
            Event::PathChanged { link, path } => {
                tracing::info!(%peer, link = self.link(*link), remote = %path.remote, "peer's address on the link");
            }
            Event::Closed(reason) => match reason {
                CloseReason::Shutdown => tracing::info!(%peer, "the peer has stopped"),
                CloseReason::Revoked => {
                    tracing::error!(%peer, "the server has revoked this client's key; ask for a new invitation");
                }
                CloseReason::Expired => {
                    tracing::error!(%peer, "the server refuses this client: {}", why(Refusal::KeyExpired));
                }
            },
            Event::Refused(refusal) => {
                tracing::error!(%peer, "the server refused this client: {}", why(*refusal))
            }
            Event::KeyReplaced => tracing::info!(%peer, "the server knows this client by its new key"),
            Event::KeyRefused(refusal) => {
                tracing::error!(
                    %peer, "the server refused this client's new key, the old one serves on: {}", why(*refusal)
                );
            }
            Event::ServerChanged { .. } => tracing::warn!(%peer, "the client uses this server from now on"),
            Event::LinkMtu { link, bytes } => {
                tracing::info!(%peer, link = self.link(*link), bytes, "the link carries packets of this size");
            }
            Event::TunnelMtu(bytes) => {
                tracing::debug!(%peer, bytes, "the links in use carry inner packets of this size")
            }
            Event::Leased => tracing::debug!(%peer, "the server sent this client's addresses"),
            Event::ControlChanged { link, change } => {
                let cause = change.cause.map_or("none", Cause::name);
                let [before, now] = [change.before, change.now].map(|rate| rate.map(BitRate::as_bps));
                tracing::debug!(
                    %peer, link = self.link(*link), phase = change.to.name(), cause, before, now,
                    "the link's congestion control changed"
                );
            }
            Event::FlowsChanged { link, from, to } => {
                tracing::info!(
                    %peer, link = self.link(*link),
                    "the link sends over {to} UDP flows, was {from}: its carrier limits each"
                );
            }
            Event::LinkRetired { link } => {
                tracing::info!(%peer, link = self.link(*link), "the client no longer has this link");
            }
            Event::PeerRestarted => tracing::info!(%peer, "the peer has restarted"),
            other => tracing::info!(%peer, ?other, "event"),
        }
    }

    fn link(&self, link: LinkId) -> String {
        self.link_name(link.index())
    }
}

/// Why a server refuses a client, for a person.
pub(crate) const fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Used => "the invitation was used already",
        Refusal::Expired => "the invitation has expired",
        Refusal::Refused => "the server's log says why",
        Refusal::KeyExpired => "this client's key has expired; `bondctl expire` on the server renews it",
    }
}

/// The peer ended the session.
fn closed(peer: &str, reason: CloseReason) -> Happening {
    match reason {
        CloseReason::Shutdown => Happening::new(Kind::PeerRestarted, format!("{peer} has stopped")),
        CloseReason::Revoked => {
            Happening::new(Kind::Refused, format!("{peer} has revoked this client's key"))
        }
        CloseReason::Expired => {
            Happening::new(Kind::Refused, format!("{peer}: {}", why(Refusal::KeyExpired)))
        }
    }
}

/// Why a link changed its state.
fn cause(why: &StateChange) -> String {
    let span = span(why.silent);
    let unanswered = match why.resent {
        0 => "packets".to_owned(),
        1 => "1 packet".to_owned(),
        count => format!("{count} packets"),
    };
    match why.cause {
        StateCause::New => "not proven yet".to_owned(),
        StateCause::Answered => "answers come".to_owned(),
        StateCause::DataUnanswered => format!("{unanswered} unanswered for {span}"),
        StateCause::HeartbeatsUnanswered => format!("heartbeats unanswered for {span}"),
        StateCause::NothingArrives => "the peer says over another link that nothing arrives".to_owned(),
        StateCause::SendRefused => "this machine refuses to send on it".to_owned(),
        StateCause::CarrierLost => "its interface is gone or has no carrier".to_owned(),
        StateCause::PeerGaveUp => "the peer has given it up".to_owned(),
    }
}

fn span(span: Duration) -> String {
    match span.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1_000),
    }
}

fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Down => "down",
        LinkState::Suspect => "suspect",
        LinkState::Up => "up",
    }
}

#[cfg(test)]
mod tests {
    use bonding_proto::{Path, SocketId};

    use super::*;

    fn changed(link: u8, from: LinkState, to: LinkState, why: StateChange) -> Event {
        Event::LinkState { link: LinkId(link), from, to, why }
    }

    fn up(link: u8) -> Event {
        let why = StateChange { cause: StateCause::Answered, ..StateChange::default() };
        changed(link, LinkState::Down, LinkState::Up, why)
    }

    #[test]
    fn a_suspect_link_is_told_with_its_cause_and_what_went_over_which_other() {
        let names = ["adsl", "starlink1", "starlink2"].map(str::to_owned).to_vec();
        let mut logger = EventLogger::new("vps".to_owned(), names);
        assert_eq!(logger.on_event(&up(0)).unwrap().text, "adsl UP: answers come");
        logger.on_event(&up(1)).unwrap();
        let silent = Duration::from_millis(140);
        let why = StateChange { cause: StateCause::DataUnanswered, silent, resent: 23 };
        let suspect = changed(0, LinkState::Up, LinkState::Suspect, why);
        let told = logger.on_event(&suspect).unwrap();
        assert_eq!((told.kind, told.link.as_deref()), (Kind::LinkSuspect, Some("adsl")));
        assert_eq!(told.text, "adsl SUSPECT: 23 packets unanswered for 140 ms; 23 sent again over starlink1");
        logger.on_event(&up(2)).unwrap();
        assert!(logger.on_event(&suspect).unwrap().text.ends_with("; 23 sent again over 2 other links"));
        let why = StateChange { cause: StateCause::CarrierLost, ..StateChange::default() };
        let told = logger.on_event(&changed(0, LinkState::Suspect, LinkState::Down, why)).unwrap();
        assert_eq!(told.text, "adsl DOWN: its interface is gone or has no carrier");
        assert_eq!(logger.trouble(0).as_deref(), Some("its interface is gone or has no carrier"));
        logger.on_event(&up(0)).unwrap();
        assert_eq!(logger.trouble(0), None);
    }

    #[test]
    fn a_halved_capacity_is_told_once_and_when_it_is_back() {
        let mut logger = EventLogger::new("vps".to_owned(), vec!["lte".to_owned()]);
        let change = |from, mbps: u64| Event::ControlChanged {
            link: LinkId(0),
            change: ControlChange {
                from,
                to: PhaseKind::Steady,
                cause: Some(Cause::OwnQueue),
                before: None,
                now: Some(BitRate::from_bps(mbps * 1_000_000)),
            },
        };
        assert_eq!(logger.on_event(&change(PhaseKind::Startup, 900)), None);
        let told: Vec<String> = [40, 30, 25, 20, 18, 12, 35, 40, 39]
            .into_iter()
            .filter_map(|mbps| logger.on_event(&change(PhaseKind::Steady, mbps)))
            .map(|told| told.text)
            .collect();
        assert_eq!(told, ["lte carries 20.0 Mbit/s, was 40.0: own_queue", "lte carries 40.0 Mbit/s again"]);
    }

    #[test]
    fn a_halving_is_told_among_many_small_changes() {
        let mut logger = EventLogger::new("vps".to_owned(), vec!["lte".to_owned()]);
        let change = |kbps: u64| Event::ControlChanged {
            link: LinkId(0),
            change: ControlChange {
                from: PhaseKind::Steady,
                to: PhaseKind::Steady,
                cause: Some(Cause::OwnQueue),
                before: None,
                now: Some(BitRate::from_bps(kbps * 1_000)),
            },
        };
        for number in 0..100 {
            assert_eq!(logger.on_event(&change(40_000 + number % 2 * 5_000)), None);
        }
        assert!(logger.on_event(&change(9_000)).is_some());
    }

    /// A peer cannot fill the list of what happened either.
    #[test]
    fn what_is_not_logged_is_not_told() {
        let mut logger = EventLogger::new("home".to_owned(), Vec::new());
        let told = (0..1_000).filter(|_| logger.on_event(&up(0)).is_some()).count();
        assert!(told <= 21, "{told}");
    }

    #[test]
    fn a_peer_that_moves_a_thousand_times_a_second_fills_no_log() {
        let mut logger = EventLogger::new("home".to_owned(), Vec::new());
        let start = Instant::now();
        let moved = |port: u16| Event::PathChanged {
            link: LinkId(0),
            path: Path { socket: SocketId(0), remote: ([192, 0, 2, 1], port).into(), local: None },
        };
        let mut written = 0;
        for ms in 0..60_000_u64 {
            let now = start + Duration::from_millis(ms);
            written += u32::from(logger.passes(kind(&moved(u16::try_from(ms % 2).unwrap())), now).is_some());
        }
        assert_eq!(written, LINES_MAX + 11);
        // Another kind has lines of its own, and a later line says how many are missing.
        let later = start + Duration::from_secs(60);
        assert_eq!(logger.passes(kind(&Event::Connected), later), Some(0));
        assert!(logger.passes(kind(&moved(1)), later).is_some_and(|left_out| left_out > 4_900));
        // After a pause all are written again.
        let later = start + Duration::from_secs(600);
        let written = (0..100).filter(|_| logger.passes(kind(&moved(1)), later).is_some()).count();
        assert_eq!(written, 20);
    }
}
