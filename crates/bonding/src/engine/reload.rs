//! What becomes of a running plan when its file has another content.
//!
//! ```text
//! running plan ─┐            ┌─► the plan that runs from now on
//!               ├─ outcome ──┼─► a line for each change that takes effect
//! file's plan ──┘            └─► the keys that wait for the next start
//! ```
//! Contract: a plan is taken apart field by field, so a new field does not compile until it says
//! here which of the two it is. What waits keeps its running value, so that the next reload names
//! it again. Nothing is done here: the client or the server compares the plan that ran with the one
//! that runs now, and brings what differs to the part that owns it.
//!
//! It knows no files, sockets or sessions. Why each key is on its side:
//! docs/decisions/0077-what-a-reload-changes.md.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use bonding_os::nat::Reach;
use bonding_proto::config::{ClientConfig, Fec, RecoveryConfig, Sending};
use bonding_proto::qos::Rule;

use super::plan::{ClientPlan, DiscoveryPlan, InvitedPlan, LinkPlan, PeerPlan, RunPlan, ServerPlan, Split};
use crate::config::{Security, policy_word, role_word};
use crate::events::{Happening, Kind};

/// The plan of a file that was read again.
#[derive(Debug, Clone, PartialEq)]
pub enum NewPlan {
    /// A client's.
    Client(Box<ClientPlan>),
    /// A server's.
    Server(Box<ServerPlan>),
}

/// What becomes of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<P> {
    /// The plan from now on.
    pub plan: P,
    /// A line for each change that takes effect.
    pub changed: Vec<String>,
    /// The keys whose change takes effect at the next start.
    pub at_next_start: Vec<String>,
}

/// What is told of a reload that changed this.
pub fn happening(changed: &[String]) -> Happening {
    let text = if changed.is_empty() { "nothing changed".to_owned() } else { changed.join("; ") };
    Happening::new(Kind::Reloaded, format!("the configuration was read again: {text}"))
}

/// What a client becomes.
pub fn client(running: &ClientPlan, next: ClientPlan) -> Outcome<ClientPlan> {
    let mut seen = Seen::default();
    let ClientPlan { tunnel, hosts, ports, sealing, links, discovery, split, capture, usage_file, run } =
        next;
    let plan = ClientPlan {
        tunnel: seen.waits("[tunnel]", &running.tunnel, &tunnel),
        hosts: seen.waits("[server] host", &running.hosts, &hosts),
        ports: seen.waits("[server] ports", &running.ports, &ports),
        sealing: seen.waits("[server] or [identity]: a key or its file", &running.sealing, &sealing),
        links: seen.links(&running.links, links, running.sealing.is_some()),
        discovery: match (&running.sealing, &running.discovery) {
            // Links that are found are sealed, and this client has no keys.
            (None, None) => seen.waits("[discovery]", &None, &discovery),
            _ => seen.changes("[discovery]", &running.discovery, discovery, discovery_words),
        },
        split: seen.changes("[tcp] split", &running.split, split, |split| split_word(*split).to_owned()),
        capture: seen.waits("[routing]", &running.capture, &capture),
        usage_file: seen.waits("[identity] private_key_file", &running.usage_file, &usage_file),
        run: seen.run(&running.run, run),
    };
    seen.outcome(plan)
}

/// What a server becomes.
pub fn server(running: &ServerPlan, next: ServerPlan) -> Outcome<ServerPlan> {
    let mut seen = Seen::default();
    let ServerPlan {
        tunnel,
        listen,
        ports,
        private_key_file,
        clients,
        invited,
        nat,
        takes_streams,
        reach,
        run,
    } = next;
    let plan = ServerPlan {
        tunnel: seen.waits("[tunnel]", &running.tunnel, &tunnel),
        listen: seen.waits("[listen] address", &running.listen, &listen),
        ports: seen.waits("[listen] ports", &running.ports, &ports),
        private_key_file: seen.waits(
            "[identity] private_key_file",
            &running.private_key_file,
            &private_key_file,
        ),
        clients: seen.clients(&running.clients, clients),
        invited: seen.invited(&running.invited, invited),
        nat: seen.waits("[nat]", &running.nat, &nat),
        takes_streams: seen.changes("[tcp] split", &running.takes_streams, takes_streams, |takes| {
            if *takes { "on" } else { "off" }.to_owned()
        }),
        reach: seen.changes("[routing] allow", &running.reach, reach, |reach| reach_words(*reach)),
        run: seen.run(&running.run, run),
    };
    seen.outcome(plan)
}

/// Whether a client's session goes on under its new entry: all but its ceilings, what it may reach
/// and its links' names is as before.
pub fn keeps_session(running: &PeerPlan, next: &PeerPlan) -> bool {
    let like_before = |next: &PeerPlan| PeerPlan {
        config: ClientConfig {
            plain: running.config.plain.clone(),
            tx_rates: running.config.tx_rates.clone(),
            ..next.config.clone()
        },
        links: running.links.clone(),
        reach: running.reach,
        ..next.clone()
    };
    let peers = |plan: &PeerPlan| -> Vec<_> {
        plan.config.plain.iter().map(|peer| (peer.link, peer.remote)).collect()
    };
    like_before(next) == *running && peers(running) == peers(next)
}

