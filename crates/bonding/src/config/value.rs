//! The values a configuration is written in: rates, durations, sizes, ports, addresses, prefixes,
//! names, keys.
//!
//! Each parser takes one string and answers the value, or a sentence that says what is wrong with
//! it and how it is written. No parser accepts a value that it cannot represent exactly enough to
//! use.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonding_proto::config::Prefix;
use bonding_proto::units::BitRate;

use super::problem::suggestion;
use super::section::shown;

/// Interface names have at most 15 bytes (`IFNAMSIZ` in linux/if.h is 16, with the closing zero).
const INTERFACE_NAME_MAX_BYTES: usize = 15;

/// Chosen: a name of this length fits a line of 80 columns beside a few figures.
const NAME_MAX_CHARS: usize = 32;

/// At most this many consecutive ports: one for each link of a client.
pub(super) const PORTS_MAX: u16 = 32;

/// A number with a unit, such as `2.5mbit`, in the unit's base.
fn quantity(text: &str, kind: &str, example: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let names = || units.iter().map(|(name, _)| *name);
    if number.is_empty() {
        return Err(format!("\"{}\" is not a {kind}; write it like \"{example}\"", shown(text)));
    }
    if unit.is_empty() {
        let all: Vec<&str> = names().collect();
        return Err(format!("\"{}\" has no unit; add one of {}", shown(text), all.join(", ")));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let all: Vec<&str> = names().collect();
        return Err(format!("unknown unit `{}`{}", shown(unit), suggestion(unit, all, "known units")));
    };
    decimal(number, *factor)
        .ok_or_else(|| format!("\"{}\" is not a {kind}; write it like \"{example}\"", shown(text)))
}

/// A decimal number times `factor`, rounded down; `None` when it is malformed or too large.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = fraction.parse().ok()?;
    let scaled = whole.checked_mul(scale)?.checked_add(fraction)?.checked_mul(u128::from(factor))?;
    u64::try_from(scaled / scale).ok()
}

/// The form of a rate, for messages.
pub(super) const RATE: &str = "a rate such as \"10mbit\"";

/// A rate: `10mbit`. Between 1 kbit/s and 1 Tbit/s.
pub(super) fn rate(text: &str) -> Result<BitRate, String> {
    let units = [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
    let bps = quantity(text, "rate", "10mbit", &units)?;
    if !(1_000..=1_000_000_000_000).contains(&bps) {
        return Err(format!(
            "a rate of \"{}\" is not usable; it must be from 1kbit to 1000gbit",
            shown(text)
        ));
    }
    Ok(BitRate::from_bps(bps))
}

/// The form of a duration, for messages.
pub(super) const DURATION: &str = "a duration such as \"100ms\"";

/// A duration within bounds: `100ms`, `5s`, `2min`, `1h`.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];
    let span = Duration::from_millis(quantity(text, "duration", "100ms", &units)?);
    if span < min || span > max {
        return Err(format!("\"{}\" is out of range; it must be from {min:?} to {max:?}", shown(text)));
    }
    Ok(span)
}

