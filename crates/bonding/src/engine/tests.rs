//! The loop with a small machine, a device in memory and real sockets on the loopback interface.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bonding_os::poll::Poller;
use bonding_os::signals::Signals;
use bonding_os::tun::{Inbound, TunCounters};
use bonding_proto::{
    Datagram, Discard, Instant, LinkId, PacketBuf, Path, SocketId, StateMachine, Timer, Transmit,
};
use bytes::Bytes;

use super::clock::Clock;
use super::command::{Command, Reply};
use super::event_loop::{Device, Engine, PACKETS_PER_ROUND, Parts, ROUNDS_MAX, SPIN_WAIT, Shell};
use super::sockets::{SocketSpec, Sockets};
use super::{Running, Service};
use crate::status::Snapshot;

/// Sends every packet to `remote` and delivers every datagram; ticks.
#[derive(Debug)]
struct Machine {
    remote: SocketAddr,
    packets: VecDeque<PacketBuf>,
    delivered: VecDeque<PacketBuf>,
    tick_at: Instant,
    tick: Duration,
    ticks: usize,
    /// Packets taken since the last tick: the most, ever.
    taken: usize,
    taken_max: usize,
    /// How long it takes to send something.
    sending: Duration,
    /// What it was given to draw from, and how much of it the last input found.
    entropy: Vec<[u8; 32]>,
    drawn: Vec<usize>,
    forgotten: Vec<Duration>,
}

impl StateMachine for Machine {
    fn close(&mut self, _: Instant) {}

    fn handle_packet(&mut self, packet: PacketBuf, _: Instant) -> Result<(), Discard> {
        self.packets.push_back(packet);
        self.taken += 1;
        self.taken_max = self.taken_max.max(self.taken);
        Ok(())
    }

    fn handle_datagram(&mut self, datagram: Datagram, _: Instant) -> Result<(), Discard> {
        self.drawn.push(self.entropy.len());
        self.delivered.push_back(PacketBuf::from(datagram.data.freeze()));
        Ok(())
    }

    fn draws_secrets(&self, datagram: Option<&Datagram>, now: Instant) -> bool {
        datagram.map_or(self.tick_at <= now, |datagram| datagram.data.first() == Some(&0x81))
    }

    fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.entropy.push(*entropy);
    }

    fn forget_keys(&mut self, unseen: Duration, _: Instant) {
        self.forgotten.push(unseen);
        self.drawn.push(self.entropy.len());
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.tick_at {
            self.drawn.push(self.entropy.len());
            self.tick_at = now + self.tick;
            self.ticks += 1;
            self.taken = 0;
        }
    }

    fn poll_transmit(&mut self, buf: &mut Vec<u8>, max: NonZeroUsize, _: Instant) -> Option<Transmit> {
        let start = buf.len();
        let segment_size = self.packets.front()?.len();
        std::thread::sleep(self.sending);
        for _ in 0..max.get() {
            let Some(packet) = self.packets.front().filter(|packet| packet.len() == segment_size) else {
                break;
            };
            buf.extend_from_slice(packet);
            self.packets.pop_front();
        }
        let path = Path { socket: SocketId(0), remote: self.remote, local: None };
        Some(Transmit::new(LinkId(0), path, buf.len() - start, segment_size))
    }

    fn poll_packet(&mut self) -> Option<PacketBuf> {
        self.delivered.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        Some((self.tick_at, Timer::Pacing))
    }
}

