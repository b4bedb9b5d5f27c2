//! One connection of the control socket: lines in, answers out in portions.
//!
//! A connection does one thing at a time: it sends what it has, else asks for the next portion of
//! an answer that is not whole yet, else reads a request. While an answer is on its way no request
//! is read, so no more than one portion is kept. Each call makes at most one portion, so that
//! a long answer takes turns with the packets.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bonding_os::poll::Interest;

use super::{Answers, Portion, Request, error};

/// No request is as long as this: an invitation names 8 hosts of at most 253 characters.
const REQUEST_MAX_BYTES: usize = 4 << 10;
/// A reader that takes nothing of an answer for so long is dropped. Chosen: twice as long as the
/// asking side waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a connection ends.
#[derive(Debug)]
pub(super) struct Closed;

/// A connection; `R` is the rest of an answer that came in part.
pub(super) struct Connection<R> {
    stream: UnixStream,
    /// Requests that are not answered yet, the last one perhaps in part.
    requests: Vec<u8>,
    /// The other side sends no more.
    ended: bool,
    /// A portion that is not sent yet, from `sent` on.
    portion: Vec<u8>,
    sent: usize,
    rest: Option<R>,
    /// When the other side took something last, or was owed nothing.
    taken_at: Instant,
}

impl<R> Connection<R> {
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            requests: Vec::new(),
            ended: false,
            portion: Vec::new(),
            sent: 0,
            rest: None,
            taken_at: now,
        }
    }

    /// The event that the connection waits for.
    pub(super) fn interest(&self) -> Interest {
        if self.owes() || self.has_request() { Interest::Writable } else { Interest::Readable }
    }

    /// When the connection is dropped if the other side takes nothing until then.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.owes().then(|| self.taken_at + PATIENCE)
    }

    /// Reads what has come if no answer is on its way, makes at most one portion, and writes as
    /// much as the socket takes.
    pub(super) fn handle_ready(
        &mut self,
        answers: &mut impl Answers<Rest = R>,
        now: Instant,
    ) -> Result<(), Closed> {
        if !self.owes() {
            self.taken_at = now;
            if !self.has_request() {
                self.read()?;
            }
        }
        if self.portion.is_empty() {
            self.make_portion(answers);
        }
        if self.requests.len() >= REQUEST_MAX_BYTES && !self.has_request() {
            return Err(Closed);
        }
        self.write(now)?;
        if self.ended && !self.owes() && !self.has_request() { Err(Closed) } else { Ok(()) }
    }

    /// Bytes of answers that are kept.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.portion.len() - self.sent
    }

    fn owes(&self) -> bool {
        !self.portion.is_empty() || self.rest.is_some()
    }

    fn has_request(&self) -> bool {
        self.requests.contains(&b'\n')
    }

    fn make_portion(&mut self, answers: &mut impl Answers<Rest = R>) {
        let Portion { text, rest } = if let Some(rest) = self.rest.take() {
            answers.proceed(rest)
        } else if let Some(end) = self.requests.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.requests.drain(..=end).collect();
            match Request::parse(String::from_utf8_lossy(&line).trim()) {
                Ok(request) => answers.answer(request),
                Err(why) => Portion { text: error(&why), rest: None },
            }
        } else {
            return;
        };
        self.portion = text.into_bytes();
        if rest.is_none() {
            self.portion.push(b'\n');
        }
        self.rest = rest;
    }

    /// Reads once.
    fn read(&mut self) -> Result<(), Closed> {
        let mut buffer = [0; REQUEST_MAX_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.requests.extend_from_slice(buffer.get(..count).unwrap_or(&[])),
            Err(error) if is_for_later(&error) => {}
            Err(_) => return Err(Closed),
        }
        Ok(())
    }

    fn write(&mut self, now: Instant) -> Result<(), Closed> {
        while let Some(rest) = self.portion.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) if count > 0 => {
                    self.sent += count;
                    self.taken_at = now;
                }
                Err(error) if is_for_later(&error) => return Ok(()),
                Ok(_) | Err(_) => return Err(Closed),
            }
        }
        self.portion = Vec::new();
        self.sent = 0;
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl<R> AsFd for Connection<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
