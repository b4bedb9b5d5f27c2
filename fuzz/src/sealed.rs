//! A peer that holds true keys and sends whatever the input says: a client to a server's endpoint,
//! or a server to a client.
//!
//! The peer answers and starts handshakes, so its sealed datagrams are opened. It also replays and
//! changes earlier datagrams, and sends datagrams of strangers. Asserted in addition to
//! [`crate::machine`]: every packet from a client into the server's network has the client's
//! address; no changed datagram is accepted; no datagram is sent to an address that sent none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bonding_proto::client::{Client, Server};
use bonding_proto::config::{ClientConfig, Security};
use bonding_proto::crypto::kem::KemKey;
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::endpoint::{EnrolmentAnswer, SessionId};
use bonding_proto::event::SocketEvent;
use bonding_proto::handshake::payload::{ANSWER_BYTES, Answer};
use bonding_proto::handshake::{
    Claim, Cookie, Hello, Initiator, InvitationKey, Mac1, Outcome, Refusal, Responder, Stamp, TransportKeys,
    Verdict,
};
use bonding_proto::position::{Position, StreamId};
use bonding_proto::streams::{StreamEvent, StreamTarget};
use bonding_proto::view::LinkRole;
use bonding_proto::wire::control::Control;
use bonding_proto::wire::exchange::{CIPHERTEXT_BYTES, ExchangeFrame, PART_BYTES};
use bonding_proto::wire::feedback::{Feedback, Runs};
use bonding_proto::wire::heartbeat::{Heartbeat, WantedFlows};
use bonding_proto::wire::sealed::{DatagramKind, SEALED_HEADER_BYTES, SealedHeader};
use bonding_proto::wire::stream::{StreamForm, StreamMessage, StreamRefusal};
use bonding_proto::wire::{Kind, Modifiers, data_seq_num, parse_frame, put_frame_header};
use bonding_proto::{
    Datagram, Endpoint, Instant, LinkId, PacketBuf, Path, SocketId, StateMachine, StreamHost,
};
use bytes::{Bytes, BytesMut};

use crate::input::Input;
use crate::machine::{
    CLIENT_KEY, LINKS, SERVER_KEY, client_path, data_frame, inner_packet, key, new_endpoint, prefix,
    server_path, session_config, tick,
};
use crate::work::{Meter, Weighed as _};

/// The most datagrams remembered.
const SAID_MAX: usize = 64;
/// The most keys that the peer keeps.
const KEYS_MAX: usize = 6;

const fn start() -> Instant {
    Instant::from_nanos(1_000_000_000)
}

/// The peer's keys with their counters, and the datagrams that it received and sent.
#[derive(Debug, Default)]
struct Peer {
    keys: Vec<(TransportKeys, BTreeMap<u8, u64>)>,
    said: Vec<(Path, Vec<u8>)>,
    /// The peer's last heartbeat and challenge, to be answered.
    heard: Option<(u64, Heartbeat)>,
    challenge: Option<[u8; 8]>,
    heartbeats: u64,
    indices: u32,
}

impl Peer {
    /// An index that no other keys have.
    fn next_index(&mut self) -> u32 {
        self.indices += 1;
        self.indices
    }

    fn learn(&mut self, keys: TransportKeys) {
        if self.keys.len() == KEYS_MAX {
            self.keys.remove(0);
        }
        self.keys.push((keys, BTreeMap::new()));
    }

