//! Which frames a datagram may carry. A plain datagram carries one heartbeat, or one data frame that is to
//! be delivered in order or at once. A sealed one carries any number of frames of any kind.

use crate::discard::Discard;
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

/// Whether a frame's modifiers mean something on its kind.
pub(in crate::session) fn is_known(frame: &Frame<'_>) -> bool {
    let means = match frame.kind {
        Kind::Data => Modifiers::AT_ONCE.with(Modifiers::PARTIAL),
        Kind::Repair => Modifiers::AT_ONCE,
        Kind::Heartbeat | Kind::Feedback | Kind::Control => Modifiers::NONE,
    };
    means.has(frame.modifiers)
}
