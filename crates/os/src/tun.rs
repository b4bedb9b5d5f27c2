//! The TUN device: inner packets in and out, many per system call.
//!
//! With offloads (`IFF_VNET_HDR`) one read gives up to 64 KiB of one TCP or UDP flow, which tun-rs splits into
//! packets of at most the MTU with valid checksums; and packets written together are coalesced into such
//! super-packets where they follow each other. Without offloads each read and write is one packet. Offload is a
//! matter of speed only: where it is refused the device works without.
//!
//! Coalescing is our own. tun-rs's `send_multiple` merges only into buffers that have room for the largest super-packet,
//! each of them (8 MiB for a batch of 128), and copies every packet three times on the way.
//!
//! Contract: nonblocking. [`Tun::recv_batch`] makes one read. One bad packet never loses the others of its batch: it
//! is counted in [`TunCounters`]. An error is returned only when the device itself is gone. The device with its
//! addresses and routes disappears when the [`Tun`] is dropped or the process dies.
//!
//! Does not know whose packets these are or where they go.
//!
//! Sources: Documentation/networking/tuntap.rst; `struct virtio_net_hdr`; the tun-rs crate.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tun_rs::{DeviceBuilder, SyncDevice, VIRTIO_NET_HDR_LEN};

use crate::address::Cidr;
use crate::coalesce::{Coalescer, VIRTIO_BYTES};
use crate::netlink::{self, NetlinkError};
use crate::slab::SlabPool;
use crate::throttle::Throttle;

/// The most packets that one read can give. The device is told to make no super-packet of more segments.
const SEGMENTS_MAX: usize = GSO_SEGMENTS_MAX as usize;
/// The same as the kernel wants it.
const GSO_SEGMENTS_MAX: u32 = 128;
/// The largest read: a virtio header and a super-packet.
const READ_BYTES_MAX: usize = VIRTIO_NET_HDR_LEN + 65_535;
/// A lone packet up to this size is copied out, so that it does not hold a slot of a full MTU.
const SMALL_BYTES_MAX: usize = 512;
/// Small packets share slabs of this size.
const SMALL_SLAB_BYTES: usize = 16 * 1024;

/// What the TUN device should look like.
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

/// Why there is no TUN device.
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
    /// The device is there, but its settings were refused.
    #[error("cannot set up the TUN device `{name}`: {source}")]
    Configure {
        /// Interface name.
        name: String,
        /// What was refused.
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

/// What went wrong with single packets.
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

/// A TUN device of our own.
pub struct Tun {
    device: SyncDevice,
    name: String,
    index: u32,
    mtu: u16,
    raw: Box<[u8]>,
    sizes: [usize; SEGMENTS_MAX],
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
        let slot = usize::from(config.mtu);
        let coalescer = Coalescer::new(device.udp_gso());
        Ok(Self {
            device,
            name: config.name.clone(),
            index,
            mtu: config.mtu,
            raw: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            sizes: [0; SEGMENTS_MAX],
            slots: SlabPool::new(2 * SEGMENTS_MAX * slot),
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

    /// TCP super-packets are in use.
    pub fn offload(&self) -> bool {
        self.device.tcp_gso()
    }

    /// What happened so far.
    pub fn counters(&self) -> TunCounters {
        self.counters
    }

    /// One read: appends its packets, in order, to `packets`. `false`: there was nothing to read. An error means that the
    /// device is gone.
    pub fn recv_batch(&mut self, packets: &mut Vec<Bytes>) -> io::Result<bool> {
        let slot = usize::from(self.mtu);
        let mut chunks = self.slots.window(SEGMENTS_MAX * slot).chunks_exact_mut(slot);
        let mut bufs: [&mut [u8]; SEGMENTS_MAX] = std::array::from_fn(|_| chunks.next().unwrap_or_default());
        let count = loop {
            match self.device.recv_multiple(&mut self.raw, &mut bufs, &mut self.sizes, 0) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(error) => {
                    self.counters.read_errors += 1;
                    if let Some(more) = self.log.pass() {
                        tracing::debug!(%error, more, "a packet from TUN could not be used");
                    }
                    return Ok(true);
                }
            }
        };
        self.counters.reads += 1;
        self.counters.packets_in += count as u64;
        self.cut(count, slot, packets);
        Ok(true)
    }

    /// Cuts the `count` packets of the last read out of the slots.
    fn cut(&mut self, count: usize, slot: usize, packets: &mut Vec<Bytes>) {
        let first = self.sizes.first().copied().unwrap_or(0);
        if count == 1 && first <= SMALL_BYTES_MAX.min(slot / 2) {
            if self.small.capacity() < first {
                self.small.reserve(SMALL_SLAB_BYTES);
            }
            let window = self.slots.window(slot);
            self.small.extend_from_slice(window.get(..first).unwrap_or_default());
            packets.push(self.small.split().freeze());
            return;
        }
        let slab = self.slots.take(count * slot).freeze();
        for (position, size) in self.sizes.iter().take(count).enumerate() {
            let start = position * slot;
            packets.push(slab.slice(start..start + *size));
        }
    }

    /// Writes packets, coalescing those of a flow that follow each other; a flow's packets stay in order. A packet that
    /// the kernel refuses is counted and the others are written. An error means that the device is gone.
    pub fn send_batch<P: AsRef<[u8]>>(&mut self, packets: &[P]) -> io::Result<()> {
        let Self { device, coalescer, counters, log, name, .. } = self;
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
            coalescer.coalesce(packets, |slices, count| {
                written(rustix::io::writev(&*device, slices).map_err(Into::into), count);
            });
        } else {
            for packet in packets {
                written(rustix::io::write(&*device, packet.as_ref()).map_err(Into::into), 1);
            }
        }
        gone.map_or(Ok(()), Err)
    }
}

const _: () = assert!(VIRTIO_BYTES == VIRTIO_NET_HDR_LEN, "tun-rs and we agree on the header");

/// With offloads where the kernel has them and they are asked for.
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
        // Only super-packets of very small segments would be lost, and nothing common makes them.
        tracing::debug!(%error, "cannot bound the segments of a TUN super-packet");
    }
    if let Err(error) = netlink.set_no_automatic_ipv6(index) {
        // It would only announce itself to the other end, where nobody listens.
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
