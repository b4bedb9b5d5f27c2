//! Reasons for discarding a packet or a datagram. A reason is `Copy` and counted, and never logged
//! above TRACE.

macro_rules! discards {
    ($($(#[$doc:meta])* $name:ident => $key:literal,)*) => {
        /// The reason why one packet or datagram was not processed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Discard { $($(#[$doc])* $name,)* }

        impl Discard {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name in status, logs and metrics.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

discards! {
    /// Shorter than a frame header.
    Truncated => "truncated",
    /// The frame's `len` is larger than the rest of the datagram.
    LengthBeyondEnd => "length_beyond_end",
    /// Bytes behind the only frame of a plain datagram.
    TrailingBytes => "trailing_bytes",
    /// The flags name no kind, or several.
    KindMalformed => "kind_malformed",
    /// A kind or modifier that a link with this security does not carry.
    KindUnsupported => "kind_unsupported",
    /// A malformed heartbeat: too short, of an unknown version, or with an echo from the future.
    HeartbeatMalformed => "heartbeat_malformed",
    /// A second heartbeat in one datagram.
    HeartbeatRepeated => "heartbeat_repeated",
    /// A second control frame in one datagram.
    ControlRepeated => "control_repeated",
    /// More feedback frames in one datagram than it may have.
    FeedbackRepeated => "feedback_repeated",
    /// From an address that is not configured, or to a link that is not configured.
    UnknownPeer => "unknown_peer",
    /// A malformed control frame.
    ControlMalformed => "control_malformed",
    /// A malformed feedback frame, or feedback about datagrams that were never sent.
    FeedbackMalformed => "feedback_malformed",
    /// A malformed repair symbol.
    RepairMalformed => "repair_malformed",
    /// A repair symbol whose decoding would cost more work than the packets received so far allow.
    RepairUnpaid => "repair_unpaid",
    /// A sealed message whose authentication failed.
    Unauthenticated => "unauthenticated",
    /// A sealed datagram whose counter was seen before, or is too old to be checked.
    Replayed => "replayed",
    /// A sealed datagram for a session that does not exist.
    UnknownSession => "unknown_session",
    /// A sealed datagram under a key that has expired.
    Expired => "expired",
    /// A datagram of a session whose earlier ones made more work than is paid for.
    Overworked => "overworked",
    /// A handshake from a client whose key is not enrolled.
    UnknownClient => "unknown_client",
    /// A malformed handshake message, or one of another version.
    HandshakeMalformed => "handshake_malformed",
    /// An initiation of a version that showed an invitation's token itself.
    TokenOutdated => "token_outdated",
    /// An initiation that is not newer than the newest of the same client.
    HandshakeReplayed => "handshake_replayed",
    /// More initiations than one source may send.
    HandshakeLimited => "handshake_limited",
    /// For a session or link that is not up.
    NotConnected => "not_connected",
    /// An inner packet that is not IPv4 or IPv6, or whose header contradicts its length.
    NotIp => "not_ip",
    /// An inner packet whose source address does not belong to the client.
    ForeignSource => "foreign_source",
    /// An inner packet to an address that belongs to no client.
    NoRoute => "no_route",
    /// A data frame that arrived before.
    Duplicate => "duplicate",
    /// A data frame older than the resequencer's window.
    Stale => "stale",
    /// A data frame too far ahead of the resequencer's window.
    OutOfWindow => "out_of_window",
    /// The queue ahead of the links is full.
    QueueFull => "queue_full",
    /// Dropped by the queue's delay control.
    QueueDelay => "queue_delay",
    /// A pure TCP acknowledgement in the queue that a newer acknowledgement of its connection
    /// replaced.
    AckSuperseded => "ack_superseded",
    /// Larger than the links carry.
    TooBig => "too_big",
    /// The socket's buffer is full, or the socket is missing. Counted by the driver.
    SocketBlocked => "socket_blocked",
    /// The kernel refused to send. Counted by the driver.
    SendRefused => "send_refused",
}

/// One counter for each [`Discard`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardCounts([u64; Discard::ALL.len()]);

impl Default for DiscardCounts {
    fn default() -> Self {
        Self([0; Discard::ALL.len()])
    }
}

impl DiscardCounts {
    /// Counts `reason` once.
    pub fn count(&mut self, reason: Discard) {
        self.add(reason, 1);
    }

    /// Counts `reason` `count` times.
    pub fn add(&mut self, reason: Discard, count: u64) {
        if let Some(slot) = self.0.get_mut(reason as usize) {
            *slot = slot.saturating_add(count);
        }
    }

    /// How often `reason` was counted.
    pub fn of(&self, reason: Discard) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in other.iter() {
            self.add(reason, count);
        }
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.iter().copied().zip(self.0.iter().copied())
    }
}
