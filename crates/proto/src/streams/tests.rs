//! Two sides over a channel that loses, doubles, reorders and cuts pieces anew.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ROUND: Duration = Duration::from_millis(50);

fn target() -> StreamTarget {
    StreamTarget { to: "198.51.100.1:80".parse().unwrap(), dscp: 8 }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos((1_000 + ms) * 1_000_000)
}

fn side(is_accepting: bool) -> Streams {
    let mut streams = Streams::new();
    streams.set_accepting(is_accepting);
    streams.set_links(1_400, (ROUND, 1 << 20), None);
    streams
}

/// A piece arrives, as a session hands it on.
fn deliver(piece: &PacketBuf, to: &mut Streams, now: Instant) {
    match piece.position() {
        Some(at) => to.on_piece(at, Bytes::copy_from_slice(piece)),
        None => match Control::parse(piece) {
            Ok(Control::Stream(message)) => to.on_message(&message, now),
            other => panic!("no message: {other:?}"),
        },
    }
}

/// Everything arrives at once and in order.
fn exchange(client: &mut Streams, server: &mut Streams, now: Instant) {
    loop {
        let mut any = false;
        while let Some(piece) = client.poll_piece() {
            client.on_sent(&piece);
            deliver(&piece, server, now);
            client.on_arrived(&piece);
            any = true;
        }
        while let Some(piece) = server.poll_piece() {
            server.on_sent(&piece);
            deliver(&piece, client, now);
            server.on_arrived(&piece);
            any = true;
        }
        if !any {
            return;
        }
    }
}

/// An open stream at both sides.
fn open() -> (Streams, Streams, StreamId) {
    let (mut client, mut server) = (side(false), side(true));
    let id = client.open(target(), StreamForm::Plain, at(0)).unwrap();
    exchange(&mut client, &mut server, at(0));
    assert_eq!(server.poll_event(), Some(StreamEvent::Asked(id, target())));
    server.accept(id, StreamForm::Plain);
    exchange(&mut client, &mut server, at(0));
    assert_eq!(client.poll_event(), Some(StreamEvent::Opened(id)));
    (client, server, id)
}

/// Reads all that is ready.
fn read(streams: &mut Streams, id: StreamId, now: Instant) -> Vec<u8> {
    let bytes: Vec<u8> = streams.ready(id).flat_map(|bytes| bytes.to_vec()).collect();
    streams.consume(id, bytes.len(), now);
    bytes
}

fn events(streams: &mut Streams) -> Vec<StreamEvent> {
    std::iter::from_fn(|| streams.poll_event()).collect()
}

#[test]
fn bytes_go_both_ways_and_both_ends_are_seen() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"question"));
    client.finish(id);
    exchange(&mut client, &mut server, at(1));
    assert_eq!(events(&mut server), [StreamEvent::Readable(id)]);
    assert_eq!(read(&mut server, id, at(1)), b"question");
    assert!(server.has_ended(id));
    server.write(id, Bytes::from(vec![7; 5_000]));
    server.finish(id);
    exchange(&mut client, &mut server, at(2));
    assert_eq!(events(&mut client), [StreamEvent::Readable(id)]);
    assert_eq!(read(&mut client, id, at(2)), vec![7; 5_000]);
    assert_eq!(events(&mut client), [StreamEvent::Finished(id)]);
    assert_eq!(events(&mut server), [StreamEvent::Finished(id)]);
    assert_eq!((client.stats().open, server.stats().open), (0, 0));
    assert_eq!((client.waiting, client.under_way, client.stats.unread_bytes), (0, 0, 0));
    assert_eq!((server.waiting, server.under_way, server.stats.unread_bytes), (0, 0, 0));
}

