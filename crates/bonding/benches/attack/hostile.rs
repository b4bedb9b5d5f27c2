//! A client with keys that attacks: what another client's ping and download have beside each kind
//! of its datagrams.
//!
//! The ping and the download take turns, so that neither is measured beside the other.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::Host;
use bonding_lab::tools::Ping;
use bonding_testkit::bond::SERVER_V4;
use bonding_testkit::hostile::{Attack, Hit, Hostile};
use bonding_testkit::probe::cpu_time;

use crate::{Bench, strangers, visitor_key};

/// The attacker's number among the enrolled clients, which gives its key and its inner address.
pub(crate) const NUMBER: u8 = 101;
const INNER: Ipv4Addr = Ipv4Addr::new(10, 99, 1, NUMBER);
/// What it sends, IP and UDP headers included.
const BYTES_PER_MS: usize = 1_250;
const HEADERS: usize = 28;
const LINKS: u8 = 32;
/// Each is measured for so long.
const SECONDS: u64 = 3;
/// Pings, as long as a download. Chosen: two of 250 are worse than the 99th percentile.
const PINGS: u32 = 250;
const PING_INTERVAL: Duration = Duration::from_millis(12);

/// The bounds: how much later than without an attack, and what share of the download without one.
const LATER_MAX: Duration = Duration::from_millis(5);
const GOODPUT_MIN: f64 = 0.9;

/// What the server discarded, by reason.
type Discards = Vec<(String, u64)>;

/// What another client had.
#[derive(Debug, Clone, Copy)]
struct Seen {
    median: Duration,
    p99: Duration,
    lost: f64,
    goodput_mbps: f64,
}

/// The attacker, in a thread of the internet host.
struct Attacker {
    hostile: Hostile,
    sockets: [UdpSocket; 2],
    start: Instant,
}

