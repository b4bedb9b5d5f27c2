//! The handshake that enrols a client: to every address and port of the invitation, over every line
//! of this machine, at once.
//!
//! Each line has sockets that are bound to its interface, and one more pair follows the routing
//! table. The first answer counts, over whichever line and from whichever address it comes. All
//! copies of a message are the same: the server answers each of them to where it came from.
//!
//! Blocking. The client repeats its message with growing pauses for some 15 s, since a link that
//! sleeps takes seconds to wake. Names are looked up meanwhile, and asked as soon as they have an
//! address. After that the error says what the silence may mean.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bonding_os::poll::{Interest, Poller};
use bonding_os::udp::{Batch, ReceiveBuffers, UdpConfig, UdpSocket};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::{
    Cookie, Hello, Initiator, InvitationKey, Mac1, Outcome, Refusal, Stamp, Welcome,
};

use super::lines::Line;
use crate::config::Host;
use crate::engine::cipher;
use crate::invitation::Invitation;
use crate::names::{Answer, Lookups};

/// Pauses between attempts. Chosen: some 15 s in all, for links that have to wake.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Addresses with their ports that are asked at most, each over every line. Chosen: invitations
/// name few hosts, with few addresses each.
const REMOTES_MAX: usize = 64;
/// The socket and path of every message: one attempt is one message, over whichever path it goes.
const LINK: u8 = 0;
/// The poller's token of the look-ups. Sockets have theirs from 0 on.
const NAMES_TOKEN: u64 = u64::MAX;

/// The reason why the server did not enrol this client.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A name cannot be looked up, and there is no other host.
    #[error("cannot look up the server `{name}`: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Another key was faster.
    #[error("the invitation was used already; ask for a new one: `bondctl invite NAME` on the server")]
    Used,
    /// Too late.
    #[error("the invitation has expired; ask for a new one: `bondctl invite NAME` on the server")]
    Expired,
    /// This key is known, and no longer valid.
    #[error(
        "the server knows this client's key, and it has expired; `bondctl expire NAME never` on the server makes it \
         valid again"
    )]
    KeyExpired,
    /// The server refused the client.
    #[error("the server refused this client; the server's log says why")]
    Refused,
    /// No server answered.
    #[error(
        "no answer from {hosts} on UDP {ports} over {over}: is the server running, and do firewalls on the way let these \
         ports through?{more}"
    )]
    Silence {
        /// The hosts that were asked.
        hosts: String,
        /// Their ports.
        ports: String,
        /// The lines.
        over: String,
        /// A further possible cause.
        more: &'static str,
    },
    /// Nothing could be sent.
    #[error("cannot send to {remote}: {source}")]
    Send {
        /// Where to.
        remote: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There are no sockets.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Enrols `identity` over any of `lines`; gives the server's welcome. Only a server that knows the
/// invitation can have made it: the handshake is sealed with the pre-shared key that the token
/// gives. `say` gets a line for a person about each step.
pub(super) fn enrol(
    asked: &Asked<'_>,
    lines: &[Line],
    say: &mut dyn FnMut(&str),
) -> Result<Welcome, EnrolError> {
    enrol_within(&PAUSES, asked, lines, say)
}

/// What the server is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) invitation: &'a Invitation,
    pub(super) identity: &'a PrivateKey,
    pub(super) run: u64,
}

fn enrol_within(
    pauses: &[Duration],
    asked: &Asked<'_>,
    lines: &[Line],
    say: &mut dyn FnMut(&str),
) -> Result<Welcome, EnrolError> {
    let invitation = asked.invitation;
    let mut asking = Asking::new(*asked, lines, say)?;
    asking.look_up()?;
    for (number, pause) in pauses.iter().enumerate() {
        if number > 0 && asking.remotes.is_empty() && !asking.lookups.is_waiting() {
            break;
        }
        if number > 0 && !asking.remotes.is_empty() {
            let seconds = asking.start.elapsed().as_secs();
            (asking.say)(&format!("no answer after {seconds} s: asking again"));
        }
        asking.ask()?;
        if let Some(outcome) = asking.listen(*pause)? {
            return match outcome {
                Outcome::Welcome(welcome, _) => Ok(welcome),
                Outcome::Refused(Refusal::Used) => Err(EnrolError::Used),
                Outcome::Refused(Refusal::Expired) => Err(EnrolError::Expired),
                Outcome::Refused(Refusal::Refused) => Err(EnrolError::Refused),
                Outcome::Refused(Refusal::KeyExpired) => Err(EnrolError::KeyExpired),
            };
        }
    }
    if let Some(error) = asking.nothing_asked() {
        return Err(error);
    }
    let hosts: Vec<String> = invitation.hosts.iter().map(ToString::to_string).collect();
    let more = if super::seems_expired(invitation) {
        " By this machine's clock the invitation has expired, too."
    } else {
        " Or the server does not know the invitation any more."
    };
    let over = asking.ways();
    Err(EnrolError::Silence { hosts: hosts.join(", "), ports: invitation.ports.to_string(), over, more })
}

