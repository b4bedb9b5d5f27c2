//! Links behind a policer, which drops what exceeds its rate and queues nothing.

use super::*;

/// 30 ms, and 100 Mbit/s behind a policer of 20.5 Mbit/s with bursts of 64 kB.
const POLICED: Spec = Spec { delay_us: 15_000.0, police: Some((20.5e6, 64e3)), ..Spec::new(100.0) };

/// What was delivered in `ms` at full demand, in Mbit/s, and the share of what was sent that was
/// lost.
fn load(net: &mut Net, ms: u64) -> (f64, f64) {
    let (delivered, sent) = (net.delivered, net.total);
    net.run(ms, 1e10);
    let (delivered, sent) = ((net.delivered - delivered) as f64, (net.total - sent) as f64);
    (delivered * 8.0 / ms as f64 / 1e3, 1.0 - delivered / sent)
}

/// A link that carried light traffic for a second.
fn idle(spec: Spec, seed: u64) -> Net {
    let mut net = Net::new(spec, seed);
    net.run(1_000, 50_000.0);
    net
}

#[test]
fn what_a_policer_lets_pass_is_used_and_hardly_overrun() {
    let mut net = idle(POLICED, 1);
    let (mbps, loss) = load(&mut net, 10_000);
    assert!(mbps >= 20.5 * 0.95 && loss <= 0.02, "from the start: {mbps:.2} Mbit/s, {loss:.4} lost");
    let (mbps, loss) = load(&mut net, 20_000);
    assert!(mbps >= 20.5 * 0.96 && loss <= 0.01, "later: {mbps:.2} Mbit/s, {loss:.4} lost");
}

/// Slow, fast, near and far, with large and small buckets.
#[test]
fn any_policer_is_found() {
    for (mbps, burst, delay_us) in
        [(2.0, 16e3, 15e3), (5.0, 64e3, 15e3), (8.0, 1_500e3, 15e3), (20.5, 64e3, 5e3), (20.5, 64e3, 50e3)]
    {
        let spec = Spec { delay_us, police: Some((mbps * 1e6, burst)), ..POLICED };
        let mut net = idle(spec, 1);
        load(&mut net, 10_000);
        let (got, loss) = load(&mut net, 20_000);
        let name = format!("{mbps} Mbit/s, {burst} B, {delay_us} us");
        assert!(got >= mbps * 0.95 && loss <= 0.035, "{name}: {got:.2} Mbit/s, {loss:.4} lost");
    }
}

#[test]
fn jitter_and_chance_hide_no_policer() {
    for seed in 1..=3 {
        let mut net = idle(Spec { sigma_us: 5_000.0, loss: 0.005, ..POLICED }, seed);
        load(&mut net, 10_000);
        let (mbps, loss) = load(&mut net, 20_000);
        assert!(mbps >= 20.5 * 0.92 && loss <= 0.025, "{seed}: {mbps:.2} Mbit/s, {loss:.4} lost");
    }
}

#[test]
fn a_policer_that_is_gone_is_noticed_within_ten_seconds() {
    for police in [None, Some((41e6, 64e3))] {
        let mut net = idle(POLICED, 1);
        load(&mut net, 15_000);
        net.spec.police = police;
        load(&mut net, 10_000);
        let (mbps, loss) = load(&mut net, 2_000);
        let most = police.map_or(100.0, |(rate_bps, _)| rate_bps / 1e6);
        assert!(mbps >= most * 0.92, "{most}: {mbps:.2} Mbit/s, {loss:.4} lost");
    }
}

#[test]
fn a_policer_that_lets_pass_half_is_followed_at_once() {
    let mut net = idle(POLICED, 1);
    load(&mut net, 5_000);
    net.spec.police = Some((10.25e6, 64e3));
    let (mbps, loss) = load(&mut net, 10_000);
    assert!(mbps >= 10.25 * 0.95 && loss <= 0.03, "{mbps:.2} Mbit/s, {loss:.4} lost");
}

/// Goodput follows sending there.
#[test]
fn chance_costs_a_link_no_rate() {
    for (loss, seed) in [(0.005, 1), (0.02, 2), (0.05, 3), (0.05, 4)] {
        let mut net = idle(Spec { loss, police: None, ..Spec::new(40.0) }, seed);
        load(&mut net, 3_000);
        let (share, _) = net.measure(15_000, 1e10);
        assert!(share >= 0.92, "{loss}: {share:.3}");
    }
}
