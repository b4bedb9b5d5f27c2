//! Transfers of a fixed size, each over new connections: how long each takes.
//!
//! The time counts from the connect to the last byte; of an upload to the server's word that it
//! has the last byte. The servers of TCP are threads of this program, QUIC's is quicperf's.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bonding_lab::Host;
use bonding_lab::tools::IperfDirection;
use bonding_quicperf::Amount;
use bonding_testkit::statistics::median;

use crate::carrier::Running;
use crate::flows::Quic;
use crate::measure::Figures;
use crate::rows::{Carrier, Fetch, Load, Protocol, Work};
use crate::sockets::{Service, Sockets};

/// Transfers of a run, one after the other; medians count.
const TRANSFERS: usize = 5;
/// The pause before each. Chosen: the queues of the links are empty then.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections of a page (what browsers open to a host), and objects over each.
const PAGE_CONNECTIONS: usize = 6;
const PAGE_OBJECTS: usize = 5;
/// Bytes of an object.
const OBJECT_BYTES: u64 = 60_000;
/// A request with this bit asks for an upload.
const UPLOAD: u64 = 1 << 63;
/// A transfer that takes longer counts as not finished, with what it had by then.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a read waits before the limit is checked. Chosen: short against the limit.
const POLL: Duration = Duration::from_millis(200);
/// The port of TCP's server.
const PORT: u16 = 5_210;

/// One transfer.
#[derive(Debug, Clone, Copy)]
struct Fetched {
    bytes: u64,
    time: Duration,
    is_finished: bool,
}

/// The server of one protocol.
enum Origin {
    Tcp { service: Service, sockets: Sockets },
    Quic(Quic),
}

impl Origin {
    fn start(running: &Running<'_>, protocol: Protocol) -> anyhow::Result<Self> {
        let congestion = match protocol {
            Protocol::Quic(congestion) => return Ok(Self::Quic(Quic::start(running, congestion)?)),
            Protocol::Tcp(congestion) => congestion,
        };
        let mptcp = running.carrier == Carrier::Mptcp;
        let sockets = Sockets { mptcp, device: None, congestion };
        let address = SocketAddr::new(running.server, PORT);
        let service = Service::start(running.lab.host(Host::Server), address, &sockets, answer)?;
        let device = running.device().map(str::to_owned);
        Ok(Self::Tcp { service, sockets: Sockets { device, ..sockets } })
    }

    fn fetch(&self, running: &Running<'_>, fetch: Fetch) -> anyhow::Result<Fetched> {
        match self {
            Self::Tcp { service, sockets } => {
                let server = service.address();
                running.lab.host(Host::Client).run(|| match fetch.work {
                    Work::File(bytes) => transfer(server, sockets, fetch.direction, bytes, 1),
                    Work::Page => page(server, sockets, fetch.direction),
                })?
            }
            Self::Quic(quic) => {
                let Work::File(bytes) = fetch.work else { bail!("QUIC fetches no pages") };
                let outcome = quic.run(running, fetch.direction, 1, Amount::Bytes(bytes), LIMIT)?;
                let is_finished = outcome.unfinished.is_none();
                Ok(Fetched { bytes: outcome.bytes, time: outcome.time, is_finished })
            }
        }
    }
}

