//! `bondctl check FILE`: whether a file is valid, and its meaning.

use std::fmt::Write as _;
use std::path::Path;

use bonding_os::nat::Reach;
use bonding_proto::config::Prefix;
use bonding_proto::units::BitRate;

use super::Usage;
use crate::config::{
    self, Client, Kind, Loaded, Mtu, Security, Sending, Server, Status, capture_words, role_word,
};
use crate::engine::overhead::Overhead;
use crate::server::check_taken;
use crate::state::{keys, register};

/// Reads the file and describes it; also gives a line for each warning.
///
/// # Errors
/// The mistakes of the file, or that its kind cannot be told.
pub(super) fn check(path: &Path, kind: Option<Kind>) -> anyhow::Result<(String, Vec<String>)> {
    let text = config::read_file(path)?;
    let file = path.display().to_string();
    let kind = kind.or_else(|| Kind::of_text(&text)).or_else(|| kind_of_name(path));
    match kind {
        Some(Kind::Client) => {
            let loaded = config::client_from_text(&file, &text)?;
            Ok((describe_client(&loaded), loaded.warning_lines().collect()))
        }
        Some(Kind::Server) => {
            let loaded = config::server_from_text(&file, &text)?;
            let mut warnings: Vec<String> = loaded.warning_lines().collect();
            warnings.extend(beside_register(&loaded)?);
            Ok((describe_server(&loaded), warnings))
        }
        None => Err(Usage(format!(
            "{file}: neither its sections nor its name tell whether it is a client's or a server's; \
             say `--as client` or `--as server`"
        ))
        .into()),
    }
}

/// Whether a server can start with this file beside its register; a warning where that cannot be
/// told.
///
/// # Errors
/// When a `[[client]]` has the name or the key of a client that was invited.
pub(super) fn beside_register(loaded: &Loaded<Server>) -> anyhow::Result<Option<String>> {
    let file = &loaded.file;
    match register::enrolled(&loaded.config.private_key_file) {
        Ok(enrolled) => check_taken(&enrolled, &loaded.config.plan())
            .map(|()| None)
            .map_err(|error| Usage(format!("{file}: {error}")).into()),
        Err(error) => Ok(Some(format!(
            "{file}: warning: whether a client that was invited has the name or the key of a [[client]] is not \
             known: {error}"
        ))),
    }
}

fn kind_of_name(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    match (name.contains("client"), name.contains("server")) {
        (true, false) => Some(Kind::Client),
        (false, true) => Some(Kind::Server),
        (true, true) | (false, false) => None,
    }
}

/// Lines of `key value`, the keys in a column.
struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {key:<10} {value}");
    }

    fn sending(&mut self, sending: &Sending) {
        let policy = config::policy_word(sending.policy);
        self.add(
            "scheduler",
            &format!("{policy}, a heartbeat every {:?} on each link", sending.heartbeat_interval),
        );
    }

    fn status(&mut self, status: &Status) {
        self.add("status", &format!("{}, a report every {:?}", status.socket.display(), status.interval));
    }

    fn tunnel(&mut self, interface: &str, addresses: &[Prefix], mtu: Mtu, overhead: Overhead) {
        let automatic = if mtu == Mtu::Auto { " (auto, for links of 1500 bytes)" } else { "" };
        let addresses: Vec<String> = addresses.iter().copied().map(prefix).collect();
        let addresses =
            if addresses.is_empty() { "leased addresses".to_owned() } else { addresses.join(" and ") };
        self.add("tunnel", &format!("{interface}, {addresses}, MTU {}{automatic}", mtu.bytes(overhead)));
    }
}

