//! Which frames a datagram may carry. A plain datagram carries one heartbeat, or one data frame
//! that is to be delivered in order or at once. A sealed one carries any number of frames of any
//! kind.

use bytes::{Buf as _, Bytes};

use crate::discard::Discard;
use crate::packet::PacketBuf;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::{self, Frame, Kind, Modifiers};

/// What a plain datagram asks for, free of the datagram's bytes.
#[derive(Debug)]
pub(in crate::session) enum PlainFrame {
    /// A heartbeat with its number.
    Heartbeat(u64, Heartbeat),
    /// A data frame's number and modifiers. The packet follows the frame header.
    Data(u64, Modifiers),
}

impl PlainFrame {
    pub(in crate::session) fn parse(datagram: &[u8]) -> Result<Self, Discard> {
        let frame = wire::parse_plain(datagram)?;
        if !is_known(&frame) {
            return Err(Discard::KindUnsupported);
        }
        match frame.kind {
            Kind::Heartbeat => Ok(Self::Heartbeat(frame.seq_num, Heartbeat::parse(frame.payload)?)),
            Kind::Data => Ok(Self::Data(frame.seq_num, frame.modifiers)),
            Kind::Feedback | Kind::Repair | Kind::Control => Err(Discard::KindUnsupported),
        }
    }
}

/// A frame of a sealed datagram.
#[derive(Debug)]
pub(in crate::session) struct SealedFrame {
    pub(in crate::session) seq_num: u64,
    pub(in crate::session) kind: Kind,
    pub(in crate::session) modifiers: Modifiers,
    pub(in crate::session) payload: Bytes,
}

impl SealedFrame {
    /// Takes the next of these frames; `None`: there is none left.
    pub(in crate::session) fn take(frames: &mut Bytes) -> Result<Option<Self>, Discard> {
        if frames.is_empty() {
            return Ok(None);
        }
        let (frame, rest) = wire::parse_frame(frames)?;
        let (seq_num, kind, modifiers) = (frame.seq_num, frame.kind, frame.modifiers);
        let (len, left) = (frame.payload.len(), rest.len());
        if !is_known(&frame) {
            return Err(Discard::KindUnsupported);
        }
        frames.advance(frames.len() - left - len);
        // As a rule a datagram has one frame: the rest of it is the payload, and needs no other
        // reference.
        let payload = if left == 0 { std::mem::take(frames) } else { frames.split_to(len) };
        Ok(Some(Self { seq_num, kind, modifiers, payload }))
    }
}

/// Whether a frame's modifiers mean something on its kind.
fn is_known(frame: &Frame<'_>) -> bool {
    let means = match frame.kind {
        Kind::Data => Modifiers::AT_ONCE.with(Modifiers::PARTIAL),
        Kind::Repair => Modifiers::AT_ONCE,
        Kind::Heartbeat | Kind::Feedback | Kind::Control => Modifiers::NONE,
    };
    means.has(frame.modifiers)
}

/// The packet of a data frame.
pub(in crate::session) fn packet(payload: Bytes, modifiers: Modifiers) -> PacketBuf {
    if modifiers.has(Modifiers::PARTIAL) { PacketBuf::partial(payload) } else { PacketBuf::from(payload) }
}