#[test]
fn the_bytes_have_the_form_that_both_sides_take() {
    use StreamForm::{Blocks, Plain};
    for (offered, taken, form) in [(Plain, Blocks, Plain), (Blocks, Plain, Plain), (Blocks, Blocks, Blocks)] {
        let (mut client, mut server) = (side(false), side(true));
        let id = client.open(target(), offered, at(0)).unwrap();
        exchange(&mut client, &mut server, at(0));
        server.accept(id, taken);
        exchange(&mut client, &mut server, at(0));
        assert_eq!((client.form(id), server.form(id)), (form, form), "{offered:?}, {taken:?}");
    }
    // An answer that takes what was not offered.
    let mut client = side(false);
    let id = client.open(target(), Plain, at(0)).unwrap();
    let opened = StreamMessage::Opened { at: Position::new(id, 1), credit: 1_000, form: Blocks };
    client.on_message(&opened, at(0));
    assert_eq!(client.poll_event(), Some(StreamEvent::Opened(id)));
    assert_eq!(client.form(id), Plain);
}

#[test]
fn a_refusal_ends_the_stream_on_both_sides() {
    let (mut client, mut server) = (side(false), side(true));
    let id = client.open(target(), StreamForm::Plain, at(0)).unwrap();
    exchange(&mut client, &mut server, at(0));
    server.refuse(id, StreamRefusal::Forbidden);
    exchange(&mut client, &mut server, at(0));
    assert_eq!(events(&mut client), [StreamEvent::Refused(id, StreamRefusal::Forbidden)]);
    assert_eq!((client.stats().open, server.stats().open), (0, 0));
    assert_eq!((client.stats().refused, server.stats().refused), (1, 1));
}

#[test]
fn a_side_that_takes_no_streams_ignores_them() {
    let (mut client, mut server) = (side(false), side(false));
    client.open(target(), StreamForm::Plain, at(0)).unwrap();
    exchange(&mut client, &mut server, at(0));
    assert_eq!((events(&mut server), server.stats().open), (vec![], 0));
}

#[test]
fn a_writer_without_credit_waits_until_the_reader_reads() {
    let (mut client, mut server, id) = open();
    let mut written = 0;
    client.set_time(at(1));
    loop {
        let room = client.room(id);
        if room == 0 {
            break;
        }
        client.write(id, Bytes::from(vec![0; room]));
        written += room as u64;
        exchange(&mut client, &mut server, at(1));
        events(&mut client);
    }
    assert_eq!(written, WINDOW_FIRST, "the reader has read nothing");
    assert_eq!(client.stats().credit_blocked, 1);
    assert_eq!(server.held_bytes() as u64, WINDOW_FIRST);
    let blocked = |client: &Streams, ms| client.credit_blocked_for(at(ms)).as_millis();
    assert_eq!([blocked(&client, 1), blocked(&client, 4)], [0, 3], "while it lasts");
    read(&mut server, id, at(5));
    exchange(&mut client, &mut server, at(5));
    assert_eq!(events(&mut client), [StreamEvent::Writable(id)]);
    assert!(client.room(id) > 0);
    let (first, ends) = client.name(id).unwrap();
    let figures = client.figures(id, first, at(9)).unwrap();
    assert_eq!((blocked(&client, 9), figures.credit_blocked.as_millis()), (4, 4), "and no longer");
    assert_eq!((figures.sent_bytes, figures.received_bytes, ends.to), (WINDOW_FIRST, 0, target().to));
    assert_eq!(server.figures(id, first, at(9)).unwrap().received_bytes, WINDOW_FIRST);
    assert_eq!(client.figures(id, first + 1, at(9)), None, "another stream of the number");

    client.set_time(at(9));
    loop {
        let room = client.room(id);
        if room == 0 {
            break;
        }
        client.write(id, Bytes::from(vec![0; room]));
        exchange(&mut client, &mut server, at(9));
        events(&mut client);
    }
    client.set_time(at(12));
    client.reset(id);
    assert_eq!(blocked(&client, 50), 7, "what is over counts, and ends");
}