    /// Seals `frames` under one of the keys, with the next counter or a leap.
    fn seal(&mut self, input: &mut Input<'_>, frames: &[u8]) -> Option<Vec<u8>> {
        let (which, link, leap) = (input.byte()?, input.byte()?, input.byte()?);
        // Mostly the newest keys and an existing link.
        let place = self.keys.len().checked_sub(1 + usize::from(which / 64) % self.keys.len().max(1))?;
        // Seldom another UDP flow than the first.
        let flow = if (0x80..0x88).contains(&leap) { leap - 0x80 } else { 0 };
        let (link, flow) = if link < 0xf0 { (link % LINKS, flow) } else { (link % 32, link / 32) };
        let (keys, counters) = self.keys.get_mut(place)?;
        let next = counters.entry(link).or_default();
        let counter = match leap {
            0xff => u64::MAX - 1,
            0xfe => next.saturating_sub(u64::from(which)),
            0xc0..0xfe => next.saturating_add(u64::from(leap) << (which % 56)),
            _ => *next,
        };
        *next = (*next).max(counter).saturating_add(1);
        let stamp = u16::from(leap);
        let header =
            SealedHeader { link, flow, stamp, receiver_index: keys.remote_index, counter }.to_bytes();
        let mut datagram = header.to_vec();
        datagram.extend_from_slice(frames);
        let (_, body) = datagram.split_at_mut(SEALED_HEADER_BYTES);
        let tag = keys.send.seal(link, counter, &header, body);
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// Frames as a peer would make them, or any bytes.
    fn frames(&mut self, input: &mut Input<'_>, now: Instant) -> Option<Vec<u8>> {
        let mut frames = Vec::new();
        for _ in 0..1 + input.byte()? % 3 {
            match input.byte()? % 6 {
                0 => frames.extend_from_slice(input.chunk()?),
                1 => frames.extend(data_frame(input)?),
                2 => self.heartbeat(input, now, &mut frames)?,
                3 => {
                    let token = self.challenge.unwrap_or_default();
                    put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, 9);
                    Control::Response(token).put(&mut frames);
                }
                4 => {
                    let payload = input.chunk()?;
                    let length = u16::try_from(payload.len()).expect("a chunk is short");
                    put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, length);
                    frames.extend_from_slice(payload);
                }
                _ => match input.byte()? {
                    // A repair symbol, or packets that are to be delivered at once, of the slots of
                    // `data_frame`.
                    choice @ 0xc0.. => {
                        let (count, number, first) = (input.byte()? % 8, input.byte()?, input.number()?);
                        let payload = input.chunk()?;
                        let length = u16::try_from(payload.len()).expect("a chunk is short");
                        let place = (u64::from(count) << 40) | (u64::from(number) << 32) | u64::from(first);
                        let seq_num = data_seq_num(u16::from(choice % 4), place);
                        let modifiers = if choice & 4 == 0 { Modifiers::NONE } else { Modifiers::AT_ONCE };
                        put_frame_header(&mut frames, seq_num, Kind::Repair, modifiers, length);
                        frames.extend_from_slice(payload);
                    }
                    // Feedback about this link, another, or one that does not exist.
                    choice @ 0xa0..0xc0 => {
                        let (key, largest, run) = (input.byte()?, input.byte()?, input.byte()?);
                        let keys = self.keys.get(usize::from(key) % KEYS_MAX)?;
                        let feedback = Feedback {
                            marked: 0,
                            key: keys.0.local_index,
                            largest: u64::from(largest),
                            arrival_us: u32::from(choice) * 1_000,
                            hold_us: u32::from(run),
                            least_back: u16::from(run / 2),
                            least_before: u16::from(key),
                            received: u32::from(largest),
                            runs: Runs::new(u16::from(run.min(largest)) + 1),
                        };
                        let about = u64::from(choice % 5);
                        put_frame_header(
                            &mut frames,
                            about,
                            Kind::Feedback,
                            Modifiers::NONE,
                            feedback.payload_bytes(),
                        );
                        feedback.put(&mut frames);
                    }
                    choice @ 0x60..0xa0 => stream_frame(input, choice, &mut frames)?,
                    // Of an exchange: a part of a key, or of what is none, or a ciphertext.
                    choice @ 0x40..0x60 => self.exchange(choice, &mut frames)?,
                    token => {
                        put_frame_header(&mut frames, 0, Kind::Control, Modifiers::NONE, 9);
                        Control::Challenge([token; 8]).put(&mut frames);
                    }
                },
            }
        }
        Some(frames)
    }

    /// A frame of an exchange, of the newest keys or of those before.
    fn exchange(&self, choice: u8, frames: &mut Vec<u8>) -> Option<()> {
        let age = 1 + usize::from(choice & 8 != 0);
        let (keys, _) = self.keys.get(self.keys.len().checked_sub(age)?)?;
        let part = choice % 2;
        let mut key = KemKey::generate(&mut SecretRng::new([choice & 4; 32])).public();
        if choice & 16 != 0 {
            key.fill(0xff);
        }
        let half = key.get(usize::from(part) * PART_BYTES..)?.first_chunk()?;
        let ciphertext = [choice; CIPHERTEXT_BYTES];
        let frame = if choice & 2 == 0 {
            ExchangeFrame::KeyPart { handshake: keys.local_index, part, bytes: half }
        } else {
            ExchangeFrame::Ciphertext { handshake: keys.remote_index, bytes: &ciphertext }
        };
        put_frame_header(frames, 0, Kind::Control, Modifiers::NONE, frame.payload_bytes());
        frame.put(frames);
        Some(())
    }

    /// A heartbeat that answers the last one received: proof, if it is not changed.
    fn heartbeat(&mut self, input: &mut Input<'_>, now: Instant, frames: &mut Vec<u8>) -> Option<()> {
        let choice = input.byte()?;
        self.heartbeats += u64::from(choice % 4);
        let mut heartbeat = Heartbeat {
            epoch: 50 + u32::from(choice / 64),
            stamp_us: now.as_micros().wrapping_add(u64::from(choice)),
            sent: self.heartbeats * 2,
            echo: None,
            proven: choice & 4 == 0,
            at_once: true,
            priority: choice,
            role: LinkRole::Primary,
            rx_ceiling: None,
            resends: false,
            partial: false,
            indirect_feedback: true,
            streams: true,
            figures: true,
            failed: 0,
            // Seldom more UDP flows.
            flows: (choice >= 0xf0).then_some(WantedFlows { count: choice % 16, is_fixed: choice & 1 != 0 }),
            retired: 0,
        };
        if let Some((_, heard)) = self.heard.filter(|_| choice & 8 == 0) {
            heartbeat.echo = Some(bonding_proto::wire::heartbeat::Echo {
                epoch: heard.epoch,
                stamp_us: heard.stamp_us,
                delay_us: u32::from(choice / 16) * 10,
                sent: heard.sent,
                received: heard.sent.saturating_sub(u64::from(choice % 2)),
            });
        }
        let bytes = heartbeat.payload_bytes();
        put_frame_header(frames, self.heartbeats, Kind::Heartbeat, Modifiers::NONE, bytes);
        heartbeat.put(frames);
        Some(())
    }

    /// Opens what the other side sealed.
    ///
    /// # Panics
    /// If the datagram is sealed under unknown keys, or does not contain frames.
    fn hear(&mut self, datagram: &[u8]) {
        let header = SealedHeader::parse(datagram).expect("a sealed datagram has its header");
        let keys = self.keys.iter().find(|(keys, _)| keys.local_index == header.receiver_index);
        // Keys that the peer has dropped.
        let Some((keys, _)) = keys else { return };
        let mut data = datagram.to_vec();
        let (aad, body) = data.split_at_mut(SEALED_HEADER_BYTES);
        let size =
            keys.receive.open(header.link, header.counter, aad, body).expect("it is sealed under true keys");
        let mut rest = body.get(..size).expect("a tag is behind it");
        while !rest.is_empty() {
            let (frame, behind) = parse_frame(rest).expect("what is sealed is frames");
            match frame.kind {
                Kind::Heartbeat => {
                    self.heard = Heartbeat::parse(frame.payload).ok().map(|it| (frame.seq_num, it))
                }
                Kind::Control => {
                    if let Ok(Control::Challenge(token)) = Control::parse(frame.payload) {
                        self.challenge = Some(token);
                    }
                }
                Kind::Data | Kind::Feedback | Kind::Repair => {}
            }
            rest = behind;
        }
    }

    fn remember(&mut self, path: Path, data: &[u8]) {
        if self.said.len() == SAID_MAX {
            self.said.remove(0);
        }
        self.said.push((path, data.to_vec()));
    }

    /// An earlier datagram, perhaps changed, perhaps from another address.
    fn again(&self, input: &mut Input<'_>) -> Option<(Path, Vec<u8>)> {
        let (which, place, value, from) = (input.byte()?, input.byte()?, input.byte()?, input.byte()?);
        let (mut path, mut data) = self.said.get(usize::from(which) % self.said.len().max(1))?.clone();
        if let Some(byte) = data.get_mut(usize::from(place)) {
            *byte ^= value;
        }
        if from >= 0xe0 {
            path.remote.set_port(u16::from(from));
        }
        Some((path, data))
    }
}