fn describe_client(loaded: &Loaded<Client>) -> String {
    let config = &loaded.config;
    let mut lines = Lines(format!("{}: a client's configuration, valid\n", loaded.file));
    let hosts: Vec<String> = config.hosts.iter().map(ToString::to_string).collect();
    lines.add("server", &format!("{}, UDP {}", hosts.join(", else "), config.ports));
    if let Some(key) = config.public_key.filter(|_| config.sealed()) {
        lines.add("", &format!("known by its key {}", keys::show(&key)));
        lines.add("identity", &config.private_key_file.display().to_string());
    }
    lines.tunnel(&config.interface, &config.addresses, config.mtu, config.overhead());
    for (index, link) in config.links.iter().enumerate() {
        let mut from = Vec::new();
        from.extend(link.interface.as_ref().map(|interface| format!("on {interface}")));
        from.extend(link.source.map(|source| format!("from {source}")));
        if from.is_empty() {
            from.push("on the default route".to_owned());
        }
        let value = format!(
            "{} {}, to port {}, {}, priority {}, up {}, down {}, {}",
            link.name,
            from.join(" "),
            link.port,
            role_word(link.role),
            link.priority,
            rate(link.up),
            rate(link.down),
            match link.security {
                Security::Sealed => "sealed",
                Security::Plain => "plain",
            }
        );
        lines.add(&format!("link {index}"), &value);
    }
    if let Some(discovery) = &config.discovery {
        let names = |patterns: &Option<Vec<String>>| {
            patterns.as_ref().map_or_else(|| "the usual names".to_owned(), |list| list.join(", "))
        };
        let (include, exclude) = (names(&discovery.include), names(&discovery.exclude));
        let value = format!(
            "every interface with a route to the server, of {include}, but for {exclude}; priority {}",
            discovery.priority
        );
        lines.add("discovery", &value);
    }
    if let Some(capture) = &config.capture {
        let way = if capture.fallback { "directly while it is down" } else { "never beside it" };
        let (what, priority) = (capture_words(capture), capture.priority);
        lines.add("routing", &format!("the bond takes {what}, {way}; ip rules from {priority} on"));
    }
    lines.sending(&config.sending);
    lines.status(&config.status);
    lines.0
}

fn describe_server(loaded: &Loaded<Server>) -> String {
    let config = &loaded.config;
    let mut lines = Lines(format!("{}: a server's configuration, valid\n", loaded.file));
    lines.add("listen", &format!("{}, UDP {}", config.listen, config.ports));
    lines.add("identity", &config.private_key_file.display().to_string());
    lines.tunnel(&config.interface, &config.addresses, config.mtu, config.overhead());
    let nat = config.nat.as_ref().map_or_else(
        || "off, and no forwarding".to_owned(),
        |nat| format!("on, out of {}", nat.egress.as_deref().unwrap_or("whichever interface has the route")),
    );
    lines.add("nat", &nat);
    lines.add("clients", &format!("may reach {}", reach(config.reach)));
    for client in &config.clients {
        let prefixes: Vec<String> = client.prefixes().map(prefix).collect();
        let may = client.reach.map_or_else(String::new, |own| format!(", may reach {}", reach(own)));
        lines.add("client", &format!("{}, {}{may}", client.name, prefixes.join(", ")));
        for (index, link) in client.links.iter().enumerate() {
            let on = link.interface.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
            let from =
                link.remote.map_or_else(|| "sealed".to_owned(), |remote| format!("plain, from {remote}{on}"));
            let value = format!("{}, down {}, {from}", link.name, rate(link.down));
            lines.add(&format!("  link {index}"), &value);
        }
    }
    for client in &config.invited {
        let routes: Vec<String> = client.routes.iter().copied().map(prefix).collect();
        let routes = if routes.is_empty() { String::new() } else { format!(", {}", routes.join(", ")) };
        let may = client.reach.map_or_else(String::new, |own| format!(", may reach {}", reach(own)));
        lines.add("client", &format!("{}, which is invited{routes}{may}", client.name));
    }
    lines.sending(&config.sending);
    lines.status(&config.status);
    lines.0
}

