//! The loop itself: waits, takes a bounded batch of each input that is ready, lets the core work,
//! and sends the core's output.
//!
//! Fairness: a wake-up works in rounds. In each, every ready socket and the TUN device give at most
//! some 64 packets, the core's deadline is served, and every output is drained; so a heartbeat
//! waits for one round, not for a download. Inputs that are still ready after [`ROUNDS_MAX`] are
//! reported again by the next wait, which returns at once.
//!
//! An input that had a packet a moment ago is read until it is empty. Any other input is read once,
//! since the next wait reports the rest: no call in vain follows a lone packet.
//!
//! Wake-ups that follow each other closely and bring few packets are the largest cost of small
//! packets: the loop then pauses for 50 µs before it waits ([`super::moderation`]).
//!
//! The clock is read once per batch: links are measured by when a batch was received and when it
//! was sent, and the kernel may interrupt this process for milliseconds anywhere in between.
//! Released packets are written at the end of the wake-up, in order, so that they can be coalesced.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bonding_os::clocks::Reading;
use bonding_os::coalesce::Outbound;
use bonding_os::monitor::{Monitor, MonitorError};
use bonding_os::poll::{Interest, Poller, Ready};
use bonding_os::signals::{Signal, Signals};
use bonding_os::throttle::Throttle;
use bonding_os::tun::{Inbound, Tun, TunCounters};
use bonding_os::udp::{BATCH_BYTES_MAX, Received, UdpCounters};
use bonding_proto::{Datagram, Instant, LinkId, PacketBuf, Path, SocketEvent, SocketId, StateMachine};
use zeroize::Zeroizing;

use super::clock::Clock;
use super::command::{Command, Reply};
use super::copies::{Gap, Watch};
use super::gathering::Gathering;
use super::moderation::{Moderation, Recency};
use super::sockets::Sockets;
use super::{Running, Service, setup};
use crate::client::splitter::Redirecting;
use crate::events::Happening;
use crate::status::{Io, Snapshot};
use crate::trace::file::TraceFile;

/// The poller's tokens. Sockets have those from `sockets::FIRST_TOKEN` on.
const TUN_TOKEN: u64 = 0;
const SIGNALS_TOKEN: u64 = 1;
const MONITOR_TOKEN: u64 = 2;
const SERVICE_TOKEN: u64 = 3;
const SHELL_TOKEN: u64 = 4;
const STREAMS_TOKEN: u64 = 5;
const GENERATION_TOKEN: u64 = 6;
/// Rounds of one wake-up. Chosen: a heartbeat and a signal wait for four rounds at most.
pub(super) const ROUNDS_MAX: usize = 4;
/// An input's share of a round, in packets; one system call may overshoot it. As many as one send
/// takes: small packets come singly.
pub(super) const PACKETS_PER_ROUND: usize = 64;
/// And in system calls, since a call may give no packet of use. Chosen: a call for each packet.
const CALLS_PER_ROUND: usize = 64;
/// Streams' share of a wake-up, in rounds of moving what can be moved. What is left is moved in the
/// next one, at once. Chosen: as many as other inputs have.
const STREAM_ROUNDS_MAX: usize = 4;
/// Released packets are written when there are this many, or at the end of the wake-up. Chosen:
/// eight inputs' shares of a round.
const RELEASED_MAX: usize = 512;
/// UDP GSO's limit of segments: `UDP_MAX_SEGMENTS` of Linux before 6.9.
const SEGMENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Between two attempts to open missing sockets, beside the interface's own news. Chosen: a link
/// waits no more than a second.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A time of sending that is older than this is read from the clock again. Chosen: far below the
/// jitter of a link.
const STALE: Duration = Duration::from_micros(200);
/// No datagram waits longer for this process. A longer wait means that the system's clock was set.
const WAITED_MAX: Duration = Duration::from_secs(1);
/// The shortest wait when the core breaks its contract and asks to be called again at once. Chosen:
/// a busy loop takes no whole processor.
pub(super) const SPIN_WAIT: Duration = Duration::from_millis(1);

