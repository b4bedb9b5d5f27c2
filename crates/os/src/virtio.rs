//! Constants of `struct virtio_net_hdr` (virtio 1.2 §5.1.6; include/uapi/linux/virtio_net.h).

/// Length of the header.
pub(crate) const VIRTIO_BYTES: usize = 10;
/// Flag: the checksum is partial.
pub(crate) const NEEDS_CHECKSUM: u8 = 1;
/// Kinds of super-packets.
pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
/// On top of a kind: TCP with ECN.
pub(crate) const GSO_ECN: u8 = 0x80;
