//! The end that asks and measures.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::exchange::{Direction, Request};
use crate::peer::{Flow, Peer};
use crate::settings::Settings;

/// How much is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes over each connection; the time to the last of them is measured.
    Bytes(u64),
    /// As many as go in a time, after a start that is not measured.
    Time {
        /// Not measured.
        omit: Duration,
        /// Measured.
        measured: Duration,
    },
}

/// A transfer over new connections.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The server.
    pub server: SocketAddr,
    /// The device to send from; else the one of the route.
    pub device: Option<String>,
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: Amount,
    /// Connections at once.
    pub flows: u16,
    /// This end's settings.
    pub settings: Settings,
    /// A transfer of bytes that is not complete after this ends.
    pub limit: Duration,
}

/// A transfer that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// No connection could be begun.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// A connection ended, or was never established, in a transfer by time.
    #[error("{0}")]
    Lost(String),
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Payload that arrived in `time`, all connections together.
    pub bytes: u64,
    /// That of each connection.
    pub flow_bytes: Vec<u64>,
    /// Of bytes: from the first packet to the last byte at its receiver, for an upload as the
    /// client knows it. Of a time: the measured one.
    pub time: Duration,
    /// Why a transfer of bytes is not complete; `None` if it is.
    pub unfinished: Option<String>,
}

impl Outcome {
    /// Bits per second.
    pub fn bps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64().max(1e-6)
    }
}

impl Transfer {
    /// Makes the transfer, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the socket fails, or a connection does in a transfer by time.
    pub fn run(&self) -> Result<Outcome, TransferError> {
        let mut peer = Peer::ask(self.server, self.device.as_deref(), self.settings)?;
        let bytes = match self.amount {
            Amount::Bytes(bytes) => bytes,
            Amount::Time { .. } => Request::ENDLESS,
        };
        let start = Instant::now();
        for _ in 0..self.flows.max(1) {
            peer.connect(self.server, Request { direction: self.direction, bytes })?;
        }
        let outcome = match self.amount {
            Amount::Bytes(bytes) => self.complete(&mut peer, start, bytes),
            Amount::Time { omit, measured } => window(&mut peer, start + omit, measured),
        };
        peer.close();
        outcome
    }

    /// Runs until all bytes have arrived, or the limit.
    fn complete(&self, peer: &mut Peer, start: Instant, bytes: u64) -> Result<Outcome, TransferError> {
        let limit = start + self.limit;
        let (unfinished, time) = loop {
            peer.turn(limit)?;
            let time = start.elapsed();
            let mut flows = peer.flows.values();
            if flows.all(|flow| flow.exchange.is_complete())
                && peer.flows.len() == usize::from(self.flows.max(1))
            {
                let short = peer.flows.values().any(|flow| flow.exchange.arrived() != bytes);
                break (short.then(|| "the server sent another number of bytes".to_owned()), time);
            }
            if let Some(reason) = lost(peer) {
                break (Some(reason), time);
            }
            if time >= self.limit {
                break (Some(format!("not complete after {} s", self.limit.as_secs())), time);
            }
        };
        let flow_bytes: Vec<u64> = peer.flows.values().map(|flow| flow.exchange.arrived()).collect();
        Ok(Outcome { bytes: flow_bytes.iter().sum(), flow_bytes, time, unfinished })
    }
}

/// Counts what arrives in a time that begins at `from`.
fn window(peer: &mut Peer, from: Instant, measured: Duration) -> Result<Outcome, TransferError> {
    let arrived = |peer: &Peer| -> Vec<(_, u64)> {
        peer.flows.iter().map(|(handle, flow)| (*handle, flow.exchange.arrived())).collect()
    };
    run_until(peer, from)?;
    let (begin, before) = (Instant::now(), arrived(peer));
    run_until(peer, begin + measured)?;
    let time = begin.elapsed();
    if let Some(reason) = lost(peer) {
        return Err(TransferError::Lost(reason));
    }
    let after = arrived(peer);
    let earlier = |handle| before.iter().find(|(other, _)| *other == handle).map_or(0, |(_, bytes)| *bytes);
    let flow_bytes: Vec<u64> = after.iter().map(|(handle, bytes)| bytes - earlier(*handle)).collect();
    Ok(Outcome { bytes: flow_bytes.iter().sum(), flow_bytes, time, unfinished: None })
}

fn run_until(peer: &mut Peer, end: Instant) -> Result<(), TransferError> {
    while Instant::now() < end {
        peer.turn(end)?;
        if let Some(reason) = lost(peer) {
            return Err(TransferError::Lost(reason));
        }
    }
    if peer.flows.values().any(|flow| !flow.established) {
        return Err(TransferError::Lost("no answer to a connection's first packets".to_owned()));
    }
    Ok(())
}

/// Why a connection ended, if one has.
fn lost(peer: &Peer) -> Option<String> {
    peer.flows
        .values()
        .find_map(|flow: &Flow| flow.ended.clone())
        .map(|reason| format!("a connection ended: {reason}"))
}