#[test]
fn the_window_doubles_while_it_is_read_within_two_round_trips() {
    let (mut client, mut server, id) = open();
    let mut window = |ms| {
        let limit = |server: &Streams| server.stream(id).map_or(0, |stream| stream.incoming.limit());
        let before = limit(&server);
        while limit(&server) == before {
            let room = client.room(id).min(100_000);
            client.write(id, Bytes::from(vec![0; room]));
            exchange(&mut client, &mut server, at(ms));
            read(&mut server, id, at(ms));
            exchange(&mut client, &mut server, at(ms));
        }
        limit(&server) - server.stream(id).map_or(0, |stream| stream.incoming.next())
    };
    assert_eq!(window(50), 2 * WINDOW_FIRST);
    assert_eq!(window(100), 4 * WINDOW_FIRST);
    assert_eq!(window(1_000), 4 * WINDOW_FIRST, "it took longer");
    assert_eq!(window(1_010), 8 * WINDOW_FIRST);
    assert_eq!(window(1_020), 8 * WINDOW_FIRST, "no more than the most");
}

/// A reader that finds nothing takes nothing, and must be told when the rest has come.
#[test]
fn an_end_that_overtakes_the_last_bytes_is_told_with_them() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"last"));
    client.finish(id);
    let (last, end) = (client.poll_piece().unwrap(), client.poll_piece().unwrap());
    deliver(&end, &mut server, at(1));
    assert_eq!(events(&mut server), []);
    deliver(&last, &mut server, at(2));
    assert_eq!(events(&mut server), [StreamEvent::Readable(id)]);
    assert_eq!(read(&mut server, id, at(2)), b"last");
    assert!(server.has_ended(id));
}

#[test]
fn a_broken_connection_is_told_behind_its_bytes() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"a question that is not read"));
    server.write(id, Bytes::from(vec![7; 3_000]));
    server.break_off(id);
    assert_eq!(server.room(id), 0);
    let pieces: Vec<PacketBuf> = std::iter::from_fn(|| server.poll_piece()).collect();
    assert!(pieces.iter().all(|piece| piece.position().is_some()), "the reset waits");
    let (last, first) = pieces.split_last().unwrap();
    for piece in &pieces {
        server.on_sent(piece);
        deliver(piece, &mut client, at(1));
    }
    first.iter().for_each(|piece| server.on_arrived(piece));
    // One was lost: it goes again, and the reset behind it.
    assert!(server.poll_piece().is_none() && server.wants(last));
    exchange(&mut client, &mut server, at(1));
    assert_eq!(events(&mut client), [StreamEvent::Readable(id)]);
    assert_eq!(read(&mut client, id, at(1)), vec![7; 3_000]);
    server.on_arrived(last);
    exchange(&mut client, &mut server, at(2));
    assert_eq!(events(&mut client), [StreamEvent::Reset(id)]);
    assert_eq!(events(&mut server), [], "what came meanwhile is not told");
    for side in [&client, &server] {
        assert_eq!((side.waiting, side.under_way, side.promised, side.used), (0, 0, 0, 0));
        assert_eq!((side.stats.unread_bytes, side.stats.reset), (0, 1));
    }
}

#[test]
fn a_broken_connection_without_bytes_under_way_is_told_at_once() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"not read"));
    exchange(&mut client, &mut server, at(1));
    server.finish(id);
    server.break_off(id);
    assert_eq!((server.stats().open, server.stats.unread_bytes), (0, 0));
    exchange(&mut client, &mut server, at(2));
    assert_eq!(
        events(&mut client),
        [StreamEvent::Readable(id), StreamEvent::Reset(id)],
        "the end, the reset"
    );
    // One that never stood is taken back.
    let id = client.open(target(), StreamForm::Plain, at(3)).unwrap();
    client.break_off(id);
    exchange(&mut client, &mut server, at(3));
    assert_eq!((client.stats().open, server.stats().open), (0, 0));
}

