//! A sealed client and its server's endpoint, in virtual time, over links that delay, lose, and
//! change addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;

pub(super) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 2));

/// An IPv4 UDP packet, numbered.
pub(super) fn packet(up: bool, number: u32) -> PacketBuf {
    let mut bytes = vec![0; 200];
    let (client, other) = ([10, 99, 0, 2], [198, 51, 100, 2]);
    bytes[0] = 0x45;
    bytes[3] = 200;
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(if up { &client } else { &other });
    bytes[16..20].copy_from_slice(if up { &other } else { &client });
    bytes[28..32].copy_from_slice(&number.to_be_bytes());
    PacketBuf::from(Bytes::from(bytes))
}

/// A heartbeat of that run, sent at `now`.
pub(super) fn heartbeat(epoch: u32, now: Instant) -> Heartbeat {
    Heartbeat {
        epoch,
        stamp_us: now.as_micros(),
        sent: 1_000,
        echo: None,
        proven: true,
        at_once: true,
        priority: 1,
        role: LinkRole::Primary,
        rx_ceiling: None,
        resends: false,
        partial: false,
        indirect_feedback: true,
        streams: false,
        figures: false,
        failed: 0,
        flows: None,
        retired: 0,
    }
}

pub(super) fn number(packet: &PacketBuf) -> u32 {
    u32::from_be_bytes(packet[28..32].try_into().unwrap())
}

pub(super) fn server_address(link: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1], 9_001 + u16::from(link)))
}

/// How a client differs from another.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) key: u8,
    pub(super) run: u8,
    pub(super) psk: Option<u8>,
    pub(super) token: Option<u8>,
    pub(super) aes: bool,
}

pub(super) const HOME: Who = Who { key: 1, run: 1, psk: None, token: None, aes: true };

pub(super) fn session(who: &Who, links: u8, now: Instant) -> Session {
    session_over(who, links, UdpFlows::Auto, now)
}

/// The same with so many UDP flows on each link.
pub(super) fn session_over(who: &Who, links: u8, flows: UdpFlows, now: Instant) -> Session {
    Session::new(session_config(who, links, flows), now)
}

pub(super) fn session_config(who: &Who, links: u8, flows: UdpFlows) -> SessionConfig {
    let link = |id: u8| LinkConfig {
        security: Security::Sealed,
        priority: 1,
        role: LinkRole::Primary,
        tx_rate: Some(BitRate::from_bps(50_000_000)),
        rx_rate: None,
        mtu: 1_500,
        path: Some(Path { socket: SocketId(id), remote: server_address(id), local: None }),
        flows,
        alternatives: Vec::new(),
    };
    SessionConfig {
        role: Role::Client,
        links: (0..links).map(link).collect(),
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 1,
        epoch: u64::from(who.run),
        sealing: Some(ClientSealing {
            identity: PrivateKey::from_bytes([who.key; 32]),
            server: PrivateKey::from_bytes([99; 32]).public(),
            preshared: who.psk.map(|byte| PresharedKey::from_bytes([byte; 32])),
            aes_fast: who.aes,
            run: u64::from(who.run),
            entropy: [who.key ^ who.run; 32],
            token: who.token.map(|byte| Token::from_bytes([byte; 16])),
            next: None,
        }),
    }
}

/// The key of the invitation whose token has only this byte.
pub(super) fn invitation(byte: u8) -> InvitationKey {
    InvitationKey::new(&Token::from_bytes([byte; 16]))
}

/// As an invitation enrols it.
pub(super) fn enrolled_by(byte: u8, key: u8) -> ClientConfig {
    let [server, client] = [99, key].map(|key| PrivateKey::from_bytes([key; 32]).public());
    ClientConfig { preshared: Some(invitation(byte).preshared(&server, &client)), ..enrolled(key, None) }
}

pub(super) fn enrolled(key: u8, psk: Option<u8>) -> ClientConfig {
    ClientConfig {
        name: format!("client{key}"),
        prefixes: vec![Prefix { address: CLIENT, length: 32 }],
        plain: Vec::new(),
        public_key: Some(PrivateKey::from_bytes([key; 32]).public()),
        preshared: psk.map(|byte| PresharedKey::from_bytes([byte; 32])),
        addresses: vec![Prefix { address: CLIENT, length: 24 }],
        tx_rates: Vec::new(),
    }
}

