//! What only sealed links have: keys, a client's handshakes, the exchanges after them, and the
//! random draws that both sides' challenges need. It knows links by their states and addresses.

mod dialer;
mod exchange;
mod keyring;

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use zeroize::Zeroizing;

use self::dialer::Dialer;
pub(super) use self::dialer::Shown;
use self::exchange::Exchange;
pub(super) use self::keyring::{KeyLimits, Keyring, SEALING_BYTES, SealedAs};
use super::link_table::{LinkTable, Transition};
use crate::config::ClientSealing;
use crate::crypto::keys::{PresharedKey, PrivateKey};
use crate::crypto::rng::SecretRng;
use crate::discard::Discard;
use crate::handshake::{Outcome, SecretName, SharedSecret, TransportKeys, Welcome};
use crate::link::Arrival;
use crate::packet::{Datagram, LinkId, Transmit, UdpFlow};
use crate::time::Instant;
use crate::view::LinkState;
use crate::wire::control::CloseReason;
use crate::wire::exchange::ExchangeFrame;
use crate::wire::sealed::{SEALED_HEADER_BYTES, SealedHeader};

/// Where the server asked for a cookie, keys are renewed for a secret's sake so much later, and up
/// to [`LOADED_JITTER_MAX_US`] µs more. Chosen: a thousand clients that come at once have keys by
/// then.
const LOADED_PAUSE: Duration = Duration::from_secs(2);
const LOADED_JITTER_MAX_US: u64 = 8_000_000;

/// What opening a datagram told.
#[derive(Debug)]
pub(super) struct OpenedDatagram {
    /// No newer datagram of this link was seen.
    pub(super) newest: bool,
    /// The client used these keys for the first time: the peer's run that they belong to.
    pub(super) confirmed: Option<u32>,
    /// The UDP flow that it came on.
    pub(super) flow: UdpFlow,
    /// For the link. Frames that ask for feedback are read later.
    pub(super) arrival: Arrival,
}

/// Keys and handshakes of one session.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) keyring: Keyring,
    /// A client with sealed links.
    dialer: Option<Dialer>,
    /// Draws challenges and what else must not be guessed.
    rng: SecretRng,
    /// Secrets for later handshakes.
    exchange: Exchange,
    /// What the server leased to this client.
    lease: Option<Welcome>,
}

impl Sealing {
    /// `seed` is drawn from where there are no handshakes to draw from.
    pub(super) fn new(client: Option<ClientSealing>, seed: u64, epoch: u32, now: Instant) -> Self {
        // Flow hashes and challenges come from different draws.
        let entropy = client.as_ref().map_or_else(|| seeded(seed), |client| client.entropy);
        let mut rng = SecretRng::new(*Zeroizing::new(entropy));
        let dialer = client.map(|mut client| {
            rng.fill(&mut client.entropy);
            Dialer::new(client, epoch, now)
        });
        Self {
            keyring: Keyring::new(KeyLimits::DEFAULT),
            dialer,
            rng,
            exchange: Exchange::default(),
            lease: None,
        }
    }

    /// Whether a sealed datagram or a response with this receiver index is for this session.
    pub(super) fn owns(&self, local_index: u32) -> bool {
        self.keyring.owns(local_index) || self.dialer.as_ref().is_some_and(|dialer| dialer.owns(local_index))
    }

    /// Opens a sealed datagram: gives the link that it names, and its frames.
    pub(super) fn open(
        &mut self,
        datagram: Datagram,
        links: &LinkTable,
        now: Instant,
    ) -> Result<(LinkId, OpenedDatagram, Bytes), Discard> {
        let Datagram { path, mut data, waited, is_marked } = datagram;
        let bytes = data.len();
        let header = SealedHeader::parse(&data)?;
        let id = LinkId(header.link);
        let flow = UdpFlow::new(header.flow).ok_or(Discard::UnknownPeer)?;
        if !links.accepts_sealed(id, flow, &path) {
            return Err(Discard::UnknownPeer);
        }
        let had_keys = self.keyring.cipher().is_some();
        let opened = self.keyring.open(&header, &mut data, now);
        if had_keys
            && self.keyring.cipher().is_none()
            && let Some(dialer) = &mut self.dialer
        {
            dialer.on_keys_gone(now);
        }
        let opened = opened?;
        data.truncate(SEALED_HEADER_BYTES + opened.size);
        data.advance(SEALED_HEADER_BYTES);
        let arrival = Arrival {
            key: header.receiver_index,
            is_current: opened.is_current,
            counter: header.counter,
            stamp: header.stamp,
            at: now.saturating_sub(waited),
            bytes,
            asks: false,
            is_marked,
        };
        let opened = OpenedDatagram { newest: opened.newest, confirmed: opened.confirmed, flow, arrival };
        Ok((id, opened, data.freeze()))
    }

    /// What a server told its client in the handshake.
    pub(super) const fn lease(&self) -> Option<&Welcome> {
        self.lease.as_ref()
    }

