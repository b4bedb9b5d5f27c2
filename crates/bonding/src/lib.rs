//! The bond: configuration, event loop, control socket, logs; client, server and bondctl.

pub mod config;
