//! `cargo xtask chaos`: random faults for as long as wanted, in virtual time. Every tenth run lasts
//! minutes, so that keys are replaced, and another tenth is beside a client that attacks.
//!
//! `chaos --hours N --seed S` plays runs of seeds S, S + 1 and so on until N simulated hours are
//! over, on all processors. A failure prints the seed and the operations, and ends with exit code
//! 1. `chaos --only SEED` plays that run alone. The seed decides everything about a run.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_sim::chaos::{Course, DENSE, HOSTILE, LONG, play_all};

const HOUR: f64 = 3_600.0;

/// How often progress is reported.
const EVERY: Duration = Duration::from_secs(10);

const fn course(seed: u64) -> &'static Course {
    match seed % 10 {
        9 => &LONG,
        8 => &HOSTILE,
        _ => &DENSE,
    }
}

/// The seeds to be played: enough to fill the hours.
fn seeds(first: u64, hours: f64) -> std::ops::Range<u64> {
    let mut left = hours * HOUR;
    let mut end = first;
    while left > 0.0 {
        left -= course(end).span().as_secs_f64();
        end += 1;
    }
    first..end
}

fn main() -> anyhow::Result<ExitCode> {
    let (mut hours, mut first, mut only) = (1.0_f64, 0_u64, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} takes a number"))?;
        let number = || value.parse().with_context(|| format!("{option}: '{value}' is no seed"));
        match option.as_str() {
            "--hours" => {
                hours = value.parse().with_context(|| format!("--hours: '{value}' is no number"))?;
                anyhow::ensure!(hours.is_finite(), "--hours: '{value}' is no number of hours");
            }
            "--seed" => first = number()?,
            "--only" => only = Some(number()?),
            other => anyhow::bail!("unknown option '{other}': expected --hours N, --seed S or --only SEED"),
        }
    }
    let seeds = only.map_or_else(|| seeds(first, hours), |seed| seed..seed + 1);
    let started = Instant::now();
    // Simulated seconds and runs so far, and the time of the last report.
    let progress = Mutex::new((0.0, 0_u64, started));
    let count = seeds.end - seeds.start;
    let outcome = play_all(course, seeds, |seed| {
        let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.0 += course(seed).span().as_secs_f64();
        progress.1 += 1;
        if progress.2.elapsed() >= EVERY || progress.1 == count {
            progress.2 = Instant::now();
            let (hours, runs, took) = (progress.0 / HOUR, progress.1, started.elapsed().as_secs());
            println!("{hours:.2} h simulated, {runs} of {count} runs, the last of seed {seed}; {took} s");
        }
    });
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            println!("FAILED {why}\nAgain: cargo xtask chaos --only SEED");
            Ok(ExitCode::FAILURE)
        }
    }
}
