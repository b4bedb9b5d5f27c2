//! Why a server should know a client key that it does not know yet: the client was invited, or had
//! another key before.
//!
//! A claim is part of [`Hello`](super::Hello), so it travels sealed to the server's key. The server
//! answers with a pre-shared key mixed in last (`psk2`), and so does not know whether the client
//! has that key when it reads the first message. Each claim therefore has a proof of its own: the
//! server writes nothing down for a message whose sender only copied what is not secret.
//!
//! An invitation's token never travels. Its hash is an [`InvitationKey`], which gives everything
//! else: the id by which the server finds the invitation, the proof, and the pre-shared key of this
//! client and this server, for the handshake that enrols the client and for all later ones. All
//! three are keyed BLAKE2s over different labels.
//!
//! A client proves its older key as Noise proves a static key: by the secret that both static keys
//! agree on. The pre-shared key is part of the proof, so that a stolen private key alone moves no
//! client to a thief's key.
//!
//! Decided: docs/decisions/0061-the-invitation-is-the-pre-shared-key.md and
//! docs/decisions/0062-a-new-key-is-shown-in-a-handshake.md.

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use blake2::digest::{FixedOutput as _, Mac as _};
use blake2::{Blake2s256, Blake2sMac256, Digest as _};
use zeroize::Zeroizing;

use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey, Token};
use crate::discard::Discard;

use super::mac::{MAC_BYTES, mac, verify};

/// Names an invitation on the wire. It is derived from the token, and gives nothing of it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvitationId(pub [u8; MAC_BYTES]);

/// The hash of an invitation's token. It is as secret as the token.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationKey(Zeroizing<[u8; 32]>);

impl InvitationKey {
    /// Of a token.
    pub fn new(token: &Token) -> Self {
        Self::from_bytes(Blake2s256::digest(token.bytes()).into())
    }

    /// As it was written down.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be written down.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name of the invitation.
    pub fn id(&self) -> InvitationId {
        InvitationId(mac(self.0.as_slice(), &[b"invitation id---"]))
    }

    /// The key that `client` and `server` share from the client's enrolment on.
    pub fn preshared(&self, server: &PublicKey, client: &PublicKey) -> PresharedKey {
        let mut state = Blake2sMac256::new_from_slice(self.0.as_slice()).expect("a key of 32 bytes");
        for part in [b"pre-shared key--".as_slice(), &server.0, &client.0] {
            state.update(part);
        }
        PresharedKey::from_bytes(state.finalize_fixed().into())
    }

    /// What `client` claims with this invitation.
    pub fn claim(&self, server: &PublicKey, client: &PublicKey) -> Claim {
        let proof = mac(self.0.as_slice(), &[b"invitation proof", &server.0, &client.0]);
        Claim::Invitation { id: self.id(), proof }
    }

    /// Whether `proof` shows that `client` has this invitation.
    pub fn proves(&self, server: &PublicKey, client: &PublicKey, proof: &[u8; MAC_BYTES]) -> bool {
        verify(self.0.as_slice(), &[b"invitation proof", &server.0, &client.0], proof)
    }
}

impl std::fmt::Debug for InvitationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InvitationKey(…)")
    }
}

/// Why the server should know the client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The client was invited.
    Invitation {
        /// The invitation.
        id: InvitationId,
        /// The proof that the client has its token.
        proof: [u8; MAC_BYTES],
    },
    /// The client's key takes the place of an older one.
    Rotation {
        /// The older key, which the server knows.
        old: PublicKey,
        /// The proof that its owner chose the new key.
        proof: [u8; MAC_BYTES],
    },
}

impl Claim {
    /// The claim that `new` takes the place of the client's key `old` at `server`.
    ///
    /// # Errors
    /// `server` is no public key.
    pub fn rotation(
        old: &PrivateKey,
        new: &PublicKey,
        server: &PublicKey,
        psk: Option<&PresharedKey>,
    ) -> Result<Self, Discard> {
        let public = old.public();
        let rotation = Rotation { server, old: &public, new };
        let shared = agree(old, server)?;
        let proof = mac(rotation.key(psk), &rotation.parts(&shared));
        Ok(Self::Rotation { old: public, proof })
    }
}

/// The keys of a rotation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation<'a> {
    pub(super) server: &'a PublicKey,
    pub(super) old: &'a PublicKey,
    pub(super) new: &'a PublicKey,
}

impl Rotation<'_> {
    /// Checks, with the server's private key, the proof of the owner of the old key.
    pub(super) fn verify(
        &self,
        server: &PrivateKey,
        psk: Option<&PresharedKey>,
        proof: &[u8; MAC_BYTES],
    ) -> Result<(), Discard> {
        let shared = agree(server, self.old)?;
        let is_proven = verify(self.key(psk), &self.parts(&shared), proof);
        is_proven.then_some(()).ok_or(Discard::Unauthenticated)
    }

    fn key<'a>(&self, psk: Option<&'a PresharedKey>) -> &'a [u8; 32] {
        psk.map_or(&[0; 32], PresharedKey::bytes)
    }

    fn parts<'a>(&'a self, shared: &'a Zeroizing<[u8; 32]>) -> [&'a [u8]; 5] {
        [b"key rotation----", shared.as_slice(), &self.server.0, &self.old.0, &self.new.0]
    }
}

