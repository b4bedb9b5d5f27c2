//! The register as JSON.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use bonding_proto::crypto::keys::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Client, Content, Invitation};
use crate::config;
use crate::state::StateError;
use crate::state::keys::{decode, encode};

/// 65,535 clients of some 300 bytes.
pub(super) const BYTES_MAX: u64 = 32 << 20;
/// The number of this layout.
const VERSION: u32 = 1;

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
    addresses: Vec<IpAddr>,
    enrolled: u64,
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
        addresses: client.addresses.clone(),
        enrolled: client.enrolled,
    });
    let invitations = content.invitations.iter().map(|(hash, one)| WrittenInvitation {
        name: one.name.clone(),
        token_hash: encode(hash),
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
    if version != VERSION {
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
        name: config::name(&written.name)?,
        addresses: written.addresses,
        enrolled: written.enrolled,
    })
}

fn invitation(written: WrittenInvitation) -> Result<([u8; 32], Invitation), String> {
    let used = written.used.map(|used| Ok::<_, String>((PublicKey(key(&used.by)?), used.at))).transpose()?;
    let name = config::name(&written.name)?;
    Ok((key(&written.token_hash)?, Invitation { name, expires: written.expires, used }))
}

fn key(text: &str) -> Result<[u8; 32], String> {
    decode(text).ok_or_else(|| format!("{text:?} is not 32 bytes in base64"))
}
