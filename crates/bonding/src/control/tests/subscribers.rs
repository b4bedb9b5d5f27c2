//! Subscribers that read, that do not, that vanish and that misbehave.

use std::io::{BufRead as _, BufReader};

use super::*;

/// Figures of so many bytes that take so long to make, and events up to a number.
struct Feed {
    bytes: usize,
    takes: Duration,
    made: usize,
    newest: u64,
}

impl Feed {
    fn new(bytes: usize) -> Self {
        Self { bytes, takes: Duration::ZERO, made: 0, newest: 0 }
    }
}

impl Answers for Feed {
    type Rest = usize;

    fn answer(&mut self, _: Request) -> Portion<usize> {
        Portion { text: "{}".to_owned(), rest: None }
    }

    fn proceed(&mut self, _: usize) -> Portion<usize> {
        unreachable!("its answers are one portion")
    }

    fn figures(&mut self) -> String {
        self.made += 1;
        std::thread::sleep(self.takes);
        format!("{{\"figures\":\"{}\"}}", "x".repeat(self.bytes))
    }

    fn events(&self, after: u64) -> Option<(String, u64)> {
        (after < self.newest).then(|| (format!("{{\"events\":[{}]}}", after + 1), after + 1))
    }
}

/// Serves for `span` as an event loop does. The longest time that serving took at once.
fn serve(control: &mut Control<usize>, feed: &mut Feed, span: Duration) -> Duration {
    let mut outer = Poller::new().unwrap();
    outer.add(&*control, 0, Interest::Readable).unwrap();
    let (mut ready, mut longest) = (Vec::new(), Duration::ZERO);
    let start = Instant::now();
    while start.elapsed() < span {
        let wait = control.due_in().unwrap_or(Duration::MAX).min(Duration::from_millis(20));
        outer.wait(&mut ready, Some(wait)).unwrap();
        let from = Instant::now();
        if !ready.is_empty() {
            control.handle_ready(feed);
        }
        control.handle_due();
        if control.is_push_due(feed.newest) {
            control.push(feed);
        }
        longest = longest.max(from.elapsed());
    }
    longest
}

fn subscribe(place: &Place, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.set_nonblocking(true).unwrap();
    writeln!(stream, "{request}").unwrap();
    stream
}

/// The lines that have come.
fn lines(stream: &UnixStream) -> Vec<String> {
    BufReader::new(stream).lines().map_while(Result::ok).collect()
}

const TEN_A_SECOND: &str = r#"{"request":"subscribe","interval_ms":100,"after":0}"#;

/// Ten subscribers, of which three read, three never do, two vanish and two write on.
#[test]
fn subscribers_that_do_not_read_hold_nothing_up_and_keep_one_push() {
    const BYTES: usize = 1 << 20;
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut feed = Feed::new(BYTES);
    let silent: Vec<UnixStream> = (0..3).map(|_| subscribe(&place, TEN_A_SECOND)).collect();
    drop([(); 2].map(|()| subscribe(&place, TEN_A_SECOND)));
    let mut hostile = [(); 2].map(|()| subscribe(&place, TEN_A_SECOND));
    serve(&mut control, &mut feed, Duration::from_millis(150));
    for stream in &mut hostile {
        // Nothing of it is read before the push is taken.
        let _ = stream.write(&[b'x'; 64 << 10]);
    }
    let path = place.socket();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut ask = Ask::connect(&path).unwrap();
                ask.subscribe(&Request::Subscribe { interval_ms: 100, after: None }).unwrap();
                let mut count = 0;
                while let Ok(line) = ask.next_line() {
                    assert_eq!(line.len(), BYTES + 15, "whole and in order");
                    count += 1;
                }
                count
            })
        })
        .collect();
    serve(&mut control, &mut feed, Duration::from_secs(3));
    // Those that write on are closed once what they write is read.
    let count = control.connections.len();
    assert!((6..=8).contains(&count), "{count}: those that vanished are closed");
    let kept: usize = control.connections.values().map(Connection::unread).max().unwrap();
    assert!(kept <= BYTES + 100, "{kept} bytes are kept for one reader");
    // One line for all that are due at one moment, however many they are.
    assert!(feed.made <= 80, "{} lines were made", feed.made);
    control.drop_readers(Instant::now() + Duration::from_secs(11));
    assert!(control.connections.len() <= 3, "those that took nothing are closed");
    drop(control);
    for reader in readers {
        let count = reader.join().unwrap();
        assert!((5..=31).contains(&count), "{count} lines came in 3 s");
    }
    assert!(silent.iter().all(|stream| stream.peer_addr().is_ok()));
}