/// The packet device: TUN, or a test's stand-in.
pub(crate) trait Device: AsFd {
    /// As [`Tun::recv_batch`].
    fn recv_batch(&mut self, packets: &mut Vec<Inbound>) -> io::Result<bool>;
    /// As [`Tun::send_batch`].
    fn send_batch(&mut self, packets: &[PacketBuf]) -> io::Result<()>;
    /// As [`Tun::counters`].
    fn counters(&self) -> TunCounters;
    /// The connections that do not leave the device as packets; `None`: all do.
    fn redirecting(&mut self) -> Option<&mut Option<Redirecting>> {
        None
    }
    /// Writes the packets that go back into the device.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Device for Tun {
    fn recv_batch(&mut self, packets: &mut Vec<Inbound>) -> io::Result<bool> {
        Self::recv_batch(self, packets)
    }

    fn send_batch(&mut self, packets: &[PacketBuf]) -> io::Result<()> {
        Self::send_batch(self, packets, |packet| Outbound { bytes: packet, is_partial: packet.is_partial() })
    }

    fn counters(&self) -> TunCounters {
        Self::counters(self)
    }
}

/// The work that client and server do differently.
pub(crate) trait Shell<M> {
    /// Takes the machine's events and does what they ask for. `true`: the machine was given an
    /// input, and may have packets to send.
    fn handle_events(&mut self, machine: &mut M, now: Instant) -> bool;
    /// Carries out a command that a service was given.
    ///
    /// # Errors
    /// The reason why it is not done, for a person.
    fn handle_command(
        &mut self,
        machine: &mut M,
        sockets: &mut Sockets,
        command: Command,
        now: Instant,
    ) -> Result<Reply, String>;
    /// The next thing that happened which a person may ask about.
    fn poll_happening(&mut self) -> Option<Happening> {
        None
    }
    /// How often the service is given a snapshot.
    fn status_interval(&self) -> Duration;
    /// Interfaces or routes may have changed.
    fn note_interfaces(&mut self, _now: Instant) {}
    /// When there is work for [`Self::settle_links`]; the past: at once.
    fn links_due(&self) -> Option<Instant> {
        None
    }
    /// Brings the links in line with what there is. `true`: the machine was given an input.
    fn settle_links(&mut self, _: &mut M, _: &mut Sockets, _: (&Monitor, &Poller), _now: Instant) -> bool {
        false
    }
    /// Tells the names of links and, without a link, of sessions' peers.
    fn tell_names(&self, _name: &mut dyn FnMut(u16, Option<LinkId>, &str)) {}
    /// Everything known now.
    fn snapshot(&self, machine: &M, sockets: &Sockets, now: Instant) -> Snapshot;
    /// Readable when there is work for [`Self::handle_ready`].
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Interfaces or their addresses changed.
    fn handle_interfaces(&mut self, _monitor: &Monitor, _now: Instant) {}
    /// Does the work of its descriptor, without waiting.
    fn handle_ready(&mut self, _sockets: &mut Sockets) {}
    /// How long until there is work for [`Self::handle_due`].
    fn due_in(&self) -> Option<Duration> {
        None
    }
    /// Does the work that is due now.
    fn handle_due(&mut self) {}
    /// Readable when sockets of streams are ready.
    fn streams_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Serves streams: the sockets if they are `ready`, and what happened to streams. `true`: the
    /// machine was given an input.
    fn attend(&mut self, _machine: &mut M, _device: &mut dyn Device, _ready: bool, _now: Instant) -> bool {
        false
    }
    /// When there is work for [`Self::tend`]; the past: at once.
    fn tend_at(&self) -> Option<Instant> {
        None
    }
    /// Does the work on sockets that is due now. `true`: the machine was given an input.
    fn tend(&mut self, _machine: &mut M, _sockets: &mut Sockets, _poller: &Poller, _now: Instant) -> bool {
        false
    }
}

/// The error that ended the loop.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// Waiting failed.
    #[error("cannot wait for events: {0}")]
    Poll(io::Error),
    /// The TUN device was removed.
    #[error("the TUN device is gone: {0}")]
    Device(io::Error),
    /// The interfaces cannot be watched any more.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
}

/// Everything the loop works with.
#[derive(Debug)]
pub(crate) struct Engine<M, D> {
    pub(super) machine: M,
    pub(super) device: D,
    sockets: Sockets,
    monitor: Option<Monitor>,
    signals: Signals,
    poller: Poller,
    clock: Clock,
    watch: Watch,
    /// When the service was given a snapshot last.
    status_from: Instant,
    retry_at: Instant,
    /// Up to this moment the machine has done its due work. Work that becomes due while the machine
    /// is drained, which may take a while, is not late.
    seen: Instant,
    ready: Vec<Ready>,
    batch: Vec<u8>,
    packets: Vec<Inbound>,
    datagrams: Vec<Received>,
    released: Vec<PacketBuf>,
    readable: Vec<SocketId>,
    spin_log: Throttle,
    tun_recency: Recency,
    /// Packets and datagrams of this wake-up.
    taken: usize,
    /// Sockets of streams are ready; bytes were left to be moved at once.
    streams_ready: bool,
    streams_left: bool,
    moderation: Moderation,
    gathering: Gathering,
    trace: Option<TraceFile>,
}

