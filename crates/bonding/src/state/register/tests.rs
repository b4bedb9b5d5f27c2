//! The life of invitations, the owners of addresses, and that a damaged register is never
//! an empty one.

use bonding_proto::handshake::Claim;

use super::*;
use crate::state::keys;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
/// Some day in 2025.
const START: u64 = 1_763_766_400;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START + seconds)
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
}

fn configured() -> Configured {
    Configured {
        networks: vec![prefix("10.99.0.1/24"), prefix("fd99::1/64")],
        taken: vec![prefix("10.99.0.2/32"), prefix("192.168.1.0/24")],
        names: vec!["office".to_owned()],
    }
}

fn token(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn server() -> PublicKey {
    key(0xee)
}

/// The client with this key shows the invitation with this token.
fn shown(client: u8, number: u8) -> Shown {
    let invitation = InvitationKey::new(&token(number));
    let client = key(client);
    let Claim::Invitation { id, proof } = invitation.claim(&server(), &client) else { unreachable!() };
    Shown { client, server: server(), invitation: id, proof }
}

fn preshared(client: u8, number: u8) -> Option<PresharedKey> {
    Some(InvitationKey::new(&token(number)).preshared(&server(), &key(client)))
}

/// A folder with a key and a register.
struct State {
    folder: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        let state = Self { folder: tempfile::tempdir().unwrap() };
        keys::load_or_make(&state.key()).unwrap();
        state
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("server.clients")
    }

    fn open(&self) -> Register {
        Register::open(&self.key()).unwrap()
    }
}

fn addresses(client: &Client) -> Vec<String> {
    client.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn an_invitation_enrols_one_key_which_keeps_its_addresses() {
    let state = State::new();
    let mut register = state.open();
    let expires = register.invite("home", &token(1), &configured(), at(0)).unwrap();
    assert_eq!(expires, START + DAY);
    let client = register.enrol(&shown(1, 1), &configured(), at(HOUR)).unwrap().clone();
    assert_eq!(
        (client.name.as_str(), addresses(&client)),
        ("home", vec!["10.99.0.3".into(), "fd99::2".into()])
    );

    let again = register.enrol(&shown(1, 1), &configured(), at(2 * HOUR)).unwrap();
    assert_eq!(*again, client, "an answer that got lost");
    let other = register.enrol(&shown(2, 1), &configured(), at(HOUR)).unwrap_err();
    assert!(matches!(&other, EnrolError::Used(name) if name == "home"), "{other}");

    register.invite("van", &token(2), &configured(), at(0)).unwrap();
    let van = register.enrol(&shown(2, 2), &configured(), at(0)).unwrap();
    assert_eq!(addresses(van), ["10.99.0.4", "fd99::3"]);
    drop(register);
    let names: Vec<String> = state.open().clients().iter().map(|client| client.name.clone()).collect();
    assert_eq!(names, ["home", "van"]);
    assert_eq!(state.open().clients()[0], client);
}

#[test]
fn the_token_itself_is_not_kept() {
    let state = State::new();
    state.open().invite("home", &token(0x41), &configured(), at(0)).unwrap();
    let text = std::fs::read_to_string(state.file()).unwrap();
    assert!(!text.contains("AAAA") && !text.contains(&keys::encode(&[0x41; 32])[..20]), "{text}");
}

/// An invitation's id is not its token: a copied id enrols no key.
#[test]
fn an_invitation_is_used_only_by_a_client_that_has_its_token() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    let thief = Shown { client: key(9), ..shown(1, 1) };
    for wrong in [thief, Shown { proof: [0; 16], ..shown(1, 1) }, Shown { server: key(9), ..shown(1, 1) }] {
        let error = register.enrol(&wrong, &configured(), at(0)).unwrap_err();
        assert!(matches!(error, EnrolError::Unknown), "{error}");
    }
    let client = register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    assert_eq!(client.preshared, preshared(1, 1));
    drop(register);
    assert_eq!(state.open().clients()[0].preshared, preshared(1, 1));
}

