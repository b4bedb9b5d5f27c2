//! The table of redirected flows: by the addresses of the application's packets, and by the port
//! that stands for the flow.
//!
//! Contract: at most [`PORTS`] flows of a family, [`HELD_MAX`] held ones and [`ASIDE_MAX`] set
//! aside. Each flow has at most one deadline. A port that becomes free is used again as late as
//! possible, since the listener's kernel may still remember its last connection. A key means one
//! flow for ever: that of a flow which is gone finds none. The table does not know packets.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use super::segment::{Difference, Tuple};
use crate::tun::Inbound;

/// The lowest port that stands for a flow. Chosen: those below 1024 are privileged, and firewalls
/// treat them as such; 1024 is the probe's.
const PORT_MIN: u16 = super::probe::PORT + 1;
/// Ports that stand for flows.
const PORTS: usize = (u16::MAX - PORT_MIN) as usize + 1;
/// The most flows whose SYN is held. Chosen: a burst of a large office; 1 MiB, and 6 MiB if each
/// SYN is as large as a packet may be.
pub(crate) const HELD_MAX: usize = 4_096;
/// The most flows set aside. Chosen: like those held.
pub(crate) const ASIDE_MAX: usize = 4_096;

/// A flow that the hairpin knows. It orders by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Of all flows, the older ones have lower numbers.
    number: u64,
    port: u16,
    is_ipv6: bool,
}

impl FlowKey {
    pub(crate) fn port(self) -> u16 {
        self.port
    }

    pub(crate) fn is_ipv6(self) -> bool {
        self.is_ipv6
    }
}

/// A SYN that waits for the owner's decision.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) syn: Inbound,
    /// When the first copy came.
    pub(crate) since: Duration,
}

/// What happens to a flow's packets.
#[derive(Debug)]
pub(crate) enum State {
    /// The SYN waits; nothing passes.
    Held(Box<Held>),
    /// Rewritten; the listener has the SYN, the owner not the socket.
    Admitted,
    /// Rewritten; the owner has the socket.
    Open,
    /// Rewritten; the owner is through with it. The time of the last packet.
    Closing(Duration),
    /// Not redirected.
    Passed,
    /// Dropped.
    Silent,
}

/// A flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) number: u64,
    /// As the application's packets have it.
    pub(crate) tuple: Tuple,
    /// Between that and the tuple at the listener.
    pub(crate) difference: Difference,
    /// The sequence number of the SYN.
    pub(crate) sequence: u32,
    pub(crate) state: State,
    pub(crate) ended: Ended,
    /// Whether another flow took over the tuple: no packet of this one reaches the application.
    pub(crate) is_retired: bool,
    deadline: Option<Duration>,
}

/// A direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the application to the listener.
    Out,
    /// From the listener to the application.
    Back,
}

/// The directions that have ended, by a FIN each, or a RST.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    out: bool,
    back: bool,
}

impl Ended {
    pub(crate) const BOTH: Self = Self { out: true, back: true };

    pub(crate) fn add(&mut self, way: Way) {
        match way {
            Way::Out => self.out = true,
            Way::Back => self.back = true,
        }
    }
}

impl Flow {
    pub(crate) fn is_over(&self) -> bool {
        self.ended == Ended::BOTH
    }
}

/// The flows of a family.
#[derive(Debug, Default)]
struct Family {
    /// By port, from [`PORT_MIN`] on. It grows to the highest port in use.
    by_port: Vec<Option<Flow>>,
    /// Ports that were used, the one free for longest first.
    free: VecDeque<u16>,
    by_tuple: HashMap<Tuple, u16>,
}

impl Family {
    fn slot(&mut self, port: u16) -> Option<&mut Option<Flow>> {
        self.by_port.get_mut(usize::from(port.checked_sub(PORT_MIN)?))
    }

    /// A port that stands for no flow; a fresh one if there is one.
    fn free_port(&mut self) -> Option<u16> {
        let fresh = self.by_port.len();
        if fresh == PORTS {
            return self.free.pop_front();
        }
        self.by_port.push(None);
        u16::try_from(usize::from(PORT_MIN) + fresh).ok()
    }
}

/// All flows.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    ipv4: Family,
    ipv6: Family,
    /// Flows so far.
    count: u64,
    deadlines: BTreeSet<(Duration, FlowKey)>,
    held: BTreeSet<FlowKey>,
    /// Passed and silent ones.
    aside: BTreeSet<FlowKey>,
}

