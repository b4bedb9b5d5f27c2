//! Light traffic: pings and web pages, and which links carry them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bonding_lab::tools::{Ping, percentile};
use bonding_lab::{Host, Lab};

use crate::alone::nearest;
use crate::carrier::Running;
use crate::measure::{Figures, millis};
use crate::pages;
use crate::rows::Carrier;
use crate::sockets::Sockets;

/// The bond's own datagrams are counted alone for so long, before light traffic.
const QUIET: Duration = Duration::from_secs(3);

/// The bytes that all links carried, both ways: the nearest one and the others.
fn carried(lab: &Lab) -> (f64, f64) {
    let nearest = nearest(lab.scenario());
    let (mut first, mut others) = (0, 0);
    for (index, pipes) in lab.snapshot().links.iter().enumerate() {
        let bytes: u64 = pipes.iter().map(|pipe| pipe.counters.offered_bytes).sum();
        *(if index == nearest { &mut first } else { &mut others }) += bytes;
    }
    (first as f64, others as f64)
}

/// Runs light traffic; gives the share of its bytes on links other than the nearest one, without
/// the bytes that the carrier sends when there is no traffic.
fn light<T>(
    running: &Running<'_>,
    figures: &mut Figures,
    traffic: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let lab = running.lab;
    let before = carried(lab);
    std::thread::sleep(QUIET);
    let quiet = carried(lab);
    let start = Instant::now();
    let result = traffic()?;
    let (after, spans) = (carried(lab), start.elapsed().as_secs_f64() / QUIET.as_secs_f64());
    let load = |before: f64, quiet: f64, after: f64| (after - quiet - (quiet - before) * spans).max(0.0);
    let (first, others) = (load(before.0, quiet.0, after.0), load(before.1, quiet.1, after.1));
    let background = (quiet.0 - before.0 + quiet.1 - before.1) * 8.0 / QUIET.as_secs_f64();
    figures.insert("others_percent".to_owned(), others * 1e2 / (first + others).max(1.0));
    figures.insert("background_kbps".to_owned(), background / 1e3);
    Ok(result)
}

pub(crate) fn idle(running: &Running<'_>) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let ping = Ping {
        count: 200,
        interval: Duration::from_millis(20),
        device: running.device().map(str::to_owned),
        ..Ping::new(running.server)
    };
    let report = light(running, &mut figures, || Ok(ping.run(running.lab.host(Host::Client))?))?;
    for (permille, name) in [(500, "idle_p50_ms"), (990, "idle_p99_ms")] {
        if let Some(rtt) = report.percentile(permille) {
            figures.insert(name.to_owned(), millis(rtt));
        }
    }
    figures.insert("idle_lost_percent".to_owned(), report.loss_ratio() * 1e2);
    Ok(figures)
}

pub(crate) fn light_pages(running: &Running<'_>) -> anyhow::Result<Figures> {
    const PORT: u16 = 8_080;
    let mut figures = Figures::new();
    let address = SocketAddr::new(running.server, PORT);
    let mptcp = running.carrier == Carrier::Mptcp;
    let sockets = Sockets { mptcp, device: None, congestion: "cubic" };
    let _server = pages::serve(running.lab.host(Host::Server), address, &sockets)?;
    let sockets = Sockets { device: running.device().map(str::to_owned), ..sockets };
    let client = running.lab.host(Host::Client);
    let times = light(running, &mut figures, || pages::load(client, address, &sockets))?;
    for (permille, name) in [(500, "page_p50_ms"), (950, "page_p95_ms")] {
        if let Some(time) = percentile(&times, permille) {
            figures.insert(name.to_owned(), millis(time));
        }
    }
    Ok(figures)
}
