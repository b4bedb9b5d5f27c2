//! Real sockets in a folder of their own.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// A socket path in a folder that is removed afterwards.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("run/test.sock")
    }
}

/// Answers everything with this many times `x`, in portions of at most [`PART`].
struct Long {
    bytes: usize,
    portions: usize,
}

const PART: usize = 16 << 10;

impl Long {
    fn new(bytes: usize) -> Self {
        Self { bytes, portions: 0 }
    }
}

impl Answers for Long {
    type Rest = usize;

    fn answer(&mut self, _: Request) -> Portion<usize> {
        self.proceed(self.bytes)
    }

    fn proceed(&mut self, left: usize) -> Portion<usize> {
        self.portions += 1;
        let text = "x".repeat(left.min(PART));
        Portion { text, rest: left.checked_sub(PART).filter(|left| *left > 0) }
    }

    fn figures(&mut self) -> String {
        unreachable!("it has no subscriber")
    }

    fn events(&self, _: u64) -> Option<(String, u64)> {
        unreachable!("it has no subscriber")
    }
}

struct Hello;

impl Answers for Hello {
    type Rest = usize;

    fn answer(&mut self, _: Request) -> Portion<usize> {
        Portion { text: "{\"hello\":1}".to_owned(), rest: None }
    }

    fn proceed(&mut self, _: usize) -> Portion<usize> {
        unreachable!("its answers are one portion")
    }

    fn figures(&mut self) -> String {
        unreachable!("it has no subscriber")
    }

    fn events(&self, _: u64) -> Option<(String, u64)> {
        unreachable!("it has no subscriber")
    }
}

/// Runs `tools` beside an instance that answers until they are done, waiting on its descriptor as
/// an event loop does.
fn beside<T>(place: &Place, tools: impl FnOnce() -> T) -> T {
    beside_answers(place, Hello, tools)
}

fn beside_answers<T>(
    place: &Place,
    mut answers: impl Answers<Rest = usize> + Send,
    tools: impl FnOnce() -> T,
) -> T {
    /// Ends the serving loop even when the tools panic.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let stop = AtomicBool::new(false);
    let (bound, is_bound) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let mut control = Control::<usize>::bind(&place.socket()).unwrap();
            bound.send(()).unwrap();
            let mut outer = Poller::new().unwrap();
            outer.add(&control, 0, Interest::Readable).unwrap();
            let mut ready = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                outer.wait(&mut ready, Some(Duration::from_millis(5))).unwrap();
                if !ready.is_empty() {
                    control.handle_ready(&mut answers);
                }
                assert!(control.connections.len() <= CONNECTIONS_MAX);
            }
        });
        let _stop = Stop(stop);
        is_bound.recv().unwrap();
        tools()
    })
}

#[test]
fn a_tool_asks_twice_on_one_connection() {
    let place = Place::new();
    beside(&place, || {
        let mut ask = Ask::connect(&place.socket()).unwrap();
        assert_eq!(ask.ask(&Request::Status).unwrap(), "{\"hello\":1}\n");
        assert_eq!(ask.ask(&Request::Status).unwrap(), "{\"hello\":1}\n");
    });
}

#[test]
fn requests_may_come_in_pieces_and_unknown_ones_are_answered() {
    let place = Place::new();
    let answers = beside(&place, || {
        let mut tool = UnixStream::connect(place.socket()).unwrap();
        tool.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for piece in ["sta", "tus\nsta", "tus\r\nwhat\n"] {
            tool.write_all(piece.as_bytes()).unwrap();
        }
        tool.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = String::new();
        tool.read_to_string(&mut answers).unwrap();
        answers
    });
    assert_eq!(
        answers,
        "{\"hello\":1}\n{\"hello\":1}\n{\"error\":\"unknown request \\\"what\\\"; known: status, clients, flows, events, version, rekey, reload, subscribe, link, invite, expire, revoke\"}\n"
    );
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_instance() {
    let place = Place::new();
    let control = Control::<usize>::bind(&place.socket()).unwrap();
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.socket().parent().unwrap()), 0o700);
    assert_eq!(mode(&place.socket().with_extension("lock")), 0o600);
    drop(control);
    assert!(!place.socket().exists());
}

