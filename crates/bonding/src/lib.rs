//! The bond: configuration, event loop, control socket, logs; client, server and bondctl.

pub mod config;
pub mod logs;
pub mod report;
pub mod status;
