//! The register of a server: its enrolled clients beside the `[[client]]` sections of its
//! configuration, and its invitations.
//!
//! An invitation is a secret of 16 bytes for one name, valid once and for [`VALID`]. The register
//! keeps its hash, which is as good as the secret: it gives the pre-shared key of the client that
//! uses it. The key that shows it first becomes the client of that name and gets an address in each
//! of the tunnel's networks, which it keeps. The same key may show it again, since an answer can
//! get lost; any other key is told that the invitation was used. The register remembers an
//! invitation for some time after it was used or has expired, so that a late client is told the
//! reason.
//!
//! A client's key may be replaced by another, and may expire. A client without a pre-shared key
//! enrolled before there were any.
//!
//! Contract: a change is on the disk before it takes effect. A token that changes nothing costs one
//! look-up by its id, however large the register is: strangers can show any number of tokens. The
//! configuration comes first: its names, addresses and routes are never leased. If the
//! configuration takes the address of an enrolled client, that client gets another one.
//!
//! It deliberately does not know sessions: its caller tells the endpoint of changes.

mod file;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bonding_proto::config::Prefix;
use bonding_proto::crypto::keys::{PresharedKey, PublicKey, Token};
use bonding_proto::handshake::{InvitationId, InvitationKey};

use super::lease;
use super::{StateError, atomic, prepare_folder};

/// How long an invitation is valid. Chosen: a day to carry it to the client's machine.
pub const VALID: Duration = Duration::from_secs(24 * 3_600);
/// How long the register remembers it afterwards. Chosen: a week in which a late client learns the
/// reason.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Sessions are numbered with 16 bits.
const CLIENTS_MAX: usize = 65_535;
/// Open invitations at most. Chosen: far more than a person hands out in a day.
const INVITATIONS_MAX: usize = 1_000;

/// The register's file, beside the server's key.
pub fn file(private_key: &Path) -> PathBuf {
    private_key.with_extension("clients")
}

/// A client that an invitation has enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Unique among all clients.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// What it shares with the server since it used its invitation.
    pub preshared: Option<PresharedKey>,
    /// Its own in the tunnel.
    pub addresses: Vec<IpAddr>,
    /// When it enrolled, in seconds since 1970.
    pub enrolled: u64,
    /// When its key expires, in seconds since 1970; `None`: never.
    pub expires: Option<u64>,
}

impl Client {
    fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= seconds(now))
    }
}

/// A client that shows an invitation to a server.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// The client's key.
    pub client: PublicKey,
    /// The server's key.
    pub server: PublicKey,
    /// The invitation.
    pub invitation: InvitationId,
    /// The proof that the client has the invitation's token.
    pub proof: [u8; 16],
}

/// An invitation, used or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The name of its client.
    pub name: String,
    /// The hash of its token.
    key: InvitationKey,
    /// Seconds since 1970.
    pub expires: u64,
    /// The key that used it, and when, in seconds since 1970.
    pub used: Option<(PublicKey, u64)>,
}

impl Invitation {
    /// Whether it can still be used.
    pub fn is_open(&self, now: SystemTime) -> bool {
        self.used.is_none() && seconds(now) < self.expires
    }

    fn is_remembered(&self, now: u64) -> bool {
        let end = self.used.map_or(self.expires, |(_, at)| at);
        now < end.saturating_add(REMEMBERED.as_secs())
    }
}

/// The configuration's part: networks to lease from, and addresses that are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// The server's addresses in the tunnel with the networks to lease from.
    pub networks: Vec<Prefix>,
    /// The `[[client]]` sections' addresses and routes.
    pub taken: Vec<Prefix>,
    /// Their names.
    pub names: Vec<String>,
}