#[test]
fn what_a_reader_leaves_keeps_no_receive_buffer_and_little_else() {
    let (_, mut server, id) = open();
    let slab = Bytes::from(vec![5; 300_000]);
    let mut place = 1;
    let mut give = |server: &mut Streams, bytes: usize| {
        server.on_piece(Position::new(id, place), slab.slice(..bytes));
        place += bytes as u64;
    };
    // As they came, for a reader that reads.
    (0..100).for_each(|_| give(&mut server, 1_400));
    assert!(!slab.is_unique());
    server.consume(id, 139_999, at(1));
    server.leave(id);
    assert!(slab.is_unique(), "it left one byte");
    (0..20_000).for_each(|_| give(&mut server, 1));
    (0..100).for_each(|_| give(&mut server, 1_400));
    assert!(slab.is_unique(), "more came while it did not read");
    let parts = server.ready(id).count();
    assert!(parts < 140, "{parts} parts of 160,001 bytes");
    assert_eq!(read(&mut server, id, at(2)), vec![5; 160_001]);
    assert_eq!(server.stats.unread_bytes, 0);
    give(&mut server, 1_400);
    assert!(!slab.is_unique(), "it reads again");
}

#[test]
fn a_number_is_used_again_and_old_frames_do_nothing_to_the_new_stream() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"old"));
    let old: Vec<PacketBuf> = std::iter::from_fn(|| client.poll_piece()).collect();
    client.reset(id);
    // The reset is late; what opens the next stream is not.
    let reset: Vec<PacketBuf> = std::iter::from_fn(|| client.poll_piece()).collect();
    let again = client.open(target(), StreamForm::Plain, at(1)).unwrap();
    assert_eq!(again, id);
    exchange(&mut client, &mut server, at(1));
    assert_eq!(events(&mut server), [StreamEvent::Reset(id), StreamEvent::Asked(id, target())]);
    server.accept(id, StreamForm::Plain);
    exchange(&mut client, &mut server, at(1));
    for late in old.iter().chain(&reset) {
        deliver(late, &mut server, at(2));
    }
    assert_eq!(events(&mut server), []);
    client.write(again, Bytes::from_static(b"new"));
    exchange(&mut client, &mut server, at(2));
    assert_eq!(read(&mut server, id, at(2)), b"new");
}

#[test]
fn a_number_is_used_again_though_the_last_credit_did_not_come() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from(vec![7; 3 << 19]));
    exchange(&mut client, &mut server, at(1));
    read(&mut server, id, at(1));
    // The credit is lost; the client gives the stream up.
    assert!(std::iter::from_fn(|| server.poll_piece()).count() > 0);
    client.reset(id);
    exchange(&mut client, &mut server, at(2));
    events(&mut server);
    assert_eq!(client.open(target(), StreamForm::Plain, at(2)), Some(id));
    exchange(&mut client, &mut server, at(2));
    assert_eq!(events(&mut server), [StreamEvent::Asked(id, target())]);
}

/// A peer that asks without end and never tells that the answers came.
#[test]
fn answers_that_are_not_acknowledged_are_bounded() {
    let mut server = side(true);
    let mut answers = 0;
    for number in 1..20_000 {
        let at_first = Position::new(StreamId::new(0).unwrap(), number * 2 * WINDOW_FIRST);
        let StreamTarget { to, dscp } = target();
        server.on_message(
            &StreamMessage::Open { at: at_first, credit: 0, dscp, to, form: StreamForm::Plain },
            at(0),
        );
        for event in events(&mut server) {
            if let StreamEvent::Asked(id, _) = event {
                server.refuse(id, StreamRefusal::Forbidden);
            }
        }
        answers += std::iter::from_fn(|| server.poll_piece()).count();
    }
    assert_eq!(answers, MESSAGES_MAX);
}

