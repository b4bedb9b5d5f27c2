//! `cargo xtask bench lab`, `cpu`, `instructions`, `handshake`, `attack`, `compression` and `plot`:
//! builds with the release profile and hands over to `crates/bonding/benches`, and for plots to
//! `crates/sim/examples/plot.rs`.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::{prerequisites, process, sandbox, wants_help};

const HELP: &str = "\
Usage: cargo xtask bench lab [--yes] [OPTIONS]
       cargo xtask bench cpu [--yes] [OPTIONS]
       cargo xtask bench instructions [--yes] [--update] [STEP...]
       cargo xtask bench handshake
       cargo xtask bench attack [--yes] [--quick] [--flood | --hostile]
       cargo xtask bench compression [--yes]
       cargo xtask bench plot [--out FOLDER] [--stacked] [SCENARIO...]
       cargo xtask bench plot --lab [--yes] [ROW...]

cpu measures the cost of packets: the bond over wires of this machine, at full speed, beside the bare wire, a bare tunnel with the
same offloads and cipher, wireguard-go and openvpn (Debian) and boringtun-cli (crates.io), in alternating runs. One run of all takes
some ten minutes.

instructions counts the instructions of each step of a packet's path (callgrind) and fails if a step is over 5 % above the
committed baseline; --update writes a new baseline. Half a minute, once built.

handshake measures the time of each step of a handshake, at both ends. Some seconds, once built.

attack measures a loaded tunnel under attack: forged and repeated datagrams, a flood of handshakes, a client with keys; then 100 sessions
on one server. --quick sends a tenth, --flood measures only the handshakes, --hostile only the client with keys.

compression measures downloads of text and of random bytes over 2 × 2 Mbit/s, with and without compression. Half a minute, once
built.

plot draws rate, round-trip time and queue of each link over time, or with --stacked one download as the sum of its links and a
game's delay beside it. Without --lab the data is the simulator's, the same on every machine; the plots of reference, varying and
step, and the stacked one of failover-5, are kept in docs/plots. With --lab the rows of that name (default
reference-1-down, varying-4-down and step-down) are run by the bond alone, and their plots go to target/bench/plots.

lab measures the bond with the kernel's TCP and with quinn's QUIC over emulated links in network namespaces on this machine,
beside the best single link alone, the round-robin baseline and the kernel's Multipath TCP in the same run. Only the links' names are
configured. Each row prints its figures and its targets, met or missed; all rows take some two hours for one run. It writes
JSON, and tables beside it.

Options of lab:
  --yes             install missing Debian packages without asking (as root)
  --row NAME        only this row, or all whose names begin with this, or match it where it has a `*`; may be repeated (`--list`
                    names them)
  --scenario NAME   only the rows of this scenario; may be repeated
  --only CARRIER    only bond, round_robin, single, mptcp, reversed, plain, no_recovery or packets; may be repeated. Without
                    mptcp, mptcpize is not needed
  --ceilings        configure the links' rates, for comparison
  --quick           one short run of each row instead of the median of several
  --runs N          runs of each row (default 3)
  --seconds N       measured length of one transfer (default 8), after 5 s that are not measured
  --json FILE       the file for the figures (default target/bench/lab.json); tables go beside it, ending in .md
  --keep            keep the figures of other rows that are in that file already
  --trace FOLDER    also write the figures of each link every 100 ms to ROW.csv
  --traces FOLDER   recorded traces, for the rows of recorded links (default BONDING_TRACES); without them those are left out
  --document FILE   measure nothing: put the tables of the figures in --json into FILE, as docs/benchmarks.md and README.md have
                    them
  --list            name the rows and end

Options of cpu:
  --yes             install missing Debian packages, and boringtun-cli into target/bench/peers, without asking
  --only CARRIER    only wire, bare, plain, bond, packets, bond-4, bond-16, wireguard-go, boringtun or openvpn; may be repeated
  --load LOAD       only bulk, paced, reference, small, small-1000, small-batch, latency or idle; may be repeated
  --runs N          alternating runs (default 5)
  --seconds N       measured length of one transfer (default 5)
  --json FILE       the file for the figures (default target/bench/cpu.json); a table goes beside it

Examples:
  cargo xtask bench lab
  cargo xtask bench cpu --only wire --only bare --only bond --runs 1    # nothing to install
  cargo xtask bench handshake
  cargo xtask bench attack
  cargo xtask bench lab --row reference-1-down --runs 1
  cargo xtask bench lab --row reference-1-down --runs 1 --only bond     # some twenty seconds
  cargo xtask bench lab --row 'sweep-*-quic' --runs 1 --only bond       # the pairs, each with one kind of load
  cargo xtask bench plot
  cargo xtask bench plot --lab dual-1-down
  cargo xtask bench lab --scenario dual --scenario single --runs 5 --json /tmp/lab.json
";

/// Runs the benchmark named by the first argument.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if wants_help(arguments) {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let Some((which, rest)) = arguments.split_first() else {
        return Err(crate::usage(
            "bench: say which: `cargo xtask bench lab`, `cpu`, `instructions`, `handshake`, `attack`, `compression` or `plot`".into(),
        ));
    };
    match which.as_str() {
        "attack" | "compression" | "lab" => measure(which, rest),
        "cpu" => cpu(rest),
        "instructions" => {
            prerequisites::ensure_with(prerequisites::INSTRUCTIONS, wants_yes(rest))?;
            run_bench(which, rest)
        }
        "handshake" => run_bench(which, rest),
        "plot" => plot(rest),
        _ => Err(crate::usage(format!(
            "bench: unknown benchmark `{which}`: expected lab, cpu, instructions, handshake, attack, compression or plot"
        ))),
    }
}

