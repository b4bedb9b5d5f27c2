//! `cargo xtask bench attack`: a loaded tunnel under attack, and many sessions on one server.
//!
//! The set-up: two links, a download through the bond with the kernel's TCP, and an attacker on the
//! internet host. The attacker has seen the client's datagrams, writes any source address, and
//! reaches the server's ports. The figures: the download's goodput beside a download without attack
//! in the same run, the server's counters for the datagrams, the bytes that the server sent to the
//! attacker, and its memory. The attacks:
//!
//! - 200,000 datagrams each of garbage, cut, replayed, flipped, misdirected and source-forged ones;
//! - 50,000 first messages a second by unknown clients that know the server's key, from random
//!   addresses, while a new enrolled client connects;
//! - an enrolled client that sends 10 Mbit/s of the worst datagrams that it can build, of ten kinds
//!   in turn: another client's ping may be 5 ms later at most, and its download has 90 % at least;
//! - 100 real sessions: the server's memory and processor time for each.
//!
//! A datagram counts as *accepted* if it arrived at the server and was not discarded. A datagram
//! that the kernel dropped because the server's socket was full did not arrive.
#![expect(clippy::print_stdout, reason = "a command-line program: standard output is its interface")]

mod hostile;
mod strangers;
mod visitor;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bonding_lab::tools::{Iperf3, Iperf3Server, IperfDirection};
use bonding_lab::{Host, Lab, LabOptions, addr, sandbox};
use bonding_netem::scenario;
use bonding_proto::crypto::keys::{PrivateKey, PublicKey};
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::INITIATION_BYTES;
use bonding_testkit::bond::{Bond, Options, SERVER_V4, key, run};
use bonding_testkit::probe::{cpu_time, peak_rss_bytes};
use bonding_testkit::programs::Programs;
use clap::Parser;
use serde_json::Value;

use crate::strangers::{Kind, PORT};
use crate::visitor::Visitor;
use crate::wire::{Forger, Seen, Tap};

/// The programs under test.
const PROGRAMS: Programs = bonding_testkit::programs!();

const IPERF_PORT: u16 = 5_201;
/// Datagrams of each kind.
const DATAGRAMS: u64 = 200_000;
/// Datagrams a second.
const DATAGRAMS_PER_SECOND: u64 = 25_000;
/// First messages a second.
const FLOOD_PER_SECOND: u64 = 50_000;
/// A first message on the wire: Ethernet, IPv4, UDP.
const FRAME_BYTES: u64 = 14 + 20 + 8 + INITIATION_BYTES as u64;
/// Datagrams of the client that the attacker keeps.
const SAMPLES: usize = 4_096;
/// Sessions beside the tunnel's own.
const VISITORS: u8 = 100;

/// Measures a tunnel under attack.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench attack")]
struct Arguments {
    /// A tenth of every attack, to see that the benchmark works
    #[arg(long)]
    quick: bool,
    /// Only the flood of first messages
    #[arg(long)]
    flood: bool,
    /// Only the client with keys
    #[arg(long, conflicts_with = "flood")]
    hostile: bool,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match sandbox::enter().map_err(anyhow::Error::from).and_then(|()| measure(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The private key of a visitor.
fn visitor_key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number.wrapping_add(100); 32])
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let missing = bonding_lab::requirements();
    ensure!(missing.is_empty(), "programs are missing: {missing:?}");
    let lab = Lab::start(&scenario::find("dual")?, LabOptions::default())?;
    let enrolled = (0..=hostile::NUMBER).map(|number| visitor_key(number).public()).collect();
    let bond = Bond::start(&lab, PROGRAMS, Options { enrolled, ..Options::default() })?;
    // The attacker's way to the server.
    let mut route = lab.host(Host::Internet).command("ip");
    let (server, gateway) = (addr::SERVER_V4.to_string(), addr::SERVER_EGRESS_V4.to_string());
    run(route.args(["route", "add", &server, "via", &gateway]))?;
    let _iperf3 = Iperf3Server::start(&lab, lab.host(Host::Server), IPERF_PORT)?;
    let bench = Bench {
        lab: &lab,
        bond: &bond,
        key: key(Host::Server).public(),
        scale: if arguments.quick { 10 } else { 1 },
    };
    let all = !arguments.flood && !arguments.hostile;
    if all {
        bench.strangers()?;
    }
    if all || arguments.flood {
        bench.flood()?;
    }
    if all || arguments.hostile {
        bench.hostile()?;
    }
    if all {
        bench.crowd()?;
    }
    bond.stop()
}

struct Bench<'a> {
    lab: &'a Lab,
    bond: &'a Bond<'a>,
    key: PublicKey,
    scale: u64,
}

/// The effect of an attack.
#[derive(Debug)]
struct Attack {
    sent: u64,
    goodput_mbps: f64,
    /// The server's discards by reason.
    discards: Vec<(String, u64)>,
    kernel_drops: u64,
    /// Frames that reached the attacker's machine, and their bytes: answers, whatever their
    /// destination, and a few ARP frames. The device counts them: reading each frame would cost
    /// more than the attack.
    answers: (u64, u64),
}

