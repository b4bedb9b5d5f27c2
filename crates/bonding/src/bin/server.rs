//! `server`, installed as `bonding-server`.

fn main() -> std::process::ExitCode {
    bonding::cli::server()
}
