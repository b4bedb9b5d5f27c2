//! The common part of bulk transfers: the side that connects, the side that sends, and the
//! payload's creation and check.

use std::net::Ipv4Addr;

use crate::inet;
use crate::pattern::Pattern;

/// A host's part in the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Opens the connections: the client.
    Connector,
    /// Waits for connections: the server.
    Listener,
}

impl End {
    /// This end's inner address.
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::Connector => inet::CLIENT,
            Self::Listener => inet::SERVER,
        }
    }

    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Connector => Self::Listener,
            Self::Listener => Self::Connector,
        }
    }
}

/// One end of a bulk transfer of one or more flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkConfig {
    /// This host's part.
    pub end: End,
    /// Whether this end sends the payload (the other end receives it).
    pub sends: bool,
    /// Concurrent connections.
    pub flows: u16,
    /// Largest IP packet.
    pub mtu: u16,
    /// Seed of payload, ports and identifiers.
    pub seed: u64,
}

/// Verifies one flow's stream, which arrives in order.
#[derive(Debug)]
pub struct StreamSink {
    pattern: Pattern,
    offset: u64,
    corrupt: u64,
}

impl StreamSink {
    /// Expects the stream of `flow`.
    pub fn new(seed: u64, flow: u64) -> Self {
        Self { pattern: Pattern::new(seed, flow), offset: 0, corrupt: 0 }
    }

    /// Verifies the next bytes.
    pub fn take(&mut self, data: &[u8]) {
        if !self.pattern.matches(self.offset, data) {
            self.corrupt += 1;
        }
        self.offset += data.len() as u64;
    }

    /// Bytes verified so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Reads that did not match.
    pub fn corrupt(&self) -> u64 {
        self.corrupt
    }
}

/// Produces one flow's stream.
#[derive(Debug)]
pub struct StreamSource {
    pattern: Pattern,
    offset: u64,
}

impl StreamSource {
    /// Produces the stream of `flow`.
    pub fn new(seed: u64, flow: u64) -> Self {
        Self { pattern: Pattern::new(seed, flow), offset: 0 }
    }

    /// The next bytes, at least 65,521.
    pub fn peek(&self) -> &[u8] {
        self.pattern.at(self.offset)
    }

    /// Fills all of `out` with the next bytes and moves on.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.pattern.fill(self.offset, out);
        self.advance(out.len());
    }

    /// Bytes produced so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Moves on by `count` bytes.
    pub fn advance(&mut self, count: usize) {
        self.offset += count as u64;
    }
}