/// Tells a benchmark the caller's folder, which relative files on the command line are relative to;
/// cargo starts a benchmark in another.
const CALLER: &str = "BENCH_WORKING_DIRECTORY";

fn finish(mut cargo: Command, folder: &Path) -> anyhow::Result<ExitCode> {
    let status = cargo.env(CALLER, folder).status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(which: &str, rest: &[String]) -> anyhow::Result<ExitCode> {
    let more = if which == "lab" && wants(rest, "mptcp") { prerequisites::BENCH } else { "" };
    prerequisites::ensure_with(more, wants_yes(rest))?;
    hand_over(which, rest)
}

/// Measures processor time, beside other projects' tunnels.
fn cpu(rest: &[String]) -> anyhow::Result<ExitCode> {
    const PEERS: &str = "target/bench/peers";
    let debian = wants(rest, "wireguard-go") || wants(rest, "openvpn") || wants(rest, "boringtun");
    prerequisites::ensure_with(if debian { prerequisites::CPU } else { "" }, wants_yes(rest))?;
    let folder = process::root().join(PEERS);
    let there = process::find("boringtun-cli").is_some() || folder.join("bin/boringtun-cli").is_file();
    if wants(rest, "boringtun") && !there {
        let mut cargo = process::cargo();
        cargo.args(["install", "boringtun-cli", "--locked", "--root"]).arg(&folder);
        if !prerequisites::may_run(&format!("cargo install boringtun-cli --root {PEERS}"), wants_yes(rest))? {
            println!("boringtun-cli is left out: it is not installed");
        } else if !cargo.status().context("cannot start cargo")?.success() {
            anyhow::bail!("boringtun-cli cannot be built; leave it out with --only");
        }
    }
    let peers = ["--peers".to_owned(), folder.join("bin").display().to_string()];
    hand_over("cpu", &[rest, peers.as_slice()].concat())
}

fn wants_yes(options: &[String]) -> bool {
    options.iter().any(|option| option == "--yes")
}

fn hand_over(which: &str, rest: &[String]) -> anyhow::Result<ExitCode> {
    sandbox::ensure(&format!("cargo xtask bench {which}"))?;
    run_bench(which, rest)
}

fn run_bench(which: &str, rest: &[String]) -> anyhow::Result<ExitCode> {
    let options = rest.iter().filter(|option| *option != "--yes");
    let mut cargo = process::cargo();
    cargo.args(["bench", "--package", "bonding", "--bench", which, "--"]).args(options);
    finish(cargo, &std::env::current_dir().context("no working directory")?)
}

/// Draws plots of simulated runs, or of rows that it measures for them.
fn plot(arguments: &[String]) -> anyhow::Result<ExitCode> {
    const FOLDER: &str = "target/bench/plots";
    let draw = |options: &[String], folder: &Path| {
        let mut cargo = process::cargo();
        cargo.args(["run", "--quiet", "--release", "--package", "bonding-sim", "--example", "plot", "--"]);
        cargo.args(options);
        finish(cargo, folder)
    };
    if !arguments.iter().any(|argument| argument == "--lab") {
        return draw(arguments, &std::env::current_dir().context("no working directory")?);
    }
    let rest = || arguments.iter().filter(|argument| *argument != "--lab");
    let mut rows: Vec<String> = rest().filter(|argument| *argument != "--yes").cloned().collect();
    if let Some(option) = rows.iter().find(|row| row.starts_with('-')) {
        return Err(crate::usage(format!("bench plot --lab: unknown option `{option}`")));
    }
    if rows.is_empty() {
        rows = ["reference-1-down", "varying-4-down", "step-down"].map(str::to_owned).to_vec();
    }
    let root = process::root();
    let traces = root.join(FOLDER);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut options = words(&["--only", "bond", "--runs", "1", "--trace"]);
    options.push(traces.display().to_string());
    options.extend(["--json".to_owned(), traces.join("lab.json").display().to_string()]);
    options.extend(rest().filter(|argument| *argument == "--yes").cloned());
    options.extend(rows.iter().flat_map(|row| ["--row".to_owned(), row.clone()]));
    let code = measure("lab", &options)?;
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    let mut options = words(&["--out", FOLDER, "--from"]);
    options.extend(rows.iter().map(|row| format!("{FOLDER}/{row}.csv")));
    draw(&options, root)
}

/// Whether the options ask for a carrier.
fn wants(options: &[String], carrier: &str) -> bool {
    let value = |option: &str, next: Option<&String>| match option.strip_prefix("--only") {
        Some("") => next.cloned(),
        Some(joined) => joined.strip_prefix('=').map(str::to_owned),
        None => None,
    };
    let only = options.iter().zip(options.iter().skip(1).map(Some).chain([None]));
    let named: Vec<String> = only.filter_map(|(option, next)| value(option, next)).collect();
    named.is_empty() || named.iter().any(|one| one == carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_carriers_need_their_programs() {
        let wanted =
            |line: &str| wants(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), "mptcp");
        assert!(wanted(""));
        assert!(wanted("--row dual --only bond --only mptcp"));
        assert!(wanted("--only=mptcp"));
        assert!(!wanted("--only bond --only=single"));
    }
}