/// The parts of an [`Engine`].
#[derive(Debug)]
pub(crate) struct Parts<M, D> {
    pub(crate) machine: M,
    pub(crate) device: D,
    /// Watched by `poller` already, where open.
    pub(crate) sockets: Sockets,
    /// A server's sockets do not come and go.
    pub(crate) monitor: Option<Monitor>,
    pub(crate) signals: Signals,
    pub(crate) poller: Poller,
    /// The one that the machine was made with.
    pub(crate) clock: Clock,
    /// The file that records the machine's decisions.
    pub(crate) trace: Option<TraceFile>,
}

/// The engine as a service sees it.
struct Window<'a, M> {
    machine: &'a mut M,
    sockets: &'a mut Sockets,
    device: TunCounters,
    shell: &'a mut dyn Shell<M>,
    now: Instant,
}

impl<M> Running for Window<'_, M> {
    fn snapshot(&self) -> Snapshot {
        let snapshot = self.shell.snapshot(self.machine, self.sockets, self.now);
        Snapshot { io: io_figures(&self.device, &self.sockets.counters()), ..snapshot }
    }

    fn command(&mut self, command: Command) -> Result<Reply, String> {
        self.shell.handle_command(self.machine, self.sockets, command, self.now)
    }
}

impl<M: StateMachine, D: Device> Engine<M, D> {
    pub(crate) fn new(parts: Parts<M, D>) -> Result<Self, LoopError> {
        let Parts { mut machine, device, sockets, monitor, signals, poller, clock, trace } = parts;
        if let Some(trace) = &trace {
            machine.set_trace(trace.level());
        }
        poller.add(&device, TUN_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        poller.add(&signals, SIGNALS_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        if let Some(monitor) = &monitor {
            poller.add(monitor, MONITOR_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        }
        let watch = Watch::open();
        if let Some(descriptor) = watch.descriptor() {
            poller.add(descriptor, GENERATION_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        }
        Ok(Self {
            machine,
            device,
            sockets,
            monitor,
            signals,
            poller,
            clock,
            watch,
            status_from: clock.now(),
            retry_at: clock.now(),
            seen: Instant::ZERO,
            ready: Vec::new(),
            batch: Vec::with_capacity(BATCH_BYTES_MAX),
            packets: Vec::new(),
            datagrams: Vec::new(),
            released: Vec::new(),
            readable: Vec::new(),
            spin_log: Throttle::new(Duration::from_secs(10)),
            tun_recency: Recency::default(),
            taken: 0,
            streams_ready: false,
            streams_left: false,
            moderation: Moderation::default(),
            gathering: Gathering::default(),
            trace,
        })
    }

    /// Runs until SIGINT or SIGTERM.
    pub(crate) fn run(
        &mut self,
        shell: &mut dyn Shell<M>,
        service: &mut dyn Service,
    ) -> Result<(), LoopError> {
        if let Some(descriptor) = service.descriptor() {
            self.poller.add(descriptor, SERVICE_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        }
        if let Some(descriptor) = shell.descriptor() {
            self.poller.add(descriptor, SHELL_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        }
        if let Some(descriptor) = shell.streams_descriptor() {
            self.poller.add(descriptor, STREAMS_TOKEN, Interest::Readable).map_err(LoopError::Poll)?;
        }
        if let Err(error) = bonding_os::poll::set_precise_timers() {
            tracing::debug!(%error, "timers stay 50 µs coarse");
        }
        self.drain(self.clock.now())?;
        service.handle_start();
        while !self.signals.terminating() {
            self.turn(shell, service)?;
        }
        // Tell the peers, so that they need not find out by silence.
        let now = self.clock.now();
        self.machine.close(now);
        let drained = self.drain(now);
        if let Some(trace) = &mut self.trace {
            trace.finish(&mut self.machine, &|name| shell.tell_names(name), now);
        }
        drained
    }

    /// One wait and one wake-up.
    pub(super) fn turn(
        &mut self,
        shell: &mut dyn Shell<M>,
        service: &mut dyn Service,
    ) -> Result<(), LoopError> {
        let retry = self.sockets.any_missing().then_some(self.retry_at);
        let soonest = [retry, shell.tend_at(), shell.links_due()].into_iter().flatten().min();
        let status_at = self.status_from + shell.status_interval();
        let mut wait = self.wait_for([Some(status_at), soonest, self.gathering.look_at()]);
        let unmoved = self.streams_left.then_some(Duration::ZERO);
        let due = [shell.due_in(), service.due_in(), unmoved].into_iter().flatten().min();
        wait = wait.min(due.unwrap_or(Duration::MAX));
        if let Some(pause) = self.moderation.pause().filter(|pause| *pause < wait) {
            std::thread::sleep(pause);
            wait -= pause;
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(&mut ready, Some(wait)).map_err(LoopError::Poll)?;
        let tun_ready = self.dispatch(&ready, shell, service)?;
        self.ready = ready;
        shell.handle_due();
        service.handle_due();
        let woke_at = self.clock.now();
        self.watch_clocks(Reading::now(), woke_at);
        self.taken = 0;
        self.look(woke_at);
        self.work(tun_ready)?;
        self.attend(shell)?;
        self.moderation.on_wake_up(self.taken, woke_at);
        let now = self.clock.now();
        let told = self.tell_no_route(now);
        let changed = shell.handle_events(&mut self.machine, now);
        let tended = shell.tend_at().is_some_and(|at| at <= now)
            && shell.tend(&mut self.machine, &mut self.sockets, &self.poller, now);
        let settled = self.settle_links(shell, now);
        if told || changed || tended || settled {
            self.drain(now)?;
            self.write_released()?;
        }
        if let Some(trace) = &mut self.trace {
            trace.take(&mut self.machine, &|name| shell.tell_names(name), now);
        }
        self.tell(shell, service, now);
        if now >= self.status_from + shell.status_interval() {
            self.status_from = now;
            service.handle_interval(&self.window(shell, now).snapshot());
        }
        if retry.is_some_and(|at| now >= at) {
            self.retry_at = now + RETRY_INTERVAL;
            self.refresh_sockets();
        }
        Ok(())
    }

    /// Tells the service what happened, and lets it send readers what is due.
    fn tell(&mut self, shell: &mut dyn Shell<M>, service: &mut dyn Service, now: Instant) {
        while let Some(happening) = shell.poll_happening() {
            service.handle_happening(happening);
        }
        if service.is_push_due() {
            service.push(&mut self.window(shell, now));
        }
    }

    #[cfg(test)]
    pub(super) fn seen(&self) -> Instant {
        self.seen
    }

    /// How long to wait for the earliest of `deadlines` and the machine's.
    pub(super) fn wait_for(&mut self, deadlines: [Option<Instant>; 3]) -> Duration {
        let now = self.clock.now();
        let until = |at: Instant| at.saturating_since(now);
        let own = deadlines.into_iter().flatten().map(until).min().unwrap_or(Duration::MAX);
        let Some((at, timer)) = self.machine.poll_timeout() else { return own };
        let mut wait = until(at);
        if at <= self.seen {
            wait = wait.max(SPIN_WAIT);
            if let Some(more) = self.spin_log.pass() {
                tracing::error!(reason = %timer, more, "the core asks to be called again at once: a busy loop");
            }
        }
        own.min(wait)
    }

    /// This engine as a service sees it.
    fn window<'a>(&'a mut self, shell: &'a mut dyn Shell<M>, now: Instant) -> Window<'a, M> {
        let device = self.device.counters();
        Window { machine: &mut self.machine, sockets: &mut self.sockets, device, shell, now }
    }

    /// Serves the rare inputs and notes the ready sockets; gives whether TUN is ready.
    fn dispatch(
        &mut self,
        ready: &[Ready],
        shell: &mut dyn Shell<M>,
        service: &mut dyn Service,
    ) -> Result<bool, LoopError> {
        let mut tun_ready = false;
        self.readable.clear();
        for ready in ready {
            match ready.token {
                TUN_TOKEN => tun_ready = true,
                SIGNALS_TOKEN => {
                    if self.signals.poll_signal() == Some(Signal::Reload) {
                        let now = self.clock.now();
                        service.handle_reload(&mut self.window(shell, now));
                    }
                }
                MONITOR_TOKEN => {
                    if let Some(monitor) = &mut self.monitor {
                        monitor.handle_ready()?;
                        shell.handle_interfaces(monitor, self.clock.now());
                    }
                    self.refresh_sockets();
                    shell.note_interfaces(self.clock.now());
                }
                SHELL_TOKEN => shell.handle_ready(&mut self.sockets),
                STREAMS_TOKEN => self.streams_ready = true,
                GENERATION_TOKEN => self.watch.handle_ready(),
                SERVICE_TOKEN => {
                    let now = self.clock.now();
                    service.handle_ready(&mut self.window(shell, now));
                }
                token => {
                    let Some(id) = self.sockets.id(token) else { continue };
                    if ready.writable {
                        self.sockets.flush(&self.poller, id);
                    }
                    if ready.readable {
                        self.readable.push(id);
                    }
                }
            }
        }
        Ok(tun_ready)
    }

    /// Moves bytes between streams and their sockets. What leaves makes room for more.
    fn attend(&mut self, shell: &mut dyn Shell<M>) -> Result<(), LoopError> {
        self.streams_left = false;
        for round in 0..STREAM_ROUNDS_MAX {
            let now = self.clock.now();
            let ready = std::mem::take(&mut self.streams_ready);
            if !shell.attend(&mut self.machine, &mut self.device, ready, now) {
                break;
            }
            self.device.flush().map_err(LoopError::Device)?;
            self.drain(now)?;
            self.write_released()?;
            self.streams_left = round + 1 == STREAM_ROUNDS_MAX;
        }
        Ok(())
    }

    /// Adds the sockets that were left to gather, when it is time.
    fn look(&mut self, now: Instant) {
        let Self { sockets, gathering, poller, machine, .. } = self;
        sockets.gather(gathering, poller, |socket| machine.round_trip(socket), now);
        if self.gathering.looks(now) {
            self.readable.extend(self.sockets.gathered());
        }
    }

    /// Links come and go, where that is due. Whether the machine was given an input.
    fn settle_links(&mut self, shell: &mut dyn Shell<M>, now: Instant) -> bool {
        let Self { machine, sockets, monitor, poller, .. } = self;
        let Some(monitor) = monitor.as_ref().filter(|_| shell.links_due().is_some_and(|at| at <= now)) else {
            return false;
        };
        shell.settle_links(machine, sockets, (monitor, poller), now)
    }

    fn refresh_sockets(&mut self) {
        let Some(monitor) = &self.monitor else { return };
        let now = self.clock.now();
        for (socket, event) in self.sockets.refresh(monitor, &self.poller) {
            self.machine.handle_socket_event(socket, event, now);
        }
    }

    /// Tells the machine of sockets that had no route. Whether there were any.
    fn tell_no_route(&mut self, now: Instant) -> bool {
        let mut told = false;
        while let Some(socket) = self.sockets.poll_no_route() {
            self.machine.handle_socket_event(socket, SocketEvent::NoRoute, now);
            told = true;
        }
        told
    }

    /// Before anything is sealed: keys that may be a copy's go, and a log line says why.
    pub(super) fn watch_clocks(&mut self, reading: Reading, now: Instant) {
        let Some(gap) = self.watch.check(reading) else { return };
        match gap {
            Gap::Slept(time) => tracing::info!(?time, "the machine slept: new keys"),
            Gap::Jumped(time) => tracing::info!(?time, "the system's clock jumped: new keys"),
            Gap::SetBack(time) => tracing::info!(?time, "the system's clock was set back: new keys"),
            Gap::Copied => tracing::info!("this machine is a copy of an earlier state: new keys"),
        }
        mix_entropy(&mut self.machine);
        self.machine.forget_keys(gap.unseen(), now);
    }

    /// Rounds of input, time and output, until no input is ready or the last round is over.
    fn work(&mut self, mut tun_ready: bool) -> Result<(), LoopError> {
        for _ in 0..ROUNDS_MAX {
            self.take_datagrams();
            if tun_ready {
                tun_ready = self.take_packets()?;
            }
            let now = self.clock.now();
            if self.machine.poll_timeout().is_some_and(|(at, _)| at <= now) {
                if self.machine.draws_secrets(None, now) {
                    mix_entropy(&mut self.machine);
                }
                self.machine.handle_timeout(now);
            }
            self.seen = now;
            self.drain(now)?;
            if !tun_ready && self.readable.is_empty() {
                break;
            }
        }
        self.write_released()
    }

    /// A round's share from each readable socket; those that have no more are taken off the list.
    fn take_datagrams(&mut self) {
        let Self { readable, sockets, datagrams, machine, taken, clock, .. } = self;
        readable.retain(|id| {
            let busy = sockets.note_ready(*id, clock.now());
            let mut more = true;
            for _ in 0..CALLS_PER_ROUND {
                more = sockets.recv(*id, datagrams) && busy;
                if !more || datagrams.len() >= PACKETS_PER_ROUND {
                    break;
                }
            }
            *taken += datagrams.len();
            // Read after the receive: no datagram came later.
            let (system, now) = clock.system_and_now();
            let mut is_mixed = false;
            for Received { remote, local, is_marked, arrived, data, .. } in datagrams.drain(..) {
                let path = Path { socket: *id, remote, local };
                let waited = arrived.and_then(|arrived| system.checked_sub(arrived));
                let waited = waited.filter(|waited| *waited <= WAITED_MAX).unwrap_or_default();
                let datagram = Datagram { path, data, waited, is_marked };
                // Once for those that came together: a machine is not copied that often.
                if !is_mixed && machine.draws_secrets(Some(&datagram), now) {
                    mix_entropy(machine);
                    is_mixed = true;
                }
                // Counted by the machine.
                let _ = machine.handle_datagram(datagram, now);
            }
            more
        });
    }

    /// A round's share from TUN; gives whether there may be more.
    fn take_packets(&mut self) -> Result<bool, LoopError> {
        let now = self.clock.now();
        let busy = self.tun_recency.note(now);
        let mut more = true;
        for _ in 0..CALLS_PER_ROUND {
            more = self.device.recv_batch(&mut self.packets).map_err(LoopError::Device)? && busy;
            if !more || self.packets.len() >= PACKETS_PER_ROUND {
                break;
            }
        }
        self.taken += self.packets.len();
        let mut packets = self.packets.drain(..).peekable();
        while let Some(first) = packets.next() {
            let rest = std::iter::from_fn(|| packets.next_if(|packet| packet.follows));
            let mut run = std::iter::once(first).chain(rest).map(|Inbound { bytes, is_partial, .. }| {
                let bytes = bytes.freeze();
                if is_partial { PacketBuf::partial(bytes) } else { PacketBuf::from(bytes) }
            });
            self.machine.handle_run(&mut run, now);
        }
        Ok(more)
    }

    /// Sends all that the machine has to send, and collects its packets for TUN.
    fn drain(&mut self, from: Instant) -> Result<(), LoopError> {
        let mut now = from;
        loop {
            self.batch.clear();
            // An interruption must not date this batch before it is sent: the path would seem
            // longer.
            let later = self.clock.now();
            if later.saturating_since(now) >= STALE {
                now = later;
            }
            while let Some((socket, event)) = self.sockets.poll_event() {
                self.machine.handle_socket_event(socket, event, now);
            }
            let Some(transmit) = self.machine.poll_transmit(&mut self.batch, SEGMENTS_MAX, now) else {
                break;
            };
            let bytes = self.batch.get(..transmit.size).unwrap_or(&self.batch);
            self.sockets.send(&self.poller, &transmit, bytes);
        }
        while let Some(packet) = self.machine.poll_packet() {
            self.released.push(packet);
            if self.released.len() >= RELEASED_MAX {
                self.write_released()?;
            }
        }
        Ok(())
    }

    fn write_released(&mut self) -> Result<(), LoopError> {
        if self.released.is_empty() {
            return Ok(());
        }
        let result = self.device.send_batch(&self.released).map_err(LoopError::Device);
        self.released.clear();
        result
    }
}

/// Gives the machine random numbers of the system, which the kernel renews where it learns that the
/// machine is a copy.
fn mix_entropy(machine: &mut impl StateMachine) {
    match setup::entropy() {
        Ok(entropy) => machine.mix_entropy(&Zeroizing::new(entropy)),
        Err(error) => tracing::warn!(%error, "no fresh random numbers"),
    }
}

fn io_figures(device: &TunCounters, sockets: &UdpCounters) -> Io {
    Io {
        tun_packets_in: device.packets_in,
        tun_reads: device.reads,
        tun_packets_out: device.packets_out,
        tun_writes: device.writes,
        udp_received: sockets.received,
        udp_receive_calls: sockets.receive_calls,
        udp_sent: sockets.sent,
        udp_send_calls: sockets.send_calls,
    }
}
