//! `client`, installed as `bonding-client`.

fn main() -> std::process::ExitCode {
    bonding::cli::client()
}