impl Flows {
    fn family(&mut self, is_ipv6: bool) -> &mut Family {
        if is_ipv6 { &mut self.ipv6 } else { &mut self.ipv4 }
    }

    /// Flows in the table, of whatever state.
    pub(crate) fn len(&self) -> usize {
        [&self.ipv4, &self.ipv6].iter().map(|family| family.by_port.len() - family.free.len()).sum()
    }

    /// The flow whose application sends packets of this tuple.
    pub(crate) fn by_tuple(&mut self, tuple: &Tuple, is_ipv6: bool) -> Option<FlowKey> {
        let port = *self.family(is_ipv6).by_tuple.get(tuple)?;
        self.by_port(port, is_ipv6)
    }

    /// The flow that the port stands for.
    pub(crate) fn by_port(&mut self, port: u16, is_ipv6: bool) -> Option<FlowKey> {
        let number = self.family(is_ipv6).slot(port)?.as_ref()?.number;
        Some(FlowKey { number, port, is_ipv6 })
    }

    pub(crate) fn get(&mut self, key: FlowKey) -> Option<&mut Flow> {
        let flow = self.family(key.is_ipv6).slot(key.port)?.as_mut();
        flow.filter(|flow| flow.number == key.number)
    }

    /// Adds a flow whose SYN is held. `None`: there is no free port. `difference` gives that of the
    /// flow from its port.
    pub(crate) fn hold(
        &mut self,
        tuple: Tuple,
        is_ipv6: bool,
        sequence: u32,
        held: Held,
        difference: impl FnOnce(u16) -> Difference,
    ) -> Option<FlowKey> {
        let port = self.family(is_ipv6).free_port().or_else(|| {
            // One that only remembers a refusal makes room.
            let oldest = *self.aside.iter().find(|key| key.is_ipv6 == is_ipv6)?;
            self.remove(oldest);
            self.family(is_ipv6).free_port()
        })?;
        self.count += 1;
        let number = self.count;
        let flow = Flow {
            number,
            tuple,
            difference: difference(port),
            sequence,
            state: State::Held(Box::new(held)),
            ended: Ended::default(),
            is_retired: false,
            deadline: None,
        };
        let family = self.family(is_ipv6);
        family.by_tuple.insert(tuple, port);
        *family.slot(port)? = Some(flow);
        let key = FlowKey { number, port, is_ipv6 };
        self.held.insert(key);
        Some(key)
    }

    /// Gives a flow another state and deadline, and returns its state before.
    pub(crate) fn enter(&mut self, key: FlowKey, state: State, deadline: Option<Duration>) -> Option<State> {
        let is_aside = matches!(state, State::Passed | State::Silent);
        let is_held = matches!(state, State::Held(_));
        let before = mem::replace(&mut self.get(key)?.state, state);
        self.set_deadline(key, deadline);
        if !is_held {
            self.held.remove(&key);
        }
        if is_aside {
            self.aside.insert(key);
            if let Some(oldest) = self.aside.first().copied().filter(|_| self.aside.len() > ASIDE_MAX) {
                self.remove(oldest);
            }
        }
        Some(before)
    }

    pub(crate) fn set_deadline(&mut self, key: FlowKey, deadline: Option<Duration>) {
        let Some(flow) = self.get(key) else { return };
        if let Some(before) = mem::replace(&mut flow.deadline, deadline) {
            self.deadlines.remove(&(before, key));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, key)));
    }

    /// Removes the tuple from the index, so that it may begin a new flow.
    pub(crate) fn retire(&mut self, key: FlowKey) {
        let Some(flow) = self.get(key).filter(|flow| !flow.is_retired) else { return };
        flow.is_retired = true;
        let tuple = flow.tuple;
        self.family(key.is_ipv6).by_tuple.remove(&tuple);
    }

    /// Removes the flow; its port may be used again.
    pub(crate) fn remove(&mut self, key: FlowKey) {
        self.retire(key);
        self.set_deadline(key, None);
        if self.get(key).is_some() {
            let family = self.family(key.is_ipv6);
            family.slot(key.port).map(Option::take);
            family.free.push_back(key.port);
        }
        self.held.remove(&key);
        self.aside.remove(&key);
    }

    /// The oldest held flow, if there are more than may be.
    pub(crate) fn surplus(&self) -> Option<FlowKey> {
        self.held.first().copied().filter(|_| self.held.len() > HELD_MAX)
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A flow whose deadline has passed; it has none then.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<FlowKey> {
        let (_, key) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.set_deadline(key, None);
        Some(key)
    }
}
