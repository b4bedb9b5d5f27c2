//! client.toml and server.toml: read, checked as a whole, turned into typed values.
//!
//! Contract: a file is either understood completely or not at all. Every mistake of a file is
//! reported at once, with file, line, column and what to write instead ([`Problems`]); an unknown
//! key is a mistake. A setting that is valid but that this version does not have is a warning
//! ([`Loaded::warnings`]).
//!
//! The values stay close to the words of the file. It deliberately does not know sockets, devices
//! or sessions: names are not looked up, interfaces need not exist.
//!
//! Source: the TOML specification; the `toml` crate gives a document with the place of every value.

mod client;
mod common;
mod plan;
mod problem;
mod section;
mod server;
mod value;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use bonding_proto::config::Prefix;
use toml::de::DeTable;

pub use self::client::{Client, Link, capture_words, role_word};
pub use self::common::{Mtu, Sending, Status, policy_word};
pub use self::problem::{Problem, Problems};
pub use self::server::{Invited, Nat, Peer, PeerLink, Server};
pub use self::value::{Host, Ports};
pub use bonding_proto::config::Security;

pub(crate) use self::value::{host, interface, name, ports};

use self::problem::Findings;
use self::section::Section;

/// At most this many links in a session.
pub const LINKS_MAX: usize = 32;

/// The address of a client on plain links that has no `address`.
pub const PLAIN_CLIENT_ADDRESS: Prefix =
    Prefix { address: IpAddr::V4(Ipv4Addr::new(192, 168, 50, 1)), length: 24 };

/// The largest file that is read. Chosen: a configuration has some kB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Syntax errors that are reported. Chosen: a syntax error often causes others behind it.
const SYNTAX_ERRORS_MAX: usize = 3;

/// A valid configuration, and its warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// The file as the user named it; empty for defaults.
    pub file: String,
    /// Settings that have no effect, or not the expected one.
    pub warnings: Vec<Problem>,
}

impl<T> Loaded<T> {
    /// The warnings, each as `FILE:LINE:COLUMN: warning: MESSAGE`.
    pub fn warning_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.warnings.iter().map(|warning| {
            format!("{}:{}:{}: warning: {}", self.file, warning.line, warning.column, warning.message)
        })
    }
}

/// Where a client's file is by default.
pub const CLIENT_FILE: &str = "/etc/bonding/client.toml";
/// Where a server's file is by default.
pub const SERVER_FILE: &str = "/etc/bonding/server.toml";
/// Where a client's control socket is by default.
pub const CLIENT_SOCKET: &str = "/run/bonding/client.sock";
/// Where a server's control socket is by default.
pub const SERVER_SOCKET: &str = "/run/bonding/server.sock";

/// Where a client's private key is by default; the state directory is its folder.
pub const CLIENT_KEY: &str = "/var/lib/bonding/client.key";
/// Where a server's private key is by default.
pub const SERVER_KEY: &str = "/var/lib/bonding/server.key";

/// The file in which a process writes down its changes to the machine. It stands beside the control
/// socket, since both live as long as the process.
pub fn state_file(socket: &Path) -> PathBuf {
    socket.with_extension("state")
}

/// Reads client.toml.
///
/// # Errors
/// Every mistake of the file, or why it cannot be read.
pub fn load_client(path: &Path) -> Result<Loaded<Client>, Problems> {
    let text = read_file(path).map_err(|mut problems| {
        if !path.exists()
            && let Some(problem) = problems.list.first_mut()
        {
            problem.message.push_str("; `bonding-client join 'bond://…'` writes it");
        }
        problems
    })?;
    client_from_text(&path.display().to_string(), &text)
}

/// Reads server.toml.
///
/// # Errors
/// As [`load_client`].
pub fn load_server(path: &Path) -> Result<Loaded<Server>, Problems> {
    server_from_text(&path.display().to_string(), &read_file(path)?)
}

/// The configuration of a server without a file.
pub fn server_defaults() -> Server {
    let findings = Findings::new("");
    server::read(Section::document(&findings, &DeTable::new()))
}

/// Reads a client's configuration from the text of a file called `file`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn client_from_text(file: &str, text: &str) -> Result<Loaded<Client>, Problems> {
    from_text(file, text, client::read)
}

/// Reads a server's configuration from the text of a file called `file`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn server_from_text(file: &str, text: &str) -> Result<Loaded<Server>, Problems> {
    from_text(file, text, |document| Some(server::read(document)))
}

/// The kind of a file, told by the sections that only one kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// client.toml.
    Client,
    /// server.toml.
    Server,
}

impl Kind {
    /// The kind of a text; `None` when it has sections of neither.
    pub fn of_text(text: &str) -> Option<Self> {
        let (document, _) = DeTable::parse_recoverable(text);
        let document = document.get_ref();
        let count = |keys: &[&str]| keys.iter().filter(|key| document.contains_key(**key)).count();
        let client = count(&["server", "link", "discovery", "routing"]);
        let server = count(&["listen", "nat", "client"]);
        match client.cmp(&server) {
            std::cmp::Ordering::Greater => Some(Self::Client),
            std::cmp::Ordering::Less => Some(Self::Server),
            std::cmp::Ordering::Equal => None,
        }
    }
}

/// The text of a configuration file.
///
/// # Errors
/// Why it cannot be read: absent, not permitted, too large, not text.
pub fn read_file(path: &Path) -> Result<String, Problems> {
    let file = path.display().to_string();
    let fail = |why: String| Problems::whole_file(&file, why);
    let unreadable = |error: std::io::Error| fail(format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let open = std::fs::File::open(path).map_err(unreadable)?;
    open.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX_BYTES) {
        return Err(fail(format!("is larger than {FILE_MAX_BYTES} bytes; this is not a configuration")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        let message = "is not UTF-8 text from here on".to_owned();
        Problems { file: file.clone(), list: vec![Problem { line, column: 1, message }] }
    })
}

fn from_text<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(Section<'_, '_>) -> Option<T>,
) -> Result<Loaded<T>, Problems> {
    let findings = Findings::new(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in syntax.iter().take(SYNTAX_ERRORS_MAX) {
        let at = error.span().map_or(0, |span| span.start);
        findings.error(at, format!("not valid TOML: {}", error.message()));
    }
    // The remains of a broken document would give misleading errors.
    let config =
        if syntax.is_empty() { read(Section::document(&findings, document.get_ref())) } else { None };
    let (errors, warnings) = findings.into_parts();
    match config {
        Some(config) if errors.is_empty() => Ok(Loaded { config, file: file.to_owned(), warnings }),
        Some(_) | None => Err(Problems { file: file.to_owned(), list: errors }),
    }
}

#[cfg(test)]
mod tests;