/// Every other stream has blocks.
const fn form(choice: u8) -> StreamForm {
    if choice & 8 == 0 { StreamForm::Plain } else { StreamForm::Blocks }
}

/// A piece of one of four streams, or a message about one, near where the input says.
fn stream_frame(input: &mut Input<'_>, choice: u8, frames: &mut Vec<u8>) -> Option<()> {
    let (number, place) = (u16::from(choice / 8 % 4) * 2, u64::from(input.number()?));
    // Mostly near the beginning; seldom megabytes on, or at the end of what 48 bits name.
    let offset = match choice {
        0x9e => place << 8,
        0x9f => u64::MAX - place,
        _ => place,
    };
    let at = Position::new(StreamId::new(number)?, offset);
    let to = SocketAddr::from(([198, 51, 100, choice], 443));
    let message = match choice % 8 {
        0 => StreamMessage::Open { at, credit: 1 << 20, dscp: choice % 64, to, form: form(choice) },
        1 => StreamMessage::Opened { at, credit: u32::from(choice) << 12, form: form(choice) },
        2 => StreamMessage::Refused { at, reason: StreamRefusal::Refused },
        3 => StreamMessage::Credit(at),
        4 => StreamMessage::End(at),
        5 => StreamMessage::Reset(at),
        _ => {
            let payload = input.chunk()?;
            let length = u16::try_from(payload.len()).expect("a chunk is short");
            put_frame_header(frames, at.seq_num(), Kind::Data, Modifiers::NONE, length);
            frames.extend_from_slice(payload);
            return Some(());
        }
    };
    let control = Control::Stream(message);
    put_frame_header(frames, 0, Kind::Control, Modifiers::NONE, control.payload_bytes());
    control.put(frames);
    Some(())
}

