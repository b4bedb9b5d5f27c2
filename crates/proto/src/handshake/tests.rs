//! The client's and the server's side against each other, and against vectors of another
//! implementation.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::responder::{CLAIM_BUDGET, PROVEN_BUDGET, PROVEN_CLAIM_BUDGET, SOURCE_RATE, WORK_BUDGET};
use super::*;
use crate::crypto::aead::{AeadKey, Cipher};
use crate::crypto::keys::{PresharedKey, PrivateKey, Token};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::time::Instant;

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// 32 bytes that count up from `first`.
fn counting(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first + u8::try_from(at).unwrap())
}

fn client_key() -> PrivateKey {
    PrivateKey::from_bytes(counting(0))
}

pub(super) fn server_key() -> PrivateKey {
    PrivateKey::from_bytes(counting(0x20))
}

fn psk() -> PresharedKey {
    PresharedKey::from_bytes(counting(0x40))
}

fn hello() -> Hello {
    let invitation = InvitationKey::new(&Token::from_bytes([0xab; 16]));
    Hello {
        stamp: Stamp { run: 1_700_000_000, elapsed_us: 2_000_000 },
        epoch: 0x0102_0304,
        aes_fast: true,
        claim: Some(invitation.claim(&server_key().public(), &client_key().public())),
        secret: None,
    }
}

fn welcome() -> Welcome {
    let prefix = |address: &str, length| crate::config::Prefix { address: address.parse().unwrap(), length };
    Welcome {
        cipher: Cipher::Aes256Gcm,
        epoch: 0x0a0b_0c0d,
        mtu: Some(1_400),
        addresses: vec![prefix("10.9.0.2", 24), prefix("fd00::2", 64)],
        routes: Vec::new(),
        exchanges: false,
    }
}

/// A client of the server, with its own pre-shared key and randomness.
pub(super) fn client(seed: u8) -> Initiator {
    let mut rng = SecretRng::new([seed; 32]);
    Initiator::new(&client_key(), &server_key().public(), Some(&psk()), 0x0102_0304, &hello(), &mut rng)
}

fn server() -> Responder {
    Responder::new(server_key(), [2; 32], at(1))
}

fn source(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 40_000))
}

fn initiation(initiator: &Initiator, link: u8) -> Vec<u8> {
    let mut datagram = Vec::new();
    initiator.put(link, None, &mut datagram);
    datagram
}

fn response(message: &ResponseMessage, link: u8) -> Vec<u8> {
    let mut datagram = Vec::new();
    message.put(link, &mut datagram);
    datagram
}

/// A server's answer to a fresh initiation of `client`, with its keys.
fn answered(client: &Initiator) -> (TransportKeys, Vec<u8>) {
    let incoming = server().read(&initiation(client, 3)).unwrap();
    let (keys, message) = incoming.welcome(&welcome(), Some(&psk()), 0x0506_0708);
    (keys, response(&message, 3))
}

/// Whether each side opens the datagrams that the other side seals.
fn match_up(a: &TransportKeys, b: &TransportKeys) -> bool {
    let opens = |send: &AeadKey, receive: &AeadKey| {
        let mut bytes = b"hello".to_vec();
        let tag = send.seal(3, 7, b"head", &mut bytes);
        bytes.extend_from_slice(&tag);
        receive.open(3, 7, b"head", &mut bytes) == Ok(5) && bytes.starts_with(b"hello")
    };
    opens(&a.send, &b.receive) && opens(&b.send, &a.receive) && !opens(&a.send, &b.send)
}

#[test]
fn both_sides_agree() {
    let mut client = client(1);
    assert_eq!(client.local_index(), 0x0102_0304);
    let datagram = initiation(&client, 3);
    let mut server = server();
    assert_eq!(server.admit(&datagram, source(1), at(1)), Ok(Verdict::Proceed));
    let incoming = server.read(&datagram).unwrap();
    assert_eq!((incoming.client, &incoming.hello), (client_key().public(), &hello()));
    assert_eq!((incoming.remote_index, incoming.link), (0x0102_0304, 3));
    let (server_keys, message) = incoming.welcome(&welcome(), Some(&psk()), 0x0506_0708);
    let Outcome::Welcome(said, client_keys) = client.read_response(&response(&message, 3)).unwrap() else {
        panic!("refused")
    };
    assert_eq!(said, welcome());
    assert!(match_up(&client_keys, &server_keys));
    for (keys, local, remote) in
        [(&client_keys, 0x0102_0304, 0x0506_0708), (&server_keys, 0x0506_0708, 0x0102_0304)]
    {
        assert_eq!((keys.cipher, keys.local_index, keys.remote_index), (Cipher::Aes256Gcm, local, remote));
    }
}

