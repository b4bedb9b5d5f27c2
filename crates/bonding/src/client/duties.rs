//! What each link is for at the moment: as configured, or as an operator said since.
//!
//! ```text
//! role      = the operator's, else the file's; at most a backup while the data cap is used up
//! priority  = the operator's, else the file's
//! ```
//! Contract: an operator's word lives until the next reload or the end of the process, whichever
//! comes first: after both, the file alone says what links are for. It is nowhere written down.

use std::collections::BTreeMap;

use bonding_proto::LinkId;
use bonding_proto::view::LinkRole;

use crate::engine::command::LinkOrder;
use crate::engine::plan::LinkPlan;

/// What an operator said of one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ByHand {
    role: Option<LinkRole>,
    priority: Option<u8>,
}

/// What an operator said of links.
#[derive(Debug, Default)]
pub(super) struct Duties(BTreeMap<LinkId, ByHand>);

impl Duties {
    /// Takes an operator's order about a link.
    pub(super) fn order(&mut self, id: LinkId, link: &LinkPlan, order: LinkOrder) {
        let by_hand = self.0.entry(id).or_default();
        match order {
            LinkOrder::Demote => by_hand.role = Some(link.role.max(LinkRole::Backup)),
            // By the file the link would not serve, which is no enabled link.
            LinkOrder::Enable if link.role >= LinkRole::Backup => by_hand.role = Some(LinkRole::Primary),
            LinkOrder::Enable => by_hand.role = None,
            LinkOrder::Priority(priority) => by_hand.priority = Some(priority),
        }
        by_hand.role = by_hand.role.filter(|role| *role != link.role);
        by_hand.priority = by_hand.priority.filter(|priority| *priority != link.priority);
        if *by_hand == ByHand::default() {
            self.0.remove(&id);
        }
    }

    /// The file speaks again. Gives the links of which an operator had said something else.
    pub(super) fn forget(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.0).into_keys().collect()
    }

    /// The link is gone, and with it what an operator said of it.
    pub(super) fn forget_link(&mut self, id: LinkId) {
        self.0.remove(&id);
    }

    /// Whether the link is for something else than the file says.
    pub(super) fn is_by_hand(&self, id: LinkId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn role(&self, id: LinkId, link: &LinkPlan, is_used_up: bool) -> LinkRole {
        let role = self.0.get(&id).and_then(|by_hand| by_hand.role).unwrap_or(link.role);
        if is_used_up { role.max(LinkRole::Backup) } else { role }
    }

    pub(super) fn priority(&self, id: LinkId, link: &LinkPlan) -> u8 {
        self.0.get(&id).and_then(|by_hand| by_hand.priority).unwrap_or(link.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::super::caps::tests::plan;
    use super::*;

    const ID: LinkId = LinkId(0);

    #[test]
    fn an_order_holds_until_the_file_speaks_again() {
        let mut duties = Duties::default();
        let link = plan("lte", LinkRole::Secondary, None);
        duties.order(ID, &link, LinkOrder::Demote);
        duties.order(ID, &link, LinkOrder::Priority(9));
        let now = |duties: &Duties| (duties.role(ID, &link, false), duties.priority(ID, &link));
        assert_eq!((now(&duties), duties.is_by_hand(ID)), ((LinkRole::Backup, 9), true));
        duties.order(ID, &link, LinkOrder::Enable);
        assert_eq!((now(&duties), duties.is_by_hand(ID)), ((LinkRole::Secondary, 9), true));
        duties.order(ID, &link, LinkOrder::Priority(1));
        assert!(!duties.is_by_hand(ID), "that is what the file says");
        duties.order(ID, &link, LinkOrder::Demote);
        assert_eq!(duties.forget(), [ID]);
        assert_eq!((now(&duties), duties.is_by_hand(ID)), ((LinkRole::Secondary, 1), false));
    }

    #[test]
    fn a_spare_link_that_is_enabled_serves_and_no_order_goes_beyond_a_cap() {
        let mut duties = Duties::default();
        for role in [LinkRole::Backup, LinkRole::Never] {
            let link = plan("spare", role, None);
            duties.order(ID, &link, LinkOrder::Enable);
            assert_eq!(duties.role(ID, &link, false), LinkRole::Primary);
            assert_eq!(duties.role(ID, &link, true), LinkRole::Backup);
            duties.order(ID, &link, LinkOrder::Demote);
            assert_eq!(duties.role(ID, &link, false), role, "it was no more before");
        }
        let never = plan("spare", LinkRole::Never, None);
        assert_eq!(duties.role(ID, &never, true), LinkRole::Never, "that is less than a backup");
    }
}