fn reach(reach: Reach) -> String {
    let all = [
        (reach.internet, "the internet"),
        (reach.server, "the server"),
        (reach.private, "private networks"),
        (reach.clients, "each other"),
    ];
    let words: Vec<&str> =
        all.into_iter().filter_map(|(is_allowed, word)| is_allowed.then_some(word)).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn prefix(prefix: Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}

fn rate(rate: Option<BitRate>) -> String {
    rate.map_or_else(|| "unlimited".to_owned(), |rate| rate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn says_what_it_understood() {
        let text = "[server]\nhost = [\"vps.example.net\", \"203.0.113.7\"]\n[[link]]\nname = \"adsl\"\n\
                    interface = \"wg0\"\nmetered = true\nup = \"10mbit\"\nsecurity = \"plain\"\n";
        let (_folder, path) = written("x.toml", text);
        let (description, warnings) = check(&path, None).unwrap();
        let lines: Vec<&str> = description.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "  server     vps.example.net, else 203.0.113.7, UDP 9001-9005",
                "  tunnel     tun-bond, 192.168.50.1/24, MTU 1441 (auto, for links of 1500 bytes)",
                "  link 0     adsl on wg0, to port 9001, primary, priority 1, up 10.0 Mbit/s, down unlimited, plain",
                "  scheduler  adaptive, a heartbeat every 100ms on each link",
                "  status     /run/bonding/client.sock, a report every 5s",
            ]
        );
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains(": warning: [[link]] metered = true has no effect"), "{warnings:?}");
    }

    #[test]
    fn a_section_with_the_name_of_a_client_that_was_invited_is_no_other_client() {
        use bonding_proto::crypto::keys::{PrivateKey, Token};
        use bonding_proto::handshake::{Claim, InvitationKey};
        use register::{Configured, Register, Shown};

        let (folder, path) = written("server.toml", "");
        let key_file = folder.path().join("server.key");
        keys::load_or_make(&key_file).unwrap();
        let token = Token::from_bytes([3; 16]);
        let [client, server] = [1, 2].map(|byte| PrivateKey::from_bytes([byte; 32]).public());
        let key = InvitationKey::new(&token);
        let Claim::Invitation { id: invitation, proof } = key.claim(&server, &client) else { unreachable!() };
        let shown = Shown { client, server, invitation, proof };
        let now = std::time::SystemTime::now();
        let mut register = Register::open(&key_file).unwrap();
        register.invite("home", &token, &Configured::default(), now).unwrap();
        register.enrol(&shown, &Configured::default(), now).unwrap();
        let write = |client: &str| {
            let text = format!("[identity]\nprivate_key_file = \"{}\"\n{client}", key_file.display());
            std::fs::write(&path, text).unwrap();
            check(&path, None)
        };
        let other = keys::show(&server);
        let error = write(&format!(
            "[[client]]\nname = \"home\"\npublic_key = \"{other}\"\naddress = \"10.99.0.9\"\n"
        ));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("\"home\" has the name of a client that was invited"), "{error}");
        let (said, warnings) =
            write("[[client]]\nname = \"home\"\nallow = [\"private\"]\nroutes = \"192.168.7.0/24\"\n")
                .unwrap();
        assert!(
            said.contains("home, which is invited, 192.168.7.0/24, may reach private networks"),
            "{said}"
        );
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn the_kind_comes_from_sections_then_name_then_the_user() {
        let (_folder, path) = written("server.toml", "[tunnel]\n");
        assert!(check(&path, None).unwrap().0.contains("a server's configuration"));
        let (_folder, path) = written("x.toml", "[tunnel]\n");
        assert!(check(&path, None).unwrap_err().to_string().contains("--as client"));
        assert!(check(&path, Some(Kind::Server)).is_ok());
        let (_folder, path) = written("server.toml", "[server]\nhost = \"x\"\n[[link]]\n");
        let error = check(&path, None).unwrap_err().to_string();
        assert!(error.contains("[server] has no `public_key`"), "a client's in spite of its name: {error}");
    }
}
