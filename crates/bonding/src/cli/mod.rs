//! The command lines of `client`, `server` and `bondctl`.
//!
//! Contract: results on standard output, errors on standard error. Exit codes: 0 all is well, 1 a
//! step failed, 2 the command line or a configuration file is wrong.

mod answers;
pub mod bondctl;
mod check;
mod clients;
mod daemon;
mod events;
mod flows;
mod join;
mod keys;
pub mod layout;
mod rekey;
mod reload;
pub mod style;
pub mod table;
pub mod view;

use std::process::ExitCode;

use crate::config::Problems;
use crate::logs::FilterError;

pub use self::daemon::{client, server};

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// The exit code of a program that ends. Prints the failure on standard error.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code,
        Err(error) => error,
    };
    if let Some(problems) = error.downcast_ref::<Problems>() {
        // Each line begins with its place, so that editors find it.
        eprintln!("{problems}");
        return ExitCode::from(EXIT_USAGE);
    }
    eprintln!("error: {error:#}");
    let usage = error.is::<FilterError>() || error.is::<Usage>();
    ExitCode::from(if usage { EXIT_USAGE } else { 1 })
}

/// A mistake of the command line that clap cannot find.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
