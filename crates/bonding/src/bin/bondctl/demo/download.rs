//! A download over the kernel's TCP between two hosts of a lab, counted where it arrives.
//!
//! Both ends are threads of this process with sockets on the hosts, so that the number of arrived
//! bytes is known at every moment.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bonding_lab::HostRef;
use socket2::{Domain, Protocol, Socket, Type};

/// The longest wait of a thread before it checks whether it should end. Chosen: the end of a step
/// is not noticed.
const PATIENCE: Duration = Duration::from_millis(200);
/// The longest wait for a connection. Chosen: several repeats of TCP's SYN.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a read or a write. Chosen: few system calls a second.
const CHUNK_BYTES: usize = 64 << 10;

/// A download under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct Download {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Download {
    /// Connects from `to` to `address` of `from`, over `device` if one is given, and lets data flow
    /// to `to`.
    pub(crate) fn start(
        from: HostRef,
        to: HostRef,
        address: SocketAddr,
        device: Option<&str>,
    ) -> anyhow::Result<Self> {
        let listener =
            from.run(|| listen(address))?.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("cannot listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let sender = {
            let stop = Arc::clone(&stop);
            listener.set_nonblocking(true).context("cannot listen")?;
            std::thread::spawn(move || send(&listener, &stop))
        };
        let mut download = Self { received, stop, threads: vec![sender] };
        let stream =
            to.run(|| connect(address, device))?.with_context(|| format!("cannot connect to {address}"))?;
        let (stop, received) = (Arc::clone(&download.stop), Arc::clone(&download.received));
        download.threads.push(std::thread::spawn(move || receive(stream, &received, &stop)));
        Ok(download)
    }

    /// The bytes of payload that have arrived so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// Accepted connections run cubic, as most servers do, and not this machine's default. BBR would
/// take its shortest round trip, here the quickest link's, for the whole path's, and would not use
/// the other links.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // A kernel without cubic runs its default, and the figures are for that.
    let _ = socket2::SockRef::from(&listener).set_tcp_congestion(b"cubic");
    Ok(listener)
}

fn connect(address: SocketAddr, device: Option<&str>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.connect_timeout(&address.into(), CONNECT_PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Sends until told to stop or the other side is gone.
fn send(listener: &TcpListener, stop: &AtomicBool) {
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    // Not zeros, which a tunnel could compress away.
    let mut state = 1_u64;
    let chunk: Vec<u8> = std::iter::repeat_with(|| {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(CHUNK_BYTES)
    .collect();
    while ready.is_ok() && !stop.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if is_for_later(&error) => {}
            Err(_) => return,
        }
    }
}

fn receive(mut stream: TcpStream, received: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                received.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Err(error) if is_for_later(&error) => {}
            Err(_) => return,
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
