//! The clients that may connect: those of the configuration and those of the register, in the form
//! that the endpoint takes.
//!
//! It deliberately does not know the endpoint: the server hands the entries on.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bonding_os::nat::Reach;
use bonding_proto::config::{ClientConfig, Prefix};
use bonding_proto::crypto::keys::{PresharedKey, PublicKey, Token};
use bonding_proto::handshake::InvitationId;

use super::place;
use crate::config::{Host, Ports};
use crate::engine::RunError;
use crate::engine::command::{Invited, OpenInvitation};
use crate::engine::plan::{InvitedPlan, PeerPlan, ServerPlan};
use crate::engine::reload::of_invited;
use crate::invitation::Invitation;
use crate::state::register::{
    Client, Configured, EnrolError, ExpireError, InviteError, Register, RevokeError, Shown,
};
use crate::state::{keys, lease};

/// All clients that a server knows.
#[derive(Debug)]
pub(super) struct Roster {
    register: Register,
    configured: Configured,
    /// What the configuration says of clients that are invited.
    invited: Vec<InvitedPlan>,
    /// The server's own key, for invitations.
    public_key: PublicKey,
    listen: IpAddr,
    ports: Ports,
}

/// A client, for the endpoint and for people.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// For the endpoint.
    pub(super) config: ClientConfig,
    /// The names of its links, as far as the configuration has them.
    pub(super) links: Vec<String>,
    /// In the tunnel.
    pub(super) addresses: Vec<IpAddr>,
    /// What it may reach, if that is not what clients usually may.
    pub(super) reach: Option<Reach>,
    /// When it enrolled, in seconds since 1970; `None`: it is configured.
    pub(super) enrolled: Option<u64>,
    /// When its key expires, in seconds since 1970; `None`: never.
    pub(super) expires: Option<u64>,
}

/// What another plan makes of the roster.
#[derive(Debug)]
pub(super) struct NextRoster {
    configured: Configured,
    invited: Vec<InvitedPlan>,
    /// The clients of the configuration.
    pub(super) entries: Vec<Entry>,
    /// The enrolled clients of which the configuration says something, or did before.
    pub(super) enrolled: Vec<Entry>,
}

/// A claim that was not granted.
#[derive(Debug)]
pub(super) struct Refused {
    /// The reason.
    pub(super) error: EnrolError,
    /// The pre-shared key that the answer is sealed with.
    pub(super) preshared: Option<PresharedKey>,
}

impl Roster {
    /// Reads the register beside the server's private key. Gives every client as well.
    pub(super) fn open(plan: &ServerPlan, public_key: PublicKey) -> Result<(Self, Vec<Entry>), RunError> {
        let mut register = Register::open(&plan.private_key_file)?;
        let configured = configured(plan);
        check_taken(register.clients(), plan)?;
        for name in register.fit(&configured)? {
            tracing::warn!(
                client = name,
                "the client gets other addresses in the tunnel: the configuration needs its own"
            );
        }
        let invited = plan.invited.clone();
        let roster =
            Self { register, configured, invited, public_key, listen: plan.listen, ports: plan.ports };
        let mut entries = roster.configured_entries(plan)?;
        entries.extend(roster.register.clients().iter().map(|client| roster.entry(client)));
        for one in &plan.invited {
            if !entries.iter().any(|entry| entry.config.name == one.name) {
                tracing::info!(client = one.name, "[[client]] is of a client that is not enrolled yet");
            }
        }
        Ok((roster, entries))
    }

