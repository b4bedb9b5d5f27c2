//! The bond as a pure state machine.
//!
//! Inner IP packets and received datagrams go in; datagrams to send and inner packets in order come
//! out. The core does no I/O, reads no clock and has no randomness of its own: time is an argument,
//! seeds are configuration, and fresh entropy is an input. The same code runs over TUN and UDP, and
//! in a simulator where an hour passes in a second.
//!
//! The contract with a driver is [`StateMachine`]: after every input, drain every output, then wait
//! for the next input or [`StateMachine::poll_timeout`], whichever comes first.
//! `examples/two_machines.rs` is a whole driver: a client and a server that shake hands and
//! exchange a packet.
//!
//! ```
//! use std::num::NonZeroUsize;
//! # use std::time::Duration;
//! # use bonding_proto::config::{LinkConfig, Policy, RecoveryConfig};
//! # use bonding_proto::config::{Role, Security, SessionConfig, UdpFlows};
//! # use bonding_proto::view::LinkRole;
//! # use bonding_proto::{Path, SocketId};
//! use bonding_proto::{Instant, Session, StateMachine};
//!
//! # let remote = std::net::SocketAddr::from(([203, 0, 113, 7], 9001));
//! # let link = LinkConfig {
//! #     security: Security::Plain, priority: 1, role: LinkRole::Primary, mtu: 1_500,
//! #     tx_rate: None, rx_rate: None, flows: UdpFlows::Auto, alternatives: Vec::new(),
//! #     path: Some(Path { socket: SocketId(0), remote, local: None }),
//! # };
//! # let config = SessionConfig {
//! #     role: Role::Client, links: vec![link], policy: Policy::Adaptive,
//! #     heartbeat_interval: Duration::from_millis(100), mtu: 1_400, mss_clamp: true,
//! #     recovery: RecoveryConfig::default(), rules: [].into(), seed: 1, epoch: 1, sealing: None,
//! # };
//! let now = Instant::ZERO;
//! let mut client = Session::new(config, now); // one plain link
//! client.handle_timeout(now); // an input: the time
//!
//! // Then every output. The first datagram is a heartbeat (PROTOCOL.md, "The frame").
//! let one = NonZeroUsize::MIN;
//! let mut datagram = Vec::new();
//! let transmit = client.poll_transmit(&mut datagram, one, now).expect("a heartbeat is due");
//! assert_eq!((transmit.path.remote, datagram[8]), (remote, 0x01));
//! assert!(client.poll_transmit(&mut datagram, one, now).is_none());
//! assert!(client.poll_packet().is_none(), "nothing arrived that could be handed to TUN");
//!
//! // After a full drain the next deadline is in the future.
//! let (deadline, _reason) = client.poll_timeout().expect("the next heartbeat");
//! assert!(deadline > now);
//! ```

pub mod client;
pub mod config;
pub mod crypto;
pub mod discard;
pub mod endpoint;
pub mod event;
pub mod fec;
pub mod handshake;
mod inner;
pub mod limits;
pub mod link;
mod modifiers;
pub mod packet;
pub mod position;
mod prefix;
pub mod qos;
mod recovery;
pub mod reorder;
pub mod scheduler;
pub mod session;
pub mod stats;
pub mod streams;
pub mod time;
pub mod timer;
pub mod trace;
pub mod units;
pub mod view;
pub mod wire;

use std::num::NonZeroUsize;
use std::time::Duration;

pub use crate::client::Client;
pub use crate::discard::Discard;
pub use crate::endpoint::Endpoint;
pub use crate::event::{Event, SocketEvent};
pub use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, Transmit, UdpFlow};
pub use crate::session::Session;
pub use crate::time::Instant;
pub use crate::timer::Timer;

/// What carries streams beside packets. A session is named by the number that its trace has: on a
/// server the client's session, on a client the server. The defaults are those of a machine without
/// streams.
pub trait StreamHost {
    /// The session's streams; `None`: there is no such session.
    fn streams_mut(&mut self, _session: u16, _now: Instant) -> Option<&mut streams::Streams> {
        None
    }
    /// The session that opens streams now, if its peer takes them.
    fn stream_session(&self) -> Option<u16> {
        None
    }
    /// What happened to a stream. To be asked after each drain.
    fn poll_stream_event(&mut self) -> Option<(u16, streams::StreamEvent)> {
        None
    }
}

/// The contract with a driver: a client or a server's endpoint, or one session.
pub trait StateMachine {
    /// Takes one inner packet from TUN. An error is already counted.
    fn handle_packet(&mut self, packet: PacketBuf, now: Instant) -> Result<(), Discard>;
    /// Takes packets that were cut from one larger packet, in order: they have one flow and one
    /// class. The same as [`Self::handle_packet`] for each of them, but their headers are read
    /// once. Errors are counted.
    fn handle_run(&mut self, run: &mut dyn Iterator<Item = PacketBuf>, now: Instant) {
        for packet in run {
            let _ = self.handle_packet(packet, now);
        }
    }
    /// Takes one datagram from a socket. An error is already counted.
    fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Result<(), Discard>;
    /// Takes what a socket tells besides datagrams.
    fn handle_socket_event(&mut self, _socket: SocketId, _event: SocketEvent, _now: Instant) {}
    /// To be called when [`Self::poll_timeout`] is due; early or late calls do no harm.
    fn handle_timeout(&mut self, now: Instant);
    /// Appends datagrams for one path to `buf`, at most `max_segments` and all but the last of one
    /// size. `None`: nothing may be sent now, and nothing was appended.
    fn poll_transmit(
        &mut self,
        buf: &mut Vec<u8>,
        max_segments: NonZeroUsize,
        now: Instant,
    ) -> Option<Transmit>;
    /// The next inner packet for TUN. To be asked after [`Self::poll_transmit`] had nothing more,
    /// which may release packets.
    fn poll_packet(&mut self) -> Option<PacketBuf>;
    /// Tells every peer that the session ends. Drain what is to be transmitted, and use the machine
    /// no more.
    fn close(&mut self, now: Instant);
    /// Whether an input draws secrets: a datagram or, without one, [`Self::handle_timeout`].
    fn draws_secrets(&self, _datagram: Option<&Datagram>, _now: Instant) -> bool {
        false
    }
    /// Secrets depend on `entropy` as well from now on. A driver on a machine calls it right before
    /// an input that [`Self::draws_secrets`], with random numbers of the system: the machine may be
    /// one of several that were restored from one image, and then its memory is theirs. Without it
    /// the same seeds give the same run.
    fn mix_entropy(&mut self, _entropy: &[u8; 32]) {}
    /// The machine slept, or is a copy of an earlier state. Nothing is sealed or opened under the
    /// present keys any more, and a client asks for others at once. To its peers this is another
    /// run, since they may have seen later counters than it knows of. `unseen` is time that passed
    /// without passing in `now`. To be called after [`Self::mix_entropy`].
    fn forget_keys(&mut self, _unseen: Duration, _now: Instant) {}
    /// The least round trip over a socket, where that is known.
    fn round_trip(&self, _socket: SocketId) -> Option<Duration> {
        None
    }
    /// Sets how much of what the core decides is recorded from now on. See [`trace`].
    fn set_trace(&mut self, _level: trace::Level) {}
    /// Appends what was recorded since the last call, in the order of time. To be called often: a
    /// record that finds no room is only counted.
    fn drain_trace(&mut self, _out: &mut Vec<trace::Record>) {}
    /// When [`Self::handle_timeout`] is due, and why; after a full drain it is later than the last
    /// `now`.
    fn poll_timeout(&self) -> Option<(Instant, Timer)>;
}
