//! What a running client or server answers on its control socket, as JSON.
//!
//! The lists of clients and of flows come in portions, which make one line together: a server may
//! have 65,535 clients, and their list must neither be kept nor hold packets up. A portion of
//! clients is a page of the engine. Flows are sorted, so first all sessions are looked through, a
//! page for each portion without text, and those that were asked for are kept. All other answers
//! are one portion.

use std::time::SystemTime;
use std::vec;

use bonding_proto::endpoint::SessionId;
use serde::Serialize;

use super::reload::Configuration;
use crate::control::{self, Answers, Portion, Request};
use crate::engine::Running;
use crate::engine::command::{ClientsPage, Command, FlowsPage, ListPlace, NextPage, Reply};
use crate::events::{Events, Ring};
use crate::flows::{Flow, Top, Wanted};

/// Flows of one portion. Chosen: a portion takes a fraction of a millisecond.
const PORTION_FLOWS: usize = 64;
/// Events of one answer. Chosen: the same.
const ANSWER_EVENTS: usize = 128;

/// How a list goes on.
#[derive(Debug)]
pub(super) enum Listing {
    /// With the clients behind this place.
    Clients(ListPlace),
    /// With a look at the flows of the sessions behind this one.
    Search(SessionId, Box<Top>),
    /// With these flows, of so many.
    Flows(vec::IntoIter<Flow>, u64),
}

/// Answers from the running engine.
pub(super) struct Answering<'a> {
    pub(super) running: &'a mut dyn Running,
    pub(super) configuration: &'a Configuration,
    pub(super) ring: &'a Ring,
}

impl Answers for Answering<'_> {
    type Rest = Listing;

    fn answer(&mut self, request: Request) -> Portion<Listing> {
        let result = match (&request, request.command()) {
            (_, Err(why)) => Err(why),
            (Request::Version, _) => whole(&version()),
            (Request::Events { after }, _) => whole(&self.ring_after(*after)),
            (Request::Reload, _) => self.configuration.reload(self.running).and_then(|done| whole(&done)),
            (_, Ok(None)) => whole(&self.running.snapshot().status()),
            (_, Ok(Some(Command::Flows { after, wanted }))) => self.search(after, Top::new(wanted)),
            (_, Ok(Some(command))) => self.carry_out(command),
        };
        result.unwrap_or_else(failed)
    }

    fn proceed(&mut self, rest: Listing) -> Portion<Listing> {
        let result = match rest {
            Listing::Clients(after) => self.carry_out(Command::Clients { after: Some(after) }),
            Listing::Search(after, top) => self.search(Some(after), *top),
            Listing::Flows(flows, active) => flows_text(flows, active, false),
        };
        result.unwrap_or_else(failed)
    }

    fn figures(&mut self) -> String {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        match json(&self.running.snapshot().status()) {
            Ok(status) => format!("{{\"time\":\"{time}\",\"figures\":{status}}}"),
            Err(why) => control::error(&why),
        }
    }

    fn events(&self, after: u64) -> Option<(String, u64)> {
        let events = self.ring_after(after);
        let newest = events.events.last()?.number;
        Some((json(&events).ok()?, newest))
    }
}

impl Answering<'_> {
    fn ring_after(&self, after: u64) -> Events {
        let (events, lost) = self.ring.after(after, ANSWER_EVENTS);
        Events { events: events.cloned().collect(), lost }
    }

    fn carry_out(&mut self, command: Command) -> Result<Portion<Listing>, String> {
        let is_first = matches!(command, Command::Clients { after: None });
        let reply = self.running.command(command)?;
        if let Reply::Clients(page) = &reply { page_text(page, is_first) } else { whole(&reply) }
    }

    /// Looks at the flows of some sessions more.
    fn search(&mut self, after: Option<SessionId>, mut top: Top) -> Result<Portion<Listing>, String> {
        let wanted: Wanted = top.wanted();
        let Reply::Flows(FlowsPage { top: more, next }) =
            self.running.command(Command::Flows { after, wanted })?
        else {
            return Err("the engine answers another question".to_owned());
        };
        top.merge(more);
        match next {
            Some(next) => {
                Ok(Portion { text: String::new(), rest: Some(Listing::Search(next, Box::new(top))) })
            }
            None => {
                let active = top.active();
                flows_text(top.into_flows().collect::<Vec<_>>().into_iter(), active, true)
            }
        }
    }
}