#[test]
fn a_copy_of_what_opened_a_stream_opens_no_other_one() {
    let (mut client, mut server) = (side(false), side(true));
    let id = client.open(target(), StreamForm::Plain, at(0)).unwrap();
    let open = client.poll_piece().unwrap();
    deliver(&open, &mut server, at(0));
    deliver(&open, &mut server, at(0));
    assert_eq!(events(&mut server), [StreamEvent::Asked(id, target())]);
    server.refuse(id, StreamRefusal::Refused);
    deliver(&open, &mut server, at(0));
    assert_eq!(events(&mut server), []);
    // A reset that overtakes what opens the stream.
    client.reset(id);
    let id = client.open(target(), StreamForm::Plain, at(0)).unwrap();
    let open: Vec<PacketBuf> = std::iter::from_fn(|| client.poll_piece()).collect();
    client.reset(id);
    deliver(&client.poll_piece().unwrap(), &mut server, at(0));
    open.iter().for_each(|piece| deliver(piece, &mut server, at(0)));
    assert_eq!(events(&mut server), []);
}

#[test]
fn a_peer_that_sends_beyond_its_credit_or_its_end_is_reset() {
    let (mut client, mut server, id) = open();
    let first = server.stream(id).unwrap().first;
    server.on_piece(Position::new(id, first + WINDOW_FIRST), Bytes::from_static(b"x"));
    assert_eq!(events(&mut server), [StreamEvent::Reset(id)]);
    exchange(&mut client, &mut server, at(0));
    assert_eq!(events(&mut client), [StreamEvent::Reset(id)]);
    let (_, mut server, id) = open();
    server.on_message(&StreamMessage::End(Position::new(id, first + 3)), at(0));
    server.on_piece(Position::new(id, first + 3), Bytes::from_static(b"x"));
    assert_eq!(events(&mut server), [StreamEvent::Reset(id)]);
}

#[test]
fn what_comes_in_crumbs_out_of_order_is_bounded() {
    let (_, mut server, id) = open();
    let first = server.stream(id).unwrap().first;
    for at in 0..100_000 {
        server.on_piece(Position::new(id, first + 1 + 2 * at), Bytes::from_static(b"x"));
    }
    assert_eq!(events(&mut server), [StreamEvent::Reset(id)]);
    assert_eq!(server.held_bytes(), 0);
}

#[test]
fn an_end_of_the_session_resets_all_streams() {
    let (mut client, _, id) = open();
    client.write(id, Bytes::from_static(b"x"));
    client.clear();
    assert_eq!(events(&mut client), [StreamEvent::Reset(id)]);
    assert_eq!((client.waiting, client.under_way, client.has_work()), (0, 0, true));
    assert_eq!(client.poll_abandoned(), Some(id));
    assert!(client.poll_piece().is_none());
}

/// What happens to the next frame that was sent.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Doubled,
    /// It is taken for lost, and arrives all the same.
    Spurious,
    Lost,
    /// It is lost, and cut in two when it is sent again.
    Cut(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::Doubled),
        1 => Just(Fate::Spurious),
        2 => Just(Fate::Lost),
        1 => (1usize..1_400).prop_map(Fate::Cut),
    ]
}

/// One direction of the channel: frames under way, of which any may be the next to arrive.
#[derive(Debug, Default)]
struct Channel(Vec<PacketBuf>);

impl Channel {
    fn step(&mut self, from: &mut Streams, to: &mut Streams, (pick, fate): (usize, Fate), now: Instant) {
        while let Some(piece) = from.poll_piece() {
            from.on_sent(&piece);
            self.0.push(piece);
        }
        if self.0.is_empty() {
            return;
        }
        let mut piece = self.0.swap_remove(pick % self.0.len());
        if matches!(fate, Fate::Arrives | Fate::Doubled | Fate::Spurious) {
            deliver(&piece, to, now);
        }
        match fate {
            Fate::Arrives => from.on_arrived(&piece),
            Fate::Doubled => {
                deliver(&piece, to, now);
                from.on_arrived(&piece);
            }
            Fate::Spurious | Fate::Lost | Fate::Cut(_) if !from.wants(&piece) => {}
            Fate::Cut(bytes) => {
                self.0.extend(piece.split_to(bytes));
                self.0.push(piece);
            }
            Fate::Spurious | Fate::Lost => self.0.push(piece),
        }
    }
}

