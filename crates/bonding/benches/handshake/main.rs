//! `cargo xtask bench handshake`: the time of each step of a handshake on one processor, at both
//! ends, and of looking an invitation up in a large register. It prints figures and judges nothing:
//! times depend on the machine and its load.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark on fixed data may panic")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bonding::state::keys;
use bonding::state::register::{Configured, EnrolError, Register, Shown};
use bonding_proto::Instant;
use bonding_proto::config::Prefix;
use bonding_proto::crypto::aead::Cipher;
use bonding_proto::crypto::kem::{self, KemKey};
use bonding_proto::crypto::keys::{PresharedKey, PrivateKey, PublicKey, Token};
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::limiter::SourceLimiter;
use bonding_proto::handshake::responder::{MAX_SOURCES, SOURCE_RATE};
use bonding_proto::handshake::{
    Hello, Initiator, InvitationKey, Responder, SharedSecret, Stamp, Verdict, Welcome,
};

/// Repetitions of a step.
const ROUNDS: u32 = 3_000;
/// Clients of the register, each with the invitation that it used.
const CLIENTS: u32 = 60_000;
/// The link of every datagram.
const LINK: u8 = 3;
/// Places of a flipped bit in an initiation: in mac1, and in the sealed payload.
const IN_MAC1: usize = 190;
const IN_PAYLOAD: usize = 150;

/// Prints the mean time of `work` over [`ROUNDS`] calls.
fn measure(name: &str, mut work: impl FnMut(u32)) {
    let start = std::time::Instant::now();
    (0..ROUNDS).for_each(&mut work);
    println!("{name:36} {:>10.1?}", start.elapsed() / ROUNDS);
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

/// A server and its client, with a pre-shared key.
struct Sides {
    server: Responder,
    client_key: PrivateKey,
    server_key: PrivateKey,
    psk: PresharedKey,
    rng: SecretRng,
}

impl Sides {
    fn new() -> Self {
        let server_key = PrivateKey::from_bytes([7; 32]);
        Self {
            server: Responder::new(server_key.clone(), [2; 32], at(1)),
            client_key: PrivateKey::from_bytes([8; 32]),
            server_key,
            psk: PresharedKey::from_bytes([9; 32]),
            rng: SecretRng::new([1; 32]),
        }
    }

    /// A new attempt of the client.
    fn attempt(&mut self) -> Initiator {
        let hello = Hello {
            stamp: Stamp { run: 1_700_000_000, elapsed_us: 2_000_000 },
            epoch: 0x0102_0304,
            aes_fast: true,
            claim: None,
            secret: None,
        };
        let public = self.server_key.public();
        Initiator::new(&self.client_key, &public, Some(&self.psk), 1, &hello, &mut self.rng)
    }

    /// Reads an initiation and answers it; gives the response.
    fn answer(&mut self, initiation: &[u8]) -> Vec<u8> {
        let prefix = |address: &str, length| Prefix { address: address.parse().unwrap(), length };
        let welcome = Welcome {
            cipher: Cipher::Aes256Gcm,
            epoch: 0x0a0b_0c0d,
            mtu: Some(1_400),
            addresses: vec![prefix("10.9.0.2", 24), prefix("fd00::2", 64)],
            routes: Vec::new(),
            exchanges: false,
        };
        let (_, message) = self.server.read(initiation).unwrap().welcome(&welcome, Some(&self.psk), 1);
        let mut response = Vec::new();
        message.put(LINK, &mut response);
        response
    }
}

fn initiation(client: &Initiator) -> Vec<u8> {
    let mut datagram = Vec::new();
    client.put(LINK, None, &mut datagram);
    datagram
}

fn main() {
    let mut sides = Sides::new();
    client(&mut sides);
    let datagram = initiation(&sides.attempt());
    admission(&mut sides.server, &datagram);
    server(&mut sides);
    let mut limiter = SourceLimiter::new(SOURCE_RATE, MAX_SOURCES);
    exchange();
    measure("limiter: a new source", |round| {
        let [_, a, b, c] = round.to_be_bytes();
        assert!(limiter.try_spend(IpAddr::from([10, a, b, c]), at(1)));
    });
    register();
}

/// A stranger shows an invented token to a server with many clients.
fn register() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("server.key");
    keys::load_or_make(&key).unwrap();
    std::fs::write(folder.path().join("server.clients"), register_text()).unwrap();
    let mut register = Register::open(&key).unwrap();
    let (client, server) = (PublicKey([9; 32]), PublicKey([8; 32]));
    let invitation = InvitationKey::new(&Token::from_bytes([0xab; 16])).id();
    let shown = Shown { client, server, invitation, proof: [0; 16] };
    measure("register: an unknown token", |_| {
        let unknown = register.enrol(&shown, &Configured::default(), SystemTime::now());
        assert!(matches!(unknown, Err(EnrolError::Unknown)));
    });
}

