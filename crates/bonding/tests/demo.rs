//! `bondctl lab` and `bondctl demo` with real namespaces and the real client and server. They need
//! what the lab needs: namespaces, /dev/net/tun, iproute2, nftables, ping.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const BONDCTL: &str = env!("CARGO_BIN_EXE_bondctl");

/// Command lines of all processes of our programs with files of the lab or the demonstration.
fn left_behind() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("/run/bonding-demo/") && line.contains(BONDCTL.trim_end_matches("bondctl")) {
            found.push(line);
        }
    }
    found
}

#[test]
fn the_lab_runs_a_command_beside_a_running_bond() {
    let script =
        "ping -c 5 -i 0.2 -W 2 198.51.100.2; bondctl status --json --socket /run/bonding-lab/client.sock";
    let output = Command::new(BONDCTL)
        .args(["lab", "dual", "--bond", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    assert!(out.contains(" 0% packet loss"), "{out}\n{err}");
    let status: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(status["session"]["state"], "up");
    assert_eq!(status["links"].as_array().unwrap().len(), 2);
}

#[test]
fn the_lab_gives_the_exit_code_of_its_command() {
    let output = Command::new(BONDCTL)
        .args(["lab", "single", "--", "sh", "-c", "exit 7"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    let mut demo = Command::new(BONDCTL)
        .args(["demo", "dual"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = demo.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    // While the bond runs, the demonstration has the most to clean up.
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let seen: Vec<String> =
        lines.by_ref().map_while(Result::ok).take_while(|line| !line.contains(" 2/5 ")).collect();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let status = demo.wait().unwrap();
    // The pipe stayed open until here, so that the program could go on writing.
    drop(lines);
    let said = reader.join().unwrap();
    assert_eq!(status.code(), Some(130), "{seen:?}\n{said}");
    assert!(said.contains("Interrupted; everything it made is gone."), "{said}");
    assert_eq!(left_behind(), [""; 0]);
}
