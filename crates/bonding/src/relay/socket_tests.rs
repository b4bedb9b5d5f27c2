//! Two relays with real sockets, joined by sessions in virtual time that lose nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::position::StreamId;
use bonding_proto::streams::StreamTarget;
use bonding_proto::{Datagram, Endpoint, Path, Session, SocketId, StateMachine};
use bonding_testkit::fixture;
use bytes::{Bytes, BytesMut};

use super::*;

const STEP: Duration = Duration::from_millis(5);
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A client and its server with one sealed link of 10 Mbit/s, and a relay at each.
struct World {
    client: Session,
    server: Endpoint,
    relays: [Relay; 2],
    now: Instant,
}

/// Everything that a machine has to send, as the other one gets it.
fn datagrams(machine: &mut impl StateMachine, now: Instant) -> Vec<Vec<u8>> {
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    while let Some(transmit) = machine.poll_transmit(&mut batch, SEGMENTS, now) {
        all.extend(batch.chunks(transmit.segment_size).map(<[u8]>::to_vec));
        batch.clear();
    }
    all
}

impl World {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let key = PrivateKey::from_bytes([8; 32]);
        let rate = Some(bonding_proto::units::BitRate::from_bps(10_000_000));
        let inner = Ipv4Addr::new(10, 99, 0, 2);
        let enrolled = fixture::enrolled("home".to_owned(), key.public(), inner, vec![rate]);
        let mut server = Endpoint::new(&fixture::server_config(vec![enrolled], 2), now);
        server.set_streams(true, now);
        let links = vec![fixture::client_link(0, 1, rate)];
        let client = Session::new(fixture::client_config(links, key, [5; 32], 1), now);
        let relays = [0, 1].map(|_| Relay::new(Compression::On).unwrap());
        let mut world = Self { client, server, relays, now };
        while !world.client.takes_streams() {
            world.step();
        }
        world
    }

    /// Some time passes: what is under way arrives, and sockets are served.
    fn step(&mut self) {
        self.now = self.now + STEP;
        let (now, client, server) = (self.now, &mut self.client, &mut self.server);
        client.handle_timeout(now);
        server.handle_timeout(now);
        let remote = SocketAddr::from(([192, 0, 2, 1], 40_000));
        for data in datagrams(client, now) {
            let path = Path { socket: SocketId(0), remote, local: None };
            let _ = server.handle_datagram(Datagram::new(path, BytesMut::from(&data[..])), now);
        }
        for data in datagrams(server, now) {
            let datagram = Datagram::new(fixture::client_path(0), BytesMut::from(&data[..]));
            let _ = client.handle_datagram(datagram, now);
        }
        let [near, far] = &mut self.relays;
        near.handle_ready(client, now);
        near.handle_due(client, now);
        far.handle_ready(server, now);
        far.handle_due(server, now);
    }

    /// The next event of a stream that is not a relay's.
    fn event(&mut self, at_client: bool) -> Option<StreamEvent> {
        let (client, server) = (&mut self.client, &mut self.server);
        let [near, far] = &mut self.relays;
        loop {
            let (is_taken, event) = if at_client {
                let (session, event) = StreamHost::poll_stream_event(client)?;
                (near.on_event(session, event, client, self.now), event)
            } else {
                let (session, event) = server.poll_stream_event()?;
                (far.on_event(session, event, server, self.now), event)
            };
            if !is_taken {
                return Some(event);
            }
        }
    }

    /// Goes on until it is done.
    fn until(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..4_000 {
            self.step();
            // Of streams that are opened, below, and of relays.
            while self.event(true).is_some() || self.event(false).is_some() {}
            if is_done(self) {
                return;
            }
        }
        panic!("never: {what}");
    }

    /// A stream in blocks, open at both sides.
    fn open(&mut self) -> StreamId {
        let target = StreamTarget { to: "198.51.100.1:80".parse().unwrap(), dscp: 0 };
        let id = self.client.streams_mut(self.now).open(target, StreamForm::Blocks, self.now).unwrap();
        while self.event(false) != Some(StreamEvent::Asked(id, target)) {
            self.step();
        }
        self.server.streams_mut(0, self.now).unwrap().accept(id, StreamForm::Blocks);
        while self.event(true) != Some(StreamEvent::Opened(id)) {
            self.step();
        }
        id
    }

    /// Joins a socket to the stream at one side; gives the application's end.
    fn join(&mut self, id: StreamId, at_client: bool) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let application = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        application.set_nonblocking(true).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let [near, far] = &mut self.relays;
        if at_client {
            near.join((0, id), socket, &mut self.client, self.now);
        } else {
            far.join((0, id), socket, &mut self.server, self.now);
        }
        application
    }

    fn codecs(&self) -> [bool; 2] {
        let [near, far] = &self.relays;
        let of = |relay: &Relay| relay.joints.values().any(|joint| joint.has_run() || joint.has_decoder());
        [of(near), of(far)]
    }
}

