//! Which files the programs under test are.

/// The paths of the programs. Cargo tells them only to the tests and benchmarks of the package that
/// has the programs, at compile time: those fill this in with [`programs!`](crate::programs!).
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    /// `client`.
    pub client: &'static str,
    /// `server`.
    pub server: &'static str,
    /// `bondctl`.
    pub bondctl: &'static str,
}

/// The [`Programs`] that cargo built for the test or benchmark that calls this.
#[macro_export]
macro_rules! programs {
    () => {
        $crate::programs::Programs {
            client: env!("CARGO_BIN_EXE_client"),
            server: env!("CARGO_BIN_EXE_server"),
            bondctl: env!("CARGO_BIN_EXE_bondctl"),
        }
    };
}