impl Attacker {
    fn new(bench: &Bench<'_>) -> io::Result<Self> {
        let socket = || {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(SocketAddr::V4(strangers::server()))?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        let hostile = Hostile::new(visitor_key(NUMBER), bench.key, INNER, LINKS);
        Ok(Self { hostile, sockets: [socket()?, socket()?], start: Instant::now() })
    }

    fn now(&self) -> bonding_proto::Instant {
        bonding_proto::Instant::from_nanos(1) + self.start.elapsed()
    }

    fn send(&self, Hit { port, data }: &Hit) -> usize {
        if let Some(socket) = self.sockets.get(usize::from(*port)) {
            // What the kernel refuses is lost, as on any path.
            let _ = socket.send(data);
        }
        data.len() + HEADERS
    }

    /// A millisecond, and as many again as the thread was late: `attack` is what it sends besides
    /// what keeps it in.
    fn turn(&mut self, attack: Option<Attack>, steps: usize) -> usize {
        let mut buffer = [0; 2_048];
        for at in 0..self.sockets.len() {
            while let Some(Ok(size)) = self.sockets.get(at).map(|socket| socket.recv(&mut buffer)) {
                let now = self.now();
                self.hostile.handle(buffer.get(..size).unwrap_or_default(), now);
            }
        }
        let now = self.now();
        let mut sent = 0;
        while let Some(hit) = self.hostile.upkeep(now) {
            sent += self.send(&hit);
        }
        while let Some(attack) = attack.filter(|_| sent < BYTES_PER_MS * steps) {
            let Some(hit) = self.hostile.attack(attack, now) else { break };
            sent += self.send(&hit);
        }
        sent
    }

    /// Attacks until `stop`, and counts the bytes.
    fn run(&mut self, attack: Attack, stop: &AtomicBool, bytes: &AtomicU64) {
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let late = usize::try_from(due.elapsed().as_millis()).unwrap_or(0);
            let steps = 1 + late.min(20);
            bytes.fetch_add(self.turn(Some(attack), steps) as u64, Ordering::Relaxed);
            due += Duration::from_millis(1) * u32::try_from(steps).unwrap_or(1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

impl Bench<'_> {
    /// Each attack in turn; fails where one harms the other client.
    pub(crate) fn hostile(&self) -> anyhow::Result<()> {
        println!("a client with keys sends the worst that it can, 10 Mbit/s over {LINKS} links");
        let alone = self.look()?;
        println!("  {:28} {}", "without", of(&alone));
        let mut attacker = self.lab.host(Host::Internet).run(|| Attacker::new(self))??;
        let mut harmful = Vec::new();
        for attack in Attack::ALL {
            let (seen, share, discards) = self.beside(&mut attacker, attack)?;
            println!(
                "  {:28} {}; {:.0} % of a processor; {discards:?}",
                attack.name(),
                of(&seen),
                share * 100.0
            );
            let later = seen.p99.saturating_sub(alone.p99);
            if later > LATER_MAX || seen.goodput_mbps < alone.goodput_mbps * GOODPUT_MIN {
                harmful.push(attack.name());
            }
        }
        ensure!(harmful.is_empty(), "another client was harmed by: {harmful:?}");
        Ok(())
    }

    /// What another client has beside an attack, the server's share of a processor, and what it
    /// discarded.
    fn beside(&self, attacker: &mut Attacker, attack: Attack) -> anyhow::Result<(Seen, f64, Discards)> {
        let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let (before, id) = (self.discards()?, self.server_id()?);
        let host = self.lab.host(Host::Internet);
        let (seen, share) = std::thread::scope(|scope| {
            let attacking = scope.spawn(|| {
                host.run(|| {
                    // The last attack may have cost it its session.
                    for _ in 0..3_000 {
                        attacker.turn(None, 1);
                        if attacker.hostile.is_in() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let is_in = attacker.hostile.is_in();
                    attacker.run(attack, &stop, &bytes);
                    is_in
                })
            });
            std::thread::sleep(Duration::from_millis(500));
            let seen = self.look_and_weigh(id);
            stop.store(true, Ordering::Relaxed);
            let is_in = attacking.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
            ensure!(is_in, "the attacker did not get in");
            seen
        })?;
        let sent = bytes.load(Ordering::Relaxed);
        // Ping and download take twice the time; half of the rate is still an attack.
        ensure!(sent > SECONDS * 1_000 * BYTES_PER_MS as u64, "only {sent} bytes were sent");
        let grown = self.discards()?.into_iter().map(|(key, count): (String, u64)| {
            let old = before.iter().find(|(known, _)| *known == key).map_or(0, |(_, count)| *count);
            (key, count.saturating_sub(old))
        });
        Ok((seen, share, grown.filter(|(_, count)| *count > 0).collect()))
    }

    /// What another client has now, and the server's share of a processor meanwhile.
    fn look_and_weigh(&self, server: u32) -> anyhow::Result<(Seen, f64)> {
        let (cpu, began) = (cpu_time(server)?, Instant::now());
        let seen = self.look()?;
        let spent = cpu_time(server)?.saturating_sub(cpu);
        Ok((seen, spent.as_secs_f64() / began.elapsed().as_secs_f64()))
    }

    /// What another client has now.
    fn look(&self) -> anyhow::Result<Seen> {
        let ping = Ping { count: PINGS, interval: PING_INTERVAL, ..Ping::new(SERVER_V4) };
        let report = ping.run(self.lab.host(Host::Client))?;
        Ok(Seen {
            median: report.median().context("no answer")?,
            p99: report.percentile(990).context("no answer")?,
            lost: report.loss_ratio(),
            goodput_mbps: self.download(SECONDS)?,
        })
    }
}

fn of(seen: &Seen) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!(
        "ping {:.1} ms, p99 {:.1} ms, lost {:.1} %; download {:.1} Mbit/s",
        ms(seen.median),
        ms(seen.p99),
        seen.lost * 100.0,
        seen.goodput_mbps,
    )
}
