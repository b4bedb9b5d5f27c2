//! Runs a test body in network and mount namespaces of its own, so that it can make interfaces,
//! rules and settings and leaves nothing behind however it ends.

use std::process::Command;

const INSIDE: &str = "BONDING_OS_SANDBOX";

/// Runs `body` inside a fresh sandbox. `name` is the test's own name: the test binary runs itself
/// again, for this one test, under unshare(1).
pub(crate) fn sandboxed(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run(&["ip", "link", "set", "lo", "up"]);
        body();
        return;
    }
    let mut unshare = Command::new("unshare");
    if !root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let status = unshare
        .args(["--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("this test needs unshare(1) from util-linux");
    assert!(status.success(), "inside the sandbox (root, or user namespaces, are needed): {status}");
}

fn root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// Runs a command that must succeed and gives what it printed.
pub(crate) fn run(command: &[&str]) -> String {
    let (program, arguments) = command.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("this test needs `{program}`: {error}"));
    assert!(output.status.success(), "{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
