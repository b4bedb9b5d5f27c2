//! What goes over a connection's one stream.
//!
//! The client opens it and sends a request: a byte for the way, eight for the number of payload
//! bytes (big endian, all ones: without end). Down, the server answers with the payload. Up, the
//! payload follows the request, and the server answers with counts of what has come, eight bytes
//! each, the last one when all has. Payload is zeros.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};

/// Which way the payload goes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the server to the client.
    Down,
    /// From the client to the server.
    Up,
}

/// The client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) direction: Direction,
    pub(crate) bytes: u64,
}

impl Request {
    const LEN: usize = 9;
    /// A transfer that ends with its connection.
    pub(crate) const ENDLESS: u64 = u64::MAX;

    fn encode(self) -> [u8; Self::LEN] {
        let mut message = [u8::from(self.direction == Direction::Up); Self::LEN];
        let (_, number) = message.split_at_mut(1);
        number.copy_from_slice(&self.bytes.to_be_bytes());
        message
    }

    fn decode(message: [u8; Self::LEN]) -> Option<Self> {
        let (way, number) = message.split_first()?;
        let direction = match way {
            0 => Direction::Down,
            1 => Direction::Up,
            _ => return None,
        };
        Some(Self { direction, bytes: u64::from_be_bytes(number.try_into().ok()?) })
    }
}

/// How often the server says what has come. Chosen: short against a second that is measured.
const COUNT_PERIOD: Duration = Duration::from_millis(20);
/// Zeros for the payload.
static PAYLOAD: [u8; 64 << 10] = [0; 64 << 10];

/// One end's state of the stream.
#[derive(Debug)]
pub(crate) struct Exchange {
    asks: bool,
    stream: Option<StreamId>,
    request: Option<Request>,
    /// A request or counts that are not written yet; they go before payload.
    unsent: Vec<u8>,
    /// Payload not written yet.
    payload: u64,
    /// The end of the stream is written.
    ended: bool,
    /// Bytes of a request or a count that is not whole yet.
    partial: Vec<u8>,
    /// Payload that arrived here.
    received: u64,
    /// Payload that arrived there, as the server said.
    counted: u64,
    /// The last count that was sent.
    said: u64,
    next_count: Option<Instant>,
    /// The peer's end of the stream came.
    complete: bool,
}

/// The peer does not speak this protocol, or left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

impl Exchange {
    /// The client's end.
    pub(crate) fn ask(request: Request) -> Self {
        let payload = if request.direction == Direction::Up { request.bytes } else { 0 };
        let unsent = request.encode().to_vec();
        Self { asks: true, request: Some(request), unsent, payload, ..Self::serve() }
    }

    /// The server's end.
    pub(crate) const fn serve() -> Self {
        Self {
            asks: false,
            stream: None,
            request: None,
            unsent: Vec::new(),
            payload: 0,
            ended: false,
            partial: Vec::new(),
            received: 0,
            counted: 0,
            said: 0,
            next_count: None,
            complete: false,
        }
    }

    /// Payload known to have arrived at its receiver.
    pub(crate) fn arrived(&self) -> u64 {
        self.received.max(self.counted)
    }

    /// The peer has sent all, and all of it arrived.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// When [`Self::advance`] has something to do without a datagram.
    pub(crate) const fn next(&self) -> Option<Instant> {
        self.next_count
    }

    /// Reads and writes what can be. To be called once the connection is established, after each
    /// input.
    pub(crate) fn advance(&mut self, connection: &mut Connection, now: Instant) -> Result<(), Broken> {
        if self.stream.is_none() {
            let mut streams = connection.streams();
            self.stream = if self.asks { streams.open(Dir::Bi) } else { streams.accept(Dir::Bi) };
        }
        let Some(id) = self.stream else { return Ok(()) };
        self.read(connection, id)?;
        if self.counts() {
            self.count(now);
        }
        self.write(connection, id)
    }

    /// Whether this is the receiving server.
    fn counts(&self) -> bool {
        !self.asks && self.request.is_some_and(|request| request.direction == Direction::Up)
    }

