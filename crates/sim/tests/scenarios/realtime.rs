//! A call over a best link that loses packets: its losses, and what repairing them costs.

use std::time::Duration;

use bonding_proto::config::{Fec, Policy, RecoveryConfig};
use bonding_sim::run::{Row, RunSpec, System, Workload, run};

use crate::load::made;

/// A minute of a call, 50 packets a second each way, without other traffic. The best link loses
/// `loss`; the second is clean.
fn call(loss: &str, recovery: RecoveryConfig, seed: u64) -> Row {
    let links = format!(
        "[[link]]\nname = \"best\"\nrate = \"20mbit\"\nrtt = \"20ms\"\nqueue = \"100ms\"\nloss = \"{loss}\"\n\
         [[link]]\nname = \"second\"\nrate = \"50mbit\"\nrtt = \"60ms\"\nqueue = \"100ms\"\n"
    );
    let workload = Workload::parse("realtime").expect("a workload");
    let mut spec = RunSpec::new(made("60s", &links), System::Bond(Policy::Adaptive), workload, seed);
    spec.warmup = Duration::from_secs(5);
    spec.setup.recovery = recovery;
    let row = run(&spec, None);
    assert_eq!(row.problems, Vec::<String>::new());
    row
}

/// Sums over five seeds: packets, packets lost, repair symbols, packets restored.
fn calls(recovery: RecoveryConfig) -> (u64, u64, u64, u64) {
    let (mut sent, mut lost, mut symbols, mut restored) = (0, 0, 0, 0);
    for seed in 1..6 {
        let row = call("3%", recovery, seed);
        sent += row.echo_settled.0;
        lost += row.echo_settled.1;
        symbols += row.fec_sent.iter().sum::<u64>();
        restored += row.fec_recovered.iter().sum::<u64>();
    }
    (sent, lost, symbols, restored)
}

#[test]
fn three_percent_of_loss_become_a_thousandth_for_a_fifth_more() {
    // Resending would repair most losses as well, only later.
    let (sent, lost, symbols, restored) = calls(RecoveryConfig { resend: false, fec: Fec::Auto });
    assert!(lost * 1_000 <= sent, "{lost} of {sent}");
    // Each packet goes there and back; a symbol is as long as a packet.
    assert!(symbols * 4 <= sent * 2, "{symbols} for {}", sent * 2);
    assert!(restored * 100 >= sent * 4);
}

#[test]
fn resends_and_fewer_symbols_do_as_well() {
    let (sent, lost, symbols, _) = calls(RecoveryConfig::default());
    assert!(lost * 1_000 <= sent, "{lost} of {sent}");
    assert!(symbols * 5 <= sent * 2, "{symbols} for {}", sent * 2);
}

#[test]
fn without_symbols_there_are_copies() {
    let row = call("3%", RecoveryConfig { resend: false, fec: Fec::Off }, 1);
    assert_eq!((row.fec_sent, row.fec_recovered), ([0, 0], [0, 0]));
    assert!(row.echo_settled.1 * 200 <= row.echo_settled.0, "{:?}", row.echo_settled);
}

#[test]
fn clean_links_cost_nothing() {
    let row = call("0%", RecoveryConfig::default(), 1);
    assert_eq!((row.fec_sent, row.echo_settled.1), ([0, 0], 0));
}

/// Over one lossy link: symbols cannot use another.
#[test]
fn a_fixed_ratio_protects_bulk_too() {
    let link =
        "[[link]]\nname = \"only\"\nrate = \"20mbit\"\nrtt = \"40ms\"\nqueue = \"100ms\"\nloss = \"1%\"\n";
    let scenario = made("10s", link);
    let workload = Workload::parse("quic-cubic-down-1").expect("a workload");
    let mut rows = [Fec::Off, Fec::Fixed(200)].map(|fec| {
        let mut spec = RunSpec::new(scenario.clone(), System::Bond(Policy::Adaptive), workload, 1);
        spec.setup.recovery.fec = fec;
        let row = run(&spec, None);
        assert_eq!(row.problems, Vec::<String>::new());
        row
    });
    let [off, fixed] = &mut rows;
    assert_eq!(off.fec_sent, [0, 0]);
    let symbols = fixed.fec_sent[1];
    assert!(fixed.fec_recovered[0] * 100 >= symbols * 4, "{:?} of {symbols}", fixed.fec_recovered);
}
