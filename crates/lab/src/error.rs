//! Errors of a lab.

use std::io;

/// The reason why a call of the lab failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process is not in a sandbox: the lab refuses to touch the machine's own network.
    #[error(
        "not in a sandbox: call sandbox::enter() first; the lab does not touch the machine's own network"
    )]
    NotInSandbox,
    /// Programs that are missing.
    #[error("missing: {programs}; install with: apt-get install {packages}")]
    Missing {
        /// Their names.
        programs: String,
        /// The Debian packages that have them.
        packages: String,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed ({status}): {message}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// Its output.
        message: String,
    },
    /// The output of a program was not understood.
    #[error("{command}: cannot read its report: {message}")]
    Report {
        /// The program.
        command: String,
        /// The mistake in it.
        message: String,
    },
    /// A step of the set-up failed.
    #[error("{step}: {source}")]
    Io {
        /// The step.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl LabError {
    /// Turns an I/O error into one that names the step.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }
}
