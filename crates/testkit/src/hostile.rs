//! A client with true keys that sends the worst datagrams that it can build.
//!
//! It enters as any client does, keeps its links proven, answers challenges, and then attacks in
//! one [`Attack`] after the other or in a single one. Simulator, benchmark and tests carry its
//! datagrams; it reads no clock and opens no socket.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bonding_proto::Instant;
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::{Cookie, Hello, Initiator, Mac1, Outcome, Stamp, TransportKeys};
use bonding_proto::limits::LINKS_MAX;
use bonding_proto::position::{Position, StreamId};
use bonding_proto::view::LinkRole;
use bonding_proto::wire::control::Control;
use bonding_proto::wire::feedback::{Feedback, Range, Runs};
use bonding_proto::wire::heartbeat::{Echo, Heartbeat};
use bonding_proto::wire::sealed::{DatagramKind, SEALED_HEADER_BYTES, SealedHeader};
use bonding_proto::wire::stream::{StreamForm, StreamMessage};
use bonding_proto::wire::{Kind, Modifiers, data_seq_num, parse_frame, put_frame_header};

use crate::fixture::udp_packet;

/// What the frames of a datagram take at most, bytes.
const FRAMES_BYTES: usize = 1_392;
/// Between two tries to enter, and between two heartbeats of a link.
const ENTER_EVERY: Duration = Duration::from_millis(200);
const HEARTBEAT_EVERY: Duration = Duration::from_millis(100);
/// It enters anew after this long without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// A step that the resequencer takes for a packet of the same sequence.
const FAR: u64 = 16_000;

/// A kind of datagram that is to cost the server more than others of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// Frames that bear no IP packet, with counters as far apart as may be.
    Empty,
    /// Pairs of a packet far ahead and an urgent one behind it, which drains the hold.
    Drain,
    /// Heartbeats that change roles, names of runs and failed links, many in a datagram.
    Heartbeats,
    /// Small datagrams from two ports in turn.
    Ports,
    /// Repair symbols: for ever other slots, and equations that nothing solves.
    Repairs,
    /// Probes and challenges, as many as a datagram holds.
    Probes,
    /// Fragments that are never whole, each of them several times.
    Resends,
    /// Packets and datagrams of which every second one is missing.
    Gaps,
    /// Feedback frames that name all that was ever sent, but for holes, and other links.
    Feedback,
    /// Handshakes, each with another run, and a first datagram under the new keys.
    Handshakes,
    /// All streams that there are, opened again and again, whose bytes come in crumbs and whose
    /// messages lie.
    Streams,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Empty,
        Self::Drain,
        Self::Heartbeats,
        Self::Ports,
        Self::Repairs,
        Self::Probes,
        Self::Resends,
        Self::Gaps,
        Self::Feedback,
        Self::Handshakes,
        Self::Streams,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty frames, far counters",
            Self::Drain => "holds drained by urgent ones",
            Self::Heartbeats => "heartbeats that flip",
            Self::Ports => "alternating ports",
            Self::Repairs => "repair symbols",
            Self::Probes => "probes and challenges",
            Self::Resends => "fragments and resends",
            Self::Gaps => "gaps",
            Self::Feedback => "forged feedback",
            Self::Handshakes => "handshakes inside",
            Self::Streams => "streams that lie",
        }
    }
}

/// A datagram to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which of two source ports it leaves from: 0 or 1.
    pub port: u8,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// What is known of a link.
#[derive(Debug, Default)]
struct Lane {
    counter: u64,
    heartbeats: u64,
    heartbeat_at: Option<Instant>,
    /// The server's newest heartbeat, and when it came.
    heard: Option<(Heartbeat, Instant)>,
    challenge: Option<[u8; 8]>,
    /// The largest counter of the server's datagrams.
    largest: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Hostile {
    identity: PrivateKey,
    server: PublicKey,
    inner: Ipv4Addr,
    rng: SecretRng,
    attempt: Option<(Initiator, Mac1)>,
    cookie: Option<Cookie>,
    tried_at: Option<Instant>,
    tries: u32,
    epoch: u32,
    keys: Option<TransportKeys>,
    /// When the server was heard last.
    heard_at: Instant,
    lanes: BTreeMap<u8, Lane>,
    links: u8,
    /// Numbers what is sent, for what is to vary.
    step: u64,
    counters: BTreeMap<u16, u64>,
}

impl Hostile {
    /// A client of the server with `server`, whose inner address is `inner`. It uses `links` links,
    /// at most 32.
    pub fn new(identity: PrivateKey, server: PublicKey, inner: Ipv4Addr, links: u8) -> Self {
        let rng = SecretRng::new(*identity.public().0.first_chunk().unwrap());
        let links = links.clamp(1, u8::try_from(LINKS_MAX).unwrap_or(1));
        Self {
            identity,
            server,
            inner,
            rng,
            attempt: None,
            cookie: None,
            tried_at: None,
            tries: 0,
            epoch: 1,
            keys: None,
            heard_at: Instant::ZERO,
            lanes: (0..links).map(|link| (link, Lane::default())).collect(),
            links,
            step: 0,
            counters: BTreeMap::new(),
        }
    }

