//! The bond: configuration, event loop, control socket, logs; client, server and bondctl.

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod engine;
pub mod events;
pub mod flows;
pub mod invitation;
pub mod join;
pub mod logs;
mod names;
mod relay;
pub mod report;
pub mod server;
pub mod state;
pub mod status;
pub mod trace;
