//! The messages of a handshake: as any bytes, and as true messages that an attacker on the path
//! changed.
//!
//! Asserted: a message that is read and written again is the same; a true handshake gives the same
//! keys on both sides; a changed message never does, and leaves the attempt unchanged.

use std::net::SocketAddr;

use bonding_proto::Instant;
use bonding_proto::crypto::kem::{self, KemKey};
use bonding_proto::crypto::keys::PresharedKey;
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::payload::{ANSWER_BYTES, Answer, HELLO_BYTES};
use bonding_proto::handshake::{
    CookieReply, Hello, INITIATION_BYTES, Initiation, Initiator, Outcome, Responder, Response, SharedSecret,
    Verdict,
};

use crate::input::Input;
use crate::machine::{CLIENT_KEY, SERVER_KEY, key};

/// The Noise message in an initiation.
const NOISE_1: std::ops::Range<usize> = 8..INITIATION_BYTES - 32;

/// Reads `data` as every message and payload, and plays a handshake with it.
///
/// # Panics
/// If an assertion fails.
pub fn handshake(data: &[u8]) {
    parse(data);
    let mut input = Input::new(data);
    let _ = play(&mut input);
}

fn parse(data: &[u8]) {
    if let Ok(initiation) = Initiation::parse(data) {
        assert_eq!(initiation.fingerprint(), Initiation::parse(data).expect("read before").fingerprint());
    }
    let _ = Response::parse(data);
    let _ = CookieReply::parse(data);
    if let Ok(hello) = Hello::parse(data) {
        let again = hello.to_bytes();
        assert_eq!(
            Hello::parse(again.as_slice()).as_ref(),
            Ok(&hello),
            "a hello read and written again differs"
        );
    }
    if let Ok(answer) = Answer::parse(data) {
        assert_eq!(
            Answer::parse(&answer.to_bytes()).as_ref(),
            Ok(&answer),
            "an answer read and written again differs"
        );
    }
}

/// As many bytes as a payload has, of the input or zero.
fn padded<const N: usize>(chunk: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
    bytes
}

/// Changes a message by the input; returns whether the result differs.
fn damage(input: &mut Input<'_>, message: &mut [u8]) -> Option<Option<usize>> {
    let (place, value) = (usize::from(input.byte()?), input.byte()?);
    let place = place % message.len().max(1);
    if let Some(byte) = message.get_mut(place) {
        *byte ^= value;
    }
    Some((value != 0).then_some(place))
}

/// A secret that an exchange left.
fn shared_secret() -> SharedSecret {
    let mut rng = SecretRng::new([9; 32]);
    let key = KemKey::generate(&mut rng).public();
    let (ciphertext, shared) = kem::encapsulate(&key, &mut rng).expect("it is a key");
    SharedSecret::new(None, &shared, &key, &ciphertext)
}

fn play(input: &mut Input<'_>) -> Option<()> {
    let choice = input.byte()?;
    let now = Instant::from_nanos(1_000_000_000);
    let source: SocketAddr = ([192, 0, 2, 1], 40_000).into();
    let psk = |bit: u8| (choice & bit != 0).then(|| PresharedKey::from_bytes([7; 32]));
    let hello = Hello::parse(&padded::<HELLO_BYTES>(input.chunk()?)).ok()?;
    let mut rng = SecretRng::new([choice; 32]);
    let (client, server) = (key(CLIENT_KEY), key(SERVER_KEY));
    let mut initiator = Initiator::new(&client, &server.public(), psk(1).as_ref(), 5, &hello, &mut rng);
    // Either side may have a secret, or have lost it.
    let secret = |bit: u8| (choice & bit != 0).then(shared_secret);
    if let Some(secret) = secret(4) {
        initiator = initiator.with_secret(&secret, psk(1).as_ref());
    }
    let mut responder = Responder::new(server, [choice; 32], now);

    let mut cookie = None;
    let mut incoming = None;
    // A source may start five handshakes; then it is asked for a cookie.
    for _ in 0..1 + choice % 8 {
        let mut message = Vec::new();
        let mac1 = initiator.put(choice, cookie.as_ref(), &mut message);
        let damaged = damage(input, &mut message)?;
        // Recomputes the macs: every host that knows the server's public key can do so.
        let changed = damaged.is_some_and(|place| NOISE_1.contains(&place));
        assert!(!changed || responder.read(&message).is_err(), "a changed initiation was read");
        match responder.admit(&message, source, now) {
            Err(_) => continue,
            Ok(Verdict::Proceed) => {
                incoming =
                    Some(responder.read(&message).expect("what macs and version let in was not changed"));
            }
            Ok(Verdict::Cookie(mut reply)) => {
                let damaged = damage(input, &mut reply)?;
                match initiator.read_cookie(&reply, &mac1) {
                    Ok(read) => {
                        assert!(damaged.is_none_or(|place| place == 1), "a changed cookie was read");
                        cookie = Some(read);
                    }
                    Err(_) => assert!(damaged.is_some(), "a true cookie was not read"),
                }
            }
        }
    }
    let incoming = incoming?;
    assert_eq!((incoming.client, &incoming.hello, incoming.remote_index), (client.public(), &hello, 5));
    let both = secret(8).map(|secret| secret.with(psk(2).as_ref())).or(psk(2));
    let answer = Answer::parse(&padded::<ANSWER_BYTES>(input.chunk()?)).ok()?;
    let (keys, response) = match &answer {
        Answer::Welcome { index, welcome } => {
            let (keys, response) = incoming.welcome(welcome, both.as_ref(), *index);
            (Some(keys), response)
        }
        Answer::Refused(refusal) => (None, incoming.refuse(*refusal, both.as_ref())),
    };
    let mut message = Vec::new();
    response.put(choice, &mut message);
    let mut changed = message.clone();
    if damage(input, &mut changed)?.is_some() {
        assert!(initiator.read_response(&changed).is_err(), "a changed response was read");
    }
    // A server without the client's secret is answered without.
    let same_psk = (choice & 1 != 0) == (choice & 2 != 0) && (choice & 4 != 0 || choice & 8 == 0);
    match (initiator.read_response(&message), answer) {
        (Ok(Outcome::Welcome(read, ours)), Answer::Welcome { welcome, index }) => {
            assert!(same_psk && read == welcome && ours.remote_index == index);
            let theirs = keys.expect("a welcome has keys");
            let mut sealed = b"something".to_vec();
            let tag = ours.send.seal(choice, 0, &[], &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(theirs.receive.open(choice, 0, &[], &mut sealed), Ok(9), "both sides have other keys");
        }
        (Ok(Outcome::Refused(read)), Answer::Refused(refusal)) => assert!(same_psk && read == refusal),
        (Err(_), _) => assert!(!same_psk, "a true response was not read"),
        (Ok(_), _) => panic!("another answer than was given"),
    }
    Some(())
}
