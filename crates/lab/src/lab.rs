//! The lab: hosts, links, and their events.

use std::process::{Child, Command};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bonding_netem::{Change, Counters, Direction, LinkSpec, PipeConfig, Scenario, Time};

use crate::driver::{Driver, DriverStats, Snapshot};
use crate::error::LabError;
use crate::host::{Host, HostRef};
use crate::process::{Process, ask_to_end, terminate};
use crate::sandbox;
use crate::topology::{self, LinkEnds, Namespaces};

/// How a lab starts.
#[derive(Debug, Clone, Copy)]
pub struct LabOptions {
    /// Chooses which packets are lost.
    pub seed: u64,
    /// Whether the scenario's events count from the start; else from [`Lab::start_clock`].
    pub start_clock: bool,
}

impl Default for LabOptions {
    /// Seed 1; events wait for [`Lab::start_clock`].
    fn default() -> Self {
        Self { seed: 1, start_clock: false }
    }
}

/// Three hosts and the links between them, running.
///
/// Dropping it ends the processes it spawned (SIGTERM, then SIGKILL), stops the emulator and
/// removes the namespaces.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order, after the processes: first the emulator with its devices, then the
    // namespaces.
    driver: Driver,
    scenario: Scenario,
    clock: Mutex<Option<Time>>,
    interfaces: Mutex<Option<Interfaces>>,
    processes: Mutex<Vec<Weak<Mutex<Child>>>>,
    _namespaces: Namespaces,
}

impl Lab {
    /// Builds the hosts and starts the links. When it returns, packets flow. A line on standard
    /// error says when the emulator gets no real-time priority.
    ///
    /// # Errors
    /// Outside a [`sandbox`]; when another lab runs in it; when the kernel or a program refuses a
    /// step.
    pub fn start(scenario: &Scenario, options: LabOptions) -> Result<Self, LabError> {
        let namespaces = namespaces()?;
        let ends = topology::build(scenario)?;
        let lab = Self::assemble(scenario.clone(), ends, options.seed, namespaces)?;
        if !lab.driver_stats().realtime {
            eprintln!(
                "lab: no real-time priority (it needs root): other programs will show in the measurements"
            );
        }
        if options.start_clock {
            lab.start_clock();
        }
        Ok(lab)
    }

