//! `cargo xtask bench compression`: downloads of text and of random bytes over 2 × 2 Mbit/s, with
//! and without compression. It prints figures and judges nothing.
//!
//! Real processes and the kernel's TCP run in network namespaces of one machine, and curl downloads
//! from a web server behind the bond's server. The time counts from curl's start to its end. The
//! text is the project's own sources and documents.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bonding_lab::{Direction, Host, Lab, LabOptions, addr, sandbox};
use bonding_testkit::bond::{Bond, FOLDER, Options, TUNNEL, run, slow_pair};
use bonding_testkit::programs::Programs;
use bonding_testkit::web::{Web, noise, text};

/// The programs under test.
const PROGRAMS: Programs = bonding_testkit::programs!();
/// One download. Chosen: 8 s without compression.
const BYTES: usize = 4_000_000;
/// The service that is downloaded from.
const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(addr::INTERNET_V4), 8_080);

fn main() -> ExitCode {
    match sandbox::enter().map_err(anyhow::Error::from).and_then(|()| measure()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> anyhow::Result<()> {
    println!("{:8} {:12} {:>10} {:>14}", "content", "compression", "goodput", "on the links");
    for (content, bytes) in [("text", text(BYTES)?), ("random", noise(BYTES))] {
        let mut goodputs = Vec::new();
        for mode in ["off", "auto"] {
            let lab = Lab::start(&slow_pair()?, LabOptions::default())?;
            let (goodput, carried) = download(&lab, mode, &bytes).with_context(|| mode.to_owned())?;
            println!("{content:8} {mode:12} {goodput:>5.2} Mbit/s {carried:>8} bytes");
            goodputs.push(goodput);
        }
        if let [off, auto] = goodputs.as_slice() {
            println!("{content:8} with, against without: {:.3}", auto / off);
        }
    }
    Ok(())
}

/// Downloads `bytes` once: the goodput in Mbit/s, and what the links carried.
fn download(lab: &Lab, mode: &'static str, bytes: &[u8]) -> anyhow::Result<(f64, u64)> {
    let bond =
        Bond::start(lab, PROGRAMS, Options { compression: [mode; 2], rates: false, ..Options::default() })?;
    let _web = Web::start(lab.host(Host::Internet), SERVICE, bytes.to_vec())?;
    let got = Path::new(FOLDER).join("got");
    let mut curl = lab.host(Host::Client).command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--interface", TUNNEL, "--output"]).arg(&got);
    let carried = || (0..2).map(|link| lab.counters(link, Direction::Down).carried_bytes).sum::<u64>();
    let (before, start) = (carried(), Instant::now());
    run(curl.arg(format!("http://{SERVICE}/file")))?;
    let (time, carried) = (start.elapsed(), carried() - before);
    ensure!(std::fs::read(&got)? == bytes, "the download differs from the file");
    bond.stop()?;
    Ok((bytes.len() as f64 * 8e-6 / time.as_secs_f64(), carried))
}
