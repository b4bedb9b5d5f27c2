//! One client and its server over some links: composes everything below it, and is the only place
//! where control flows between modules.
//!
//! ```text
//! TUN ─► ingress: size, class, queue ─► outbox: link, number, batch ─► sealing ─► UDP
//!                                         └► redundancy: copies, resends, symbols ─► UDP
//! UDP ─► sealing: open ─► link_table ─► redundancy: restore ─► inbox: order ─► TUN
//! ```
//! - `peer`: the peer's run, and what it takes.
//! - `link_table`: the links, and what is derived from them.
//! - `sealing`: keys, and a client's handshakes.
//! - `ingress`, `outbox`, `inbox`, `redundancy`: the ways of packets.
//! - `writer`: datagrams in the driver's buffer, for `outbox` and `redundancy`.
//! - `meters`: what each flow carries; `flows`: figures of each flow.
//! - `control`: [`Session`] itself; `state_machine`: how a driver drives it.
//!
//! Contract: each part owns its state; [`Session`] calls it with what it needs of the others, and
//! passes on what it returns. What is derived from links is brought up to date by
//! `Session::settle_changes` alone: at the end of each input, after each frame of a datagram, and
//! before a part reads it.
//!
//! Client and server run the same session. They differ in how a link's path is known (configured,
//! or learnt from the first heartbeat) and whose priority counts (the client's).

mod control;
mod counters;
mod events;
mod figures;
pub mod flows;
mod inbox;
mod ingress;
mod link_table;
mod meters;
mod outbox;
mod peer;
mod redundancy;
mod sealing;
mod state_machine;
mod writer;

#[cfg(test)]
mod tests;

pub use self::control::Session;