    /// Whether the server gave it keys.
    pub const fn is_in(&self) -> bool {
        self.keys.is_some()
    }

    /// Takes what the server sent.
    pub fn handle(&mut self, datagram: &[u8], now: Instant) {
        match DatagramKind::of(datagram) {
            Some(DatagramKind::Response) => {
                let read = self.attempt.as_mut().map(|(attempt, _)| attempt.read_response(datagram));
                if let Some(Ok(Outcome::Welcome(_, keys))) = read {
                    (self.keys, self.heard_at) = (Some(keys), now);
                    for lane in self.lanes.values_mut() {
                        (lane.counter, lane.largest, lane.heartbeat_at) = (0, 0, None);
                    }
                }
            }
            Some(DatagramKind::Cookie) => {
                let read = self.attempt.as_ref().map(|(attempt, mac1)| attempt.read_cookie(datagram, mac1));
                self.cookie = read.and_then(Result::ok).or(self.cookie.take());
            }
            Some(DatagramKind::Sealed) => self.hear(datagram, now),
            Some(DatagramKind::Initiation) | None => {}
        }
    }

    fn hear(&mut self, datagram: &[u8], now: Instant) {
        let Some(keys) = &self.keys else { return };
        let Ok(header) = SealedHeader::parse(datagram) else { return };
        let mut data = datagram.to_vec();
        let (aad, body) = data.split_at_mut(SEALED_HEADER_BYTES);
        if header.receiver_index != keys.local_index {
            return;
        }
        let Ok(size) = keys.receive.open(header.link, header.counter, aad, body) else { return };
        self.heard_at = now;
        let Some(lane) = self.lanes.get_mut(&header.link) else { return };
        lane.largest = lane.largest.max(header.counter);
        let mut rest = &body[..size];
        while let Ok((frame, behind)) = parse_frame(rest) {
            rest = behind;
            match frame.kind {
                Kind::Heartbeat => {
                    lane.heard = Heartbeat::parse(frame.payload).ok().map(|it| (it, now)).or(lane.heard);
                }
                Kind::Control => {
                    if let Ok(Control::Challenge(token)) = Control::parse(frame.payload) {
                        lane.challenge = Some(token);
                    }
                }
                Kind::Data | Kind::Feedback | Kind::Repair => {}
            }
            if rest.is_empty() {
                break;
            }
        }
    }

    /// What keeps it in: a first message, heartbeats, answers to challenges. `None`: nothing is
    /// due.
    pub fn upkeep(&mut self, now: Instant) -> Option<Hit> {
        // A server that was restarted knows no keys.
        self.keys.take_if(|_| now.saturating_since(self.heard_at) >= SILENCE_MAX);
        if self.keys.is_none() {
            let is_due = self.tried_at.is_none_or(|at| now.saturating_since(at) >= ENTER_EVERY);
            return is_due.then(|| self.initiate(now));
        }
        let due = |lane: &Lane| {
            lane.challenge.is_some()
                || lane.heartbeat_at.is_none_or(|at| now.saturating_since(at) >= HEARTBEAT_EVERY)
        };
        let link = self.lanes.iter().find(|(_, lane)| due(lane)).map(|(link, _)| *link)?;
        let mut frames = Vec::new();
        let lane = self.lanes.get_mut(&link)?;
        if let Some(token) = lane.challenge.take() {
            put_control(&mut frames, &Control::Response(token));
        } else {
            lane.heartbeat_at = Some(now);
            self.put_heartbeat(link, &mut frames, now, |_| ());
        }
        self.seal(link, 0, &frames)
    }

