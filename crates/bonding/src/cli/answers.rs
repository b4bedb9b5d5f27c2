//! What a running client or server answers on its control socket, as JSON.
//!
//! The list of clients comes in portions, a page of the engine each, which make one line together:
//! a server may have 65,535 clients, and their list must neither be kept nor hold packets up. All
//! other answers are one portion.

use serde::Serialize;

use crate::control::{self, Answers, Portion, Request};
use crate::engine::Running;
use crate::engine::command::{ClientsPage, Command, ListPlace, NextPage, Reply};

/// How a list of clients goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    after: ListPlace,
}

/// Answers from the running engine.
pub(super) struct Answering<'a>(pub(super) &'a mut dyn Running);

impl Answers for Answering<'_> {
    type Rest = Listing;

    fn answer(&mut self, request: Request) -> Portion<Listing> {
        let result = match request.command() {
            Ok(None) => whole(&self.0.snapshot().status()),
            Ok(Some(command)) => self.carry_out(command),
            Err(why) => Err(why),
        };
        result.unwrap_or_else(failed)
    }

    fn proceed(&mut self, Listing { after }: Listing) -> Portion<Listing> {
        self.carry_out(Command::Clients { after: Some(after) }).unwrap_or_else(failed)
    }
}

impl Answering<'_> {
    fn carry_out(&mut self, command: Command) -> Result<Portion<Listing>, String> {
        let is_first = matches!(command, Command::Clients { after: None });
        let reply = self.0.command(command)?;
        if let Reply::Clients(page) = &reply { page_text(page, is_first) } else { whole(&reply) }
    }
}

fn failed(why: String) -> Portion<Listing> {
    Portion { text: control::error(&why), rest: None }
}

fn whole(answer: &impl Serialize) -> Result<Portion<Listing>, String> {
    Ok(Portion { text: json(answer)?, rest: None })
}

/// `{"clients":[…],"invitations":[…]}`, page by page.
fn page_text(page: &ClientsPage, is_first: bool) -> Result<Portion<Listing>, String> {
    let mut text = if is_first { "{\"clients\":[".to_owned() } else { String::new() };
    for (at, client) in page.clients.iter().enumerate() {
        if at > 0 || !is_first {
            text.push(',');
        }
        text.push_str(&json(client)?);
    }
    let rest = match &page.next {
        NextPage::After(after) => Some(Listing { after: *after }),
        NextPage::End(invitations) => {
            text.push_str(&format!("],\"invitations\":{}}}", json(invitations)?));
            None
        }
    };
    Ok(Portion { text, rest })
}

fn json(answer: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(answer).map_err(|error| error.to_string())
}
