//! Light use of the web: a page, a pause, the next page, each over a new connection, by the
//! kernel's TCP (cubic).
//!
//! Server and client are threads of this program. Over Multipath TCP the sockets are of that kind.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::HostRef;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of a page.
const PAGE_BYTES: usize = 60_000;
/// Pages of a run.
const PAGES: u32 = 30;
/// The pause between two pages.
const THINK: Duration = Duration::from_millis(250);
/// The time limit of a read or write: a dead connection must not block the run.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// The kind of the sockets.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    pub(crate) mptcp: bool,
    /// The device that the client's socket is bound to, if any.
    pub(crate) device: Option<String>,
}

impl Sockets {
    fn open(&self) -> anyhow::Result<Socket> {
        let protocol = if self.mptcp { Protocol::MPTCP } else { Protocol::TCP };
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).context("cannot open a socket")?;
        socket.set_tcp_congestion(b"cubic").context("cannot choose cubic")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    fn connect(&self, server: SocketAddr) -> anyhow::Result<TcpStream> {
        let socket = self.open()?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.connect_timeout(&server.into(), PATIENCE)?;
        Ok(socket.into())
    }
}

/// Answers every request with a page; ends when dropped.
#[derive(Debug)]
pub(crate) struct PageServer {
    address: SocketAddr,
    host: HostRef,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PageServer {
    pub(crate) fn start(host: HostRef, address: SocketAddr, sockets: &Sockets) -> anyhow::Result<Self> {
        let listener = host.run(|| {
            let socket = sockets.open()?;
            // The listening socket waits without a limit.
            socket.set_read_timeout(None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(16)?;
            anyhow::Ok(std::net::TcpListener::from(socket))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let page = vec![b'x'; PAGE_BYTES];
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that closes its connection reports the missing page itself.
                let _ = answer(stream, &page);
            }
        });
        Ok(Self { address, host, stop, thread: Some(thread) })
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread from waiting. If that fails, the thread stays until the process ends.
        let woken = self.host.run(|| TcpStream::connect_timeout(&self.address, PATIENCE));
        if let (Ok(Ok(_)), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, page: &[u8]) -> std::io::Result<()> {
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request)?;
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len())?;
    stream.write_all(page)?;
    stream.shutdown(Shutdown::Write)
}

/// Loads all pages from `host`; gives the time of each, from the first packet to the last byte.
pub(crate) fn load(host: HostRef, server: SocketAddr, sockets: &Sockets) -> anyhow::Result<Vec<Duration>> {
    host.run(|| {
        let mut times = Vec::new();
        for _ in 0..PAGES {
            let start = Instant::now();
            let mut stream = sockets.connect(server).context("cannot connect")?;
            stream.write_all(REQUEST)?;
            let mut page = Vec::new();
            stream.read_to_end(&mut page)?;
            ensure!(page.len() > PAGE_BYTES, "a page ended after {} bytes", page.len());
            times.push(start.elapsed());
            drop(stream);
            std::thread::sleep(THINK);
        }
        Ok(times)
    })?
}
