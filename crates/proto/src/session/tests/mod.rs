//! Tests of whole sessions: [`pair`] has two sessions over plain links, [`world`] a sealed client and its
//! server's endpoint.

mod classes;
mod pair;
mod plain;
mod sealed;
mod sizes;
mod sockets;
mod world;

use std::time::Duration;

use bytes::BytesMut;

use super::*;
use crate::StateMachine;
use crate::config::{
    ClientConfig, ClientSealing, EndpointConfig, LinkConfig, Policy, Prefix, RecoveryConfig, ServerSealing,
};
use crate::crypto::keys::{PresharedKey, PrivateKey, Token};
use crate::crypto::rng::SecretRng;
use crate::endpoint::{Endpoint, EnrolmentAnswer, SessionId};
use crate::event::SocketEvent;
use crate::handshake::{Hello, Initiator, Refusal, Stamp};
use crate::timer::Timer;
use crate::wire::feedback::Runs;
use crate::wire::heartbeat::HEARTBEAT_BYTES;

const SEGMENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
