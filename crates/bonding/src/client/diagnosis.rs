//! What is known about why a link is down, as one sentence.

use std::time::Duration;

use bonding_os::udp::{Refusal, RefusalKind};

use crate::engine::sockets::Trouble;

/// Whether the link has an address of the server to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way<'a> {
    /// It has.
    Known,
    /// The server's name has no address, for this reason.
    NoAddress(&'a str),
    /// The server has none of a family that the link can use.
    NoFamily,
}

impl<'a> Way<'a> {
    /// `failure`: why the server's name has no address.
    pub(super) const fn of(has_path: bool, failure: Option<&'a str>) -> Self {
        match (has_path, failure) {
            (true, _) => Self::Known,
            (false, Some(failure)) => Self::NoAddress(failure),
            (false, None) => Self::NoFamily,
        }
    }
}

/// What is known of a link that is down.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    /// The device that its socket is bound to.
    pub(super) interface: Option<&'a str>,
    /// What its socket was told.
    pub(super) trouble: Option<Trouble>,
    /// Whether there is an address to send to.
    pub(super) way: Way<'a>,
    /// Strict reverse-path filtering drops what comes in.
    pub(super) is_filtered: bool,
    /// The tunnel's device, if a route leads what the link sends into it.
    pub(super) looped: Option<&'a str>,
    /// Another link is up.
    pub(super) others_are_up: bool,
}

impl Known<'_> {
    /// The cause, as far as it is known; the surest comes first.
    pub(super) fn cause(&self) -> String {
        let interface = self.interface.unwrap_or("the interface");
        let refusal = match &self.trouble {
            Some(Trouble::NoSocket(why)) => return format!("{interface} cannot be used: {why}"),
            Some(Trouble::NoCarrier) => return format!("{interface} is down or has no carrier"),
            Some(Trouble::NoAddress) => return format!("{interface} has no address"),
            Some(Trouble::Refused(refusal)) => Some(*refusal),
            None => None,
        };
        match self.way {
            Way::Known => {}
            Way::NoAddress(failure) => return format!("the server's address is not known: {failure}"),
            Way::NoFamily => return "the server has no address of a family that the link has".to_owned(),
        }
        if let Some(tunnel) = self.looped {
            return format!(
                "a route of this machine leads the server's address into {tunnel}, which is a loop: the link needs an \
                 `interface`, or a route to the server over its line"
            );
        }
        if self.is_filtered {
            return format!(
                "the kernel drops what comes in by {interface}, since its default route is elsewhere: strict \
                 reverse-path filtering; net.ipv4.conf.{interface}.rp_filter = 2 ends that"
            );
        }
        if let Some(refusal) = refusal {
            return refused(refusal, interface);
        }
        if self.others_are_up {
            "nothing comes back, but over other links: something on the way drops it".to_owned()
        } else {
            "nothing comes back on any link: the server is away, a firewall drops its ports, or it does not know \
             this client's key"
                .to_owned()
        }
    }
}

/// What an error means.
fn refused(refusal: Refusal, interface: &str) -> String {
    use RefusalKind::{Forbidden, NoAddress, NoListener, NoRoute, Other, TooBig, Unreachable};
    let error = refusal.error();
    let Some(by) = refusal.by else {
        return match refusal.kind() {
            Forbidden => "a firewall of this machine forbids the datagrams".to_owned(),
            NoRoute | Unreachable => format!("this machine has no route to the server over {interface}"),
            NoAddress => format!("{interface} has no address to send from"),
            TooBig => format!("the datagrams are larger than {interface} carries"),
            NoListener | Other => format!("this machine does not send: {error}"),
        };
    };
    match refusal.kind() {
        Forbidden => format!("{by} answers that a firewall forbids the datagrams"),
        NoRoute => format!("{by} answers that it has no route to the server"),
        Unreachable => format!("{by} answers that the server is unreachable, or rejects the datagrams"),
        NoListener => format!("{by} answers that no server is at that port, or its firewall rejects it"),
        TooBig => format!("{by} answers that the datagrams are too large for the way"),
        NoAddress | Other => format!("{by} answers: {error}"),
    }
}

/// The sentence: the cause, since when, and the port of the server that was tried last.
pub(super) fn sentence(cause: &str, was_up: bool, silent: Duration, port: u16) -> String {
    let seconds = silent.as_secs();
    let silent = match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    };
    let since = if was_up { "no answer for" } else { "never an answer, for" };
    format!("{cause} ({since} {silent}; last tried: port {port} of the server)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(trouble: Option<Trouble>) -> Known<'static> {
        Known {
            interface: Some("sat1"),
            trouble,
            way: Way::Known,
            is_filtered: false,
            looped: None,
            others_are_up: true,
        }
    }

    #[test]
    fn each_error_has_its_own_cause() {
        let router = Some("192.0.2.1".parse().unwrap());
        // EPERM, ENETUNREACH, EMSGSIZE, ENOBUFS; ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EMSGSIZE.
        let mut causes: Vec<String> = [
            (1, None),
            (101, None),
            (90, None),
            (105, None),
            (111, router),
            (113, router),
            (101, router),
            (90, router),
        ]
        .into_iter()
        .map(|(code, by)| known(Some(Trouble::Refused(Refusal { code, by }))).cause())
        .collect();
        assert!(causes.iter().skip(4).all(|cause| cause.starts_with("192.0.2.1 answers")), "{causes:?}");
        causes.extend([Trouble::NoCarrier, Trouble::NoAddress].map(|trouble| known(Some(trouble)).cause()));
        causes.push(known(None).cause());
        causes.push(Known { others_are_up: false, ..known(None) }.cause());
        causes.push(Known { is_filtered: true, ..known(None) }.cause());
        causes.push(Known { way: Way::NoFamily, ..known(None) }.cause());
        causes.push(Known { way: Way::NoAddress("no nameserver"), ..known(None) }.cause());
        causes.push(Known { looped: Some("tun-bond"), ..known(None) }.cause());
        let count = causes.len();
        causes.sort();
        causes.dedup();
        assert_eq!(causes.len(), count, "{causes:?}");
    }

    #[test]
    fn a_sentence_has_the_cause_the_time_and_the_port() {
        assert_eq!(
            sentence("sat1 has no address", true, Duration::from_secs(200), 9_003),
            "sat1 has no address (no answer for 3 min; last tried: port 9003 of the server)"
        );
        let never = sentence("x", false, Duration::from_secs(3), 9_001);
        assert_eq!(never, "x (never an answer, for 3 s; last tried: port 9001 of the server)");
    }
}