/// The answer to a request for versions.
fn version() -> serde_json::Value {
    serde_json::json!({ "protocol": control::PROTOCOL, "program": env!("CARGO_PKG_VERSION") })
}

fn failed(why: String) -> Portion<Listing> {
    Portion { text: control::error(&why), rest: None }
}

fn whole(answer: &impl Serialize) -> Result<Portion<Listing>, String> {
    Ok(Portion { text: json(answer)?, rest: None })
}

/// `{"flows":[…],"active":…}`, portion by portion.
fn flows_text(
    mut flows: vec::IntoIter<Flow>,
    active: u64,
    is_first: bool,
) -> Result<Portion<Listing>, String> {
    let mut text = if is_first { "{\"flows\":[".to_owned() } else { String::new() };
    for (at, flow) in flows.by_ref().take(PORTION_FLOWS).enumerate() {
        if at > 0 || !is_first {
            text.push(',');
        }
        text.push_str(&json(&flow)?);
    }
    if flows.len() > 0 {
        return Ok(Portion { text, rest: Some(Listing::Flows(flows, active)) });
    }
    text.push_str(&format!("],\"active\":{active}}}"));
    Ok(Portion { text, rest: None })
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
        NextPage::After(after) => Some(Listing::Clients(*after)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loaded;
    use crate::flows::tests::offered;
    use crate::flows::{Flows, Sort};
    use crate::status::Snapshot;
    use crate::status::tests::snapshot;

    /// A server with so many sessions, each page one of them.
    struct Sessions(u16);

    impl Running for Sessions {
        fn snapshot(&self) -> Snapshot {
            snapshot(crate::status::Role::Server, Vec::new())
        }

        fn command(&mut self, command: Command) -> Result<Reply, String> {
            let Command::Flows { after, wanted } = command else { return Err("no".to_owned()) };
            let at = after.map_or(0, |SessionId(at)| at + 1);
            let next = (at + 1 < self.0).then_some(SessionId(at));
            Ok(Reply::Flows(FlowsPage { top: offered(wanted, u64::from(at)), next }))
        }
    }

    #[test]
    fn flows_come_in_portions_and_no_more_than_the_limit_is_kept() {
        let mut sessions = Sessions(300);
        let loaded = Loaded { config: (), file: String::new(), warnings: Vec::new() };
        let configuration = Configuration::new(&loaded, |_| unreachable!("it has no file"));
        let mut answering =
            Answering { running: &mut sessions, configuration: &configuration, ring: &Ring::default() };
        let mut portion = answering.answer(Request::Flows { limit: 200, sort: Sort::Bytes });
        let (mut text, mut portions, mut largest) = (String::new(), 0, 0);
        while let Some(rest) = portion.rest {
            (portions, largest) = (portions + 1, largest.max(portion.text.len()));
            text.push_str(&portion.text);
            if let Listing::Search(_, top) = &rest {
                assert!(top.clone().into_flows().count() <= 200);
            }
            portion = answering.proceed(rest);
        }
        text.push_str(&portion.text);
        let flows: Flows = serde_json::from_str(&text).unwrap();
        assert_eq!((flows.flows.len(), flows.active), (200, 900));
        assert_eq!((portions, largest < 40_000), (302, true), "{largest}");
        assert!(flows.flows.windows(2).all(|two| two[0].up_bytes >= two[1].up_bytes));
    }
}
