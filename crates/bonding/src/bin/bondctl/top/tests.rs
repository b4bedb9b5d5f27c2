//! Pictures of the view, and what keys do.

use std::time::{Duration, Instant};

use bonding::engine::command::LinkOrder;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw;
use super::model::{Action, Model};

fn link(name: &str, state: &str, (rx, capacity): (f64, f64), loss_permille: u64) -> Value {
    json!({
        "id": 0, "name": name, "interface": "wg0", "local": "10.200.0.1", "remote": "203.0.113.9:9001",
        "state": state, "role": "primary", "priority": 1, "score": 1225, "rtt_ms": 78.3, "rtt_min_ms": 61.0,
        "mtu": 1492, "flows": 1, "loss_permille": 0, "tx_mbps": rx / 20.0, "rx_mbps": rx, "capacity_mbps": 10.0,
        "utilisation": 0.1, "tx_bytes": 12, "rx_bytes": 345, "queue_ms": 3.0,
        "control": {
            "phase": "steady", "cause": "own_queue", "caused_ago_ms": 100.0, "capacity_mbps": 10.0,
            "queue_ms": 3.2, "base_delay_ms": 1.0, "noise_ms": 4.0, "volatility_permille": 1
        },
        "peer": {
            "told_ago_ms": 100.0, "phase": "competing", "loss_permille": loss_permille, "tx_mbps": rx,
            "capacity_mbps": capacity, "queue_ms": 7.1
        }
    })
}

fn session(state: &str) -> Value {
    json!({ "state": state, "since": null, "peer": "203.0.113.9", "cipher": "aes-256-gcm", "hybrid": true, "rekeys": 1 })
}

fn status(role: &str, links: Vec<Value>, clients: Vec<Value>) -> Value {
    json!({
        "role": role, "policy": "adaptive", "session": session("up"),
        "summary": "carrying 60 of 150 Mbit/s down over 2 links; adsl full; starlink2 left out: loses 18 %",
        "tunnel": { "interface": "tun-bond", "address": ["10.99.0.2/24"], "mtu": 1409 },
        "links": links, "flows": { "active": 3, "realtime": 1 },
        "reorder": { "held": 4, "released_late": 5 },
        "recovery": { "resent": 23, "reinjected": 22, "recovered": 21, "fec_recovered": 8, "lost": 3 },
        "discards": {}, "clients": clients
    })
}

fn client() -> Model {
    let links = vec![
        link("adsl", "SATURATED", (9.8, 10.0), 0),
        link("starlink1", "OK", (50.0, 70.0), 2),
        link("starlink2", "LOSSY", (0.2, 70.0), 180),
    ];
    let mut model = Model::new(false);
    let start = Instant::now();
    let event = json!({ "events": [{
        "number": 1, "time": "2026-12-01T18:30:02.117Z", "kind": "link_suspect", "link": "adsl",
        "text": "adsl SUSPECT: 23 packets unanswered for 140 ms; 23 sent again over starlink1"
    }], "lost": 0 });
    model.on_line(&event.to_string(), start);
    for second in 0..4 {
        let figures = json!({ "time": "", "figures": status("client", links.clone(), Vec::new()) });
        model.on_line(&figures.to_string(), start + Duration::from_secs(second));
    }
    model
}

fn server(count: usize) -> Model {
    let names: Vec<String> = (0..count).map(|number| format!("client{number}")).collect();
    let links = names.iter().map(|name| {
        let mut link = link("adsl", "OK", (5.0, 10.0), 0);
        link["client"] = json!(name);
        link
    });
    let clients = names
        .iter()
        .map(|name| json!({ "name": name, "session": session("up"), "summary": format!("carrying {name}") }));
    let figures = json!({ "figures": status("server", links.collect(), clients.collect()) });
    let mut model = Model::new(true);
    model.on_line(&figures.to_string(), Instant::now());
    model
}

/// The picture, without the spaces at the lines' ends.
fn picture(model: &Model, (columns, rows): (u16, u16)) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row| {
        let text: String = (0..columns).map(|column| buffer[(column, row)].symbol()).collect();
        text.trim_end().to_owned()
    };
    (0..rows).map(line).collect()
}

