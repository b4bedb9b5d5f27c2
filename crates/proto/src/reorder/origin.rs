//! Where a packet came from, and how far its number is to be trusted.

use crate::packet::LinkId;

/// How far a packet's number is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// As any other: all links of the bond are of one kind.
    Alike,
    /// It is authentic, in a bond that also has plain links.
    Sealed,
    /// A plain link brought it, in a bond that also has sealed ones: it may be forged. It
    /// is put in order, but no authentic packet is late, lost or a copy because of it.
    Plain,
}

/// The link that carried a packet, and how far that link is trusted.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub(crate) link: LinkId,
    pub(crate) trust: Trust,
}

impl From<LinkId> for Origin {
    fn from(link: LinkId) -> Self {
        Self { link, trust: Trust::Alike }
    }
}
