//! Forwarding between the tunnel and other networks: the kernel's forwarding switches, and an
//! nftables table that says what may pass, masquerades, and clamps the TCP segment size.
//!
//! Contract: the host forwards what comes out of the tunnel, as far as [`Reach`] goes, and its
//! answers. Into the tunnel goes nothing else, but for what a rule of this host translates to
//! there. Where nothing was forwarded before, nothing beside the tunnel is forwarded. Every change
//! goes through a [`Journal`] and is undone with it. The table cannot overrule the host's own
//! rules: if another table drops a packet, it is dropped.
//!
//! [`Nat`] is a readable descriptor. Another program may remove the table (a reload of the host's
//! rules does), come to need forwarding, or need connection tracking: [`Nat::handle_ready`] notes
//! that, and [`Nat::look`], when it is due, puts the table back or makes it anew.
//!
//! The rules go to nft(8) as text, in one transaction: all of them apply or none. The inserted
//! parts (interface names, prefixes) are checked before.
//!
//! Masquerading knows the interface that a packet came from, which takes Linux 5.7.

pub(crate) mod forwarding;
mod reach;
mod rules;
mod table_watch;
mod tables;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) use self::forwarding::claims;
use self::reach::Target;
pub(crate) use self::rules::per_family;
use self::rules::{Conditions, ruleset};
pub(crate) use self::table_watch::TableWatch;
pub(crate) use self::tables::Others;
use crate::address::Cidr;
use crate::monitor::Monitor;
use crate::poll::{Interest, Poller};
use crate::undo::{Journal, UndoError};

/// The prefix of our tables' names; the name of the tunnel's interface follows.
const TABLE_PREFIX: &str = "bonding-";

/// The folders of nft(8), in the order of its places. The environment's are not asked.
const PROGRAM_FOLDERS: [&str; 6] =
    ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/run/current-system/sw/bin"];

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// IPv4 first.
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// What clients may reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Everything that is none of the others.
    pub internet: bool,
    /// The services of this host.
    pub server: bool,
    /// Networks with private addresses.
    pub private: bool,
    /// Each other, and the networks behind them.
    pub clients: bool,
}

impl Reach {
    /// All that is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            internet: self.internet || other.internet,
            server: self.server || other.server,
            private: self.private || other.private,
            clients: self.clients || other.clients,
        }
    }
}

/// What a connection may do that this host makes for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// The client's packets may go there.
    Allowed,
    /// They may not.
    Forbidden,
    /// They are judged by the table, and by their source.
    AsPackets,
}

/// The settings of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// The TUN device.
    pub tunnel: String,
    /// Its addresses, with their networks.
    pub addresses: Vec<Cidr>,
    /// What clients may reach.
    pub reach: Reach,
    /// Clients, by the prefixes of their packets' sources, that may reach something else.
    pub exceptions: Vec<(Cidr, Reach)>,
    /// `None`: the host's administrator forwards and translates, and says what may enter the
    /// tunnel.
    pub masquerade: Option<Masquerade>,
    /// Our UDP ports, first and last: datagrams to and from them stay out of connection tracking,
    /// which would otherwise keep an entry for every forged address. Where other rules of the host
    /// use connection tracking, they take part.
    pub listeners: (u16, u16),
}

/// Packets from the tunnel leave with the host's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// Only those that leave by this interface; `None`: by any but the tunnel.
    pub egress: Option<String>,
}

/// The reason why NAT is not available.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// nft(8) is not installed.
    #[error("forwarding needs the program `nft` (Debian: apt-get install nftables): {0}")]
    Missing(io::Error),
    /// nft(8) refused the rules.
    #[error("nftables refused the rules: {0}")]
    Refused(String),
    /// The tables cannot be watched.
    #[error("cannot watch the tables of nftables: {0}")]
    Watch(#[from] io::Error),
    /// The name is not a possible interface name.
    #[error("`{0}` is not the name of an interface")]
    Interface(String),
}

/// A family before the table was made.
#[derive(Debug)]
struct Before {
    family: Family,
    /// Nothing was forwarded.
    is_off: bool,
    claims: BTreeSet<String>,
}

