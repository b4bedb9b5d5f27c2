//! Two keyrings and a network between them, against lists of what each side knows: nothing opens
//! twice, and nothing is refused whose keys are in use, were so before the last rekey, or are
//! agreed and not used yet.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// The server has answered a handshake; its answer is under way.
    Handshake,
    /// One of the last answers reaches the client, the others never do.
    Answer(Index),
    Seal {
        by_client: bool,
        link: u8,
    },
    Deliver(Index),
    /// Something arrives that arrived before, or never will again.
    Replay(Index),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Handshake),
        2 => any::<Index>().prop_map(Step::Answer),
        8 => (any::<bool>(), 0..3_u8).prop_map(|(by_client, link)| Step::Seal { by_client, link }),
        8 => any::<Index>().prop_map(Step::Deliver),
        3 => any::<Index>().prop_map(Step::Replay),
        1 => (0..100_u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..300)
}

/// What one side knows, said plainly.
#[derive(Debug, Default)]
struct Known {
    /// Keys that were used, in this order.
    used: Vec<u32>,
    /// Keys that the other side may begin to use.
    agreed: Vec<u32>,
    made: BTreeMap<u32, Instant>,
    /// The highest counter of each key and link.
    newest: BTreeMap<(u32, u8), u64>,
}

impl Known {
    fn lives(&self, keys: u32, now: Instant) -> bool {
        now.saturating_since(self.made[&keys]) < KeyLimits::DEFAULT.refuse_after
    }

    fn opens(&self, keys: u32, now: Instant) -> bool {
        let lately = self.used.iter().rev().take(2).chain(&self.agreed).any(|known| *known == keys);
        lately && self.lives(keys, now)
    }

    fn seals_with(&self, now: Instant) -> Option<u32> {
        self.used.last().copied().filter(|keys| self.lives(*keys, now))
    }
}

/// A side and its model.
struct Side {
    ring: Keyring,
    known: Known,
    /// Local indices given and not taken back.
    indices: BTreeSet<u32>,
}

impl Side {
    fn new() -> Self {
        Self { ring: Keyring::new(KeyLimits::DEFAULT), known: Known::default(), indices: BTreeSet::new() }
    }

    /// Whatever names a key is known, and nothing else is.
    fn settle(&mut self) {
        while let Some(index) = self.ring.poll_freed() {
            assert!(self.indices.remove(&index), "{index} was given back twice, or never given");
            assert!(!self.ring.owns(index));
        }
        assert!(self.indices.iter().all(|index| self.ring.owns(*index)));
    }
}

/// One side's part of handshake `number`: each key is sealed with by one side and opened with by
/// the other.
pub(super) fn keys(number: u32, client: bool) -> TransportKeys {
    let [_, _, high, low] = number.to_be_bytes();
    let key = |up: bool| {
        AeadKey::new(
            Cipher::ChaCha20Poly1305,
            &[high, low, u8::from(up)].repeat(11)[..32].try_into().unwrap(),
        )
    };
    let (ours, theirs) = (2 * number + u32::from(client), 2 * number + u32::from(!client));
    TransportKeys {
        cipher: Cipher::ChaCha20Poly1305,
        send: key(client),
        receive: key(!client),
        local_index: ours,
        remote_index: theirs,
        secret: None,
    }
}

#[derive(Debug, Clone)]
struct Flight {
    by_client: bool,
    keys: u32,
    data: Vec<u8>,
}

