//! QUIC transfers to measure with, and QUIC without secrets.
//!
//! quinn-proto is the transport; [`NoSecrets`] stands in for TLS, so that neither ring nor rustls
//! is built. The simulator takes only that. With the feature `net` there are a [`Server`] and a
//! [`Transfer`] over UDP sockets, driven as quinn drives them (GSO, GRO, ECN): a number of bytes
//! over new connections, or a time. Each has one thread and is bounded in time. The program
//! `quicperf` (feature `program`) has both as commands and prints JSON.
//!
//! A connection carries one stream. The client's request says which way and how many bytes; on an
//! upload the server says how many came, so that both ways are counted where they arrive.
//!
//! This crate does not know the bond, nor namespaces: its user calls it on the thread of a host.

mod no_secrets;

#[cfg(feature = "net")]
mod client;
#[cfg(feature = "net")]
mod exchange;
#[cfg(feature = "net")]
mod peer;
#[cfg(feature = "net")]
mod server;
#[cfg(feature = "net")]
mod settings;
#[cfg(feature = "net")]
mod wire;

pub use no_secrets::NoSecrets;

#[cfg(feature = "net")]
pub use client::{Amount, Outcome, Transfer, TransferError};
#[cfg(feature = "net")]
pub use exchange::Direction;
#[cfg(feature = "net")]
pub use server::Server;
#[cfg(feature = "net")]
pub use settings::{Buffers, Congestion, Settings, SettingsError};