/// A monthly amount of data, in bytes: `100GB/month`.
pub(super) fn monthly_bytes(text: &str) -> Result<u64, String> {
    let Some((size, period)) = text.split_once('/') else {
        return Err(format!("\"{}\" has no period; write it like \"100GB/month\"", shown(text)));
    };
    if period.trim() != "month" {
        return Err(format!("unknown period \"{}\"; only \"/month\" is known", shown(period)));
    }
    let units = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    match quantity(size, "size", "100GB/month", &units)? {
        0 => Err("an amount of zero; a link that must carry no data has role = \"never\"".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A ratio, in permille: `10%`.
pub(super) fn percent(text: &str) -> Result<u16, String> {
    let malformed = || format!("\"{}\" is not a ratio; write it like \"10%\"", shown(text));
    let number = text.trim().strip_suffix('%').ok_or_else(malformed)?;
    let permille = decimal(number.trim(), 10).and_then(|p| u16::try_from(p).ok()).ok_or_else(malformed)?;
    if (1..=1_000).contains(&permille) {
        Ok(permille)
    } else {
        Err(format!("\"{}\" is out of range; it must be from 0.1% to 100%", shown(text)))
    }
}

/// Consecutive UDP ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Ports 9001 to 9005.
    pub const DEFAULT: Self = Self { first: 9_001, last: 9_005 };

    /// The first and the last.
    pub const fn range(self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// How many there are: at least one.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// The `index`-th port, cycling.
    pub fn cycle(self, index: usize) -> u16 {
        let offset = u16::try_from(index % self.count()).unwrap_or(0);
        self.first + offset
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The form of ports, for messages.
pub(super) const PORTS: &str = "ports such as \"9001-9005\"";

/// A range of at most [`PORTS_MAX`] ports: `9001-9005`, or a single one.
pub(crate) fn ports(text: &str) -> Result<Ports, String> {
    let (first, last) = port_range(text)?;
    if last - first >= PORTS_MAX {
        return Err(format!("\"{}\" are too many ports; at most {PORTS_MAX} are of use", shown(text)));
    }
    Ok(Ports { first, last })
}

/// Any range of ports, both ends included.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |word: &str| {
        let word = word.trim();
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        let port = word.parse::<u16>().ok().filter(|port| digits && *port != 0);
        port.ok_or_else(|| {
            format!(
                "\"{}\" is not a port; ports are numbers from 1 to 65535, as in \"9001-9005\"",
                shown(word)
            )
        })
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range \"{}\" is reversed; write \"{last}-{first}\"", shown(text)));
    }
    Ok((first, last))
}

/// A server as the client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A name to be looked up when the client starts.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A host name or address, without a port.
pub(crate) fn host(text: &str) -> Result<Host, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return usable_remote(address).map(Host::Address);
    }
    // RFC 1123 §2.1: letters, digits and hyphens in labels of at most 63, at most 253 in all.
    let label = |label: &str| {
        let hyphens = label.starts_with('-') || label.ends_with('-');
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && label.len() <= 63 && !hyphens && letters
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    // A name whose last label is a number is a mistyped address (URL standard, "ends in a number").
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label) && !numeric {
        return Ok(Host::Name(name.to_owned()));
    }
    if text.rsplit_once(':').is_some_and(|(name, port)| !name.contains(':') && port.parse::<u16>().is_ok()) {
        return Err(format!("\"{}\" has a port; name the host alone, ports are in `ports`", shown(text)));
    }
    Err(format!("\"{}\" is neither a host name nor an address", shown(text)))
}

/// Refuses addresses that are not those of a host.
fn usable_remote(address: IpAddr) -> Result<IpAddr, String> {
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("{address} is not the address of a host"));
    }
    Ok(address)
}

/// The form of an address, for messages.
pub(super) const ADDRESS: &str = "an address such as \"10.200.0.1\"";

/// The address of one host, without a prefix length.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return usable_remote(address);
    }
    if let Some((address, _)) = text.split_once('/')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err(format!("\"{}\" is a prefix; write the address alone: \"{address}\"", shown(text)));
    }
    Err(format!("\"{}\" is not an IP address", shown(text)))
}

/// The address of one host, with or without a port: `10.200.0.1`, `10.200.0.1:9001`,
/// `[fd00::1]:9001`.
pub(super) fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let canonical = |address: IpAddr| usable_remote(address.to_canonical());
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        if socket.port() == 0 {
            return Err(format!("\"{}\" has port 0; leave the port out to accept any", shown(text)));
        }
        return Ok((canonical(socket.ip())?, Some(socket.port())));
    }
    Ok((canonical(address(text)?)?, None))
}

/// The form of an interface's address, for messages.
pub(super) const INTERFACE_ADDRESS: &str = "an address with its prefix length, such as \"192.168.50.1/24\"";

