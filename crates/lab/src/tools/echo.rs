//! A sparse echo over UDP, as a game or a call would see the network: round-trip time and loss over
//! time.
//!
//! Both ends are threads of this process with sockets on the lab's hosts, so one clock stamps both,
//! and they run at real-time priority where permitted: the network is measured, not the wait for a
//! CPU.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::percentile;
use crate::driver::become_realtime;
use crate::error::LabError;
use crate::host::HostRef;

/// Sends every datagram back; ends when dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The longest wait of a thread before it checks whether it should end. Chosen: a test ends soon.
const PATIENCE: Duration = Duration::from_millis(100);
/// Above ordinary programs, far below the emulator.
const PRIORITY: u8 = 2;

impl EchoServer {
    /// Listens on `host` at `address`; port 0 picks one.
    ///
    /// # Errors
    /// When the address is not the host's, or taken.
    pub fn start(host: HostRef, address: SocketAddr) -> Result<Self, LabError> {
        let step = || LabError::io(format!("open an echo server at {address}"));
        let socket = host.run(|| UdpSocket::bind(address))?.map_err(step())?;
        let address = socket.local_addr().map_err(step())?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(step())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            become_realtime(PRIORITY);
            let mut buffer = [0; 2_048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    // An answer that cannot be sent is a lost answer.
                    let _ = socket.send_to(buffer.get(..len).unwrap_or_default(), peer);
                }
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoSample {
    /// When it was sent, since the prober's start.
    pub sent_at: Duration,
    /// The time until the answer; `None` without an answer.
    pub rtt: Option<Duration>,
}

/// A running prober: sends a request at a steady pace. Ends when dropped.
#[derive(Debug)]
pub struct Echo {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// An answer later than this counts as lost.
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    stop: AtomicBool,
    /// By request number.
    samples: Mutex<Vec<EchoSample>>,
}

/// The most requests of a prober: a day at 50 a second.
const SAMPLES_MAX: usize = 4_320_000;
/// Number and padding of a request: as in a voice call.
const PAYLOAD_BYTES: usize = 100;
/// Headers of IPv4 and UDP.
const HEADER_BYTES: usize = 28;

impl Echo {
    /// An IPv4 packet that carries a request or an answer.
    pub const PACKET_BYTES: usize = PAYLOAD_BYTES + HEADER_BYTES;

    /// Asks `target` from `host`, `per_second` times a second, over `device` if one is given.
    ///
    /// # Errors
    /// When no socket can be opened or the target has no route.
    pub fn start(
        host: HostRef,
        target: SocketAddr,
        per_second: u32,
        device: Option<&str>,
    ) -> Result<Self, LabError> {
        let step = || LabError::io(format!("open an echo prober to {target}"));
        let socket = host.run(|| open(target, device))?.map_err(step())?;
        let receiver = socket.try_clone().map_err(step())?;
        receiver.set_read_timeout(Some(PATIENCE)).map_err(step())?;
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            stop: AtomicBool::new(false),
            samples: Mutex::default(),
        });
        let interval = Duration::from_secs(1) / per_second.max(1);
        let (sending, receiving) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || sending.send(&socket, interval)),
            std::thread::spawn(move || receiving.receive(&receiver)),
        ];
        Ok(Self { shared, threads, patience: Duration::from_secs(1) })
    }

    /// The samples so far. Requests younger than a second that have no answer yet are left out.
    pub fn report(&self) -> EchoReport {
        let now = self.shared.origin.elapsed();
        let samples = self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = |sample: &&EchoSample| sample.rtt.is_some() || sample.sent_at + self.patience <= now;
        EchoReport { samples: samples.iter().filter(settled).copied().collect() }
    }

    /// The time since the start, as in [`EchoSample::sent_at`].
    pub fn elapsed(&self) -> Duration {
        self.shared.origin.elapsed()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(target: SocketAddr, device: Option<&str>) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    let any: IpAddr = match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

impl Shared {
    fn send(&self, socket: &UdpSocket, interval: Duration) {
        become_realtime(PRIORITY);
        let mut request = [0; PAYLOAD_BYTES];
        for number in 0..SAMPLES_MAX {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            for (byte, value) in request.iter_mut().zip((number as u64).to_be_bytes()) {
                *byte = value;
            }
            let sent_at = self.origin.elapsed();
            self.samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(EchoSample { sent_at, rtt: None });
            // A request that cannot be sent is a lost request.
            let _ = socket.send(&request);
            let next = interval * u32::try_from(number + 1).unwrap_or(u32::MAX);
            std::thread::sleep(next.saturating_sub(self.origin.elapsed()));
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        become_realtime(PRIORITY);
        let mut answer = [0; PAYLOAD_BYTES];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(_) = socket.recv(&mut answer) else {
                continue;
            };
            let now = self.origin.elapsed();
            let Some(number) =
                answer.first_chunk::<8>().and_then(|bytes| usize::try_from(u64::from_be_bytes(*bytes)).ok())
            else {
                continue;
            };
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sample) = samples.get_mut(number).filter(|sample| sample.rtt.is_none()) {
                sample.rtt = Some(now.saturating_sub(sample.sent_at));
            }
        }
    }
}

