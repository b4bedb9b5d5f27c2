//! The real programs without privileges: exit codes, the places of messages, and the validity of
//! every file in `packaging/`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CLIENT: &str = env!("CARGO_BIN_EXE_client");
const SERVER: &str = env!("CARGO_BIN_EXE_server");
const BONDCTL: &str = env!("CARGO_BIN_EXE_bondctl");

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every TOML file in `packaging/`, with the program that reads it.
fn examples() -> Vec<(PathBuf, &'static str)> {
    let mut found = Vec::new();
    let mut folders = vec![packaging()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let client = path.file_name().unwrap().to_str().unwrap().contains("client");
                found.push((path, if client { CLIENT } else { SERVER }));
            }
        }
    }
    found
}

#[test]
fn every_example_is_valid_and_without_warnings() {
    let examples = examples();
    assert!(examples.len() >= 4, "{examples:?}");
    for (path, program) in examples {
        let file = path.to_str().unwrap();
        let output = run(program, &["--check", "--config", file]);
        assert_eq!(output.status.code(), Some(0), "{file}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{file}");
        assert_eq!(stdout(&output), format!("{file}: valid\n"));
        assert_eq!(run(BONDCTL, &["check", file]).status.code(), Some(0), "{file}");
    }
}

#[test]
fn every_default_that_an_example_shows_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut shown = 0;
    for (path, program) in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let is_default =
            |line: &str| line.strip_prefix('#').is_some_and(|l| l.starts_with(char::is_lowercase));
        shown += text.lines().filter(|line| is_default(line)).count();
        let plain: Vec<&str> =
            text.lines().map(|line| if is_default(line) { &line[1..] } else { line }).collect();
        let copy = folder.path().join(path.file_name().unwrap());
        std::fs::write(&copy, plain.join("\n")).unwrap();
        let output = run(program, &["--check", "--config", copy.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", path.display(), stderr(&output));
        assert_eq!(stderr(&output), "", "{}", path.display());
        // The value in another form: its meaning is the same.
        let meaning = |file: &Path| {
            let text = stdout(&run(BONDCTL, &["check", file.to_str().unwrap()]));
            text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(meaning(&copy), meaning(&path), "{}", path.display());
    }
    assert!(shown >= 15, "only {shown} defaults are shown");
}

#[test]
fn the_units_start_what_packages_install() {
    for role in ["client", "server"] {
        let unit = packaging().join(format!("systemd/bonding-{role}.service"));
        let text = std::fs::read_to_string(unit).unwrap();
        let has = |line: &str| assert!(text.lines().any(|one| one == line), "{role}: no {line}");
        has(&format!("ExecStart=/usr/bin/bonding-{role}"));
        has("RuntimeDirectory=bonding");
        has("RuntimeDirectoryPreserve=yes");
        has("RestartPreventExitStatus=2");
    }
}

#[test]
fn all_mistakes_come_at_once_on_standard_error_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.toml");
    std::fs::write(&file, "[server]\nhots = \"x\"\n\n[[link]]\npriorty = 1\nsecurity = \"plain\"\n").unwrap();
    let name = file.to_str().unwrap();
    for (program, arguments) in [
        (CLIENT, vec!["--config", name]),
        (CLIENT, vec!["--check", "-c", name]),
        (BONDCTL, vec!["check", name]),
    ] {
        let output = run(program, &arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            format!(
                "{name}:1:2: [server] has no `host`: the client must know where its server is; add host = \
                 \"vps.example.net\"\n\
                 {name}:2:1: unknown key `hots` in [server]; did you mean `host`?\n\
                 {name}:5:1: unknown key `priorty` in [[link]]; did you mean `priority`?\n"
            )
        );
    }
}

