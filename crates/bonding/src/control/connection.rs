//! One connection of the control socket: lines in, answers out in portions, or lines pushed to a
//! subscriber.
//!
//! A connection does one thing at a time: it sends what it has, else asks for the next portion of
//! an answer that is not whole yet, else reads a request. While an answer is on its way no request
//! is read, so no more than one portion is kept. Each call makes at most one portion, so that
//! a long answer takes turns with the packets.
//!
//! A subscriber that has not taken the last push gets no other: the next figures are skipped and
//! counted, and events wait in the ring. So no more than one push is kept, and its figures are
//! shared with other subscribers. A subscriber that writes is closed.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bonding_os::poll::Interest;
use bytes::Bytes;

use super::subscription::{Push, Subscription};
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
    /// What is not sent yet, the first from `sent` on.
    parts: VecDeque<Bytes>,
    sent: usize,
    rest: Option<R>,
    /// When the other side took something last, or was owed nothing.
    taken_at: Instant,
    subscription: Option<Subscription>,
}

impl<R> Connection<R> {
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            requests: Vec::new(),
            ended: false,
            parts: VecDeque::new(),
            sent: 0,
            rest: None,
            taken_at: now,
            subscription: None,
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
        if self.subscription.is_some() && (self.ended || !self.requests.is_empty()) {
            return Err(Closed);
        }
        if self.parts.is_empty() {
            self.make_portion(answers, now);
        }
        if self.requests.len() >= REQUEST_MAX_BYTES && !self.has_request() {
            return Err(Closed);
        }
        self.write(now)?;
        if self.ended && !self.owes() && !self.has_request() { Err(Closed) } else { Ok(()) }
    }

    /// What the connection is subscribed to.
    pub(super) const fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    /// Sends a subscriber what is due. `figures`: the line of this moment.
    pub(super) fn push(&mut self, push: &mut Push<'_>, now: Instant) -> Result<(), Closed> {
        let owes = self.owes();
        let Some(subscription) = &mut self.subscription else { return Ok(()) };
        if owes {
            subscription.skip(now);
            return Ok(());
        }
        self.taken_at = now;
        self.parts.extend(subscription.lines(push, now));
        self.write(now)
    }

    /// Bytes of answers that are kept.
    #[cfg(test)]
    pub(super) fn unread(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() - self.sent
    }

    /// Whether the other side has not taken all that there is for it.
    pub(super) fn owes(&self) -> bool {
        !self.parts.is_empty() || self.rest.is_some()
    }

    fn has_request(&self) -> bool {
        self.requests.contains(&b'\n')
    }

    fn make_portion(&mut self, answers: &mut impl Answers<Rest = R>, now: Instant) {
        let Portion { mut text, rest } = if let Some(rest) = self.rest.take() {
            answers.proceed(rest)
        } else if let Some(end) = self.requests.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.requests.drain(..=end).collect();
            match Request::parse(String::from_utf8_lossy(&line).trim()) {
                Ok(Request::Subscribe { interval_ms, after }) => self.subscribe(interval_ms, after, now),
                Ok(request) => answers.answer(request),
                Err(why) => Portion { text: error(&why), rest: None },
            }
        } else {
            return;
        };
        if rest.is_none() {
            text.push('\n');
        }
        if !text.is_empty() {
            self.parts.push_back(text.into());
        }
        self.rest = rest;
    }

    fn subscribe(&mut self, interval_ms: u64, after: Option<u64>, now: Instant) -> Portion<R> {
        let text = match Subscription::new(interval_ms, after, now) {
            Ok(subscription) => self.subscription.insert(subscription).answer(),
            Err(why) => error(&why),
        };
        Portion { text, rest: None }
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
        while let Some(part) = self.parts.front() {
            match self.stream.write(part.get(self.sent..).unwrap_or_default()) {
                Ok(count) if count > 0 => {
                    self.sent += count;
                    self.taken_at = now;
                    if self.sent == part.len() {
                        self.parts.pop_front();
                        self.sent = 0;
                    }
                }
                Err(error) if is_for_later(&error) => return Ok(()),
                Ok(_) | Err(_) => return Err(Closed),
            }
        }
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
