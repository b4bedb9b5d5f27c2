//! `bonding-client join`: from an invitation to a client that only has to be started.
//!
//! ```text
//! line whole? ── client.toml free? ── key, made once ── enrolled by the server, over any line
//!    ── client.psk ── client.toml
//! ```
//! Every step can be repeated: the key is never overwritten, the same key may show the same
//! invitation again and gets the same pre-shared key, and a file that says the same already is left
//! as it is. The server is asked only after all local checks. What is shared with the server is
//! written down when the server has answered, so that an invitation that is refused takes nothing
//! from a client that has joined before.

mod configuration;
mod enrol;
mod lines;
mod links;

use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bonding_os::netlink::{NetlinkError, Requests};
use bonding_proto::config::Prefix;
use bonding_proto::handshake::InvitationKey;

use crate::invitation::{Invitation, InvitationError};
use crate::state::{self, StateError, keys, preshared, run};

use self::configuration::Existing;
use self::enrol::Asked;
use self::lines::Line;

pub use self::enrol::EnrolError;

/// The user's order.
#[derive(Debug)]
pub struct Order {
    /// The invitation as it was pasted.
    pub line: String,
    /// The file to write.
    pub file: PathBuf,
    /// Where the client's key is, or will be.
    pub private_key_file: PathBuf,
    /// Overwrite a file that says something else.
    pub force: bool,
}

/// The result.
#[derive(Debug)]
pub struct Joined {
    /// The client's addresses in the tunnel.
    pub addresses: Vec<Prefix>,
    /// `false`: the file said the same already.
    pub written: bool,
}

/// The reason why the client did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The line is not an invitation.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// There is another configuration.
    #[error("{} is there already and says something else: --force overwrites it, -c FILE writes another", .0.display())]
    Exists(PathBuf),
    /// A key or another file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces: {0}")]
    Interfaces(#[from] NetlinkError),
    /// The server did not enrol this client.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The kernel has no sockets or random numbers.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Enrols this machine and writes its configuration. `say` gets a line for a person about each step
/// that takes time.
///
/// # Errors
/// The reason, in one sentence for a person.
pub fn join(order: &Order, say: &mut dyn FnMut(&str)) -> Result<Joined, JoinError> {
    let invitation = Invitation::parse(&order.line)?;
    let existing = configuration::existing(&order.file, &invitation, &order.private_key_file);
    if existing == Existing::Other && !order.force {
        return Err(JoinError::Exists(order.file.clone()));
    }
    let (lines, unusual) = find_lines()?;
    let (identity, _) = keys::load_or_make(&order.private_key_file)?;
    let preshared_file = preshared::file(&order.private_key_file);
    preshared::load(&preshared_file, &invitation.server)?;
    let run = run::next(&run::file(&order.private_key_file), SystemTime::now());
    let welcome = enrol::enrol(&Asked { invitation: &invitation, identity: &identity, run }, &lines, say)?;
    let key = InvitationKey::new(&invitation.token);
    let shared = key.preshared(&invitation.server, &identity.public());
    preshared::store(&preshared_file, &invitation.server, &shared)?;
    // A next key was for the client that this key was before.
    keys::discard(&keys::next_file(&order.private_key_file))?;
    let text = configuration::text(&invitation, &order.private_key_file, &unusual);
    let written = existing != Existing::Same;
    if written {
        state::publish(&order.file, text.as_bytes())?;
    }
    Ok(Joined { addresses: welcome.addresses, written })
}

/// The lines over which the server is asked, and those that are none by their names.
fn find_lines() -> Result<(Vec<Line>, Vec<String>), JoinError> {
    let mut requests = Requests::open()?;
    let interfaces = requests.interfaces()?;
    let routes = requests.default_routes()?;
    Ok((lines::among(interfaces.values()), links::unusual(interfaces.values(), &routes)))
}

/// Whether an invitation's time is over, by this machine's clock, which may be wrong.
fn seems_expired(invitation: &Invitation) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now >= invitation.expires
}
