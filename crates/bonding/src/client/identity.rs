//! The client's key, the pre-shared key that goes with it, and the next key, which is to take the
//! key's place.
//!
//! A next key is on the disk before a server hears of it, and takes the name of the key's file when
//! the server has said that it knows this client by it. Whenever the process dies, the key that the
//! server knows is in one of the two files, and a client that finds both shows both to the server
//! in turn (`bonding_proto::session`). There is no other fallback: a client that has a pre-shared
//! key uses it in every handshake.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bonding_proto::Instant;
use bonding_proto::config::ClientSealing;
use bonding_proto::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use bonding_proto::event::Event;

use crate::engine::events::why;
use crate::engine::plan::SealingPlan;
use crate::engine::{RunError, cipher, setup};
use crate::state::{StateError, keys, preshared, run};
use crate::status;

/// The keys of a client, as files and as people see them.
#[derive(Debug)]
pub(super) struct Identity {
    file: PathBuf,
    public: PublicKey,
    next: Option<PublicKey>,
    /// Why the server refused the last next key.
    refused: Option<&'static str>,
    server: PublicKey,
    /// What a join wrote down; `None`: the configuration has it.
    joined: Option<Option<PresharedKey>>,
    /// When to look whether the client has joined anew; `None`: the bond is up.
    look_at: Option<Instant>,
}

