//! Downloads of a fixed size, each over a new connection: how long each takes.
//!
//! The time counts from the connect to the last byte. The server of TCP is a thread of this
//! program, QUIC's is quicperf's.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bonding_lab::tools::IperfDirection;
use bonding_lab::{Direction, Host};
use bonding_quicperf::Amount;
use bonding_testkit::statistics::median;

use crate::carrier::Running;
use crate::flows::Quic;
use crate::measure::Figures;
use crate::rows::{Carrier, Fetch, Protocol};
use crate::sockets::{Service, Sockets};

/// Connections of a run, one after the other; medians count.
const CONNECTIONS: usize = 3;
/// The pause between two connections. Chosen: the queues of the links are empty then.
const PAUSE: Duration = Duration::from_millis(500);
/// A download that takes longer counts as not finished, with what it had by then.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a read waits before the limit is checked. Chosen: short against the limit.
const POLL: Duration = Duration::from_millis(200);
/// The port of TCP's server.
const PORT: u16 = 5_210;

/// One download.
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

    fn fetch(&self, running: &Running<'_>, bytes: u64) -> anyhow::Result<Fetched> {
        match self {
            Self::Tcp { service, sockets } => {
                let server = service.address();
                running.lab.host(Host::Client).run(|| fetch(server, sockets, bytes))?
            }
            Self::Quic(quic) => {
                let way = IperfDirection::Download;
                let outcome = quic.run(running, way, 1, Amount::Bytes(bytes), LIMIT)?;
                let is_finished = outcome.unfinished.is_none();
                Ok(Fetched { bytes: outcome.bytes, time: outcome.time, is_finished })
            }
        }
    }
}

/// Reads a number of eight bytes, and sends so many.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 8];
    stream.read_exact(&mut request)?;
    let chunk = vec![b'x'; 64 << 10];
    let mut left = u64::from_be_bytes(request);
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        stream.write_all(chunk.get(..part).unwrap_or(&chunk))?;
        left -= part as u64;
    }
    stream.shutdown(Shutdown::Write)
}

/// Downloads over a new connection of TCP, on the thread of a host.
fn fetch(server: SocketAddr, sockets: &Sockets, bytes: u64) -> anyhow::Result<Fetched> {
    let start = Instant::now();
    let mut stream = sockets.connect(server).context("cannot connect")?;
    stream.write_all(&bytes.to_be_bytes())?;
    stream.set_read_timeout(Some(POLL))?;
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
    Ok(Fetched { bytes: got, time: start.elapsed(), is_finished: got == bytes })
}

/// Downloads over some new connections; medians, and what the first had.
pub(crate) fn measure(running: &Running<'_>, fetch: Fetch) -> anyhow::Result<Figures> {
    let lab = running.lab;
    let origin = Origin::start(running, fetch.protocol)?;
    lab.start_clock();
    let start = lab.elapsed();
    let mut fetched = Vec::new();
    for _ in 0..CONNECTIONS {
        fetched.push(origin.fetch(running, fetch.bytes)?);
        std::thread::sleep(PAUSE);
    }
    let rate = lab.capacity_bps(Direction::Down, start, lab.elapsed()).context("an unlimited link")? as f64;
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