/// Gives what it holds, one packet a read, and is readable while `wake` has bytes.
#[derive(Debug)]
struct Memory {
    readable: UnixStream,
    inbound: VecDeque<Bytes>,
    outbound: Vec<PacketBuf>,
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Device for Memory {
    fn recv_batch(&mut self, packets: &mut Vec<Inbound>) -> io::Result<bool> {
        packets.extend(self.inbound.pop_front().map(|bytes| Inbound {
            bytes: bytes.into(),
            is_partial: false,
            follows: false,
        }));
        Ok(!self.inbound.is_empty())
    }

    fn send_batch(&mut self, packets: &[PacketBuf]) -> io::Result<()> {
        self.outbound.extend_from_slice(packets);
        Ok(())
    }

    fn counters(&self) -> TunCounters {
        TunCounters::default()
    }
}

/// Neither logs nor reports; gives the machine a packet once.
#[derive(Debug, Default)]
struct Quiet {
    events: Option<PacketBuf>,
}

impl Shell<Machine> for Quiet {
    fn handle_events(&mut self, machine: &mut Machine, _: Instant) -> bool {
        machine.packets.extend(self.events.take());
        !machine.packets.is_empty()
    }
    fn handle_command(
        &mut self,
        _: &mut Machine,
        _: &mut Sockets,
        _: Command,
        _: Instant,
    ) -> Result<Reply, String> {
        unreachable!("the service has no descriptor")
    }
    fn status_interval(&self) -> Duration {
        Duration::from_secs(3600)
    }
    fn snapshot(&self, _: &Machine, _: &Sockets, _: Instant) -> Snapshot {
        unreachable!("the status interval is an hour")
    }
}

impl Service for Quiet {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn handle_ready(&mut self, _: &mut dyn Running) {}
    fn handle_interval(&mut self, _: &Snapshot) {}
    fn handle_reload(&mut self, _: &mut dyn Running) {}
}

struct World {
    engine: Engine<Machine, Memory>,
    shell: Quiet,
    peer: UdpSocket,
    /// Where the engine's socket is.
    near: SocketAddr,
    wake: UnixStream,
}

impl World {
    fn new(tick: Duration) -> Self {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A port that is free now; a test that takes it in between fails at `open_all`.
        let near = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let poller = Poller::new().unwrap();
        let spec = SocketSpec { label: "near".to_owned(), bind: near, interface: None };
        let mut sockets = Sockets::new([spec]);
        sockets.open_all(&poller).unwrap();
        let (readable, wake) = UnixStream::pair().unwrap();
        let clock = Clock::start();
        let machine = Machine {
            remote: peer.local_addr().unwrap(),
            packets: VecDeque::new(),
            delivered: VecDeque::new(),
            tick_at: clock.now() + tick,
            tick,
            ticks: 0,
            taken: 0,
            taken_max: 0,
            sending: Duration::ZERO,
            entropy: Vec::new(),
            drawn: Vec::new(),
            forgotten: Vec::new(),
        };
        let engine = Engine::new(Parts {
            machine,
            device: Memory { readable, inbound: VecDeque::new(), outbound: Vec::new() },
            sockets,
            monitor: None,
            signals: Signals::install().unwrap(),
            poller,
            clock,
            trace: None,
        })
        .unwrap();
        Self { engine, shell: Quiet::default(), peer, near, wake }
    }

    fn turn(&mut self) {
        self.engine.turn(&mut self.shell, &mut Quiet::default()).unwrap();
    }

    /// Puts packets into the device.
    fn offer(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) {
        self.engine.device.inbound.extend(packets.into_iter().map(Bytes::from));
        self.wake.write_all(b"x").unwrap();
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn packets_become_datagrams_and_back() {
    let mut world = World::new(LONG);
    world.offer((0..100_u8).map(|number| vec![number; 500]));
    while !world.engine.device.inbound.is_empty() {
        world.turn();
    }
    let mut buffer = [0; 2000];
    for number in 0..100_u8 {
        let (size, from) = world.peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..size], from), (&[number; 500][..], world.near));
    }

    for number in 0..100_u8 {
        world.peer.send_to(&[number; 300], world.near).unwrap();
    }
    while world.engine.device.outbound.len() < 100 {
        world.turn();
    }
    for (number, packet) in (0..100_u8).zip(&world.engine.device.outbound) {
        assert_eq!(packet.as_ref(), [number; 300]);
    }
}

#[test]
fn what_an_event_causes_is_sent_in_the_same_turn() {
    let mut world = World::new(LONG);
    world.shell.events = Some(PacketBuf::from(Bytes::from_static(&[7; 90])));
    world.turn_once_at_least();
    let mut buffer = [0; 2000];
    let sizes = [(); 2].map(|()| world.peer.recv_from(&mut buffer).unwrap().0);
    assert_eq!(sizes, [1, 90]);
}

