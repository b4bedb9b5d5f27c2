//! Sockets of the kernel's TCP: over one link, over what the route says, or Multipath TCP.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bonding_lab::HostRef;
use socket2::{Domain, Protocol, Socket, Type};

/// The time limit of a connect, read or write: a dead connection must not block the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that may wait to be accepted. Chosen: more than any row has.
const BACKLOG: i32 = 16;

/// The kind of the sockets.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    pub(crate) mptcp: bool,
    /// The device that the client's socket is bound to, if any.
    pub(crate) device: Option<String>,
    /// The congestion control of what this end sends.
    pub(crate) congestion: &'static str,
}

impl Sockets {
    fn open(&self) -> anyhow::Result<Socket> {
        let protocol = if self.mptcp { Protocol::MPTCP } else { Protocol::TCP };
        let socket =
            Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).context("cannot open a socket")?;
        let name = self.congestion;
        socket.set_tcp_congestion(name.as_bytes()).with_context(|| format!("cannot choose {name}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// Connects, on the thread of a host.
    pub(crate) fn connect(&self, server: SocketAddr) -> anyhow::Result<TcpStream> {
        let socket = self.open()?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.connect_timeout(&server.into(), PATIENCE)?;
        Ok(socket.into())
    }

    /// Listens, on the thread of a host.
    fn listen(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let socket = self.open()?;
        // It waits without a limit.
        socket.set_read_timeout(None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

/// A server; ends when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    host: HostRef,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Listens on `host` and calls `serve` with each connection, on a thread of its own.
    pub(crate) fn start(
        host: HostRef,
        address: SocketAddr,
        sockets: &Sockets,
        serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = host.run(|| sockets.listen(address))??;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let serve = Arc::clone(&serve);
                // It ends with its connection. What is missing at the client, the client reports.
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(Self { address, host, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread from waiting. If that fails, the thread stays until the process ends.
        let woken = self.host.run(|| TcpStream::connect_timeout(&self.address, PATIENCE));
        if let (Ok(Ok(_)), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}