/// An address that is asked over one socket, and its cookie.
struct Remote {
    address: SocketAddr,
    socket: usize,
    cookie: Option<Cookie>,
    /// Of the last message that went there, and which attempt that was.
    sent: Option<(usize, Mac1)>,
}

/// A socket, and the interface that it is bound to.
struct Way {
    interface: Option<String>,
    socket: UdpSocket,
}

impl Way {
    fn name(&self) -> &str {
        self.interface.as_deref().unwrap_or("the default route")
    }
}

struct Asking<'a> {
    asked: Asked<'a>,
    say: &'a mut dyn FnMut(&str),
    start: Instant,
    rng: SecretRng,
    lookups: Lookups,
    /// A name that has no address.
    unknown: Option<EnrolError>,
    addresses: Vec<IpAddr>,
    remotes: Vec<Remote>,
    ways: Vec<Way>,
    poller: Poller,
    buffers: ReceiveBuffers,
    /// An answer to an earlier attempt is as good as one to the last.
    attempts: Vec<Initiator>,
}

impl<'a> Asking<'a> {
    fn new(asked: Asked<'a>, lines: &[Line], say: &'a mut dyn FnMut(&str)) -> Result<Self, EnrolError> {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(io::Error::other)?;
        let poller = Poller::new()?;
        let lookups = Lookups::new()?;
        poller.add(&lookups, NAMES_TOKEN, Interest::Readable)?;
        let mut ways: Vec<Way> = Vec::new();
        let families = |line: &Line| {
            [(Ipv4Addr::UNSPECIFIED.into(), line.ipv4), (Ipv6Addr::UNSPECIFIED.into(), line.ipv6)]
        };
        let bound =
            lines.iter().flat_map(|line| families(line).map(|family| (Some(line.interface.clone()), family)));
        let free = families(&Line { interface: String::new(), ipv4: true, ipv6: true });
        for (interface, (any, is_there)) in bound.chain(free.map(|family| (None, family))) {
            if !is_there {
                continue;
            }
            let config = UdpConfig { bind: SocketAddr::new(any, 0), interface: interface.clone() };
            // A machine without IPv6 or IPv4 has no socket of that family, and a user without the
            // right binds to no interface.
            let Ok(mut socket) = UdpSocket::bind(&config) else { continue };
            // An error that ICMP tells is no reason to log anything: the answer decides.
            let _ = socket.listen_for_errors(true);
            poller.add(&socket, ways.len() as u64, Interest::Readable)?;
            ways.push(Way { interface, socket });
        }
        Ok(Self {
            asked,
            say,
            start: Instant::now(),
            rng: SecretRng::new(entropy),
            lookups,
            unknown: None,
            addresses: Vec::new(),
            remotes: Vec::new(),
            ways,
            poller,
            buffers: ReceiveBuffers::new(),
            attempts: Vec::new(),
        })
    }

    /// Begins to look up the names; addresses need none.
    fn look_up(&mut self) -> io::Result<()> {
        let mut addresses = Vec::new();
        for host in &self.asked.invitation.hosts {
            match host {
                Host::Address(address) => addresses.push(*address),
                Host::Name(name) => self.lookups.ask(name)?,
            }
        }
        self.learn(addresses);
        Ok(())
    }

    /// These addresses are to be asked, too: every address with every port over every line. The
    /// ports of all in turn, so that each address keeps some where there are too many.
    fn learn(&mut self, addresses: Vec<IpAddr>) {
        let room = REMOTES_MAX.saturating_sub(self.remotes.len() / self.ways.len().max(1));
        let mut new: Vec<IpAddr> = Vec::new();
        for address in addresses {
            if !self.addresses.contains(&address) && !new.contains(&address) {
                new.push(address);
            }
        }
        if new.is_empty() {
            return;
        }
        let Asked { invitation: Invitation { ports, .. }, .. } = self.asked;
        let all =
            ports.iter().flat_map(|port| new.iter().map(move |address| SocketAddr::new(*address, port)));
        for address in all.take(room) {
            for (socket, way) in self.ways.iter().enumerate() {
                if way.socket.local_address().is_ipv4() == address.is_ipv4() {
                    self.remotes.push(Remote { address, socket, cookie: None, sent: None });
                }
            }
        }
        let listed: Vec<String> = new.iter().map(ToString::to_string).collect();
        let line = format!("asking {} on UDP {ports} over {}", listed.join(", "), self.ways());
        (self.say)(&line);
        self.addresses.extend(new);
    }

    /// The lines that are asked, for a person.
    fn ways(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for way in &self.ways {
            if !names.contains(&way.name()) {
                names.push(way.name());
            }
        }
        names.join(", ")
    }