    /// What the roster is once the configuration is that of the plan. Nothing is changed yet.
    ///
    /// # Errors
    /// When the register does not go with that configuration.
    pub(super) fn next(&self, plan: &ServerPlan) -> Result<NextRoster, String> {
        check_taken(self.register.clients(), plan).map_err(|error| error.to_string())?;
        let configured = configured(plan);
        let is_taken =
            |address: &IpAddr| configured.taken.iter().any(|prefix| lease::contains(*prefix, *address));
        let moved = self.register.clients().iter().find(|client| client.addresses.iter().any(is_taken));
        if let Some(client) = moved {
            return Err(format!(
                "a [[client]] takes an address of \"{}\", a client that was invited, which gets another one only at \
                 the next start",
                client.name
            ));
        }
        let entries = self.configured_entries(plan).map_err(|error| error.to_string())?;
        let invited = plan.invited.clone();
        let is_of = |list: &[InvitedPlan], client: &Client| of_invited(list, &client.name).is_some();
        let clients = self.register.clients().iter();
        let changed = clients.filter(|client| is_of(&invited, client) || is_of(&self.invited, client));
        let enrolled = changed.map(|client| self.entry_by(client, &invited)).collect();
        Ok(NextRoster { configured, invited, entries, enrolled })
    }

    /// The configuration is that from now on. Gives the entries that may be other ones: of the
    /// configuration, and of enrolled clients.
    pub(super) fn adopt(&mut self, next: NextRoster) -> (Vec<Entry>, Vec<Entry>) {
        let NextRoster { configured, invited, entries, enrolled } = next;
        (self.configured, self.invited) = (configured, invited);
        (entries, enrolled)
    }

    /// Without root's other rights the server cannot write another user's folder. The warning comes
    /// at the start, not at the first enrolment.
    pub(super) fn warn_if_read_only(&self) {
        if let Err(error) = self.register.check_writable() {
            tracing::warn!(%error, "clients can be neither invited nor enrolled nor revoked");
        }
    }

    fn configured_entries(&self, plan: &ServerPlan) -> Result<Vec<Entry>, RunError> {
        let one = |client: &PeerPlan| {
            let preshared = client.preshared_key_file.as_deref().map(keys::load_preshared).transpose()?;
            let addresses = client.addresses.iter().map(|address| self.with_length(*address)).collect();
            Ok(Entry {
                config: ClientConfig { preshared, addresses, ..client.config.clone() },
                links: client.links.clone(),
                addresses: client.addresses.clone(),
                reach: client.reach,
                enrolled: None,
                expires: None,
            })
        };
        plan.clients.iter().map(one).collect()
    }

    fn entry(&self, client: &Client) -> Entry {
        self.entry_by(client, &self.invited)
    }

    /// The same where the configuration says this of invited clients.
    fn entry_by(&self, client: &Client, invited: &[InvitedPlan]) -> Entry {
        let settings = of_invited(invited, &client.name);
        let routes = settings.map_or(&[][..], |settings| &settings.routes);
        Entry {
            config: ClientConfig {
                name: client.name.clone(),
                prefixes: client.addresses.iter().copied().map(host).chain(routes.iter().copied()).collect(),
                plain: Vec::new(),
                public_key: Some(client.public_key),
                preshared: client.preshared.clone(),
                addresses: client.addresses.iter().map(|address| self.with_length(*address)).collect(),
                tx_rates: Vec::new(),
            },
            links: Vec::new(),
            addresses: client.addresses.clone(),
            reach: settings.and_then(|settings| settings.reach),
            enrolled: Some(client.enrolled),
            expires: client.expires,
        }
    }

    /// With the prefix length of the tunnel's network that it is in.
    fn with_length(&self, address: IpAddr) -> Prefix {
        let network = self.configured.networks.iter().find(|network| lease::contains(**network, address));
        network.map_or_else(|| host(address), |network| Prefix { address, length: network.length })
    }

    /// Makes the invitation of a client that will be called `name`.
    pub(super) fn invite(
        &mut self,
        name: &str,
        hosts: Vec<Host>,
        ports: Option<Ports>,
        now: SystemTime,
    ) -> Result<Invited, String> {
        let hosts = if hosts.is_empty() { place::own_addresses(self.listen) } else { hosts };
        if hosts.is_empty() {
            return Err(
                "this machine has no address on a default route: say where clients find it, --host HOST"
                    .into(),
            );
        }
        let mut token = [0; 16];
        getrandom::fill(&mut token)
            .map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
        let token = Token::from_bytes(token);
        let invite = self.register.invite(name, &token, &self.configured, now);
        let expires = invite.map_err(|error: InviteError| error.to_string())?;
        let private = hosts.iter().filter_map(place::private).collect();
        let ports = ports.unwrap_or(self.ports);
        let invitation = Invitation { hosts, ports, server: self.public_key, token, expires };
        Ok(Invited { invitation: invitation.to_string(), expires: time(expires), private })
    }

