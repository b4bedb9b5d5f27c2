//! Whether this machine allows the sandbox of `crates/lab`: namespaces of its own, for a plain user
//! inside a user namespace, so that a user needs root only where the kernel insists on it.
//!
//! Commands ask before they build, so that the answer does not come after minutes. The answer is
//! one line.

use std::fs::OpenOptions;

use anyhow::bail;

use crate::process;

const TUN: &str = "/dev/net/tun";

/// Makes sure that `what`, a command line, will get its namespaces and TUN devices.
///
/// # Errors
/// Says why this machine needs root, and the command to run as root.
pub(crate) fn ensure(what: &str) -> anyhow::Result<()> {
    let root = process::effective_uid() == Some(0);
    match probe(root) {
        Ok(()) if root => {
            println!("Sandbox: namespaces of its own, as root; nothing outside them is touched.")
        }
        Ok(()) => println!("Sandbox: an unprivileged user namespace; nothing outside it is touched."),
        Err(reason) if root => bail!(
            "this system refuses network namespaces even to root ({reason}); \
             in a container, give it CAP_SYS_ADMIN, CAP_NET_ADMIN and {TUN}"
        ),
        Err(reason) => bail!("this needs root here ({reason}); run: sudo env \"PATH=$PATH\" {what}"),
    }
    Ok(())
}

/// Makes the namespaces that the sandbox will need, once.
fn probe(root: bool) -> Result<(), String> {
    OpenOptions::new().read(true).write(true).open(TUN).map_err(|error| format!("{TUN}: {error}"))?;
    let mut unshare = process::command("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork"]);
    if !root {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare.arg("true").output().map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("unshare failed").to_owned())
}
