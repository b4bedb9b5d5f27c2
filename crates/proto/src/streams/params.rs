//! The constants of streams: unit, and reason or source.

/// Streams of one session, opened by one side. Chosen: a household has some hundred.
pub(super) const STREAMS_MAX: usize = 4_096;
/// What a stream's peer may send before the first bytes were read, and ... Chosen: the
/// bandwidth-delay product of 200 Mbit/s over 80 ms.
pub(super) const WINDOW_FIRST: u64 = 2 << 20;
/// ... what it may send ahead at most. Chosen: 1 Gbit/s over 130 ms.
pub(super) const WINDOW_MAX: u64 = 16 << 20;
/// And at least, where there are many streams. Chosen: a page's objects.
pub(super) const WINDOW_MIN: u64 = 64 << 10;
/// What all streams of a session start with together. Chosen: sixteen of them.
pub(super) const WINDOWS_FIRST: u64 = 16 * WINDOW_FIRST;
/// No window grows while all of a session's streams may have this much unread together. Chosen: a
/// router's memory; three windows of the largest.
pub(super) const PROMISED_MAX: u64 = 3 * WINDOW_MAX;
/// Bytes that one session's streams have sent and that were not acknowledged. Chosen: 4 Gbit/s over
/// 50 ms.
pub(super) const UNDER_WAY_MAX: usize = 24 << 20;
/// A stream may have so many bytes waiting whatever the others have. Chosen: one read of a socket.
pub(super) const SHARE_MIN: usize = 64 << 10;
/// The bounds of what all streams of a session have waiting ahead of the links. Chosen: what a
/// geostationary link of 6 Mbit/s is behind another; and the memory of the queue.
pub(super) const BACKLOG_MIN: usize = 512 << 10;
pub(super) const BACKLOG_MAX: usize = 8 << 20;
/// Pieces that wait for others, beside one for so many bytes of the window. Chosen: full pieces
/// are six times as large; a peer that sends smaller ones out of order wastes memory.
pub(super) const FRAGMENTS_MIN: usize = 1_024;
pub(super) const FRAGMENT_BYTES: u64 = 256;
/// Crumbs that a reader left behind are joined up to this. Chosen: full pieces are copied once.
pub(super) const JOINED_BYTES_MAX: usize = 1 << 10;
/// Places for pieces that an empty half keeps. Chosen: one batch of a link; 2 KiB.
pub(super) const READY_KEPT: usize = 64;
/// The smallest piece. Chosen: what every link carries before its path is known.
pub(super) const PIECE_BYTES_MIN: usize = 1_129;
/// A writer is told of no less room than this. Chosen: no stream is cut into crumbs.
pub(super) const WRITE_MIN: usize = 1_024;
/// A number is not used again for a stream that would begin above this offset. Chosen: half of
/// what 48 bits name.
pub(super) const OFFSETS_MAX: u64 = 1 << 47;
/// A peer that has used its credit but for this part of the window waits for more. Chosen: an
/// eighth of half a window is some milliseconds.
pub(super) const USED_UP_SHARE: u64 = 8;
/// Messages that the peer is not known to have, beyond which it opens no stream. Chosen: four for
/// each of the most streams; some 3 MB.
pub(super) const MESSAGES_MAX: usize = 4 * STREAMS_MAX;
