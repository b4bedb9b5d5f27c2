//! The requests on the control socket.
//!
//! A request without arguments is a word (`status`, `clients`); one with arguments is JSON on one
//! line, such as `{"request":"invite","name":"home"}`. Every request may be JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{self, Host};
use crate::engine::command::{Command, LinkOrder};
use crate::flows::{LIMIT_DEFAULT, LIMIT_MAX, Sort, Wanted};
use crate::invitation::HOSTS_MAX;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The status.
    Status,
    /// The clients of a server.
    Clients,
    /// The flows that had packets in the last 10 s.
    Flows {
        /// How many at most.
        #[serde(default = "limit")]
        limit: usize,
        /// What they are sorted by.
        #[serde(default)]
        sort: Sort,
    },
    /// The version of the protocol and of the program.
    Version,
    /// The events behind one.
    Events {
        /// Its number; 0: from the first on.
        #[serde(default)]
        after: u64,
    },
    /// From now on figures, and events as they happen.
    Subscribe {
        /// Between two lines of figures, from 100; 0: no figures.
        #[serde(default = "interval_ms")]
        interval_ms: u64,
        /// The number of the event behind which events are sent; missing: none are.
        #[serde(default)]
        after: Option<u64>,
    },
    /// Invite a client.
    Invite {
        /// The name of the client.
        name: String,
        /// Hosts at which the client finds the server.
        #[serde(default)]
        hosts: Vec<String>,
        /// On which ports.
        #[serde(default)]
        ports: Option<String>,
    },
    /// Set when a client's key expires.
    Expire {
        /// The name of the client.
        name: String,
        /// How long from now, such as `90d`, or `never`.
        after: String,
    },
    /// Make a new key for this client.
    Rekey,
    /// Read the configuration file again.
    Reload,
    /// Use a client's link for something else.
    Link {
        /// Its name.
        name: String,
        /// `"demote"`, `"enable"` or `{"priority":N}`.
        order: LinkOrder,
    },
    /// Remove a client.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// The requests that are a word.
const WORDS: &[(&str, Request)] = &[
    ("status", Request::Status),
    ("clients", Request::Clients),
    ("flows", Request::Flows { limit: LIMIT_DEFAULT, sort: Sort::Rate }),
    ("events", Request::Events { after: 0 }),
    ("version", Request::Version),
    ("rekey", Request::Rekey),
    ("reload", Request::Reload),
];

const fn interval_ms() -> u64 {
    1_000
}

const fn limit() -> usize {
    LIMIT_DEFAULT
}

impl Request {
    /// The line on the socket, without its end.
    pub fn line(&self) -> String {
        let word = WORDS.iter().find(|(_, request)| request == self);
        word.map_or_else(
            || serde_json::to_string(self).expect("strings are always JSON"),
            |(word, _)| (*word).to_owned(),
        )
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The mistake.
    pub fn parse(line: &str) -> Result<Self, String> {
        if line.starts_with('{') {
            return serde_json::from_str(line).map_err(|error| format!("malformed request: {error}"));
        }
        let word = WORDS.iter().find(|(word, _)| *word == line);
        word.map(|(_, request)| request.clone()).ok_or_else(|| {
            let words: Vec<&str> = WORDS
                .iter()
                .map(|(word, _)| *word)
                .chain(["subscribe", "link", "invite", "expire", "revoke"])
                .collect();
            let shown: String = line.chars().take(40).collect();
            format!("unknown request \"{shown}\"; known: {}", words.join(", "))
        })
    }

    /// The engine's command for it; `None`: what the engine need not carry out, or a reload, for
    /// which the file is read first.
    ///
    /// # Errors
    /// The mistake in an argument.
    pub fn command(&self) -> Result<Option<Command>, String> {
        Ok(Some(match self {
            Self::Status | Self::Reload | Self::Version | Self::Events { .. } | Self::Subscribe { .. } => {
                return Ok(None);
            }
            Self::Link { name, order } => Command::Link { name: config::name(name)?, order: *order },
            Self::Clients => Command::Clients { after: None },
            Self::Flows { limit, sort } => {
                if !(1..=LIMIT_MAX).contains(limit) {
                    return Err(format!("a limit of {limit} flows is not from 1 to {LIMIT_MAX}"));
                }
                Command::Flows { after: None, wanted: Wanted { limit: *limit, sort: *sort } }
            }
            Self::Invite { name, hosts, ports } => Command::Invite {
                name: config::name(name)?,
                hosts: parse_hosts(hosts)?,
                ports: ports.as_deref().map(config::ports).transpose()?,
            },
            Self::Expire { name, after } => {
                Command::Expire { name: config::name(name)?, after: parse_after(after)? }
            }
            Self::Rekey => Command::Rekey,
            Self::Revoke { name } => Command::Revoke { name: config::name(name)? },
        }))
    }
}

/// `never` is `None`.
fn parse_after(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" {
        return Ok(None);
    }
    let parsed = humantime::parse_duration(text).map(Some);
    parsed.map_err(|_| format!("\"{text}\" is no duration: write 90d, 12h, 2weeks, 1year or never"))
}

