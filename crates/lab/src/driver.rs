//! The emulator in real time: one thread that moves packets between the links' ends through their
//! pipes.
//!
//! The thread sleeps in `epoll_pwait2` until a packet comes or the next one is due, to the
//! nanosecond. It runs at real-time priority where the kernel permits: a network does not slow down
//! because its hosts are busy. The pipes compute with the times at which packets were due, so a
//! late wake-up delays packets but changes no rate. Most of its CPU time is the receiving host's
//! TCP/IP, which the kernel runs inside the write to a TUN device.
//!
//! Other threads send it messages over a channel and an eventfd. They hold no lock that it could
//! wait for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bonding_netem::{Change, Counters, Direction, Flow, Pipe, Scenario, Time, ecn};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
};
use tun_rs::SyncDevice;

use crate::error::LabError;
use crate::topology::LinkEnds;

/// Chosen: above other real-time programs' usual 1, below the kernel's own threads.
const PRIORITY: u8 = 50;
/// Buffers hold any packet of the links' MTU.
const BUFFER_BYTES: usize = 2_048;
/// The most buffers kept for reuse. Chosen: 8 MiB.
const POOL_MAX: usize = 4_096;
/// The most packets read from one device before packets that are due are delivered again. Chosen: a
/// due packet waits for one batch at most.
const BATCH_PKTS: usize = 32;
/// The least time between two wake-ups. Under load several packets share one.
/// Measured: docs/decisions/0093-wake-ups-of-the-emulator.md.
const PAUSE: Duration = Duration::from_micros(50);
/// The epoll token of the channel.
const WAKE: u64 = u64::MAX;
/// A wake-up counts as late above this. Chosen: a millisecond shows in a round-trip time.
const LATE: Duration = Duration::from_millis(1);

/// The emulator's timing and cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriverStats {
    /// Whether it runs at real-time priority.
    pub realtime: bool,
    /// How often it woke.
    pub wakeups: u64,
    /// Packets moved, both directions of all links.
    pub delivered_pkts: u64,
    /// Packets that a host refused: its device was down.
    pub refused_pkts: u64,
    /// The latest a delivery ever was.
    pub late_max: Duration,
    /// Wake-ups more than 1 ms late. Many mean that the machine was too busy for a valid
    /// measurement.
    pub late_wakeups: u64,
    /// CPU time used by the driver's thread.
    pub cpu: Duration,
}

/// The counters and the queue of one direction of a link.
#[derive(Debug, Clone, Copy, Default)]
pub struct PipeSnapshot {
    /// Since the start.
    pub counters: Counters,
    /// The time that a packet offered now would wait in the queue; `None` on a link that stands
    /// still.
    pub queue_delay: Option<Duration>,
    /// Packets offered so far that had the size of [`Lab::count_size`](crate::Lab::count_size).
    pub sized_pkts: u64,
}

/// All links at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// As [`Lab::elapsed`](crate::Lab::elapsed) counts.
    pub at: Duration,
    /// By link: up, down.
    pub links: Vec<[PipeSnapshot; 2]>,
}

impl Snapshot {
    /// One direction of link `index`; nothing for a link that does not exist.
    pub fn pipe(&self, index: usize, direction: Direction) -> Option<&PipeSnapshot> {
        let [up, down] = self.links.get(index)?;
        Some(match direction {
            Direction::Up => up,
            Direction::Down => down,
        })
    }
}

/// A message to the driver.
enum Message {
    Apply(usize, Direction, Change),
    Counters(usize, Direction, Sender<Counters>),
    Stats(Sender<DriverStats>),
    Snapshot(Sender<Snapshot>),
    /// Packets of this size are counted apart from now on.
    CountSize(usize),
    /// The scenario's events happen from this time on.
    StartClock(Time),
    Stop,
}

/// A packet in a pooled buffer.
#[derive(Debug, Clone)]
struct Packet {
    buffer: Box<[u8]>,
    len: usize,
}

