//! One end: a socket, quinn-proto's endpoint, and its connections with their exchanges.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, ServerConfig,
    Transmit, VarInt,
};

use crate::exchange::{Exchange, Request};
use crate::settings::Settings;
use crate::wire::{Arrival, Wire};
use crate::{NoSecrets, TransferError};

/// Calls of the kernel for one connection before the others have their turn. Chosen: as quinn,
/// which sends 20 datagrams in calls of 10.
const CALLS_PER_TURN: usize = 2;
/// Calls that read before something is sent. Chosen: a burst of 64 KiB each does not delay
/// acknowledgements for long.
const READS_PER_TURN: usize = 4;

/// A connection.
pub(crate) struct Flow {
    connection: Connection,
    pub(crate) exchange: Exchange,
    pub(crate) established: bool,
    /// Why it ended, once it has.
    pub(crate) ended: Option<String>,
}

impl Flow {
    const fn new(connection: Connection, exchange: Exchange) -> Self {
        Self { connection, exchange, established: false, ended: None }
    }

    /// Handles what the connection says, and moves payload.
    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.established = true,
                Event::ConnectionLost { reason } => self.ended = Some(reason.to_string()),
                Event::Stream(_)
                | Event::HandshakeDataReady
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        if self.established
            && self.ended.is_none()
            && let Err(broken) = self.exchange.advance(&mut self.connection, now)
        {
            self.ended = Some(broken.0.to_owned());
            self.connection.close(now, VarInt::from_u32(1), broken.0.into());
        }
    }
}

/// The connections of one socket.
pub(crate) struct Peer {
    wire: Wire,
    endpoint: Endpoint,
    settings: Settings,
    pub(crate) flows: HashMap<ConnectionHandle, Flow>,
    /// What the socket had no room for.
    blocked: Option<(Transmit, Vec<u8>)>,
}

impl Peer {
    /// An end that serves what comes to `address`.
    pub(crate) fn serve(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let mut config = ServerConfig::new(Arc::new(NoSecrets), Arc::new(NoSecrets));
        config.transport_config(settings.transport());
        Ok(Self::new(Wire::bind(address, settings.buffers())?, settings, Some(Arc::new(config))))
    }

    /// An end that can connect to `target`.
    pub(crate) fn ask(target: SocketAddr, device: Option<&str>, settings: Settings) -> io::Result<Self> {
        Ok(Self::new(Wire::towards(target, device, settings.buffers())?, settings, None))
    }

    fn new(wire: Wire, settings: Settings, config: Option<Arc<ServerConfig>>) -> Self {
        let options = EndpointConfig::new(Arc::new(NoSecrets));
        let endpoint = Endpoint::new(Arc::new(options), config, false, None);
        Self { wire, endpoint, settings, flows: HashMap::new(), blocked: None }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.wire.local_addr()
    }

    /// Begins a connection.
    pub(crate) fn connect(&mut self, target: SocketAddr, request: Request) -> Result<(), TransferError> {
        let mut config = ClientConfig::new(Arc::new(NoSecrets));
        config.transport_config(self.settings.transport());
        let connected = self.endpoint.connect(Instant::now(), config, target, "quicperf");
        let (handle, connection) = connected.map_err(|error| TransferError::Connect(error.to_string()))?;
        self.flows.insert(handle, Flow::new(connection, Exchange::ask(request)));
        Ok(())
    }

    /// Sends what is due, waits for a datagram or a timer, at most until `limit`, and handles it.
    pub(crate) fn turn(&mut self, limit: Instant) -> io::Result<()> {
        let is_more = self.send();
        let now = Instant::now();
        let timers =
            self.flows.values_mut().flat_map(|flow| [flow.connection.poll_timeout(), flow.exchange.next()]);
        let due = timers.flatten().fold(limit, Instant::min);
        let wait = if is_more { now } else { due };
        self.wire.wait(self.blocked.is_some(), wait.saturating_duration_since(now))?;
        for _ in 0..READS_PER_TURN {
            if !self.receive()? {
                break;
            }
        }
        let now = Instant::now();
        for (handle, flow) in &mut self.flows {
            if flow.connection.poll_timeout().is_some_and(|due| due <= now) {
                flow.connection.handle_timeout(now);
            }
            flow.advance(now);
            while let Some(event) = flow.connection.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                    flow.connection.handle_event(answer);
                }
            }
        }
        self.flows.retain(|_, flow| !flow.connection.is_drained());
        Ok(())
    }

    /// Says farewell on all connections.
    pub(crate) fn close(&mut self) {
        let now = Instant::now();
        for flow in self.flows.values_mut() {
            flow.connection.close(now, VarInt::from_u32(0), "done".into());
        }
        self.send();
    }

    /// Sends what is due; true if there is more than one turn takes and the socket has room.
    fn send(&mut self) -> bool {
        if let Some((transmit, payload)) = self.blocked.take()
            && !self.wire.send(&transmit, &payload)
        {
            self.blocked = Some((transmit, payload));
            return false;
        }
        let mut is_more = false;
        for flow in self.flows.values_mut() {
            for call in 0.. {
                if call == CALLS_PER_TURN {
                    is_more = true;
                    break;
                }
                let (now, mut payload) = (Instant::now(), Vec::new());
                let sent = flow.connection.poll_transmit(now, self.wire.segments_max(), &mut payload);
                let Some(transmit) = sent else { break };
                if !self.wire.send(&transmit, &payload) {
                    self.blocked = Some((transmit, payload));
                    return false;
                }
            }
        }
        is_more
    }

    fn receive(&mut self) -> io::Result<bool> {
        let Self { wire, endpoint, flows, .. } = self;
        let (now, mut answers) = (Instant::now(), Vec::new());
        let came = wire.receive(|arrival| {
            let mut answer = Vec::new();
            if let Some(transmit) = handle(endpoint, flows, now, arrival, &mut answer) {
                answers.push((transmit, answer));
            }
        })?;
        for (transmit, answer) in answers {
            // An answer that finds no room is lost; the peer asks again.
            let _ = self.wire.send(&transmit, answer.get(..transmit.size).unwrap_or(&answer));
        }
        Ok(came)
    }
}

/// Hands a datagram to its connection; gives an answer that belongs to none.
fn handle(
    endpoint: &mut Endpoint,
    flows: &mut HashMap<ConnectionHandle, Flow>,
    now: Instant,
    arrival: Arrival,
    answer: &mut Vec<u8>,
) -> Option<Transmit> {
    let Arrival { from, to, ecn, payload } = arrival;
    match endpoint.handle(now, from, to, ecn, payload, answer)? {
        DatagramEvent::ConnectionEvent(handle, event) => {
            if let Some(flow) = flows.get_mut(&handle) {
                flow.connection.handle_event(event);
            }
            None
        }
        DatagramEvent::NewConnection(incoming) => match endpoint.accept(incoming, now, answer, None) {
            Ok((handle, connection)) => {
                flows.insert(handle, Flow::new(connection, Exchange::serve()));
                None
            }
            Err(refused) => refused.response,
        },
        DatagramEvent::Response(transmit) => Some(transmit),
    }
}
