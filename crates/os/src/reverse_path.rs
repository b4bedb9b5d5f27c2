//! Reverse-path filtering: the kernel drops what comes in by an interface over which it would not
//! send to the sender. Strict filtering (RFC 3704) so keeps every answer from a line that is not
//! the default route.
//!
//! Source: the kernel's Documentation/networking/ip-sysctl.rst, `rp_filter`.

use std::fs;

/// The settings of all interfaces.
const ROOT: &str = "/proc/sys/net/ipv4/conf";
/// The kernel's counters of this network namespace.
const COUNTERS: &str = "/proc/net/netstat";
/// The counter of packets that the filter dropped.
const DROPS: &str = "IPReversePathFilter";

/// The value that drops only what has no route back at all.
pub(crate) const LOOSE: &str = "2";

/// Whether this is the setting of an interface.
pub(crate) fn is_setting(path: &str) -> bool {
    let interface = path.strip_prefix(ROOT).and_then(|rest| rest.strip_suffix("/rp_filter"));
    interface
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('.'))
}

/// The setting of an interface.
pub(crate) fn setting(interface: &str) -> String {
    format!("{ROOT}/{interface}/rp_filter")
}

/// Whether IPv4 packets that come in by the interface are filtered strictly: of its setting and
/// the one for all interfaces the larger counts.
pub fn is_strict(interface: &str) -> bool {
    if interface.contains('/') || interface.starts_with('.') {
        return false;
    }
    let value = |of: &str| fs::read_to_string(setting(of)).ok()?.trim().parse::<u8>().ok();
    value(interface).is_some_and(|own| own.max(value("all").unwrap_or(0)) == 1)
}

/// How many packets the filter dropped so far, on any interface; `None`: the kernel does not say.
pub fn drops() -> Option<u64> {
    parse(&fs::read_to_string(COUNTERS).ok()?)
}

/// A line of names is followed by one of values.
fn parse(text: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(2).find_map(|pair| {
        let [names, values] = pair else { return None };
        let place = names.split(' ').position(|name| name == DROPS)?;
        values.split(' ').nth(place)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text =
            "TcpExt: SyncookiesSent IPReversePathFilter TW\nTcpExt: 1 42 3\nIpExt: InNoRoutes\nIpExt: 7\n";
        assert_eq!(parse(text), Some(42));
        assert_eq!(parse("TcpExt: SyncookiesSent\nTcpExt: 1\n"), None);
        assert_eq!(parse("TcpExt: IPReversePathFilter"), None);
        assert!(drops().is_some(), "this kernel counts");
    }

    #[test]
    fn names_of_other_files_are_no_interfaces() {
        assert!(is_setting(&setting("eth0.5")));
        for other in
            ["", "..", "a/b"].map(setting).into_iter().chain(["/proc/sys/net/ipv4/ip_forward".to_owned()])
        {
            assert!(!is_setting(&other), "{other}");
        }
        assert!(!is_strict("../conf/all") && !is_strict("no-such-if"));
    }
}
