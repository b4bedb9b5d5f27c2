//! The layout for reading a super-packet: each segment's payload with room for a header before it,
//! so that no payload has to be moved afterwards.
//!
//! The kernel tells the segment size only with the packet. But a flow that sends much sends many
//! super-packets of one shape: the last shape is expected again, and readv(2) scatters the packet
//! accordingly. A packet of another shape is reassembled and split the slow way. In one sealed TCP
//! download, moving the payload was a tenth of the server's processor time.
//!
//! Contract: the pieces hold [`PACKET_BYTES_MAX`] bytes together and lie in a window of
//! [`WINDOW_BYTES`]. Total on any count.

use std::io::IoSliceMut;

use super::Plan;

/// The largest packet, super-packets included.
pub(crate) const PACKET_BYTES_MAX: usize = 65_535;
/// The most segments of one super-packet. The device is told this bound.
pub(crate) const SEGMENTS_MAX: usize = 128;
/// The largest header: IPv6 and TCP. A shape with a larger one is not expected again.
const HEADER_BYTES_MAX: usize = 40 + 60;
/// What a read may need: a super-packet with a header for each of its segments.
pub(crate) const WINDOW_BYTES: usize = PACKET_BYTES_MAX + SEGMENTS_MAX * HEADER_BYTES_MAX;

/// The expected shape; one piece by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes of header and payload of a segment; zero: no shape is expected.
    header_bytes: usize,
    payload_bytes: usize,
}

impl Layout {
    /// The layout for a super-packet of this shape; `None` if it would have too many pieces.
    pub(crate) fn of(header_bytes: usize, payload_bytes: usize) -> Option<Self> {
        let fits = header_bytes <= HEADER_BYTES_MAX && payload_bytes * (SEGMENTS_MAX - 1) >= PACKET_BYTES_MAX;
        fits.then_some(Self { header_bytes, payload_bytes })
    }

    /// Whether super-packets split by `plan` have the expected shape.
    pub(crate) fn is_of(&self, plan: &Plan) -> bool {
        plan.shape() == Some((self.header_bytes, self.payload_bytes))
    }

    /// Bytes of the first piece: the first segment, or any packet.
    pub(crate) fn first_bytes(&self) -> usize {
        if self.payload_bytes == 0 { PACKET_BYTES_MAX } else { self.header_bytes + self.payload_bytes }
    }

    /// Gives `read` the pieces of `window`, behind `header` where that is not empty.
    pub(crate) fn scatter<'a, R>(
        &self,
        header: &'a mut [u8],
        window: &'a mut [u8],
        read: impl FnOnce(&mut [IoSliceMut<'a>]) -> R,
    ) -> R {
        if self.payload_bytes == 0 {
            // Small packets come singly and often, so no pieces are laid out for them.
            let (piece, _) = window.split_at_mut(PACKET_BYTES_MAX.min(window.len()));
            let mut slices = [IoSliceMut::new(header), IoSliceMut::new(piece)];
            let used = usize::from(slices.first().is_some_and(|header| header.is_empty()));
            return read(slices.get_mut(used..).unwrap_or_default());
        }
        let mut slices: [IoSliceMut<'a>; SEGMENTS_MAX + 1] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut count, mut left, mut rest) = (0, PACKET_BYTES_MAX, window);
        let mut push = |slice: &'a mut [u8]| {
            if let Some(place) = slices.get_mut(count).filter(|_| !slice.is_empty()) {
                *place = IoSliceMut::new(slice);
                count += 1;
            }
        };
        push(header);
        let mut bytes = self.first_bytes();
        while left > 0 {
            let (piece, behind) = rest.split_at_mut(bytes.min(left).min(rest.len()));
            left -= piece.len();
            if piece.is_empty() {
                break;
            }
            push(piece);
            rest = behind.get_mut(self.header_bytes..).unwrap_or_default();
            bytes = self.payload_bytes;
        }
        read(slices.get_mut(..count).unwrap_or_default())
    }

    /// Makes packets of a super-packet of `total` bytes that was read to `window` as expected: they
    /// follow each other. Returns the bytes of all.
    pub(crate) fn finish(&self, plan: &Plan, total: usize, window: &mut [u8]) -> usize {
        let (segments, stride) = plan.extent(total);
        let used = total + (segments - 1) * self.header_bytes;
        for index in (0..segments).rev() {
            let start = index * stride;
            // The first header is the model for the others, so it is rewritten last.
            if index > 0 && start + self.header_bytes <= window.len() {
                window.copy_within(..self.header_bytes, start);
            }
            let packet = window.get_mut(start..(start + stride).min(used)).unwrap_or_default();
            plan.finish(index, index + 1 == segments, packet);
        }
        used
    }

    /// Reassembles in `packet` the bytes read to `window`.
    pub(crate) fn gather(&self, window: &[u8], packet: &mut [u8]) {
        let (mut from, mut bytes) = (0, self.first_bytes());
        let mut rest = packet;
        while !rest.is_empty() {
            let (place, behind) = rest.split_at_mut(bytes.min(rest.len()));
            let Some(piece) = window.get(from..from + place.len()).filter(|piece| !piece.is_empty()) else {
                return;
            };
            place.copy_from_slice(piece);
            from += piece.len() + self.header_bytes;
            bytes = self.payload_bytes;
            rest = behind;
        }
    }
}
