//! `bondctl invite`, `clients`, `expire` and `revoke`: the clients of a running server.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;

use super::Usage;
use super::style::{Colour, Style};
use super::table::{Align, Cell, Table};
use crate::config;
use crate::control::{Ask, AskError, Request};
use crate::engine::command::{Clients, Expiring, Invited, Revoked};

/// The server to ask.
#[derive(Debug, clap::Args)]
pub(super) struct ServerTarget {
    /// Control socket of the server
    #[arg(long, value_name = "PATH", default_value = config::SERVER_SOCKET)]
    socket: PathBuf,
}

/// Options of `bondctl invite`.
#[derive(Debug, clap::Args)]
pub struct InviteArguments {
    /// The client's name: 1 to 32 characters without spaces
    name: String,
    /// Host at which the client finds the server: a name or an address; several in order of
    /// preference [default: this machine's address on its default route]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// UDP ports as seen from outside [default: those that the server listens on]
    #[arg(long, value_name = "PORTS")]
    ports: Option<String>,
    #[command(flatten)]
    server: ServerTarget,
}

/// Options of `bondctl clients`.
#[derive(Debug, clap::Args)]
pub struct ClientsArguments {
    /// One line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerTarget,
}

/// Options of `bondctl expire`.
#[derive(Debug, clap::Args)]
pub struct ExpireArguments {
    /// The client, which was invited
    name: String,
    /// How long its key is valid from now on (90d, 12h, 2weeks, 1year), or never
    #[arg(value_name = "DURATION|never")]
    after: String,
    #[command(flatten)]
    server: ServerTarget,
}

/// Options of `bondctl revoke`.
#[derive(Debug, clap::Args)]
pub struct RevokeArguments {
    /// The client, or the invitation, to remove
    name: String,
    #[command(flatten)]
    server: ServerTarget,
}

/// The output of a command: on standard output, and on standard error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) result: String,
    pub(super) notes: Vec<String>,
}

pub(super) fn invite(arguments: InviteArguments) -> anyhow::Result<Said> {
    let InviteArguments { name, hosts, ports, server } = arguments;
    let invited: Invited = ask(&server, &Request::Invite { name, hosts, ports })?;
    Ok(said_of_invitation(&invited))
}

/// Writes the list to `out`. Its JSON is handed on as it comes; a table needs all of it first, to
/// know how wide its columns are.
pub(super) fn clients(
    arguments: &ClientsArguments,
    style: Style,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let ClientsArguments { json, server } = arguments;
    if *json {
        connect(server)?.copy(&Request::Clients, out)?;
    } else {
        let clients: Clients = ask(server, &Request::Clients)?;
        out.write_all(render(&clients, style).as_bytes()).context("standard output")?;
    }
    out.flush().context("standard output")
}

pub(super) fn revoke(arguments: RevokeArguments) -> anyhow::Result<Said> {
    let RevokeArguments { name, server } = arguments;
    let revoked: Revoked = ask(&server, &Request::Revoke { name })?;
    let what = if revoked.enrolled {
        "its key is forgotten and its session ended"
    } else {
        "its invitation is void"
    };
    Ok(Said { result: format!("{}: {what}\n", revoked.name), notes: Vec::new() })
}

pub(super) fn expire(arguments: ExpireArguments) -> anyhow::Result<Said> {
    let ExpireArguments { name, after, server } = arguments;
    let Expiring { name, expires } = ask(&server, &Request::Expire { name, after })?;
    let result = match expires {
        Some(expires) => format!("{name}: its key expires at {expires}\n"),
        None => format!("{name}: its key does not expire\n"),
    };
    Ok(Said { result, notes: Vec::new() })
}

/// Asks the server. Arguments that it would refuse are wrong usage, found before it is asked.
fn ask<T: serde::de::DeserializeOwned>(server: &ServerTarget, request: &Request) -> anyhow::Result<T> {
    request.command().map_err(Usage)?;
    let answer = connect(server)?.ask(request)?;
    serde_json::from_str(&answer).context("the running program is of another version than this bondctl")
}

fn connect(server: &ServerTarget) -> anyhow::Result<Ask> {
    Ask::connect(&server.socket).map_err(|error| match error {
        AskError::NotRunning(socket) => {
            anyhow::anyhow!("no server answers on {}: start bonding-server first", socket.display())
        }
        other @ (AskError::NotPermitted(_)
        | AskError::Io { .. }
        | AskError::Out(_)
        | AskError::Refused(_)) => other.into(),
    })
}