proptest! {
    /// Several streams, both ways, over a channel that does anything but lose for ever.
    #[test]
    fn bytes_in_are_bytes_out(
        lengths in proptest::collection::vec((0usize..60_000, 0usize..60_000), 1..4),
        steps in proptest::collection::vec((any::<usize>(), fate(), 0usize..9_000), 1..400),
    ) {
        let (mut client, mut server) = (side(false), side(true));
        let mut channels = [Channel::default(), Channel::default()];
        let byte = |id: StreamId, at: usize, salt: u8| {
            u8::try_from((at / 7 + usize::from(id.number())) % 251).unwrap() ^ salt
        };
        let mut wanted = BTreeMap::new();
        for lengths in &lengths {
            wanted.insert(client.open(target(), StreamForm::Plain, at(0)).unwrap(), *lengths);
        }
        let mut written: BTreeMap<(StreamId, bool), usize> = BTreeMap::new();
        let mut got: BTreeMap<(StreamId, bool), Vec<u8>> = BTreeMap::new();
        let (mut finished, mut now_ms) = (0, 0);
        let calm = std::iter::repeat_n((0, Fate::Arrives, 9_000), 4_000);
        for (pick, fate, chunk) in steps.into_iter().chain(calm) {
            now_ms += 1;
            let now = at(now_ms);
            let [up, down] = &mut channels;
            up.step(&mut client, &mut server, (pick, fate), now);
            down.step(&mut server, &mut client, (pick, fate), now);
            for (is_client, streams) in [(true, &mut client), (false, &mut server)] {
                for event in events(streams) {
                    match event {
                        StreamEvent::Asked(id, _) => streams.accept(id, StreamForm::Plain),
                        StreamEvent::Finished(_) => finished += 1,
                        StreamEvent::Opened(_) | StreamEvent::Readable(_) | StreamEvent::Writable(_) => {}
                        StreamEvent::Refused(..) | StreamEvent::Reset(_) => {
                            prop_assert!(false, "{event:?}");
                        }
                    }
                }
                for (id, (up, down)) in &wanted {
                    let total = if is_client { *up } else { *down };
                    let sent = written.entry((*id, is_client)).or_default();
                    let count = chunk.min(total - *sent).min(streams.room(*id));
                    let salt = u8::from(is_client);
                    let bytes: Vec<u8> = (*sent..*sent + count).map(|at| byte(*id, at, salt)).collect();
                    if count > 0 {
                        streams.write(*id, bytes.into());
                    }
                    *sent += count;
                    let is_open = streams.stream(*id).is_some_and(|stream| stream.stage == Stage::Open);
                    if *sent == total && is_open {
                        streams.finish(*id);
                    }
                    let bytes = read(streams, *id, now);
                    got.entry((*id, !is_client)).or_default().extend(bytes);
                }
            }
        }
        for (id, (up, down)) in &wanted {
            for (is_client, total) in [(true, *up), (false, *down)] {
                let salt = u8::from(is_client);
                let whole: Vec<u8> = (0..total).map(|at| byte(*id, at, salt)).collect();
                prop_assert_eq!(got.get(&(*id, is_client)), Some(&whole), "{:?}", id);
            }
        }
        prop_assert_eq!(finished, 2 * wanted.len());
        prop_assert_eq!((client.waiting, client.under_way, client.held_bytes()), (0, 0, 0));
        prop_assert_eq!((server.waiting, server.under_way, server.held_bytes()), (0, 0, 0));
    }
}

/// A client that starts anew begins with the first offsets, which its server has seen before.
#[test]
fn a_peer_that_starts_anew_opens_streams_again() {
    let (mut client, mut server, id) = open();
    client.write(id, Bytes::from_static(b"of the run before"));
    exchange(&mut client, &mut server, at(1));
    server.clear();
    assert_eq!(events(&mut server), [StreamEvent::Readable(id), StreamEvent::Reset(id)]);

    let mut client = side(false);
    assert_eq!(client.open(target(), StreamForm::Plain, at(2)), Some(id));
    exchange(&mut client, &mut server, at(2));
    assert_eq!(events(&mut server), [StreamEvent::Asked(id, target())]);
}