#[test]
fn deadlines_are_served_beside_a_busy_device() {
    // A tick that is always due by the next round.
    let mut world = World::new(Duration::from_nanos(1));
    world.offer((0..5000).map(|_| vec![0; 100]));
    let mut turns = 0;
    while !world.engine.device.inbound.is_empty() {
        world.turn();
        turns += 1;
    }
    let machine = &world.engine.machine;
    assert!(machine.taken_max <= PACKETS_PER_ROUND, "{} packets between two ticks", machine.taken_max);
    assert!(turns >= 5000 / (PACKETS_PER_ROUND * ROUNDS_MAX), "one wake-up took everything");
    assert!(machine.ticks >= 5000 / PACKETS_PER_ROUND);
}

#[test]
fn a_deadline_ends_the_wait() {
    let mut world = World::new(Duration::from_millis(2));
    for ticks in 1..=5 {
        while world.engine.machine.ticks < ticks {
            world.turn();
        }
    }
}

#[test]
fn a_deadline_in_the_past_is_no_wait_and_a_stuck_one_no_busy_loop() {
    let mut world = World::new(LONG);
    world.turn_once_at_least();
    // Due, but the machine has not seen that time yet.
    world.engine.machine.tick_at = world.engine.seen() + Duration::from_nanos(1);
    assert_eq!(world.engine.wait_for([None; 3]), Duration::ZERO);
    // The machine has seen it and asks again.
    world.engine.machine.tick_at = world.engine.seen();
    assert_eq!(world.engine.wait_for([None; 3]), SPIN_WAIT);
}

#[test]
fn a_deadline_that_passes_while_something_is_sent_is_not_stuck() {
    let mut world = World::new(LONG);
    world.turn_once_at_least();
    world.engine.machine.sending = Duration::from_millis(20);
    world.engine.machine.tick_at = world.engine.seen() + Duration::from_millis(10);
    world.turn_once_at_least();
    // If the test was interrupted for 10 ms, the machine has ticked before.
    assert!(world.engine.machine.ticks == 1 || world.engine.wait_for([None; 3]).is_zero());
}

#[test]
fn the_machine_has_fresh_entropy_before_each_input_that_draws() {
    let mut world = World::new(LONG);
    world.peer.send_to(&[1; 90], world.near).unwrap();
    world.turn();
    assert_eq!(world.engine.machine.drawn, [0], "this one draws nothing");
    world.peer.send_to(&[0x81; 90], world.near).unwrap();
    world.turn();
    assert_eq!(world.engine.machine.drawn, [0, 1]);
    world.engine.machine.tick_at = world.engine.seen() + Duration::from_nanos(1);
    world.turn();
    assert_eq!(world.engine.machine.drawn, [0, 1, 2]);
    let given: std::collections::BTreeSet<_> = world.engine.machine.entropy.iter().collect();
    assert_eq!(given.len(), 2, "each is another");
}

#[test]
fn a_machine_that_slept_forgets_its_keys() {
    use bonding_os::clocks::Reading;

    let mut world = World::new(LONG);
    world.turn_once_at_least();
    assert!(world.engine.machine.forgotten.is_empty());
    let now = Reading::now();
    let slept = Duration::from_secs(100);
    let woken = Reading { boottime: now.boottime + slept, realtime: now.realtime + slept, ..now };
    let at = world.engine.seen();
    world.engine.watch_clocks(woken, at);
    let [unseen] = world.engine.machine.forgotten[..] else { panic!("once") };
    assert!(unseen.abs_diff(slept) < Duration::from_millis(100), "{unseen:?}");
    assert_eq!(world.engine.machine.drawn, [1], "it has fresh entropy first");
}

impl World {
    /// A turn that does not wait.
    fn turn_once_at_least(&mut self) {
        self.offer([vec![1]]);
        self.turn();
    }
}
