//! A web server on a host of the lab: answers GET with one file, keeps uploads (PUT) and the
//! clients' addresses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bonding_lab::HostRef;

/// The time limit of a read or write: a dead connection must not keep the server from ending.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Web {
    shared: Arc<Shared>,
    host: HostRef,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: Vec<u8>,
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

/// The requests so far.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The address of each request's client.
    pub peers: Vec<IpAddr>,
    /// The body of each PUT.
    pub uploads: Vec<Vec<u8>>,
    /// Connections that failed, as messages.
    pub errors: Vec<String>,
}

impl Web {
    /// Serves `file` on `host` at `address`.
    pub fn start(host: HostRef, address: SocketAddr, file: Vec<u8>) -> anyhow::Result<Self> {
        let listener = host.run(|| TcpListener::bind(address))??;
        let shared = Arc::new(Shared { file, seen: Mutex::default(), stop: AtomicBool::new(false) });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serving.serve(&listener));
        Ok(Self { shared, host, address, thread: Some(thread) })
    }

    /// The requests so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread from waiting for a connection. If that fails, the thread stays until the
        // process ends.
        let woken = self.host.run(|| TcpStream::connect(self.address));
        if let (Ok(Ok(_)), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let result = stream.map_err(anyhow::Error::from).and_then(|stream| self.answer(stream));
            if let Err(error) = result {
                self.note(|seen| seen.errors.push(format!("{error:#}")));
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers one request and closes the connection (HTTP/1.1, RFC 9112, as far as curl needs it).
    fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = stream.peer_addr()?.ip();
        self.note(|seen| seen.peers.push(peer));
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let (mut length, mut expects_continue) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            let line = line.to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().context("content-length")?;
            }
            expects_continue |= line.starts_with("expect: 100-continue");
        }
        if request.starts_with("GET ") {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", self.file.len());
            write!(stream, "{head}Connection: close\r\n\r\n")?;
            stream.write_all(&self.file)?;
        } else if request.starts_with("PUT ") {
            if expects_continue {
                write!(stream, "HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut body = Vec::new();
            reader.take(length).read_to_end(&mut body)?;
            self.note(|seen| seen.uploads.push(body));
            write!(stream, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        } else {
            bail!("unexpected request: {}", request.trim());
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(())
    }
}

/// Bytes that no compression shrinks, the same in every call.
pub fn noise(bytes: usize) -> Vec<u8> {
    // xorshift64, Marsaglia 2003.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// So many bytes of text, as it is: the project's sources and documents, in the order of their
/// names, again from the first one on where they are not enough.
pub fn text(bytes: usize) -> anyhow::Result<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["crates", "docs"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for file in &files {
        all.extend(std::fs::read(file).with_context(|| file.display().to_string())?);
    }
    anyhow::ensure!(!all.is_empty(), "no text in {}", root.display());
    Ok(all.iter().cycle().take(bytes).copied().collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md") {
            files.push(path);
        }
    }
    Ok(())
}
