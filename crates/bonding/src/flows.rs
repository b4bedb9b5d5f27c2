//! The flows that cross the bond: the value behind `bondctl flows --json`.
//!
//! Client and server name a flow alike: its source is on the client's side of the bond, *up* is
//! from the client to the server. [`Top`] keeps the flows that were asked for while sessions are
//! looked through, so that memory follows the limit and not the flows.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bonding_proto::LinkId;
use bonding_proto::qos::classify::ClassReason;
use bonding_proto::qos::{InnerHeader, Tier};
use bonding_proto::session::flows::{Carried, FlowFigures, FlowKind};
use serde::{Deserialize, Serialize};

use crate::status::Role;

/// Flows of an answer, without a wish.
pub const LIMIT_DEFAULT: usize = 50;
/// And at most. Chosen: half a megabyte of JSON.
pub const LIMIT_MAX: usize = 1_000;

/// What flows are sorted by, the largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// The rate of the last second or two, both ways.
    #[default]
    Rate,
    /// The bytes so far, both ways.
    Bytes,
    /// How long the flow's packets wait on this side.
    Delay,
}

/// Which flows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At most as many.
    pub limit: usize,
    /// The first by this.
    pub sort: Sort,
}

/// The answer to a request for flows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// The first of them, as they were to be sorted.
    pub flows: Vec<Flow>,
    /// How many had packets in the last 10 s.
    pub active: u64,
}

/// A flow. Rates are in Mbit/s, times in ms; bytes are those of the application's packets, or of
/// the stream, without what was sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// On a server: the client's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the protocol's number.
    pub protocol: String,
    /// The end on the client's side, with its port; none where this side does not know it.
    pub source: Option<String>,
    /// The end on the server's side, with its port.
    pub destination: String,
    /// `realtime`, `interactive` or `bulk`; none: its traffic decides its tier.
    pub class: Option<String>,
    /// Why it has that class: `rule N`, `dscp`, `traffic`, `peer` (the other direction is realtime)
    /// or `service` (DNS, ICMP).
    pub class_by: Option<String>,
    /// The tier that it waits in on this side: `realtime`, `sparse`, `bulk` or `far`; none: nothing
    /// of it waited in the last second.
    pub tier: Option<String>,
    /// Whether its connection ends at the bond.
    pub split: bool,
    /// Why it goes as packets, if it does.
    pub packets_by: Option<String>,
    /// From the client to the server, lately.
    pub up_mbps: f64,
    /// From the server to the client, lately.
    pub down_mbps: f64,
    /// Bytes so far; of packets, since the flow was last silent for 10 s.
    pub up_bytes: u64,
    /// The same from the server to the client.
    pub down_bytes: u64,
    /// How long its first packet has waited on this side.
    pub queue_ms: f64,
    /// Bytes that wait on this side.
    pub queue_bytes: u64,
    /// For how long this side's writer waited for credit; of connections that end at the bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_blocked_ms: Option<f64>,
    /// How long ago its last packet was.
    pub idle_ms: f64,
    /// The links that carried it lately.
    pub links: Vec<Share>,
}

/// A link's share of a flow's bytes in the last second or two, by direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The link's name.
    pub name: String,
    /// Of what goes up, from 0 to 1.
    pub up: f64,
    /// Of what comes down.
    pub down: f64,
}

/// What a side adds to the figures of its session's flows.
pub(crate) trait Namer {
    /// Which side it is.
    fn role(&self) -> Role;
    /// The name of the session's client, on a server.
    fn client(&self) -> Option<&str>;
    /// The name of a link.
    fn link(&self, link: LinkId) -> String;
    /// Why a TCP connection with this header, as it goes from the client to the server, crosses the
    /// bond as packets.
    fn packets_by(&self, header: &InnerHeader) -> String;
}

/// The flows that are asked for, of those that were looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    wanted: Wanted,
    /// The largest first, by their key.
    flows: Vec<(u64, Flow)>,
    active: u64,
}