fn parse_hosts(hosts: &[String]) -> Result<Vec<Host>, String> {
    if hosts.len() > HOSTS_MAX {
        return Err(format!("an invitation names at most {HOSTS_MAX} hosts"));
    }
    hosts.iter().map(|host| config::host(host)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expire(after: &str) -> Request {
        Request::Expire { name: "home".to_owned(), after: after.to_owned() }
    }

    #[test]
    fn a_key_expires_after_a_duration_or_never() {
        for (text, after) in
            [("90d", Some(Duration::from_secs(90 * 86_400))), ("0s", Some(Duration::ZERO)), ("never", None)]
        {
            assert_eq!(
                expire(text).command(),
                Ok(Some(Command::Expire { name: "home".to_owned(), after })),
                "{text}"
            );
        }
        for text in ["", "90", "soon", "-1d", "99999999999999y"] {
            assert!(expire(text).command().is_err_and(|why| why.contains("is no duration")), "{text}");
        }
    }

    #[test]
    fn requests_are_words_or_json() {
        let invite = Request::Invite {
            name: "home".to_owned(),
            hosts: vec!["vps.example.net".to_owned(), "[2001:db8::1]".to_owned()],
            ports: Some("9001-9005".to_owned()),
        };
        let revoke = Request::Revoke { name: "home".to_owned() };
        for (request, line) in [
            (Request::Status, "status"),
            (Request::Clients, "clients"),
            (
                invite,
                r#"{"request":"invite","name":"home","hosts":["vps.example.net","[2001:db8::1]"],"ports":"9001-9005"}"#,
            ),
            (revoke, r#"{"request":"revoke","name":"home"}"#),
            (expire("90d"), r#"{"request":"expire","name":"home","after":"90d"}"#),
            (Request::Events { after: 0 }, "events"),
            (Request::Events { after: 17 }, r#"{"request":"events","after":17}"#),
            (
                Request::Subscribe { interval_ms: 100, after: Some(17) },
                r#"{"request":"subscribe","interval_ms":100,"after":17}"#,
            ),
            (Request::Version, "version"),
            (Request::Rekey, "rekey"),
            (Request::Reload, "reload"),
            (
                Request::Link { name: "adsl".to_owned(), order: LinkOrder::Priority(3) },
                r#"{"request":"link","name":"adsl","order":{"priority":3}}"#,
            ),
            (
                Request::Link { name: "adsl".to_owned(), order: LinkOrder::Demote },
                r#"{"request":"link","name":"adsl","order":"demote"}"#,
            ),
            (Request::Flows { limit: LIMIT_DEFAULT, sort: Sort::Rate }, "flows"),
            (
                Request::Flows { limit: 7, sort: Sort::Delay },
                r#"{"request":"flows","limit":7,"sort":"delay"}"#,
            ),
        ] {
            assert_eq!(request.line(), line);
            assert_eq!(Request::parse(line), Ok(request));
        }
        let by_bytes = Request::Flows { limit: LIMIT_DEFAULT, sort: Sort::Bytes };
        assert_eq!(Request::parse(r#"{"request":"flows","sort":"bytes"}"#), Ok(by_bytes));
        let short = Request::Invite { name: "home".to_owned(), hosts: Vec::new(), ports: None };
        assert_eq!(Request::parse(r#"{"request":"invite","name":"home"}"#), Ok(short));
    }

    #[test]
    fn an_invalid_request_is_answered_with_the_reason() {
        let cases = [
            (
                "",
                "unknown request \"\"; known: status, clients, flows, events, version, rekey, reload, subscribe, link, invite, expire, revoke",
            ),
            ("invite home", "unknown request \"invite home\""),
            ("{", "malformed request: EOF"),
            (r#"{"request":"invite"}"#, "malformed request: missing field `name`"),
            (r#"{"request":"revoke","name":"a","why":1}"#, "malformed request: unknown field `why`"),
            (r#"{"request":"reboot"}"#, "malformed request: unknown variant `reboot`"),
        ];
        for (line, expected) in cases {
            let why = Request::parse(line).unwrap_err();
            assert!(why.starts_with(expected), "{line}: {why}");
        }
        let invite = |name: &str, host: &str, ports: &str| {
            let (name, hosts, ports) = (name.to_owned(), vec![host.to_owned()], Some(ports.to_owned()));
            Request::Invite { name, hosts, ports }.command().unwrap_err()
        };
        assert!(invite("my home", "vps", "1").contains("not usable as a name"));
        assert!(invite("home", "vps:9001", "1").contains("has a port"));
        assert!(invite("home", "vps", "9005-9001").contains("reversed"));
        for limit in [0, LIMIT_MAX + 1, usize::MAX] {
            let why = Request::Flows { limit, sort: Sort::Rate }.command().unwrap_err();
            assert!(why.contains("is not from 1 to 1000"), "{why}");
        }
        let many = vec!["vps".to_owned(); HOSTS_MAX + 1];
        let many = Request::Invite { name: "home".to_owned(), hosts: many, ports: None };
        assert!(many.command().unwrap_err().contains("at most 8 hosts"));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in any::<String>(), field in "[a-z\":,\\[\\]{}]{0,60}") {
            for line in [line, format!("{{\"request\":\"invite\",{field}}}")] {
                if let Ok(request) = Request::parse(&line) {
                    let _ = request.command();
                }
            }
        }
    }
}
