//! The TUN device: inner packets in and out, many per system call.
//!
//! With offloads (`IFF_VNET_HDR`) one read returns up to 64 KiB of one TCP or UDP flow, which is
//! split into packets of at most the MTU; consecutive packets of a flow are merged into
//! super-packets for one write. Without offloads each read and write is one packet. Offloads only
//! affect speed: if the kernel refuses them, the device works without.
//!
//! Splitting and merging are this crate's own. tun-rs computes the checksum of every packet that it
//! splits, and merging verifies it again: a seventh of a sealed bond's processor time at the sender
//! and a tenth at the receiver (one TCP flow), for bytes that the AEAD protects. Here they stay
//! partial ([`Inbound::is_partial`]). `send_multiple` of tun-rs also needs a buffer of the largest
//! super-packet for each packet (8 MiB for a batch of 128), and copies every packet three times.
//!
//! Contract: nonblocking. [`Tun::recv_batch`] makes one read. One bad packet never loses the others
//! of its batch: it is counted in [`TunCounters`]. An error means that the device itself is gone.
//! The device with its addresses and routes disappears when the [`Tun`] is dropped or the process
//! dies. The module does not know the packets' owners or routes.
//!
//! Sources: Documentation/networking/tuntap.rst; `struct virtio_net_hdr`; the tun-rs crate.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::BytesMut;
use tun_rs::{DeviceBuilder, SyncDevice, VIRTIO_NET_HDR_LEN, VirtioNetHdr};

use crate::address::Cidr;
use crate::checksum::{put, transport_checksum};
use crate::coalesce::{Coalescer, Outbound, checksum_place};
use crate::netlink::{self, NetlinkError};
use crate::slab::SlabPool;
use crate::split::layout::{Layout, PACKET_BYTES_MAX, SEGMENTS_MAX, WINDOW_BYTES};
use crate::split::{Malformed, Plan};
use crate::throttle::Throttle;
use crate::virtio::VIRTIO_BYTES;

/// [`SEGMENTS_MAX`] in the kernel's type.
const GSO_SEGMENTS_MAX: u32 = 128;

const _: () = assert!(GSO_SEGMENTS_MAX as usize == SEGMENTS_MAX);

/// Bytes of a slab. Chosen: a few reads.
const SLAB_BYTES: usize = 4 * WINDOW_BYTES;
/// A lone packet up to this size, in bytes, is copied out. Chosen: it does not hold a place of a
/// full MTU then.
const SMALL_BYTES_MAX: usize = 512;
/// After this many reads without a super-packet no shape is expected. Chosen: the pieces of a
/// layout cost a little, too.
const LONE_READS_MAX: u32 = 16;
/// Bytes of a slab for small packets.
const SMALL_SLAB_BYTES: usize = 16 * 1024;

/// The settings of a TUN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunConfig {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Largest inner packet, 1280 or more where IPv6 is to work.
    pub mtu: u16,
    /// Addresses with their prefix lengths; each makes its prefix a route through the device.
    pub addresses: Vec<Cidr>,
    /// Ask for super-packets; `false` to measure what they bring.
    pub offload: bool,
}

/// The reason why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel refused the device.
    #[error("cannot create the TUN device `{name}`: {}", explain(.source))]
    Create {
        /// Interface name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device exists, but its settings were refused.
    #[error("cannot set up the TUN device `{name}`: {source}")]
    Configure {
        /// Interface name.
        name: String,
        /// The refused setting.
        source: NetlinkError,
    },
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "another process uses a device of this name".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "it needs root, or CAP_NET_ADMIN".to_owned(),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "this kernel has no TUN driver (modprobe tun)".to_owned()
        }
        Some(libc::EINVAL) => format!("{error}: an interface of this name that is not a TUN device exists?"),
        _ => error.to_string(),
    }
}

/// Counters, including faults of single packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunCounters {
    /// Reads that gave packets.
    pub reads: u64,
    /// Packets read.
    pub packets_in: u64,
    /// Reads that could not be split into packets.
    pub read_errors: u64,
    /// Writes that the kernel took.
    pub writes: u64,
    /// Packets written.
    pub packets_out: u64,
    /// Packets that the kernel refused.
    pub write_errors: u64,
}

/// A packet that was read.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The whole packet; its owner may rewrite it in place.
    pub bytes: BytesMut,
    /// Whether its TCP or UDP checksum is not computed yet; the field is zero then.
    pub is_partial: bool,
    /// Whether it was split from the same super-packet as the packet before it.
    pub follows: bool,
}