fn said_of_invitation(invited: &Invited) -> Said {
    let mut notes = Vec::new();
    if !invited.private.is_empty() {
        let addresses: Vec<String> = invited.private.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "warning: {} cannot be reached from the internet; if clients come from there, name an address that they reach: --host HOST",
            addresses.join(" and ")
        ));
    }
    notes.push(format!(
        "valid once, until {}; the line is a secret: any machine that has it can use it",
        invited.expires
    ));
    Said { result: format!("{}\n", invited.invitation), notes }
}

fn render(clients: &Clients, style: Style) -> String {
    let columns = ["CLIENT", "STATE", "ADDRESS", "ALLOW", "ORIGIN", "ENROLLED", "EXPIRES", "PEER", "KEY"];
    let mut table = Table::new(&columns.map(|title| (title, Align::Left)));
    let dash = || "–".to_owned();
    for client in &clients.clients {
        let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
        let colour = match client.state.as_str() {
            "up" => Colour::Green,
            "expired" => Colour::Red,
            _ => Colour::Yellow,
        };
        table.push(vec![
            client.name.as_str().into(),
            Cell::coloured(client.state.as_str(), colour),
            addresses.join(" ").into(),
            client.allow.join(" ").into(),
            client.origin.as_str().into(),
            client.enrolled.clone().unwrap_or_else(dash).into(),
            client.expires.clone().unwrap_or_else(dash).into(),
            client.peer.clone().unwrap_or_else(dash).into(),
            client.public_key.clone().unwrap_or_else(dash).into(),
        ]);
    }
    let mut text = if clients.clients.is_empty() {
        "  no client yet: `bondctl invite NAME` invites one\n".to_owned()
    } else {
        table.render(style)
    };
    for open in &clients.invitations {
        text.push_str(&format!("  {} is invited until {}\n", open.name, open.expires));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{KnownClient, OpenInvitation};

    #[test]
    fn an_invitation_is_one_line_and_its_notes_are_elsewhere() {
        let mut invited = Invited {
            invitation: "bond://203.0.113.7:9001-9005/AQAB".to_owned(),
            expires: "2025-11-23T00:00:00Z".to_owned(),
            private: Vec::new(),
        };
        let said = said_of_invitation(&invited);
        assert_eq!(said.result, "bond://203.0.113.7:9001-9005/AQAB\n");
        assert_eq!(
            said.notes,
            [
                "valid once, until 2025-11-23T00:00:00Z; the line is a secret: any machine that has it can use it"
            ]
        );
        invited.private = vec!["192.168.1.5".parse().unwrap()];
        let said = said_of_invitation(&invited);
        assert!(said.notes[0].starts_with("warning: 192.168.1.5 cannot be reached"), "{said:?}");
        assert!(said.notes[0].ends_with("--host HOST"), "{said:?}");
    }

    #[test]
    fn clients_are_a_table_and_invitations_lines_below() {
        let clients = Clients {
            clients: vec![KnownClient {
                name: "home".to_owned(),
                state: "up".to_owned(),
                origin: "invited".to_owned(),
                enrolled: Some("2025-11-22T00:00:00Z".to_owned()),
                expires: Some("2026-11-22T00:00:00Z".to_owned()),
                public_key: Some("AAEC".to_owned()),
                addresses: vec!["10.99.0.2".parse().unwrap(), "fd99::2".parse().unwrap()],
                allow: vec!["internet".to_owned(), "private".to_owned()],
                peer: Some("198.51.100.9:40000".to_owned()),
            }],
            invitations: vec![OpenInvitation {
                name: "van".to_owned(),
                expires: "2025-11-23T00:00:00Z".to_owned(),
            }],
        };
        assert_eq!(
            render(&clients, Style::PLAIN),
            "  CLIENT  STATE  ADDRESS            ALLOW             ORIGIN\n\
             \x20     ENROLLED              EXPIRES               PEER                KEY\n\
             \x20 home    up     10.99.0.2 fd99::2  internet private  invited\n\
             \x20     2025-11-22T00:00:00Z  2026-11-22T00:00:00Z  198.51.100.9:40000  AAEC\n\
             \x20 van is invited until 2025-11-23T00:00:00Z\n"
        );
        assert!(render(&Clients::default(), Style::PLAIN).contains("bondctl invite NAME"));
    }
}