/// Forwarding and the table, while they are there. Dropping it undoes all changes of its journal.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    journal: Journal,
    table: TableWatch,
    monitor: Monitor,
    /// Ready when one of the two is.
    both: Poller,
    before: [Before; 2],
    installed: Conditions,
}

impl Nat {
    /// Makes the table, replacing one of the same name, and switches forwarding on if it is to
    /// masquerade.
    pub fn install(journal: Journal, config: NatConfig, monitor: Monitor) -> Result<Self, UndoError> {
        let table = TableWatch::open(&config.tunnel).map_err(NatError::Watch)?;
        let others = Others::read().map_err(NatError::Watch)?;
        let both = Poller::new().map_err(NatError::Watch)?;
        both.add(&table, 0, Interest::Readable).map_err(NatError::Watch)?;
        both.add(&monitor, 1, Interest::Readable).map_err(NatError::Watch)?;
        let own = table.table();
        let before = [Family::V4, Family::V6].map(|family| Before {
            family,
            is_off: !family.is_forwarded(),
            claims: claims_of_others(family, &others, &own),
        });
        let mut nat =
            Self { config, journal, table, monitor, both, before, installed: Conditions::default() };
        nat.table.warn_of_drops(&others);
        nat.installed = nat.conditions(&others);
        let rules = ruleset(&nat.config, nat.installed)?;
        nat.journal.record_table(&nat.table.table())?;
        nat.table.replace(&rules)?;
        // After the rules, so that no packet is forwarded without them; undone before them.
        if nat.config.masquerade.is_some() {
            let families = nat.families();
            forwarding::enable(&mut nat.journal, &nat.config.tunnel, &families)?;
            nat.enable_interfaces()?;
        }
        Ok(nat)
    }

    /// Those of which the tunnel has addresses.
    fn families(&self) -> Vec<Family> {
        Family::BOTH.into_iter().filter(|family| self.has(*family)).collect()
    }

    /// Whether the tunnel has addresses of `family`.
    pub fn has(&self, family: Family) -> bool {
        self.config.addresses.iter().any(|one| one.address().is_ipv4() == (family == Family::V4))
    }

    /// Answers may come in by any of the interfaces, or by the configured one.
    fn enable_interfaces(&mut self) -> Result<(), UndoError> {
        let families = self.families();
        let Some(masquerade) = &self.config.masquerade else { return Ok(()) };
        let takes_part = |name: &str| masquerade.egress.as_ref().is_none_or(|egress| egress == name);
        for interface in self.monitor.interfaces().filter(|interface| takes_part(&interface.name)) {
            forwarding::enable_interface(&mut self.journal, interface, &families)?;
        }
        Ok(())
    }

    /// What clients may reach, and the exceptions.
    pub fn reach(&self) -> (Reach, Vec<(Cidr, Reach)>) {
        (self.config.reach, self.config.exceptions.clone())
    }

    /// Clients may reach something else from now on. The table is made anew in one transaction if
    /// it differs; on an error it stays as it was.
    ///
    /// # Errors
    /// Why the rules are not changed.
    pub fn set_reach(&mut self, (reach, exceptions): (Reach, Vec<(Cidr, Reach)>)) -> Result<(), NatError> {
        if (reach, &exceptions) == (self.config.reach, &self.config.exceptions) {
            return Ok(());
        }
        let config = NatConfig { reach, exceptions, ..self.config.clone() };
        self.table.replace(&ruleset(&config, self.installed)?)?;
        self.config = config;
        Ok(())
    }

    /// Whether this host may connect to the address for a client with this reach: its connections
    /// leave without the table's rules.
    pub fn permits(&self, address: IpAddr, reach: Reach) -> Permit {
        let own = self.monitor.interfaces().flat_map(|interface| interface.addresses.iter().copied());
        let tunnel = self.config.addresses.iter().copied();
        match Target::of(address, own, tunnel) {
            Some(Target::Clients) => Permit::AsPackets,
            Some(target) if target.is_in(reach) => Permit::Allowed,
            Some(_) | None => Permit::Forbidden,
        }
    }