impl Inbound {
    /// The packet as [`Tun::send_batch`] takes it.
    pub fn outbound(&self) -> Outbound<'_> {
        Outbound { bytes: &self.bytes, is_partial: self.is_partial }
    }
}

/// A TUN device owned by this process.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    mtu: u16,
    /// The buffer for a super-packet of another shape than expected.
    raw: Box<[u8]>,
    /// The expected shape.
    layout: Layout,
    /// Reads since the last super-packet.
    lone_reads: u32,
    /// The buffer for packets written without offloads, with their checksums.
    scratch: Vec<u8>,
    slots: SlabPool,
    small: BytesMut,
    coalescer: Coalescer,
    counters: TunCounters,
    log: Throttle,
}

impl Tun {
    /// Creates the device, gives it its addresses and brings it up.
    pub fn create(config: &TunConfig) -> Result<Self, TunError> {
        let create = |source| TunError::Create { name: config.name.clone(), source };
        let device = open(config).map_err(create)?;
        device.set_nonblocking(true).map_err(create)?;
        let index = device.if_index().map_err(create)?;
        configure(index, config)
            .map_err(|source| TunError::Configure { name: config.name.clone(), source })?;
        let coalescer = Coalescer::new(device.udp_gso());
        Ok(Self {
            device,
            name: config.name.clone(),
            index,
            mtu: config.mtu,
            raw: vec![0; PACKET_BYTES_MAX].into_boxed_slice(),
            layout: Layout::default(),
            lone_reads: 0,
            scratch: Vec::new(),
            slots: SlabPool::new(SLAB_BYTES),
            small: BytesMut::new(),
            coalescer,
            counters: TunCounters::default(),
            log: Throttle::new(Duration::from_secs(10)),
        })
    }

    /// Interface name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Largest packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether TCP super-packets are in use.
    pub fn offload(&self) -> bool {
        self.device.tcp_gso()
    }

    /// The counters so far.
    pub fn counters(&self) -> TunCounters {
        self.counters
    }

