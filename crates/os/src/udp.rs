//! UDP sockets: batches of datagrams in and out, bound to a link's interface or address.
//!
//! Sending takes up to [`UdpSocket::max_segments`] datagrams of one size in one system call (GSO).
//! Receiving returns many datagrams of one sender at a time (GRO), each cut from a slab without
//! copying. Where the kernel or a driver refuses GSO, the same batch is sent one datagram at a
//! time.
//!
//! Contract: nonblocking and never fatal. A full socket buffer is [`Sent::Blocked`]: the caller
//! keeps the rest. Any other error of the kernel (no route, no device, no buffers) is counted,
//! logged at intervals, and treated as a lost datagram. Addresses of both families are native:
//! IPv4-mapped ones never leave this module.
//!
//! No datagram is fragmented on the way: quinn-udp sets "don't fragment" (`IP_PMTUDISC_PROBE` for
//! both families, which also ignores the kernel's own path MTU). A datagram larger than the
//! interface's MTU is refused and counted as `too_big`. The module does not know the datagrams'
//! contents.
//!
//! Sources: udp(7) `UDP_SEGMENT`, `UDP_GRO`; ip(7) `IP_PKTINFO`; socket(7) `SO_BINDTODEVICE`; the
//! quinn-udp crate.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::BytesMut;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::slab::SlabPool;
use crate::throttle::Throttle;

/// The most bytes of a GSO send: an IPv4 packet less its headers.
pub const BATCH_BYTES_MAX: usize = 65_507;
/// The most bytes of a receive: GRO's limit.
const RECEIVE_BYTES_MAX: usize = 65_535;
/// Bytes of a slab: the most of one call.
const SLAB_BYTES: usize = RECEIVES_MAX * 65_536;
/// Receives in one [`UdpSocket::recv_all`] call. Chosen: it bounds a slab to 512 KiB.
pub const RECEIVES_MAX: usize = 8;
/// Bytes of the receive buffer. Chosen: 1 s at 32 Mbit/s or 30 ms at 1 Gbit/s, for times when the
/// process does not run.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of the send buffer. Chosen: two of the largest batches with the kernel's overhead. More
/// would be a queue behind the pacer, in which packets can no longer be reordered, dropped or moved
/// to another link.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// The settings of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Own address and port; port 0: any. The unspecified IPv6 address listens for IPv4 as well.
    pub bind: SocketAddr,
    /// Use only this interface, whatever the routing table says.
    pub interface: Option<String>,
}

/// A received datagram.
#[derive(Debug)]
pub struct Received {
    /// The sender.
    pub remote: SocketAddr,
    /// Our address that it was sent to.
    pub local: Option<IpAddr>,
    /// The index of the interface that it came in by.
    pub interface: Option<u32>,
    /// Whether it carries a congestion mark (CE).
    pub is_marked: bool,
    /// When the kernel received it, since the Unix epoch by the system's clock, which may be set;
    /// `None`: not known.
    pub arrived: Option<Duration>,
    /// The payload.
    pub data: BytesMut,
}

/// A batch to send: datagrams of `segment_size` bytes, the last one possibly shorter.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The receiver.
    pub remote: SocketAddr,
    /// Our sending address; `None`: the kernel's choice.
    pub local: Option<IpAddr>,
    /// All datagrams, one after the other; at most [`BATCH_BYTES_MAX`] and
    /// [`UdpSocket::max_segments`].
    pub contents: &'a [u8],
    /// Size of each datagram but the last, above zero.
    pub segment_size: usize,
    /// Whether routers may mark the datagrams instead of dropping them: ECT(0).
    pub is_ect: bool,
}

/// The result of sending a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Handed to the kernel, or lost and counted.
    Done,
    /// The socket's buffer is full. Send the rest again when it is writable.
    Blocked {
        /// How many of the batch's leading bytes are sent: whole datagrams, none with GSO.
        done: usize,
    },
}

/// Counters of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpCounters {
    /// Datagrams handed to the kernel.
    pub sent: u64,
    /// System calls they took.
    pub send_calls: u64,
    /// Datagrams received.
    pub received: u64,
    /// System calls they took.
    pub receive_calls: u64,
    /// Datagrams that the kernel refused.
    pub send_errors: u64,
    /// Of these, larger than the interface carries.
    pub too_big: u64,
    /// Of these, because of a missing route, device or address, or a rule against it.
    pub no_way: u64,
    /// Times that the socket's buffer was full.
    pub blocked: u64,
    /// Errors on receiving.
    pub receive_errors: u64,
}

