//! `bondctl events`: what happened lately, with its cause; and what happens from now on.

use std::io::Write;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::Usage;
use super::layout::wrap;
use crate::control::{Ask, Request};
use crate::events::{Events, Record};

/// Where texts begin: behind the time.
const TEXT_COLUMN: usize = 22;

/// Examples of use.
pub(super) const EXAMPLES: &str = "\
Examples:
  bondctl events                                          all that are kept, the newest last
  bondctl events --since 8h                               of the last eight hours
  bondctl events --since 2026-12-01T18:00:00Z --json | jq -r .text
  bondctl events --follow                                 those to come, too, until interrupted";

/// Options of `bondctl events`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArguments {
    /// Only those since then: a span such as 8h or 2days, or a time such as 2026-12-01T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Go on with those that happen from now on, until interrupted
    #[arg(long)]
    follow: bool,
}

impl EventsArguments {
    /// Whether one side alone can answer.
    pub(super) const fn is_of_one(&self) -> bool {
        self.json || self.follow
    }

    /// Since when; all times before are left out.
    pub(super) fn since(&self, now: SystemTime) -> Result<SystemTime, Usage> {
        let Some(text) = &self.since else { return Ok(SystemTime::UNIX_EPOCH) };
        let span = humantime::parse_duration(text).ok();
        let time = || humantime::parse_rfc3339_weak(text).ok();
        let since =
            span.map_or_else(time, |span| Some(now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH)));
        since.map(|since| since.max(SystemTime::UNIX_EPOCH)).ok_or_else(|| {
            Usage(format!("\"{text}\" is neither a span such as 8h nor a time such as 2026-12-01T18:00:00Z"))
        })
    }
}

/// Writes the events of one side to `out`.
pub(super) fn events(
    ask: &mut Ask,
    arguments: &EventsArguments,
    since: SystemTime,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let events = parse(&ask.ask(&Request::Events { after })?)?;
        let Some(last) = events.events.last() else { break };
        after = last.number;
        if events.lost > 0 {
            eprintln!("{} earlier events are not kept", events.lost);
        }
        write(&events, arguments.json, since, out)?;
    }
    out.flush().context("standard output")?;
    if !arguments.follow {
        return Ok(());
    }
    ask.subscribe(&Request::Subscribe { interval_ms: 0, after: Some(after) })?;
    loop {
        let line = ask.next_line()?;
        if !line.starts_with("{\"events\":") {
            continue;
        }
        write(&parse(&line)?, arguments.json, since, out)?;
        out.flush().context("standard output")?;
    }
}

fn parse(line: &str) -> anyhow::Result<Events> {
    serde_json::from_str(line).context("the running program is of another version than this bondctl")
}

fn write(events: &Events, json: bool, since: SystemTime, out: &mut impl Write) -> anyhow::Result<()> {
    let is_wanted = |record: &&Record| {
        humantime::parse_rfc3339(&record.time).map_or(true, |time| time + Duration::from_millis(1) > since)
    };
    for record in events.events.iter().filter(is_wanted) {
        let text = if json { serde_json::to_string(record).context("JSON")? + "\n" } else { render(record) };
        out.write_all(text.as_bytes()).context("standard output")?;
    }
    Ok(())
}

/// A record for a person.
pub(super) fn render(record: &Record) -> String {
    let time = record.time.split_once('.').map_or(record.time.as_str(), |(seconds, _)| seconds);
    let client = record.client.as_ref().map(|client| format!("{client}:")).into_iter();
    let words: Vec<String> = client.chain(record.text.split(' ').map(str::to_owned)).collect();
    let text = wrap(&words, " ", TEXT_COLUMN);
    format!("{:<TEXT_COLUMN$}{}", format!("{time}Z"), text.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Ring;
    use crate::events::tests::happening;

    fn arguments(since: &str) -> EventsArguments {
        EventsArguments { since: Some(since.to_owned()), json: false, follow: false }
    }

    #[test]
    fn since_is_a_span_or_a_time() {
        let now = humantime::parse_rfc3339("2026-12-01T18:00:00Z").unwrap();
        let hour = Duration::from_secs(3_600);
        for (text, since) in [
            ("1h", now - hour),
            ("2026-12-01T17:00:00Z", now - hour),
            ("2026-12-01 17:00:00", now - hour),
            ("3000years", SystemTime::UNIX_EPOCH),
        ] {
            assert_eq!(arguments(text).since(now).unwrap(), since, "{text}");
        }
        assert!(arguments("yesterday").since(now).is_err());
    }

    #[test]
    fn old_ones_are_left_out_and_lines_are_narrow() {
        let mut ring = Ring::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        ring.push(happening(1), at(10));
        ring.push(happening(23).of_client("home"), at(20));
        let mut long = happening(23);
        long.text.push_str("; 23 sent again over starlink-on-the-roof-of-the-barn");
        ring.push(long, at(30));
        let events = Events { events: ring.after(0, 9).0.cloned().collect(), lost: 0 };
        let mut text = Vec::new();
        write(&events, false, at(20), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "1970-01-01T00:00:20Z  home: adsl SUSPECT: 23 packets unanswered for 140 ms\n\
             1970-01-01T00:00:30Z  adsl SUSPECT: 23 packets unanswered for 140 ms; 23 sent\n\
             \x20                     again over starlink-on-the-roof-of-the-barn\n"
        );
        let mut json = Vec::new();
        write(&events, true, at(0), &mut json).unwrap();
        assert_eq!(String::from_utf8(json).unwrap().lines().count(), 3);
    }
}