/// Serves the streams as an application would: accepts or refuses what is asked for, reads some of
/// what is there, and answers it with as much. Whether anything happened.
fn serve(host: &mut impl StreamHost, now: Instant) -> bool {
    let mut any = false;
    while let Some((session, event)) = host.poll_stream_event() {
        any = true;
        let Some(streams) = host.streams_mut(session, now) else { continue };
        match event {
            StreamEvent::Asked(id, target) if target.dscp.is_multiple_of(16) => {
                streams.refuse(id, StreamRefusal::Unreachable);
            }
            StreamEvent::Asked(id, _) => streams.accept(id, StreamForm::Blocks),
            StreamEvent::Readable(id) => {
                let bytes: usize = streams.ready(id).map(Bytes::len).sum();
                let answer = vec![7; bytes.min(streams.room(id))];
                streams.write(id, answer.into());
                streams.consume(id, bytes - bytes / 4, now);
                if streams.has_ended(id) {
                    streams.consume(id, 0, now);
                    streams.finish(id);
                }
            }
            StreamEvent::Opened(id) => {
                let hello = vec![1; streams.room(id).min(5_000)];
                streams.write(id, hello.into());
            }
            StreamEvent::Refused(..)
            | StreamEvent::Writable(_)
            | StreamEvent::Finished(_)
            | StreamEvent::Reset(_) => {}
        }
    }
    any
}

/// Time passes: little, much, or until something is due.
fn pass(machine: &impl StateMachine, input: &mut Input<'_>, now: Instant) -> Option<Instant> {
    let number = u64::from(input.number()?);
    Some(match number % 4 {
        0 => now + Duration::from_micros(number * 10),
        1 => now + Duration::from_millis(number),
        2 => now + Duration::from_secs(number / 256),
        _ => machine.poll_timeout().map_or(now, |(due, _)| due.max(now)),
    })
}