/// The samples of a prober.
#[derive(Debug, Clone, Default)]
pub struct EchoReport {
    /// Every request in order.
    pub samples: Vec<EchoSample>,
}

impl EchoReport {
    /// The requests sent in `from..to` since the start.
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |sample: &&EchoSample| (from..to).contains(&sample.sent_at);
        Self { samples: self.samples.iter().filter(within).copied().collect() }
    }

    /// The percentile of the round-trip times; see [`percentile`].
    pub fn percentile(&self, permille: usize) -> Option<Duration> {
        let rtts: Vec<_> = self.samples.iter().filter_map(|sample| sample.rtt).collect();
        percentile(&rtts, permille)
    }

    /// The share of requests without an answer, 0 to 1.
    pub fn loss_ratio(&self) -> f64 {
        if self.samples.is_empty() {
            return 0.0;
        }
        self.samples.iter().filter(|sample| sample.rtt.is_none()).count() as f64 / self.samples.len() as f64
    }

    /// The longest time without an answer: between two arrivals in a row, even if requests between
    /// them were lost.
    pub fn longest_silence(&self) -> Duration {
        let mut arrivals: Vec<_> =
            self.samples.iter().filter_map(|sample| Some(sample.sent_at + sample.rtt?)).collect();
        arrivals.sort_unstable();
        let silences = arrivals.iter().zip(arrivals.iter().skip(1)).map(|(one, next)| *next - *one);
        silences.max().unwrap_or_default()
    }

    /// The longest time in which no request that was sent got an answer.
    pub fn longest_gap(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = None;
        for sample in &self.samples {
            if sample.rtt.is_some() {
                longest = longest.max(sample.sent_at.saturating_sub(since.take().unwrap_or(sample.sent_at)));
            } else {
                since = since.or(Some(sample.sent_at));
            }
        }
        let end = self.samples.last().map_or(Duration::ZERO, |sample| sample.sent_at);
        longest.max(end.saturating_sub(since.unwrap_or(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_loss_are_counted() {
        let sample = |millis: u64, answered: bool| EchoSample {
            sent_at: Duration::from_millis(millis),
            rtt: answered.then_some(Duration::from_millis(30)),
        };
        let samples =
            vec![sample(0, true), sample(20, false), sample(40, false), sample(60, true), sample(80, false)];
        let report = EchoReport { samples };
        assert_eq!(report.longest_gap(), Duration::from_millis(40));
        assert!((report.loss_ratio() - 0.6).abs() < 1e-9);
        assert_eq!(report.percentile(500), Some(Duration::from_millis(30)));
        let part = report.between(Duration::from_millis(20), Duration::from_millis(60));
        assert_eq!((part.samples.len(), part.percentile(500)), (2, None));
        // Answers at 30 and 90 ms, and one that was late enough to arrive with the second.
        assert_eq!(report.longest_silence(), Duration::from_millis(60));
        let mut late = report.clone();
        late.samples[1].rtt = Some(Duration::from_millis(70));
        assert_eq!(late.longest_silence(), Duration::from_millis(60));
        assert_eq!(EchoReport::default().longest_silence(), Duration::ZERO);
        assert_eq!(EchoReport::default().loss_ratio(), 0.0);
    }
}