    /// Builds the hosts with `links` veth pairs between client and server instead of emulated
    /// links. They are as fast as the machine, to measure the cost of packets. [`Lab::apply`] and
    /// its callers change nothing there, and no packet is counted.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_wired(links: u8) -> Result<Self, LabError> {
        let scenario = Self::wires(links);
        let namespaces = namespaces()?;
        topology::build_wired(&scenario)?;
        Self::assemble(scenario, Vec::new(), LabOptions::default().seed, namespaces)
    }

    /// As [`Lab::start_wired`], with a switch in each wire, which [`Lab::limit`] makes slow.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_switched(links: u8) -> Result<Self, LabError> {
        let scenario = Self::wires(links);
        let namespaces = namespaces()?;
        topology::build_switched(&scenario)?;
        Self::assemble(scenario, Vec::new(), LabOptions::default().seed, namespaces)
    }

    /// From now on the switch in link `index` passes on `bps` bits per second each way, counted in
    /// Ethernet frames, and drops what would wait longer than `queue`. A link that does not exist
    /// changes nothing.
    ///
    /// # Errors
    /// In a lab without switches; when the kernel refuses.
    pub fn limit(&self, index: usize, bps: u64, queue: Duration) -> Result<(), LabError> {
        self.scenario.links.get(index).map_or(Ok(()), |link| topology::limit(&link.name, bps, queue))
    }

    /// The scenario of [`Lab::start_wired`] and [`Lab::start_switched`]: links without a rate or a
    /// delay of their own.
    pub fn wires(links: u8) -> Scenario {
        let link = |index| LinkSpec {
            name: format!("wire{index}"),
            up: PipeConfig::default(),
            down: PipeConfig::default(),
        };
        Scenario {
            name: format!("wired-{links}"),
            description: "Wires on one machine".to_owned(),
            duration: Duration::from_secs(20),
            links: (0..links).map(link).collect(),
            events: Vec::new(),
            carriers: Vec::new(),
        }
    }

    fn assemble(
        scenario: Scenario,
        ends: Vec<LinkEnds>,
        seed: u64,
        namespaces: Namespaces,
    ) -> Result<Self, LabError> {
        Ok(Self {
            driver: Driver::start(&scenario, ends, seed)?,
            scenario,
            clock: Mutex::new(None),
            interfaces: Mutex::new(None),
            processes: Mutex::new(Vec::new()),
            _namespaces: namespaces,
        })
    }

    /// A host, to run programs on.
    pub const fn host(&self, host: Host) -> HostRef {
        HostRef::new(host)
    }

    /// Starts `command`, made by [`HostRef::command`], as a process that ends with its guard or
    /// with the lab.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process, LabError> {
        let process = Process::spawn(command)?;
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|other| other.strong_count() > 0);
        processes.push(process.watch());
        Ok(process)
    }

    /// The scenario of the lab.
    pub const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The time since the start. Traces count from there.
    pub fn elapsed(&self) -> Duration {
        self.driver.now() - Time::ZERO
    }

    /// From now on the scenario's events happen. Only the first call counts.
    pub fn start_clock(&self) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if clock.is_none() {
            let now = self.driver.now();
            *clock = Some(now);
            self.driver.start_clock(now);
            let interfaces = Interfaces::start(&self.scenario);
            *self.interfaces.lock().unwrap_or_else(PoisonError::into_inner) = interfaces;
        }
    }

    /// The time since the scenario's events began to count; `None` before.
    pub fn clock(&self) -> Option<Duration> {
        let start = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        start.map(|start| self.driver.now() - start)
    }

    /// Changes one direction of link `index` now. A link that does not exist changes nothing.
    pub fn apply(&self, index: usize, direction: Direction, change: Change) {
        self.driver.apply(index, direction, change);
    }

    /// Link `index` loses every packet in both directions, those inside it included.
    pub fn cut(&self, index: usize) {
        for direction in Direction::BOTH {
            self.apply(index, direction, Change::Outage(true));
        }
    }

    /// The client's interface of link `index` is switched off or on again. A link that does not
    /// exist changes nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_client_interface(&self, index: usize, up: bool) -> Result<(), LabError> {
        let (Some(link), Ok(number)) = (self.scenario.links.get(index), u8::try_from(index)) else {
            return Ok(());
        };
        topology::set_client_link(number, &link.name, up)
    }

    /// Link `index` carries packets again.
    pub fn restore(&self, index: usize) {
        for direction in Direction::BOTH {
            self.apply(index, direction, Change::Outage(false));
        }
    }

    /// The counters of one direction of link `index`; zeros for a link that does not exist.
    pub fn counters(&self, index: usize, direction: Direction) -> Counters {
        self.driver.counters(index, direction)
    }

    /// Counters and queues of all links at one moment.
    pub fn snapshot(&self) -> Snapshot {
        self.driver.snapshot()
    }

    /// From now on IP packets of `bytes` bytes are counted apart, in [`PipeSnapshot::sized_pkts`]:
    /// which link carries a flow whose packets have a size of their own.
    ///
    /// [`PipeSnapshot::sized_pkts`]: crate::PipeSnapshot::sized_pkts
    pub fn count_size(&self, bytes: usize) {
        self.driver.count_size(bytes);
    }

    /// The emulator's timing and cost.
    pub fn driver_stats(&self) -> DriverStats {
        self.driver.stats()
    }

    /// The rate in bits per second that all links together offered between two times of
    /// [`Lab::elapsed`], the scenario's events considered, changes by [`Lab::apply`] not. `None`
    /// where a rate is unlimited.
    pub fn capacity_bps(&self, direction: Direction, from: Duration, to: Duration) -> Option<u64> {
        self.scenario_since_start().capacity_bps(direction, from, to)
    }

    /// As [`Lab::capacity_bps`], of link `index` alone. `None` for a link that does not exist.
    pub fn link_capacity_bps(
        &self,
        index: usize,
        direction: Direction,
        from: Duration,
        to: Duration,
    ) -> Option<u64> {
        let scenario = self.scenario_since_start();
        let bytes = scenario.capacity_bytes(scenario.links.get(index)?, direction, from, to)?;
        let nanos = to.saturating_sub(from).as_nanos().max(1);
        u64::try_from(u128::from(bytes) * 8_000_000_000 / nanos).ok()
    }

    /// The scenario with its events at times of [`Lab::elapsed`]; without events as long as the
    /// clock stands.
    fn scenario_since_start(&self) -> Scenario {
        let mut scenario = self.scenario.clone();
        match *self.clock.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(start) => {
                for event in &mut scenario.events {
                    event.at += start - Time::ZERO;
                }
            }
            None => scenario.events.clear(),
        }
        scenario
    }
}

fn namespaces() -> Result<Namespaces, LabError> {
    if !sandbox::is_inside() {
        return Err(LabError::NotInSandbox);
    }
    Namespaces::create()
}

impl Drop for Lab {
    fn drop(&mut self) {
        // First, while the namespaces exist.
        *self.interfaces.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        let processes = self.processes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let children: Vec<_> = processes.iter().filter_map(Weak::upgrade).collect();
        // First all processes are asked to end, then each is waited for. A failure cannot be
        // reported from here; the sandbox's end kills the processes that are left.
        for child in &children {
            let _ = ask_to_end(child);
        }
        for child in &children {
            let _ = terminate(child);
        }
    }
}

/// Switches the client's interfaces when the scenario says so. Stops when dropped.
#[derive(Debug)]
struct Interfaces {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Interfaces {
    /// Starts now; `None` if the scenario has no such events.
    fn start(scenario: &Scenario) -> Option<Self> {
        let start = Instant::now();
        let steps: Vec<_> = scenario
            .carriers
            .iter()
            .filter_map(|event| {
                let index = u8::try_from(scenario.link_index(&event.link)?).ok()?;
                Some((start + event.at, index, event.link.clone(), event.present))
            })
            .collect();
        if steps.is_empty() {
            return None;
        }
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            for (at, index, name, present) in steps {
                let wait = at.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if let Err(error) = topology::set_client_link(index, &name, present) {
                    eprintln!("lab: interface {name}: {error}");
                }
            }
        });
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
