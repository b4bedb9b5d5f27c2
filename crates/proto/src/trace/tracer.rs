//! The ring of one session, and the methods that its hooks call. Every hook begins with one branch:
//! whether there is a ring. The rest stands apart, so that the session's code does not grow by it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{
    KeyChange, Level, LossTrigger, PhaseKind, RateChanged, Record, ResetCause, TraceEvent, flow_of,
};
use super::holds::HoldTracer;
use super::ring::{Ring, sort};
use crate::packet::{KeptPacket, LinkId};
use crate::stats::{ControlStats, RecoveryStats};
use crate::time::Instant;
use crate::view::{LinkState, LinkView};

/// A flow uses a link until it has not used it for so long. Chosen: a slow link of a wide bundle
/// has a turn in this time.
const FLOW_WINDOW: Duration = Duration::from_millis(500);

/// Flows that are followed; of two that share a place the present one is. Chosen: 6 kB.
const FLOWS: usize = 256;

/// Lost packets whose trigger is remembered until they are sent again. Chosen: 200 kB.
const TRIGGERS_MAX: usize = 4_096;

/// A capacity that changed by less than this part is not worth a record.
const CAPACITY_CHANGE: u64 = 16;

/// One followed flow.
#[derive(Debug, Clone, Copy, Default)]
struct FlowEntry {
    flow: u16,
    /// The links as recorded, a bit each; 0: the place is free.
    recorded: u32,
    /// The links used since `since`.
    used: u32,
    since: Instant,
}

/// The last record of a link's rate.
#[derive(Debug, Clone, Copy)]
struct Known {
    phase: PhaseKind,
    capacity_bps: Option<u64>,
}

/// A link's figures at one moment, and what the session resent.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) view: LinkView,
    pub(crate) control: ControlStats,
    pub(crate) recovery: RecoveryStats,
}

#[derive(Debug)]
struct Trace {
    level: Level,
    ring: Ring,
    known: Vec<Option<Known>>,
    flows: Vec<FlowEntry>,
    triggers: BTreeMap<u64, LossTrigger>,
    given_up: u64,
}

impl Trace {
    fn new(level: Level) -> Self {
        Self {
            level,
            ring: Ring::default(),
            known: Vec::new(),
            flows: vec![FlowEntry::default(); FLOWS],
            triggers: BTreeMap::new(),
            given_up: 0,
        }
    }

    #[inline(never)]
    fn note_data(&mut self, link: LinkId, seq_num: u64, bytes: usize, now: Instant) {
        if self.level == Level::Packets {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            self.ring.push(TraceEvent::PacketSent { link, seq_num, bytes }, now);
        }
        let flow = flow_of(seq_num);
        let Some(entry) = self.flows.get_mut(usize::from(flow) % FLOWS) else { return };
        if entry.flow != flow {
            *entry = FlowEntry::default();
        }
        let bit = 1_u32.checked_shl(link.0.into()).unwrap_or(0);
        if now.saturating_since(entry.since) >= FLOW_WINDOW {
            if entry.recorded & !entry.used != 0 {
                let (before, links) = (entry.recorded, entry.used | bit);
                entry.recorded = links;
                self.ring.push(TraceEvent::FlowLinks { flow, before, links }, now);
            }
            (entry.used, entry.since) = (0, now);
        }
        entry.used |= bit;
        if entry.recorded & bit == 0 {
            let (before, links) = (entry.recorded, entry.recorded | bit);
            (entry.flow, entry.recorded) = (flow, links);
            self.ring.push(TraceEvent::FlowLinks { flow, before, links }, now);
        }
    }

    #[inline(never)]
    fn note_figures(&mut self, figures: &Figures, now: Instant) {
        let Figures { view, control, recovery } = figures;
        let packets = recovery.given_up.saturating_sub(self.given_up);
        if packets > 0 {
            self.given_up = recovery.given_up;
            let packets = u32::try_from(packets).unwrap_or(u32::MAX);
            self.ring.push(TraceEvent::ResendsGivenUp { packets }, now);
        }
        let (phase, capacity_bps) = (control.phase, control.capacity.map(|rate| rate.as_bps()));
        if self.known.len() <= view.id.index() {
            self.known.resize(view.id.index() + 1, None);
        }
        let Some(known) = self.known.get_mut(view.id.index()) else { return };
        if known.is_some_and(|known| known.phase == phase && is_close(known.capacity_bps, capacity_bps)) {
            return;
        }
        *known = Some(Known { phase, capacity_bps });
        let change = RateChanged {
            link: view.id,
            phase,
            cause: control.cause,
            loss_permille: view.loss_permille,
            capacity_bps,
            pacing_bps: view.rate.as_bps(),
            rtt_us: Some(micros(view.rtt)).filter(|us| *us > 0),
            queue_us: micros(control.queue),
            base_delay_us: control.base_delay_us,
            noise_us: micros(control.noise),
        };
        self.ring.push(TraceEvent::RateChanged(change), now);
    }

