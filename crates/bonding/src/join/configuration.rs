//! The client.toml that an invitation makes.

use std::fmt::Write as _;
use std::path::Path;

use crate::client::discovery::INCLUDE;
use crate::config::{self, Client};
use crate::invitation::Invitation;
use crate::state::keys;

/// The content of the file before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Nothing.
    Nothing,
    /// A configuration for this server and this key; all else in it is its owner's choice.
    Same,
    /// Something else.
    Other,
}

/// Compares the file with an invitation.
pub(super) fn existing(file: &Path, invitation: &Invitation, private_key_file: &Path) -> Existing {
    if std::fs::symlink_metadata(file).is_err() {
        return Existing::Nothing;
    }
    let same = |client: &Client| {
        client.public_key == Some(invitation.server)
            && client.hosts == invitation.hosts
            && client.ports == invitation.ports
            && client.private_key_file == private_key_file
            // It would take the place of the key that joining gives.
            && client.preshared_key_file.is_none()
    };
    match config::load_client(file) {
        Ok(loaded) if same(&loaded.config) => Existing::Same,
        Ok(_) | Err(_) => Existing::Other,
    }
}

/// The text of the file. `unusual`: interfaces that are lines, though not by their names.
pub(super) fn text(invitation: &Invitation, private_key_file: &Path, unusual: &[String]) -> String {
    let hosts: Vec<String> = invitation.hosts.iter().map(|host| quoted(&host.to_string())).collect();
    let mut text = format!(
        "# Written by `bonding-client join`; `bonding-client --check` says what is wrong with it, line by line.\n\
         \n\
         [server]\n\
         host = [{}]\n\
         public_key = {}\n\
         ports = {}\n",
        hosts.join(", "),
        quoted(&keys::show(&invitation.server)),
        quoted(&invitation.ports.to_string()),
    );
    if private_key_file != Path::new(config::CLIENT_KEY) {
        append(
            &mut text,
            format_args!(
                "\n[identity]\nprivate_key_file = {}\n",
                quoted(&private_key_file.display().to_string())
            ),
        );
    }
    text.push_str(DISCOVERY);
    if !unusual.is_empty() {
        let names = INCLUDE.into_iter().chain(unusual.iter().map(String::as_str)).map(quoted);
        let names = names.collect::<Vec<_>>().join(", ");
        append(&mut text, format_args!("include = [{names}]\n"));
    }
    text.push_str(LINK_HINTS);
    text.push_str(ROUTING_HINTS);
    text
}

const ROUTING_HINTS: &str = "\n[routing]\n\
    # What goes into the bond: \"none\": what your routes lead there; \"lan\": what comes in by interfaces that are no links;\n\
    # \"all\": what this machine sends, too.\n\
    #capture = \"lan\"\n";
const DISCOVERY: &str = "\n[discovery]\n\
    # Links come and go by themselves: interfaces with a route to the server, and no others. `bondctl status` says why an\n\
    # interface is not used. `exclude = [\"eth9\"]` leaves one out.\n\
    enabled = true\n";
const LINK_HINTS: &str = "\n\
    # A section of its own says more of an interface. `up` and `down` are what the line carries, a few percent below what a\n\
    # speed test of that line alone shows: without them a link is filled until its queue shows. The link with the lowest\n\
    # `priority` is preferred.\n\
    #[[link]]\n\
    #interface = \"eth1\"\n\
    #priority = 1\n\
    #up = \"10mbit\"\n\
    #down = \"50mbit\"\n";

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use bonding_proto::crypto::keys::{PublicKey, Token};

    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            hosts: ["vps.example.net", "2001:db8::7"].map(|host| config::host(host).unwrap()).to_vec(),
            ports: config::ports("4001-4005").unwrap(),
            server: PublicKey([7; 32]),
            token: Token::from_bytes([9; 16]),
            expires: 0,
        }
    }

    #[test]
    fn the_file_is_valid_and_says_what_the_invitation_says() {
        let key = Path::new("/var/lib/\"odd\" \\ folder/client.key");
        let unusual = ["line".to_owned(), "odd\"name".to_owned()];
        let text = text(&invitation(), key, &unusual);
        let config =
            config::client_from_text("client.toml", &text).unwrap_or_else(|p| panic!("{p}\n{text}")).config;
        assert_eq!(config.hosts, invitation().hosts);
        assert_eq!(config.ports, invitation().ports);
        assert_eq!(config.public_key, Some(PublicKey([7; 32])));
        assert_eq!(config.private_key_file, key);
        assert_eq!(config.addresses, [], "leased");
        let include = config.discovery.unwrap().include.unwrap();
        assert_eq!((config.links.len(), &include[8..]), (0, &unusual[..]));
        assert!(INCLUDE.iter().all(|usual| include.iter().any(|name| name == usual)));
        assert!(!text.contains("CQkJ"), "the token has no place in it");
    }

    #[test]
    fn links_are_found_by_themselves() {
        let text = text(&invitation(), Path::new(config::CLIENT_KEY), &[]);
        let config = config::client_from_text("client.toml", &text).unwrap().config;
        assert_eq!((config.links.len(), config.discovery.unwrap().include), (0, None));
        assert!(!text.contains("[identity]"), "{text}");
    }

    #[test]
    fn a_file_of_the_same_server_and_key_is_the_same_whatever_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        let key = Path::new(config::CLIENT_KEY);
        let check = || existing(&file, &invitation(), key);
        assert_eq!(check(), Existing::Nothing);
        std::fs::write(&file, text(&invitation(), key, &["eth0".to_owned()])).unwrap();
        assert_eq!(check(), Existing::Same);
        let edited = std::fs::read_to_string(&file).unwrap() + "\n[[link]]\ninterface = \"eth9\"\n";
        std::fs::write(&file, edited).unwrap();
        assert_eq!(check(), Existing::Same);
        assert_eq!(existing(&file, &invitation(), Path::new("/elsewhere")), Existing::Other);
        let shared = std::fs::read_to_string(&file).unwrap();
        let shared = shared.replacen("ports =", "preshared_key_file = \"/run/psk\"\nports =", 1);
        std::fs::write(&file, shared).unwrap();
        assert_eq!(check(), Existing::Other, "a key of its own");
        let other = Invitation { server: PublicKey([8; 32]), ..invitation() };
        assert_eq!(existing(&file, &other, key), Existing::Other);
        std::fs::write(&file, "[server]\nhost = 5\n").unwrap();
        assert_eq!(check(), Existing::Other);
    }
}
