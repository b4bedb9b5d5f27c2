//! `bondctl rekey`: a new key for the client that runs here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::control::{Ask, Request};
use crate::engine::command::Rekeying;
use crate::status::{Key, Status};

/// How long the server may take. Chosen: several attempts of a handshake.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the status.
const PAUSE: Duration = Duration::from_millis(200);

/// Has a new key made and waits until the server has accepted it; gives a sentence.
pub(super) fn rekey(socket: &Path) -> anyhow::Result<String> {
    let mut ask = Ask::connect(socket)?;
    let other = "the running program is of another version than this bondctl";
    let made: Rekeying = serde_json::from_str(&ask.ask(&Request::Rekey)?).context(other)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let status: Status = serde_json::from_str(&ask.ask(&Request::Status)?).context(other)?;
        match state(status.key.as_ref(), &made.public_key) {
            State::Accepted => return Ok(format!("this client's key is {}", made.public_key)),
            State::Refused(why) => bail!("the server refused the new key, the old one stays in use: {why}"),
            State::Pending if Instant::now() >= end => bail!(
                "the server has not accepted the new key yet; the old one stays in use, and every handshake shows \
                 the new one: `bondctl status --json` says under `key` when it is accepted"
            ),
            State::Pending => std::thread::sleep(PAUSE),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Accepted,
    Refused(String),
    Pending,
}

/// What has become of the new key `made`.
fn state(key: Option<&Key>, made: &str) -> State {
    match key {
        Some(key) if key.public_key == made => State::Accepted,
        Some(Key { next: None, next_refused: Some(why), .. }) => State::Refused(why.clone()),
        Some(_) | None => State::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_pending_until_it_is_accepted_or_refused() {
        let mut key = Key { public_key: "old".into(), next: Some("new".into()), next_refused: None };
        assert_eq!(state(Some(&key), "new"), State::Pending);
        (key.next, key.next_refused) = (None, Some("why".into()));
        assert_eq!(state(Some(&key), "new"), State::Refused("why".into()));
        (key.public_key, key.next_refused) = ("new".into(), None);
        assert_eq!(state(Some(&key), "new"), State::Accepted);
    }
}
