//! Small packets, as many as get through: one `send` each, as games and calls send. Packets in
//! flight are bounded, so that the figure is what passes, not what is dropped.

use std::net::{SocketAddr, UdpSocket as Plain};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bonding_lab::Host;
use bonding_os::poll::{Interest, Poller};
use bonding_os::udp::{Batch, ReceiveBuffers, Sent, UdpConfig, UdpSocket};

use crate::carrier::Running;

const PORT: u16 = 6_000;
/// Payload of a packet: 100 bytes with the headers of IPv4 and UDP.
const PAYLOAD_BYTES: usize = 72;
/// Packets between two readings of the clock.
const BATCH: usize = 64;
/// Packets in flight, at most.
const UNDERWAY_MAX: u64 = 2_000;
/// After so long without a received packet, the packets in flight count as lost.
const PATIENCE: Duration = Duration::from_millis(5);

/// Sends from the client to the server for `span`; gives the number that arrived, and in what time.
/// With `batches`, a system call sends many packets.
pub(crate) fn blast(
    running: &Running<'_>,
    flows: u16,
    batches: bool,
    span: Duration,
) -> anyhow::Result<(u64, Duration)> {
    let received = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let bind = SocketAddr::new(running.server, PORT);
    let socket =
        running.lab.host(Host::Server).run(|| UdpSocket::bind(&UdpConfig { bind, interface: None }))??;
    let receiver = {
        let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
        std::thread::spawn(move || count(socket, &received, &stop))
    };
    let mut sender = running.lab.host(Host::Client).run(|| Sender::new(bind, flows, batches))??;
    let start = Instant::now();
    let before = received.load(Ordering::Relaxed);
    send(&mut sender, &received, start + span);
    let (count, took) = (received.load(Ordering::Relaxed) - before, start.elapsed());
    stop.store(true, Ordering::Relaxed);
    let _ = receiver.join();
    Ok((count, took))
}

/// A sender of 64 packets at a time.
enum Sender {
    /// One system call for each, of each flow in turn.
    Singly {
        sockets: Vec<Plain>,
        next: usize,
    },
    Batch {
        socket: Box<UdpSocket>,
        remote: SocketAddr,
    },
}

impl Sender {
    fn new(remote: SocketAddr, flows: u16, batches: bool) -> std::io::Result<Self> {
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        if batches {
            let socket = UdpSocket::bind(&UdpConfig { bind: any, interface: None })?;
            return Ok(Self::Batch { socket: Box::new(socket), remote });
        }
        let connected = |_| {
            let socket = Plain::bind(any)?;
            socket.connect(remote)?;
            Ok(socket)
        };
        Ok(Self::Singly { sockets: (0..flows).map(connected).collect::<std::io::Result<_>>()?, next: 0 })
    }

    /// A full device drops packets; they count as lost after a while.
    fn send(&mut self) {
        const CONTENTS: [u8; BATCH * PAYLOAD_BYTES] = [0x55; BATCH * PAYLOAD_BYTES];
        match self {
            Self::Singly { sockets, next } => {
                for socket in sockets.iter().cycle().skip(*next).take(BATCH) {
                    let _ =
                        socket.send(CONTENTS.first_chunk::<PAYLOAD_BYTES>().unwrap_or(&[0; PAYLOAD_BYTES]));
                }
                *next = (*next + BATCH) % sockets.len().max(1);
            }
            Self::Batch { socket, remote } => {
                let batch = Batch {
                    remote: *remote,
                    local: None,
                    contents: &CONTENTS,
                    segment_size: PAYLOAD_BYTES,
                    is_ect: false,
                };
                let (Sent::Done | Sent::Blocked { .. }) = socket.send(&batch);
            }
        }
    }
}

fn send(sender: &mut Sender, received: &AtomicU64, until: Instant) {
    // Packets that count as received or lost, and when that number last changed.
    let (mut sent, mut lost) = (0_u64, 0_u64);
    let mut seen = (0, Instant::now());
    loop {
        let gone = received.load(Ordering::Relaxed) + lost;
        if sent.saturating_sub(gone) >= UNDERWAY_MAX {
            let now = Instant::now();
            if now >= until {
                return;
            }
            if gone != seen.0 {
                seen = (gone, now);
            } else if now - seen.1 > PATIENCE {
                lost += sent - gone;
            }
            std::thread::sleep(Duration::from_micros(20));
            continue;
        }
        sender.send();
        sent += BATCH as u64;
        if Instant::now() >= until {
            return;
        }
    }
}

fn count(mut socket: UdpSocket, received: &AtomicU64, stop: &AtomicBool) -> std::io::Result<()> {
    let mut poller = Poller::new()?;
    poller.add(&socket, 0, Interest::Readable)?;
    let (mut ready, mut buffers, mut datagrams) = (Vec::new(), ReceiveBuffers::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        poller.wait(&mut ready, Some(Duration::from_millis(50)))?;
        while socket.recv(&mut buffers, &mut datagrams) {
            received.fetch_add(datagrams.len() as u64, Ordering::Relaxed);
            datagrams.clear();
        }
    }
    Ok(())
}
