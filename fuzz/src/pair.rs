//! A client and a server with a network between them that the input plays: it loses, copies, delays
//! and damages.
//!
//! Asserted in addition to [`crate::machine`]: a delivered packet is one that was sent, and no
//! packet is delivered more often than it was sent. Sealed links carry connections as well
//! ([`crate::streams`]). On plain links a damaged datagram can look
//! valid, so from the first damage to a data frame on, only the absence of panics counts. On sealed
//! links the assertions hold for any damage, forgery or replay, and for any number of rekeys.

use std::collections::HashMap;
use std::time::Duration;

use bonding_proto::config::Security;
use bonding_proto::wire::{Kind, parse_plain};
use bonding_proto::{Datagram, Endpoint, Instant, LinkId, PacketBuf, Path, Session, StateMachine};
use bytes::{Bytes, BytesMut};

use crate::input::Input;
use crate::machine::{
    LINKS, client_address, client_path, inner_packet, new_endpoint, new_session, server_path, tick,
};
use crate::streams::Connections;

/// The most datagrams in flight; further ones are lost, as in a drop-tail queue.
const UNDER_WAY_MAX: usize = 512;

/// A calm network is waited for in steps: ...
const STEP: Duration = Duration::from_millis(500);
/// ... so many until the bond is there again, and ...
const RECOVERY_STEPS: u32 = 24;
/// ... so many until all streams are over.
const ARRIVAL_STEPS: u32 = 60;

/// A datagram between the two.
#[derive(Debug, Clone)]
struct Flight {
    to_server: bool,
    link: u8,
    data: Vec<u8>,
}

/// Packets sent and not yet delivered, by direction and content.
#[derive(Debug, Default)]
struct Ledger {
    open: HashMap<(bool, Vec<u8>), u32>,
    damaged: bool,
}

impl Ledger {
    fn sent(&mut self, from_client: bool, packet: &[u8]) {
        *self.open.entry((from_client, packet.to_vec())).or_default() += 1;
    }

    fn delivered(&mut self, from_client: bool, packet: &[u8]) {
        if self.damaged {
            return;
        }
        let count =
            self.open.get_mut(&(from_client, packet.to_vec())).expect("delivered what was never sent");
        *count = count.checked_sub(1).expect("delivered more often than sent");
    }
}

struct World {
    security: Security,
    client: Session,
    server: Endpoint,
    network: Vec<Flight>,
    ledger: Ledger,
    connections: Connections,
    now: Instant,
    /// Numbers the packets, so that each is unique.
    counter: u32,
}

impl World {
    fn new(up: u8, down: u8, security: Security, now: Instant) -> Self {
        let mut server = new_endpoint(down, security, now);
        server.set_streams(true, now);
        Self {
            security,
            client: new_session(up, security, now),
            server,
            network: Vec::new(),
            ledger: Ledger::default(),
            connections: Connections::default(),
            now,
            counter: 0,
        }
    }

    /// Lets both sides work, and their applications answer what happened to streams.
    fn tick(&mut self) {
        let now = self.now;
        loop {
            self.tick_once();
            let at_client = self.connections.serve(false, &mut self.client, now);
            if !self.connections.serve(true, &mut self.server, now) && !at_client {
                break;
            }
        }
    }

    fn tick_once(&mut self) {
        let (network, ledger, now) = (&mut self.network, &mut self.ledger, self.now);
        let mut put = |flight: Flight| {
            if network.len() < UNDER_WAY_MAX {
                network.push(flight);
            }
        };
        tick(
            &mut self.client,
            now,
            |path: Path, link: LinkId, data| {
                assert_eq!(path, client_path(link.0), "a datagram to another address");
                put(Flight { to_server: true, link: link.0, data: data.to_vec() });
            },
            |packet| ledger.delivered(false, &packet),
        );
        tick(
            &mut self.server,
            now,
            |path: Path, _: LinkId, data| {
                // A link's path is the path that was received from, which need not be its own
                // client's address.
                let link = (0..LINKS).find(|link| path.remote == client_address(*link));
                let link = link.expect("a datagram to another address");
                put(Flight { to_server: false, link, data: data.to_vec() });
            },
            |packet| ledger.delivered(true, &packet),
        );
        while self.client.poll_event().is_some() {}
        while self.server.poll_event().is_some() {}
    }

    fn deliver(&mut self, flight: &Flight) {
        let data = BytesMut::from(flight.data.as_slice());
        // A refusal is counted by the machine.
        let _ = if flight.to_server {
            self.server.handle_datagram(Datagram::new(server_path(flight.link), data), self.now)
        } else {
            self.client.handle_datagram(Datagram::new(client_path(flight.link), data), self.now)
        };
        self.tick();
    }

    fn send(&mut self, from_client: bool, port: u8, copies: u8) {
        for _ in 0..copies {
            self.counter += 1;
            let packet = inner_packet(from_client, port, &self.counter.to_be_bytes().repeat(64));
            let buffer = PacketBuf::from(Bytes::from(packet.clone()));
            let taken = if from_client {
                self.client.handle_packet(buffer, self.now)
            } else {
                self.server.handle_packet(buffer, self.now)
            };
            if taken.is_ok() {
                self.ledger.sent(from_client, &packet);
            }
        }
        self.tick();
    }

    /// Removes the datagram at a place of the network.
    fn take(&mut self, place: u8) -> Option<Flight> {
        (!self.network.is_empty()).then(|| self.network.remove(usize::from(place) % self.network.len()))
    }

