//! The far tier.

use super::*;

/// A queue with two bulk flows of 20 packets each, of which the first went far.
fn with_far_flow() -> Queue {
    let mut queue = queue(Some(mbps(10)));
    for next in 0..40 {
        queue.push(FlowId(1 + u16::from(next >= 20)), None, packet(next, 1_400), at(0)).unwrap();
    }
    queue.relocate(FlowId(1), Tier::Far);
    queue
}

#[test]
fn a_far_flow_waits_apart_from_near_ones_and_in_its_order() {
    let mut queue = with_far_flow();
    assert_eq!(queue.waiting(at(0)), [false, false, true, true]);
    let near = queue.head(Tier::Bulk, at(0)).unwrap();
    let far = queue.head(Tier::Far, at(0)).unwrap();
    assert_eq!((near.flow, far.flow), (FlowId(2), FlowId(1)));
    assert_eq!((near.backlog_bytes, far.backlog_bytes), (28_000, 28_000));
    assert_eq!((far.demand.near_flows, far.demand.far_flows), (1, 1));
    assert!(far.demand.bulk_bytes > 10_000, "what came after its burst: {}", far.demand.bulk_bytes);
    queue.push(FlowId(1), None, packet(40, 1_400), at(0)).unwrap();
    let order: Vec<u64> =
        std::iter::from_fn(|| queue.pop(Tier::Far, at(0))).map(|(_, packet)| serial(&packet)).collect();
    assert_eq!(order, (0..20).chain([40]).collect::<Vec<_>>());
    assert_eq!(queue.bytes(), 28_000);
}

#[test]
fn a_flow_is_far_until_it_was_idle_for_a_second() {
    let mut queue = with_far_flow();
    while queue.pop(Tier::Far, at(0)).is_some() {}
    // It has earned a burst, but what is under way would be overtaken.
    queue.push(FlowId(1), None, packet(50, 100), at(900)).unwrap();
    assert!(queue.is_far(FlowId(1)));
    assert_eq!(queue.pop(Tier::Far, at(900)).map(|(flow, _)| flow), Some(FlowId(1)));
    queue.waiting(at(1_901));
    assert!(!queue.is_far(FlowId(1)));
    queue.push(FlowId(1), None, packet(51, 100), at(1_901)).unwrap();
    assert_eq!(queue.head(Tier::Sparse, at(1_901)).map(|head| head.demand.far_flows), Some(0));
}

#[test]
fn a_flow_that_has_returned_says_so_and_sparse_flows_do_not_go() {
    let mut queue = with_far_flow();
    queue.relocate(FlowId(1), Tier::Bulk);
    assert_eq!(queue.waiting(at(0)), [false, false, true, false]);
    let heads: Vec<_> = std::iter::from_fn(|| {
        let head = queue.head(Tier::Bulk, at(0))?;
        queue.pop(Tier::Bulk, at(0)).map(|_| (head.flow, head.demand.has_returned))
    })
    .collect();
    assert_eq!(heads.len(), 40);
    assert!(heads.iter().all(|(flow, has_returned)| *has_returned == (*flow == FlowId(1))));
    queue.push(FlowId(3), None, packet(60, 100), at(0)).unwrap();
    queue.relocate(FlowId(3), Tier::Far);
    assert_eq!(queue.head(Tier::Sparse, at(0)).map(|head| head.flow), Some(FlowId(3)));
}
