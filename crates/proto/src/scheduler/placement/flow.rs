//! What is known of flows: one record a flow, one bounded table.
//!
//! A record has two halves that are kept for different times: the stripe of a flow that needs slow
//! links, and the pin of a flow with bulk packets while a competitor fills a link. Each half is
//! bounded by [`FLOWS_MAX`] on its own, so that flows of the one kind leave the other kind its
//! room. A flow beyond the bound goes as any flow without a record.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::packet::LinkId;
use crate::qos::flow::FlowId;
use crate::scheduler::params::{FLOWS_MAX, PAUSE, STAYS_MAX, STAYS_SHARE, STRIPE_AFTER, SWEEP_INTERVAL};
use crate::time::Instant;
use crate::view::LinkView;

/// A time without a pause of [`PAUSE`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    /// Since when, and when last.
    pub(super) since: Instant,
    pub(super) last: Instant,
}

impl Spell {
    const fn begin(now: Instant) -> Self {
        Self { since: now, last: now }
    }

    /// Whether it is over, where it outlasts pauses of `pause`.
    fn is_over(self, pause: Duration, now: Instant) -> bool {
        now > self.last + pause
    }
}

/// A flow that needs slow links, or did lately.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stripe {
    /// In which it needed slow links.
    pub(super) spell: Spell,
    /// The slowest link that it needed of late.
    pub(super) far: LinkId,
    /// When it last needed the far link.
    far_at: Instant,
    /// When all that was sent of it will have arrived, on the clock of delays.
    pub(super) arrives_us: i64,
    /// Until when it is to see one delay; `None`: it has not needed slow links for long enough.
    until: Option<Instant>,
}

impl Stripe {
    /// Of a flow whose first packet goes over the slow link `far`.
    pub(super) const fn begin(far: LinkId, arrives_us: i64, now: Instant) -> Self {
        Self { spell: Spell::begin(now), far, far_at: now, arrives_us, until: None }
    }

    /// For how long after its last need of a slow link it stays striped.
    fn stays(&self) -> Duration {
        let striped = self.spell.last.saturating_since(self.spell.since);
        if striped < STRIPE_AFTER { Duration::ZERO } else { (striped / STAYS_SHARE).min(STAYS_MAX) }
    }

    /// Whether the flow is to see one delay.
    fn is_active(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now <= until)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.spell.is_over(self.stays().max(PAUSE), now)
    }

    /// The flow needs `link`, which is slow. `far_us`: the delay of the far link.
    pub(super) fn go_on(&mut self, link: &LinkView, far_us: i64, now: Instant) {
        self.spell.last = now;
        self.until = Some(self.stays()).filter(|stays| !stays.is_zero()).map(|stays| now + stays);
        if link.delay_us >= far_us || now.saturating_since(self.far_at) > STAYS_MAX {
            self.far = link.id;
        }
        if self.far == link.id {
            self.far_at = now;
        }
    }
}

/// A flow with bulk packets, and the link that it is pinned to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    /// In which it had bulk packets.
    pub(super) spell: Spell,
    pub(super) home: Option<LinkId>,
}

impl Pin {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.spell.is_over(PAUSE, now)
    }
}

/// What is known of one flow. One half at least is there.
#[derive(Debug, Clone, Copy, Default)]
struct FlowRecord {
    stripe: Option<Stripe>,
    pin: Option<Pin>,
}

impl FlowRecord {
    const fn is_empty(&self) -> bool {
        self.stripe.is_none() && self.pin.is_none()
    }
}

/// The records of the flows.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    records: BTreeMap<FlowId, FlowRecord>,
    /// Records with a stripe, and with a pin.
    stripes: usize,
    pins: usize,
    /// When stripes that are over were last dropped.
    swept_at: Option<Instant>,
}

impl FlowTable {
    /// The stripe of a flow that is to see one delay.
    pub(super) fn active_stripe(&mut self, flow: FlowId, now: Instant) -> Option<&mut Stripe> {
        let stripe = self.records.get_mut(&flow)?.stripe.as_mut();
        stripe.filter(|stripe| stripe.is_active(now))
    }

    /// A flow's stripe, which begins as `fresh` where there was none or the last is over. `None`:
    /// there is no room.
    pub(super) fn stripe(&mut self, flow: FlowId, fresh: Stripe, now: Instant) -> Option<&mut Stripe> {
        if self.stripes >= FLOWS_MAX && !self.has_stripe(flow) && !self.sweep_stripes(now) {
            return None;
        }
        let kept = &mut self.records.entry(flow).or_default().stripe;
        self.stripes += usize::from(kept.is_none());
        let stripe = kept.get_or_insert(fresh);
        if stripe.is_over(now) {
            *stripe = fresh;
        }
        Some(stripe)
    }

    fn has_stripe(&self, flow: FlowId) -> bool {
        self.records.get(&flow).is_some_and(|record| record.stripe.is_some())
    }