/// The lines, as the comparison goes.
#[derive(Debug, Default)]
struct Seen {
    changed: Vec<String>,
    at_next_start: Vec<String>,
}

impl Seen {
    fn outcome<P>(self, plan: P) -> Outcome<P> {
        Outcome { plan, changed: self.changed, at_next_start: self.at_next_start }
    }

    /// A field whose new value takes effect.
    fn changes<T: PartialEq>(
        &mut self,
        key: impl Display,
        running: &T,
        next: T,
        show: impl Fn(&T) -> String,
    ) -> T {
        if *running != next {
            self.changed.push(format!("{key}: {} → {}", show(running), show(&next)));
        }
        next
    }

    /// A field whose new value waits.
    fn waits<T: PartialEq + Clone>(&mut self, key: impl Display, running: &T, next: &T) -> T {
        let key = key.to_string();
        if running != next && !self.at_next_start.contains(&key) {
            self.at_next_start.push(key);
        }
        running.clone()
    }

    fn run(&mut self, running: &RunPlan, next: RunPlan) -> RunPlan {
        let RunPlan {
            sending,
            heartbeat_interval,
            compression,
            mss_clamp,
            status_interval,
            state_file,
            // The command line's.
            trace: _,
        } = next;
        RunPlan {
            sending: self.sending(&running.sending, sending),
            heartbeat_interval: self.waits(
                "[heartbeat] interval",
                &running.heartbeat_interval,
                &heartbeat_interval,
            ),
            compression: self.waits("[compression]", &running.compression, &compression),
            mss_clamp: self.waits("[routing] mss_clamp", &running.mss_clamp, &mss_clamp),
            status_interval: self.changes(
                "[status] interval",
                &running.status_interval,
                status_interval,
                |interval: &Duration| format!("{interval:?}"),
            ),
            state_file: self.waits("[status] socket", &running.state_file, &state_file),
            trace: running.trace.clone(),
        }
    }

    fn sending(&mut self, running: &Sending, next: Sending) -> Sending {
        let Sending { policy, recovery, rules } = next;
        let old = running.recovery;
        let resend = |on: &bool| on.to_string();
        let rules = if rules == running.rules {
            running.rules.clone()
        } else {
            self.changed.push(format!("[[qos.rule]]: {}", rules_line(&running.rules, &rules)));
            rules
        };
        Sending {
            policy: self.changes("[scheduler] policy", &running.policy, policy, |policy| {
                policy_word(*policy).to_owned()
            }),
            recovery: RecoveryConfig {
                resend: self.changes("[recovery] resend", &old.resend, recovery.resend, resend),
                fec: self.changes("[recovery] fec", &old.fec, recovery.fec, |fec| fec_word(*fec)),
            },
            rules,
        }
    }

    /// Sealed links come and go; `has_keys`: this client can have some. The server's configuration
    /// names the plain ones.
    fn links(&mut self, running: &[LinkPlan], next: Vec<LinkPlan>, has_keys: bool) -> Vec<LinkPlan> {
        let find = |list: &[LinkPlan], name: &str| list.iter().find(|link| link.name == name).cloned();
        let mut links = Vec::new();
        for link in running {
            let is_gone = find(&next, &link.name).is_none();
            if is_gone && link.security == Security::Plain {
                self.at_next_start.push(format!("[[link]] \"{}\" (removed)", link.name));
                links.push(link.clone());
            } else if is_gone {
                self.changed.push(format!("[[link]] \"{}\": removed", link.name));
            }
        }
        for link in next {
            match find(running, &link.name) {
                Some(before) => links.push(self.link(&before, link)),
                None if link.security == Security::Plain || !has_keys => {
                    self.at_next_start.push(format!("[[link]] \"{}\" (added)", link.name));
                }
                None => {
                    self.changed.push(format!("[[link]] \"{}\": added", link.name));
                    links.push(link);
                }
            }
        }
        links
    }

    fn link(&mut self, running: &LinkPlan, next: LinkPlan) -> LinkPlan {
        let LinkPlan {
            name,
            interface,
            source,
            security,
            // Follows from its place, and from the server's ports.
            port: _,
            priority,
            role,
            tx_rate,
            rx_rate,
            cap,
            flows,
        } = next;
        let key = |key: &str| format!("[[link]] \"{name}\" {key}");
        // A link that is bound elsewhere is another one.
        let is_plain = running.security == Security::Plain;
        let source_words = |source: &Option<IpAddr>| or_none(source);
        let mut link = LinkPlan {
            interface: if is_plain {
                self.waits(key("interface"), &running.interface, &interface)
            } else {
                self.changes(key("interface"), &running.interface, interface, or_none)
            },
            source: if is_plain {
                self.waits(key("source"), &running.source, &source)
            } else {
                self.changes(key("source"), &running.source, source, source_words)
            },
            security: self.waits(key("security"), &running.security, &security),
            port: running.port,
            flows: self.waits(key("flows"), &running.flows, &flows),
            ..running.clone()
        };
        link.priority =
            self.changes(key("priority"), &running.priority, priority, |priority| priority.to_string());
        link.role = self.changes(key("role"), &running.role, role, |role| role_word(*role).to_owned());
        link.tx_rate = self.changes(key("up"), &running.tx_rate, tx_rate, or_none);
        link.rx_rate = self.changes(key("down"), &running.rx_rate, rx_rate, or_none);
        let gigabytes = |cap: &Option<u64>| or_none(&cap.map(|cap| format!("{} MB/month", cap / 1_000_000)));
        link.cap = self.changes(key("cap"), &running.cap, cap, gigabytes);
        link
    }