/// The vectors of PROTOCOL.md, made by another implementation (Python, from the specifications).
#[test]
fn vectors() {
    assert_eq!(
        shown(&client_key().public().0),
        "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
    );
    assert_eq!(
        shown(&server_key().public().0),
        "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
    );
    let mut client = client(1);
    let first = initiation(&client, 3);
    let (server_keys, second) = answered(&client);
    assert_eq!(
        shown(&first),
        shown(&hex("810301000102030457c8ed29ec87172d05f329f3e932e5acf038a600b2d740fb577fbfe15ab1291d
            5b5c8e7fceb462dc2e330671ca4b95bc3a1763b8d00742897918d950a53b9766f3cbb3f069290470
            399a4ac119d2c22ba3c29db0f30ef8d0f3c71faa8c6d5d665ce6fc8d5a2442d3a1d43eacc91a6002
            b44e52d3a28cccddd0200c46878dbed8419f1966f9484a014a5262d0438a268e9a46de51ec4e0e42
            63b6f8e446730c5a377977fb77645b865fd896ce3f176fcb564d5dbf7b75bbc409c607a225af255d
            00000000000000000000000000000000"))
    );
    assert_eq!(
        shown(&second),
        shown(&hex("8203010001020304bd3e3993efb79b75ad4b15571b48df8567321c388e484e5b9945673a2b790765
            0430261f4e1d1c6601b85210a63b0818869761cd94e3c5cdc44b24421483431539d8535c8875f2cd
            cf47aaf4673aea2220a135b2a5743f44facd6ff2122018f9d658927fb56dbfa5983cee69de79c0cb
            86851b65e68eae17fc5a3d50fb8683f01f0281f2cfbdc4945e57108a557396e96a883dbf60375685
            8fd79748eb1db85b"))
    );
    let Outcome::Welcome(said, client_keys) = client.read_response(&second).unwrap() else {
        panic!("refused")
    };
    assert_eq!(said, welcome());
    // A key cannot be read back, so the test compares sealed bytes.
    let key = |text: &str| AeadKey::new(Cipher::Aes256Gcm, hex(text).as_slice().try_into().unwrap());
    let to_server = key("bdc7461b3c84f554cfdcaba29d0550cf3580e8f7cac64cd2e6fc6062ce0bdeeb");
    let to_client = key("90546fc4e56dbf948ca423b18d0385f712275decc4e0a78335ba2c554bbb6118");
    let seal = |key: &AeadKey| key.seal(3, 42, b"head", &mut []);
    assert_eq!(seal(&client_keys.send), seal(&to_server));
    assert_eq!(seal(&server_keys.receive), seal(&to_server));
    assert_eq!(seal(&client_keys.receive), seal(&to_client));
    assert_eq!(seal(&server_keys.send), seal(&to_client));
}

#[test]
fn the_same_message_goes_over_every_link_and_its_answer_counts_once() {
    let mut client = client(1);
    let (a, b) = (initiation(&client, 0), initiation(&client, 9));
    assert_ne!(a, b);
    let fingerprint = |datagram: &[u8]| Initiation::parse(datagram).unwrap().fingerprint();
    assert_eq!(fingerprint(&a), fingerprint(&b));
    let mut other = a.clone();
    other[100] ^= 1;
    assert_ne!(fingerprint(&a), fingerprint(&other));
    other = a.clone();
    other[4] ^= 1;
    assert_ne!(fingerprint(&a), fingerprint(&other));

    let mut server = server();
    let (_, message) = server.read(&b).unwrap().welcome(&welcome(), Some(&psk()), 1);
    assert_eq!(Response::parse(&response(&message, 9)).unwrap().link, 9);
    assert!(client.read_response(&response(&message, 0)).is_ok());
    assert_eq!(client.read_response(&response(&message, 9)).err(), Some(Discard::UnknownSession));
}

#[test]
fn a_refusal_is_told() {
    for refusal in [Refusal::Used, Refusal::Expired, Refusal::Refused, Refusal::KeyExpired] {
        let mut client = client(1);
        let message = server().read(&initiation(&client, 3)).unwrap().refuse(refusal, Some(&psk()));
        let outcome = client.read_response(&response(&message, 3)).unwrap();
        assert!(matches!(outcome, Outcome::Refused(told) if told == refusal));
    }
}

#[test]
fn without_a_pre_shared_key_it_is_zeros() {
    let mut rng = SecretRng::new([1; 32]);
    let zeros = PresharedKey::from_bytes([0; 32]);
    for (ours, theirs) in [(None, Some(&zeros)), (Some(&zeros), None), (None, None)] {
        let server_public = server_key().public();
        let mut client = Initiator::new(&client_key(), &server_public, ours, 1, &hello(), &mut rng);
        let incoming = server().read(&initiation(&client, 0)).unwrap();
        let (server_keys, message) = incoming.welcome(&welcome(), theirs, 2);
        let outcome = client.read_response(&response(&message, 0)).unwrap();
        assert!(matches!(outcome, Outcome::Welcome(_, keys) if match_up(&keys, &server_keys)));
    }
}

#[test]
fn wrong_keys_fail() {
    // Another server's key: refused before any work.
    let stranger = PrivateKey::from_bytes(counting(0x60));
    let datagram = initiation(&client(1), 3);
    let mut other = Responder::new(stranger.clone(), [2; 32], at(1));
    assert_eq!(other.admit(&datagram, source(1), at(1)), Err(Discard::Unauthenticated));
    assert_eq!(other.read(&datagram).err(), Some(Discard::Unauthenticated));

    // Another pre-shared key, or none: the client notices and continues until the right answer.
    let mut client = client(1);
    for wrong in [Some(PresharedKey::from_bytes([7; 32])), None] {
        let incoming = server().read(&datagram).unwrap();
        let (_, message) = incoming.welcome(&welcome(), wrong.as_ref(), 1);
        assert_eq!(client.read_response(&response(&message, 3)).err(), Some(Discard::Unauthenticated));
    }
    assert!(client.read_response(&answered(&client).1).is_ok());

    // Another client with the same index: the answer to the first is not for it.
    let mut rng = SecretRng::new([1; 32]);
    let server_public = server_key().public();
    let mut thief = Initiator::new(&stranger, &server_public, Some(&psk()), 0x0102_0304, &hello(), &mut rng);
    let (_, message) = server().read(&datagram).unwrap().welcome(&welcome(), Some(&psk()), 1);
    assert_eq!(thief.read_response(&response(&message, 3)).err(), Some(Discard::Unauthenticated));
}

/// A host on the path knows both public keys and can make macs.
#[test]
fn a_forged_response_does_not_end_the_attempt() {
    let mut client = client(1);
    let (server_keys, good) = answered(&client);
    let key = mac::mac1_key(&client_key().public());
    for place in 8..RESPONSE_BYTES - 16 {
        let mut forged = good.clone();
        forged[place] ^= 0x10;
        let (before, place) = forged.split_at_mut(RESPONSE_BYTES - 16);
        place.copy_from_slice(&mac::mac(&key, &[before]));
        assert_eq!(client.read_response(&forged).err(), Some(Discard::Unauthenticated));
    }
    let outcome = client.read_response(&good).unwrap();
    assert!(matches!(outcome, Outcome::Welcome(_, keys) if match_up(&keys, &server_keys)));
}

/// A host on the path cannot make the server accept another index, or any other change.
#[test]
fn a_forged_initiation_is_refused_whatever_its_macs_say() {
    let good = initiation(&client(1), 3);
    let mut server = server();
    for place in 4..INITIATION_BYTES - 32 {
        let mut forged = good.clone();
        forged[place] ^= 0x10;
        let (before, macs) = forged.split_at_mut(INITIATION_BYTES - 32);
        macs[..16].copy_from_slice(&mac::mac(&mac::mac1_key(&server_key().public()), &[before]));
        let now = at(u64::try_from(place).unwrap());
        assert_eq!(server.admit(&forged, source(1), now), Ok(Verdict::Proceed));
        assert_eq!(server.read(&forged).err(), Some(Discard::Unauthenticated));
    }
    assert!(server.read(&good).is_ok());
}

#[test]
fn under_load_a_cookie_is_asked_for_and_good() {
    let mut server = server();
    // More unknown sources than the budget has tokens.
    for number in 0..WORK_BUDGET.burst {
        let [_, _, a, b] = number.to_be_bytes();
        let stranger = SocketAddr::from(([198, 18, a, b], 1));
        assert_eq!(server.admit(&initiation(&client(1), 3), stranger, at(9)), Ok(Verdict::Proceed));
    }
    let mut client = client(1);
    let mut datagram = Vec::new();
    let mac1 = client.put(3, None, &mut datagram);
    let Ok(Verdict::Cookie(reply)) = server.admit(&datagram, source(1), at(9)) else { panic!("no cookie") };
    assert_eq!(CookieReply::parse(&reply).unwrap().link, 3);
    let cookie = client.read_cookie(&reply, &mac1).unwrap();

    // Not valid for another initiation, or another attempt.
    let other_mac1 = client.put(4, None, &mut Vec::new());
    assert_eq!(client.read_cookie(&reply, &other_mac1).err(), Some(Discard::Unauthenticated));
    let mut rng = SecretRng::new([1; 32]);
    let other = Initiator::new(&client_key(), &server_key().public(), None, 5, &hello(), &mut rng);
    assert_eq!(other.read_cookie(&reply, &mac1).err(), Some(Discard::UnknownSession));

    // With the cookie the client is admitted, as often as a source may; from another source the
    // cookie does not help.
    let mut again = Vec::new();
    client.put(3, Some(&cookie), &mut again);
    assert!(matches!(server.admit(&again, source(2), at(9)), Ok(Verdict::Cookie(_))));
    for _ in 0..SOURCE_RATE.burst {
        assert_eq!(server.admit(&again, source(1), at(9)), Ok(Verdict::Proceed));
    }
    assert_eq!(server.admit(&again, source(1), at(9)), Err(Discard::HandshakeLimited));
    let (_, message) = server.read(&again).unwrap().welcome(&welcome(), Some(&psk()), 1);
    assert!(client.read_response(&response(&message, 3)).is_ok());

    // The load is over: no cookie is needed.
    assert_eq!(server.admit(&datagram, source(1), at(9) + WORK_BUDGET.interval), Ok(Verdict::Proceed));
}

/// Below the budget of handshakes, tokens from forged addresses use up the look-ups; a client that
/// answers a cookie has its own.
#[test]
fn invented_tokens_keep_no_client_with_a_cookie_from_enrolling() {
    let mut server = server();
    let stranger = initiation(&client(2), 3);
    for number in 0..CLAIM_BUDGET.burst {
        let [_, _, a, b] = number.to_be_bytes();
        let forged = SocketAddr::from(([198, 18, a, b], 1));
        assert_eq!(server.admit_claim(&stranger, forged, at(9)), Ok(Verdict::Proceed));
    }
    let client = client(1);
    let mut datagram = Vec::new();
    let mac1 = client.put(3, None, &mut datagram);
    let asked = server.admit_claim(&datagram, source(1), at(9));
    let Ok(Verdict::Cookie(reply)) = asked else { panic!("no cookie: {asked:?}") };
    let cookie = client.read_cookie(&reply, &mac1).unwrap();
    let mut again = Vec::new();
    client.put(3, Some(&cookie), &mut again);
    for _ in 0..PROVEN_CLAIM_BUDGET.burst {
        assert_eq!(server.admit_claim(&again, source(1), at(9)), Ok(Verdict::Proceed));
    }
    assert_eq!(server.admit_claim(&again, source(1), at(9)), Err(Discard::HandshakeLimited));
    assert_eq!(server.admit_claim(&datagram, source(1), at(9) + CLAIM_BUDGET.interval), Ok(Verdict::Proceed));
}

#[test]
fn all_addresses_with_a_cookie_share_one_budget() {
    let mut server = server();
    let client = client(1);
    let mut datagram = Vec::new();
    let mac1 = client.put(3, None, &mut datagram);
    let address = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc612_0000 + number), 1));
    for number in 0..WORK_BUDGET.burst {
        assert_eq!(server.admit(&datagram, address(number), at(9)), Ok(Verdict::Proceed));
    }
    let mut admitted = 0;
    for number in 0..2 * PROVEN_BUDGET.burst {
        let source = address(0x8000 + number);
        let Ok(Verdict::Cookie(reply)) = server.admit(&datagram, source, at(9)) else { panic!("no cookie") };
        let cookie = client.read_cookie(&reply, &mac1).unwrap();
        let mut again = Vec::new();
        client.put(3, Some(&cookie), &mut again);
        match server.admit(&again, source, at(9)) {
            Ok(Verdict::Proceed) => admitted += 1,
            refused => assert_eq!(refused, Err(Discard::HandshakeLimited)),
        }
    }
    assert_eq!(admitted, PROVEN_BUDGET.burst);
}

#[test]
fn a_source_that_asks_too_often_must_show_a_cookie_and_costs_others_nothing() {
    let mut server = server();
    let client = client(1);
    let mut datagram = Vec::new();
    let mac1 = client.put(3, None, &mut datagram);
    for _ in 0..SOURCE_RATE.burst {
        assert_eq!(server.admit(&datagram, source(1), at(9)), Ok(Verdict::Proceed));
    }
    let mut reply = None;
    for _ in 0..1_000 {
        let Ok(Verdict::Cookie(cookie)) = server.admit(&datagram, source(1), at(9)) else { panic!() };
        reply = Some(cookie);
    }
    // The real owner of an address is admitted although an attacker forges that address.
    let cookie = client.read_cookie(&reply.unwrap(), &mac1).unwrap();
    let mut again = Vec::new();
    client.put(3, Some(&cookie), &mut again);
    assert_eq!(server.admit(&again, source(1), at(9)), Ok(Verdict::Proceed));
    assert_eq!(server.admit(&datagram, source(2), at(9)), Ok(Verdict::Proceed));
}

/// A secret that an exchange left.
fn secret() -> SharedSecret {
    let (key, ciphertext, shared) = crate::crypto::kem::tests::vector();
    SharedSecret::new(None, &shared, &key, &ciphertext)
}

/// Keys of a handshake in which each side has the secret or not; all else is the same each time.
fn keys_with(client_has: bool, server_has: bool) -> Result<(TransportKeys, TransportKeys), Discard> {
    let mut client = client(1);
    if client_has {
        client = client.with_secret(&secret(), Some(&psk()));
    }
    let incoming = server().read(&initiation(&client, 3)).unwrap();
    let both = secret().with(Some(&psk()));
    let psk = if server_has { both } else { psk() };
    let (server_keys, message) = incoming.welcome(&welcome(), Some(&psk), 0x0506_0708);
    let mut forged = response(&message, 3);
    forged[100] ^= 1;
    assert!(client.read_response(&forged).is_err());
    // As a host that knows the client's public key can make it.
    let (before, mac1) = forged.split_at_mut(RESPONSE_BYTES - 16);
    mac1.copy_from_slice(&mac::mac(&mac::mac1_key(&client_key().public()), &[before]));
    assert_eq!(client.read_response(&forged).err(), Some(Discard::Unauthenticated));
    match client.read_response(&response(&message, 3))? {
        Outcome::Welcome(_, keys) => Ok((keys, server_keys)),
        Outcome::Refused(_) => panic!("welcome"),
    }
}

/// An attacker that knows both private keys, both ephemeral keys and the pre-shared key, as after
/// breaking Diffie-Hellman, still lacks the secret.
#[test]
fn keys_depend_on_the_secret_beside_all_that_diffie_hellman_gives() {
    let (without, _) = keys_with(false, false).unwrap();
    let (client, server) = keys_with(true, true).unwrap();
    assert!(match_up(&client, &server));
    assert_eq!((client.secret, without.secret), (Some(secret().name()), None));
    assert!(!match_up(&without, &server));
}

#[test]
fn a_server_that_lost_the_secret_is_answered_without_and_no_other_side_is() {
    let (client, server) = keys_with(true, false).unwrap();
    assert!(match_up(&client, &server));
    assert_eq!(client.secret, None);
    assert_eq!(keys_with(false, true).err(), Some(Discard::Unauthenticated));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn keys_match_whatever_was_drawn(
        client: [u8; 32], server: [u8; 32], psk: Option<[u8; 32]>, seeds: ([u8; 32], [u8; 32]), indices: (u32, u32), link: u8,
        aes: bool,
    ) {
        let (client_key, server_key) = (PrivateKey::from_bytes(client), PrivateKey::from_bytes(server));
        let psk = psk.map(PresharedKey::from_bytes);
        let mut rng = SecretRng::new(seeds.0);
        let mut client =
            Initiator::new(&client_key, &server_key.public(), psk.as_ref(), indices.0, &hello(), &mut rng);
        let mut server = Responder::new(server_key, seeds.1, at(0));
        let datagram = initiation(&client, link);
        prop_assert_eq!(server.admit(&datagram, source(1), at(0)), Ok(Verdict::Proceed));
        let incoming = server.read(&datagram).unwrap();
        prop_assert_eq!(incoming.client, client_key.public());
        let cipher = if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let (server_keys, message) = incoming.welcome(&Welcome { cipher, ..welcome() }, psk.as_ref(), indices.1);
        let Outcome::Welcome(_, keys) = client.read_response(&response(&message, link)).unwrap() else { panic!() };
        prop_assert!(match_up(&keys, &server_keys));
        prop_assert_eq!((keys.local_index, keys.remote_index), indices);
        prop_assert_eq!(keys.cipher, cipher);
    }

    /// mac2 is read only if a cookie is required, and then a flipped bit voids the cookie.
    #[test]
    fn any_flip_in_an_initiation_is_refused(place in 0..INITIATION_BYTES - 16, bit in 0u8..8) {
        let mut datagram = initiation(&client(1), 3);
        datagram[place] ^= 1 << bit;
        let mut server = server();
        prop_assert!(server.admit(&datagram, source(1), at(1)).is_err());
        // Noise does not cover the link and mac1.
        let noise = (4..INITIATION_BYTES - 32).contains(&place) || [0, 2, 3].contains(&place);
        prop_assert_eq!(server.read(&datagram).is_err(), noise);
    }

    #[test]
    fn any_flip_in_mac2_is_no_cookie(place in INITIATION_BYTES - 16..INITIATION_BYTES, bit in 0u8..8) {
        let (mut server, client) = (server(), client(1));
        let mut datagram = Vec::new();
        let mac1 = client.put(3, None, &mut datagram);
        let mut admission = server.admit(&datagram, source(1), at(1)).unwrap();
        while admission == Verdict::Proceed {
            admission = server.admit(&datagram, source(1), at(1)).unwrap();
        }
        let Verdict::Cookie(reply) = admission else { panic!() };
        let cookie = client.read_cookie(&reply, &mac1).unwrap();
        let mut datagram = Vec::new();
        client.put(3, Some(&cookie), &mut datagram);
        prop_assert_eq!(server.admit(&datagram, source(1), at(1)), Ok(Verdict::Proceed));
        datagram[place] ^= 1 << bit;
        prop_assert!(matches!(server.admit(&datagram, source(1), at(1)), Ok(Verdict::Cookie(_))));
    }

    #[test]
    fn any_flip_in_a_response_is_refused(place in 0..RESPONSE_BYTES, bit in 0u8..8) {
        let mut client = client(1);
        let (_, mut datagram) = answered(&client);
        datagram[place] ^= 1 << bit;
        prop_assert!(client.read_response(&datagram).is_err());
        datagram[place] ^= 1 << bit;
        prop_assert!(client.read_response(&datagram).is_ok());
    }

    /// Except the link, which only selects the mac1 that the reply is bound to.
    #[test]
    fn any_flip_in_a_cookie_is_refused(place in 2..COOKIE_BYTES, bit in 0u8..8) {
        let (mut server, client) = (server(), client(1));
        let mut datagram = Vec::new();
        let mac1 = client.put(3, None, &mut datagram);
        let mut admission = server.admit(&datagram, source(1), at(1)).unwrap();
        while admission == Verdict::Proceed {
            admission = server.admit(&datagram, source(1), at(1)).unwrap();
        }
        let Verdict::Cookie(mut reply) = admission else { panic!() };
        prop_assert!(client.read_cookie(&reply, &mac1).is_ok());
        reply[place] ^= 1 << bit;
        prop_assert!(client.read_cookie(&reply, &mac1).is_err());
    }

    /// Any bytes behind a good header and, where the message has one, under a good mac1.
    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), INITIATION_BYTES), fit in 0usize..4) {
        let (mut server, mut client) = (server(), client(1));
        let size = [INITIATION_BYTES, RESPONSE_BYTES, COOKIE_BYTES, usize::from(bytes[0])][fit];
        let mut datagram = bytes[..size.min(bytes.len())].to_vec();
        if let (Some(kind), Some(head)) = ([0x81, 0x82, 0x83].get(fit), datagram.first_chunk_mut::<8>()) {
            *head = [*kind, bytes[1], 1, 0, 1, 2, 3, 4];
        }
        let macs = [(32, server_key().public()), (16, client_key().public())];
        if let Some((behind, receiver)) = macs.get(fit) {
            let (before, place) = datagram.split_at_mut(size - behind);
            place[..16].copy_from_slice(&mac::mac(&mac::mac1_key(receiver), &[before]));
        }
        prop_assert_eq!(server.admit(&datagram, source(1), at(1)).is_ok(), fit == 0);
        prop_assert!(server.read(&datagram).is_err());
        prop_assert!(client.read_response(&datagram).is_err());
        prop_assert!(client.read_cookie(&datagram, &Mac1([0; 16])).is_err());
        prop_assert!(client.read_response(&answered(&client).1).is_ok());
    }
}
