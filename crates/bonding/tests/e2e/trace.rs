//! Traces of the real programs.

use std::process::Command;

use anyhow::{Context as _, ensure};
use bonding_lab::tools::Ping;
use bonding_lab::{Host, Lab};
use bonding_testkit::bond::{Bond, Options, SERVER_V4, run};
use serde_json::Value;

use crate::PROGRAMS;

/// The lines that `bondctl trace` prints of a side's trace.
fn lines(host: Host, options: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = run(Command::new(PROGRAMS.bondctl).arg("trace").arg(Bond::trace(host)).args(options))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Both sides record from their start to their end: keys, every link's way up, the flow of a ping.
pub(crate) fn a_trace_holds_the_decisions_of_both_sides(lab: &Lab) -> anyhow::Result<()> {
    let bond = Bond::start_traced(lab, PROGRAMS, Options::default())?;
    Ping { count: 5, ..Ping::new(SERVER_V4) }.run(lab.host(Host::Client))?;
    bond.stop()?;
    let links: Vec<&str> = lab.scenario().links.iter().map(|link| link.name.as_str()).collect();
    for host in [Host::Client, Host::Server] {
        let all = lines(host, &[])?;
        let of = |line: &&Value, name: &str| line.get("name") == Some(&Value::from(name));
        let count = |name: &str| all.iter().filter(|line| of(line, name)).count();
        ensure!(all.first().is_some_and(|line| of(&line, "bond:trace_started")), "{all:?}");
        ensure!(count("security:key_updated") >= 1, "{all:?}");
        ensure!(count("bond:flow_links_updated") >= 1, "{all:?}");
        ensure!(count("recovery:metrics_updated") >= links.len(), "{all:?}");
        let times: Vec<f64> =
            all.iter().filter_map(|line| line.get("time").and_then(Value::as_f64)).collect();
        ensure!(times.is_sorted() && times.len() == all.len(), "{times:?}");
        let up = |line: &&Value| line.pointer("/data/new") == Some(&Value::from("up"));
        for (number, name) in links.iter().enumerate() {
            let link = if host == Host::Client { (*name).to_owned() } else { number.to_string() };
            let states = lines(host, &["--link", &link, "--name", "bond:link_state"])?;
            ensure!(states.iter().any(|line| up(&line)), "{link}: {all:?}");
        }
    }
    Ok(())
}