fn press(model: &mut Model, code: KeyCode) -> Action {
    model.on_key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn a_client_of_80_by_24_shows_everything() {
    let picture = picture(&client(), (80, 24)).join("\n");
    let expected = "\
client up with 203.0.113.9 · tun-bond · adaptive
carrying 60 of 150 Mbit/s down over 2 links; adsl full; starlink2 left out:
loses 18 %
  LINK       STATE     RTT/LEAST  JIT  LOSS        UP              DOWN
> adsl       SATURATED     78/61    4  0.0%    0.5/10    ▁▁▁▁    9.8/10    ▇▇▇▇
  starlink1  OK            78/61    4  0.2%    2.5/10    ▂▂▂▂   50.0/70    ▅▅▅▅
  starlink2  LOSSY         78/61    4 18.0%    0.0/10            0.2/70
  together                                        3.0              60.0 0.9×best
adsl: primary, priority 1, score 1225, MTU 1492, 203.0.113.9:9001
  sends: steady (own_queue), queue 3.2 ms, 0.0 % lost, 12 bytes
  receives: competing, queue 7.1 ms, 0.0 % lost, 345 bytes

flows 3, 1 realtime · streams 0, 0 as packets · held 4 · late 5
sent again 23, for failed links 22 · repairs 0, restored 8 · lost 3
events
18:30:02 adsl SUSPECT: 23 packets unanswered for 140 ms; 23 sent again over star";
    assert_eq!(picture.lines().take(16).collect::<Vec<_>>().join("\n"), expected);
    assert_eq!(
        picture.lines().last(),
        Some("q quit  ↑↓ choose  s sort (number)  p pause  d demote  e enable")
    );
}

#[test]
fn every_size_is_drawn_and_a_wide_one_has_more() {
    for columns in (1..200).step_by(13) {
        for rows in 1..60 {
            picture(&client(), (columns, rows));
            picture(&server(40), (columns, rows));
        }
    }
    let wide = picture(&client(), (140, 40)).join("\n");
    assert!(wide.contains("23 sent again over starlink1"), "{wide}");
}

#[test]
fn a_server_shows_its_clients_and_follows_the_selection() {
    let mut model = server(40);
    let first = picture(&model, (80, 24)).join("\n");
    assert!(first.contains("40 of 40 clients up; 10.0 Mbit/s down, 200.0 up"), "{first}");
    assert!(first.contains("> client0") && !first.contains("client39 "), "{first}");
    for _ in 0..60 {
        assert_eq!(press(&mut model, KeyCode::Down), Action::None);
    }
    let last = picture(&model, (80, 24)).join("\n");
    assert!(last.contains("> client39") && last.contains("client39: carrying client39"), "{last}");
    press(&mut model, KeyCode::Char('c'));
    let links = picture(&model, (80, 24)).join("\n");
    assert!(links.contains("> clien…adsl"), "{links}");
    assert_eq!(press(&mut model, KeyCode::Char('d')), Action::None);
    assert!(model.message.contains("links are the client's"));
}

#[test]
fn keys_sort_pause_order_and_quit() {
    let mut model = client();
    let names = |model: &Model| model.links().iter().map(|link| link.name.clone()).collect::<Vec<_>>();
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(names(&model), ["starlink1", "adsl", "starlink2"]);
    press(&mut model, KeyCode::Char('s'));
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(names(&model), ["starlink2", "starlink1", "adsl"]);
    // The link that was selected is in the last row now.
    press(&mut model, KeyCode::Up);
    let order = |name: &str, order| Action::Order { name: name.to_owned(), order };
    assert_eq!(press(&mut model, KeyCode::Char('d')), order("starlink1", LinkOrder::Demote));
    assert_eq!(press(&mut model, KeyCode::Char('e')), order("starlink1", LinkOrder::Enable));
    model.on_answer(r#"{"name":"starlink1","role":"backup","priority":1,"by_hand":true}"#);
    assert_eq!(model.message, "starlink1: backup, priority 1, until a reload");
    press(&mut model, KeyCode::Char('p'));
    let figures = json!({ "figures": status("client", Vec::new(), Vec::new()) });
    model.on_line(&figures.to_string(), Instant::now());
    assert_eq!(names(&model).len(), 3, "the picture stands");
    press(&mut model, KeyCode::Char('p'));
    model.on_line(&figures.to_string(), Instant::now());
    assert!(names(&model).is_empty());
    assert_eq!(press(&mut model, KeyCode::Char('q')), Action::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.on_key(interrupt), Action::Quit);
}

#[test]
fn without_colours_there_are_none_and_a_dead_daemon_is_told() {
    let coloured = |colours| {
        let mut model = client();
        model.colours = colours;
        model.on_ended("it has ended; waiting for the next start".to_owned());
        let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
        terminal.draw(|frame| draw::draw(frame, &model)).unwrap();
        let buffer = terminal.backend().buffer();
        let text: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
        assert!(text.contains("it has ended; waiting"), "{text}");
        buffer.content().iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 20);
}

#[test]
fn a_sparkline_is_of_what_the_link_carries() {
    let bars = |samples: &[f64], capacity| draw::sparkline(samples.iter().copied(), capacity, 4);
    assert_eq!(bars(&[10.0, 5.0], Some(10.0)), "  █▄");
    assert_eq!(bars(&[0.0, 1.0, 2.0, 3.0, 4.0], None), "▂▄▆█");
    assert_eq!(bars(&[], None), "    ");
}
