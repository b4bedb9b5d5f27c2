//! IP prefixes, for the addresses of clients and the conditions of rules.

use std::net::IpAddr;

/// An IP prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address inside it.
    pub address: IpAddr,
    /// The prefix length: the number of leading bits that count.
    pub length: u8,
}

impl Prefix {
    /// Whether `address` lies in the prefix. An IPv4 address lies in no IPv6 prefix.
    pub const fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.length as u32
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= self.length as u32
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}
