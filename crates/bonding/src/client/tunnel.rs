//! The TUN device's addresses and MTU while a client runs: the device gets the addresses that the
//! server leases.
//!
//! What another program takes from the device, its addresses or that it is up, is put back.
//!
//! A configured address or MTU stays. If the server has another address for this client, the log
//! has a warning, since the server drops packets from addresses that are not the client's.

use std::time::Duration;

use bonding_os::monitor::Monitor;
use bonding_os::netlink::{NetlinkError, Requests};
use bonding_proto::Instant;
use bonding_proto::config::Prefix;
use bonding_proto::handshake::Welcome;

use crate::engine::plan::TunnelPlan;
use crate::engine::setup;

/// The device as it is.
#[derive(Debug)]
pub(super) struct Tunnel {
    index: u32,
    /// On the device now.
    addresses: Vec<Prefix>,
    /// They come from the server.
    leased: bool,
    mtu: u16,
    /// The largest MTU that the links carry; a lease never raises it.
    mtu_max: u16,
    mtu_fixed: bool,
    /// Another program took something from the device, which is put back then.
    mend_at: Option<Instant>,
    is_down: bool,
    missing: Vec<Prefix>,
}

/// Before the device is mended: a program that sets it down and up is left to do so.
const MEND_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts. Chosen: as for other things that another program may hold up.
const MEND_RETRY: Duration = Duration::from_secs(5);

impl Tunnel {
    /// The device that was just made.
    pub(super) fn new(plan: &TunnelPlan, index: u32, mtu: u16) -> Self {
        Self {
            index,
            addresses: plan.addresses.clone(),
            leased: plan.addresses.is_empty(),
            mtu,
            mtu_max: mtu,
            mtu_fixed: plan.mtu.is_some(),
            mend_at: None,
            is_down: false,
            missing: Vec::new(),
        }
    }

    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn addresses(&self) -> &[Prefix] {
        &self.addresses
    }

    pub(super) const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The server's lease: the addresses of this client.
    pub(super) fn lease(&mut self, lease: &Welcome) {
        if self.leased {
            tracing::info!(addresses = lease.addresses.len(), "the server leased addresses");
            if let Err(error) = self.readdress(&lease.addresses) {
                tracing::error!(%error, "cannot give the tunnel the address that the server leased");
            }
        } else if let Some(foreign) = foreign(&self.addresses, &lease.addresses) {
            tracing::warn!(
                "the server has other addresses for this client than [tunnel] address, and drops packets from that one; \
                 leave it out to use the server's"
            );
            tracing::debug!(configured = %foreign.address, leased = ?lease.addresses, "addresses in the tunnel");
        }
    }

    /// Addresses that stay are not touched: routes depend on them.
    fn readdress(&mut self, wanted: &[Prefix]) -> Result<(), NetlinkError> {
        let mut requests = Requests::open()?;
        let old: Vec<Prefix> = self.addresses.iter().filter(|old| !wanted.contains(old)).copied().collect();
        for prefix in old {
            if let Ok(cidr) = setup::cidr(prefix)
                && let Err(error) = requests.remove_address(self.index, cidr)
            {
                // Another program has removed it.
                tracing::debug!(%error, "an old address");
            }
            self.addresses.retain(|kept| *kept != prefix);
        }
        for prefix in wanted {
            if !self.addresses.contains(prefix)
                && let Ok(cidr) = setup::cidr(*prefix)
            {
                requests.add_address(self.index, cidr)?;
                tracing::debug!(address = %cidr, "the server leased an address");
                self.addresses.push(*prefix);
            }
        }
        Ok(())
    }

    /// Another program may have set the device down, or removed addresses. A device that is gone
    /// ends the client instead.
    pub(super) fn follow(&mut self, monitor: &Monitor, now: Instant) {
        let device = monitor.interfaces().find(|interface| interface.index == self.index);
        let Some(device) = device else { return };
        let has = |prefix: &&Prefix| device.addresses.iter().any(|one| one.address() == prefix.address);
        self.is_down = !device.usable;
        self.missing = self.addresses.iter().filter(|prefix| !has(prefix)).copied().collect();
        let is_damaged = self.is_down || !self.missing.is_empty();
        self.mend_at = is_damaged.then(|| self.mend_at.unwrap_or(now + MEND_PAUSE));
    }

    /// When [`Self::mend`] has work.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.mend_at
    }

    /// Puts back what another program took from the device.
    pub(super) fn mend(&mut self, now: Instant) {
        if self.mend_at.is_none_or(|at| at > now) {
            return;
        }
        // Until the interfaces tell otherwise.
        self.mend_at = None;
        match self.put_back() {
            Ok(()) => tracing::warn!(
                down = self.is_down,
                addresses = self.missing.len(),
                "another program set the tunnel's device down or took addresses from it: put back; routes into it that \
                 are not the client's are gone with that"
            ),
            Err(error) => {
                tracing::error!(%error, "the tunnel's device is down or lacks addresses, and they cannot be put back yet");
                self.mend_at = Some(now + MEND_RETRY);
            }
        }
    }

    /// Sets the device up, with the addresses that are missing.
    fn put_back(&self) -> Result<(), NetlinkError> {
        let mut requests = Requests::open()?;
        requests.set_up(self.index)?;
        let cidrs = self.missing.iter().filter_map(|prefix| setup::cidr(*prefix).ok());
        cidrs.into_iter().try_for_each(|cidr| requests.add_address(self.index, cidr))
    }

    /// Sets the MTU: the server's end takes packets up to `theirs`, if it says so, and the links in
    /// use carry `ours`.
    pub(super) fn resize(&mut self, theirs: Option<u16>, ours: u16) {
        let mtu = theirs.map_or(ours, |theirs| theirs.min(ours));
        let mtu = mtu.min(self.mtu_max).max(setup::TUNNEL_MTU_MIN);
        if mtu == self.mtu {
            return;
        }
        if self.mtu_fixed {
            if let Some(theirs) = theirs.filter(|theirs| *theirs < self.mtu) {
                tracing::warn!(
                    mtu = self.mtu,
                    server = theirs,
                    "[tunnel] mtu is larger than the server's, which drops larger packets"
                );
            }
            return;
        }
        match Requests::open().and_then(|mut requests| requests.set_mtu(self.index, u32::from(mtu))) {
            Ok(()) => {
                tracing::info!(mtu, was = self.mtu, "the tunnel's MTU");
                self.mtu = mtu;
            }
            Err(error) => tracing::warn!(%error, "cannot change the tunnel's MTU"),
        }
    }
}

/// A configured address that the server would not take as the client's.
fn foreign(configured: &[Prefix], leased: &[Prefix]) -> Option<Prefix> {
    if leased.is_empty() {
        return None;
    }
    configured.iter().copied().find(|one| leased.iter().all(|lease| lease.address != one.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    #[test]
    fn another_clients_address_is_noticed() {
        let leased = ["10.99.0.2/24", "fd99::2/64"].map(prefix);
        assert_eq!(foreign(&[prefix("10.99.0.2/24")], &leased), None);
        assert_eq!(foreign(&[prefix("10.99.0.2/16")], &leased), None, "the length is the client's business");
        let other = prefix("10.99.0.3/24");
        assert_eq!(foreign(&[prefix("fd99::2/64"), other], &leased), Some(other));
        assert_eq!(foreign(&[other], &[]), None, "a server that leases nothing");
    }
}