    /// Why no address was asked, if that is so.
    fn nothing_asked(&mut self) -> Option<EnrolError> {
        if !self.addresses.is_empty() {
            return None;
        }
        let names =
            self.asked.invitation.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let silent = || EnrolError::Lookup { name: names, source: io::ErrorKind::TimedOut.into() };
        Some(self.unknown.take().unwrap_or_else(silent))
    }

    /// A new attempt, to every address.
    fn ask(&mut self) -> Result<(), EnrolError> {
        let elapsed_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut word = [0; 8];
        self.rng.fill(&mut word);
        let [a, b, c, d, e, f, g, h] = word;
        let Asked { invitation: Invitation { server, token, .. }, identity, run } = self.asked;
        let (key, client) = (InvitationKey::new(token), identity.public());
        let hello = Hello {
            stamp: Stamp { run, elapsed_us },
            epoch: u32::from_ne_bytes([a, b, c, d]),
            aes_fast: cipher::aes_is_fast(),
            claim: Some(key.claim(server, &client)),
            secret: None,
        };
        let index = u32::from_ne_bytes([e, f, g, h]);
        let preshared = key.preshared(server, &client);
        let attempt = Initiator::new(identity, server, Some(&preshared), index, &hello, &mut self.rng);
        self.attempts.push(attempt);
        let sent = |ways: &[Way]| ways.iter().map(|way| way.socket.counters().sent).sum::<u64>();
        let before = sent(&self.ways);
        (0..self.remotes.len()).for_each(|at| self.send(at));
        if sent(&self.ways) > before || self.lookups.is_waiting() {
            return Ok(());
        }
        match self.remotes.first().and_then(|remote| Some((remote.address, self.refusal(remote)?))) {
            Some((remote, source)) => Err(EnrolError::Send { remote, source }),
            None => Ok(()),
        }
    }

    /// Why nothing went to an address.
    fn refusal(&self, remote: &Remote) -> Option<io::Error> {
        Some(self.ways.get(remote.socket)?.socket.refusal()?.error())
    }

    /// The newest attempt, to one address.
    fn send(&mut self, at: usize) {
        let (Some(remote), Some(attempt)) = (self.remotes.get_mut(at), self.attempts.last()) else { return };
        let Some(way) = self.ways.get_mut(remote.socket) else { return };
        let mut datagram = Vec::new();
        let mac1 = attempt.put(LINK, remote.cookie.as_ref(), &mut datagram);
        remote.sent = Some((self.attempts.len() - 1, mac1));
        // A datagram that cannot be sent now goes with the next attempt.
        let _ = way.socket.send(&Batch {
            remote: remote.address,
            local: None,
            contents: &datagram,
            segment_size: datagram.len().max(1),
            is_ect: false,
        });
    }

    /// Waits for an answer.
    fn listen(&mut self, patience: Duration) -> io::Result<Option<Outcome>> {
        let deadline = Instant::now() + patience;
        let mut ready = Vec::new();
        let mut datagrams = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.poller.wait(&mut ready, Some(left))?;
            while let Some(answer) = self.lookups.poll() {
                self.on_name(answer);
            }
            for at in 0..self.ways.len() {
                // A batch at a time: a flood holds up no other line, and no deadline.
                if let Some(way) = self.ways.get_mut(at) {
                    let _ = way.socket.recv(&mut self.buffers, &mut datagrams);
                }
                for received in datagrams.drain(..) {
                    if let Some(outcome) = self.read(&received.data, received.remote, at) {
                        let name = self.ways.get(at).map_or("", Way::name);
                        (self.say)(&format!("{} answers over {name}", received.remote));
                        return Ok(Some(outcome));
                    }
                }
            }
        }
    }

    /// A name has addresses, or none: those that are new are asked at once.
    fn on_name(&mut self, answer: Answer) {
        let from = self.remotes.len();
        match answer.addresses {
            Ok(addresses) => self.learn(addresses),
            Err(source) => {
                (self.say)(&format!("cannot look up {}: {source}", answer.name));
                self.unknown = Some(EnrolError::Lookup { name: answer.name, source });
            }
        }
        (from..self.remotes.len()).for_each(|at| self.send(at));
    }

    /// One datagram of unknown origin: only the server can make a valid one.
    fn read(&mut self, datagram: &[u8], from: SocketAddr, socket: usize) -> Option<Outcome> {
        if let Some(outcome) =
            self.attempts.iter_mut().find_map(|attempt| attempt.read_response(datagram).ok())
        {
            return Some(outcome);
        }
        let is_asked = |remote: &Remote| (remote.address, remote.socket) == (from, socket);
        let at = self.remotes.iter().position(is_asked)?;
        let remote = self.remotes.get_mut(at)?;
        let (attempt, mac1) = remote.sent?;
        let cookie = self.attempts.get(attempt)?.read_cookie(datagram, &mac1).ok()?;
        remote.cookie = Some(cookie);
        self.send(at);
        None
    }
}

#[cfg(test)]
mod tests;