/// The layout before this one: its clients go on without a pre-shared key, its invitations are
/// good.
#[test]
fn a_register_of_the_layout_before_is_read() {
    let state = State::new();
    let text = |version: u32| {
        format!(
            r#"{{"version":{version},"clients":[{{"name":"home","public_key":"{}","addresses":["10.99.0.3"],"enrolled":5}}],
            "invitations":[{{"name":"van","token_hash":"{}","expires":{}}}]}}"#,
            keys::show(&key(1)),
            keys::encode(InvitationKey::new(&token(2)).bytes()),
            START + DAY
        )
    };
    std::fs::write(state.file(), text(1)).unwrap();
    let mut register = state.open();
    assert_eq!((register.clients()[0].preshared.clone(), register.clients()[0].expires), (None, None));
    register.enrol(&shown(2, 2), &configured(), at(0)).unwrap();
    drop(register);
    let register = state.open();
    assert_eq!(register.clients()[0].preshared, None);
    assert_eq!(register.clients()[1].preshared, preshared(2, 2));
    assert!(std::fs::read_to_string(state.file()).unwrap().contains("\"version\": 2"));
    drop(register);
    std::fs::write(state.file(), text(3)).unwrap();
    let error = Register::open(&state.key()).map(drop).unwrap_err().to_string();
    assert!(error.contains("another version of this program wrote it (layout 3)"), "{error}");
}

#[test]
fn a_new_key_takes_the_place_of_the_old_one_and_nothing_else_changes() {
    let state = State::new();
    let mut register = state.open();
    for number in 1..=2 {
        register.invite(&format!("c{number}"), &token(number), &configured(), at(0)).unwrap();
        register.enrol(&shown(number, number), &configured(), at(0)).unwrap();
    }
    let before = register.clients()[0].clone();
    let after = register.rotate(key(1), key(7), at(5)).unwrap().clone();
    assert_eq!(after, Client { public_key: key(7), ..before });
    assert!(
        matches!(register.rotate(key(1), key(8), at(5)), Err(EnrolError::Unknown)),
        "the old key is gone"
    );
    assert!(matches!(register.rotate(key(7), key(2), at(5)), Err(EnrolError::KeyTaken(_))));
    let used = register.enrol(&shown(1, 1), &configured(), at(6)).unwrap_err();
    assert!(matches!(used, EnrolError::Used(_)), "the old key does not come back: {used}");
    drop(register);
    assert_eq!(state.open().clients()[0], after);
}

#[test]
fn an_expired_key_neither_rotates_nor_enrols_until_it_is_renewed() {
    let state = State::new();
    let mut register = state.open();
    for number in 1..=2 {
        register.invite(&format!("c{number}"), &token(number), &configured(), at(0)).unwrap();
    }
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    assert_eq!(register.expire("c1", Some(START + 60), &configured()).unwrap().expires, Some(START + 60));
    drop(register);
    let mut register = state.open();
    assert!(register.rotate(key(1), key(7), at(59)).is_ok());
    let expired = register.rotate(key(7), key(8), at(60)).unwrap_err().to_string();
    assert!(expired.contains("`bondctl expire c1 never`"), "{expired}");
    let invited = register.enrol(&shown(7, 2), &configured(), at(60)).unwrap_err();
    assert!(matches!(invited, EnrolError::KeyExpired(_)), "{invited}");
    register.expire("c1", None, &configured()).unwrap();
    assert!(register.rotate(key(7), key(8), at(60)).is_ok());
    for (name, part) in [("c2", "there is no client \"c2\""), ("office", "is a [[client]]")] {
        let error = register.expire(name, None, &configured()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn too_late_is_too_late_and_remembered_for_a_week() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    let mut enrol = |seconds| register.enrol(&shown(1, 1), &configured(), at(seconds)).unwrap_err();
    assert!(matches!(enrol(DAY), EnrolError::Expired(name) if name == "home"));
    assert!(matches!(enrol(8 * DAY - 1), EnrolError::Expired(_)));
    assert!(matches!(enrol(8 * DAY), EnrolError::Unknown));
    assert!(matches!(register.enrol(&shown(1, 9), &configured(), at(0)), Err(EnrolError::Unknown)));
}

#[test]
fn a_used_invitation_is_remembered_for_a_week_after_its_use() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(HOUR)).unwrap();
    let mut late = |seconds| register.enrol(&shown(2, 1), &configured(), at(seconds)).unwrap_err();
    assert!(matches!(late(7 * DAY), EnrolError::Used(_)));
    assert!(matches!(late(7 * DAY + HOUR), EnrolError::Unknown));
}

/// A stranger may show tokens without end: the register is neither copied nor written for one.
#[test]
fn a_token_that_changes_nothing_costs_the_same_in_a_large_register() {
    let state = State::new();
    let mut register = state.open();
    let (mut small, mut large) = (Duration::MAX, Duration::MAX);
    let shortest = |register: &mut Register, least: &mut Duration| {
        for _ in 0..200 {
            let start = std::time::Instant::now();
            assert!(matches!(register.enrol(&shown(9, 9), &configured(), at(0)), Err(EnrolError::Unknown)));
            assert!(matches!(register.enrol(&shown(9, 1), &configured(), at(0)), Err(EnrolError::Used(_))));
            *least = (*least).min(start.elapsed());
        }
    };
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    shortest(&mut register, &mut small);
    let one = register.content.clients[0].clone();
    let number = |n: u32| Client { name: format!("c{n}"), ..one.clone() };
    register.content.clients.extend((0..20_000).map(number));
    shortest(&mut register, &mut large);
    // Copying 20,000 clients takes over a thousand times as long as both look-ups.
    assert!(large < small * 50 + Duration::from_micros(50), "{small:?} {large:?}");
}

