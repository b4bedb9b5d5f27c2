//! The handshake that enrols a client: over plain sockets, to every address and port of the
//! invitation at once.
//!
//! Blocking. The first answer counts. The client repeats its message with growing pauses for some
//! 15 s, since a link that sleeps takes seconds to wake. After that the error says what the silence
//! may mean.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use bonding_os::poll::{Interest, Poller};
use bonding_proto::crypto::keys::PrivateKey;
use bonding_proto::crypto::rng::SecretRng;
use bonding_proto::handshake::{
    Cookie, Hello, Initiator, InvitationKey, Mac1, Outcome, Refusal, Stamp, Welcome,
};

use crate::config::Host;
use crate::engine::cipher;
use crate::invitation::Invitation;

/// Pauses between attempts. Chosen: some 15 s in all, for links that have to wake.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Addresses that are asked at most. Chosen: invitations name few hosts, with few addresses each.
const REMOTES_MAX: usize = 64;
/// The receive buffer, larger than any answer.
const DATAGRAM_BYTES_MAX: usize = 2_048;
/// The socket and path of every message: one attempt is one message, over whichever path it goes.
const LINK: u8 = 0;

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
        "no answer from {hosts} on UDP {ports}: is the server running, and do firewalls on the way let these ports through?{more}"
    )]
    Silence {
        /// The hosts that were asked.
        hosts: String,
        /// Their ports.
        ports: String,
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

/// Enrols `identity`; gives the server's welcome. Only a server that knows the invitation can have
/// made it: the handshake is sealed with the pre-shared key that the token gives.
pub(super) fn enrol(invitation: &Invitation, identity: &PrivateKey, run: u64) -> Result<Welcome, EnrolError> {
    enrol_within(&PAUSES, invitation, identity, run)
}

fn enrol_within(
    pauses: &[Duration],
    invitation: &Invitation,
    identity: &PrivateKey,
    run: u64,
) -> Result<Welcome, EnrolError> {
    let remotes = remotes(invitation)?;
    let mut asking = Asking::new(invitation, identity, run, remotes)?;
    for pause in pauses {
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
    let hosts: Vec<String> = invitation.hosts.iter().map(ToString::to_string).collect();
    let more = if super::seems_expired(invitation) {
        " By this machine's clock the invitation has expired, too."
    } else {
        " Or the server does not know the invitation any more."
    };
    Err(EnrolError::Silence { hosts: hosts.join(", "), ports: invitation.ports.to_string(), more })
}

/// Every address with every port: the ports of all hosts in turn, so that each host keeps some
/// where there are too many.
fn remotes(invitation: &Invitation) -> Result<Vec<SocketAddr>, EnrolError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut failed = None;
    for host in &invitation.hosts {
        match host {
            Host::Address(address) => addresses.push(*address),
            Host::Name(name) => match (name.as_str(), 0).to_socket_addrs() {
                Ok(found) => addresses.extend(found.map(|found| found.ip())),
                Err(source) => failed = Some(EnrolError::Lookup { name: name.clone(), source }),
            },
        }
    }
    match failed {
        Some(error) if addresses.is_empty() => return Err(error),
        Some(_) | None => {}
    }
    let ports = invitation.ports.iter();
    let all = ports.flat_map(|port| addresses.iter().map(move |address| SocketAddr::new(*address, port)));
    let mut remotes: Vec<SocketAddr> = Vec::new();
    for remote in all.take(REMOTES_MAX) {
        if !remotes.contains(&remote) {
            remotes.push(remote);
        }
    }
    Ok(remotes)
}

/// An address that is asked, and its cookie.
struct Remote {
    address: SocketAddr,
    cookie: Option<Cookie>,
    /// Of the last message that went there, and which attempt that was.
    sent: Option<(usize, Mac1)>,
}

struct Asking<'a> {
    invitation: &'a Invitation,
    identity: &'a PrivateKey,
    run: u64,
    start: Instant,
    rng: SecretRng,
    remotes: Vec<Remote>,
    sockets: Vec<UdpSocket>,
    poller: Poller,
    /// An answer to an earlier attempt is as good as one to the last.
    attempts: Vec<Initiator>,
}

