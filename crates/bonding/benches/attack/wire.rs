//! The attacker's access to the wire: raw packets with any source address, and a capture.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// raw(7): the sender writes the IPv4 header itself.
const IPPROTO_RAW: i32 = 255;
/// packet(7), network byte order.
const ETH_P_IP: i32 = 0x0800_u16.to_be() as i32;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Packets between two readings of the clock.
const BURST: u64 = 20;

/// Sends UDP datagrams with any source.
#[derive(Debug)]
pub(crate) struct Forger {
    socket: Socket,
    packet: Vec<u8>,
    start: Instant,
    sent: u64,
    per_second: u64,
}

impl Forger {
    /// Opens the socket on the host of the calling thread; datagrams leave at this rate.
    pub(crate) fn new(per_second: u64) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
        socket.set_send_buffer_size(1 << 20)?;
        Ok(Self { socket, packet: Vec::new(), start: Instant::now(), sent: 0, per_second })
    }

    /// Sends one datagram, at its time.
    pub(crate) fn send(
        &mut self,
        source: SocketAddrV4,
        target: SocketAddrV4,
        payload: &[u8],
    ) -> io::Result<()> {
        if self.sent.is_multiple_of(BURST) {
            let due = Duration::from_micros(self.sent * 1_000_000 / self.per_second);
            std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
        self.sent += 1;
        let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
        self.packet.clear();
        // The kernel fills in total length, identification and checksum.
        self.packet.extend_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        self.packet.extend_from_slice(&source.ip().octets());
        self.packet.extend_from_slice(&target.ip().octets());
        self.packet.extend_from_slice(&source.port().to_be_bytes());
        self.packet.extend_from_slice(&target.port().to_be_bytes());
        self.packet.extend_from_slice(&length(UDP_BYTES + payload.len()));
        // No checksum: RFC 768 allows that.
        self.packet.extend_from_slice(&[0, 0]);
        self.packet.extend_from_slice(payload);
        match self.socket.send_to(&self.packet, &SockAddr::from(SocketAddr::V4(target))) {
            Ok(_) => Ok(()),
            // A full queue drops the datagram, as on the internet.
            Err(error) if error.raw_os_error() == Some(105) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Captures the UDP datagrams that arrive at the host of the calling thread, whatever their
/// destination.
#[derive(Debug)]
pub(crate) struct Tap {
    socket: Socket,
    buffer: Vec<u8>,
}

/// One captured datagram.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) source: SocketAddrV4,
    pub(crate) target: SocketAddrV4,
    pub(crate) payload: Vec<u8>,
}

impl Tap {
    pub(crate) fn open() -> io::Result<Self> {
        // SOCK_DGRAM: the kernel removes the link's header.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(ETH_P_IP)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.set_recv_buffer_size(8 << 20)?;
        Ok(Self { socket, buffer: vec![0; 70_000] })
    }

    /// The next UDP datagram; `None`: silence for a while, or another packet.
    pub(crate) fn next(&mut self) -> Option<Seen> {
        let size = self.socket.read(&mut self.buffer).ok()?;
        let packet = self.buffer.get(..size)?;
        let (header, rest) = packet.split_at_checked(IPV4_BYTES)?;
        let &[first, .., protocol, _, _, s0, s1, s2, s3, t0, t1, t2, t3] = header else { return None };
        let rest = rest.get(usize::from(first & 0x0f).saturating_mul(4).checked_sub(IPV4_BYTES)?..)?;
        let (udp, payload) = rest.split_at_checked(UDP_BYTES)?;
        let &[p0, p1, q0, q1, ..] = udp else { return None };
        let address = |octets: [u8; 4], port: [u8; 2]| {
            SocketAddrV4::new(Ipv4Addr::from_octets(octets), u16::from_be_bytes(port))
        };
        (protocol == 17).then(|| Seen {
            source: address([s0, s1, s2, s3], [p0, p1]),
            target: address([t0, t1, t2, t3], [q0, q1]),
            payload: payload.to_vec(),
        })
    }
}