/// A malicious peer with true keys, and the machine that it talks to.
///
/// # Panics
/// If an assertion fails.
pub fn sealed(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(choice) = input.byte() else { return };
    if choice & 1 == 0 {
        let mut world = ToServer::new(choice);
        let _ = world.play(&mut input);
        world.meter.check(world.endpoint.touched(world.now), world.now);
    } else {
        let mut world = ToClient::new(choice);
        let _ = world.play(&mut input);
        world.meter.check(world.client.touched(world.now), world.now);
    }
}

/// Clients against an endpoint.
struct ToServer {
    endpoint: Endpoint,
    now: Instant,
    rng: SecretRng,
    peer: Peer,
    attempts: Vec<(Initiator, Mac1)>,
    cookie: Option<Cookie>,
    /// Addresses that ever sent a datagram.
    sources: BTreeSet<SocketAddr>,
    meter: Meter,
}

impl ToServer {
    fn new(choice: u8) -> Self {
        Self {
            endpoint: {
                let mut endpoint = new_endpoint(choice, Security::Sealed, start());
                endpoint.set_streams(true, start());
                endpoint
            },
            now: start(),
            rng: SecretRng::new([choice; 32]),
            peer: Peer::default(),
            attempts: Vec::new(),
            cookie: None,
            sources: BTreeSet::new(),
            meter: Meter::new(start()),
        }
    }

    fn give(&mut self, path: Path, data: &[u8]) {
        self.sources.insert(path.remote);
        self.peer.remember(path, data);
        // A refusal is counted by the machine.
        let (datagram, now) = (Datagram::new(path, BytesMut::from(data)), self.now);
        let _ = self.meter.take(data.len(), || self.endpoint.handle_datagram(datagram, now));
        self.drain();
        if serve(&mut self.endpoint, self.now) {
            self.drain();
        }
        self.check_streams();
    }

    /// What streams hold came over the network: they are read, but for a quarter of the last bytes.
    fn check_streams(&self) {
        let held: usize =
            self.endpoint.figures(self.now).iter().map(|stats| stats.streams.unread_bytes).sum();
        let came = self.meter.bytes();
        assert!(held as u64 <= came, "{held} bytes of streams held, {came} came");
    }