    /// Makes one read and appends its packets, in order, to `packets`. `false`: there was nothing
    /// to read. An error means that the device is gone.
    pub fn recv_batch(&mut self, packets: &mut Vec<Inbound>) -> io::Result<bool> {
        let (layout, window) = (self.layout, self.slots.window(WINDOW_BYTES));
        let mut virtio = [0; VIRTIO_BYTES];
        let virtio_bytes = if self.device.tcp_gso() { VIRTIO_BYTES } else { 0 };
        let count = loop {
            let header = virtio.get_mut(..virtio_bytes).unwrap_or_default();
            let read = |slices: &mut [IoSliceMut<'_>]| rustix::io::readv(&self.device, slices);
            match layout.scatter(header, &mut *window, read) {
                Ok(count) => break count,
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.counters.reads += 1;
        let before = packets.len();
        if let Err(error) = self.cut(&virtio, count.checked_sub(virtio_bytes), packets) {
            self.counters.read_errors += 1;
            if let Some(more) = self.log.pass() {
                tracing::debug!(%error, more, "a packet from TUN could not be used");
            }
        }
        self.counters.packets_in += (packets.len() - before) as u64;
        Ok(true)
    }

    /// Cuts the packets out of what was read: `count` bytes behind the virtio header, in the window
    /// as the layout has it.
    fn cut(
        &mut self,
        virtio: &[u8; VIRTIO_BYTES],
        count: Option<usize>,
        packets: &mut Vec<Inbound>,
    ) -> Result<(), Malformed> {
        let count = count.ok_or(Malformed::CUT)?;
        let header = VirtioNetHdr::decode(virtio).map_err(|_| Malformed::CUT)?;
        let layout = self.layout;
        let window = self.slots.window(WINDOW_BYTES);
        // What is in one piece; as a rule the first segment, or all.
        let plan =
            Plan::of(&header, window.get(..count.min(layout.first_bytes())).unwrap_or_default(), count)?;
        let (segments, largest) = plan.extent(count);
        if segments > SEGMENTS_MAX || largest > usize::from(self.mtu).max(SMALL_BYTES_MAX) {
            return Err(Malformed::LARGE);
        }
        let is_partial = plan.is_partial;
        if plan.shape().is_none() && count <= layout.first_bytes() {
            self.lone_reads += 1;
            if self.lone_reads >= LONE_READS_MAX {
                (self.lone_reads, self.layout) = (0, Layout::default());
            }
            let packet = window.get_mut(..count).unwrap_or_default();
            plan.finish_lone(packet);
            let bytes = if count <= SMALL_BYTES_MAX {
                // A copy, so that it does not hold a slab.
                if self.small.capacity() < count {
                    self.small.reserve(SMALL_SLAB_BYTES);
                }
                self.small.extend_from_slice(packet);
                self.small.split()
            } else {
                self.slots.take(count)
            };
            packets.push(Inbound { bytes, is_partial, follows: false });
            return Ok(());
        }
        let used = if layout.is_of(&plan) {
            layout.finish(&plan, count, window)
        } else {
            layout.gather(window, self.raw.get_mut(..count).unwrap_or_default());
            let packet = self.raw.get(..count).unwrap_or_default();
            let mut used = 0;
            for index in 0..segments {
                used += plan.cut(packet, index, window.get_mut(used..).unwrap_or_default());
            }
            used
        };
        self.lone_reads = 0;
        let shape = plan.shape().and_then(|(header, payload)| Layout::of(header, payload));
        self.layout = shape.unwrap_or(layout);
        let mut slab = self.slots.take(used);
        packets.extend((0..segments).map(|index| {
            // All but the last are of the largest size.
            let bytes = slab.split_to(largest.min(slab.len()));
            Inbound { bytes, is_partial, follows: index > 0 }
        }));
        Ok(())
    }

    /// Writes packets. Consecutive packets of a flow are merged, and a flow's packets stay in
    /// order. A packet that the kernel refuses is counted and the others are written. An error
    /// means that the device is gone.
    pub fn send_batch<P>(&mut self, packets: &[P], view: impl Fn(&P) -> Outbound<'_>) -> io::Result<()> {
        let Self { device, coalescer, counters, log, name, scratch, .. } = self;
        let mut gone = None;
        let mut written = |result: io::Result<usize>, count: u64| match result {
            Ok(_) => {
                counters.writes += 1;
                counters.packets_out += count;
            }
            Err(error) => {
                counters.write_errors += count;
                if error.raw_os_error() == Some(libc::EBADFD) {
                    gone = Some(error);
                } else if let Some(more) = log.pass() {
                    tracing::warn!(%error, more, interface = name, "the kernel refused packets for TUN");
                }
            }
        };
        if device.tcp_gso() {
            coalescer.coalesce(packets, view, |slices, count| {
                written(rustix::io::writev(&*device, slices).map_err(Into::into), count);
            });
        } else {
            for packet in packets {
                let bytes = complete(view(packet), scratch);
                written(rustix::io::write(&*device, bytes).map_err(Into::into), 1);
            }
        }
        gone.map_or(Ok(()), Err)
    }
}

const _: () = assert!(VIRTIO_BYTES == VIRTIO_NET_HDR_LEN, "tun-rs and we agree on the header");

/// The packet with its checksum, in `scratch` if it was partial.
fn complete<'a>(packet: Outbound<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some((start, at, protocol)) = checksum_place(packet.bytes).filter(|_| packet.is_partial) else {
        return packet.bytes;
    };
    scratch.clear();
    scratch.extend_from_slice(packet.bytes);
    put(scratch, at, &[0, 0]);
    let sum = transport_checksum(scratch, start, protocol);
    put(scratch, at, &sum.to_be_bytes());
    scratch
}

/// Creates the device, with offloads if the kernel has them and they are requested.
fn open(config: &TunConfig) -> io::Result<SyncDevice> {
    let build = |offload: bool| {
        DeviceBuilder::new().name(config.name.clone()).offload(offload).inherit_enable_state().build_sync()
    };
    if !config.offload {
        return build(false);
    }
    build(true).or_else(|error| {
        if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTTY)) {
            tracing::info!(%error, "the kernel refused TUN offloads; going on without");
            build(false)
        } else {
            Err(error)
        }
    })
}

fn configure(index: u32, config: &TunConfig) -> Result<(), NetlinkError> {
    let mut netlink = netlink::Requests::open()?;
    netlink.set_mtu(index, u32::from(config.mtu))?;
    if let Err(error) = netlink.set_gso_segments(index, GSO_SEGMENTS_MAX) {
        // Only super-packets of very small segments would be lost, and no common program makes
        // them.
        tracing::debug!(%error, "cannot bound the segments of a TUN super-packet");
    }
    if let Err(error) = netlink.set_no_automatic_ipv6(index) {
        // IPv6 would only announce the device to the other end, which has no listener.
        tracing::debug!(%error, "the TUN device keeps its link-local address");
    }
    netlink.set_up(index)?;
    for address in &config.addresses {
        netlink.add_address(index, *address)?;
    }
    Ok(())
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl fmt::Debug for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tun")
            .field("name", &self.name)
            .field("index", &self.index)
            .field("mtu", &self.mtu)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
