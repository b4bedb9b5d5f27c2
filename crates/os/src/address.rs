//! An address with its prefix length, as interfaces and routes carry it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An IP address with the number of leading bits that name its network: `10.99.0.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// The reason why a text or a pair is not a [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// The part before the slash is not an address.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// The prefix length is not a number, or is larger than the address.
    #[error("`{0}` is not a prefix length for this address")]
    Length(String),
}

impl Cidr {
    /// `address` with a prefix of `length` bits, at most 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, CidrError> {
        if length > bits(address) {
            return Err(CidrError::Length(length.to_string()));
        }
        Ok(Self { address, length })
    }

    /// `address` alone.
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: bits(address) }
    }

    /// Whether all addresses of `other`'s network are in this one.
    pub fn contains(self, other: Self) -> bool {
        let other_network = Self { address: other.address, length: self.length };
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length <= other.length
            && other_network.network() == self.network()
    }

    /// The address as given, host bits included.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Leading bits that name the network.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The same prefix with its host bits cleared.
    pub fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.length)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Self { address, length: self.length }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// `address/length`, or an address alone for all its bits.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address(address.to_owned()))?;
        match length {
            None => Self::new(address, bits(address)),
            Some(text) => Self::new(address, text.parse().map_err(|_| CidrError::Length(text.to_owned()))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_shows_clears_host_bits_and_compares() {
        for (text, network) in [
            ("10.99.0.1/24", "10.99.0.0/24"),
            ("10.99.0.1", "10.99.0.1/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd99::1/64", "fd99::/64"),
            ("fd99::1/0", "::/0"),
            ("fd99::1", "fd99::1/128"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.network().to_string(), network);
        }
        let contains =
            |outer: &str, inner: &str| outer.parse::<Cidr>().unwrap().contains(inner.parse().unwrap());
        assert!(contains("10.99.0.1/24", "10.99.0.2/32"));
        assert!(contains("fd99::1/64", "fd99::2"));
        assert!(!contains("10.99.0.1/24", "10.99.1.2/32"));
        assert!(!contains("10.99.0.1/24", "10.99.0.0/16"));
        assert!(!contains("0.0.0.0/0", "fd99::2"));
        assert!("10.0.0.1/33".parse::<Cidr>().is_err());
        assert!("10.0.0/24".parse::<Cidr>().is_err());
        assert!("fd99::1/-1".parse::<Cidr>().is_err());
        assert!("fd99::1/129".parse::<Cidr>().is_err());
    }
}