/// The reason why a name cannot be invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// Enrolled or configured.
    #[error("there is a client \"{0}\" already; `bondctl revoke {0}` removes it, or choose another name")]
    Enrolled(String),
    /// In the configuration.
    #[error("\"{0}\" is a [[client]] of the server's configuration; choose another name")]
    Configured(String),
    /// Too many.
    #[error("{INVITATIONS_MAX} invitations are open already")]
    TooMany,
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The reason why a key is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No invitation has this token, or it was too long ago; or no client has this key.
    #[error("the invitation or the key is not known")]
    Unknown,
    /// Another key used it, or its client was revoked since.
    #[error("the invitation \"{0}\" was used already")]
    Used(String),
    /// Too late.
    #[error("the invitation \"{0}\" has expired")]
    Expired(String),
    /// The key is known and no longer valid.
    #[error("the key of \"{0}\" has expired; `bondctl expire {0} never` makes it valid again")]
    KeyExpired(String),
    /// The key stands in the configuration.
    #[error("\"{0}\" wants a new key, but is a [[client]] of the configuration: change its public_key there")]
    Configured(String),
    /// Another client has the key.
    #[error("\"{0}\" wants the key of another client")]
    KeyTaken(String),
    /// The key is a client's, which shares another pre-shared key with the server.
    #[error(
        "the key is that of the client \"{0}\" already; `bondctl revoke {0}` first if it is to join anew"
    )]
    Enrolled(String),
    /// The configuration has taken the name meanwhile.
    #[error("the invitation \"{0}\" has the name of a [[client]] of the configuration")]
    NameTaken(String),
    /// All addresses of a network are taken.
    #[error("no address is free in {}/{}: give [tunnel] a larger network, or revoke clients", .0.address, .0.length)]
    Exhausted(Prefix),
    /// Too many clients.
    #[error("there are {CLIENTS_MAX} clients already")]
    TooMany,
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The reason why a name cannot be revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// Neither enrolled nor invited.
    #[error("there is no client \"{0}\"; `bondctl clients` lists them")]
    Unknown(String),
    /// In the configuration.
    #[error(
        "\"{0}\" is a [[client]] of the server's configuration: remove its section and start the server again"
    )]
    Configured(String),
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The reason why a client's key cannot be made to expire.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// Not enrolled.
    #[error("there is no client \"{0}\"; `bondctl clients` lists them")]
    Unknown(String),
    /// In the configuration.
    #[error(
        "\"{0}\" is a [[client]] of the server's configuration, where keys do not expire: remove its section"
    )]
    Configured(String),
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The clients that are enrolled at the server whose private key is `private_key`, as far as its
/// register tells. It may be in use.
///
/// # Errors
/// When the register is damaged or cannot be read.
pub fn enrolled(private_key: &Path) -> Result<Vec<Client>, StateError> {
    Ok(read(&file(private_key))?.clients)
}

fn read(path: &Path) -> Result<Content, StateError> {
    let content = atomic::read(path, file::BYTES_MAX).map_err(StateError::io("read", path))?;
    match content {
        // As a power cut may leave it: there is nothing left that could be lost.
        Some(bytes) if bytes.is_empty() => {
            tracing::warn!(
                file = %path.display(),
                "the register of clients is empty: clients that were invited must be invited again"
            );
            Ok(Content::default())
        }
        Some(bytes) => file::parse(&bytes).map_err(|why| file::damaged(path, why)),
        None => Ok(Content::default()),
    }
}

/// The register, and its file.
#[derive(Debug)]
pub struct Register {
    path: PathBuf,
    content: Content,
    /// Locked for as long as this lives: two servers would overwrite each other's changes.
    _lock: File,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    clients: Vec<Client>,
    invitations: BTreeMap<InvitationId, Invitation>,
}

