//! Clients without a tunnel: the core's session on a plain socket. They measure whether and how
//! soon a client connects.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bonding_proto::config::LinkConfig;
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::{Datagram, Path, Session, SocketId, StateMachine as _};
use bonding_testkit::fixture;
use bytes::BytesMut;

const SEGMENTS: NonZeroUsize = NonZeroUsize::new(1).expect("1 is not 0");

/// One client with one link.
#[derive(Debug)]
pub(crate) struct Visitor {
    session: Session,
    socket: UdpSocket,
    start: Instant,
    buffer: Vec<u8>,
}

impl Visitor {
    /// Begins the handshake on the host of the calling thread.
    pub(crate) fn new(key: PrivateKey, server: PublicKey, remote: SocketAddr, run: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_nonblocking(true)?;
        let [first, ..] = *key.bytes();
        let mut entropy = key.public().0;
        entropy.iter_mut().zip(run.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        let path = Some(Path { socket: SocketId(0), remote, local: None });
        let link = LinkConfig { path, ..fixture::client_link(0, 1, None) };
        let mut config = fixture::client_config(vec![link], key, entropy, u64::from(first));
        config.epoch = run;
        config.mtu = 1_400;
        if let Some(sealing) = &mut config.sealing {
            (sealing.server, sealing.run) = (server, run);
        }
        let start = Instant::now();
        let session = Session::new(config, bonding_proto::Instant::ZERO);
        Ok(Self { session, socket, start, buffer: vec![0; 2_048] })
    }

    fn now(&self) -> bonding_proto::Instant {
        bonding_proto::Instant::ZERO + self.start.elapsed()
    }

    /// Handles the input and output at hand, without waiting; returns whether the session is
    /// connected.
    pub(crate) fn turn(&mut self) -> bool {
        while let Ok((size, remote)) = self.socket.recv_from(&mut self.buffer) {
            let data = BytesMut::from(self.buffer.get(..size).unwrap_or_default());
            let path = Path { socket: SocketId(0), remote, local: None };
            // The session counts the datagrams that it refuses.
            let _ = self.session.handle_datagram(Datagram::new(path, data), self.now());
        }
        self.session.handle_timeout(self.now());
        let mut out = Vec::new();
        while let Some(transmit) = self.session.poll_transmit(&mut out, SEGMENTS, self.now()) {
            // A datagram that the kernel refuses is lost, as on any path.
            let _ = self.socket.send_to(&out, transmit.path.remote);
            out.clear();
        }
        self.session.is_connected()
    }

    /// Time until the session is connected; `None`: not within `limit`.
    pub(crate) fn enter(&mut self, limit: Duration) -> Option<Duration> {
        while self.start.elapsed() < limit {
            if self.turn() {
                return Some(self.start.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}