    /// The next datagram of an attack; `None` before it is in.
    pub fn attack(&mut self, attack: Attack, now: Instant) -> Option<Hit> {
        self.step += 1;
        let step = self.step;
        let link = u8::try_from(step % u64::from(self.links)).unwrap_or(0);
        if attack == Attack::Handshakes {
            self.keys.as_ref()?;
            // A datagram under the newest keys, then a handshake for others.
            if step.is_multiple_of(2) {
                let mut frames = Vec::new();
                self.put_heartbeat(link, &mut frames, now, |_| ());
                return self.seal(link, 0, &frames);
            }
            return Some(self.initiate(now));
        }
        let mut frames = Vec::new();
        match attack {
            Attack::Empty => {
                while frames.len() + 11 <= FRAMES_BYTES {
                    let slot = u16::try_from(frames.len() % 7).unwrap_or(0);
                    put_frame_header(&mut frames, self.far(slot, FAR), Kind::Data, Modifiers::NONE, 0);
                }
            }
            Attack::Drain => self.put_drains(&mut frames),
            Attack::Heartbeats => self.put_heartbeats((link, step), &mut frames, now),
            Attack::Ports => self.put_heartbeat(link, &mut frames, now, |_| ()),
            Attack::Repairs => self.put_repairs(step, &mut frames),
            Attack::Probes => put_probes(step, &mut frames),
            Attack::Resends => self.put_resends(&mut frames),
            Attack::Gaps => self.put_gaps((link, step), &mut frames),
            Attack::Feedback => self.put_feedback(step, &mut frames),
            Attack::Streams => self.put_streams((link, step), &mut frames, now),
            Attack::Handshakes => {}
        }
        let port = if attack == Attack::Ports { u8::from(step.is_multiple_of(2)) } else { 0 };
        self.seal(link, port, &frames)
    }

    fn put_drains(&mut self, frames: &mut Vec<u8>) {
        let packet = self.packet(17, 20);
        while frames.len() + 2 * (11 + packet.len()) <= FRAMES_BYTES {
            let slot = u16::try_from(frames.len() % 7).unwrap_or(0);
            let (far, next) = (self.far(slot, FAR), self.far(slot, 1));
            put(frames, far, Kind::Data, Modifiers::NONE, &packet);
            put(frames, next, Kind::Data, Modifiers::AT_ONCE, &packet);
        }
    }

    /// One that counts, mostly; many of which one counts, sometimes.
    fn put_heartbeats(&mut self, (link, step): (u8, u64), frames: &mut Vec<u8>, now: Instant) {
        let many = step.is_multiple_of(4);
        while frames.is_empty() || (many && frames.len() + 76 <= FRAMES_BYTES) {
            self.put_heartbeat(link, frames, now, |heartbeat| {
                let roles = [LinkRole::Primary, LinkRole::Never, LinkRole::Backup];
                heartbeat.role = roles[usize::try_from(step % 3).unwrap_or(0)];
                heartbeat.failed = if step.is_multiple_of(2) { u32::MAX } else { 0 };
                heartbeat.proven = step.is_multiple_of(5);
                heartbeat.epoch ^= u32::from(step.is_multiple_of(3));
            });
        }
    }

    fn put_gaps(&mut self, (link, step): (u8, u64), frames: &mut Vec<u8>) {
        let packet = self.packet(17, 20);
        while frames.len() + 11 + packet.len() <= FRAMES_BYTES {
            let slot = u16::try_from((step + frames.len() as u64) % 4_096).unwrap_or(0);
            put(frames, self.far(slot, 2), Kind::Data, Modifiers::NONE, &packet);
        }
        if let Some(lane) = self.lanes.get_mut(&link) {
            lane.counter += 1;
        }
    }

    /// A first message of another run.
    fn initiate(&mut self, now: Instant) -> Hit {
        self.tried_at = Some(now);
        self.tries += 1;
        self.epoch += u32::from(self.tries.is_multiple_of(2));
        let hello = Hello {
            stamp: Stamp { run: 1, elapsed_us: u64::from(self.tries) },
            epoch: self.epoch,
            aes_fast: true,
            claim: None,
            secret: None,
        };
        let index = self.rng.next_u32();
        let attempt = Initiator::new(&self.identity, &self.server, None, index, &hello, &mut self.rng);
        let mut data = Vec::new();
        let mac1 = attempt.put(0, self.cookie.as_ref(), &mut data);
        self.attempt = Some((attempt, mac1));
        Hit { port: 0, data }
    }

