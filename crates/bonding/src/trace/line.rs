//! An entry of a trace as a line of JSON: time in ms, name, session, data. Names are qlog's where
//! its events fit (draft-ietf-quic-qlog-quic-events: `recovery:…`, `transport:…`, `security:…`),
//! else `bond:…`.

use std::collections::BTreeMap;

use bonding_proto::LinkId;
use bonding_proto::trace::format::Header;
use bonding_proto::trace::{
    Cause, KeyChange, PhaseKind, RateChanged, Record, TraceEvent, counter_of, flow_of,
};
use bonding_proto::view::LinkState;
use serde::Serialize;
use serde_json::{Value, json};

/// The format of lines.
const FORMAT: &str = "bond-trace-1";

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    time: f64,
    pub(super) name: &'static str,
    group_id: String,
    data: Value,
}

/// The state that lines are made with: names, and each link's phase.
#[derive(Debug, Default)]
pub(super) struct Lines {
    names: BTreeMap<(u16, Option<LinkId>), String>,
    phases: BTreeMap<(u16, LinkId), PhaseKind>,
}

impl Lines {
    /// The first line, about the file.
    pub(super) fn header(header: &Header) -> Line {
        let data = json!({
            "format": FORMAT,
            "vantage_point": header.side.name(),
            "reference_time_ms": header.zero_unix_us as f64 / 1e3,
        });
        Line { time: 0.0, name: "bond:trace_started", group_id: String::new(), data }
    }

    /// A link or a peer has this name.
    pub(super) fn note_name(&mut self, session: u16, link: Option<LinkId>, name: String) {
        self.names.insert((session, link), name);
    }

    /// The name of a link.
    pub(super) fn link_name(&self, session: u16, link: LinkId) -> String {
        let name = self.names.get(&(session, Some(link))).cloned();
        name.unwrap_or_else(|| format!("link{}", link.0))
    }

    /// A record's lines: two where a link's phase changed.
    pub(super) fn lines(&mut self, record: &Record) -> Vec<Line> {
        let mut lines = Vec::new();
        if let TraceEvent::RateChanged(change) = &record.event {
            let before = self.phases.insert((record.session, change.link), change.phase);
            if before != Some(change.phase) {
                let data = json!({
                    "link": self.link_name(record.session, change.link),
                    "old": before.map(PhaseKind::name),
                    "new": change.phase.name(),
                    "trigger": change.cause.map(Cause::name),
                });
                lines.push(self.line(record, "recovery:congestion_state_updated", data));
            }
        }
        let (name, data) = self.event(record);
        lines.push(self.line(record, name, data));
        lines
    }

    fn line(&self, record: &Record, name: &'static str, data: Value) -> Line {
        let peer = self.names.get(&(record.session, None)).cloned();
        let group_id = peer.unwrap_or_else(|| record.session.to_string());
        Line { time: record.at.as_micros() as f64 / 1e3, name, group_id, data }
    }

    fn event(&self, record: &Record) -> (&'static str, Value) {
        let name = |link: LinkId| self.link_name(record.session, link);
        let some_name = |link: Option<LinkId>| link.map(name);
        match record.event {
            TraceEvent::LinkState { link, from, to } => (
                "bond:link_state_updated",
                json!({ "link": name(link), "old": state(from), "new": state(to) }),
            ),
            TraceEvent::RateChanged(change) => {
                ("recovery:metrics_updated", metrics(name(change.link), &change))
            }
            TraceEvent::FlowLinks { flow, before, links } => {
                let all = |bits| self.bits(record.session, bits);
                ("bond:flow_links_updated", json!({ "flow": flow, "old": all(before), "new": all(links) }))
            }
            TraceEvent::PacketsLost { link, trigger, tries, first, count } => {
                let more = json!({ "trigger": trigger.name(), "count": count, "tries": tries });
                ("recovery:packet_lost", packet(Some(name(link)), first, more))
            }
            TraceEvent::PacketResent { link, trigger, tries, is_second, seq_num, bytes } => {
                let trigger = trigger.map(|one| one.name());
                let more =
                    json!({ "trigger": trigger, "bytes": bytes, "tries": tries, "second_link": is_second });
                ("bond:packet_resent", packet(Some(name(link)), seq_num, more))
            }
            TraceEvent::ResendsGivenUp { packets } => {
                ("bond:resends_given_up", json!({ "packets": packets }))
            }
            TraceEvent::GapOpened { link, first, count } => {
                ("bond:gap_opened", packet(some_name(link), first, json!({ "count": count })))
            }
            TraceEvent::GapClosed { by, link, first, count, waited_us, held } => {
                let waited = ms(waited_us);
                let more = json!({ "by": by.name(), "count": count, "waited_ms": waited, "held": held });
                ("bond:gap_closed", packet(some_name(link), first, more))
            }
            TraceEvent::PacketLate { link, seq_num } => {
                ("bond:packet_late", packet(some_name(link), seq_num, json!({})))
            }
            TraceEvent::KeysChanged { change, rekeys } => {
                let event = match change {
                    KeyChange::Installed | KeyChange::Confirmed => "security:key_updated",
                    KeyChange::Expired => "security:key_discarded",
                };
                (event, json!({ "trigger": change.name(), "generation": rekeys }))
            }
            TraceEvent::SessionReset { cause } => ("bond:session_reset", json!({ "trigger": cause.name() })),
            TraceEvent::PacketSent { link, seq_num, bytes } => {
                ("transport:packet_sent", packet(Some(name(link)), seq_num, json!({ "bytes": bytes })))
            }
            TraceEvent::RecordsLost { records } => ("bond:records_lost", json!({ "records": records })),
        }
    }

    /// The names of links that are a bit each.
    fn bits(&self, session: u16, bits: u32) -> Vec<String> {
        let links = (0..32_u8).filter(|link| bits >> link & 1 == 1);
        links.map(|link| self.link_name(session, LinkId(link))).collect()
    }
}

/// Microseconds as milliseconds.
fn ms(us: u32) -> f64 {
    f64::from(us) / 1e3
}

/// A packet on a link, or the first of several, and what more there is to say of it.
fn packet(link: Option<String>, seq_num: u64, more: Value) -> Value {
    let mut fields = json!({ "link": link, "flow": flow_of(seq_num), "packet_number": counter_of(seq_num) });
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}

fn metrics(link: String, change: &RateChanged) -> Value {
    let fields = json!({
        "link": link,
        "phase": change.phase.name(),
        "trigger": change.cause.map(Cause::name),
        "capacity_bps": change.capacity_bps,
        "pacing_rate": change.pacing_bps,
        "smoothed_rtt": change.rtt_us.map(ms),
        "loss_permille": change.loss_permille,
        "queue_ms": ms(change.queue_us),
        "base_delay_ms": change.base_delay_us.map(|us| us as f64 / 1e3),
        "noise_ms": ms(change.noise_us),
    });
    let Value::Object(fields) = fields else { return Value::Null };
    // Unknown fields are left out.
    fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

const fn state(state: LinkState) -> &'static str {
    match state {
        LinkState::Down => "down",
        LinkState::Suspect => "suspect",
        LinkState::Up => "up",
    }
}
