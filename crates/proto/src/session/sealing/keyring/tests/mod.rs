mod model;

use super::*;

#[test]
fn without_keys_nothing_is_left_to_be_sent() {
    let mut buf = b"before".to_vec();
    buf.extend_from_slice(&Keyring::HEADER_ROOM);
    buf.extend_from_slice(b"secret");
    Keyring::new(KeyLimits::DEFAULT).seal((LinkId(0), UdpFlow::FIRST), &mut buf, 6, Instant::ZERO);
    assert_eq!(buf, [b"before".as_slice(), &[0; SEALED_HEADER_BYTES + 6]].concat());
}

/// Bounds that few datagrams reach.
fn small(_: Cipher) -> Usage {
    Usage { renew_blocks: 12, refuse_blocks: 24, forgeries: 8 }
}

/// Both sides of one handshake.
fn pair() -> (Keyring, Keyring) {
    let (mut client, mut server) = (Keyring::new(SMALL), Keyring::new(SMALL));
    client.install(model::keys(0, true), 1, Instant::ZERO);
    server.install_next(model::keys(0, false), 1, Instant::ZERO);
    deliver(&mut client, &mut server).unwrap();
    (client, server)
}

const SMALL: KeyLimits = KeyLimits { usage: small, ..KeyLimits::DEFAULT };

/// A datagram of three blocks: 20 bytes and the tag.
fn sealed(by: &mut Keyring) -> Vec<u8> {
    let mut data = Keyring::HEADER_ROOM.to_vec();
    data.extend_from_slice(&[7; 20]);
    by.seal((LinkId(0), UdpFlow::FIRST), &mut data, 0, Instant::ZERO);
    data
}

fn open(by: &mut Keyring, mut data: Vec<u8>) -> Result<Opened, Discard> {
    by.open(&SealedHeader::parse(&data).unwrap(), &mut data, Instant::ZERO)
}

fn deliver(from: &mut Keyring, to: &mut Keyring) -> Result<Opened, Discard> {
    open(to, sealed(from))
}

#[test]
fn new_keys_are_asked_for_long_before_none_may_seal() {
    let (mut client, _) = pair();
    for number in 2..=8 {
        assert!(client.can_seal(Instant::ZERO) && client.serves(), "{number}");
        sealed(&mut client);
        assert_eq!(client.is_used_up(), number >= 4, "{number}");
    }
    assert!(!client.can_seal(Instant::ZERO) && !client.serves());
}

#[test]
fn a_client_asks_for_new_keys_when_its_server_used_them_up() {
    let (mut client, mut server) = pair();
    for number in 1..=4 {
        deliver(&mut server, &mut client).unwrap();
        assert_eq!(client.is_used_up(), number >= 4, "{number}");
    }
}

#[test]
fn too_many_forgeries_end_a_key() {
    let (mut client, mut server) = pair();
    let good = sealed(&mut server);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for number in 1..=7 {
        assert_eq!(open(&mut client, forged.clone()), Err(Discard::Unauthenticated));
        assert_eq!(client.is_used_up(), number >= 4, "{number}");
    }
    assert!(open(&mut client, good).is_ok());
    let late = sealed(&mut server);
    forged = late.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut client, forged), Err(Discard::Unauthenticated));
    assert_eq!(client.poll_freed(), Some(1));
    assert_eq!(open(&mut client, late), Err(Discard::UnknownSession));
    assert!(!client.can_seal(Instant::ZERO) && client.cipher().is_none());
}