/// The file of a register with [`CLIENTS`].
fn register_text() -> String {
    let numbered = |kind: u8, number: u32| {
        let mut bytes = [kind; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        keys::encode(&bytes)
    };
    let client = |number| {
        let [_, a, b, c] = u32::to_be_bytes(number + 2);
        format!(
            r#"{{"name":"c{number}","public_key":"{}","addresses":["10.{a}.{b}.{c}"],"enrolled":1}}"#,
            numbered(1, number)
        )
    };
    let invitation = |number| {
        format!(
            r#"{{"name":"c{number}","token_hash":"{}","expires":99999999999,"used":{{"by":"{}","at":99999999998}}}}"#,
            numbered(2, number),
            numbered(1, number)
        )
    };
    let join = |one: &dyn Fn(u32) -> String| (0..CLIENTS).map(one).collect::<Vec<_>>().join(",");
    format!(r#"{{"version":1,"clients":[{}],"invitations":[{}]}}"#, join(&client), join(&invitation))
}

/// The steps of the client.
fn client(sides: &mut Sides) {
    measure("initiator: new", |_| drop(sides.attempt()));
    let client = sides.attempt();
    measure("initiator: put", |_| drop(initiation(&client)));
    let mut clients: Vec<_> = (0..ROUNDS).map(|_| sides.attempt()).collect();
    let responses: Vec<_> = clients.iter().map(|client| sides.answer(&initiation(client))).collect();
    measure("initiator: read response", |round| {
        let index = usize::try_from(round).unwrap();
        drop(clients[index].read_response(&responses[index]).unwrap());
    });
}

/// The exchange with ML-KEM after a handshake, at both ends.
fn exchange() {
    let mut rng = SecretRng::new([3; 32]);
    measure("exchange: the client's key", |_| {
        std::hint::black_box(KemKey::generate(&mut rng).public());
    });
    let key = KemKey::generate(&mut rng);
    let public = key.public();
    measure("exchange: the server's secret", |_| {
        let (ciphertext, shared) = kem::encapsulate(&public, &mut rng).unwrap();
        drop(SharedSecret::new(None, &shared, &public, &ciphertext));
    });
    let (ciphertext, _) = kem::encapsulate(&public, &mut rng).unwrap();
    measure("exchange: the client's secret", |_| {
        drop(SharedSecret::new(None, &key.decapsulate(&ciphertext), &public, &ciphertext));
    });
}

/// The server's decision whether to work on an initiation.
fn admission(server: &mut Responder, datagram: &[u8]) {
    let mut wrong = datagram.to_vec();
    wrong[IN_MAC1] ^= 1;
    measure("responder: mac1 wrong", |_| assert!(server.admit(&wrong, source(), at(1)).is_err()));
    measure("responder: admit", |round| {
        assert_eq!(server.admit(datagram, source(), at(round.into())), Ok(Verdict::Proceed));
    });
    while server.admit(datagram, source(), at(9_000)) == Ok(Verdict::Proceed) {}
    measure("responder: cookie", |_| {
        assert!(matches!(server.admit(datagram, source(), at(9_000)), Ok(Verdict::Cookie(_))));
    });
}

/// The server's work on an initiation.
fn server(sides: &mut Sides) {
    let datagram = initiation(&sides.attempt());
    measure("responder: read", |_| drop(sides.server.read(&datagram).unwrap()));
    measure("responder: read and answer", |_| drop(sides.answer(&datagram)));
    let mut forged = datagram.clone();
    forged[IN_PAYLOAD] ^= 1;
    measure("responder: read, forged payload", |_| assert!(sides.server.read(&forged).is_err()));
}