/// A host's address and the size of its network: `192.168.50.1/24`.
pub(super) fn interface_address(text: &str) -> Result<Prefix, String> {
    let prefix = any_prefix(text, "192.168.50.1/24")?;
    usable_remote(prefix.address)?;
    Ok(prefix)
}

/// The form of a prefix, for messages.
pub(super) const PREFIX: &str = "a prefix such as \"192.168.1.0/24\"";

/// A network: `192.168.1.0/24`; bits beyond the length must be zero, and it must not be everything.
pub(super) fn prefix(text: &str) -> Result<Prefix, String> {
    let prefix = any_prefix(text, "192.168.1.0/24")?;
    let network = network(prefix);
    if network != prefix.address {
        return Err(format!(
            "\"{}\" has bits beyond its length; write \"{network}/{}\"",
            shown(text),
            prefix.length
        ));
    }
    if prefix.length == 0 {
        return Err(format!("\"{}\" is every address there is; name the networks in question", shown(text)));
    }
    Ok(prefix)
}

fn any_prefix(text: &str, example: &str) -> Result<Prefix, String> {
    let malformed = || format!("\"{}\" is not of the form \"{example}\"", shown(text));
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(_) => Err(format!("\"{text}\" has no prefix length; write it like \"{example}\"")),
            Err(_) => Err(malformed()),
        };
    };
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    // Digits only: the number parser would take a plus sign.
    let length = Some(length).filter(|l| l.bytes().all(|b| b.is_ascii_digit())).ok_or_else(malformed)?;
    let length: u8 = length.parse().map_err(|_| malformed())?;
    let bits = address_bits(address);
    if length > bits {
        return Err(format!("\"{}\": the length of this prefix is at most {bits}", shown(text)));
    }
    Ok(Prefix { address, length })
}

/// 32 or 128.
pub(super) fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of a prefix.
fn network(prefix: Prefix) -> IpAddr {
    let host_bits = u32::from(address_bits(prefix.address).saturating_sub(prefix.length));
    match prefix.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// Whether an address is in both.
pub(super) fn overlap(a: Prefix, b: Prefix) -> bool {
    let length = a.length.min(b.length);
    a.address.is_ipv4() == b.address.is_ipv4()
        && network(Prefix { length, ..a }) == network(Prefix { length, ..b })
}

/// The name of a network interface.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if text.is_empty() || text.len() > INTERFACE_NAME_MAX_BYTES || !letters || text == "." || text == ".." {
        return Err(format!(
            "\"{}\" is not the name of an interface; those have 1 to {INTERFACE_NAME_MAX_BYTES} characters, \
             without spaces, `/` and `:`",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}

/// A pattern of interface names: an interface's name that may contain `*` and `?`.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    interface(text)
}

/// A name for people: of a link, of a client.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let count = text.chars().count();
    let graphic = text.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if count == 0 || count > NAME_MAX_CHARS || !graphic {
        return Err(format!(
            "\"{}\" is not usable as a name; names have 1 to {NAME_MAX_CHARS} characters without spaces",
            shown(text)
        ));
    }
    Ok(text.to_owned())
}

/// A path of a file or socket, absolute so that it means the same wherever the program starts.
pub(super) fn absolute_path(text: &str) -> Result<std::path::PathBuf, String> {
    if text.contains('\0') || !text.starts_with('/') {
        return Err(format!("\"{}\" is not an absolute path", shown(text)));
    }
    Ok(text.into())
}

/// The form of a key, for messages.
pub(super) const KEY: &str = "a key as `bondctl pubkey` prints it";

