//! Datagrams without data: control frames, heartbeats, feedback, indirect feedback and probes of
//! paths. They are sent when they are due, and never wait behind data. Each function sends the
//! first one that is due.

use crate::config::Security;
use crate::link::{Link, Report};
use crate::packet::{Destination, Transmit};
use crate::session::sealing::{Keyring, SEALING_BYTES, SealedAs};
use crate::session::writer::{DatagramWriter, begin_datagram, finish_control, overhead};
use crate::time::Instant;
use crate::view::{LinkRole, LinkState};
use crate::wire::feedback::{self, FRAMES_MAX, Feedback};
use crate::wire::heartbeat::payload_bytes;
use crate::wire::{self, FRAME_HEADER_BYTES, Kind, Modifiers};

/// What every heartbeat of a session says.
#[derive(Debug, Clone, Copy)]
pub(in crate::session) struct Greeting {
    /// This side's run.
    pub(in crate::session) epoch: u32,
    /// The peer's run, where known, as sealed and plain links have it.
    pub(in crate::session) sealed_epoch: Option<u32>,
    pub(in crate::session) plain_epoch: Option<u32>,
    /// This side sends again what is lost.
    pub(in crate::session) resends: bool,
    /// This side takes streams.
    pub(in crate::session) streams: bool,
}

/// What a link has to send besides data. As a rule there is nothing, and one check of each link
/// says so. Links need not carry inner packets of more than `packet_max`.
pub(in crate::session) fn transmit(
    writer: &mut DatagramWriter<'_>,
    greeting: &Greeting,
    packet_max: usize,
) -> Option<Transmit> {
    let has_due = writer.links.iter().any(|link| link.has_due(packet_max, writer.now));
    if !has_due && cfg!(not(debug_assertions)) {
        return None;
    }
    let transmit = transmit_first(writer, greeting, packet_max);
    debug_assert!(has_due || transmit.is_none(), "what is sent was due: {transmit:?}");
    transmit
}

/// Apart, so that its locals are not set up for each batch of data.
#[inline(never)]
fn transmit_first(
    writer: &mut DatagramWriter<'_>,
    greeting: &Greeting,
    packet_max: usize,
) -> Option<Transmit> {
    control(writer)
        .or_else(|| heartbeat(writer, greeting))
        .or_else(|| own_feedback(writer))
        .or_else(|| indirect_feedback(writer))
        .or_else(|| probe(writer, packet_max))
}

/// A control frame. What an unproven address may not be sent yet is dropped: challenges are
/// repeated.
fn control(writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
    if !writer.can_seal() {
        return None;
    }
    let DatagramWriter { buf, links, keyring, now, .. } = writer;
    for link in links.iter_mut().filter(|link| link.security() == Security::Sealed) {
        while let Some((Destination { path, flow }, control)) = link.path_mut().poll_control(*now) {
            let len = control.payload_bytes();
            if !link.path_mut().try_spend(flow, SEALING_BYTES + FRAME_HEADER_BYTES + usize::from(len)) {
                continue;
            }
            let start = buf.len();
            buf.extend_from_slice(&Keyring::HEADER_ROOM);
            wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, len);
            control.put(buf);
            let size = finish_control(link, keyring, buf, (start, flow), *now);
            return Some(Transmit::new(link.id(), path, size, size));
        }
    }
    None
}

fn heartbeat(writer: &mut DatagramWriter<'_>, greeting: &Greeting) -> Option<Transmit> {
    let can_seal = writer.can_seal();
    let (failed, retired) = (writer.links.failed(), writer.links.retired());
    let DatagramWriter { buf, links, keyring, now, .. } = writer;
    for link in links.iter_mut() {
        let due = link.heartbeats().due_at().is_some_and(|at| at <= *now);
        let may_send = can_seal || link.security() == Security::Plain;
        if !due || !may_send || !link.path().is_known() {
            continue;
        }
        let Some(Destination { path, flow }) = link.heartbeat_destination(*now) else { continue };
        let start = buf.len();
        // Plain links say nothing of it: their heartbeats are not authenticated.
        let retired = if link.security() == Security::Sealed { retired } else { 0 };
        let payload = payload_bytes(failed, link.wanted_flows().is_some(), retired);
        let bytes = overhead(link.security()) + usize::from(payload);
        if !link.path_mut().try_spend(flow, bytes) {
            link.skip_heartbeat(*now);
            continue;
        }
        let (seq_num, mut heartbeat) = link.next_heartbeat(greeting.epoch, flow, *now);
        let is_ect = link.heartbeats().may_mark();
        heartbeat.resends = greeting.resends && link.security() == Security::Sealed;
        heartbeat.streams = greeting.streams && link.security() == Security::Sealed;
        heartbeat.failed = failed;
        heartbeat.retired = retired;
        let peer_epoch = match link.security() {
            Security::Sealed => greeting.sealed_epoch,
            Security::Plain => greeting.plain_epoch,
        };
        heartbeat.echo = peer_epoch.and_then(|epoch| link.heartbeats().echo(epoch, *now));
        begin_datagram(link.security(), buf);
        wire::put_frame_header(buf, seq_num, Kind::Heartbeat, Modifiers::NONE, heartbeat.payload_bytes());
        heartbeat.put(buf);
        // On a path that is still to prove itself every byte counts.
        if link.security() == Security::Sealed && link.has_feedback() && link.path().trusts(flow) {
            put_feedback(link, keyring, buf, *now);
        }
        if link.security() == Security::Sealed && link.path().trusts(flow) {
            put_figures(link, buf, *now);
        }
        let size = finish_control(link, keyring, buf, (start, flow), *now);
        return Some(Transmit { is_ect, ..Transmit::new(link.id(), path, size, size) });
    }
    None
}