    /// Enrols the key that shows an invitation.
    pub(super) fn enrol(
        &mut self,
        client: PublicKey,
        (invitation, proof): (InvitationId, [u8; 16]),
        now: SystemTime,
    ) -> Result<Entry, Refused> {
        let shown = Shown { client, server: self.public_key, invitation, proof };
        match self.register.enrol(&shown, &self.configured, now).cloned() {
            Ok(client) => Ok(self.entry(&client)),
            Err(error) => Err(Refused { error, preshared: self.register.prove(&shown, now).ok() }),
        }
    }

    /// Puts a client's new key in the place of its old one.
    pub(super) fn rotate(
        &mut self,
        old: PublicKey,
        new: PublicKey,
        now: SystemTime,
    ) -> Result<Entry, EnrolError> {
        let client = self.register.rotate(old, new, now)?.clone();
        Ok(self.entry(&client))
    }

    /// Sets when a client's key expires: so long from now, or never.
    pub(super) fn expire(
        &mut self,
        name: &str,
        after: Option<Duration>,
        now: SystemTime,
    ) -> Result<Entry, ExpireError> {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = after.map(|after| since_1970.saturating_add(after).as_secs());
        let client = self.register.expire(name, expires, &self.configured)?.clone();
        Ok(self.entry(&client))
    }

    /// Forgets a client; gives its key if it had enrolled.
    pub(super) fn revoke(&mut self, name: &str, now: SystemTime) -> Result<Option<PublicKey>, RevokeError> {
        self.register.revoke(name, &self.configured, now)
    }

    /// The invitations that are not used yet.
    pub(super) fn open_invitations(&self, now: SystemTime) -> Vec<OpenInvitation> {
        let mut open: Vec<_> = self.register.invitations().filter(|one| one.is_open(now)).collect();
        open.sort_by_key(|one| (one.expires, &one.name));
        open.iter().map(|one| OpenInvitation { name: one.name.clone(), expires: time(one.expires) }).collect()
    }

    /// Whether any token could be answered.
    pub(super) fn has_invitations(&self, now: SystemTime) -> bool {
        self.register.has_invitations(now)
    }
}

/// All prefixes that the configuration gives to clients.
pub(super) fn prefixes(plan: &ServerPlan) -> impl Iterator<Item = Prefix> + '_ {
    let configured = plan.clients.iter().flat_map(|client| &client.config.prefixes);
    configured.chain(plan.invited.iter().flat_map(|client| &client.routes)).copied()
}

fn configured(plan: &ServerPlan) -> Configured {
    Configured {
        networks: plan.tunnel.addresses.clone(),
        taken: prefixes(plan).collect(),
        names: plan.clients.iter().map(|client| client.config.name.clone()).collect(),
    }
}

/// No client that was invited has the name or the key of a configured one.
///
/// # Errors
/// When one has.
pub(crate) fn check_taken(enrolled: &[Client], plan: &ServerPlan) -> Result<(), RunError> {
    for client in enrolled {
        if plan.clients.iter().any(|other| other.config.name == client.name) {
            return Err(RunError::NameTaken(client.name.clone()));
        }
        if plan.clients.iter().any(|other| other.config.public_key == Some(client.public_key)) {
            return Err(RunError::KeyTaken(client.name.clone()));
        }
    }
    Ok(())
}

fn host(address: IpAddr) -> Prefix {
    Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
}

/// RFC 3339 in UTC.
pub(super) fn time(seconds: u64) -> String {
    // Later times than RFC 3339 can write become its last one: the end of the year 9999.
    let latest = Duration::from_secs(253_402_300_799);
    let at = UNIX_EPOCH + Duration::from_secs(seconds).min(latest);
    humantime::format_rfc3339_seconds(at).to_string()
}