    /// Drops stripes that are over, once an interval; whether there is room then.
    fn sweep_stripes(&mut self, now: Instant) -> bool {
        if self.swept_at.is_some_and(|at| now.saturating_since(at) < SWEEP_INTERVAL) {
            return false;
        }
        self.swept_at = Some(now);
        self.records.retain(|_, record| {
            record.stripe = record.stripe.filter(|stripe| !stripe.is_over(now));
            !record.is_empty()
        });
        self.stripes = self.records.values().filter(|record| record.stripe.is_some()).count();
        self.stripes < FLOWS_MAX
    }

    /// A flow's pin, after a bulk packet of the flow. `None`: there is no room.
    pub(super) fn pin(&mut self, flow: FlowId, now: Instant) -> Option<&mut Pin> {
        if self.pins >= FLOWS_MAX {
            self.retain_pins(|pin| !pin.is_over(now));
        }
        if self.pins >= FLOWS_MAX && self.known_pin(flow).is_none() {
            return None;
        }
        let kept = &mut self.records.entry(flow).or_default().pin;
        self.pins += usize::from(kept.is_none());
        let fresh = Pin { spell: Spell::begin(now), home: None };
        let pin = kept.get_or_insert(fresh);
        if pin.is_over(now) {
            *pin = fresh;
        }
        pin.spell.last = now;
        Some(pin)
    }

    /// A flow's pin, where there is one.
    pub(super) fn known_pin(&self, flow: FlowId) -> Option<&Pin> {
        self.records.get(&flow)?.pin.as_ref()
    }

    /// The same to be changed.
    pub(super) fn known_pin_mut(&mut self, flow: FlowId) -> Option<&mut Pin> {
        self.records.get_mut(&flow)?.pin.as_mut()
    }

    /// All pins, by flow.
    pub(super) fn pins(&self) -> impl Iterator<Item = (FlowId, &Pin)> {
        self.records.iter().filter_map(|(flow, record)| Some((*flow, record.pin.as_ref()?)))
    }

    /// Drops all pins. As a rule there are none.
    #[inline]
    pub(super) fn clear_pins(&mut self) {
        if self.pins != 0 {
            self.drop_pins();
        }
    }

    #[inline(never)]
    fn drop_pins(&mut self) {
        self.retain_pins(|_| false);
    }

    fn retain_pins(&mut self, stays: impl Fn(&Pin) -> bool) {
        self.records.retain(|_, record| {
            record.pin = record.pin.filter(&stays);
            !record.is_empty()
        });
        self.pins = self.pins().count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);
    const FAR: LinkId = LinkId(1);

    fn stripe(table: &mut FlowTable, flow: u16, now: Instant) -> bool {
        table.stripe(FlowId(flow), Stripe::begin(FAR, 0, now), now).is_some()
    }

    #[test]
    fn striped_flows_are_bounded_and_those_that_are_over_make_room() {
        let mut table = FlowTable::default();
        for flow in 1..=1_000 {
            stripe(&mut table, flow, NOW);
        }
        assert_eq!((table.records.len(), table.stripes), (FLOWS_MAX, FLOWS_MAX));
        assert!(stripe(&mut table, 2_000, NOW + Duration::from_secs(1)));
        assert_eq!((table.records.len(), table.stripes), (1, 1));
    }

    #[test]
    fn pins_are_bounded_and_those_that_are_over_make_room() {
        let mut table = FlowTable::default();
        for flow in 1..=1_000 {
            table.pin(FlowId(flow), NOW);
        }
        assert_eq!((table.records.len(), table.pins), (FLOWS_MAX, FLOWS_MAX));
        assert!(table.pin(FlowId(2_000), NOW + Duration::from_secs(1)).is_some());
        assert_eq!((table.records.len(), table.pins), (1, 1));
    }

    #[test]
    fn either_half_of_a_record_goes_without_the_other() {
        let mut table = FlowTable::default();
        for flow in 1..=1_000 {
            table.pin(FlowId(flow), NOW);
        }
        assert!(stripe(&mut table, 1, NOW), "a pin has a stripe beside it");
        assert!(stripe(&mut table, 2_000, NOW), "full of pins is not full of stripes");
        assert_eq!((table.records.len(), table.pins, table.stripes), (FLOWS_MAX + 1, FLOWS_MAX, 2));
        table.clear_pins();
        assert_eq!((table.records.len(), table.pins, table.stripes), (2, 0, 2));
        assert!(table.known_pin(FlowId(1)).is_none() && table.has_stripe(FlowId(1)));
        table.pin(FlowId(2_000), NOW + Duration::from_secs(1));
        table.sweep_stripes(NOW + Duration::from_secs(1));
        assert_eq!((table.records.len(), table.pins, table.stripes), (1, 1, 0));
    }
}