#[test]
fn what_a_slow_reader_missed_is_counted_and_events_wait() {
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut feed = Feed::new(1 << 20);
    let reader = subscribe(&place, TEN_A_SECOND);
    serve(&mut control, &mut feed, Duration::from_millis(450));
    feed.newest = 3;
    serve(&mut control, &mut feed, Duration::from_millis(200));
    assert_eq!(feed.made, 1);
    let mut seen = Vec::new();
    feed.bytes = 1;
    std::thread::scope(|scope| {
        let place = &reader;
        let read = scope.spawn(move || {
            place.set_nonblocking(false).unwrap();
            let mut lines = Vec::new();
            for line in BufReader::new(place).lines().map_while(Result::ok) {
                let is_last = line.starts_with("{\"skipped\"");
                lines.push(line);
                if is_last {
                    break;
                }
            }
            lines
        });
        serve(&mut control, &mut feed, Duration::from_millis(600));
        seen = read.join().unwrap();
    });
    let heads: Vec<&str> = seen.iter().map(|line| line.get(..12).unwrap()).collect();
    let events = "{\"events\":[";
    assert_eq!(heads[0], "{\"subscribed");
    assert!(heads[1].starts_with("{\"figures\""));
    let told: Vec<&String> = seen.iter().filter(|line| line.starts_with(events)).collect();
    assert!(!told.is_empty() && told[0].contains("[1]"), "{told:?}");
    let skipped: serde_json::Value = serde_json::from_str(seen.last().unwrap()).unwrap();
    assert!((3..=8).contains(&skipped["skipped"].as_u64().unwrap()), "{skipped}");
}

/// Figures that take 20 ms to make come every two seconds, whatever was asked.
#[test]
fn figures_take_a_hundredth_of_the_time() {
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut feed = Feed { takes: Duration::from_millis(20), ..Feed::new(1) };
    let readers: Vec<UnixStream> = (0..10).map(|_| subscribe(&place, TEN_A_SECOND)).collect();
    serve(&mut control, &mut feed, Duration::from_secs(3));
    assert!((1..=3).contains(&feed.made), "{} lines were made", feed.made);
    assert!(readers.iter().all(|reader| lines(reader).len() > 1));
}

#[test]
fn a_subscriber_that_writes_on_is_closed() {
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut feed = Feed::new(1);
    let mut readers: Vec<UnixStream> = (0..2).map(|_| subscribe(&place, TEN_A_SECOND)).collect();
    serve(&mut control, &mut feed, Duration::from_millis(150));
    writeln!(readers[0], "status").unwrap();
    serve(&mut control, &mut feed, Duration::from_millis(150));
    assert_eq!(control.connections.len(), 1);
}

#[test]
fn an_interval_is_bounded_and_without_one_only_events_come() {
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut feed = Feed::new(1);
    let hasty = subscribe(&place, r#"{"request":"subscribe","interval_ms":99}"#);
    let events = subscribe(&place, r#"{"request":"subscribe","interval_ms":0,"after":7}"#);
    feed.newest = 9;
    serve(&mut control, &mut feed, Duration::from_millis(300));
    assert_eq!(lines(&hasty), [r#"{"error":"an interval of 99 ms is not from 100 to 3600000"}"#]);
    assert_eq!(
        lines(&events),
        [r#"{"subscribed":{"interval_ms":0,"protocol":1}}"#, r#"{"events":[8]}"#, r#"{"events":[9]}"#]
    );
    assert_eq!(feed.made, 0);
}
