//! Where namespaces come from: an unprivileged user namespace if the kernel allows one, else root's own rights.
//!
//! Nobody should have to run a stranger's code as root, so root is asked for only where nothing else works, and the
//! reason is said in one line.

use anyhow::bail;

use crate::process;

/// Makes sure that network namespaces and TUN devices can be made, one way or the other, for `what`.
///
/// # Errors
/// Says why this machine needs root, and the command to run as root.
pub(crate) fn ensure(what: &str) -> anyhow::Result<()> {
    let reason = match probe() {
        Ok(()) => {
            println!("Sandbox: an unprivileged user and network namespace; nothing outside it is touched.");
            return Ok(());
        }
        Err(reason) => reason,
    };
    if process::effective_uid() == Some(0) {
        println!("Sandbox: network namespaces as root, since no user namespace can be made ({reason}).");
        return Ok(());
    }
    bail!(
        "this needs root, because the kernel gives this user no network namespace ({reason}); \
         run: sudo env \"PATH=$PATH\" {what}"
    )
}

/// Tries what the sandbox will need: a user, network and mount namespace with a TUN device in it.
fn probe() -> Result<(), String> {
    let output = process::command("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .args(["ip", "tuntap", "add", "dev", "probe0", "mode", "tun"])
        .output()
        .map_err(|error| format!("cannot start unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("unshare said nothing").to_owned();
    let switch = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let restricted = std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "1");
    Err(if restricted { format!("{first}; {switch} is 1") } else { first })
}
