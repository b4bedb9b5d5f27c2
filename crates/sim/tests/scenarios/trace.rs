//! Traces of whole runs: they change no run, and they tell of each loss and its resend.

use std::collections::BTreeSet;

use bonding_netem::scenario;
use bonding_proto::config::Policy;
use bonding_proto::trace::format::{Decoder, Entry, Side};
use bonding_proto::trace::{GapEnd, PhaseKind, RateChanged, TraceEvent};
use bonding_proto::view::LinkState;
use bonding_sim::run::{Row, RunSpec, System, Workload, run};
use bonding_sim::trace::Trace;

/// A run of five seconds, and its trace where one is wanted.
fn lossy(workload: &str, with_trace: bool) -> (Row, Trace) {
    let scenario = scenario::builtin("lossy-3").expect("a built-in scenario");
    let workload = Workload::parse(workload).expect("a workload");
    let mut spec = RunSpec::new(scenario, System::Bond(Policy::Adaptive), workload, 1);
    spec.duration = std::time::Duration::from_secs(5);
    let mut trace = Trace::new();
    let row = run(&spec, Some(&mut trace).filter(|_| with_trace));
    (row, trace)
}

#[test]
fn a_trace_changes_nothing_that_is_sent() {
    let (without, none) = lossy("quic-cubic-down-4", false);
    let (with, trace) = lossy("quic-cubic-down-4", true);
    assert!(none.decisions(Side::Server).is_empty());
    assert!(trace.decisions(Side::Server).len() > 100);
    assert_eq!(with.trace_hash, without.trace_hash);
    assert_eq!(with.link_bytes, without.link_bytes);
    assert_eq!((with.retransmits, with.late), (without.retransmits, without.late));
}

#[test]
fn a_session_under_loss_records_each_loss_its_resend_and_what_the_receiver_waited_for() {
    let (_, trace) = lossy("quic-cubic-down-4", true);
    let (mut lost, mut unexplained) = (BTreeSet::new(), 0);
    let (mut losses, mut resends) = (0, 0);
    for record in trace.decisions(Side::Server) {
        if let TraceEvent::PacketsLost { first, count, .. } = record.event {
            losses += count;
            lost.extend((0..u64::from(count)).map(|at| first + at));
        }
        if let TraceEvent::PacketResent { seq_num, trigger, is_second: false, .. } = record.event {
            resends += 1;
            unexplained += u32::from(trigger.is_none() || !lost.contains(&seq_num));
        }
    }
    let figures = trace.figures().iter().find(|(side, _)| *side == "server").map(|(_, stats)| stats.recovery);
    assert_eq!(Some(resends), figures.map(|recovery| recovery.resent));
    assert!(resends > 500 && u64::from(losses) >= resends, "{losses} {resends}");
    assert_eq!(unexplained, 0);

    let ended = |by: GapEnd| {
        let is = |event: &TraceEvent| matches!(event, TraceEvent::GapClosed { by: how, .. } if *how == by);
        trace.decisions(Side::Client).iter().filter(|record| is(&record.event)).count()
    };
    let opened = |event: &TraceEvent| matches!(event, TraceEvent::GapOpened { .. });
    let opened = trace.decisions(Side::Client).iter().filter(|record| opened(&record.event)).count();
    let closed: usize = GapEnd::ALL.iter().map(|by| ended(*by)).sum();
    assert!(opened > 500, "{opened}");
    assert!(closed <= opened + 50 && opened <= closed + 50, "{opened} opened, {closed} closed");
    // Resends fill nearly all gaps.
    assert!(ended(GapEnd::Arrived) * 10 > closed * 9, "{} of {closed}", ended(GapEnd::Arrived));
}

#[test]
fn states_rates_flows_and_keys_are_recorded_in_the_order_of_time_and_the_file_holds_them() {
    let (_, trace) = lossy("tcp-cubic-down-1", true);
    for side in [Side::Client, Side::Server] {
        let records = trace.decisions(side);
        assert!(records.is_sorted_by_key(|record| record.at));
        let count = |is: fn(&TraceEvent) -> bool| records.iter().filter(|record| is(&record.event)).count();
        let up = count(|event| matches!(event, TraceEvent::LinkState { to: LinkState::Up, .. }));
        assert!(up >= 3, "{side:?}: {up}");
        assert_eq!(
            count(|event| matches!(event, TraceEvent::KeysChanged { .. })),
            2,
            "{side:?}: of X25519, and of ML-KEM too"
        );
        assert!(count(|event| matches!(event, TraceEvent::FlowLinks { .. })) >= 2, "{side:?}");
        let mut decoder = Decoder::default();
        decoder.push(&trace.decisions_file(side));
        let (mut read, mut labels) = (0, 0);
        while let Some(entry) = decoder.poll().expect("the file is whole") {
            match entry {
                Entry::Record(record) => {
                    assert_eq!(record.event, records[read].event);
                    read += 1;
                }
                Entry::Label { .. } => labels += 1,
            }
        }
        assert_eq!((read, labels), (records.len(), 4), "{side:?}");
    }
    // The capacity of the sender's links was searched for and then followed, each with a cause.
    for link in 0..3 {
        let mut changes: Vec<RateChanged> = Vec::new();
        for record in trace.decisions(Side::Server) {
            if let TraceEvent::RateChanged(change) = record.event
                && change.link.0 == link
            {
                changes.push(change);
            }
        }
        let is_startup = |change: &RateChanged| change.phase == PhaseKind::Startup;
        assert!(changes.first().is_some_and(is_startup), "{link}: {changes:?}");
        let steady = changes.iter().filter(|change| change.phase == PhaseKind::Steady);
        assert!(steady.clone().count() > 0, "{link}: {changes:?}");
        assert!(steady.clone().all(|change| change.cause.is_some() && change.capacity_bps.is_some()));
        let causes: BTreeSet<&str> = steady.filter_map(|change| Some(change.cause?.name())).collect();
        assert!(causes.contains("own_queue"), "{link}: {causes:?}");
    }
}