    #[inline(never)]
    fn note_lost(&mut self, link: LinkId, trigger: LossTrigger, lost: &[KeptPacket], now: Instant) {
        for run in lost.chunk_by(follows) {
            let Some(head) = run.first() else { continue };
            let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
            let (first, tries) = (head.data().seq_num, head.tries());
            self.ring.push(TraceEvent::PacketsLost { link, trigger, tries, first, count }, now);
        }
        for packet in lost {
            self.triggers.insert(packet.data().seq_num, trigger);
            if self.triggers.len() > TRIGGERS_MAX {
                self.triggers.pop_first();
            }
        }
    }

    #[inline(never)]
    fn note_resent(&mut self, link: LinkId, packet: &KeptPacket, is_second: bool, now: Instant) {
        let seq_num = packet.data().seq_num;
        // The second link's record comes before the first one's.
        let trigger =
            if is_second { self.triggers.get(&seq_num).copied() } else { self.triggers.remove(&seq_num) };
        let bytes = u16::try_from(packet.data().packet.len()).unwrap_or(u16::MAX);
        let tries = packet.tries();
        self.ring.push(TraceEvent::PacketResent { link, trigger, tries, is_second, seq_num, bytes }, now);
    }
}

/// Whether one lost packet belongs to the record of the one before it.
fn follows(one: &KeptPacket, next: &KeptPacket) -> bool {
    one.data().seq_num + 1 == next.data().seq_num && one.tries() == next.tries()
}

/// Whole microseconds; what does not fit is the largest number.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Whether two capacities differ by less than a sixteenth.
fn is_close(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= one / CAPACITY_CHANGE,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// A session's trace; empty while tracing is off.
#[derive(Debug, Default)]
pub(crate) struct Tracer(Option<Box<Trace>>);

impl Tracer {
    /// Sets the level; records that are not drained yet are dropped.
    pub(crate) fn set_level(&mut self, level: Level) {
        self.0 = (level != Level::Off).then(|| Box::new(Trace::new(level)));
    }

    /// Appends the records of the session and of its resequencer, in the order of time.
    pub(crate) fn drain(&mut self, holds: [&mut HoldTracer; 2], out: &mut Vec<Record>) {
        let Some(trace) = &mut self.0 else { return };
        let from = out.len();
        trace.ring.drain(out);
        holds.into_iter().for_each(|holds| holds.drain(out));
        sort(out, from);
    }

    /// A link changed its state.
    #[inline]
    pub(crate) fn on_link_state(&mut self, link: LinkId, from: LinkState, to: LinkState, now: Instant) {
        if let Some(trace) = &mut self.0 {
            trace.ring.push(TraceEvent::LinkState { link, from, to }, now);
        }
    }

    /// Feedback or a heartbeat came on a link: its rate may have changed. `figures` are computed
    /// only where there is a ring.
    #[inline]
    pub(crate) fn on_figures(&mut self, figures: impl FnOnce() -> Option<Figures>, now: Instant) {
        if let Some(trace) = &mut self.0
            && let Some(figures) = figures()
        {
            trace.note_figures(&figures, now);
        }
    }

    /// A data packet is sent, in a datagram of `bytes`. The one hook on the way of each packet.
    #[inline]
    pub(crate) fn on_data(&mut self, link: LinkId, seq_num: u64, bytes: usize, now: Instant) {
        if let Some(trace) = &mut self.0 {
            trace.note_data(link, seq_num, bytes, now);
        }
    }

    /// Packets were lost on the link.
    #[inline]
    pub(crate) fn on_lost(&mut self, link: LinkId, trigger: LossTrigger, lost: &[KeptPacket], now: Instant) {
        if let Some(trace) = &mut self.0 {
            trace.note_lost(link, trigger, lost, now);
        }
    }

    /// A packet is sent again over the link; `is_second`: beside another link.
    #[inline]
    pub(crate) fn on_resent(&mut self, link: LinkId, packet: &KeptPacket, is_second: bool, now: Instant) {
        if let Some(trace) = &mut self.0 {
            trace.note_resent(link, packet, is_second, now);
        }
    }

    /// The keys changed.
    #[inline]
    pub(crate) fn on_keys(&mut self, change: KeyChange, rekeys: u64, now: Instant) {
        if let Some(trace) = &mut self.0 {
            let rekeys = u32::try_from(rekeys).unwrap_or(u32::MAX);
            trace.ring.push(TraceEvent::KeysChanged { change, rekeys }, now);
        }
    }

    /// The session begins anew.
    #[inline]
    pub(crate) fn on_reset(&mut self, cause: ResetCause, now: Instant) {
        if let Some(trace) = &mut self.0 {
            trace.ring.push(TraceEvent::SessionReset { cause }, now);
        }
    }
}