    fn clients(&mut self, running: &[PeerPlan], next: Vec<PeerPlan>) -> Vec<PeerPlan> {
        let find = |list: &[PeerPlan], name: &str| list.iter().position(|one| one.config.name == name);
        for client in running.iter().filter(|client| find(&next, &client.config.name).is_none()) {
            self.changed.push(format!("[[client]] \"{}\": removed, its session ends", client.config.name));
        }
        for client in &next {
            let name = &client.config.name;
            let Some(before) = find(running, name).and_then(|at| running.get(at)) else {
                self.changed.push(format!("[[client]] \"{name}\": added"));
                continue;
            };
            if !keeps_session(before, client) {
                self.changed.push(format!("[[client]] \"{name}\": changed, its session begins anew"));
                continue;
            }
            let key = |key: &str| format!("[[client]] \"{name}\" {key}");
            self.changes(key("allow"), &before.reach, client.reach, usual_or);
            if rates(before) != rates(client) {
                self.changed.push(key("link down: changed"));
            }
            if before.links != client.links {
                self.changed.push(key("link name: changed"));
            }
        }
        next
    }

    fn invited(&mut self, running: &[InvitedPlan], next: Vec<InvitedPlan>) -> Vec<InvitedPlan> {
        let names: BTreeSet<&str> = running.iter().chain(&next).map(|one| one.name.as_str()).collect();
        for name in names {
            let [before, after] = [running, &next].map(|list| of_invited(list, name));
            let key = |key: &str| format!("[[client]] \"{name}\" {key}");
            let [reach, next_reach] = [before, after].map(|one| one.and_then(|one| one.reach));
            self.changes(key("allow"), &reach, next_reach, usual_or);
            let [routes, next_routes] = [before, after].map(|one| one.map_or(&[][..], |one| &one.routes));
            if routes != next_routes {
                self.changed.push(key("routes: changed, its session begins anew"));
            }
        }
        next
    }
}

fn usual_or(reach: &Option<Reach>) -> String {
    reach.map_or_else(|| "as all".to_owned(), reach_words)
}

/// What counts for a client of this name that was invited.
pub fn of_invited<'a>(list: &'a [InvitedPlan], name: &str) -> Option<&'a InvitedPlan> {
    list.iter().find(|one| one.name == name)
}

/// The ceilings of what is sent to a client, on its links by number.
pub fn rates(client: &PeerPlan) -> Vec<Option<bonding_proto::units::BitRate>> {
    let mut rates = client.config.tx_rates.clone();
    for peer in &client.config.plain {
        let at = peer.link.index();
        rates.resize(rates.len().max(at + 1), None);
        if let Some(rate) = rates.get_mut(at) {
            *rate = peer.tx_rate;
        }
    }
    rates
}

fn or_none<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}

fn rules_line(running: &[Rule], next: &[Rule]) -> String {
    if running.len() == next.len() {
        let differ = running.iter().zip(next).filter(|(before, after)| before != after).count();
        format!("{differ} of {} changed", next.len())
    } else {
        format!("{} → {} rules", running.len(), next.len())
    }
}

fn discovery_words(discovery: &Option<DiscoveryPlan>) -> String {
    let Some(DiscoveryPlan { include, exclude, priority }) = discovery else { return "off".to_owned() };
    let names = |patterns: &Option<Vec<String>>| {
        patterns.as_ref().map_or_else(|| "the usual names".to_owned(), |list| list.join(" "))
    };
    format!("{} but {}, priority {priority}", names(include), names(exclude))
}

const fn split_word(split: Split) -> &'static str {
    match split {
        Split::Auto => "auto",
        Split::All => "all",
        Split::Off => "off",
    }
}

fn fec_word(fec: Fec) -> String {
    match fec {
        Fec::Auto => "auto".to_owned(),
        Fec::Off => "off".to_owned(),
        Fec::Fixed(permille) => format!("{} %", f64::from(permille) / 10.0),
    }
}

/// What clients may reach, in the words of `allow`.
pub fn allow_words(reach: Reach) -> Vec<&'static str> {
    let Reach { internet, server, private, clients } = reach;
    let words = [(internet, "internet"), (server, "server"), (private, "private"), (clients, "clients")];
    words.into_iter().filter(|(may, _)| *may).map(|(_, word)| word).collect()
}

fn reach_words(reach: Reach) -> String {
    let words = allow_words(reach);
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests;