    fn read(&mut self, connection: &mut Connection, id: StreamId) -> Result<(), Broken> {
        if self.complete {
            return Ok(());
        }
        let mut stream = connection.recv_stream(id);
        let mut chunks = stream.read(true).map_err(|_| Broken("the stream cannot be read"))?;
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => self.take(&chunk.bytes)?,
                Ok(None) => {
                    self.complete = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => return Err(Broken("the peer reset the stream")),
            }
        }
        // The caller polls for datagrams in any case.
        let _ = chunks.finalize();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        if !self.asks && self.request.is_none() {
            let missing = Request::LEN.saturating_sub(self.partial.len()).min(rest.len());
            let (head, payload) = rest.split_at(missing);
            self.partial.extend_from_slice(head);
            rest = payload;
            let Ok(message) = self.partial.as_slice().try_into() else { return Ok(()) };
            let request = Request::decode(message).ok_or(Broken("the request is malformed"))?;
            self.partial.clear();
            self.payload = if request.direction == Direction::Down { request.bytes } else { 0 };
            self.request = Some(request);
        }
        let counts = self.asks && self.request.is_some_and(|request| request.direction == Direction::Up);
        if !counts {
            self.received += rest.len() as u64;
            return Ok(());
        }
        self.partial.extend_from_slice(rest);
        while let Some((count, rest)) = self.partial.split_first_chunk::<8>() {
            self.counted = u64::from_be_bytes(*count);
            self.partial = rest.to_vec();
        }
        Ok(())
    }

    /// Says what has come, if it is time to.
    fn count(&mut self, now: Instant) {
        let due = self.next_count.is_none_or(|due| now >= due) || self.complete;
        if self.ended || !due {
            return;
        }
        if self.received > self.said || self.complete {
            self.said = self.received;
            self.unsent.extend_from_slice(&self.received.to_be_bytes());
        }
        self.next_count = (!self.complete).then(|| now + COUNT_PERIOD);
    }

    fn write(&mut self, connection: &mut Connection, id: StreamId) -> Result<(), Broken> {
        let mut stream = connection.send_stream(id);
        while !self.ended && (!self.unsent.is_empty() || self.payload > 0) {
            let head = !self.unsent.is_empty();
            let written = if head {
                stream.write(&self.unsent)
            } else {
                let bytes = usize::try_from(self.payload).unwrap_or(usize::MAX).min(PAYLOAD.len());
                stream
                    .write_chunks(&mut [Bytes::from_static(PAYLOAD.get(..bytes).unwrap_or(&PAYLOAD))])
                    .map(|written| written.bytes)
            };
            match written {
                Ok(0) | Err(WriteError::Blocked) => return Ok(()),
                Ok(count) if head => drop(self.unsent.drain(..count)),
                Ok(_) if self.payload == Request::ENDLESS => {}
                Ok(count) => self.payload -= count as u64,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return Err(Broken("the peer stopped the stream"));
                }
            }
        }
        let over = if self.asks || !self.counts() { self.request.is_some() } else { self.complete };
        if over && !self.ended {
            self.ended = true;
            stream.finish().map_err(|_| Broken("the peer stopped the stream"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for request in [
            Request { direction: Direction::Up, bytes: 20 << 20 },
            Request { direction: Direction::Down, bytes: Request::ENDLESS },
        ] {
            assert_eq!(Request::decode(request.encode()), Some(request));
        }
        assert_eq!(Request::decode([7; Request::LEN]), None);
    }

    #[test]
    fn a_request_in_pieces_is_followed_by_payload() {
        let mut server = Exchange::serve();
        let request = Request { direction: Direction::Up, bytes: 5 };
        let mut bytes = request.encode().to_vec();
        bytes.extend([0; 5]);
        let (one, other) = bytes.split_at(4);
        server.take(one).unwrap();
        assert_eq!(server.request, None);
        server.take(other).unwrap();
        assert_eq!((server.request, server.received), (Some(request), 5));
        assert_eq!(Exchange::serve().take(&[9; 9]), Err(Broken("the request is malformed")));
    }

    #[test]
    fn the_client_of_an_upload_goes_by_the_newest_count() {
        let mut client = Exchange::ask(Request { direction: Direction::Up, bytes: 900 });
        let counts = [300_u64.to_be_bytes(), 900_u64.to_be_bytes()].concat();
        client.take(counts.get(..11).unwrap()).unwrap();
        assert_eq!(client.arrived(), 300);
        client.take(counts.get(11..).unwrap()).unwrap();
        assert_eq!(client.arrived(), 900);
    }
}