/// Reads requests: numbers of eight bytes. To each it sends so many bytes, or receives so many and
/// says so with one.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 8];
    let mut chunk = vec![b'x'; 64 << 10];
    while stream.read_exact(&mut request).is_ok() {
        let request = u64::from_be_bytes(request);
        let mut left = request & !UPLOAD;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let part = chunk.get_mut(..part).unwrap_or_default();
            if request & UPLOAD == 0 {
                stream.write_all(part)?;
            } else {
                stream.read_exact(part)?;
            }
            left -= part.len() as u64;
        }
        if request & UPLOAD != 0 {
            stream.write_all(&[1])?;
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// Transfers `objects` times `bytes`, one after the other, over a new connection of TCP, on the
/// thread of a host.
fn transfer(
    server: SocketAddr,
    sockets: &Sockets,
    direction: IperfDirection,
    bytes: u64,
    objects: usize,
) -> anyhow::Result<Fetched> {
    let start = Instant::now();
    let mut stream = sockets.connect(server).context("cannot connect")?;
    stream.set_read_timeout(Some(POLL))?;
    let mut got = 0;
    for _ in 0..objects {
        let before = got;
        match direction {
            IperfDirection::Download => {
                stream.write_all(&bytes.to_be_bytes())?;
                got += receive(&mut stream, bytes, start)?;
            }
            IperfDirection::Upload => {
                stream.write_all(&(bytes | UPLOAD).to_be_bytes())?;
                send(&mut stream, bytes)?;
                got += if receive(&mut stream, 1, start)? == 1 { bytes } else { 0 };
            }
        }
        if got - before < bytes {
            break;
        }
    }
    Ok(Fetched { bytes: got, time: start.elapsed(), is_finished: got == bytes * objects as u64 })
}

fn send(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<()> {
    let chunk = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        stream.write_all(chunk.get(..part).unwrap_or_default()).context("the upload broke off")?;
        left -= part as u64;
    }
    Ok(())
}

/// Receives as much, or what comes within the limit.
fn receive(stream: &mut TcpStream, bytes: u64, start: Instant) -> anyhow::Result<u64> {
    let (mut buffer, mut got) = (vec![0; 64 << 10], 0);
    while got < bytes && start.elapsed() < LIMIT {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => got += count as u64,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("the download broke off"),
        }
    }
    Ok(got)
}

/// A page: all its connections at once, on threads of the host.
fn page(server: SocketAddr, sockets: &Sockets, direction: IperfDirection) -> anyhow::Result<Fetched> {
    let start = Instant::now();
    let parts = std::thread::scope(|scope| {
        let one = || transfer(server, sockets, direction, OBJECT_BYTES, PAGE_OBJECTS);
        let parts: Vec<_> = (0..PAGE_CONNECTIONS).map(|_| scope.spawn(one)).collect();
        parts.into_iter().map(|part| part.join()).collect::<Vec<_>>()
    });
    let mut whole = Fetched { bytes: 0, time: start.elapsed(), is_finished: true };
    for part in parts {
        let part = part.map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
        whole.bytes += part.bytes;
        whole.is_finished &= part.is_finished;
    }
    Ok(whole)
}

/// Transfers a few times; medians, and what the first had.
pub(crate) fn measure(running: &Running<'_>, fetch: Fetch) -> anyhow::Result<Figures> {
    let lab = running.lab;
    let origin = Origin::start(running, fetch.protocol)?;
    lab.start_clock();
    let start = lab.elapsed();
    let mut fetched = Vec::new();
    for _ in 0..TRANSFERS {
        std::thread::sleep(PAUSE);
        fetched.push(origin.fetch(running, fetch)?);
    }
    let way = Load::Fetch(fetch).way();
    let rate = lab.capacity_bps(way, start, lab.elapsed()).context("an unlimited link")? as f64;
    let mbps = |one: &Fetched| one.bytes as f64 * 8e-6 / one.time.as_secs_f64().max(1e-6);
    let goodput = median(fetched.iter().map(mbps)).unwrap_or(0.0);
    let time = median(fetched.iter().map(|one| one.time.as_secs_f64())).unwrap_or(0.0);
    let share = running.shares(fetch.protocol)?.link;
    let unfinished = fetched.iter().filter(|one| !one.is_finished).count();
    let figures = [
        ("goodput_mbps", goodput),
        ("time_s", time),
        ("first_mbps", fetched.first().map_or(0.0, mbps)),
        ("attainable_mbps", rate * share / 1e6),
        ("share_percent", goodput * 1e8 / (rate * share)),
        ("unfinished", unfinished as f64),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
