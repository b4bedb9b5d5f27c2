//! A UDP socket with what quinn uses of the kernel: GSO, GRO and ECN.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::settings::Buffers;

/// Buffers that one call fills. Chosen: half of a MiB in all.
const BUFFERS: usize = 8;
/// A buffer holds all that GRO puts together: a UDP payload.
const BUFFER_BYTES: usize = 64 << 10;
/// Datagrams in one call with GSO, at most: `MAX_TRANSMIT_SEGMENTS` of quinn 0.11.
const SEGMENTS_MAX: usize = 10;
/// The socket's large buffers, as far as the kernel gives them. Chosen: 50 ms of 300 Mbit/s.
const SOCKET_BUFFER_BYTES: usize = 2 << 20;

/// A datagram that came.
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    /// The address that it was sent to.
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) payload: BytesMut,
}

/// The socket and its buffers.
pub(crate) struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens a socket at `address`.
    pub(crate) fn bind(address: SocketAddr, buffers: Buffers) -> io::Result<Self> {
        Self::open(address, None, buffers)
    }

    /// Opens a socket that reaches `target`, over `device` if one is given.
    pub(crate) fn towards(target: SocketAddr, device: Option<&str>, buffers: Buffers) -> io::Result<Self> {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::open(SocketAddr::new(any, 0), device, buffers)
    }

    fn open(address: SocketAddr, device: Option<&str>, buffers: Buffers) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if let Some(device) = device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if buffers == Buffers::Large {
            // The kernel gives less where its limit is lower.
            socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
            socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, state, buffer: vec![0; BUFFERS * BUFFER_BYTES] })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// How many datagrams of one connection go into one call.
    pub(crate) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().clamp(1, SEGMENTS_MAX)
    }

    /// Sends; false if the socket has no room. What the kernel refuses otherwise counts as lost.
    pub(crate) fn send(&self, transmit: &quinn_proto::Transmit, payload: &[u8]) -> bool {
        let outgoing = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|mark| quinn_udp::EcnCodepoint::from_bits(mark as u8)),
            contents: payload,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent = self.state.try_send(UdpSockRef::from(&self.socket), &outgoing);
        !matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for a datagram, with `room` also for room in the socket, at most for `limit`.
    pub(crate) fn wait(&self, room: bool, limit: Duration) -> io::Result<()> {
        let flags = if room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        // A span above the kernel's bound is as good as one of it.
        let limit = Timespec::try_from(limit).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives what came to `take`, one call of the kernel; false if nothing was there.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(Arrival)) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BUFFERS];
        let mut slices: Vec<IoSliceMut<'_>> =
            self.buffer.chunks_mut(BUFFER_BYTES).map(IoSliceMut::new).collect();
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
            Ok(count) => count,
            // An ICMP message about a peer that is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for (meta, bytes) in metas.iter().zip(self.buffer.chunks(BUFFER_BYTES)).take(count) {
            for payload in bytes.get(..meta.len).unwrap_or(bytes).chunks(meta.stride.max(1)) {
                let ecn = meta.ecn.and_then(|mark| EcnCodepoint::from_bits(mark as u8));
                take(Arrival { from: meta.addr, to: meta.dst_ip, ecn, payload: BytesMut::from(payload) });
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_asks_for_nothing_has_the_systems_buffers() {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let sizes = |socket: &UdpSocket| {
            let socket = socket2::SockRef::from(socket);
            (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
        };
        let usual = sizes(&UdpSocket::bind(address).unwrap());
        assert_eq!(sizes(&Wire::bind(address, Buffers::System).unwrap().socket), usual);
        // What the kernel's limits allow may be the same, and never less.
        let large = sizes(&Wire::bind(address, Buffers::Large).unwrap().socket);
        assert!(large.0 >= usual.0 && large.1 >= usual.1, "{large:?} {usual:?}");
    }
}