impl Register {
    /// Reads the register of the server whose private key is `private_key`; none yet is an empty
    /// one.
    ///
    /// # Errors
    /// When it is damaged, cannot be read, or another server uses it.
    pub fn open(private_key: &Path) -> Result<Self, StateError> {
        let path = file(private_key);
        if let Err(error) = prepare_folder(&path) {
            tracing::warn!(%error, "invitations and enrolments cannot be written down");
        }
        let lock = File::open(private_key).map_err(StateError::io("read", private_key))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StateError::Busy(private_key.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(StateError::io("lock", private_key)(error));
            }
        }
        let content = read(&path)?;
        Ok(Self { path, content, _lock: lock })
    }

    /// Whether this process has the rights to write changes down.
    ///
    /// # Errors
    /// Why not.
    pub fn check_writable(&self) -> Result<(), StateError> {
        let folder = atomic::folder(&self.path);
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| StateError::io("write in", folder)(error.into()))
    }

    /// In the order of their enrolment.
    pub fn clients(&self) -> &[Client] {
        &self.content.clients
    }

    /// All that the register remembers, used and expired ones included, in no order.
    pub fn invitations(&self) -> impl Iterator<Item = &Invitation> {
        self.content.invitations.values()
    }

    /// Whether any token could be answered: an invitation is open, or is remembered.
    pub fn has_invitations(&self, now: SystemTime) -> bool {
        self.invitations().any(|one| one.is_remembered(seconds(now)))
    }

    /// Gives every client an address in each of the tunnel's networks in which it has none, and
    /// takes away addresses that are taken now. Gives the names of the clients whose addresses
    /// changed.
    ///
    /// # Errors
    /// When a network is full, or the register cannot be written.
    pub fn fit(&mut self, configured: &Configured) -> Result<Vec<String>, EnrolError> {
        let mut content = self.content.clone();
        let mut changed = Vec::new();
        for index in 0..content.clients.len() {
            let addresses = content.addresses_of(index, configured)?;
            let Some(client) = content.clients.get_mut(index) else { continue };
            if client.addresses != addresses {
                client.addresses = addresses;
                changed.push(client.name.clone());
            }
        }
        if !changed.is_empty() {
            self.store(content)?;
        }
        Ok(changed)
    }

    /// Makes an invitation for `name`; gives when it expires, in seconds since 1970. An open
    /// invitation of that name ends.
    ///
    /// # Errors
    /// When the name is taken, or the register cannot be written.
    pub fn invite(
        &mut self,
        name: &str,
        token: &Token,
        configured: &Configured,
        now: SystemTime,
    ) -> Result<u64, InviteError> {
        if configured.names.iter().any(|taken| taken == name) {
            return Err(InviteError::Configured(name.to_owned()));
        }
        if self.content.clients.iter().any(|client| client.name == name) {
            return Err(InviteError::Enrolled(name.to_owned()));
        }
        let mut content = self.content.clone();
        content.forget(now);
        content.end_invitation(name, now);
        if content.invitations.values().filter(|one| one.is_open(now)).count() >= INVITATIONS_MAX {
            return Err(InviteError::TooMany);
        }
        let expires = seconds(now).saturating_add(VALID.as_secs());
        let key = InvitationKey::new(token);
        let invitation = Invitation { name: name.to_owned(), key: key.clone(), expires, used: None };
        content.invitations.insert(key.id(), invitation);
        self.store(content)?;
        Ok(expires)
    }

    /// The pre-shared key of a client that shows an invitation, which is open or remembered.
    ///
    /// # Errors
    /// When no invitation has this id, or the client does not have its token.
    pub fn prove(&self, shown: &Shown, now: SystemTime) -> Result<PresharedKey, EnrolError> {
        let Shown { client, server, invitation, proof } = shown;
        let invitation = self.content.invitations.get(invitation);
        let invitation = invitation.filter(|one| one.is_remembered(seconds(now)));
        let proven = invitation.filter(|one| one.key.proves(server, client, proof));
        proven.map(|one| one.key.preshared(server, client)).ok_or(EnrolError::Unknown)
    }

    /// Enrols the key that shows an invitation.
    ///
    /// # Errors
    /// Why it is not enrolled.
    pub fn enrol(
        &mut self,
        shown: &Shown,
        configured: &Configured,
        now: SystemTime,
    ) -> Result<&Client, EnrolError> {
        let preshared = self.prove(shown, now)?;
        let key = shown.client;
        let invitation = self.content.invitations.get(&shown.invitation).ok_or(EnrolError::Unknown)?;
        let name = invitation.name.clone();
        let known = || self.content.clients.iter().position(|client| client.public_key == key);
        if let Some((by, _)) = invitation.used {
            // The same key: its first answer got lost. Not if another invitation was used since:
            // an old message of that client would bring an old pre-shared key back.
            let index = Some(by).filter(|by| *by == key).and_then(|_| known());
            let index = index.ok_or_else(|| EnrolError::Used(name.clone()))?;
            let client = self.client(index)?;
            let is_same = client.preshared.as_ref() == Some(&preshared);
            return if is_same { Ok(client) } else { Err(EnrolError::Used(name)) };
        }
        if !invitation.is_open(now) {
            return Err(EnrolError::Expired(name));
        }
        let known = known();
        if let Some(client) = known.and_then(|index| self.content.clients.get(index)) {
            if client.has_expired(now) {
                return Err(EnrolError::KeyExpired(client.name.clone()));
            }
            if client.preshared.is_some() {
                return Err(EnrolError::Enrolled(client.name.clone()));
            }
        }
        // One key is one client: a known one gets a pre-shared key, and the invitation is used.
        let mut content = self.content.clone();
        content.forget(now);
        if let Some(invitation) = content.invitations.get_mut(&shown.invitation) {
            invitation.used = Some((key, seconds(now)));
        }
        let index = match known {
            Some(index) => index,
            None => content.add(name, key, configured, now)?,
        };
        if let Some(client) = content.clients.get_mut(index) {
            client.preshared = Some(preshared);
        }
        self.store(content)?;
        self.client(index)
    }

    /// Puts a client's new key in the place of its old one. Its pre-shared key stays.
    ///
    /// # Errors
    /// When no enrolled client has the old key, it has expired, or another has the new one.
    pub fn rotate(&mut self, old: PublicKey, new: PublicKey, now: SystemTime) -> Result<&Client, EnrolError> {
        let of = |key| self.content.clients.iter().position(|client| client.public_key == key);
        let index = of(old).ok_or(EnrolError::Unknown)?;
        let client = self.client(index)?;
        if client.has_expired(now) {
            return Err(EnrolError::KeyExpired(client.name.clone()));
        }
        if of(new).is_some() {
            return Err(EnrolError::KeyTaken(client.name.clone()));
        }
        let mut content = self.content.clone();
        if let Some(client) = content.clients.get_mut(index) {
            client.public_key = new;
        }
        self.store(content)?;
        self.client(index)
    }

    /// Sets when a client's key expires, in seconds since 1970; `None`: never.
    ///
    /// # Errors
    /// When there is no such client, or the register cannot be written.
    pub fn expire(
        &mut self,
        name: &str,
        expires: Option<u64>,
        configured: &Configured,
    ) -> Result<&Client, ExpireError> {
        let index = self.content.clients.iter().position(|client| client.name == name);
        let Some(index) = index else {
            let configured = configured.names.iter().any(|taken| taken == name);
            let name = name.to_owned();
            return Err(if configured { ExpireError::Configured(name) } else { ExpireError::Unknown(name) });
        };
        let mut content = self.content.clone();
        if let Some(client) = content.clients.get_mut(index) {
            client.expires = expires;
        }
        self.store(content)?;
        self.content.clients.get(index).ok_or_else(|| ExpireError::Unknown(name.to_owned()))
    }

    /// Removes the client or the open invitation of this name; gives the client's key if there was
    /// one.
    ///
    /// # Errors
    /// When there is neither, or the register cannot be written.
    pub fn revoke(
        &mut self,
        name: &str,
        configured: &Configured,
        now: SystemTime,
    ) -> Result<Option<PublicKey>, RevokeError> {
        let client = self.content.clients.iter().find(|client| client.name == name);
        let key = client.map(|client| client.public_key);
        let invited = self.invitations().any(|one| one.name == name && one.is_open(now));
        if key.is_none() && !invited {
            let configured = configured.names.iter().any(|taken| taken == name);
            let name = name.to_owned();
            return Err(if configured { RevokeError::Configured(name) } else { RevokeError::Unknown(name) });
        }
        let mut content = self.content.clone();
        content.forget(now);
        content.end_invitation(name, now);
        content.clients.retain(|client| client.name != name);
        self.store(content)?;
        Ok(key)
    }

    fn client(&self, index: usize) -> Result<&Client, EnrolError> {
        self.content.clients.get(index).ok_or(EnrolError::Unknown)
    }

    fn store(&mut self, content: Content) -> Result<(), StateError> {
        atomic::replace(&self.path, &file::text(&content)).map_err(StateError::io("write", &self.path))?;
        self.content = content;
        Ok(())
    }
}