/// Between two looks at what a join wrote down, while the bond is down. Chosen: at once for a
/// person, and a small file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Identity {
    /// Reads the keys and begins a run.
    pub(super) fn load(plan: &SealingPlan) -> Result<(Self, ClientSealing), RunError> {
        let SealingPlan { server, private_key_file: file, preshared_key_file } = plan;
        let identity = keys::load(file).map_err(RunError::NoIdentity)?;
        let (preshared, origin) = match preshared_key_file {
            // The configuration counts: the server has this client in its own.
            Some(file) => (Some(keys::load_preshared(file)?), "configured"),
            None => match preshared::load(&preshared::file(file), server)? {
                Some(preshared) => (Some(preshared), "joined"),
                None => (None, "none"),
            },
        };
        let next = match keys::load(&keys::next_file(file)) {
            Err(StateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            next => Some(next?),
        };
        let public = identity.public();
        tracing::info!(
            public_key = keys::show(&public), file = %file.display(), preshared_key = origin, "this client's key"
        );
        let known = Self {
            file: file.clone(),
            public,
            next: next.as_ref().map(PrivateKey::public),
            refused: None,
            server: *server,
            joined: preshared_key_file.is_none().then(|| preshared.clone()),
            look_at: None,
        };
        let sealing = ClientSealing {
            identity,
            server: *server,
            preshared,
            aes_fast: cipher::aes_is_fast(),
            run: run::next(&run::file(file), SystemTime::now()),
            entropy: setup::entropy()?,
            token: None,
            next,
        };
        Ok((known, sealing))
    }

    /// The bond is up or down.
    pub(super) fn follow(&mut self, is_up: bool, now: Instant) {
        self.look_at = if is_up { None } else { self.look_at.or(Some(now + LOOK_INTERVAL)) };
    }

    /// When [`Self::look`] has work.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at.filter(|_| self.joined.is_some())
    }

    /// Looks whether this client has joined anew beside this process: what it shares with the
    /// server since then, and another run.
    pub(super) fn look(&mut self, now: Instant) -> Option<(PresharedKey, u64)> {
        self.due().filter(|due| *due <= now)?;
        self.look_at = Some(now + LOOK_INTERVAL);
        let known = self.joined.as_mut()?;
        // A file that cannot be read says nothing new.
        let found = preshared::load(&preshared::file(&self.file), &self.server).ok()??;
        if known.as_ref() == Some(&found) {
            return None;
        }
        *known = Some(found.clone());
        self.next = None;
        tracing::info!("this client has joined the server anew");
        Some((found, run::next(&run::file(&self.file), SystemTime::now())))
    }

    /// A next key: the one that is on the disk already, or a new one.
    pub(super) fn make_next(&mut self) -> Result<PrivateKey, StateError> {
        let (next, _) = keys::load_or_make(&keys::next_file(&self.file))?;
        self.next = Some(next.public());
        self.refused = None;
        Ok(next)
    }

    /// The server has decided about the next key.
    pub(super) fn on_event(&mut self, event: &Event) {
        let next_file = keys::next_file(&self.file);
        let written = if *event == Event::KeyReplaced {
            // Sessions with several hosts of the server may each be told.
            let Some(next) = self.next.take() else { return };
            self.public = next;
            keys::promote(&next_file, &self.file)
        } else if let Event::KeyRefused(refusal) = event {
            self.next = None;
            self.refused = Some(why(*refusal));
            keys::discard(&next_file)
        } else {
            return;
        };
        if let Err(error) = written {
            tracing::error!(%error, "the client's new key stays beside the old one; the next start shows both");
        }
    }

    /// For the status.
    pub(super) fn status(&self) -> status::Key {
        status::Key {
            public_key: keys::show(&self.public),
            next: self.next.as_ref().map(keys::show),
            next_refused: self.refused.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use bonding_proto::handshake::Refusal;

    use super::*;

    /// A folder with a client's key.
    fn place() -> (tempfile::TempDir, SealingPlan) {
        let folder = tempfile::tempdir().unwrap();
        let private_key_file = folder.path().join("client.key");
        keys::load_or_make(&private_key_file).unwrap();
        (folder, SealingPlan { server: PublicKey([9; 32]), private_key_file, preshared_key_file: None })
    }

    #[test]
    fn a_next_key_outlives_a_crash_and_takes_the_place_when_it_is_known() {
        let (_folder, plan) = place();
        let (mut identity, sealing) = Identity::load(&plan).unwrap();
        assert!(sealing.next.is_none() && sealing.preshared.is_none());
        let next = identity.make_next().unwrap();
        assert!(identity.make_next().unwrap() == next, "asked twice, one key");
        drop(identity);
        let (mut identity, sealing) = Identity::load(&plan).unwrap();
        assert!(sealing.next == Some(next.clone()));
        assert_eq!(identity.status().next, Some(keys::show(&next.public())));
        identity.on_event(&Event::KeyReplaced);
        identity.on_event(&Event::KeyReplaced);
        assert_eq!(identity.status().public_key, keys::show(&next.public()));
        let (_, sealing) = Identity::load(&plan).unwrap();
        assert!(sealing.identity == next && sealing.next.is_none());
    }

    #[test]
    fn a_refused_key_is_gone_and_the_old_one_stays() {
        let (_folder, plan) = place();
        let (mut identity, before) = Identity::load(&plan).unwrap();
        identity.make_next().unwrap();
        identity.on_event(&Event::KeyRefused(Refusal::Refused));
        assert_eq!(identity.status().next_refused.as_deref(), Some("the server's log says why"));
        let (_, sealing) = Identity::load(&plan).unwrap();
        assert!(sealing.identity == before.identity && sealing.next.is_none());
    }

    #[test]
    fn a_new_join_is_seen_while_the_bond_is_down() {
        let (_folder, plan) = place();
        let (mut identity, before) = Identity::load(&plan).unwrap();
        let later = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        identity.follow(false, later(1));
        assert!(identity.look(later(9)).is_none(), "none yet");
        let joined = PresharedKey::from_bytes([5; 32]);
        preshared::store(&preshared::file(&plan.private_key_file), &plan.server, &joined).unwrap();
        identity.follow(true, later(10));
        assert!(identity.look(later(20)).is_none(), "it is up");
        identity.follow(false, later(21));
        assert!(identity.look(later(21)).is_none(), "not yet");
        let (found, run) = identity.look(later(22)).unwrap();
        assert!(found == joined && run > before.run);
        assert!(identity.look(later(30)).is_none(), "once");
    }

    #[test]
    fn a_configured_pre_shared_key_counts_before_that_of_a_join() {
        let (folder, mut plan) = place();
        let joined = bonding_proto::crypto::keys::PresharedKey::from_bytes([5; 32]);
        preshared::store(&preshared::file(&plan.private_key_file), &plan.server, &joined).unwrap();
        assert!(Identity::load(&plan).unwrap().1.preshared == Some(joined));
        let file = folder.path().join("shared.key");
        let (shared, _) = keys::load_or_make(&file).unwrap();
        plan.preshared_key_file = Some(file);
        let (_, sealing) = Identity::load(&plan).unwrap();
        assert!(sealing.preshared.as_ref().is_some_and(|key| key.bytes() == shared.bytes()));
    }
}