/// Feedback about a link, over the same link.
fn own_feedback(writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
    if !writer.can_seal() {
        return None;
    }
    let DatagramWriter { buf, links, keyring, now, .. } = writer;
    for link in links.iter_mut() {
        let is_due = link.feedback_at().is_some_and(|at| at <= *now) && link.path().is_trusted();
        let to = link.path().destination().filter(|_| is_due);
        let Some(Destination { path, flow }) = to else { continue };
        let start = buf.len();
        buf.extend_from_slice(&Keyring::HEADER_ROOM);
        if !put_feedback(link, keyring, buf, *now) {
            buf.truncate(start);
            continue;
        }
        let size = finish_control(link, keyring, buf, (start, flow), *now);
        return Some(Transmit::new(link.id(), path, size, size));
    }
    None
}

/// Feedback about a link that goes over another link: of those that are proven, the nearest.
fn indirect_feedback(writer: &mut DatagramWriter<'_>) -> Option<Transmit> {
    let can_seal = writer.can_seal();
    let DatagramWriter { buf, links, keyring, now, .. } = writer;
    for at in 0..u8::try_from(links.len()).unwrap_or(u8::MAX) {
        let Some(about) = links.get_mut(crate::packet::LinkId(at)) else { break };
        let id = about.id();
        let Some(report) = about.take_indirect_feedback().filter(|_| can_seal) else { continue };
        let carries = |link: &&mut Link| {
            let is_used = link.link_role() != LinkRole::Never && link.security() == Security::Sealed;
            link.id() != id && link.state() == LinkState::Up && link.path().is_trusted() && is_used
        };
        let others = links.iter_mut().filter(carries);
        let Some(link) = others.min_by_key(|link| (link.link_role(), link.rtt(), link.id())) else {
            continue;
        };
        let Some(Destination { path, flow }) = link.path().destination() else { continue };
        let Some(feedback) = feedback(&report, id.0, keyring, *now) else { continue };
        let start = buf.len();
        buf.extend_from_slice(&Keyring::HEADER_ROOM);
        let seq_num = feedback::seq_num_about(id.0);
        wire::put_frame_header(buf, seq_num, Kind::Feedback, Modifiers::NONE, feedback.payload_bytes());
        feedback.put(buf);
        let size = finish_control(link, keyring, buf, (start, flow), *now);
        return Some(Transmit::new(link.id(), path, size, size));
    }
    None
}

/// A probe of how large datagrams a path carries.
fn probe(writer: &mut DatagramWriter<'_>, packet_max: usize) -> Option<Transmit> {
    if !writer.can_seal() {
        return None;
    }
    let DatagramWriter { buf, links, keyring, now, .. } = writer;
    let (mut moved, mut transmit) = (false, None);
    for link in links.iter_mut() {
        let (probe, other_path) = link.poll_probe(packet_max, *now);
        moved |= other_path;
        let to = link.path().destination();
        let (Some(probe), Some(Destination { path, flow })) = (probe, to) else { continue };
        let start = buf.len();
        buf.extend_from_slice(&Keyring::HEADER_ROOM);
        wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, probe.payload_bytes());
        probe.put(buf);
        let sealed_as = keyring.seal((link.id(), flow), buf, start, *now);
        let size = buf.len() - start;
        link.on_probe_sent(size, sealed_as.map(SealedAs::name), *now);
        transmit = Some(Transmit::new(link.id(), path, size, size));
        break;
    }
    if moved {
        links.on_probed_path_moved();
    }
    transmit
}

/// Appends what the heartbeat tells of this side's sending, if that is due.
fn put_figures(link: &mut Link, buf: &mut Vec<u8>, now: Instant) {
    if let Some(figures) = link.take_figures(now) {
        wire::put_frame_header(buf, 0, Kind::Control, Modifiers::NONE, figures.payload_bytes());
        figures.put(buf);
    }
}

/// Appends feedback, as a rule one frame; `false`: there is nothing to tell.
fn put_feedback(link: &mut Link, keyring: &Keyring, buf: &mut Vec<u8>, now: Instant) -> bool {
    let Some(report) = link.report(now) else { return false };
    let Some(mut next) = feedback(&report, link.id().0, keyring, now) else { return false };
    // On a link that reorders, what one frame has no room for may have arrived since the last one.
    let depth = link.rx_reordering(now).map_or(0, |(packets, _)| packets);
    let until = report.largest.saturating_sub(depth);
    for _ in 0..FRAMES_MAX {
        wire::put_frame_header(buf, 0, Kind::Feedback, Modifiers::NONE, next.payload_bytes());
        next.put(buf);
        let Some(below) = next.runs.rest(next.largest).filter(|below| *below > until) else { break };
        let Some((largest, runs)) = keyring.runs(report.key, link.id().0, below) else { break };
        next = Feedback { largest, runs, ..next };
    }
    true
}

/// What the report says, with what is missing; `None`: its key is over.
fn feedback(report: &Report, link: u8, keyring: &Keyring, now: Instant) -> Option<Feedback> {
    let (_, runs) = keyring.runs(report.key, link, report.largest)?;
    let hold = now.saturating_since(report.largest_at).as_micros();
    let before = report.largest_at.saturating_since(report.least_at).as_micros() / 16;
    Some(Feedback {
        marked: report.marked,
        key: report.key,
        largest: report.largest,
        arrival_us: u32::try_from(report.largest_at.as_micros() % (1 << 32)).unwrap_or_default(),
        hold_us: u32::try_from(hold).unwrap_or(u32::MAX),
        least_back: u16::try_from(report.largest.saturating_sub(report.least)).unwrap_or(0),
        least_before: u16::try_from(before).unwrap_or(u16::MAX),
        received: report.received,
        runs,
    })
}