/// The errors of sending while the link has no route: udp(7), ip(7), netdevice(7).
const NO_WAY: [i32; 8] = [
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::ENETDOWN,
    libc::ENODEV,
    libc::ENXIO,
    libc::EADDRNOTAVAIL,
    libc::EPERM,
    libc::EACCES,
];

impl UdpCounters {
    /// The sums.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            send_calls: self.send_calls + other.send_calls,
            received: self.received + other.received,
            receive_calls: self.receive_calls + other.receive_calls,
            send_errors: self.send_errors + other.send_errors,
            too_big: self.too_big + other.too_big,
            no_way: self.no_way + other.no_way,
            blocked: self.blocked + other.blocked,
            receive_errors: self.receive_errors + other.receive_errors,
        }
    }
}

/// A datagram that did not arrive: the kernel's error, and the host that reported it by ICMP, if
/// it was not this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// An error number, as of errno(3).
    pub code: i32,
    /// The host that reported it; `None`: this machine.
    pub by: Option<IpAddr>,
}

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// A rule forbids the datagram.
    Forbidden,
    /// There is no route to the network.
    NoRoute,
    /// The host cannot be reached, or a rule rejects the datagram.
    Unreachable,
    /// No socket listens at the port, or a rule rejects the datagram.
    NoListener,
    /// There is no address to send from.
    NoAddress,
    /// The datagram is larger than the interface, or the way, carries.
    TooBig,
    /// Anything else.
    Other,
}

impl Refusal {
    /// What the error says.
    pub const fn kind(&self) -> RefusalKind {
        match self.code {
            libc::EPERM | libc::EACCES => RefusalKind::Forbidden,
            libc::ENETUNREACH => RefusalKind::NoRoute,
            libc::EHOSTUNREACH => RefusalKind::Unreachable,
            libc::ECONNREFUSED => RefusalKind::NoListener,
            libc::EADDRNOTAVAIL | libc::EINVAL => RefusalKind::NoAddress,
            libc::EMSGSIZE => RefusalKind::TooBig,
            _ => RefusalKind::Other,
        }
    }

    /// The error, for a person.
    pub fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.code)
    }
}

/// Errors that are taken from a socket at once. Chosen: a flood of ICMP holds up nothing else.
const ERRORS_MAX: usize = 64;

/// A bound socket.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    state: UdpSocketState,
    local: SocketAddr,
    label: String,
    ipv6: bool,
    /// Whether batches were refused whose single datagrams were not.
    offload_refused: bool,
    counters: UdpCounters,
    /// Whether errors are told by ICMP as well.
    listens_for_errors: bool,
    refusal: Option<Refusal>,
    log: Throttle,
}

/// Memory for receiving, shared by the sockets of one thread.
#[derive(Debug)]
pub struct ReceiveBuffers(SlabPool);

impl ReceiveBuffers {
    /// `None`: not allocated before the first use.
    pub fn new() -> Self {
        Self(SlabPool::new(SLAB_BYTES))
    }
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self::new()
    }
}