/// Writes what the socket takes.
fn write(socket: &mut TcpStream, bytes: &mut &[u8]) {
    if bytes.is_empty() {
        return;
    }
    match socket.write(bytes) {
        Ok(count) => *bytes = &bytes[count..],
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

/// Reads what is there, at most `most`. `false`: the end came.
fn read(socket: &mut TcpStream, most: usize, got: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; most];
    match socket.read(&mut buffer) {
        Ok(0) => return false,
        Ok(count) => got.extend_from_slice(&buffer[..count]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    true
}

/// Real sockets at both ends, a reader that is slow, and an end behind the last byte.
#[test]
fn connections_cross_compressed_and_end_after_their_last_byte() {
    let mut world = World::new();
    let id = world.open();
    let (mut near, mut far) = (world.join(id, true), world.join(id, false));
    let text = super::tests::text().repeat(12);
    let (mut up, mut down, mut got) = (&text[..], &text[..100_000], [Vec::new(), Vec::new()]);
    let mut ended = [false; 2];
    world.until("both directions ended", |_| {
        write(&mut near, &mut up);
        write(&mut far, &mut down);
        for (socket, rest) in [(&near, up), (&far, down)] {
            if rest.is_empty() {
                let _ = socket.shutdown(std::net::Shutdown::Write);
            }
        }
        ended[0] |= !read(&mut far, 20_000, &mut got[0]);
        ended[1] |= !read(&mut near, 3_000, &mut got[1]);
        ended == [true; 2]
    });
    assert!(got[0] == text && got[1] == text[..100_000]);
    let [near, far] = &world.relays;
    let (near, far) = (near.figures(), far.figures());
    assert_eq!((near.tx_plain_bytes, near.tx_bytes), (far.rx_plain_bytes, far.rx_bytes));
    assert!(near.tx_plain_bytes == text.len() as u64 && near.tx_bytes * 2 < near.tx_plain_bytes, "{near:?}");
    world.until("the joints are over", |world| world.relays.iter().all(|relay| relay.joints.is_empty()));
}

/// Nothing of a codec is left at either side of a connection that is idle, which goes on later.
#[test]
fn an_idle_connection_has_no_codecs() {
    let mut world = World::new();
    let id = world.open();
    let (mut near, mut far) = (world.join(id, true), world.join(id, false));
    let text = super::tests::text();
    for round in 1..=2 {
        let (mut rest, mut got) = (&text[..], Vec::new());
        world.until("the text arrives", |_| {
            write(&mut near, &mut rest);
            read(&mut far, 64_000, &mut got);
            got.len() == text.len()
        });
        assert!(got == text && world.codecs() == [true; 2], "round {round}");
        world.until("the codecs are dropped", |world| world.codecs() == [false; 2]);
    }
    assert_eq!(world.relays[0].due(), None);
}

/// A peer that sends what no peer sends has its stream reset, at both ends.
#[test]
fn malformed_blocks_reset_the_stream() {
    let mut world = World::new();
    for bytes in [&[7_u8, 0, 0][..], &[2, 0, 1, 0, 1, 0], &[1, 0, 4, 0, 1, 1, 2, 3, 4]] {
        let id = world.open();
        let mut far = world.join(id, false);
        let now = world.now;
        world.client.streams_mut(now).write(id, Bytes::copy_from_slice(bytes));
        let mut error = None;
        for _ in 0..100 {
            world.step();
            while world.event(false).is_some() {}
            if world.event(true) == Some(StreamEvent::Reset(id)) {
                error = far.read(&mut [0; 10]).err();
                break;
            }
        }
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::ConnectionReset), "{bytes:?}");
        assert!(world.relays[1].joints.is_empty());
    }
}