    fn seal(&mut self, link: u8, port: u8, frames: &[u8]) -> Option<Hit> {
        let keys = self.keys.as_ref()?;
        let lane = self.lanes.get_mut(&link)?;
        let counter = lane.counter;
        lane.counter += 1;
        let header =
            SealedHeader { link, flow: 0, stamp: 0, receiver_index: keys.remote_index, counter }.to_bytes();
        let mut data = header.to_vec();
        data.extend_from_slice(frames);
        let (_, body) = data.split_at_mut(SEALED_HEADER_BYTES);
        let tag = keys.send.seal(link, counter, &header, body);
        data.extend_from_slice(&tag);
        Some(Hit { port, data })
    }

    /// The slot's next number, `ahead` of the last.
    fn far(&mut self, slot: u16, ahead: u64) -> u64 {
        let counter = self.counters.entry(slot).or_default();
        *counter += ahead;
        data_seq_num(slot, *counter)
    }

    /// The least IP packet of a protocol, with its source address right.
    fn packet(&self, protocol: u8, bytes: u16) -> Vec<u8> {
        let mut packet =
            udp_packet((self.inner, 9), (Ipv4Addr::new(10, 99, 0, 1), 9), 28.max(bytes)).to_vec();
        packet.truncate(usize::from(bytes));
        packet[2..4].copy_from_slice(&bytes.to_be_bytes());
        packet[9] = protocol;
        packet
    }

    fn put_heartbeat(
        &mut self,
        link: u8,
        frames: &mut Vec<u8>,
        now: Instant,
        change: impl FnOnce(&mut Heartbeat),
    ) {
        let Some(lane) = self.lanes.get_mut(&link) else { return };
        lane.heartbeats += 1;
        let echo = lane.heard.map(|(heard, at)| Echo {
            epoch: heard.epoch,
            stamp_us: heard.stamp_us,
            delay_us: u32::try_from(now.saturating_since(at).as_micros()).unwrap_or(u32::MAX),
            sent: heard.sent,
            received: heard.sent,
        });
        let mut heartbeat = Heartbeat {
            epoch: self.epoch,
            stamp_us: now.as_micros(),
            sent: lane.heartbeats,
            echo,
            proven: true,
            at_once: true,
            priority: 1,
            role: LinkRole::Primary,
            rx_ceiling: None,
            resends: true,
            partial: true,
            indirect_feedback: true,
            streams: false,
            figures: true,
            failed: 0,
            flows: None,
            retired: 0,
        };
        change(&mut heartbeat);
        let bytes = heartbeat.payload_bytes();
        put_frame_header(frames, lane.heartbeats, Kind::Heartbeat, Modifiers::NONE, bytes);
        heartbeat.put(frames);
    }

    fn put_repairs(&mut self, step: u64, frames: &mut Vec<u8>) {
        let symbol = |slot: u16, count: u64, number: u64, first: u64| {
            data_seq_num(slot, (count << 40) | ((number % 256) << 32) | (first % (1 << 32)))
        };
        if step.is_multiple_of(2) {
            // The shortest symbols, each for another slot.
            while frames.len() + 12 <= FRAMES_BYTES {
                let slot = u16::try_from((step * 127 + frames.len() as u64) % 8_000).unwrap_or(0);
                put(frames, symbol(slot, 128, step, 0), Kind::Repair, Modifiers::NONE, &[0x45]);
            }
            return;
        }
        // Every second packet of one slot, and symbols over those that never come.
        let packet = self.packet(17, 20);
        let first = self.counters.get(&9_000).copied().unwrap_or_default();
        while frames.len() + 4 * (11 + packet.len()) <= FRAMES_BYTES {
            let seq_num = self.far(9_000, 2);
            put(frames, seq_num, Kind::Data, Modifiers::NONE, &packet);
            put(
                frames,
                symbol(9_000, 100, step + frames.len() as u64, first),
                Kind::Repair,
                Modifiers::NONE,
                &packet,
            );
        }
    }

    fn put_resends(&mut self, frames: &mut Vec<u8>) {
        let mut packet = self.packet(17, 28);
        // "More fragments", and an offset.
        packet[6..8].copy_from_slice(&[0x20, 1]);
        let mut back = 0;
        while frames.len() + 11 + packet.len() <= FRAMES_BYTES {
            let seq_num = if back == 0 { self.far(11, 3) } else { self.far(11, 0) };
            back = (back + 1) % 4;
            put(frames, seq_num, Kind::Data, Modifiers::NONE, &packet);
        }
    }