impl UdpSocket {
    /// Binds a socket; to `::` for both families, or for IPv4 alone if the kernel has no IPv6.
    /// Fails with `ENODEV` while its interface does not exist, and with `EADDRNOTAVAIL` while no
    /// interface has its address: try again after a change.
    pub fn bind(config: &UdpConfig) -> io::Result<Self> {
        let any = config.bind.is_ipv6() && config.bind.ip().is_unspecified();
        match Self::bind_one(config) {
            Err(error) if any && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let bind = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.bind.port());
                Self::bind_one(&UdpConfig { bind, ..config.clone() })
            }
            result => result,
        }
    }

    fn bind_one(config: &UdpConfig) -> io::Result<Self> {
        let domain = Domain::for_address(config.bind);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let any = config.bind.ip().is_unspecified();
        if domain == Domain::IPV6 {
            socket.set_only_v6(!any)?;
        }
        if let Some(interface) = &config.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        set_buffers(&socket);
        socket.bind(&SockAddr::from(config.bind))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?.as_socket().unwrap_or(config.bind);
        let label = match &config.interface {
            Some(interface) => format!("{local}%{interface}"),
            None => local.to_string(),
        };
        Ok(Self {
            socket,
            state,
            local,
            label,
            ipv6: domain == Domain::IPV6,
            offload_refused: false,
            counters: UdpCounters::default(),
            listens_for_errors: false,
            refusal: None,
            log: Throttle::new(Duration::from_secs(10)),
        })
    }

    /// Own address and port as bound.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The most datagrams of one [`Batch`]: 1 if GSO is not available.
    pub fn max_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.state.max_gso_segments()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The counters so far.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// From now on ICMP tells what became of datagrams, or no longer does. Anyone can send ICMP,
    /// and each error costs a datagram: it is for sockets that have nothing to lose.
    pub fn listen_for_errors(&mut self, on: bool) -> io::Result<()> {
        if !on {
            self.take_errors();
        }
        let any = self.ipv6 && !self.socket.only_v6()?;
        if !self.ipv6 || any {
            set_receive_errors(&self.socket, libc::SOL_IP, libc::IP_RECVERR, on)?;
        }
        if self.ipv6 {
            set_receive_errors(&self.socket, libc::SOL_IPV6, libc::IPV6_RECVERR, on)?;
        }
        self.listens_for_errors = on;
        self.refusal = None;
        Ok(())
    }

    /// What became of the last datagram that did not arrive, as far as this was told.
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Takes what ICMP told.
    fn take_errors(&mut self) {
        for _ in 0..ERRORS_MAX {
            match self.state.recv_transport_error(UdpSockRef::from(&self.socket)) {
                Ok(Some(error)) => {
                    let by = error.addr.map(|address| address.ip().to_canonical());
                    self.refusal = Some(Refusal { code: error.raw_errno, by });
                }
                Ok(None) | Err(_) => break,
            }
        }
        // What was taken no longer ends the next call.
        let _ = self.socket.take_error();
    }

    /// One receive: appends its datagrams to `datagrams`. `false`: there were none.
    pub fn recv(&mut self, buffers: &mut ReceiveBuffers, datagrams: &mut Vec<Received>) -> bool {
        self.recv_some::<1>(buffers, datagrams) > 0
    }

    /// The same for a socket whose datagrams come one by one: several receives in one call.
    /// `false`: there is no more.
    pub fn recv_all(&mut self, buffers: &mut ReceiveBuffers, datagrams: &mut Vec<Received>) -> bool {
        self.recv_some::<RECEIVES_MAX>(buffers, datagrams) == RECEIVES_MAX
    }

    /// Up to `N` receives in one call; returns how many there were.
    fn recv_some<const N: usize>(
        &mut self,
        buffers: &mut ReceiveBuffers,
        datagrams: &mut Vec<Received>,
    ) -> usize {
        if self.listens_for_errors {
            self.take_errors();
        }
        let slab = buffers.0.window(N * RECEIVE_BYTES_MAX);
        let mut windows = slab.chunks_mut(RECEIVE_BYTES_MAX);
        let mut windows: [_; N] =
            std::array::from_fn(|_| IoSliceMut::new(windows.next().unwrap_or_default()));
        let mut metas = [RecvMeta::default(); N];
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut windows, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(error) => {
                self.counters.receive_errors += 1;
                self.report("receiving", &error, 1);
                return 0;
            }
        };
        self.counters.receive_calls += u64::from(count > 0);
        for (meta, number) in metas.iter().take(count).zip(1..) {
            // The rest of a window is dropped with it, except the last one's.
            let mut data = buffers.0.take(if number < count { RECEIVE_BYTES_MAX } else { meta.len });
            data.truncate(meta.len);
            self.cut(meta, data, datagrams);
        }
        count
    }

    /// Cuts what one receive gave into its datagrams.
    fn cut(&mut self, meta: &RecvMeta, mut data: BytesMut, datagrams: &mut Vec<Received>) {
        let remote = native(meta.addr);
        let local = meta.dst_ip.map(|address| address.to_canonical());
        let is_marked = meta.ecn == Some(EcnCodepoint::Ce);
        let stride = if meta.stride == 0 { meta.len.max(1) } else { meta.stride };
        loop {
            let rest = if data.len() > stride { data.split_off(stride) } else { BytesMut::new() };
            self.counters.received += 1;
            let (interface, arrived) = (meta.interface_index, meta.timestamp);
            datagrams.push(Received { remote, local, interface, is_marked, arrived, data });
            if rest.is_empty() {
                return;
            }
            data = rest;
        }
    }

    /// Sends a batch.
    pub fn send(&mut self, batch: &Batch<'_>) -> Sent {
        debug_assert!(batch.contents.len() <= BATCH_BYTES_MAX && batch.segment_size > 0);
        let count = batch.contents.len().div_ceil(batch.segment_size.max(1)) as u64;
        if count > 1 && self.max_segments().get() == 1 {
            return self.send_singly(batch);
        }
        match self.try_send(batch, batch.contents, Some(batch.segment_size)) {
            Ok(()) => {
                self.counters.send_calls += 1;
                self.counters.sent += count;
                Sent::Done
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.counters.blocked += 1;
                Sent::Blocked { done: 0 }
            }
            // quinn-udp has noted that GSO does not work here.
            Err(error) if count > 1 && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO)) => {
                self.send_singly(batch)
            }
            Err(error) => {
                self.count_lost(&error, count);
                Sent::Done
            }
        }
    }

    /// One datagram per system call.
    fn send_singly(&mut self, batch: &Batch<'_>) -> Sent {
        let (mut done, mut sent) = (0, 0);
        for contents in batch.contents.chunks(batch.segment_size.max(1)) {
            match self.try_send(batch, contents, None) {
                Ok(()) => sent += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.blocked += 1;
                    break;
                }
                Err(error) => self.count_lost(&error, 1),
            }
            done += contents.len();
        }
        self.counters.send_calls += sent;
        self.counters.sent += sent;
        if done < batch.contents.len() {
            return Sent::Blocked { done };
        }
        self.note_offload(sent > 0);
        Sent::Done
    }

    /// After a batch was sent one by one: checks whether the offload was at fault.
    fn note_offload(&mut self, sent_singly: bool) {
        if sent_singly {
            if !self.offload_refused {
                tracing::info!(socket = self.label, "no segmentation offload here; sending one by one");
            }
            self.offload_refused = true;
        } else if !self.offload_refused
            && let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.socket))
        {
            // Single datagrams were refused as well, so the offload was not at fault: a datagram
            // larger than the interface's MTU gets the same answer. quinn-udp has switched the
            // offload off; enable it again.
            self.state = state;
        }
    }

    fn try_send(&self, batch: &Batch<'_>, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit {
            destination: if self.ipv6 { mapped(batch.remote) } else { batch.remote },
            ecn: batch.is_ect.then_some(EcnCodepoint::Ect0),
            contents,
            segment_size,
            src_ip: batch.local,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn count_lost(&mut self, error: &io::Error, count: u64) {
        self.counters.send_errors += count;
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            self.counters.too_big += count;
        }
        if error.raw_os_error().is_some_and(|code| NO_WAY.contains(&code)) {
            self.counters.no_way += count;
        }
        if !self.listens_for_errors {
            return self.report("sending", error, count);
        }
        // While ICMP is listened to, an error may be an earlier datagram's: that one is told there.
        self.refusal = error.raw_os_error().map(|code| Refusal { code, by: None });
        self.take_errors();
    }

    fn report(&mut self, doing: &str, error: &io::Error, count: u64) {
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            // Path MTU probes are expected to be too big at times.
            tracing::debug!(socket = self.label, datagrams = count, "larger than the interface carries");
        } else if let Some(more) = self.log.pass() {
            tracing::warn!(socket = self.label, %error, datagrams = count, more, "{doing} failed");
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Switches an option of a socket for errors told by ICMP: `IP_RECVERR` or `IPV6_RECVERR`.
#[expect(unsafe_code, reason = "socket2 and rustix have no wrapper for these options")]
fn set_receive_errors(socket: &Socket, level: i32, option: i32, on: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let value = i32::from(on);
    let size = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: setsockopt(2) reads `size` bytes at the pointer, which are there and initialised, and
    // keeps nothing.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As large as permitted; a smaller buffer works too.
fn set_buffers(socket: &Socket) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    }
    let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
}

