//! Light use of the web: a page, a pause, the next page, each over a new connection, by the
//! kernel's TCP (cubic).
//!
//! Server and client are threads of this program. Over Multipath TCP the sockets are of that kind.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::HostRef;

use crate::sockets::{Service, Sockets};

/// Bytes of a page.
const PAGE_BYTES: usize = 60_000;
/// Pages of a run.
const PAGES: u32 = 30;
/// The pause between two pages.
const THINK: Duration = Duration::from_millis(250);
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Serves pages until the result is dropped.
pub(crate) fn serve(host: HostRef, address: SocketAddr, sockets: &Sockets) -> anyhow::Result<Service> {
    let page = vec![b'x'; PAGE_BYTES];
    Service::start(host, address, sockets, move |stream| answer(stream, &page))
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