#[test]
fn whether_any_token_can_be_answered_follows_the_invitations() {
    let state = State::new();
    let mut register = state.open();
    assert!(!register.has_invitations(at(0)));
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    assert!(register.has_invitations(at(DAY)), "a late client is told");
    assert!(!register.has_invitations(at(8 * DAY)));
}

#[test]
fn names_are_unique_among_all() {
    let state = State::new();
    let mut register = state.open();
    let error = register.invite("office", &token(1), &configured(), at(0)).unwrap_err();
    assert!(matches!(error, InviteError::Configured(_)), "{error}");
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.invite("home", &token(2), &configured(), at(1)).expect("the first line was lost");
    let first = register.enrol(&shown(1, 1), &configured(), at(2)).unwrap_err();
    assert!(matches!(first, EnrolError::Expired(_)), "{first}");
    register.enrol(&shown(1, 2), &configured(), at(2)).unwrap();
    let error = register.invite("home", &token(3), &configured(), at(3)).unwrap_err().to_string();
    assert!(error.contains("bondctl revoke home"), "{error}");

    // The configuration takes the name between invitation and use.
    register.invite("van", &token(4), &configured(), at(3)).unwrap();
    let later = Configured { names: vec!["van".to_owned()], ..configured() };
    assert!(matches!(register.enrol(&shown(2, 4), &later, at(4)), Err(EnrolError::NameTaken(_))));
}

#[test]
fn one_key_is_one_client() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.invite("van", &token(2), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    // A thief with its private key and an invitation of the thief's own gets no session with it.
    let other = register.enrol(&shown(1, 2), &configured(), at(1)).unwrap_err();
    assert!(matches!(&other, EnrolError::Enrolled(name) if name == "home"), "{other}");
    assert_eq!(register.clients()[0].preshared, preshared(1, 1));
    assert_eq!(register.enrol(&shown(2, 2), &configured(), at(2)).unwrap().name, "van");
    assert_eq!(register.clients().len(), 2);
}

/// A client from before there were pre-shared keys gets one by another invitation, and stays who it
/// is.
#[test]
fn a_client_without_a_pre_shared_key_gets_one() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.invite("van", &token(2), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    register.content.clients[0].preshared = None;
    let client = register.enrol(&shown(1, 2), &configured(), at(1)).unwrap();
    assert_eq!((client.name.as_str(), &client.preshared), ("home", &preshared(1, 2)));
    // An old message brings no old pre-shared key back.
    let replayed = register.enrol(&shown(1, 1), &configured(), at(1)).unwrap_err();
    assert!(matches!(replayed, EnrolError::Used(_)), "{replayed}");
    let other = register.enrol(&shown(2, 2), &configured(), at(2)).unwrap_err();
    assert!(matches!(other, EnrolError::Used(_)), "{other}");
    assert_eq!((register.clients().len(), &register.clients()[0].preshared), (1, &preshared(1, 2)));
}

#[test]
fn a_revoked_client_cannot_enrol_with_its_old_invitation() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    assert_eq!(register.revoke("home", &configured(), at(1)).unwrap(), Some(key(1)));
    assert!(register.clients().is_empty());
    let again = register.enrol(&shown(1, 1), &configured(), at(2)).unwrap_err();
    assert!(matches!(again, EnrolError::Used(_)), "{again}");
    assert!(matches!(register.revoke("home", &configured(), at(2)), Err(RevokeError::Unknown(_))));
    assert!(matches!(register.revoke("office", &configured(), at(2)), Err(RevokeError::Configured(_))));

    register.invite("van", &token(2), &configured(), at(2)).unwrap();
    assert_eq!(register.revoke("van", &configured(), at(3)).unwrap(), None, "an open invitation");
    assert!(matches!(register.enrol(&shown(2, 2), &configured(), at(4)), Err(EnrolError::Expired(_))));
    register.invite("home", &token(3), &configured(), at(5)).unwrap();
    assert_eq!(addresses(register.enrol(&shown(3, 3), &configured(), at(5)).unwrap())[0], "10.99.0.3");
}