/// The running driver; stops when dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    origin: Instant,
    messages: Sender<Message>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    pub(crate) fn start(scenario: &Scenario, ends: Vec<LinkEnds>, seed: u64) -> Result<Self, LabError> {
        let step = || LabError::io("start the emulator");
        let (messages, receiver) = channel();
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| step()(error.into()))?;
        let wake = Arc::new(wake);
        let origin = Instant::now();
        let pipes = |direction| {
            scenario.links.iter().map(move |link| scenario.pipe(link, direction, seed)).collect::<Vec<_>>()
        };
        let links = pipes(Direction::Up).into_iter().zip(pipes(Direction::Down)).zip(ends);
        let links = links.map(|((up, down), ends)| Link {
            up,
            down,
            client: ends.client,
            server: ends.server,
            sized_pkts: [0; 2],
        });
        let state = State {
            origin,
            links: links.collect(),
            events: scenario.clone(),
            pool: Vec::new(),
            counted_size: None,
            stats: DriverStats::default(),
            receiver,
            wake: Arc::clone(&wake),
        };
        let epoll = state.register().map_err(step())?;
        let thread = std::thread::Builder::new().name("netem".to_owned()).spawn(move || state.run(&epoll));
        Ok(Self { origin, messages, wake, thread: Some(thread.map_err(step())?) })
    }

    pub(crate) fn now(&self) -> Time {
        Time::from(self.origin.elapsed())
    }

    pub(crate) fn apply(&self, link: usize, direction: Direction, change: Change) {
        self.send(Message::Apply(link, direction, change));
    }

    pub(crate) fn start_clock(&self, at: Time) {
        self.send(Message::StartClock(at));
    }

    pub(crate) fn counters(&self, link: usize, direction: Direction) -> Counters {
        let (reply, answer) = channel();
        self.send(Message::Counters(link, direction, reply));
        answer.recv().unwrap_or_default()
    }

    pub(crate) fn stats(&self) -> DriverStats {
        let (reply, answer) = channel();
        self.send(Message::Stats(reply));
        answer.recv().unwrap_or_default()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let (reply, answer) = channel();
        self.send(Message::Snapshot(reply));
        answer.recv().unwrap_or_default()
    }

    pub(crate) fn count_size(&self, bytes: usize) {
        self.send(Message::CountSize(bytes));
    }

    /// The driver's thread ends only when this is dropped, so it takes every message.
    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Link {
    up: Pipe<Packet>,
    down: Pipe<Packet>,
    client: SyncDevice,
    server: SyncDevice,
    /// Packets of the counted size: up, down.
    sized_pkts: [u64; 2],
}

impl Link {
    fn pipe(&mut self, direction: Direction) -> &mut Pipe<Packet> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// The device that packets of this direction come from, their pipe, and the device they go to.
    fn parts(&mut self, direction: Direction) -> (&SyncDevice, &mut Pipe<Packet>, &SyncDevice) {
        match direction {
            Direction::Up => (&self.client, &mut self.up, &self.server),
            Direction::Down => (&self.server, &mut self.down, &self.client),
        }
    }
}

struct State {
    origin: Instant,
    links: Vec<Link>,
    /// For its events, until the clock starts.
    events: Scenario,
    pool: Vec<Box<[u8]>>,
    /// The size of the packets that are counted apart.
    counted_size: Option<usize>,
    stats: DriverStats,
    receiver: Receiver<Message>,
    wake: Arc<OwnedFd>,
}

fn raw(device: &SyncDevice) -> BorrowedFd<'_> {
    device.as_fd()
}

impl State {
    fn register(&self) -> io::Result<OwnedFd> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &self.wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        for (link, index) in self.links.iter().zip(0_u64..) {
            epoll::add(
                &epoll,
                raw(&link.client),
                epoll::EventData::new_u64(index * 2),
                epoll::EventFlags::IN,
            )?;
            epoll::add(
                &epoll,
                raw(&link.server),
                epoll::EventData::new_u64(index * 2 + 1),
                epoll::EventFlags::IN,
            )?;
        }
        // epoll_pwait2 waits to the nanosecond and came with Linux 5.11: an older kernel fails
        // here, not on the thread.
        let mut event = [MaybeUninit::<epoll::Event>::uninit()];
        epoll::wait(&epoll, &mut event, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(epoll)
    }

    fn now(&self) -> Time {
        Time::from(self.origin.elapsed())
    }

    fn run(mut self, epoll: &OwnedFd) {
        self.stats.realtime = become_realtime(PRIORITY);
        let mut events =
            [const { MaybeUninit::<epoll::Event>::uninit() }; 2 * bonding_netem::scenario::LINKS_MAX + 1];
        let mut woke = self.now();
        loop {
            self.deliver();
            self.pause_until(woke + PAUSE);
            let timeout = self.timeout();
            let ready = match epoll::wait(epoll, &mut events, timeout.as_ref()) {
                Ok((ready, _)) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                // The descriptors are valid and open: there is no other error.
                Err(error) => panic!("the emulator cannot wait for packets: {error}"),
            };
            self.stats.wakeups += 1;
            woke = self.now();
            for event in ready {
                let token = event.data.u64();
                if token == WAKE {
                    if self.take_messages() {
                        return;
                    }
                } else {
                    self.receive(token);
                }
            }
        }
    }