    /// By turns an open, to a closed port of the server or to a host that is silent; bytes of the
    /// streams before, of which every second one is missing; credit, ends and resets anywhere. One
    /// message counts in a datagram. Feedback about the answers is never sent.
    fn put_streams(&mut self, (link, step): (u8, u64), frames: &mut Vec<u8>, now: Instant) {
        // A peer that takes no streams is told nothing of them.
        if step.is_multiple_of(64) {
            self.put_heartbeat(link, frames, now, |heartbeat| heartbeat.streams = true);
        }
        // A number's next stream begins above its last.
        let turn = step / 4;
        let place = |turn: u64, ahead: u64| {
            let number = u16::try_from(turn % 4_096 * 2).unwrap_or(0);
            let first = 1 + ((turn / 4_096) << 25);
            StreamId::new(number).map(|id| Position::new(id, first + ahead))
        };
        let far = step.wrapping_mul(0x9e37_79b9) % (1 << 40);
        let message = match step % 4 {
            0 => place(turn, 0).map(|at| {
                let host = if turn.is_multiple_of(8) { [198, 51, 100, 77] } else { [10, 99, 0, 1] };
                let to = (host, 9).into();
                StreamMessage::Open { at, credit: u32::MAX, dscp: 0, to, form: StreamForm::Blocks }
            }),
            1 => {
                while frames.len() + 12 <= FRAMES_BYTES {
                    let back = frames.len() as u64 / 12;
                    let Some(at) = place(turn.saturating_sub(back), 2 * (step % 1_000)) else { return };
                    put(frames, at.seq_num(), Kind::Data, Modifiers::NONE, &[5]);
                }
                None
            }
            2 => place(turn.saturating_sub(9), far).map(StreamMessage::Credit),
            _ if turn.is_multiple_of(3) => place(turn.saturating_sub(5), far).map(StreamMessage::End),
            _ => place(turn.saturating_sub(2_000), 0).map(StreamMessage::Reset),
        };
        if let Some(message) = message {
            put_control(frames, &Control::Stream(message));
        }
    }

    fn put_feedback(&self, step: u64, frames: &mut Vec<u8>) {
        let Some(keys) = &self.keys else { return };
        // Few frames cost a datagram as much as the many that do not count.
        let most = if step.is_multiple_of(4) { FRAMES_BYTES } else { 300 };
        for (link, lane) in self.lanes.iter().cycle().skip(usize::try_from(step % 32).unwrap_or(0)) {
            let below = lane.largest.min(60_000);
            let mut runs = Runs::new(1);
            if below > 200 {
                // A hole near the newest keeps what is above it from being settled.
                runs.push(Range { gap: 1 + u16::try_from(step % 5).unwrap_or(0), run: 1 });
                runs.push(Range { gap: 1, run: u16::try_from(below - 100).unwrap_or(1) });
            }
            let feedback = Feedback {
                marked: u16::try_from(step % 1_000).unwrap_or(0),
                key: keys.local_index,
                largest: lane.largest.saturating_sub(step % 3),
                arrival_us: 0,
                hold_us: 0,
                least_back: 0,
                least_before: 0,
                received: 1,
                runs,
            };
            if frames.len() + 11 + usize::from(feedback.payload_bytes()) > most {
                return;
            }
            let bytes = feedback.payload_bytes();
            put_frame_header(frames, u64::from(*link) + 1, Kind::Feedback, Modifiers::NONE, bytes);
            feedback.put(frames);
        }
    }
}

fn put(frames: &mut Vec<u8>, seq_num: u64, kind: Kind, modifiers: Modifiers, payload: &[u8]) {
    put_frame_header(frames, seq_num, kind, modifiers, u16::try_from(payload.len()).unwrap_or(0));
    frames.extend_from_slice(payload);
}

/// Few in a datagram are answered as well as many.
fn put_probes(step: u64, frames: &mut Vec<u8>) {
    let most = if step.is_multiple_of(4) { FRAMES_BYTES } else { 120 };
    while frames.len() + 20 <= most {
        let probe = Control::Probe { id: u32::try_from(step % 1_000).unwrap_or(0), padding: 0 };
        let challenge = Control::Challenge(step.to_be_bytes());
        put_control(frames, if step.is_multiple_of(3) { &probe } else { &challenge });
    }
}

fn put_control(frames: &mut Vec<u8>, control: &Control) {
    put_frame_header(frames, 0, Kind::Control, Modifiers::NONE, control.payload_bytes());
    control.put(frames);
}