/// X25519; a shared secret of zeros is an error (RFC 7748 §6.1).
fn agree(private: &PrivateKey, public: &PublicKey) -> Result<Zeroizing<[u8; 32]>, Discard> {
    let private = agreement::PrivateKey::from_private_key(&agreement::X25519, private.bytes());
    let public = UnparsedPublicKey::new(&agreement::X25519, &public.0);
    let failed = Discard::Unauthenticated;
    let private = private.map_err(|_| failed)?;
    agreement::agree(&private, public, failed, |shared| {
        shared.first_chunk().map(|shared| Zeroizing::new(*shared)).ok_or(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::hex;

    fn key(number: u8) -> PrivateKey {
        PrivateKey::from_bytes([number; 32])
    }

    #[test]
    fn an_invitation_proves_one_client_to_one_server() {
        let invitation = InvitationKey::new(&Token::from_bytes([0xab; 16]));
        let [server, client, other] = [1, 2, 3].map(|number| key(number).public());
        let Claim::Invitation { id, proof } = invitation.claim(&server, &client) else { panic!() };
        assert_eq!(id, invitation.id());
        assert!(invitation.proves(&server, &client, &proof));
        assert!(!invitation.proves(&server, &other, &proof));
        assert!(!invitation.proves(&other, &client, &proof));
        let another = InvitationKey::new(&Token::from_bytes([0xac; 16]));
        assert!(!another.proves(&server, &client, &proof) && another.id() != id);
        assert!(invitation.preshared(&server, &client) == invitation.preshared(&server, &client));
        assert!(invitation.preshared(&server, &client) != invitation.preshared(&server, &other));
        assert!(invitation.preshared(&server, &client) != another.preshared(&server, &client));
        assert_eq!(format!("{invitation:?}"), "InvitationKey(…)");
    }

    #[test]
    fn a_rotation_needs_the_old_key_and_the_pre_shared_one() {
        let (server, old, new) = (key(1), key(2), key(3));
        let psk = PresharedKey::from_bytes([7; 32]);
        let publics = [server.public(), old.public(), new.public()];
        let [server_public, old_public, new_public] = &publics;
        let check = |claim: Claim, new: &PublicKey, psk: Option<&PresharedKey>| {
            let Claim::Rotation { old, proof } = claim else { panic!() };
            assert_eq!(old, *old_public);
            Rotation { server: server_public, old: &old, new }.verify(&server, psk, &proof)
        };
        for psk in [None, Some(&psk)] {
            let claim = Claim::rotation(&old, new_public, server_public, psk).unwrap();
            assert_eq!(check(claim, new_public, psk), Ok(()));
            assert_eq!(check(claim, server_public, psk), Err(Discard::Unauthenticated), "another new key");
        }
        let claim = Claim::rotation(&old, new_public, server_public, None).unwrap();
        assert_eq!(check(claim, new_public, Some(&psk)), Err(Discard::Unauthenticated), "a thief without it");
        // A claim of another's key.
        let Claim::Rotation { proof, .. } =
            Claim::rotation(&key(9), new_public, server_public, None).unwrap()
        else {
            panic!()
        };
        let forged = Claim::Rotation { old: *old_public, proof };
        assert_eq!(check(forged, new_public, None), Err(Discard::Unauthenticated));
        assert!(Claim::rotation(&old, new_public, &PublicKey([0; 32]), None).is_err());
    }

    /// The vectors of PROTOCOL.md, made by another implementation (Python, from the
    /// specifications).
    #[test]
    fn vectors() {
        let counting = |first: u8| std::array::from_fn(|at| first + u8::try_from(at).unwrap());
        let [client, server] = [0, 0x20].map(|first| PrivateKey::from_bytes(counting(first)));
        let [client_public, server_public] = [client.public(), server.public()];
        let invitation = InvitationKey::new(&Token::from_bytes([0xab; 16]));
        let Claim::Invitation { id, proof } = invitation.claim(&server_public, &client_public) else {
            panic!()
        };
        assert_eq!(
            invitation.bytes().as_slice(),
            hex("858df7ca190f66f14f8885b5a10b0780db7a088fe7e4733aa4589671b061ac6b")
        );
        assert_eq!(id.0.as_slice(), hex("25153b4e25ec2e71a665c94548516986"));
        assert_eq!(proof.as_slice(), hex("93ac4757e6e251c7087417a88e2560db"));
        assert_eq!(
            invitation.preshared(&server_public, &client_public).bytes().as_slice(),
            hex("0eba9cc8c4100d65203addd4a772f56bf590ebbcab7d9e50f122a39e71c350f1")
        );
        let new = PrivateKey::from_bytes(counting(0x60)).public();
        let psk = PresharedKey::from_bytes(counting(0x40));
        let Ok(Claim::Rotation { proof, .. }) = Claim::rotation(&client, &new, &server_public, Some(&psk))
        else {
            panic!()
        };
        assert_eq!(proof.as_slice(), hex("667dc241d763d3db664f5cc481b4d1d4"));
    }
}