    fn drain(&mut self) {
        let mut heard = Vec::new();
        let (sources, meter) = (&self.sources, &mut self.meter);
        meter.on_tick(self.endpoint.held(self.now));
        let mut own = true;
        tick(
            &mut self.endpoint,
            self.now,
            |path: Path, _: LinkId, datagram| {
                assert!(sources.contains(&path.remote), "a datagram to an address that never sent one");
                meter.on_sent();
                heard.push(datagram.to_vec());
            },
            |packet| own &= packet.get(12..16) == Some(&[10, 99, 0, 2]),
        );
        assert!(own, "a packet from a foreign address");
        while self.endpoint.poll_event().is_some() {}
        for datagram in heard {
            self.hear(&datagram);
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        match DatagramKind::of(datagram).expect("a sealed server says nothing plain") {
            DatagramKind::Sealed => self.peer.hear(datagram),
            DatagramKind::Response => {
                let read =
                    self.attempts.iter_mut().find_map(|(attempt, _)| attempt.read_response(datagram).ok());
                if let Some(Outcome::Welcome(_, keys)) = read {
                    self.peer.learn(keys);
                }
            }
            DatagramKind::Cookie => {
                let read =
                    self.attempts.iter().find_map(|(attempt, mac1)| attempt.read_cookie(datagram, mac1).ok());
                self.cookie = read.or(self.cookie.take());
            }
            DatagramKind::Initiation => panic!("a server begins no handshake"),
        }
    }

    /// A first message: from the enrolled client, from a stranger with an invitation, or from the
    /// client with a new key.
    fn initiate(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (who, link, time) = (input.byte()?, input.byte()?, input.number()?);
        let stranger = who >= 0xc0;
        let index = self.peer.next_index();
        let identity = key(if stranger { who } else { CLIENT_KEY });
        let (server, public) = (key(SERVER_KEY).public(), identity.public());
        let claim = match who {
            0xe0.. => Claim::rotation(&key(CLIENT_KEY), &public, &server, None).ok(),
            0xc0.. => Some(InvitationKey::from_bytes([who; 32]).claim(&server, &public)),
            _ => None,
        };
        // Mostly newer than the ones before.
        let hello = Hello {
            stamp: Stamp { run: 1, elapsed_us: (u64::from(index) << 8) + u64::from(time) },
            epoch: 50 + u32::from(who % 4),
            aes_fast: who & 4 == 0,
            claim,
            secret: None,
        };
        let attempt = Initiator::new(&identity, &server, None, index, &hello, &mut self.rng);
        let mut message = Vec::new();
        let mac1 = attempt.put(link, self.cookie.as_ref(), &mut message);
        if self.attempts.len() == KEYS_MAX {
            self.attempts.remove(0);
        }
        self.attempts.push((attempt, mac1));
        self.give(server_path(link % LINKS), &message);
        Some(())
    }

    /// An administrator's actions.
    fn administer(&mut self, input: &mut Input<'_>) -> Option<()> {
        let choice = input.byte()?;
        let welcome = |public_key| ClientConfig {
            name: "new".into(),
            prefixes: vec![prefix(2, 32)],
            plain: Vec::new(),
            public_key: Some(public_key),
            preshared: None,
            addresses: vec![prefix(2, 24)],
            tx_rates: Vec::new(),
        };
        match choice % 4 {
            0 => {
                let home = self.endpoint.add_client(welcome(key(CLIENT_KEY).public()), self.now);
                assert!(home.is_none_or(|id| self.endpoint.session(id).is_some()));
            }
            1 if choice >= 0xc0 => self.endpoint.renew_client(SessionId(u16::from(choice / 4 % 4))),
            1 if choice >= 0x80 => {
                self.endpoint.expire_client(SessionId(u16::from(choice / 4 % 4)), self.now);
            }
            1 => self.endpoint.remove_client(SessionId(u16::from(choice / 4 % 4)), self.now),
            _ => {
                while let Some(asked) = self.endpoint.poll_enrolment() {
                    let answer = match choice % 3 {
                        0 => EnrolmentAnswer::Welcome(welcome(asked.public_key)),
                        1 => EnrolmentAnswer::Refuse(Refusal::Used, None),
                        _ => EnrolmentAnswer::Ignore,
                    };
                    self.endpoint.answer_enrolment(asked.id, answer, self.now);
                }
            }
        }
        self.drain();
        Some(())
    }

    fn play(&mut self, input: &mut Input<'_>) -> Option<()> {
        loop {
            match input.byte()? % 10 {
                0 | 1 => self.initiate(input)?,
                2..=4 => {
                    let (link, frames) = (input.byte()?, self.peer.frames(input, self.now)?);
                    if let Some(datagram) = self.peer.seal(input, &frames) {
                        self.give(server_path(link % LINKS), &datagram);
                    }
                }
                5 => {
                    if let Some((path, datagram)) = self.peer.again(input) {
                        self.give(path, &datagram);
                    }
                }
                6 => {
                    let (link, datagram) = (input.byte()?, input.chunk()?);
                    self.give(server_path(link % LINKS), datagram);
                }
                7 => {
                    let (port, copies) = (input.byte()?, input.byte()?);
                    let packet = Bytes::from(inner_packet(false, port, &[port; 1_200]));
                    for _ in 0..copies % 64 {
                        self.meter.on_sent();
                        let _ = self.endpoint.handle_packet(PacketBuf::from(packet.clone()), self.now);
                    }
                    self.drain();
                }
                8 => self.administer(input)?,
                _ => {
                    self.now = pass(&self.endpoint, input, self.now)?;
                    self.drain();
                }
            }
            assert!(self.endpoint.stats(self.now).len() <= 2 + 64, "more sessions than clients");
        }
    }
}

/// A server against a client.
struct ToClient {
    client: Client,
    now: Instant,
    responder: Responder,
    peer: Peer,
    /// First messages received, each with its path.
    asked: Vec<(Path, Vec<u8>)>,
    meter: Meter,
}

impl ToClient {
    fn new(choice: u8) -> Self {
        let server =
            || Server { public_key: None, paths: (0..LINKS).map(|link| vec![client_path(link)]).collect() };
        let servers = if choice & 2 == 0 { vec![server()] } else { vec![server(), server()] };
        Self {
            client: Client::new(session_config(choice, Security::Sealed), servers, start()),
            now: start(),
            responder: Responder::new(key(SERVER_KEY), [choice; 32], start()),
            peer: Peer::default(),
            asked: Vec::new(),
            meter: Meter::new(start()),
        }
    }

