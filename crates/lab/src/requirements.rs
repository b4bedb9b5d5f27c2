//! The programs that a lab and its users run.

use std::env;
use std::path::{Path, PathBuf};

/// A program and its Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The program's name.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

const PROGRAMS: [Requirement; 6] = [
    Requirement { program: "ip", package: "iproute2" },
    Requirement { program: "nft", package: "nftables" },
    Requirement { program: "iperf3", package: "iperf3" },
    Requirement { program: "ping", package: "iputils-ping" },
    Requirement { program: "curl", package: "curl" },
    Requirement { program: "unshare", package: "util-linux" },
];

/// Needed by the comparison with Multipath TCP only.
const MPTCPIZE: Requirement = Requirement { program: "mptcpize", package: "mptcpize" };

/// The folders of administrators' programs, which the PATH of a plain user often lacks.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The programs that are missing on this machine.
pub fn requirements() -> Vec<Requirement> {
    PROGRAMS.into_iter().filter(|requirement| find(requirement.program).is_none()).collect()
}

/// The program that makes others use Multipath TCP, if it is missing.
pub fn mptcp_requirement() -> Option<Requirement> {
    find(MPTCPIZE.program).is_none().then_some(MPTCPIZE)
}

/// The full path of `program`: in the PATH, or where administrators' programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = search_path();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// The PATH for the programs a lab runs.
pub(crate) fn search_path() -> std::ffi::OsString {
    let current = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&current).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    // Joining fails only for folders with a colon, which splitting cannot produce.
    env::join_paths(folders).unwrap_or(current)
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_only() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
        // A folder is not a program.
        assert!(find("..").is_none());
    }
}