struct World {
    client: Side,
    server: Side,
    handshakes: u32,
    /// Answers under way; no more than a client has attempts open.
    answers: Vec<u32>,
    network: Vec<Flight>,
    opened: Vec<Flight>,
    now: Instant,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Handshake => {
                let number = self.handshakes;
                self.handshakes += 1;
                let server = &mut self.server;
                server.ring.install_next(keys(number, false), number, self.now);
                server.indices.insert(2 * number);
                server.known.made.insert(number, self.now);
                server.known.agreed.push(number);
                self.answers.push(number);
                if server.known.agreed.len() > NEXT_MAX {
                    server.known.agreed.remove(0);
                }
                if self.answers.len() > NEXT_MAX {
                    self.answers.remove(0);
                }
            }
            Step::Answer(which) if !self.answers.is_empty() => {
                let number = *which.get(&self.answers);
                self.answers.clear();
                let client = &mut self.client;
                client.ring.install(keys(number, true), number, self.now);
                client.indices.insert(2 * number + 1);
                client.known.made.insert(number, self.now);
                client.known.used.push(number);
            }
            Step::Seal { by_client, link } => self.seal(*by_client, *link),
            Step::Deliver(which) if !self.network.is_empty() => {
                let flight = self.network.remove(which.index(self.network.len()));
                self.deliver(&flight);
            }
            Step::Replay(which) if !self.opened.is_empty() => {
                let Flight { by_client, mut data, .. } = which.get(&self.opened).clone();
                let header = SealedHeader::parse(&data).unwrap();
                let side = if by_client { &mut self.server } else { &mut self.client };
                let again = side.ring.open(&header, &mut data, self.now);
                assert!(again.is_err(), "opened twice: {again:?}");
            }
            Step::Pass(seconds) => {
                self.now = self.now + Duration::from_secs(*seconds);
                for side in [&mut self.client, &mut self.server] {
                    let lived = side.ring.cipher().is_some();
                    let lives = side.known.seals_with(self.now).is_some();
                    assert_eq!(side.ring.on_time(self.now), lived && !lives);
                    assert!(side.ring.poll_timeout().is_none_or(|due| due > self.now));
                }
            }
            Step::Answer(_) | Step::Deliver(_) | Step::Replay(_) => {}
        }
        self.client.settle();
        self.server.settle();
    }

    fn seal(&mut self, by_client: bool, link: u8) {
        let side = if by_client { &mut self.client } else { &mut self.server };
        let with = side.known.seals_with(self.now);
        assert_eq!(side.ring.can_seal(self.now), with.is_some());
        let Some(keys) = with else { return };
        let mut data = Vec::new();
        data.extend_from_slice(&Keyring::HEADER_ROOM);
        data.extend_from_slice(&[7; 20]);
        side.ring.seal((LinkId(link), UdpFlow::FIRST), &mut data, 0, self.now);
        self.network.push(Flight { by_client, keys, data });
    }

    fn deliver(&mut self, flight: &Flight) {
        let side = if flight.by_client { &mut self.server } else { &mut self.client };
        let (header, keys) = (SealedHeader::parse(&flight.data).unwrap(), flight.keys);
        let opens = side.known.opens(keys, self.now);
        let result = side.ring.open(&header, &mut flight.data.clone(), self.now);
        assert_eq!(result.is_ok(), opens, "{result:?}");
        let Ok(opened) = result else { return };
        let known = &mut side.known;
        let first = known.agreed.iter().position(|agreed| *agreed == keys);
        if let Some(at) = first {
            known.agreed.drain(..=at);
            known.used.push(keys);
        }
        let highest = known.newest.entry((keys, header.link)).or_default();
        // Counters from 1, so that the first one is news.
        let newest = known.used.last() == Some(&keys) && header.counter + 1 > *highest;
        *highest = (*highest).max(header.counter + 1);
        assert_eq!((opened.size, opened.newest, opened.confirmed), (20, newest, first.map(|_| keys)));
        self.opened.push(flight.clone());
    }
}

proptest! {
    #[test]
    fn nothing_opens_twice_and_nothing_valid_is_refused(steps in steps()) {
        let mut world = World {
            client: Side::new(),
            server: Side::new(),
            handshakes: 0,
            answers: Vec::new(),
            network: Vec::new(),
            opened: Vec::new(),
            now: Instant::from_nanos(1_000_000_000),
        };
        for step in &steps {
            world.step(step);
        }
    }
}
