//! Tests of whole sessions: [`pair`] has two sessions over plain links, [`world`] a sealed client
//! and its server's endpoint.

mod classes;
mod coming;
mod copies;
mod exchange;
mod flows;
mod mixed;
mod pair;
mod plain;
mod sealed;
mod sending;
mod sizes;
mod sockets;
mod world;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Session;
use crate::StateMachine;
use crate::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, PlainPeer, Policy, Prefix, RecoveryConfig, Role,
    Security, ServerSealing, SessionConfig, UdpFlows,
};
use crate::crypto::keys::{PresharedKey, PrivateKey, Token};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::endpoint::{Endpoint, EnrolmentAnswer, SessionId};
use crate::event::{Event, SocketEvent};
use crate::handshake::{Claim, Hello, Initiator, InvitationKey, Outcome, Refusal, Stamp};
use crate::link::Link;
use crate::packet::{Datagram, LinkId, PacketBuf, Path, SocketId, UdpFlow};
use crate::stats::{PeerStats, SessionStats};
use crate::time::Instant;
use crate::timer::Timer;
use crate::units::BitRate;
use crate::view::{LinkRole, LinkState};
use crate::wire::control::{CloseReason, Control};
use crate::wire::feedback::{Feedback, Runs};
use crate::wire::heartbeat::{HEARTBEAT_BYTES, Heartbeat};
use crate::wire::sealed::{SEALED_HEADER_BYTES, SealedHeader};
use crate::wire::{self, Kind, Modifiers};

const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