    /// Hands over every packet that is due.
    fn deliver(&mut self) {
        let now = self.now();
        for link in &mut self.links {
            for direction in Direction::BOTH {
                let (_, pipe, to) = link.parts(direction);
                let Some(late) = pipe.poll_timeout().filter(|due| *due <= now).map(|due| now - due) else {
                    continue;
                };
                let mut delivered = false;
                while let Some(packet) = pipe.poll_deliver(now) {
                    delivered = true;
                    match packet.buffer.get(..packet.len).map(|bytes| to.send(bytes)) {
                        Some(Ok(_)) => self.stats.delivered_pkts += 1,
                        Some(Err(_)) | None => self.stats.refused_pkts += 1,
                    }
                    if self.pool.len() < POOL_MAX {
                        self.pool.push(packet.buffer);
                    }
                }
                if delivered {
                    self.stats.late_max = self.stats.late_max.max(late);
                    self.stats.late_wakeups += u64::from(late > LATE);
                }
            }
        }
    }

    /// Sleeps, even when packets come.
    fn pause_until(&self, until: Time) {
        let span = until - self.now();
        if let (false, Ok(span)) = (span.is_zero(), Timespec::try_from(span)) {
            // An interrupted sleep ends early, which is harmless.
            let _ = rustix::thread::nanosleep(&span);
        }
    }

    /// The time until the next packet is due.
    fn timeout(&self) -> Option<Timespec> {
        let pipes = self.links.iter().flat_map(|link| [&link.up, &link.down]);
        let next = pipes.filter_map(Pipe::poll_timeout).min()?;
        Timespec::try_from(next - self.now()).ok()
    }

    /// Takes a batch of packets from a device.
    fn receive(&mut self, token: u64) {
        let direction = if token.is_multiple_of(2) { Direction::Up } else { Direction::Down };
        let Some(link) = usize::try_from(token / 2).ok().and_then(|index| self.links.get_mut(index)) else {
            return;
        };
        let mut sized_pkts = 0;
        let (from, pipe, _) = link.parts(direction);
        for _ in 0..BATCH_PKTS {
            let mut buffer = self.pool.pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
            // An error means that the device is empty or was set down: the next packet comes with
            // the next event.
            let Ok(len) = from.recv(&mut buffer) else {
                self.pool.push(buffer);
                break;
            };
            sized_pkts += u64::from(self.counted_size == Some(len));
            let bytes = u32::try_from(len).unwrap_or(u32::MAX);
            let now = Time::from(self.origin.elapsed());
            if pipe.marks(now)
                && let Some(packet) = buffer.get_mut(..len)
            {
                ecn::mark(packet);
            }
            let flow = Flow::of_packet(buffer.get(..len).unwrap_or_default());
            pipe.enqueue_flow(Packet { buffer, len }, bytes, flow, now);
        }
        let [up, down] = &mut link.sized_pkts;
        *(if direction == Direction::Up { up } else { down }) += sized_pkts;
    }

    /// Handles the messages of other threads; true to stop.
    fn take_messages(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        let now = self.now();
        while let Ok(message) = self.receiver.try_recv() {
            match message {
                Message::Apply(link, direction, change) => {
                    if let Some(link) = self.links.get_mut(link) {
                        link.pipe(direction).apply(change, now);
                    }
                }
                Message::Counters(link, direction, reply) => {
                    let pipe = self.links.get_mut(link).map(|link| link.pipe(direction));
                    let counters = pipe.map(|pipe| {
                        pipe.advance(now);
                        pipe.counters()
                    });
                    let _ = reply.send(counters.unwrap_or_default());
                }
                Message::Stats(reply) => {
                    self.stats.cpu = thread_cpu();
                    let _ = reply.send(self.stats);
                }
                Message::Snapshot(reply) => {
                    let _ = reply.send(self.snapshot(now));
                }
                Message::CountSize(bytes) => self.counted_size = Some(bytes),
                Message::StartClock(start) => self.schedule_events(start),
                Message::Stop => return true,
            }
        }
        false
    }

    fn snapshot(&mut self, now: Time) -> Snapshot {
        let pipes = |link: &mut Link| {
            let [up_pkts, down_pkts] = link.sized_pkts;
            [(Direction::Up, up_pkts), (Direction::Down, down_pkts)].map(|(direction, sized_pkts)| {
                let pipe = link.pipe(direction);
                pipe.advance(now);
                PipeSnapshot { counters: pipe.counters(), queue_delay: pipe.queue_delay(), sized_pkts }
            })
        };
        Snapshot { at: now - Time::ZERO, links: self.links.iter_mut().map(pipes).collect() }
    }

    fn schedule_events(&mut self, start: Time) {
        for event in std::mem::take(&mut self.events.events) {
            let index = self.events.link_index(&event.link);
            if let Some(link) = index.and_then(|index| self.links.get_mut(index)) {
                link.pipe(event.direction).schedule(start + event.at, event.change);
            }
        }
    }
}

/// The CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Moves the calling thread to real-time priority; false when that is not permitted.
pub(crate) fn become_realtime(priority: u8) -> bool {
    let Ok(priority) = ThreadPriorityValue::try_from(priority) else {
        return false;
    };
    thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        ThreadPriority::Crossplatform(priority),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
    .is_ok()
}