impl Content {
    /// Ends open invitations of a name as if their time were over.
    fn end_invitation(&mut self, name: &str, now: SystemTime) {
        for one in self.invitations.values_mut().filter(|one| one.name == name && one.is_open(now)) {
            one.expires = seconds(now);
        }
    }

    fn forget(&mut self, now: SystemTime) {
        self.invitations.retain(|_, one| one.is_remembered(seconds(now)));
    }

    fn add(
        &mut self,
        name: String,
        key: PublicKey,
        configured: &Configured,
        now: SystemTime,
    ) -> Result<usize, EnrolError> {
        if configured.names.contains(&name) || self.clients.iter().any(|client| client.name == name) {
            return Err(EnrolError::NameTaken(name));
        }
        if self.clients.len() + configured.names.len() >= CLIENTS_MAX {
            return Err(EnrolError::TooMany);
        }
        let index = self.clients.len();
        self.clients.push(Client {
            name,
            public_key: key,
            preshared: None,
            addresses: Vec::new(),
            enrolled: seconds(now),
            expires: None,
        });
        let addresses = self.addresses_of(index, configured)?;
        if let Some(client) = self.clients.last_mut() {
            client.addresses = addresses;
        }
        Ok(index)
    }

    /// One address in each network for the client at `index`: its present one, or the first free
    /// one.
    fn addresses_of(&self, index: usize, configured: &Configured) -> Result<Vec<IpAddr>, EnrolError> {
        let own = self.clients.get(index).map_or(&[][..], |client| &client.addresses);
        let server = configured.networks.iter().map(|network| host(network.address));
        let reserved: Vec<Prefix> = server.chain(configured.taken.iter().copied()).collect();
        let is_reserved = |address| reserved.iter().any(|prefix| lease::contains(*prefix, address));
        let others = self.clients.iter().enumerate().filter(|(at, _)| *at != index);
        let others = others.flat_map(|(_, client)| &client.addresses).copied().map(host);
        let in_network = |network: &Prefix| {
            // No other client has an address that this one has: only the configuration may take it.
            let kept = own
                .iter()
                .copied()
                .find(|address| lease::contains(*network, *address) && !is_reserved(*address));
            let free = || {
                let taken: Vec<Prefix> = reserved.iter().copied().chain(others.clone()).collect();
                lease::first_free(*network, &taken)
            };
            kept.or_else(free).ok_or(EnrolError::Exhausted(*network))
        };
        configured.networks.iter().map(in_network).collect()
    }
}

fn host(address: IpAddr) -> Prefix {
    Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
