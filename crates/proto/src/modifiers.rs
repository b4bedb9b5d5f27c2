//! The modifiers of a frame. Packets that are kept have them as well as frames on the wire.

/// Bits that change how a frame is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modifiers(u8);

impl Modifiers {
    /// No modifier.
    pub const NONE: Self = Self(0);
    /// The payload is compressed.
    pub const COMPRESSED: Self = Self(0x20);
    /// Deliver the packet at once, without resequencing.
    pub const AT_ONCE: Self = Self(0x40);
    /// The receiver computes the packet's TCP or UDP checksum.
    pub const PARTIAL: Self = Self(0x80);

    /// The bits of the flags that are modifiers.
    pub(crate) const MASK: u8 = 0xe0;

    /// The modifiers in a frame's flags.
    pub(crate) const fn from_flags(flags: u8) -> Self {
        Self(flags & Self::MASK)
    }

    /// The modifiers as bits of the flags.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// Whether no modifier is set.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The modifiers of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all modifiers of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