impl<'a> Asking<'a> {
    fn new(
        invitation: &'a Invitation,
        identity: &'a PrivateKey,
        run: u64,
        remotes: Vec<SocketAddr>,
    ) -> Result<Self, EnrolError> {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(io::Error::other)?;
        let poller = Poller::new()?;
        let mut sockets = Vec::new();
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            if !remotes.iter().any(|remote| remote.is_ipv4() == any.is_ipv4()) {
                continue;
            }
            // A machine without IPv6 or IPv4 has no socket of that family.
            let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)) else { continue };
            socket.set_nonblocking(true)?;
            poller.add(&socket, sockets.len() as u64, Interest::Readable)?;
            sockets.push(socket);
        }
        let remote = |address| Remote { address, cookie: None, sent: None };
        Ok(Self {
            invitation,
            identity,
            run,
            start: Instant::now(),
            rng: SecretRng::new(entropy),
            remotes: remotes.into_iter().map(remote).collect(),
            sockets,
            poller,
            attempts: Vec::new(),
        })
    }

    /// A new attempt, to every address.
    fn ask(&mut self) -> Result<(), EnrolError> {
        let elapsed_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut word = [0; 8];
        self.rng.fill(&mut word);
        let [a, b, c, d, e, f, g, h] = word;
        let Invitation { server, token, .. } = self.invitation;
        let (key, client) = (InvitationKey::new(token), self.identity.public());
        let hello = Hello {
            stamp: Stamp { run: self.run, elapsed_us },
            epoch: u32::from_ne_bytes([a, b, c, d]),
            aes_fast: cipher::aes_is_fast(),
            claim: Some(key.claim(server, &client)),
            secret: None,
        };
        let index = u32::from_ne_bytes([e, f, g, h]);
        let preshared = key.preshared(server, &client);
        let attempt = Initiator::new(self.identity, server, Some(&preshared), index, &hello, &mut self.rng);
        self.attempts.push(attempt);
        let mut sent = false;
        let mut failed = None;
        for at in 0..self.remotes.len() {
            match self.send(at) {
                Ok(()) => sent = true,
                Err(error) => failed = failed.or(Some((at, error))),
            }
        }
        match failed.and_then(|(at, source)| Some((self.remotes.get(at)?.address, source))) {
            Some((remote, source)) if !sent => Err(EnrolError::Send { remote, source }),
            Some(_) | None => Ok(()),
        }
    }

    /// The newest attempt, to one address.
    fn send(&mut self, at: usize) -> io::Result<()> {
        let (Some(remote), Some(attempt)) = (self.remotes.get_mut(at), self.attempts.last()) else {
            return Ok(());
        };
        let mut datagram = Vec::new();
        let mac1 = attempt.put(LINK, remote.cookie.as_ref(), &mut datagram);
        remote.sent = Some((self.attempts.len() - 1, mac1));
        let same_family = |socket: &&UdpSocket| {
            socket.local_addr().is_ok_and(|local| local.is_ipv4() == remote.address.is_ipv4())
        };
        let socket = self.sockets.iter().find(same_family).ok_or(io::ErrorKind::NetworkUnreachable)?;
        socket.send_to(&datagram, remote.address).map(drop)
    }

    /// Waits for an answer.
    fn listen(&mut self, patience: Duration) -> io::Result<Option<Outcome>> {
        let deadline = Instant::now() + patience;
        let mut ready = Vec::new();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.poller.wait(&mut ready, Some(left))?;
            for at in 0..self.sockets.len() {
                while let Some(Ok((size, from))) =
                    self.sockets.get(at).map(|socket| socket.recv_from(&mut buffer))
                {
                    let datagram = buffer.get(..size).unwrap_or_default();
                    if let Some(outcome) = self.read(datagram, from) {
                        return Ok(Some(outcome));
                    }
                }
            }
        }
    }

    /// One datagram of unknown origin: only the server can make a valid one.
    fn read(&mut self, datagram: &[u8], from: SocketAddr) -> Option<Outcome> {
        if let Some(outcome) =
            self.attempts.iter_mut().find_map(|attempt| attempt.read_response(datagram).ok())
        {
            return Some(outcome);
        }
        let at = self.remotes.iter().position(|remote| remote.address == from)?;
        let remote = self.remotes.get_mut(at)?;
        let (attempt, mac1) = remote.sent?;
        let cookie = self.attempts.get(attempt)?.read_cookie(datagram, &mac1).ok()?;
        remote.cookie = Some(cookie);
        // A datagram that cannot be sent now goes with the next attempt.
        let _ = self.send(at);
        None
    }
}

#[cfg(test)]
mod tests;