#[test]
fn warnings_do_not_fail_a_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "[status]\nmetrics = \"127.0.0.1:9400\"\n").unwrap();
    let name = file.to_str().unwrap();
    let output = run(SERVER, &["--check", "-c", name]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stderr(&output),
        format!("{name}:2:1: warning: [status] metrics = \"127.0.0.1:9400\" has no effect in this version\n")
    );
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    for program in [CLIENT, SERVER, BONDCTL] {
        assert_eq!(run(program, &["--no-such-option"]).status.code(), Some(2), "{program}");
        let help = run(program, &["--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(stdout(&help).contains("Examples:"), "{}", stdout(&help));
    }
    for command in ["genkey", "pubkey", "check", "status", "flows", "invite", "clients", "revoke", "cleanup"]
    {
        assert!(stdout(&run(BONDCTL, &[command, "--help"])).contains("Examples:"), "{command}");
    }
    assert_eq!(run(BONDCTL, &[]).status.code(), Some(2));
    let unknown = run(BONDCTL, &["lab", "no-such-scenario"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("reference"), "{}", stderr(&unknown));
}

/// Names of the emulator's crates in the symbols of a program say that it is linked.
#[test]
fn the_daemons_do_not_link_the_emulator() {
    for name in ["bonding_lab", "bonding_netem"] {
        let is_linked = |program: &str| {
            std::fs::read(program).unwrap().windows(name.len()).any(|bytes| bytes == name.as_bytes())
        };
        assert_eq!(is_linked(BONDCTL), cfg!(feature = "lab"), "the symbols of bondctl name {name}");
        for program in [CLIENT, SERVER] {
            assert!(!is_linked(program), "{program} links {name}");
        }
    }
}

#[test]
fn an_unreadable_log_filter_is_exit_code_2() {
    let file = packaging().join("client.toml");
    let output = Command::new(CLIENT).arg("-c").arg(file).env("RUST_LOG", "bonding=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: RUST_LOG=\"bonding=loud\""), "{}", stderr(&output));
}

#[test]
fn keys_are_a_pipeline() {
    let private = stdout(&run(BONDCTL, &["genkey"]));
    assert_eq!(private.len(), 45, "44 characters and a newline");
    let mut pubkey =
        Command::new(BONDCTL).arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    pubkey.stdin.take().unwrap().write_all(private.as_bytes()).unwrap();
    let output = pubkey.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(stdout(&output).len(), 45);
    assert_ne!(stdout(&output), private);
    let nothing = run(BONDCTL, &["pubkey"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn status_without_anything_running_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let output = run(BONDCTL, &["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: nothing is running behind "), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn cleanup_removes_a_dead_socket_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let cleanup = || stdout(&run(BONDCTL, &["cleanup", "--socket", socket.to_str().unwrap()]));
    assert_eq!(cleanup(), "cleaned up what was left behind\n");
    assert!(!socket.exists());
    assert_eq!(cleanup(), "nothing was left behind\n");
}

/// The exposure that `systemd-analyze security` may find: 0 is confined, 10 is not.
const EXPOSURE_MAX: f32 = 2.0;

/// systemd understands the units, and finds little to confine. Without systemd there is nothing to
/// ask.
#[test]
fn the_units_are_understood_and_confined() {
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if analyze(&["--version"]).is_err() {
        println!("no systemd-analyze here: the units are not checked");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (role, program) in [("client", CLIENT), ("server", SERVER)] {
        let name = format!("bonding-{role}.service");
        let unit = packaging().join("systemd").join(&name);
        let text = std::fs::read_to_string(&unit).unwrap();
        assert!(
            text.contains(&format!(
                "ExecStopPost=/usr/bin/bondctl cleanup --socket /run/bonding/{role}.sock\n"
            ))
        );
        let text =
            text.replace("/usr/bin/bondctl", BONDCTL).replace(&format!("/usr/bin/bonding-{role}"), program);
        let built = folder.path().join(&name);
        std::fs::write(&built, text).unwrap();
        let built = built.to_str().unwrap();
        let output = analyze(&["verify", built]).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {}", stderr(&output));
        let output = analyze(&["security", "--offline=true", "--no-pager", built]).unwrap();
        let said = stdout(&output);
        let line =
            said.lines().find(|line| line.contains("Overall exposure level")).expect("systemd 250 or newer");
        println!("{line}");
        let level = line.split(&[':', ' ']).find_map(|word| word.parse::<f32>().ok()).unwrap();
        assert!(level <= EXPOSURE_MAX, "{said}");
    }
}