pub(super) fn endpoint(clients: Vec<ClientConfig>, epoch: u8, now: Instant) -> Endpoint {
    let config = EndpointConfig {
        clients,
        policy: Policy::Adaptive,
        heartbeat_interval: Duration::from_millis(100),
        mtu: 1_429,
        mss_clamp: true,
        recovery: RecoveryConfig::default(),
        rules: [].into(),
        seed: 2,
        epoch: u64::from(epoch),
        sealing: Some(ServerSealing {
            identity: PrivateKey::from_bytes([99; 32]),
            aes_fast: true,
            entropy: [epoch; 32],
        }),
    };
    let mut endpoint = Endpoint::new(&config, now);
    endpoint.set_enrolling(true);
    endpoint
}

/// A datagram on its way: to the server or not, socket, sender's address, bytes.
pub(super) type Flight = (bool, u8, SocketAddr, Vec<u8>);

pub(super) struct World {
    pub(super) client: Session,
    pub(super) server: Endpoint,
    pub(super) now: Instant,
    pub(super) delay: Duration,
    /// What each link takes beyond that.
    pub(super) extra: Vec<Duration>,
    /// The client's address on each link as the server sees it.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) cut: Vec<bool>,
    /// UDP flows on which nothing passes, of all links.
    pub(super) cut_flows: Vec<u8>,
    /// Every how-manieth datagram is lost; 0: none.
    pub(super) lose_every: u64,
    pub(super) flying: BTreeMap<(Instant, u64), Flight>,
    pub(super) order: u64,
    pub(super) up: Vec<u32>,
    pub(super) down: Vec<u32>,
    pub(super) events: Vec<Event>,
    pub(super) server_events: Vec<Event>,
    /// Datagrams and bytes that the server sent to each address.
    pub(super) to: BTreeMap<SocketAddr, (u64, u64)>,
    pub(super) from: BTreeMap<SocketAddr, u64>,
    /// What went to the server, for attackers.
    pub(super) seen: Vec<(u8, Vec<u8>)>,
    /// What each link carries, as whole IP packets, up and down.
    pub(super) limits: Vec<[usize; 2]>,
    /// What came out, to the client and to its server: whatever is not UDP, and the size of what
    /// is.
    pub(super) others: [Vec<PacketBuf>; 2],
    pub(super) sizes: [Vec<usize>; 2],
}

impl World {
    pub(super) fn new(who: &Who, clients: Vec<ClientConfig>, links: u8) -> Self {
        let now = Instant::from_nanos(5_000_000_000);
        Self {
            client: session(who, links, now),
            server: endpoint(clients, 7, now),
            now,
            delay: Duration::from_millis(20),
            extra: vec![Duration::ZERO; usize::from(links)],
            addresses: (0..links).map(|link| SocketAddr::from(([192, 0, 2, link], 40_000))).collect(),
            cut: vec![false; usize::from(links)],
            cut_flows: Vec::new(),
            lose_every: 0,
            flying: BTreeMap::new(),
            order: 0,
            up: Vec::new(),
            down: Vec::new(),
            events: Vec::new(),
            server_events: Vec::new(),
            to: BTreeMap::new(),
            from: BTreeMap::new(),
            seen: Vec::new(),
            limits: vec![[usize::MAX; 2]; usize::from(links)],
            others: [Vec::new(), Vec::new()],
            sizes: [Vec::new(), Vec::new()],
        }
    }

    /// The client's address of a UDP flow as the server sees it.
    pub(super) fn address(&self, link: u8, flow: u8) -> SocketAddr {
        let first = self.addresses[usize::from(link)];
        SocketAddr::new(first.ip(), first.port() + 1_000 * u16::from(flow))
    }

    pub(super) fn fly(&mut self, link: u8, flight: Flight) {
        self.order += 1;
        let lost = self.lose_every > 0 && self.order.is_multiple_of(self.lose_every);
        let limit = self.limits[usize::from(link)][usize::from(!flight.0)];
        let too_big = flight.3.len() + 28 > limit;
        if !self.cut[usize::from(link)] && !lost && !too_big {
            let delay = self.delay + self.extra[usize::from(link)];
            self.flying.insert((self.now + delay, self.order), flight);
        }
    }