/// IPv4 as IPv4.
fn native(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => address,
        },
    }
}

/// IPv4 as an IPv6 socket wants it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => {
            let ip: Ipv6Addr = v4.ip().to_ipv6_mapped();
            SocketAddrV6::new(ip, v4.port(), 0, 0).into()
        }
        SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(bind: &str) -> UdpSocket {
        UdpSocket::bind(&UdpConfig { bind: bind.parse().unwrap(), interface: None }).unwrap()
    }

    /// Receives until `count` datagrams are there.
    fn receive(socket: &mut UdpSocket, buffers: &mut ReceiveBuffers, count: usize) -> Vec<Received> {
        let mut datagrams = Vec::new();
        let mut poller = crate::poll::Poller::new().unwrap();
        poller.add(&*socket, 0, crate::poll::Interest::Readable).unwrap();
        let mut ready = Vec::new();
        while datagrams.len() < count {
            poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
            assert!(!ready.is_empty(), "{} of {count} datagrams within 5 s", datagrams.len());
            while socket.recv(buffers, &mut datagrams) {}
        }
        datagrams
    }

    /// The first interface of every network namespace.
    const LOOPBACK: u32 = 1;

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_address().port()
    }

    #[test]
    fn a_batch_arrives_datagram_by_datagram() {
        let mut buffers = ReceiveBuffers::new();
        let mut near = socket("127.0.0.1:0");
        let mut far = socket("127.0.0.1:0");
        let contents: Vec<u8> = (0..40 * 1000 + 17_u32).map(|i| (i / 1000).to_le_bytes()[0]).collect();
        let remote = SocketAddr::new([127, 0, 0, 1].into(), port(&far));
        let batch = Batch { remote, local: None, contents: &contents, segment_size: 1000, is_ect: false };
        assert_eq!(near.send(&batch), Sent::Done);
        let datagrams = receive(&mut far, &mut buffers, 41);
        assert_eq!(datagrams.len(), 41);
        for (position, datagram) in datagrams.iter().enumerate() {
            assert_eq!(datagram.remote.port(), port(&near));
            assert_eq!(datagram.local, Some([127, 0, 0, 1].into()));
            assert_eq!(datagram.data.len(), if position == 40 { 17 } else { 1000 });
            assert!(datagram.data.iter().all(|byte| usize::from(*byte) == position));
        }
        assert_eq!(near.counters().send_calls, 1);
        assert_eq!((near.counters().sent, far.counters().received), (41, 41));
    }

    #[test]
    fn a_dual_stack_listener_shows_native_addresses_and_answers_from_the_one_used() {
        let mut buffers = ReceiveBuffers::new();
        let mut listener = socket("[::]:0");
        for (from, to) in [("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
            let mut client = socket(from);
            let to: IpAddr = to.parse().unwrap();
            let remote = SocketAddr::new(to, port(&listener));
            client.send(&Batch { remote, local: None, contents: b"ask", segment_size: 3, is_ect: false });
            let question = receive(&mut listener, &mut buffers, 1).pop().unwrap();
            assert_eq!(question.remote, client.local_address());
            assert_eq!((question.local, question.interface), (Some(to), Some(LOOPBACK)));
            let answer = Batch {
                remote: question.remote,
                local: question.local,
                contents: b"answer",
                segment_size: 6,
                is_ect: false,
            };
            assert_eq!(listener.send(&answer), Sent::Done);
            let answer = receive(&mut client, &mut buffers, 1).pop().unwrap();
            assert_eq!(answer.remote, remote);
            assert_eq!(&*answer.data, b"answer");
        }
    }

    #[test]
    fn an_empty_datagram_is_one() {
        let mut buffers = ReceiveBuffers::new();
        let mut far = socket("127.0.0.1:0");
        let plain = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        plain.send_to(&[], far.local_address()).unwrap();
        plain.send_to(b"x", far.local_address()).unwrap();
        let datagrams = receive(&mut far, &mut buffers, 2);
        assert_eq!(datagrams.iter().map(|datagram| datagram.data.len()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn marks_of_routers_are_seen_and_only_where_they_were_set() {
        for host in ["127.0.0.1", "[::1]"] {
            let mut buffers = ReceiveBuffers::new();
            let mut far = socket(&format!("{host}:0"));
            let remote = far.local_address();
            // What a router makes of a datagram that may be marked.
            let router = std::net::UdpSocket::bind(format!("{host}:0")).unwrap();
            let router = socket2::SockRef::from(&router);
            let set = if remote.is_ipv4() { router.set_tos_v4(3) } else { router.set_tclass_v6(3) };
            set.unwrap();
            router.send_to(b"marked", &remote.into()).unwrap();
            let mut near = socket(&format!("{host}:0"));
            for is_ect in [false, true] {
                near.send(&Batch { remote, local: None, contents: b"aabb", segment_size: 2, is_ect });
            }
            let marks = receive(&mut far, &mut buffers, 5);
            let marks: Vec<bool> = marks.iter().map(|datagram| datagram.is_marked).collect();
            assert_eq!(marks, [true, false, false, false, false], "{host}");
        }
    }

    #[test]
    fn several_receives_in_one_call_keep_batches_whole() {
        let mut buffers = ReceiveBuffers::new();
        let mut near = socket("127.0.0.1:0");
        let mut far = socket("127.0.0.1:0");
        let remote = far.local_address();
        let contents: Vec<u8> = (0..20_u8).flat_map(|number| [number; 1_000]).collect();
        for (part, segment_size) in
            [(&contents[..3_000], 1_000), (&contents[3_000..4_000], 1_000), (&contents[4_000..], 1_000)]
        {
            let batch = Batch { remote, local: None, contents: part, segment_size, is_ect: false };
            assert_eq!(near.send(&batch), Sent::Done);
        }
        let mut datagrams = Vec::new();
        while datagrams.len() < 20 {
            far.recv_all(&mut buffers, &mut datagrams);
        }
        assert!(!far.recv_all(&mut buffers, &mut datagrams), "there is no more");
        for (datagram, number) in datagrams.iter().zip(0_u8..) {
            assert_eq!(*datagram.data, [number; 1_000]);
            assert!(datagram.arrived.is_some_and(|arrived| arrived > Duration::from_secs(1 << 30)));
        }
        assert_eq!(far.counters().received, 20);
    }

    #[test]
    fn unreachable_and_oversized_are_counted_and_later_batches_pass() {
        let mut near = socket("127.0.0.1:0");
        let batch = |remote: &str, contents: &'static [u8]| Batch {
            remote: remote.parse().unwrap(),
            local: None,
            contents,
            segment_size: 4,
            is_ect: false,
        };
        // A socket bound to a loopback address cannot reach the world.
        assert_eq!(near.send(&batch("192.0.2.1:9", b"12345678")), Sent::Done);
        assert_eq!(near.counters().send_errors, 2);
        assert_eq!(near.send(&batch("127.0.0.1:9", b"12345678")), Sent::Done);
        assert_eq!(near.counters().sent, 2);
        assert_eq!(near.max_segments().get(), 64, "an unreachable peer cost the offload");
    }

    #[test]
    fn icmp_is_heard_while_it_is_listened_to_and_only_then() {
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let mut buffers = ReceiveBuffers::new();
            let mut near = socket(bind);
            let host = if bind == "[::1]:0" { "[::1]" } else { "127.0.0.1" };
            // Free, since its owner is gone: the kernel refuses it by ICMP.
            let closed = std::net::UdpSocket::bind(format!("{host}:0")).unwrap().local_addr().unwrap();
            let batch =
                Batch { remote: closed, local: None, contents: b"ask", segment_size: 3, is_ect: false };
            near.send(&batch);
            assert!(!near.recv(&mut buffers, &mut Vec::new()));
            assert_eq!((near.refusal(), near.counters().send_errors), (None, 0), "{bind}");
            near.listen_for_errors(true).unwrap();
            near.send(&batch);
            assert!(!near.recv(&mut buffers, &mut Vec::new()));
            let expected = Refusal { code: libc::ECONNREFUSED, by: Some(closed.ip()) };
            assert_eq!(near.refusal(), Some(expected), "{bind}");
            // Nothing is left that would wake a poller or fail the next datagram.
            let mut poller = crate::poll::Poller::new().unwrap();
            poller.add(&near, 0, crate::poll::Interest::Nothing).unwrap();
            let mut ready = Vec::new();
            poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
            assert!(ready.is_empty(), "{bind}: {ready:?}");
            near.send(&batch);
            near.listen_for_errors(false).unwrap();
            near.send(&batch);
            near.send(&batch);
            assert_eq!((near.refusal(), near.counters().send_errors), (None, 0), "{bind}");
        }
    }

    /// By the kernel's own calls: valgrind knows no `epoll_pwait2`.
    #[test]
    fn errors_are_told_only_while_they_are_asked_for() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let socket = Socket::from(socket);
        for (on, expected) in [(true, io::ErrorKind::ConnectionRefused), (false, io::ErrorKind::WouldBlock)] {
            set_receive_errors(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, on).unwrap();
            socket.send_to(&[1], &closed.into()).unwrap();
            assert_eq!(io::Read::read(&mut &socket, &mut [0; 8]).unwrap_err().kind(), expected);
        }
        assert!(set_receive_errors(&socket, libc::IPPROTO_IP, -1, true).is_err());
    }

    #[test]
    fn a_missing_interface_is_an_error_at_bind() {
        let config =
            UdpConfig { bind: "0.0.0.0:0".parse().unwrap(), interface: Some("no-such-if".to_owned()) };
        assert_eq!(UdpSocket::bind(&config).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