#[test]
fn a_full_network_enrols_no_client_and_changes_nothing() {
    let state = State::new();
    let mut register = state.open();
    let small = Configured { networks: vec![prefix("10.99.0.1/30")], ..configured() };
    register.invite("home", &token(1), &small, at(0)).unwrap();
    let error = register.enrol(&shown(1, 1), &small, at(0)).unwrap_err();
    assert!(error.to_string().starts_with("no address is free in 10.99.0.1/30"), "{error}");
    assert!(register.clients().is_empty());
    // With more room the same line is good.
    register.enrol(&shown(1, 1), &configured(), at(1)).unwrap();
}

#[test]
fn addresses_follow_the_configuration_and_are_kept_otherwise() {
    let state = State::new();
    let mut register = state.open();
    for number in 1..=3 {
        register.invite(&format!("c{number}"), &token(number), &configured(), at(0)).unwrap();
        register.enrol(&shown(number, number), &configured(), at(0)).unwrap();
    }
    assert_eq!(register.fit(&configured()).unwrap(), [""; 0]);
    // A section takes the second one's address; the IPv6 network is another.
    let mut changed = configured();
    changed.taken.push(prefix("10.99.0.4/32"));
    assert_eq!(register.fit(&changed).unwrap(), ["c2"]);
    assert_eq!(addresses(&register.clients()[1]), ["10.99.0.6", "fd99::3"]);
    changed.networks[1] = prefix("fd77::1/64");
    assert_eq!(register.fit(&changed).unwrap(), ["c1", "c2", "c3"]);
    drop(register);
    let kept: Vec<_> = state.open().clients().iter().map(addresses).collect();
    assert_eq!(kept, [["10.99.0.3", "fd77::2"], ["10.99.0.6", "fd77::3"], ["10.99.0.5", "fd77::4"]]);
}

#[test]
fn a_folder_that_vanished_cannot_be_written() {
    let state = State::new();
    let register = state.open();
    register.check_writable().unwrap();
    drop(state);
    let error = register.check_writable().unwrap_err().to_string();
    assert!(error.starts_with("cannot write in /"), "{error}");
}

#[test]
fn one_server_at_a_time_has_it() {
    let state = State::new();
    let register = state.open();
    assert!(matches!(Register::open(&state.key()), Err(StateError::Busy(_))));
    drop(register);
    state.open();
}

#[test]
fn what_cannot_be_written_is_not_believed() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    // A folder in the place of the file: no writing succeeds.
    std::fs::remove_file(state.file()).unwrap();
    std::fs::create_dir(state.file()).unwrap();
    let error = register.enrol(&shown(1, 1), &configured(), at(0)).unwrap_err();
    assert!(matches!(error, EnrolError::State(StateError::Io { .. })), "{error}");
    assert!(register.clients().is_empty());
    assert!(register.invitations().all(|one| one.is_open(at(0))));
}

#[test]
fn a_damaged_register_is_an_error_whatever_is_missing() {
    let state = State::new();
    let mut register = state.open();
    register.invite("home", &token(1), &configured(), at(0)).unwrap();
    register.enrol(&shown(1, 1), &configured(), at(0)).unwrap();
    drop(register);
    let whole = std::fs::read_to_string(state.file()).unwrap();
    let refused = |text: &str| {
        std::fs::write(state.file(), text).unwrap();
        let error = Register::open(&state.key()).map(drop).unwrap_err().to_string();
        assert!(error.contains("server.clients is damaged: "), "{error} for {text}");
        assert_eq!(std::fs::read_to_string(state.file()).unwrap(), text, "untouched");
    };
    // An empty one, as after a power cut, has nothing that could be lost.
    std::fs::write(state.file(), "").unwrap();
    assert!(Register::open(&state.key()).unwrap().clients().is_empty());
    // All but the last newline and brace.
    for length in 1..whole.len() - 2 {
        refused(&whole[..length]);
    }
    for (from, to) in [
        ("\"version\": 2", "\"version\": 3"),
        ("\"home\"", "\"ho me\""),
        ("\"10.99.0.3\"", "\"10.99.0.300\""),
        ("\"fd99::2\"", "\"10.99.0.3\""),
        ("\"clients\"", "\"klients\""),
        ("\"by\": \"", "\"by\": \"x"),
    ] {
        assert!(whole.contains(from), "{from} in {whole}");
        refused(&whole.replacen(from, to, 1));
    }
    std::fs::write(state.file(), &whole).unwrap();
    std::fs::write(state.folder.path().join(".server.clients.new"), "{\"version\"").unwrap();
    let mut register = state.open();
    assert_eq!(register.clients().len(), 1, "what a crash left beside it is of no meaning");
    register.invite("van", &token(2), &configured(), at(0)).unwrap();
    assert!(!state.folder.path().join(".server.clients.new").exists());
}