impl Top {
    /// None yet.
    pub const fn new(wanted: Wanted) -> Self {
        Self { wanted, flows: Vec::new(), active: 0 }
    }

    /// Which flows are wanted.
    pub const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Adds the first of other sessions' flows.
    pub fn merge(&mut self, more: Self) {
        self.active += more.active;
        self.flows.extend(more.flows);
        // Stable: of equals, the session that was looked at first.
        self.flows.sort_by(|(one, _), (other, _)| other.cmp(one));
        self.flows.truncate(self.wanted.limit);
    }

    /// How many flows were looked at.
    pub const fn active(&self) -> u64 {
        self.active
    }

    /// The flows, in their order.
    pub fn into_flows(self) -> impl Iterator<Item = Flow> {
        self.flows.into_iter().map(|(_, flow)| flow)
    }

    /// Looks at a flow; keeps it if it is one of the first.
    pub(crate) fn offer(&mut self, figures: &FlowFigures, namer: &impl Namer) {
        self.active += 1;
        let key = key(figures, self.wanted.sort);
        let at = self.flows.partition_point(|(known, _)| *known >= key);
        if at < self.wanted.limit {
            self.flows.truncate(self.wanted.limit - 1);
            self.flows.insert(at, (key, flow(figures, namer)));
        }
    }
}