    /// Takes the server's welcome. Whether it leases anything else than before.
    pub(super) fn set_lease(&mut self, welcome: Welcome) -> bool {
        let changed = self.lease.as_ref() != Some(&welcome);
        self.lease = Some(welcome);
        changed
    }

    /// A token for a challenge.
    pub(super) fn token(&mut self) -> [u8; 8] {
        self.rng.next_u64().to_be_bytes()
    }

    /// Whether [`Self::on_time`] may draw secrets.
    pub(super) fn draws_secrets(&self, now: Instant) -> bool {
        let is_due = self.dialer.as_ref().is_some_and(|dialer| dialer.is_due(now));
        is_due || self.keyring.is_over(now) || self.keyring.is_used_up() || self.exchange.renews(now)
    }

    /// What is drawn depends on `entropy` as well.
    pub(super) fn mix_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.mix(entropy);
        if let Some(dialer) = &mut self.dialer {
            dialer.mix_entropy(entropy);
        }
    }

    /// The keys may be those of a copy of this machine: they serve no longer. Names another run.
    pub(super) fn forget_keys(&mut self, unseen: Duration, now: Instant) -> u32 {
        self.keyring.clear();
        self.exchange.abandon();
        let epoch = self.rng.next_u32();
        if let Some(dialer) = &mut self.dialer {
            dialer.on_keys_forgotten(epoch, unseen, now);
        }
        epoch
    }

    /// A handshake is done: a client's keys, used from now on. Keys of another run of the peer go.
    pub(super) fn install(
        &mut self,
        keys: TransportKeys,
        welcome: &Welcome,
        is_same_run: bool,
        now: Instant,
    ) {
        if !is_same_run {
            self.keyring.drop_previous();
        }
        self.exchange.begin(keys.secret, keys.local_index, welcome.exchanges, now);
        self.keyring.install(keys, welcome.epoch, now);
    }

    /// The client used a server's keys for the first time. They may be of another run of it.
    pub(super) fn on_confirmed(&mut self, is_same_run: bool) {
        if !is_same_run {
            // A client that was restarted may come with other links over other ways.
            self.keyring.drop_previous();
        }
        self.exchange.keep(self.keyring.secret());
    }

    /// The secret that a client's handshake names, if this side still has it.
    pub(super) fn secret(&self, name: SecretName) -> Option<&SharedSecret> {
        self.exchange.secret(name)
    }

    /// A frame of an exchange.
    pub(super) fn on_exchange(
        &mut self,
        link: LinkId,
        frame: &ExchangeFrame<'_>,
        now: Instant,
    ) -> Result<(), Discard> {
        // A client offers, its server answers.
        let is_for_client = matches!(frame, ExchangeFrame::Ciphertext { .. });
        if is_for_client != self.dialer.is_some() {
            return Err(Discard::KindUnsupported);
        }
        self.exchange.on_frame(link, frame, &self.keyring, &mut self.rng, now)?;
        let is_loaded = self.dialer.as_ref().is_some_and(Dialer::has_cookie);
        if is_for_client && is_loaded {
            let jitter = Duration::from_micros(self.rng.next_u64() % LOADED_JITTER_MAX_US);
            self.exchange.postpone_renewal(LOADED_PAUSE + jitter);
        }
        Ok(())
    }

    /// What the peer's exchanges cost, in places of 100 ns.
    pub(super) const fn touched(&self) -> u64 {
        self.exchange.touched()
    }

    /// This side ends the session: no handshake begins any more.
    pub(super) fn hang_up(&mut self) {
        self.dialer = None;
    }

    /// The peer ended the session, and forgot its secrets.
    pub(super) fn on_closed(&mut self, reason: CloseReason, now: Instant) {
        self.exchange.forget();
        if let Some(dialer) = &mut self.dialer {
            dialer.on_closed(reason, now);
        }
    }

    /// Time has passed: keys expire, handshakes begin. Whether the keys in use expired. Without
    /// `may_draw`, which [`Self::draws_secrets`] told before this input, a handshake that is due
    /// waits for the next one: the driver has given no entropy for it.
    pub(super) fn on_time(&mut self, links: &LinkTable, may_draw: bool, now: Instant) -> bool {
        let gone = self.keyring.on_time(now);
        let Some(dialer) = &mut self.dialer else { return gone };
        if gone || self.keyring.is_used_up() || self.exchange.renews(now) {
            dialer.on_keys_gone(now);
        }
        if !may_draw {
            return gone;
        }
        let targets = links.sealed().flat_map(|link| {
            let id = link.id();
            link.path().candidates().iter().map(move |path| (id, *path))
        });
        dialer.on_time(targets, self.exchange.newest(), now);
        gone
    }

    /// A link's state changed: a client may need new keys, or have what it needs.
    pub(super) fn on_transition(&mut self, transition: Transition, links: &LinkTable, now: Instant) {
        let Some(dialer) = &mut self.dialer else { return };
        if transition.after == LinkState::Up {
            dialer.on_proven(self.keyring.rekey_at());
        } else if transition.before == LinkState::Up && !links.has_proven() {
            dialer.on_unproven(now);
        }
    }

    /// There are new keys: a link that is proven needs no others.
    pub(super) fn note_proven(&mut self, links: &LinkTable) {
        if let Some(dialer) = self.dialer.as_mut().filter(|_| links.has_proven()) {
            dialer.on_proven(self.keyring.rekey_at());
        }
    }

    /// A link's interface has its carrier. Where no link is proven, a handshake goes over it at
    /// once, rather than after the pause.
    pub(super) fn on_carrier_found(&mut self, id: LinkId, links: &LinkTable, now: Instant) {
        let Some(dialer) = &mut self.dialer else { return };
        if links.is_sealed(id) && !links.has_proven() {
            dialer.on_link_found(self.keyring.can_seal(now), now);
        }
    }

    /// A link that is down has another socket, or sends to another address. Where no link is
    /// proven, a handshake goes over it soon, and the pauses of later ones stay as they are.
    pub(super) fn on_link_moved(&mut self, id: LinkId, links: &LinkTable, now: Instant) {
        let Some(dialer) = &mut self.dialer else { return };
        if links.is_sealed(id) && !links.has_proven() {
            dialer.on_link_moved(now);
        }
    }

    /// A key is to take the place of the client's key.
    pub(super) fn rotate(&mut self, next: PrivateKey, now: Instant) {
        if let Some(dialer) = &mut self.dialer {
            dialer.rotate(next, now);
        }
    }

    /// The client was enrolled anew, and shares this with the server.
    pub(super) fn enrol_anew(&mut self, preshared: PresharedKey, run: u64, now: Instant) {
        if let Some(dialer) = &mut self.dialer {
            dialer.enrol_anew(preshared, run, now);
        }
    }

    /// The server knows that key, and no other.
    pub(super) fn adopt_next(&mut self) {
        if let Some(dialer) = &mut self.dialer {
            dialer.adopt_next();
        }
    }

    /// The due message of a handshake, or of the exchange after it, if any.
    pub(super) fn transmit_handshake(
        &mut self,
        buf: &mut Vec<u8>,
        links: &mut LinkTable,
        now: Instant,
    ) -> Option<Transmit> {
        let Self { dialer, keyring, exchange, rng, .. } = self;
        let Some(dialer) = dialer.as_mut().filter(|dialer| dialer.has_output()) else {
            return exchange.transmit(buf, (links, keyring), rng, now);
        };
        let start = buf.len();
        let (link, path) = dialer.poll_transmit(buf)?;
        let size = buf.len() - start;
        Some(Transmit::new(link, path, size, size))
    }

    /// A server's response to a handshake, over a link that accepts datagrams from its path.
    pub(super) fn on_response(
        &mut self,
        datagram: &Datagram,
        links: &LinkTable,
        now: Instant,
    ) -> Result<(Outcome, Shown), Discard> {
        let link = links.get(datagram.path.socket.link());
        link.filter(|link| link.path().accepts_from(&datagram.path)).ok_or(Discard::UnknownPeer)?;
        let dialer = self.dialer.as_mut().ok_or(Discard::KindUnsupported)?;
        let (outcome, shown) = dialer.on_response(&datagram.data, now)?;
        if matches!(outcome, Outcome::Refused(_)) {
            self.exchange.cancel_renewal();
        }
        Ok((outcome, shown))
    }

    /// A server under load asks for the handshake again, with a cookie.
    pub(super) fn on_cookie(
        &mut self,
        datagram: &Datagram,
        links: &LinkTable,
        now: Instant,
    ) -> Result<(), Discard> {
        let path = datagram.path;
        let id = path.socket.link();
        let link =
            links.get(id).filter(|link| link.path().accepts_from(&path)).ok_or(Discard::UnknownPeer)?;
        let known = link.path().candidates().iter().find(|known| known.remote == path.remote).copied();
        let dialer = self.dialer.as_mut().ok_or(Discard::KindUnsupported)?;
        dialer.on_cookie(&datagram.data, id, known.unwrap_or(path), now)
    }

    /// When the next handshake is due, or something of the exchange after it.
    pub(super) fn handshake_timeout(&self) -> Option<Instant> {
        let dialer = self.dialer.as_ref().and_then(Dialer::poll_timeout);
        // With an attempt under way the renewal waits for it.
        let renewal = self
            .exchange
            .renewal_at()
            .filter(|_| self.dialer.as_ref().is_some_and(|dialer| !dialer.is_open()));
        [dialer, self.exchange.poll_timeout(), renewal].into_iter().flatten().min()
    }
}

/// A server's session draws challenges only: its endpoint draws the seed, which cannot be guessed.
fn seeded(seed: u64) -> [u8; 32] {
    let mut entropy = [0; 32];
    if let Some(head) = entropy.first_chunk_mut() {
        *head = seed.to_be_bytes();
    }
    entropy
}
