//! The register as JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use bonding_proto::crypto::keys::{PresharedKey, PublicKey};
use bonding_proto::handshake::{InvitationId, InvitationKey};
use serde::{Deserialize, Serialize};

use super::{Client, Content, Invitation};
use crate::config;
use crate::state::StateError;
use crate::state::keys::{decode, encode};

/// 65,535 clients of some 500 bytes, and as many invitations of some 400.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// The number of this layout. The one before it had neither pre-shared keys nor times at which keys
/// expire, and its clients go on without.
const VERSION: u32 = 2;
const OLDEST_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    clients: Vec<WrittenClient>,
    invitations: Vec<WrittenInvitation>,
}

/// Read before the rest, since another version has another layout.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClient {
    name: String,
    public_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preshared_key: Option<String>,
    addresses: Vec<IpAddr>,
    enrolled: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInvitation {
    name: String,
    token_hash: String,
    expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<WrittenUse>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUse {
    by: String,
    at: u64,
}

pub(super) fn damaged(path: &Path, why: String) -> StateError {
    let remedy = "restore it from a copy; without it every client must be invited again";
    StateError::Damaged { path: path.to_owned(), why, remedy }
}

pub(super) fn text(content: &Content) -> Vec<u8> {
    let clients = content.clients.iter().map(|client| WrittenClient {
        name: client.name.clone(),
        public_key: encode(&client.public_key.0),
        preshared_key: client.preshared.as_ref().map(|key| encode(key.bytes())),
        addresses: client.addresses.clone(),
        enrolled: client.enrolled,
        expires: client.expires,
    });
    let invitations = content.invitations.values().map(|one| WrittenInvitation {
        name: one.name.clone(),
        token_hash: encode(one.key.bytes()),
        expires: one.expires,
        used: one.used.map(|(by, at)| WrittenUse { by: encode(&by.0), at }),
    });
    let written =
        Written { version: VERSION, clients: clients.collect(), invitations: invitations.collect() };
    let mut text = serde_json::to_vec_pretty(&written).expect("strings and numbers are always JSON");
    text.push(b'\n');
    text
}

pub(super) fn parse(bytes: &[u8]) -> Result<Content, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(format!("another version of this program wrote it (layout {version})"));
    }
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let clients = written.clients.into_iter().map(client).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for client in &clients {
        if !names.insert(&client.name) || !keys.insert(client.public_key) {
            return Err(format!("client \"{}\" occurs twice", client.name));
        }
        if let Some(twice) = client.addresses.iter().find(|address| !addresses.insert(**address)) {
            return Err(format!("{twice} belongs to two clients"));
        }
    }
    let invitations = written.invitations.into_iter().map(invitation).collect::<Result<_, _>>()?;
    Ok(Content { clients, invitations })
}

fn client(written: WrittenClient) -> Result<Client, String> {
    Ok(Client {
        public_key: PublicKey(key(&written.public_key)?),
        preshared: written.preshared_key.as_deref().map(key).transpose()?.map(PresharedKey::from_bytes),
        name: config::name(&written.name)?,
        addresses: written.addresses,
        enrolled: written.enrolled,
        expires: written.expires,
    })
}

fn invitation(written: WrittenInvitation) -> Result<(InvitationId, Invitation), String> {
    let used = written.used.map(|used| Ok::<_, String>((PublicKey(key(&used.by)?), used.at))).transpose()?;
    let (name, key) = (config::name(&written.name)?, InvitationKey::from_bytes(key(&written.token_hash)?));
    Ok((key.id(), Invitation { name, key, expires: written.expires, used }))
}

/// The text may be a secret: the error does not show it.
fn key(text: &str) -> Result<[u8; 32], String> {
    decode(text).ok_or_else(|| "a key is not 32 bytes in base64".to_owned())
}