    fn give(&mut self, path: Path, data: &[u8]) {
        self.peer.remember(path, data);
        let (datagram, now) = (Datagram::new(path, BytesMut::from(data)), self.now);
        let _ = self.meter.take(data.len(), || self.client.handle_datagram(datagram, now));
        self.drain();
        if serve(&mut self.client, self.now) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let (asked, peer, meter) = (&mut self.asked, &mut self.peer, &mut self.meter);
        meter.on_tick(self.client.held(self.now));
        tick(
            &mut self.client,
            self.now,
            |path: Path, link: LinkId, datagram| {
                meter.on_sent();
                assert_eq!(path, client_path(link.0), "a datagram to another address");
                match DatagramKind::of(datagram).expect("a sealed client says nothing plain") {
                    DatagramKind::Initiation => {
                        if asked.len() == SAID_MAX {
                            asked.remove(0);
                        }
                        asked.push((path, datagram.to_vec()));
                    }
                    DatagramKind::Sealed => peer.hear(datagram),
                    kind => panic!("a client sends no {kind:?}"),
                }
            },
            drop,
        );
        while self.client.poll_event().is_some() {}
    }

    /// Answers one of the first messages: a welcome, a refusal or a cookie.
    fn answer(&mut self, input: &mut Input<'_>) -> Option<()> {
        let (which, how) = (input.byte()?, input.byte()?);
        let place = self.asked.len().checked_sub(1 + usize::from(which) % self.asked.len().max(1))?;
        let (path, message) = self.asked.get(place)?.clone();
        let admission = self.responder.admit(&message, path.remote, self.now);
        let mut reply = Vec::new();
        // A client that shows a cookie may still be limited.
        let Ok(admission) = admission else { return Some(()) };
        match admission {
            Verdict::Cookie(cookie) if how < 0xe0 => reply.extend_from_slice(&cookie),
            Verdict::Cookie(_) | Verdict::Proceed => {
                let incoming = self.responder.read(&message).expect("a client's first message is true");
                let mut bytes = [0; ANSWER_BYTES];
                if how >= 0x80 {
                    bytes.iter_mut().zip(input.chunk()?).for_each(|(to, from)| *to = *from);
                } else {
                    // Welcome, one of the ciphers, no address.
                    bytes[1] = 1 + how % 2;
                    bytes[11] = 50 + how / 64;
                }
                let response = match Answer::parse(&bytes) {
                    Ok(Answer::Welcome { welcome, .. }) => {
                        let (keys, response) = incoming.welcome(&welcome, None, self.peer.next_index());
                        self.peer.learn(keys);
                        response
                    }
                    Ok(Answer::Refused(refusal)) => incoming.refuse(refusal, None),
                    Err(_) => return Some(()),
                };
                response.put(path.socket.0, &mut reply);
            }
        }
        self.give(path, &reply);
        Some(())
    }

