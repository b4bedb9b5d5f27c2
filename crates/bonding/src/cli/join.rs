//! `bonding-client join`: its options and its output.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config;
use crate::join::{self, Joined, Order};

/// Chosen: several times the longest invitation.
const LINE_BYTES_MAX: u64 = 16 * 1024;

pub(super) const EXAMPLES: &str = "\
Examples:
  bonding-client join 'bond://203.0.113.7:9001-9005/AbC…'     then start it: bonding-client
  bonding-client join -                    reads the line from standard input, so that no list of processes shows it
  bonding-client join 'bond://…' -c /etc/bonding/second.toml --key /var/lib/bonding/second.key";

#[derive(Debug, clap::Args)]
pub(super) struct JoinArguments {
    /// The line that `bondctl invite` printed on the server, in quotes; `-` reads it from standard
    /// input
    invitation: String,
    /// Configuration file to write
    #[arg(short, long, value_name = "FILE", default_value = config::CLIENT_FILE)]
    config: PathBuf,
    /// Private key, made if it is missing; the client's state stands beside it
    #[arg(long, value_name = "FILE", default_value = config::CLIENT_KEY)]
    key: PathBuf,
    /// Overwrite another configuration
    #[arg(long)]
    force: bool,
}

/// Joins; gives the text for standard output. Standard error has what is being done.
pub(super) fn run(arguments: &JoinArguments) -> anyhow::Result<String> {
    let JoinArguments { invitation, config, key, force } = arguments;
    let key = std::path::absolute(key)?;
    let line = if invitation == "-" { line_of(std::io::stdin().lock())? } else { invitation.clone() };
    let order = Order { line, file: config.clone(), private_key_file: key, force: *force };
    let mut progress = |line: &str| eprintln!("{line}");
    Ok(say(&join::join(&order, &mut progress)?, config))
}

/// The first line of an input.
fn line_of(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.take(LINE_BYTES_MAX).read_line(&mut line).context("cannot read the invitation")?;
    Ok(line.trim().to_owned())
}

fn say(joined: &Joined, file: &Path) -> String {
    let addresses: Vec<String> = joined.addresses.iter().map(|prefix| prefix.address.to_string()).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" and ") };
    let mut text = format!("joined: this machine has {addresses} in the tunnel\n");
    let name = file.display();
    if !joined.written {
        text.push_str(&format!("{name} says the same already and was left as it is\n"));
    } else {
        text.push_str(&format!(
            "{name} is written: interfaces with a route to the server become links by themselves\n"
        ));
    }
    let start = if file == Path::new(config::CLIENT_FILE) {
        "bonding-client".to_owned()
    } else {
        format!("bonding-client -c {name}")
    };
    text.push_str(&format!("next: start {start}\n"));
    text
}

#[cfg(test)]
mod tests {
    use bonding_proto::config::Prefix;

    use super::*;

    #[test]
    fn a_line_from_an_input_is_bounded() {
        assert_eq!(line_of(&b"  bond://x/y \nmore\n"[..]).unwrap(), "bond://x/y");
        assert_eq!(line_of(&b""[..]).unwrap(), "");
        assert_eq!(line_of(&vec![b'x'; 100_000][..]).unwrap().len(), 16 * 1024);
    }

    #[test]
    fn says_what_was_done_and_what_is_next() {
        let address = |text: &str| Prefix { address: text.parse().unwrap(), length: 24 };
        let mut joined = Joined { addresses: vec![address("10.99.0.2"), address("fd99::2")], written: true };
        assert_eq!(
            say(&joined, Path::new(config::CLIENT_FILE)),
            "joined: this machine has 10.99.0.2 and fd99::2 in the tunnel\n\
             /etc/bonding/client.toml is written: interfaces with a route to the server become links by themselves\n\
             next: start bonding-client\n"
        );
        assert!(say(&joined, Path::new("/x.toml")).ends_with("start bonding-client -c /x.toml\n"));
        joined.written = false;
        assert!(say(&joined, Path::new("/x.toml")).contains("left as it is"));
    }
}
