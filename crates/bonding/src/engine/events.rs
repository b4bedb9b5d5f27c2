//! One log line for each event of a session, while there are few of its kind.
//!
//! A peer makes events with a few bytes each: it moves, or says that links failed. So each kind of
//! event of each peer has a number of lines at once and one more in some seconds; the next line
//! says how many were left out.

use std::time::{Duration, Instant, SystemTime};

use bonding_proto::handshake::Refusal;
use bonding_proto::link::Cause;
use bonding_proto::units::BitRate;
use bonding_proto::view::LinkState;
use bonding_proto::wire::control::CloseReason;
use bonding_proto::{Event, LinkId};

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

/// How many kinds there are.
const KINDS: usize = 10;

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
}

impl EventLogger {
    pub(crate) fn new(peer: String, links: Vec<String>) -> Self {
        Self { peer, links, since: None, lines: [Lines::default(); KINDS] }
    }

    /// The name of a link.
    pub(crate) fn link_name(&self, at: usize) -> String {
        self.links.get(at).cloned().unwrap_or_else(|| format!("link{at}"))
    }

    /// Notes one event, and logs it unless there are too many of its kind.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if *event == Event::Connected {
            self.since = Some(SystemTime::now());
        } else if *event == Event::Disconnected {
            self.since = None;
        }
        if let Some(left_out) = self.passes(event, Instant::now()) {
            if left_out > 0 {
                tracing::info!(peer = self.peer, left_out, "events like the next one were not logged");
            }
            self.log(event);
        }
    }

    /// Whether the event is logged; if so, how many of its kind were not.
    fn passes(&mut self, event: &Event, now: Instant) -> Option<u64> {
        self.lines.get_mut(kind(event))?.pass(now)
    }

    fn log(&self, event: &Event) {
        let peer = &self.peer;
        match event {
            Event::Connected => tracing::info!(%peer, "connected"),
            Event::Disconnected => tracing::warn!(%peer, "disconnected: no link is usable"),
            Event::LinkState { link, from, to } => {
                tracing::info!(%peer, link = self.link(*link), "link is {}, was {}", word(*to), word(*from));
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
            written += u32::from(logger.passes(&moved(u16::try_from(ms % 2).unwrap()), now).is_some());
        }
        assert_eq!(written, LINES_MAX + 11);
        // Another kind has lines of its own, and a later line says how many are missing.
        let later = start + Duration::from_secs(60);
        assert_eq!(logger.passes(&Event::Connected, later), Some(0));
        assert!(logger.passes(&moved(1), later).is_some_and(|left_out| left_out > 4_900));
        // After a pause all are written again.
        let later = start + Duration::from_secs(600);
        let written = (0..100).filter(|_| logger.passes(&moved(1), later).is_some()).count();
        assert_eq!(written, 20);
    }
}