    /// The interfaces.
    pub const fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Something changed: lets new interfaces take part, and notes whether a look at the tables is
    /// due.
    pub fn handle_ready(&mut self) -> Result<(), UndoError> {
        self.table.note_changes()?;
        if !self.monitor.handle_ready()?.is_empty() {
            self.enable_interfaces()?;
        }
        Ok(())
    }

    /// How long until [`Self::look`] is due.
    pub fn due_in(&self) -> Option<Duration> {
        self.table.due_in()
    }

    /// Makes the table anew if it is not as it is to be. A failure is logged, and tried again.
    pub fn look(&mut self) {
        if self.table.begin_look()
            && let Err(error) = self.try_look()
            && let Some(more) = self.table.on_failure()
        {
            tracing::error!(%error, more, "clients have no NAT: the nftables table cannot be put back");
        }
    }

    fn try_look(&mut self) -> Result<(), NatError> {
        let others = Others::read()?;
        self.table.warn_of_drops(&others);
        let conditions = self.conditions(&others);
        let is_broken = self.table.is_broken();
        if !is_broken && conditions == self.installed {
            return Ok(());
        }
        self.table.replace(&ruleset(&self.config, conditions)?)?;
        let table = self.table.table();
        if is_broken {
            tracing::warn!(table, "another program changed or removed our nftables table: it is put back");
        }
        if conditions != self.installed {
            tracing::info!(
                table,
                tracked = conditions.tracked,
                ipv4_for_the_tunnel_only = conditions.only_tunnel[0],
                ipv6_for_the_tunnel_only = conditions.only_tunnel[1],
                "made the nftables table anew: the host's other rules need something else now"
            );
        }
        self.installed = conditions;
        Ok(())
    }

    fn conditions(&self, others: &Others) -> Conditions {
        let own = self.table.table();
        let only_tunnel = |before: &Before| {
            let now = claims_of_others(before.family, others, &own);
            self.config.masquerade.is_some() && before.is_off && now.is_subset(&before.claims)
        };
        Conditions { tracked: others.track, only_tunnel: self.before.each_ref().map(only_tunnel) }
    }
}

impl AsFd for Nat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

/// The claims on forwarding but those of the table `own`.
pub(crate) fn claims_of_others(family: Family, others: &Others, own: &str) -> BTreeSet<String> {
    let mut claims = forwarding::claims_among(family, others);
    claims.retain(|claim| claim.split('/').nth(1) != Some(own));
    claims
}

/// Deletes one of our tables; succeeds if it does not exist.
pub(crate) fn delete_table(name: &str) -> Result<(), NatError> {
    // Declaring the table first makes the deletion succeed in any case.
    nft(&format!("table inet {name}\ndelete table inet {name}\n"))
}

/// Whether `name` is a name that this module gives to tables.
pub(crate) fn is_own_table(name: &str) -> bool {
    name.strip_prefix(TABLE_PREFIX).is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    })
}

pub(crate) fn table_name(tunnel: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
    TABLE_PREFIX.chars().chain(tunnel.chars().map(plain)).collect()
}

/// What may stand between quotes in a rule. Longer than a kernel name: no interface's.
pub(crate) fn interface(name: &str) -> Result<&str, NatError> {
    let fine = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name.chars().all(|c| c.is_ascii_graphic() && !"\"\\*/".contains(c));
    fine.then_some(name).ok_or_else(|| NatError::Interface(name.to_owned()))
}

/// Runs one transaction.
pub(crate) fn nft(rules: &str) -> Result<(), NatError> {
    let places = PROGRAM_FOLDERS.iter().map(|folder| Path::new(folder).join("nft"));
    let found = places.into_iter().find(|place| place.is_file());
    let program = found.ok_or_else(|| NatError::Missing(io::ErrorKind::NotFound.into()))?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NatError::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A refusal shows in the exit status.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(NatError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NatError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_by_its_tunnel() {
        assert_eq!(table_name("tun.bond@7"), "bonding-tun_bond_7");
        assert!(is_own_table(&table_name("tun.bond@7")));
        assert!(!is_own_table("filter") && !is_own_table("bonding-"));
    }
}