/// An X25519 public key in base64.
pub(super) fn key(text: &str) -> Result<[u8; 32], String> {
    let malformed = |why: &str| {
        Err(format!("not a key: {why}; a key is 44 characters of base64, as `bondctl pubkey` prints it"))
    };
    let Ok(bytes) = STANDARD.decode(text) else { return malformed("this is not base64") };
    match <[u8; 32]>::try_from(bytes) {
        Ok(key) => Ok(key),
        Err(bytes) => malformed(&format!("it has {} bytes instead of 32", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        assert_eq!(rate("10mbit").unwrap().as_bps(), 10_000_000);
        assert_eq!(rate("2.5 gbit").unwrap().as_bps(), 2_500_000_000);
        assert_eq!(rate("0.1mbit").unwrap().as_bps(), 100_000);
        let ten = |text| duration(text, Duration::ZERO, Duration::MAX);
        assert_eq!(ten("1.5s").unwrap(), Duration::from_millis(1_500));
        assert_eq!(ten("2min").unwrap(), Duration::from_secs(120));
        assert_eq!(monthly_bytes("100GB/month").unwrap(), 100_000_000_000);
        assert_eq!(percent("12.5%").unwrap(), 125);
    }

    #[test]
    fn wrong_quantities_say_how_they_are_written() {
        let cases = [
            ("", "not a rate"),
            ("fast", "not a rate"),
            ("10", "no unit; add one of bit, kbit, mbit, gbit"),
            ("10mbt", "did you mean `mbit`?"),
            ("10mbps", "known units: `bit`, `kbit`, `mbit`, `gbit`"),
            ("10MBit", "did you mean `mbit`?"),
            ("0mbit", "not usable"),
            ("1.2.3mbit", "not a rate"),
            ("1.mbit", "not a rate"),
            ("-5mbit", "not a rate"),
            ("99999999999999999999gbit", "not a rate"),
            ("9999gbit", "1kbit to 1000gbit"),
        ];
        for (text, part) in cases {
            let why = rate(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn prefixes_are_networks() {
        assert!(prefix("192.168.1.0/24").is_ok());
        assert!(prefix("fd00::/8").is_ok());
        assert!(prefix("192.168.1.5/24").unwrap_err().contains("write \"192.168.1.0/24\""));
        assert!(prefix("192.168.1.0/33").unwrap_err().contains("at most 32"));
        assert!(prefix("192.168.1.0").unwrap_err().contains("no prefix length"));
        assert!(prefix("192.168.1.0/+8").is_err());
        assert!(prefix("::/0").unwrap_err().contains("every address"));
        assert!(interface_address("192.168.50.1/24").is_ok());
    }

    #[test]
    fn overlap_is_by_the_shorter_prefix() {
        let p = |text| any_prefix(text, "").unwrap();
        assert!(overlap(p("10.0.0.0/8"), p("10.99.0.2/32")));
        assert!(overlap(p("10.99.0.2/32"), p("10.0.0.0/8")));
        assert!(!overlap(p("10.99.0.2/32"), p("10.99.0.3/32")));
        assert!(!overlap(p("0.0.0.0/0"), p("::/0")));
        assert!(overlap(p("fd99::/64"), p("fd99::2/128")));
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        assert_eq!(host("vps.example.net"), Ok(Host::Name("vps.example.net".to_owned())));
        assert_eq!(host("[fd00::1]"), Ok(Host::Address("fd00::1".parse().unwrap())));
        assert!(host("203.0.113.7:9001").unwrap_err().contains("has a port"));
        assert!(host("203.0.113.700").unwrap_err().contains("neither"));
        assert!(host("0.0.0.0").unwrap_err().contains("not the address of a host"));
        assert!(host("").is_err());
        assert!(host("a b").is_err());
    }

    #[test]
    fn ports_cycle() {
        let five = ports("9001-9005").unwrap();
        assert_eq!((five.cycle(0), five.cycle(4), five.cycle(5)), (9_001, 9_005, 9_001));
        assert_eq!(ports("7").unwrap().count(), 1);
        assert_eq!(ports("65535").unwrap().cycle(3), 65_535);
        assert!(ports("9005-9001").unwrap_err().contains("write \"9001-9005\""));
        assert!(ports("1-65535").unwrap_err().contains("too many"));
        assert!(ports("0").is_err());
        assert!(ports("+5").is_err());
    }
}
