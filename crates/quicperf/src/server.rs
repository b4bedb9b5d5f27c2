//! The waiting end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::peer::Peer;
use crate::settings::Settings;

/// The longest wait before it looks whether it should end. Chosen: a run ends soon.
const PATIENCE: Duration = Duration::from_millis(100);

/// Serves transfers on a thread of its own; ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Listens at `address`, in the network namespace of the calling thread; port 0 picks one.
    ///
    /// # Errors
    /// When the address is not the host's, or taken.
    pub fn start(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let mut peer = Peer::serve(address, settings)?;
        let address = peer.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                peer.turn(Instant::now() + PATIENCE)?;
            }
            peer.close();
            Ok(())
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until its socket fails.
    ///
    /// # Errors
    /// Why the socket failed.
    pub fn wait(mut self) -> io::Result<()> {
        self.thread
            .take()
            .map_or(Ok(()), |thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A client whose server failed says so itself.
            let _ = thread.join();
        }
    }
}