fn key(figures: &FlowFigures, sort: Sort) -> u64 {
    let FlowFigures { sent, received, queue_delay, .. } = figures;
    match sort {
        Sort::Rate => sent.rate.as_bps().saturating_add(received.rate.as_bps()),
        Sort::Bytes => sent.bytes.saturating_add(received.bytes),
        Sort::Delay => u64::try_from(queue_delay.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn flow(figures: &FlowFigures, namer: &impl Namer) -> Flow {
    let is_client = namer.role() == Role::Client;
    let (sent, received) = (&figures.sent, &figures.received);
    let (up, down) = if is_client { (sent, received) } else { (received, sent) };
    let (protocol, source, destination, packets_by, credit_blocked) = match figures.kind {
        FlowKind::Packets(header) => {
            // As the client sends it.
            let header = if is_client { header } else { header.reversed() };
            let port = |which: fn((u16, u16)) -> u16| header.ports.map(which);
            let (source, destination) = (port(|(source, _)| source), port(|(_, destination)| destination));
            let protocol = protocol(header.protocol);
            let by = if header.protocol == 6 { namer.packets_by(&header) } else { protocol.to_uppercase() };
            let (source, destination) = (end(header.source, source), end(header.destination, destination));
            (protocol, Some(source), destination, Some(by), None)
        }
        FlowKind::Stream { ends, credit_blocked, .. } => {
            let (source, to) = (ends.from.map(|from| from.to_string()), ends.to.to_string());
            ("tcp".to_owned(), source, to, None, Some(credit_blocked))
        }
    };
    let (class, class_by) = figures.class.map(|(class, why)| (class.name().to_owned(), reason(why))).unzip();
    Flow {
        client: namer.client().map(str::to_owned),
        protocol,
        source,
        destination,
        class,
        class_by,
        tier: figures.tier.map(|tier| tier_word(tier).to_owned()),
        split: packets_by.is_none(),
        packets_by,
        up_mbps: rounded(up.rate.as_mbps()),
        down_mbps: rounded(down.rate.as_mbps()),
        up_bytes: up.bytes,
        down_bytes: down.bytes,
        queue_ms: millis(figures.queue_delay),
        queue_bytes: u64::try_from(figures.queue_bytes).unwrap_or(u64::MAX),
        credit_blocked_ms: credit_blocked.map(millis),
        idle_ms: millis(figures.idle),
        links: shares(up, down, namer),
    }
}

fn shares(up: &Carried, down: &Carried, namer: &impl Namer) -> Vec<Share> {
    let of = |carried: &Carried, link: LinkId| {
        let sum: u64 = carried.links.iter().map(|(_, bytes)| bytes).sum();
        let own = carried.links.iter().find(|(known, _)| *known == link).map_or(0, |(_, bytes)| *bytes);
        if sum == 0 { 0.0 } else { rounded(own as f64 / sum as f64) }
    };
    let mut links: Vec<LinkId> = up.links.iter().chain(&down.links).map(|(link, _)| *link).collect();
    links.sort_unstable();
    links.dedup();
    let share = |link: LinkId| Share { name: namer.link(link), up: of(up, link), down: of(down, link) };
    links.into_iter().map(share).collect()
}

/// An end of a flow, as addresses with ports are written.
fn end(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// Rules are counted from 1, as a person does.
fn reason(why: ClassReason) -> String {
    match why {
        ClassReason::Rule(at) => format!("rule {}", at + 1),
        ClassReason::Mark => "dscp".to_owned(),
        ClassReason::Traffic => "traffic".to_owned(),
        ClassReason::Peer => "peer".to_owned(),
        ClassReason::Service => "service".to_owned(),
    }
}

const fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Realtime => "realtime",
        Tier::Sparse => "sparse",
        Tier::Bulk => "bulk",
        Tier::Far => "far",
    }
}

fn millis(span: Duration) -> f64 {
    rounded(span.as_secs_f64() * 1e3)
}

/// Three decimals: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use bonding_proto::position::StreamId;
    use bonding_proto::qos::Class;
    use bonding_proto::streams::StreamEnds;
    use bonding_proto::units::BitRate;

    use super::*;

    struct Side(Role);

    impl Namer for Side {
        fn role(&self) -> Role {
            self.0
        }

        fn client(&self) -> Option<&str> {
            (self.0 == Role::Server).then_some("home")
        }

        fn link(&self, link: LinkId) -> String {
            format!("link{}", link.0)
        }

        fn packets_by(&self, header: &InnerHeader) -> String {
            format!("{:?}", header.ports)
        }
    }

    fn carried(bytes: u64, mbps: u64, links: &[(u8, u64)]) -> Carried {
        let links = links.iter().map(|(link, bytes)| (LinkId(*link), *bytes)).collect();
        Carried { bytes, rate: BitRate::from_bps(mbps * 1_000_000), links }
    }

    /// As the client sends it.
    fn call() -> FlowFigures {
        let header = InnerHeader {
            source: "192.168.1.7".parse().unwrap(),
            destination: "2001:db8::1".parse().unwrap(),
            protocol: 17,
            ports: Some((50_000, 443)),
            ecn: 0,
            dscp: 46,
        };
        FlowFigures {
            kind: FlowKind::Packets(header),
            class: Some((Class::Realtime, ClassReason::Rule(1))),
            tier: Some(Tier::Realtime),
            queue_delay: Duration::from_micros(1_500),
            queue_bytes: 200,
            sent: carried(5_000, 1, &[(0, 750), (2, 250)]),
            received: carried(9_000, 2, &[(2, 500)]),
            idle: Duration::from_millis(20),
        }
    }

    fn download() -> FlowFigures {
        let id = StreamId::new(4).unwrap();
        let from = Some("192.168.1.7:40000".parse().unwrap());
        let ends = StreamEnds { from, to: "203.0.113.9:443".parse().unwrap() };
        let credit_blocked = Duration::from_millis(70);
        FlowFigures {
            kind: FlowKind::Stream { id, ends, credit_blocked },
            class: None,
            tier: None,
            queue_delay: Duration::ZERO,
            queue_bytes: 0,
            sent: carried(100, 0, &[]),
            received: carried(1_000_000, 80, &[(0, 1), (1, 3)]),
            idle: Duration::ZERO,
        }
    }

    /// Three flows of a session, which differ in their bytes.
    pub(crate) fn offered(wanted: Wanted, session: u64) -> Top {
        let mut top = Top::new(wanted);
        for number in 0..3 {
            let sent = carried(session * 7_919 % 1_009 + number, 1, &[]);
            top.offer(&FlowFigures { sent, ..call() }, &Side(Role::Server));
        }
        top
    }

    fn top(role: Role, limit: usize, sort: Sort, all: &[FlowFigures]) -> Flows {
        let mut top = Top::new(Wanted { limit, sort });
        all.iter().for_each(|figures| top.offer(figures, &Side(role)));
        Flows { active: top.active(), flows: top.into_flows().collect() }
    }

    #[test]
    fn flows_have_their_documented_shape() {
        let flows = top(Role::Client, 2, Sort::Rate, &[call(), download()]);
        let json = serde_json::to_value(&flows).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"flows": [
                {
                    "protocol": "tcp", "source": "192.168.1.7:40000", "destination": "203.0.113.9:443",
                    "class": null, "class_by": null, "tier": null, "split": true, "packets_by": null,
                    "up_mbps": 0.0, "down_mbps": 80.0, "up_bytes": 100, "down_bytes": 1_000_000,
                    "queue_ms": 0.0, "queue_bytes": 0, "credit_blocked_ms": 70.0, "idle_ms": 0.0,
                    "links": [
                        {"name": "link0", "up": 0.0, "down": 0.25}, {"name": "link1", "up": 0.0, "down": 0.75}
                    ]
                },
                {
                    "protocol": "udp", "source": "192.168.1.7:50000", "destination": "[2001:db8::1]:443",
                    "class": "realtime", "class_by": "rule 2", "tier": "realtime",
                    "split": false, "packets_by": "UDP",
                    "up_mbps": 1.0, "down_mbps": 2.0, "up_bytes": 5_000, "down_bytes": 9_000,
                    "queue_ms": 1.5, "queue_bytes": 200, "idle_ms": 20.0,
                    "links": [
                        {"name": "link0", "up": 0.75, "down": 0.0}, {"name": "link2", "up": 0.25, "down": 1.0}
                    ]
                }
            ], "active": 2})
        );
        assert_eq!(serde_json::from_value::<Flows>(json).unwrap(), flows);
    }

    #[test]
    fn a_server_names_the_client_and_sees_the_same_ends() {
        let tcp = |figures: FlowFigures, is_reversed: bool| {
            let FlowKind::Packets(header) = figures.kind else { panic!() };
            let header = InnerHeader { protocol: 6, ..header };
            let kind = FlowKind::Packets(if is_reversed { header.reversed() } else { header });
            FlowFigures { kind, ..figures }
        };
        let at_server = FlowFigures { sent: call().received, received: call().sent, ..tcp(call(), true) };
        let server = top(Role::Server, 1, Sort::Rate, &[at_server]).flows.remove(0);
        let client = top(Role::Client, 1, Sort::Rate, &[tcp(call(), false)]).flows.remove(0);
        assert_eq!(server.client.as_deref(), Some("home"));
        assert_eq!(client.packets_by.as_deref(), Some("Some((50000, 443))"), "the client's header");
        assert_eq!(Flow { client: None, ..server }, client);
    }

    #[test]
    fn only_the_first_are_kept_whatever_comes() {
        let all: Vec<FlowFigures> = (0..5_000_u64)
            .map(|number| FlowFigures {
                queue_delay: Duration::from_micros(number % 7),
                sent: carried(number * 31 % 4_999, number * 17 % 5_003, &[]),
                received: carried(0, 0, &[]),
                ..call()
            })
            .collect();
        for limit in [1, 10, LIMIT_MAX] {
            let flows = top(Role::Client, limit, Sort::Bytes, &all);
            let bytes: Vec<u64> = flows.flows.iter().map(|flow| flow.up_bytes).collect();
            let mut sorted: Vec<u64> = all.iter().map(|figures| figures.sent.bytes).collect();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            sorted.truncate(limit);
            assert_eq!((bytes, flows.active), (sorted, 5_000));
            let flows = top(Role::Client, limit, Sort::Delay, &all).flows;
            assert!(flows.iter().take(700).all(|flow| flow.queue_ms == 0.006), "the longest first");
        }
    }
}
