//! The interfaces of this machine that are lines, though their names are not those of lines: the
//! client finds these only where its file names them.

use bonding_os::netlink::{DefaultRoute, Interface};

use crate::client::discovery::{EXCLUDE, INCLUDE, matches};

/// Interfaces with a default route and another name than the usual ones.
pub(super) fn unusual<'a>(
    interfaces: impl Iterator<Item = &'a Interface>,
    routes: &[DefaultRoute],
) -> Vec<String> {
    let is_unusual = |interface: &&Interface| {
        let like = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, &interface.name));
        let leads_out = routes.iter().any(|route| route.index == interface.index);
        leads_out && !like(&EXCLUDE) && !like(&INCLUDE) && is_holdable(&interface.name)
    };
    interfaces.filter(is_unusual).map(|interface| interface.name.clone()).collect()
}

/// Whether the configuration can hold the name.
fn is_holdable(name: &str) -> bool {
    crate::config::interface(name).is_ok() && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_other_names_are_written_down() {
        let interface =
            |index, name: &str| Interface { index, name: name.to_owned(), ..Interface::default() };
        let interfaces = [
            interface(1, "lo"),
            interface(2, "eth0"),
            interface(3, "line"),
            interface(4, "lan0"),
            interface(5, "docker0"),
            interface(6, "tun-bond"),
            interface(7, "odd\u{1}"),
        ];
        let route = |index| DefaultRoute { index, metric: 0, ipv4: true };
        assert_eq!(unusual(interfaces.iter(), &[2, 3, 5, 6, 7].map(route)), ["line"]);
        assert_eq!(unusual(interfaces.iter(), &[]), Vec::<String>::new());
    }
}
