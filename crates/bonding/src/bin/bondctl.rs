//! `bondctl`.

fn main() -> std::process::ExitCode {
    bonding::cli::bondctl()
}
