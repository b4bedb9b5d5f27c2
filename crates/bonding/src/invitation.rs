//! The line that invites a client: `bond://HOST[,HOST…]:PORTS/SECRET`.
//!
//! It has the server's hosts and ports, its key, and the token, which the client proves to have:
//! the first client that does is enrolled. SECRET is base64 for URLs, without padding, of
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 1 | version: 2; in version 1 the token itself was sent |
//! | 32 | the server's public key |
//! | 16 | the token |
//! | 8 | when it expires, in seconds since 1970, the largest byte first |
//! | 4 | checksum: the first bytes of BLAKE2s-256 over all before it, from the scheme on |
//!
//! The checksum finds a line that was cut or mistyped before a message is sent. It does not protect
//! the line; the token does. It is the last 4 bytes in every version. White space, which terminals
//! and mail put into long lines, is ignored.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::{Blake2s256, Digest as _};
use bonding_proto::crypto::keys::{PublicKey, Token};

use crate::config::{self, Host, Ports};

const SCHEME: &str = "bond://";
/// The version of the line, its first byte.
const VERSION: u8 = 2;
/// Chosen: a wrong line passes once in four thousand million.
const CHECKSUM_BYTES: usize = 4;
/// The longest text that is read. Chosen: a line has a few hundred characters.
const CHARS_MAX: usize = 4_096;
/// Hosts at most. Chosen: more names than a server has.
pub const HOSTS_MAX: usize = 8;

/// The content of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The server, in order of preference: from 1 to [`HOSTS_MAX`].
    pub hosts: Vec<Host>,
    /// Its ports.
    pub ports: Ports,
    /// Its key.
    pub server: PublicKey,
    /// The secret that enrols a client, once.
    pub token: Token,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

/// The reason why a text is not an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// The text is something else.
    #[error(
        "this is no invitation: an invitation begins with bond://, as `bondctl invite NAME` prints it on the server"
    )]
    Other,
    /// Something is missing or mistyped.
    #[error("the invitation is damaged: copy the whole line")]
    Damaged,
    /// Of another version.
    #[error(
        "the invitation is of version {0}, which this program does not know: install the server's version here"
    )]
    Version(u8),
}

impl Invitation {
    /// Reads a line.
    ///
    /// # Errors
    /// The mistake.
    pub fn parse(line: &str) -> Result<Self, InvitationError> {
        let line: String = line.chars().filter(|c| !c.is_whitespace()).take(CHARS_MAX).collect();
        let rest = line.strip_prefix(SCHEME).ok_or(InvitationError::Other)?;
        let (place, secret) = rest.split_once('/').ok_or(InvitationError::Damaged)?;
        let bytes = URL_SAFE_NO_PAD.decode(secret).map_err(|_| InvitationError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvitationError::Damaged)?;
        let prefix = line.strip_suffix(secret).ok_or(InvitationError::Damaged)?;
        if checksum(prefix, body) != *sum {
            return Err(InvitationError::Damaged);
        }
        let version = *body.first().ok_or(InvitationError::Damaged)?;
        if version != VERSION {
            return Err(InvitationError::Version(version));
        }
        let (hosts, ports) = parse_place(place).ok_or(InvitationError::Damaged)?;
        let (_, body) = body.split_at(1);
        let (server, body) = body.split_first_chunk().ok_or(InvitationError::Damaged)?;
        let (token, expires) = body.split_first_chunk().ok_or(InvitationError::Damaged)?;
        let expires = expires.try_into().map_err(|_| InvitationError::Damaged)?;
        Ok(Self {
            hosts,
            ports,
            server: PublicKey(*server),
            token: Token::from_bytes(*token),
            expires: u64::from_be_bytes(expires),
        })
    }

    fn body(&self) -> Vec<u8> {
        let expires = self.expires.to_be_bytes();
        [&[VERSION][..], &self.server.0, self.token.bytes(), &expires].concat()
    }
}

impl fmt::Display for Invitation {
    /// The line, without a newline. It holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(show_host).collect();
        let prefix = format!("{SCHEME}{}:{}/", hosts.join(","), self.ports);
        let mut body = self.body();
        let sum = checksum(&prefix, &body);
        body.extend_from_slice(&sum);
        write!(f, "{prefix}{}", URL_SAFE_NO_PAD.encode(body))
    }
}

/// `HOST[,HOST…]:PORTS`, IPv6 addresses in brackets.
fn parse_place(place: &str) -> Option<(Vec<Host>, Ports)> {
    let (hosts, ports) = place.rsplit_once(':')?;
    let hosts = hosts.split(',').map(|host| config::host(host).ok()).collect::<Option<Vec<_>>>()?;
    (1..=HOSTS_MAX).contains(&hosts.len()).then_some(())?;
    Some((hosts, config::ports(ports).ok()?))
}

fn show_host(host: &Host) -> String {
    match host {
        Host::Address(address) if address.is_ipv6() => format!("[{address}]"),
        Host::Address(_) | Host::Name(_) => host.to_string(),
    }
}