    pub(super) fn drain(&mut self) {
        let mut buf = Vec::new();
        while let Some(transmit) = self.client.poll_transmit(&mut buf, SEGMENTS, self.now) {
            let (link, flow) = (transmit.path.socket.link().0, transmit.path.socket.flow().number());
            assert_eq!(transmit.path.remote, server_address(link));
            for bytes in buf.chunks(transmit.segment_size) {
                let from = self.address(link, flow);
                if self.cut_flows.contains(&flow) {
                    continue;
                }
                *self.from.entry(from).or_default() += bytes.len() as u64 + 28;
                self.seen.push((link, bytes.to_vec()));
                self.fly(link, (true, link, from, bytes.to_vec()));
            }
            buf.clear();
        }
        while let Some(transmit) = self.server.poll_transmit(&mut buf, SEGMENTS, self.now) {
            let link = transmit.path.socket.0;
            for bytes in buf.chunks(transmit.segment_size) {
                let to = self.to.entry(transmit.path.remote).or_default();
                to.0 += 1;
                to.1 += bytes.len() as u64 + 28;
                // The client may have left this address: the datagram is then lost.
                let flow = (0..8).find(|flow| self.address(link, *flow) == transmit.path.remote);
                if let Some(flow) = flow.filter(|flow| !self.cut_flows.contains(flow)) {
                    let socket = SocketId::of(LinkId(link), UdpFlow::new(flow).unwrap());
                    self.fly(link, (false, socket.0, server_address(link), bytes.to_vec()));
                }
            }
            buf.clear();
        }
        while let Some(packet) = self.client.poll_packet() {
            if packet[9] != 17 {
                self.others[0].push(packet);
                continue;
            }
            self.sizes[0].push(packet.len());
            self.down.push(number(&packet));
        }
        while let Some(packet) = self.server.poll_packet() {
            if packet[9] != 17 {
                self.others[1].push(packet);
                continue;
            }
            self.sizes[1].push(packet.len());
            self.up.push(number(&packet));
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
        while let Some((_, event)) = self.server.poll_event() {
            self.server_events.push(event);
        }
    }

    pub(super) fn give(
        &mut self,
        to_server: bool,
        socket: u8,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let path = Path { socket: SocketId(socket), remote, local: None };
        let datagram = Datagram::new(path, BytesMut::from(bytes));
        if to_server {
            self.server.handle_datagram(datagram, self.now)
        } else {
            self.client.handle_datagram(datagram, self.now)
        }
    }

    /// Runs for `ms`, calling `each` every millisecond.
    pub(super) fn run(&mut self, ms: u64, mut each: impl FnMut(&mut Self)) {
        for _ in 0..ms {
            self.now = self.now + Duration::from_millis(1);
            while let Some(flight) = self.flying.first_entry().filter(|flight| flight.key().0 <= self.now) {
                let (to_server, socket, remote, bytes) = flight.remove();
                let _ = self.give(to_server, socket, remote, &bytes);
                self.drain();
            }
            each(self);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.drain();
            for due in [self.client.poll_timeout(), self.server.poll_timeout()].into_iter().flatten() {
                assert!(due.0 > self.now, "{} would spin", due.1);
            }
        }
    }

    pub(super) fn idle(&mut self, ms: u64) {
        self.run(ms, |_| {});
    }

    /// Sends packets both ways, one each per millisecond.
    pub(super) fn traffic(&mut self, ms: u64, from: u32) -> u32 {
        let mut next = from;
        self.run(ms, |world| {
            let _ = world.client.handle_packet(packet(true, next), world.now);
            let _ = world.server.handle_packet(packet(false, next), world.now);
            next += 1;
        });
        next
    }

    pub(super) fn states(&self) -> Vec<LinkState> {
        self.client.stats(self.now).links.iter().map(|link| link.state).collect()
    }

    pub(super) fn rekeys(&self) -> (u64, u64) {
        (self.client.rekeys(), self.server.session(SessionId(0)).unwrap().rekeys())
    }
}

/// Whether these are all numbers below `end`, in order.
pub(super) fn complete(numbers: &[u32], end: u32) -> bool {
    numbers.iter().copied().eq(0..end)
}
