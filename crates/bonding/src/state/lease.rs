//! The address of a new client: the first free one of a network.

use std::net::IpAddr;

use bonding_proto::config::Prefix;

/// The lowest host address of `network` that no prefix of `taken` contains; `None`: all are taken.
///
/// The network's first address is not leased (RFC 4291 §2.6.1: any router), nor is the last of an
/// IPv4 network (RFC 919 §7: broadcast), except in a network of one or two addresses (RFC 3021).
pub fn first_free(network: Prefix, taken: &[Prefix]) -> Option<IpAddr> {
    let ipv4 = network.address.is_ipv4();
    let (first, last) = span(network);
    let small = last - first < 2;
    let mut candidate = if small { first } else { first + 1 };
    let last = if ipv4 && !small { last - 1 } else { last };
    let same_family = taken.iter().filter(|prefix| prefix.address.is_ipv4() == ipv4);
    let mut spans: Vec<(u128, u128)> = same_family.map(|prefix| span(*prefix)).collect();
    spans.sort_unstable();
    for (start, end) in spans {
        if start > candidate {
            break;
        }
        if end >= candidate {
            candidate = end.checked_add(1)?;
        }
    }
    if candidate <= last { address(candidate, ipv4) } else { None }
}

/// Whether `prefix` contains `address`.
pub fn contains(prefix: Prefix, address: IpAddr) -> bool {
    let (first, last) = span(prefix);
    prefix.address.is_ipv4() == address.is_ipv4() && (first..=last).contains(&number(address))
}

/// The first and the last address of a prefix.
fn span(prefix: Prefix) -> (u128, u128) {
    let bits = if prefix.address.is_ipv4() { 32 } else { 128 };
    let host_bits = bits - u32::from(prefix.length).min(bits);
    let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |count| count - 1);
    let first = number(prefix.address) & !hosts;
    (first, first | hosts)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, ipv4: bool) -> Option<IpAddr> {
    if ipv4 {
        u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into()))
    } else {
        Some(IpAddr::V6(number.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    fn free(network: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<Prefix> = taken.iter().map(|text| prefix(text)).collect();
        first_free(prefix(network), &taken).map(|address| address.to_string())
    }

    #[test]
    fn the_lowest_free_host() {
        let of = |address: &str| Some(address.to_owned());
        assert_eq!(free("10.99.0.1/24", &["10.99.0.1/32"]), of("10.99.0.2"));
        assert_eq!(free("fd99::1/64", &["fd99::1/128", "10.99.0.2/32"]), of("fd99::2"));
        assert_eq!(free("10.99.0.1/24", &["10.99.0.3/32", "10.99.0.1/32", "10.99.0.2/32"]), of("10.99.0.4"));
        assert_eq!(free("10.99.0.1/24", &["10.99.0.3/32", "10.99.0.1/32"]), of("10.99.0.2"), "a gap");
        assert_eq!(free("10.99.0.1/24", &["10.99.0.0/25"]), of("10.99.0.128"), "a route");
        assert_eq!(free("10.99.0.200/24", &["10.99.0.200/32"]), of("10.99.0.1"));
    }

    #[test]
    fn a_full_network_has_no_address_left() {
        assert_eq!(free("10.99.0.1/30", &["10.99.0.1/32"]), Some("10.99.0.2".to_owned()));
        assert_eq!(
            free("10.99.0.1/30", &["10.99.0.1/32", "10.99.0.2/32"]),
            None,
            "not the broadcast address"
        );
        assert_eq!(free("10.99.0.0/31", &["10.99.0.0/32"]), Some("10.99.0.1".to_owned()));
        assert_eq!(free("10.99.0.1/32", &["10.99.0.1/32"]), None);
        assert_eq!(free("10.99.0.1/24", &["10.0.0.0/8"]), None);
        assert_eq!(free("fd99::1/64", &["::/0"]), None);
        assert_eq!(free("255.255.255.1/24", &["0.0.0.0/0"]), None);
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_and_the_lowest(
            length in 22_u8..=32,
            own in any::<u8>(),
            taken in prop::collection::vec((0_u32..1024, 24_u8..=32), 0..40),
        ) {
            let network = Prefix { address: IpAddr::V4([10, 99, 0, own].into()), length };
            let base = u32::from_be_bytes([10, 99, 0, 0]);
            let taken: Vec<Prefix> = taken
                .iter()
                .map(|(at, length)| Prefix { address: IpAddr::V4((base + at).into()), length: *length })
                .collect();
            let is_taken = |address: IpAddr| taken.iter().any(|prefix| contains(*prefix, address));
            let (first, last) = span(network);
            let hosts = if length >= 31 { first..=last } else { first + 1..=last - 1 };
            let mut hosts = hosts.map(|number| address(number, true).unwrap());
            prop_assert_eq!(first_free(network, &taken), hosts.find(|address| !is_taken(*address)));
        }
    }
}
