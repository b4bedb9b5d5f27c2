//! Where a flow's packets go: earliest arrival, and its two exceptions that look at whole flows.
//!
//! - A flow that has needed slow links for a while is striped ([`stripe`]): all of its packets see
//!   one delay.
//! - While a competitor makes a link longer, whole flows are pinned to it ([`pin`]), so that the
//!   bond keeps its share there.
//!
//! What is known of a flow stands in one record ([`flow`]), and what is near and far in one place
//! ([`near`]). The caller gives the links that may carry the packet, in order of preference.

mod flow;
mod near;
mod pin;
mod stripe;

use self::flow::FlowTable;
use self::pin::{Pinning, Verdict};
use self::stripe::Striping;
use super::earliest::earliest;
use super::policy::Decision;
use crate::packet::LinkId;
use crate::qos::queue::Queued;
use crate::time::Instant;
use crate::view::LinkView;

/// The flows, and the rules that place them.
#[derive(Debug, Default)]
pub(super) struct Placement {
    flows: FlowTable,
    striping: Striping,
    pinning: Pinning,
}

impl Placement {
    /// Where a sparse packet goes.
    pub(super) fn place_sparse<'a>(
        &mut self,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
    ) -> Decision {
        let striped = self.striping.select(&mut self.flows, head, in_order.clone(), now);
        striped.unwrap_or_else(|| earliest(head, in_order, now))
    }

    /// Where a bulk packet goes. `is_competing`: a competitor fills one of the links.
    pub(super) fn place_bulk<'a>(
        &mut self,
        head: &Queued,
        in_order: impl Iterator<Item = &'a LinkView> + Clone,
        is_competing: bool,
        now: Instant,
    ) -> Decision {
        // As a rule no competitor fills a link.
        if !is_competing {
            self.flows.clear_pins();
            return self.place(head, in_order, now, |_, _, _| None);
        }
        match self.pinning.verdict(&mut self.flows, head, in_order.clone(), now) {
            Verdict::Home(link) => Decision::Send(link),
            Verdict::Leaves(left) => {
                let usable = in_order.clone().filter(move |link| !left.contains(link.id));
                self.place(head, usable, now, |pinning, flows, decision| {
                    pinning.try_pin(flows, head, decision, in_order, now)
                })
            }
        }
    }

    /// The stripe's decision or the earliest arrival, unless `pins` has a link for the flow.
    fn place<'a>(
        &mut self,
        head: &Queued,
        usable: impl Iterator<Item = &'a LinkView> + Clone,
        now: Instant,
        pins: impl FnOnce(&mut Pinning, &mut FlowTable, Decision) -> Option<LinkId>,
    ) -> Decision {
        let striped = self.striping.select(&mut self.flows, head, usable.clone(), now);
        let decision = striped.unwrap_or_else(|| earliest(head, usable.clone(), now));
        if let Some(link) = pins(&mut self.pinning, &mut self.flows, decision) {
            return Decision::Send(link);
        }
        if let (Decision::Send(link), None) = (decision, striped) {
            Striping::on_sent(&mut self.flows, head, link, usable, now);
        }
        decision
    }
}