impl Bench<'_> {
    /// The download, in Mbit/s.
    fn download(&self, seconds: u64) -> anyhow::Result<f64> {
        let iperf3 = Iperf3 {
            duration: Duration::from_secs(seconds),
            congestion: Some("cubic".to_owned()),
            ..Iperf3::new(SERVER_V4, IperfDirection::Download)
        };
        Ok(iperf3.run(self.lab, self.lab.host(Host::Client))?.goodput_bps / 1e6)
    }

    fn server_id(&self) -> anyhow::Result<u32> {
        Ok(self.bond.process(Host::Server)?.id())
    }

    fn discards(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let status = self.bond.status(Host::Server)?;
        let discards = status.pointer("/discards").and_then(Value::as_object).context("no discards")?;
        Ok(discards.iter().map(|(key, count)| (key.clone(), count.as_u64().unwrap_or(0))).collect())
    }

    /// Datagrams that the server's kernel dropped for want of room in a socket's buffer.
    fn kernel_drops(&self) -> anyhow::Result<u64> {
        let table =
            self.lab.host(Host::Server).run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let column = names.split(' ').position(|name| name == "RcvbufErrors").context("no RcvbufErrors")?;
        Ok(values.split(' ').nth(column).context("no value")?.parse()?)
    }

    /// Captures datagrams of the client while it downloads.
    fn samples(&self) -> anyhow::Result<Vec<Seen>> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tap = scope.spawn(|| {
                self.lab.host(Host::Server).run(|| {
                    let mut tap = Tap::open()?;
                    let mut samples = Vec::new();
                    while !stop.load(Ordering::Relaxed) && samples.len() < SAMPLES {
                        samples.extend(tap.next().filter(|seen| {
                            (PORT..PORT + 5).contains(&seen.target.port())
                                && seen.payload.first() == Some(&0x84)
                        }));
                    }
                    std::io::Result::Ok(samples)
                })
            });
            let goodput = self.download(3);
            stop.store(true, Ordering::Relaxed);
            let samples = tap.join().map_err(|_| anyhow::anyhow!("the tap panicked"))???;
            goodput?;
            ensure!(samples.len() >= 1_000, "only {} datagrams of the client were seen", samples.len());
            Ok(samples)
        })
    }

    /// Runs `send` on the attacker's host while a download runs, and counts the effect.
    fn attack(
        &self,
        seconds: u64,
        send: impl FnOnce() -> anyhow::Result<u64> + Send,
    ) -> anyhow::Result<Attack> {
        let before = (self.discards()?, self.kernel_drops()?);
        let attacker = self.lab.host(Host::Internet);
        let received_before = attacker.run(received)??;
        let (sent, goodput) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                // After the download's slow start.
                std::thread::sleep(Duration::from_millis(2_500));
                attacker.run(send)
            });
            let goodput = self.download(seconds);
            let sent = sending.join().map_err(|_| anyhow::anyhow!("the attacker panicked"));
            anyhow::Ok((sent???, goodput?))
        })?;
        std::thread::sleep(Duration::from_millis(200));
        let received_after = attacker.run(received)??;
        let (after, drops) = (self.discards()?, self.kernel_drops()?);
        let grown = |(key, count): &(String, u64)| {
            let old = before.0.iter().find(|(known, _)| known == key).map_or(0, |(_, count)| *count);
            (key.clone(), count.saturating_sub(old))
        };
        Ok(Attack {
            sent,
            goodput_mbps: goodput,
            discards: after.iter().map(grown).filter(|(_, count)| *count > 0).collect(),
            kernel_drops: drops.saturating_sub(before.1),
            answers: (received_after.0 - received_before.0, received_after.1 - received_before.1),
        })
    }

    fn strangers(&self) -> anyhow::Result<()> {
        let samples = self.samples()?;
        let count = DATAGRAMS / self.scale;
        let seconds = (count / DATAGRAMS_PER_SECOND).max(2);
        println!("{count} datagrams of each kind, {DATAGRAMS_PER_SECOND} a second, during a download");
        let alone = self.download(seconds)?;
        let memory = peak_rss_bytes(self.server_id()?)?;
        println!("  without: {alone:.1} Mbit/s, server {:.1} MiB", mib(memory));
        for kind in Kind::ALL {
            let mut rng = SecretRng::new([kind as u8; 32]);
            let attack = self.attack(seconds, || {
                let mut forger = Forger::new(DATAGRAMS_PER_SECOND)?;
                for sample in samples.iter().cycle().take(usize::try_from(count)?) {
                    let (source, target, payload) = kind.make(sample, &mut rng);
                    forger.send(source, target, &payload)?;
                }
                Ok(count)
            })?;
            let discarded: u64 = attack.discards.iter().map(|(_, count)| count).sum();
            let accepted = attack.sent.saturating_sub(discarded + attack.kernel_drops);
            println!(
                "  {:14} {:.1} Mbit/s ({:.0} %), accepted {accepted}, dropped by the kernel {}, answers {}, server {:.1} MiB; {:?}",
                kind.name(),
                attack.goodput_mbps,
                attack.goodput_mbps / alone * 100.0,
                attack.kernel_drops,
                attack.answers.0,
                mib(peak_rss_bytes(self.server_id()?)?),
                attack.discards,
            );
        }
        Ok(())
    }

    fn flood(&self) -> anyhow::Result<()> {
        let seconds = (20 / self.scale).max(6);
        println!(
            "first messages by unknown clients, {FLOOD_PER_SECOND} a second from random addresses, for {seconds} s"
        );
        let alone = self.download(seconds)?;
        let key = self.key;
        let attack = self.attack(seconds, move || {
            let mut rng = SecretRng::new([9; 32]);
            let initiations = strangers::initiations(&key, 64, &mut rng);
            let mut forger = Forger::new(FLOOD_PER_SECOND)?;
            let start = Instant::now();
            let flood = Duration::from_secs(seconds - 1);
            let mut sent = 0_u64;
            std::thread::scope(|scope| {
                let mut newcomer = None;
                for initiation in initiations.iter().cycle() {
                    if start.elapsed() >= flood {
                        break;
                    }
                    if newcomer.is_none() && start.elapsed() > Duration::from_secs(1) {
                        newcomer = Some(scope.spawn(|| {
                            self.lab.host(Host::Internet).run(|| {
                                let remote = SocketAddr::V4(strangers::server());
                                let mut visitor = Visitor::new(visitor_key(VISITORS), key, remote, 1)?;
                                std::io::Result::Ok(visitor.enter(Duration::from_secs(10)))
                            })
                        }));
                    }
                    forger.send(strangers::stranger(&mut rng), strangers::server(), initiation)?;
                    sent += 1;
                }
                let took = newcomer.context("no newcomer")?.join();
                let took = took.map_err(|_| anyhow::anyhow!("the newcomer panicked"))???;
                println!("  an enrolled newcomer is in after {took:.0?}");
                anyhow::Ok(())
            })?;
            println!("  sent {:.0} a second", sent as f64 / start.elapsed().as_secs_f64());
            Ok(sent)
        })?;
        println!(
            "  {:.1} Mbit/s without, {:.1} with ({:.0} %), dropped by the kernel {}, answers {} ({:.2} of the bytes sent), server {:.1} MiB; {:?}",
            alone,
            attack.goodput_mbps,
            attack.goodput_mbps / alone * 100.0,
            attack.kernel_drops,
            attack.answers.0,
            attack.answers.1 as f64 / (attack.sent * FRAME_BYTES) as f64,
            mib(peak_rss_bytes(self.server_id()?)?),
            attack.discards,
        );
        Ok(())
    }

    /// Many sessions at once, from one host.
    fn crowd(&self) -> anyhow::Result<()> {
        let id = self.server_id()?;
        let before = (resident_bytes(id)?, cpu_time(id)?);
        let key = self.key;
        let (inside, spent) = self.lab.host(Host::Internet).run(|| {
            let remote = SocketAddr::V4(strangers::server());
            let mut visitors: Vec<Visitor> = (0..VISITORS)
                .map(|number| Visitor::new(visitor_key(number), key, remote, 1))
                .collect::<Result<_, _>>()?;
            let start = Instant::now();
            let (mut inside, mut spent) = (0, Duration::ZERO);
            // All sessions are connected; now they exchange heartbeats.
            while start.elapsed() < Duration::from_secs(20) {
                let now_inside = visitors.iter_mut().map(Visitor::turn).filter(|inside| *inside).count();
                if inside < usize::from(VISITORS) && now_inside == usize::from(VISITORS) {
                    spent = start.elapsed();
                }
                inside = now_inside;
                std::thread::sleep(Duration::from_millis(2));
            }
            anyhow::Ok((inside, spent))
        })??;
        let (memory, cpu) = (resident_bytes(id)?, cpu_time(id)?);
        println!(
            "{VISITORS} sessions from one host: {inside} in after {spent:.1?}; {:.1} KiB of resident memory each, \
             {:.1} ms of the server's processor time each for handshake and 20 s of heartbeats",
            memory.saturating_sub(before.0) as f64 / 1_024.0 / f64::from(VISITORS),
            cpu.saturating_sub(before.1).as_secs_f64() * 1e3 / f64::from(VISITORS),
        );
        Ok(())
    }
}

/// Frames and bytes that the attacker's device has received.
fn received() -> anyhow::Result<(u64, u64)> {
    // /proc/thread-self: the network namespace of this thread, not of the process.
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut lines = table.lines().filter_map(|line| line.trim_start().split_once(':'));
    let (_, figures) = lines.find(|(name, _)| *name == addr::EGRESS_DEVICE).context("no device")?;
    let mut figures = figures.split_whitespace();
    let mut next = || figures.next().context("no counter")?.parse::<u64>().context("no number");
    let (bytes, frames) = (next()?, next()?);
    Ok((frames, bytes))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident memory of a process now.
fn resident_bytes(process_id: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1_024)
}
