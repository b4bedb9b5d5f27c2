//! `bondctl top` in a real pseudo terminal: it draws, follows the terminal's size, obeys keys, and
//! leaves the terminal as it was.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where a step does"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bonding::control::{Answers, Control, Portion, Request};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A client with one link, whose orders are noted.
struct Instance {
    orders: Arc<Mutex<Vec<Request>>>,
}

impl Answers for Instance {
    type Rest = ();

    fn answer(&mut self, request: Request) -> Portion<()> {
        let text = match &request {
            Request::Events { after: 0 } => {
                r#"{"events":[{"number":1,"time":"2026-12-01T18:30:02.117Z","kind":"link_up","link":"adsl","text":"adsl UP: answers come"}],"lost":0}"#
            }
            Request::Events { .. } => r#"{"events":[],"lost":0}"#,
            _ => r#"{"name":"adsl","role":"backup","priority":1,"by_hand":true}"#,
        };
        if matches!(request, Request::Link { .. }) {
            self.orders.lock().unwrap().push(request);
        }
        Portion { text: text.to_owned(), rest: None }
    }

    fn proceed(&mut self, (): ()) -> Portion<()> {
        unreachable!("its answers are one portion")
    }

    fn figures(&mut self) -> String {
        let link = serde_json::json!({
            "id": 0, "name": "adsl", "interface": null, "local": null, "remote": "203.0.113.9:9001", "state": "OK",
            "role": "primary", "priority": 1, "score": 1225, "rtt_ms": 22.5, "rtt_min_ms": 20.0, "mtu": 1492,
            "loss_permille": 0, "tx_mbps": 1.0, "rx_mbps": 8.0, "capacity_mbps": 2.0, "utilisation": 0.5,
            "tx_bytes": 1, "rx_bytes": 2, "queue_ms": 1.0
        });
        serde_json::json!({ "figures": {
            "role": "client", "policy": "adaptive",
            "session": { "state": "up", "since": null, "peer": null, "cipher": "none", "hybrid": false, "rekeys": 0 },
            "summary": "carrying 8 Mbit/s down over adsl alone",
            "tunnel": { "interface": "tun-bond", "address": [], "mtu": 1409 }, "links": [link],
            "flows": { "active": 0, "realtime": 0 }, "reorder": { "held": 0, "released_late": 0 },
            "recovery": { "resent": 0, "recovered": 0, "fec_recovered": 0, "lost": 0 }, "discards": {}
        } })
        .to_string()
    }

    fn events(&self, _: u64) -> Option<(String, u64)> {
        None
    }
}

/// A terminal with a program in it.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        tcsetwinsize(&terminal, size(80, 24)).unwrap();
        let open =
            || OwnedFd::from(File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        drop(command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(24, 80, 0)));
        let keyboard = File::from(terminal);
        let (mut output, drawn) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count) = output.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { keyboard, screen, child }
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen has the text.
    fn shows(&self, text: &str) {
        let start = Instant::now();
        while !self.contents().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(60), "no \"{text}\" on:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        tcsetwinsize(&self.keyboard, size(columns, rows)).unwrap();
    }

    fn press(&mut self, key: &str) {
        self.keyboard.write_all(key.as_bytes()).unwrap();
    }
}

#[test]
fn it_draws_resizes_orders_and_leaves_the_terminal_clean() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("client.sock");
    let orders = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut instance = Instance { orders: Arc::clone(&orders) };
    let (path, stopped) = (socket.clone(), Arc::clone(&stop));
    let (bound, is_bound) = std::sync::mpsc::channel();
    let serving = std::thread::spawn(move || {
        let mut control = Control::bind(&path).unwrap();
        bound.send(()).unwrap();
        while !stopped.load(Ordering::SeqCst) {
            control.handle_ready(&mut instance);
            if control.is_push_due(1) {
                control.push(&mut instance);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    is_bound.recv().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bondctl"));
    command.args(["top", "--interval", "100", "--socket"]).arg(&socket).env("TERM", "xterm");
    let mut terminal = Terminal::start(command);
    terminal.shows("carrying 8 Mbit/s down over adsl alone");
    terminal.shows("18:30:02 adsl UP: answers come");
    assert!(terminal.screen.lock().unwrap().screen().alternate_screen());
    terminal.resize(120, 40);
    let last_row = |terminal: &Terminal| {
        let parser = terminal.screen.lock().unwrap();
        parser.screen().rows(0, 120).last().unwrap_or_default()
    };
    let start = Instant::now();
    while !last_row(&terminal).contains("q quit") {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", terminal.contents());
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.press("d");
    terminal.shows("adsl: backup, priority 1, until a reload");
    assert_eq!(orders.lock().unwrap().len(), 1);
    // The instance ends: the view says so and goes on.
    stop.store(true, Ordering::SeqCst);
    serving.join().unwrap();
    terminal.press("s");
    terminal.shows("waiting for the next start");
    terminal.press("q");
    assert!(terminal.child.wait().unwrap().success());
    std::thread::sleep(Duration::from_millis(100));
    let parser = terminal.screen.lock().unwrap();
    assert!(!parser.screen().alternate_screen() && !parser.screen().hide_cursor());
}