    fn play(&mut self, input: &mut Input<'_>) -> Option<()> {
        self.drain();
        loop {
            match input.byte()? % 10 {
                0 | 1 => {
                    if !self.asked.is_empty() {
                        self.answer(input)?;
                    }
                }
                2..=4 => {
                    let (link, frames) = (input.byte()?, self.peer.frames(input, self.now)?);
                    if let Some(datagram) = self.peer.seal(input, &frames) {
                        self.give(client_path(link % LINKS), &datagram);
                    }
                }
                5 => {
                    if let Some((path, datagram)) = self.peer.again(input) {
                        self.give(path, &datagram);
                    }
                }
                6 => {
                    let (link, datagram) = (input.byte()?, input.chunk()?);
                    self.give(client_path(link % LINKS), datagram);
                }
                7 => {
                    let (port, copies) = (input.byte()?, input.byte()?);
                    let packet = Bytes::from(inner_packet(true, port, &[port; 1_200]));
                    for _ in 0..copies % 64 {
                        self.meter.on_sent();
                        let _ = self.client.handle_packet(PacketBuf::from(packet.clone()), self.now);
                    }
                    self.drain();
                }
                8 => {
                    let choice = input.byte()?;
                    if choice & 0x40 != 0
                        && let Some(session) = self.client.stream_session()
                        && let Some(streams) = self.client.streams_mut(session, self.now)
                    {
                        let to = SocketAddr::from(([198, 51, 100, choice], 80));
                        let _ = streams.open(StreamTarget { to, dscp: choice % 64 }, form(choice), self.now);
                    }
                    let event =
                        if choice & 0x80 == 0 { SocketEvent::CarrierLost } else { SocketEvent::CarrierFound };
                    self.client.handle_socket_event(SocketId(choice % (LINKS + 1)), event, self.now);
                    self.drain();
                }
                _ => {
                    self.now = pass(&self.client, input, self.now)?;
                    self.drain();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A heartbeat that answers the last one, and time until something is due.
    const PROOF: [u8; 11] = [2, 0, 0, 2, 1, 0, 0, 0, 9, 0, 43];

    #[test]
    fn a_well_meant_input_opens_a_session_with_the_server() {
        // A first message, a heartbeat, the answer to a challenge, 41 ms, proofs.
        let mut script = vec![0, 0, 0, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 9, 0, 41];
        script.extend(PROOF.repeat(4));
        let mut world = ToServer::new(0);
        let _ = world.play(&mut Input::new(&script));
        assert!(world.endpoint.session(SessionId(0)).unwrap().is_connected());
    }

    /// Also in the corpus.
    #[test]
    fn a_key_in_two_parts_is_encapsulated_for() {
        let mut script = vec![0, 0, 0, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 9, 0, 41];
        script.extend(PROOF.repeat(4));
        let touched = |script: &[u8]| {
            let mut world = ToServer::new(0);
            let _ = world.play(&mut Input::new(script));
            world.endpoint.touched(world.now)
        };
        let without = touched(&script);
        script.extend([2, 0, 0, 5, 0x40, 0, 0, 0, 2, 0, 0, 5, 0x41, 0, 0, 0]);
        assert!(touched(&script) >= without + 1_000, "the price of an encapsulation");
    }

    #[test]
    fn a_well_meant_input_opens_a_session_with_the_client() {
        // Until the first message is due, an answer, proofs.
        let mut script = vec![9, 0, 43, 0, 0, 0];
        script.extend(PROOF.repeat(4));
        let mut world = ToClient::new(1);
        let _ = world.play(&mut Input::new(&script));
        assert!(world.client.session().unwrap().is_connected());
    }

    #[test]
    fn a_well_meant_input_opens_a_stream_and_is_answered() {
        let mut script = vec![0, 0, 0, 0, 0, 2, 0, 0, 2, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 9, 0, 41];
        script.extend(PROOF.repeat(4));
        // An open at offset 1, and a piece of four bytes there.
        script.extend([2, 0, 0, 5, 0x68, 0, 1, 0, 0, 0]);
        script.extend([2, 0, 0, 5, 0x6e, 0, 1, 4, 1, 2, 3, 4, 0, 0, 0]);
        let mut world = ToServer::new(0);
        let _ = world.play(&mut Input::new(&script));
        let stats = world.endpoint.session(SessionId(0)).unwrap().stats(world.now).streams;
        assert_eq!((stats.open, stats.bytes_in, stats.bytes_out, stats.unread_bytes), (1, 3, 4, 1));
    }
}