    fn damage(&mut self, place: u8, byte: u8, value: u8) {
        let length = self.network.len().max(1);
        let Some(flight) = self.network.get_mut(usize::from(place) % length) else { return };
        if self.security == Security::Sealed {
            if let Some(target) = flight.data.get_mut(usize::from(byte)) {
                *target ^= value;
            }
            return;
        }
        let heartbeat = |data: &[u8]| parse_plain(data).is_ok_and(|frame| frame.kind == Kind::Heartbeat);
        let before = heartbeat(&flight.data);
        if let Some(target) = flight.data.get_mut(usize::from(byte)) {
            *target ^= value;
        }
        // A damaged heartbeat may announce a restart of the peer, after which numbers start again.
        self.ledger.damaged |= value != 0 && (before || parse_plain(&flight.data).is_ok());
    }

    /// Delivers all datagrams in flight and their answers in order, until `span` has passed.
    fn calm(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            for flight in std::mem::take(&mut self.network) {
                self.deliver(&flight);
            }
            let due = [self.client.poll_timeout(), self.server.poll_timeout()];
            let next = due.into_iter().flatten().map(|(due, _)| due).min().unwrap_or(end);
            self.now = next.clamp(self.now + Duration::from_millis(1), self.now + Duration::from_millis(50));
            self.tick();
        }
    }

    /// A calm network lets the bond recover, and what was written arrives.
    fn wind_up(&mut self) {
        for step in 0..ARRIVAL_STEPS {
            self.connections.wind_up(&mut self.client, &mut self.server, self.now);
            self.tick();
            self.calm(STEP);
            assert!(step < RECOVERY_STEPS || self.client.is_connected(), "the bond does not come back");
            if self.client.is_connected() && self.connections.are_over() {
                break;
            }
        }
        self.connections.check_arrivals();
    }

    /// Actions of attackers and of time, on sealed links only.
    fn sealed_step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 8 {
            0 => {
                let (to, data) = (input.byte()?, input.chunk()?.to_vec());
                self.deliver(&Flight { to_server: to & 1 == 0, link: (to >> 1) % LINKS, data });
            }
            // A true datagram, over another link or back to its sender.
            1 => {
                if let (Some(mut flight), to) = (self.take(input.byte()?), input.byte()?) {
                    flight.to_server ^= to & 1 == 1;
                    flight.link = (to >> 1) % LINKS;
                    self.deliver(&flight);
                }
            }
            2 => {
                self.now = self.now + Duration::from_secs(u64::from(input.byte()?));
                self.tick();
            }
            3 | 4 => {
                self.connections.step(input, &mut self.client, &mut self.server, self.now)?;
                self.tick();
            }
            _ => return self.step(input),
        }
        Some(())
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 8 {
            0 => self.send(true, input.byte()?, input.byte()? % 64),
            1 => self.send(false, input.byte()?, input.byte()? % 64),
            2 => {
                if let Some(flight) = self.take(input.byte()?) {
                    self.deliver(&flight);
                }
            }
            3 => drop(self.take(input.byte()?)),
            4 => {
                let place = input.byte()?;
                if let Some(flight) = self.take(place) {
                    self.deliver(&flight);
                    self.deliver(&flight);
                }
            }
            5 => self.damage(input.byte()?, input.byte()?, input.byte()?),
            6 => {
                self.now = self.now + Duration::from_micros(u64::from(input.number()?) * 10);
                self.tick();
            }
            _ => self.calm(Duration::from_millis(u64::from(input.byte()? % 128))),
        }
        Some(())
    }
}

/// The life of a bond over a network that the input controls.
///
/// # Panics
/// If an assertion fails.
pub fn pair(data: &[u8]) {
    let mut input = Input::new(data);
    let (Some(up), Some(down)) = (input.byte(), input.byte()) else { return };
    let mut world = World::new(up, down, Security::Plain, Instant::from_nanos(1_000_000_000));
    // Links become usable by proof in both directions; most inputs should begin with a connected
    // bond.
    if up & 1 == 0 {
        world.calm(Duration::from_millis(400));
    }
    while world.step(&mut input).is_some() {}
    if !world.ledger.damaged {
        world.calm(Duration::from_secs(1));
    }
}

/// The same on sealed links. In the end a calm network lets the bond recover.
///
/// # Panics
/// If an assertion fails.
pub fn sealed_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let (Some(up), Some(down)) = (input.byte(), input.byte()) else { return };
    let mut world = World::new(up, down, Security::Sealed, Instant::from_nanos(1_000_000_000));
    if up & 1 == 0 {
        world.calm(Duration::from_millis(400));
    }
    while world.sealed_step(&mut input).is_some() {}
    world.wind_up();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_network_delivers_everything_both_ways() {
        for security in [Security::Plain, Security::Sealed] {
            let now = Instant::from_nanos(1_000_000_000);
            let mut world = World::new(9, 9, security, now);
            world.calm(Duration::from_millis(400));
            world.send(true, 1, 30);
            world.send(false, 2, 30);
            world.calm(Duration::from_secs(1));
            assert_eq!(world.ledger.open.len(), 60);
            assert!(world.ledger.open.values().all(|count| *count == 0), "packets are missing");
        }
    }

    #[test]
    fn streams_carry_bytes_both_ways_and_end() {
        let mut world = World::new(9, 9, Security::Sealed, Instant::from_nanos(1_000_000_000));
        world.calm(Duration::from_millis(400));
        // Two are opened; the client writes 20,000 bytes, the server as many.
        for tape in [&[0, 1][..], &[0, 2], &[1, 0, 0x4e, 0x20], &[0x81, 0, 0x4e, 0x20], &[0x82, 1, 0x10, 0]] {
            let tape = Input::new(tape);
            let World { connections, client, server, now, .. } = &mut world;
            connections.step(&mut { tape }, client, server, *now).unwrap();
            world.tick();
            world.calm(Duration::from_millis(200));
        }
        world.wind_up();
        assert_eq!(world.connections.finished(), (2, 44_096));
    }
}
