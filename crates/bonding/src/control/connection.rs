//! One connection of the control socket: lines in, lines out, both bounded.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use bonding_os::poll::Interest;

/// No request is as long as this: an invitation names 8 hosts of at most 253 characters.
const REQUEST_MAX_BYTES: usize = 4 << 10;
/// Answers that are not read yet: the status of some thousand links.
const UNREAD_MAX_BYTES: usize = 4 << 20;

/// Why a connection ends.
#[derive(Debug)]
pub(super) struct Closed;

pub(super) struct Connection {
    stream: UnixStream,
    /// A request that is not complete yet.
    request: Vec<u8>,
    /// Answers that are not sent yet, from `sent` on.
    answers: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, request: Vec::new(), answers: Vec::new(), sent: 0 }
    }

    /// The events that the connection waits for.
    pub(super) fn interest(&self) -> Interest {
        if self.answers.is_empty() { Interest::Readable } else { Interest::ReadableWritable }
    }

    /// Reads all that has come, answers each complete line, and writes as much as the socket takes.
    pub(super) fn handle_ready(&mut self, answer: &mut impl FnMut(&str) -> String) -> Result<(), Closed> {
        let ended = self.read()?;
        while let Some(end) = self.request.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.request.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.answers.extend_from_slice(answer(line.trim()).as_bytes());
            self.answers.push(b'\n');
            if self.answers.len() - self.sent > UNREAD_MAX_BYTES {
                return Err(Closed);
            }
        }
        if self.request.len() >= REQUEST_MAX_BYTES {
            return Err(Closed);
        }
        self.write()?;
        if ended { Err(Closed) } else { Ok(()) }
    }

    /// Bytes answered and not taken yet.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.answers.len() - self.sent
    }

    /// Reads once; whether the other side has closed.
    fn read(&mut self) -> Result<bool, Closed> {
        let mut buffer = [0; REQUEST_MAX_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(true),
            Ok(count) => {
                self.request.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
                Ok(false)
            }
            Err(error) if is_for_later(&error) => Ok(false),
            Err(_) => Err(Closed),
        }
    }

    fn write(&mut self) -> Result<(), Closed> {
        while let Some(rest) = self.answers.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) if count > 0 => self.sent += count,
                Err(error) if is_for_later(&error) => return Ok(()),
                Ok(_) | Err(_) => return Err(Closed),
            }
        }
        self.answers = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
