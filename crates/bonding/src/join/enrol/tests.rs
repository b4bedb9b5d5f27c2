//! Against a server's side of the handshake on the loopback interface.

use std::net::UdpSocket as Plain;
use std::thread;

use bonding_proto::config::Prefix;
use bonding_proto::crypto::aead::Cipher;
use bonding_proto::crypto::keys::{PresharedKey, Token};
use bonding_proto::handshake::{Incoming, Responder, Verdict};

use super::*;
use crate::config;

const RUN: u64 = 7;
const SOON: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(20)];

fn lines() -> Vec<Line> {
    vec![Line { interface: "lo".to_owned(), ipv4: true, ipv6: true }]
}

fn asked<'a>(invitation: &'a Invitation, identity: &'a PrivateKey) -> Asked<'a> {
    Asked { invitation, identity, run: RUN }
}

/// The answer, and what a person was told.
fn ask(pauses: &[Duration], invitation: &Invitation) -> (Result<Welcome, EnrolError>, Vec<String>) {
    let mut said = Vec::new();
    let mut say = |line: &str| said.push(line.to_owned());
    let result = enrol_within(pauses, &asked(invitation, &client_key()), &lines(), &mut say);
    (result, said)
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn client_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

fn invitation(ports: &str) -> Invitation {
    Invitation {
        hosts: vec![config::host("127.0.0.1").unwrap()],
        ports: config::ports(ports).unwrap(),
        server: server_key().public(),
        token: Token::from_bytes([3; 16]),
        expires: u64::MAX,
    }
}

fn key() -> InvitationKey {
    InvitationKey::new(&Token::from_bytes([3; 16]))
}

fn preshared() -> PresharedKey {
    key().preshared(&server_key().public(), &client_key().public())
}

fn welcome() -> Welcome {
    let address = Prefix { address: "10.99.0.2".parse().unwrap(), length: 24 };
    Welcome {
        cipher: Cipher::ChaCha20Poly1305,
        epoch: 1,
        mtu: Some(1_409),
        addresses: vec![address],
        routes: Vec::new(),
        exchanges: false,
    }
}

/// A busy server: the first datagrams get a cookie, then `answer` decides.
fn serve(socket: Plain, answer: impl Fn(Incoming) -> Vec<u8> + Send + 'static) {
    thread::spawn(move || {
        let now = bonding_proto::Instant::ZERO + Duration::from_secs(1);
        let mut responder = Responder::new(server_key(), [9; 32], now);
        let mut buffer = [0; 2_048];
        while let Ok((size, from)) = socket.recv_from(&mut buffer) {
            let datagram = &buffer[..size];
            // Until this source's budget is used up.
            while let Ok(Verdict::Proceed) = responder.admit(datagram, from, now)
                && datagram[200..].iter().all(|byte| *byte == 0)
            {}
            let reply = match responder.admit(datagram, from, now) {
                Ok(Verdict::Proceed) => answer(responder.read(datagram).unwrap()),
                Ok(Verdict::Cookie(cookie)) => cookie.to_vec(),
                Err(_) => continue,
            };
            socket.send_to(b"\x82 noise", from).unwrap();
            socket.send_to(&reply, from).unwrap();
        }
    });
}

fn listener() -> (Plain, String) {
    let socket = Plain::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    (socket, port)
}

#[test]
fn a_server_that_wants_a_cookie_first_gets_it_and_welcomes() {
    let (socket, port) = listener();
    serve(socket, |incoming| {
        assert_eq!(incoming.client, client_key().public());
        assert_eq!(
            (incoming.hello.stamp.run, incoming.hello.claim),
            (RUN, Some(key().claim(&server_key().public(), &client_key().public())))
        );
        let mut datagram = Vec::new();
        incoming.welcome(&welcome(), Some(&preshared()), 5).1.put(0, &mut datagram);
        datagram
    });
    assert_eq!(ask(&PAUSES, &invitation(&port)).0.unwrap(), welcome());
}

/// A machine with the server's private key, but without its register, enrols no client.
#[test]
fn an_answer_without_the_tokens_key_is_no_answer() {
    let (socket, port) = listener();
    serve(socket, |incoming| {
        let mut datagram = Vec::new();
        incoming.welcome(&welcome(), None, 5).1.put(0, &mut datagram);
        datagram
    });
    let error = ask(&SOON, &invitation(&port)).0.unwrap_err();
    assert!(matches!(error, EnrolError::Silence { .. }), "{error}");
}

#[test]
fn a_refusal_is_told_as_what_it_is() {
    for (refusal, part) in [
        (Refusal::Used, "was used already"),
        (Refusal::Expired, "has expired"),
        (Refusal::Refused, "refused this client"),
        (Refusal::KeyExpired, "and it has expired"),
    ] {
        let (socket, port) = listener();
        serve(socket, move |incoming| {
            let mut datagram = Vec::new();
            incoming.refuse(refusal, Some(&preshared())).put(0, &mut datagram);
            datagram
        });
        let error = ask(&PAUSES, &invitation(&port)).0.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn silence_names_the_hosts_that_were_asked() {
    let (_silent, port) = listener();
    let error = ask(&SOON, &invitation(&port)).0.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("no answer from 127.0.0.1 on UDP {port} over lo, the default route: ")),
        "{error}"
    );
    assert!(error.ends_with("does not know the invitation any more."), "{error}");
    let expired = Invitation { expires: 5, ..invitation(&port) };
    let error = ask(&SOON, &expired).0.unwrap_err().to_string();
    assert!(error.ends_with("has expired, too."), "{error}");
}

#[test]
fn a_server_with_another_key_is_no_answer() {
    let (socket, port) = listener();
    serve(socket, |_| unreachable!("its mac1 is not for this server"));
    let other = Invitation { server: PrivateKey::from_bytes([8; 32]).public(), ..invitation(&port) };
    let error = ask(&SOON, &other).0.unwrap_err();
    assert!(matches!(error, EnrolError::Silence { .. }), "{error}");
}

#[test]
fn every_port_of_every_address_is_asked_over_every_line() {
    let hosts =
        ["127.0.0.1", "127.0.0.2", "127.0.0.1", "::1"].map(|host| config::host(host).unwrap()).to_vec();
    let invitation = Invitation { hosts, ..invitation("9001-9002") };
    let key = client_key();
    let mut said = Vec::new();
    let mut say = |line: &str| said.push(line.to_owned());
    let mut asking = Asking::new(asked(&invitation, &key), &lines(), &mut say).unwrap();
    asking.look_up().unwrap();
    let remotes: Vec<(String, &str)> = asking
        .remotes
        .iter()
        .map(|remote| (remote.address.to_string(), asking.ways[remote.socket].name()))
        .collect();
    let both = |address: &str| ["lo", "the default route"].map(|way| (address.to_owned(), way));
    let expected = [
        both("127.0.0.1:9001"),
        both("127.0.0.2:9001"),
        both("[::1]:9001"),
        both("127.0.0.1:9002"),
        both("127.0.0.2:9002"),
        both("[::1]:9002"),
    ];
    assert_eq!(remotes, expected.concat());
    drop(asking);
    assert_eq!(said, ["asking 127.0.0.1, 127.0.0.2, ::1 on UDP 9001-9002 over lo, the default route"]);
}

#[test]
fn a_name_without_an_address_holds_up_no_other_host() {
    let (socket, port) = listener();
    serve(socket, |incoming| {
        let mut datagram = Vec::new();
        incoming.welcome(&welcome(), Some(&preshared()), 5).1.put(0, &mut datagram);
        datagram
    });
    let hosts = vec![Host::Name("no such name".to_owned()), config::host("127.0.0.1").unwrap()];
    let (result, said) = ask(&PAUSES, &Invitation { hosts, ..invitation(&port) });
    assert_eq!(result.unwrap(), welcome());
    assert!(said.iter().any(|line| line.starts_with(&format!("127.0.0.1:{port} answers over "))), "{said:?}");
    let hosts = vec![Host::Name("no such name".to_owned())];
    let error = ask(&PAUSES[..1], &Invitation { hosts, ..invitation("1") }).0.unwrap_err().to_string();
    assert!(error.starts_with("cannot look up the server `no such name`: "), "{error}");
}