#[test]
fn a_second_instance_is_refused_and_a_dead_one_replaced() {
    let place = Place::new();
    let first = Control::<usize>::bind(&place.socket()).unwrap();
    let second = Control::<usize>::bind(&place.socket()).unwrap_err();
    assert!(matches!(second, ControlError::Running(_)));
    assert!(second.to_string().starts_with("another instance is running"), "{second}");
    // A crash leaves the file and closes the socket.
    let left_behind = place.0.path().join("run/left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
    assert!(left_behind.exists());
    drop(Control::<usize>::bind(&left_behind).unwrap());
    drop(first);
    drop(Control::<usize>::bind(&place.socket()).unwrap());
}

#[test]
fn a_lock_is_not_waited_for() {
    let place = Place::new();
    let folder = place.socket().parent().unwrap().to_owned();
    std::fs::create_dir(&folder).unwrap();
    // Any user can hold a lock on a folder.
    let others = File::open(&folder).unwrap();
    others.lock().unwrap();
    drop(Control::<usize>::bind(&place.socket()).unwrap());
    let other = lock(&place.socket()).unwrap();
    assert!(matches!(Control::<usize>::bind(&place.socket()), Err(ControlError::Running(_))));
    drop(other);
    drop(Control::<usize>::bind(&place.socket()).unwrap());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.0.path().join("run")).unwrap();
    std::fs::write(place.socket(), "precious").unwrap();
    let error = Control::<usize>::bind(&place.socket()).unwrap_err();
    assert!(matches!(error, ControlError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "precious");
}

#[test]
fn an_endless_request_and_a_crowd_are_cut_off() {
    let place = Place::new();
    beside(&place, || {
        let mut endless = UnixStream::connect(place.socket()).unwrap();
        endless.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other side closes somewhere in it, so writing may fail.
        let _ = endless.write_all(&[b'x'; 16 * 1_024]);
        let ended = endless.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));

        let mut crowd: Vec<Ask> =
            (0..CONNECTIONS_MAX + 1).map(|_| Ask::connect(&place.socket()).unwrap()).collect();
        assert!(crowd.last_mut().unwrap().ask(&Request::Status).is_ok());
        assert!(crowd.first_mut().unwrap().ask(&Request::Status).is_err(), "the oldest made room");
    });
}

/// An answer of 100 MB, of which the answering side never has more than one portion.
#[test]
fn an_answer_of_any_length_arrives_whole() {
    const BYTES: usize = 100_000_000;
    let place = Place::new();
    beside_answers(&place, Long::new(BYTES), || {
        let mut ask = Ask::connect(&place.socket()).unwrap();
        for _ in 0..2 {
            assert_eq!(ask.ask(&Request::Clients).unwrap().len(), BYTES + 1);
        }
    });
}

#[test]
fn a_tool_that_does_not_read_holds_one_portion_and_is_dropped() {
    let place = Place::new();
    let mut control = Control::<usize>::bind(&place.socket()).unwrap();
    let mut tool = UnixStream::connect(place.socket()).unwrap();
    tool.set_nonblocking(true).unwrap();
    let mut answers = Long::new(usize::MAX);
    for _ in 0..200 {
        let _ = tool.write(b"status\nstatus\n");
        let before = answers.portions;
        control.handle_ready(&mut answers);
        assert!(answers.portions - before <= 1, "a long answer takes turns with the packets");
        let waiting: usize = control.connections.values().map(Connection::unread).sum();
        assert!(waiting <= PART, "{waiting} bytes wait");
    }
    assert!(control.due_in().is_some_and(|wait| wait <= Duration::from_secs(10)));
    control.handle_due();
    assert_eq!(control.connections.len(), 1);
    control.drop_readers(Instant::now() + Duration::from_secs(11));
    assert!(control.connections.is_empty());
    assert_eq!(control.due_in(), None);
}

mod subscribers;

#[test]
fn asking_where_nothing_runs_says_so() {
    let place = Place::new();
    let error = Ask::connect(&place.socket()).unwrap_err();
    assert!(error.to_string().starts_with("nothing is running behind"), "{error}");
}
