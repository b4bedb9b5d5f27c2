//! Why a packet or datagram was thrown away. Copied, counted, never logged above TRACE.

macro_rules! discards {
    ($($(#[$doc:meta])* $name:ident => $key:literal,)*) => {
        /// The reason why one packet or datagram was not processed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Discard { $($(#[$doc])* $name,)* }

        impl Discard {
            /// Every reason there is, in the order of the counters.
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
    /// `len` names more bytes than there are.
    LengthBeyondEnd => "length_beyond_end",
    /// Bytes behind the only frame of a plain datagram.
    TrailingBytes => "trailing_bytes",
    /// No kind, or several, in the flags.
    KindMalformed => "kind_malformed",
    /// A kind or modifier that this link's security does not carry.
    KindUnsupported => "kind_unsupported",
    /// A heartbeat that is shorter than its version says.
    HeartbeatMalformed => "heartbeat_malformed",
    /// From an address or to a link that nobody configured.
    UnknownPeer => "unknown_peer",
    /// A control frame that is none.
    ControlMalformed => "control_malformed",
    /// A feedback frame that is none, or about what was never sent.
    FeedbackMalformed => "feedback_malformed",
    /// A repair symbol that cannot be one.
    RepairMalformed => "repair_malformed",
    /// A repair symbol beyond what the packets that come with symbols make worth the work.
    RepairUnpaid => "repair_unpaid",
    /// Sealed, and not by who it claims to be.
    Unauthenticated => "unauthenticated",
    /// Sealed and seen before, or too old to tell.
    Replayed => "replayed",
    /// Sealed for a session that is not there.
    UnknownSession => "unknown_session",
    /// Sealed under a key that is over.
    Expired => "expired",
    /// From somebody whose key nobody enrolled.
    UnknownClient => "unknown_client",
    /// A handshake message that is none, or of another version.
    HandshakeMalformed => "handshake_malformed",
    /// An initiation that is not newer than one that its client sent before.
    HandshakeReplayed => "handshake_replayed",
    /// More initiations than one source may send.
    HandshakeLimited => "handshake_limited",
    /// For a session or link that is not up.
    NotConnected => "not_connected",
    /// An inner packet that is not IPv4 or IPv6, or whose header contradicts its length.
    NotIp => "not_ip",
    /// An inner packet whose source is not the client's.
    ForeignSource => "foreign_source",
    /// An inner packet to an address that no client has.
    NoRoute => "no_route",
    /// Seen before.
    Duplicate => "duplicate",
    /// Behind everything the resequencer remembers.
    Stale => "stale",
    /// Too far ahead of everything the resequencer saw.
    OutOfWindow => "out_of_window",
    /// The queue ahead of the links is full.
    QueueFull => "queue_full",
    /// Dropped by the queue's delay control.
    QueueDelay => "queue_delay",
    /// A pure acknowledgement of TCP that waited in the queue until a newer one said the same and more.
    AckSuperseded => "ack_superseded",
    /// Larger than the links carry.
    TooBig => "too_big",
    /// Not taken by a socket whose buffer is full, or that is missing. Counted by the driver.
    SocketBlocked => "socket_blocked",
    /// Refused by the kernel on sending. Counted by the driver.
    SendRefused => "send_refused",
}

/// Counters, one for each [`Discard`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscardCounts([u64; Discard::ALL.len()]);

impl DiscardCounts {
    /// Counts one more.
    pub fn count(&mut self, reason: Discard) {
        self.add(reason, 1);
    }

    /// Counts `count` more.
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