fn checksum(prefix: &str, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Blake2s256::new().chain_update(prefix).chain_update(body).finalize();
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            hosts: ["vps.example.net", "203.0.113.7", "2001:db8::7"]
                .map(|h| config::host(h).unwrap())
                .to_vec(),
            ports: config::ports("9001-9005").unwrap(),
            server: PublicKey(std::array::from_fn(|at| u8::try_from(at).unwrap())),
            token: Token::from_bytes([0xa5; 16]),
            expires: 1_763_852_800,
        }
    }

    /// The secret was made with Python's hashlib and base64.
    #[test]
    fn a_line_says_where_and_who() {
        let line = invitation().to_string();
        assert_eq!(
            line,
            "bond://vps.example.net,203.0.113.7,[2001:db8::7]:9001-9005/\
             AgABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fpaWlpaWlpaWlpaWlpaWlpQAAAABpIkIAcbGe1w"
        );
        assert_eq!(Invitation::parse(&line), Ok(invitation()));
        assert_eq!(Invitation::parse(&format!("  {}\n {}\r\n", &line[..80], &line[80..])), Ok(invitation()));
        assert!(!format!("{:?}", invitation()).contains("165"), "the token is not shown");
    }

    #[test]
    fn malformed_invitations_give_distinct_errors() {
        for text in ["", "home", "http://vps.example.net", "bond:/vps", &"x".repeat(1 << 20)] {
            assert_eq!(Invitation::parse(text), Err(InvitationError::Other), "{text:.20}");
        }
        for text in ["bond://", "bond://vps.example.net:9001", "bond://vps/", "bond:///", "bond://v:1/AAAA"] {
            assert_eq!(Invitation::parse(text), Err(InvitationError::Damaged), "{text}");
        }
        assert_eq!(InvitationError::Damaged.to_string(), "the invitation is damaged: copy the whole line");
    }

    /// With a right checksum, as another version would make it.
    fn sealed_by(prefix: &str, body: &[u8]) -> String {
        let bytes = [body, &checksum(prefix, body)].concat();
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn other_versions_and_places_that_cannot_be_are_refused() {
        let body = invitation().body();
        for version in [1, 3] {
            let other = [&[version][..], &[0; 56]].concat();
            let error = Invitation::parse(&sealed_by("bond://v:1/", &other)).unwrap_err();
            assert_eq!(error, InvitationError::Version(version));
            assert!(error.to_string().contains("install the server's version here"), "{error}");
        }
        for prefix in [
            "bond://:9001/",
            "bond://v/",
            "bond://v:0/",
            "bond://v w:1/",
            "bond://a,,b:1/",
            "bond://0.0.0.0:1/",
        ] {
            assert_eq!(
                Invitation::parse(&sealed_by(prefix, &body)),
                Err(InvitationError::Damaged),
                "{prefix}"
            );
        }
        let many = format!("bond://{}:1/", ["v"; HOSTS_MAX + 1].join(","));
        assert_eq!(Invitation::parse(&sealed_by(&many, &body)), Err(InvitationError::Damaged));
        let short = body.get(..56).unwrap();
        assert_eq!(Invitation::parse(&sealed_by("bond://v:1/", short)), Err(InvitationError::Damaged));
        assert!(Invitation::parse(&sealed_by("bond://v:1/", &body)).is_ok());
    }

    fn any_host() -> impl Strategy<Value = Host> {
        prop_oneof![
            "[a-z][a-z0-9]{0,9}(\\.[a-z][a-z0-9]{0,9}){0,2}".prop_map(Host::Name),
            (1_u32..0xdfff_ffff).prop_map(|bits| Host::Address(std::net::Ipv4Addr::from(bits).into())),
            (1_u128..1 << 120).prop_map(|bits| Host::Address(std::net::Ipv6Addr::from(bits).into())),
        ]
    }

    prop_compose! {
        fn any_invitation()(
            hosts in prop::collection::vec(any_host(), 1..=HOSTS_MAX),
            first in 1_u16..60_000,
            count in 0_u16..32,
            server in any::<[u8; 32]>(),
            token in any::<[u8; 16]>(),
            expires in any::<u64>(),
        ) -> Invitation {
            Invitation {
                hosts,
                ports: config::ports(&format!("{first}-{}", first + count)).unwrap(),
                server: PublicKey(server),
                token: Token::from_bytes(token),
                expires,
            }
        }
    }

    proptest! {
        #[test]
        fn every_line_is_read_as_it_was_meant(invitation in any_invitation()) {
            prop_assert_eq!(Invitation::parse(&invitation.to_string()), Ok(invitation));
        }

        #[test]
        fn every_cut_is_noticed(invitation in any_invitation(), at in any::<prop::sample::Index>()) {
            let line = invitation.to_string();
            let cut = &line[..at.index(line.len())];
            prop_assert!(Invitation::parse(cut).is_err());
        }

        #[test]
        fn every_mistyped_character_is_noticed(
            invitation in any_invitation(),
            at in any::<prop::sample::Index>(),
            character in "[!-~]",
        ) {
            let mut line = invitation.to_string();
            let at = at.index(line.len());
            prop_assume!(line[at..=at] != character);
            line.replace_range(at..=at, &character);
            prop_assert!(Invitation::parse(&line).is_err(), "{}", line);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), secret in "[A-Za-z0-9_-]{0,120}") {
            prop_assert!(Invitation::parse(&text).is_err());
            let line = format!("bond://vps:9001/{secret}");
            prop_assert!(Invitation::parse(&line).is_err());
        }
    }
}
