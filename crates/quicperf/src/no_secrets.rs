//! A key exchange without secrets: a checksum in place of TLS 1.3's AEAD.
//!
//! quinn-proto's cryptography is behind traits. A measurement has no eavesdropper, and a real TLS
//! costs build time (ring, rustls), run time and randomness of its own. The properties that matter
//! to the transport are kept: three packet number spaces, the handshake's round trips and rough
//! flight sizes, a 16-byte tag on every packet, and a changed packet does not open. **Never use
//! this to protect anything.**
//!
//! Messages: type (1), length (2, big endian), body. Client hello and encrypted extensions carry
//! the transport parameters; server hello, certificate and finished are padding.

use std::any::Any;
use std::sync::Arc;

use bytes::BytesMut;
use quinn_proto::crypto::{
    self, AeadKey, CryptoError, ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey, HmacKey, KeyPair,
    Keys, PacketKey, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const FINISHED: u8 = 20;
/// Bytes of an AEAD tag in every QUIC cipher suite (RFC 9001 §5.3).
const TAG_BYTES: usize = 16;
/// Rough sizes in bytes of a TLS 1.3 server hello, and of a certificate with its proof.
const SERVER_HELLO_BYTES: usize = 90;
const CERTIFICATE_BYTES: usize = 800;
/// Bytes of a TLS 1.3 finished message with SHA-256.
const FINISHED_BYTES: usize = 32;

/// A checksum in place of a packet protection key.
#[derive(Debug, Clone, Copy)]
struct Checksum;

impl Checksum {
    fn tag(packet: u64, header: &[u8], payload: &[u8]) -> [u8; TAG_BYTES] {
        let mut state = Xxh3::with_seed(packet);
        state.update(header);
        state.update(payload);
        state.digest128().to_be_bytes()
    }
}

impl PacketKey for Checksum {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let body = buf.len().saturating_sub(TAG_BYTES);
        let (message, tag) = buf.split_at_mut(body);
        if let Some((header, payload)) = message.split_at_checked(header_len) {
            tag.copy_from_slice(&Self::tag(packet, header, payload));
        }
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let body = payload.len().checked_sub(TAG_BYTES).ok_or(CryptoError)?;
        let (message, tag) = payload.split_at(body);
        if tag != Self::tag(packet, header, message) {
            return Err(CryptoError);
        }
        payload.truncate(body);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

impl HeaderKey for Checksum {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        TAG_BYTES
    }
}

fn key_pair() -> KeyPair<Box<dyn PacketKey>> {
    KeyPair { local: Box::new(Checksum), remote: Box::new(Checksum) }
}

fn keys() -> Keys {
    Keys { header: KeyPair { local: Box::new(Checksum), remote: Box::new(Checksum) }, packet: key_pair() }
}

/// The progress of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Client: will send its hello.
    SayHello,
    /// Client: waits for the server hello. Server: waits for the client hello.
    AwaitHello,
    /// The hellos are exchanged; handshake keys will be given out.
    HandshakeKeys,
    /// Client: waits for the server's parameters.
    AwaitExtensions,
    /// Data keys will be given out.
    DataKeys,
    /// Server: waits for the client's finished.
    AwaitFinished,
    /// Established.
    Done,
}

/// One connection's key exchange.
struct Handshake {
    side: Side,
    step: Step,
    ours: TransportParameters,
    theirs: Option<TransportParameters>,
    /// Handshake bytes not yet a whole message.
    partial: Vec<u8>,
}

impl Handshake {
    fn new(side: Side, ours: TransportParameters) -> Self {
        let step = if side.is_client() { Step::SayHello } else { Step::AwaitHello };
        Self { side, step, ours, theirs: None, partial: Vec::new() }
    }

    fn take_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, body) = self.partial.split_first_chunk::<3>()?;
        let [kind, high, low] = *head;
        let body = body.get(..usize::from(u16::from_be_bytes([high, low])))?.to_vec();
        self.partial.drain(..3 + body.len());
        Some((kind, body))
    }

    fn read_parameters(&mut self, body: &[u8]) -> Result<(), TransportError> {
        let mut reader = body;
        let parameters =
            TransportParameters::read(self.side, &mut reader).map_err(|_| refuse("malformed parameters"))?;
        self.theirs = Some(parameters);
        Ok(())
    }

    fn parameters_body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.ours.write(&mut body);
        body
    }
}

fn message(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    // Every body here is far below 64 KiB.
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

/// TLS's unexpected_message (RFC 8446 §6.2): only a bug in this file can cause it.
fn refuse(reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(10), frame: None, reason: reason.to_owned() }
}

impl crypto::Session for Handshake {
    fn initial_keys(&self, _dst_cid: &ConnectionId, _side: Side) -> Keys {
        keys()
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.step != Step::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.partial.extend_from_slice(buf);
        while let Some((kind, body)) = self.take_message() {
            match (self.side, self.step, kind) {
                (Side::Server, Step::AwaitHello, CLIENT_HELLO) => {
                    self.read_parameters(&body)?;
                    self.step = Step::HandshakeKeys;
                }
                (Side::Client, Step::AwaitHello, SERVER_HELLO) => self.step = Step::HandshakeKeys,
                (Side::Client, Step::AwaitExtensions, ENCRYPTED_EXTENSIONS) => {
                    self.read_parameters(&body)?;
                    self.step = Step::DataKeys;
                }
                (Side::Server, Step::AwaitFinished, FINISHED) => self.step = Step::Done,
                // The certificate: padding.
                (Side::Client, _, CERTIFICATE) => {}
                _ => return Err(refuse("unexpected handshake message")),
            }
        }
        Ok(false)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.theirs)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match (self.side, self.step) {
            (Side::Client, Step::SayHello) => {
                message(CLIENT_HELLO, &self.parameters_body(), buf);
                self.step = Step::AwaitHello;
                None
            }
            (Side::Server, Step::HandshakeKeys) => {
                message(SERVER_HELLO, &[0; SERVER_HELLO_BYTES], buf);
                self.step = Step::DataKeys;
                Some(keys())
            }
            (Side::Server, Step::DataKeys) => {
                message(CERTIFICATE, &[0; CERTIFICATE_BYTES], buf);
                message(ENCRYPTED_EXTENSIONS, &self.parameters_body(), buf);
                self.step = Step::AwaitFinished;
                Some(keys())
            }
            (Side::Client, Step::HandshakeKeys) => {
                self.step = Step::AwaitExtensions;
                Some(keys())
            }
            (Side::Client, Step::DataKeys) => {
                message(FINISHED, &[0; FINISHED_BYTES], buf);
                self.step = Step::Done;
                Some(keys())
            }
            _ => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        Some(key_pair())
    }

    fn is_valid_retry(&self, _orig_dst_cid: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// Both sides' configuration and every other key that quinn-proto asks for.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

impl crypto::ClientConfig for NoSecrets {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        Ok(Box::new(Handshake::new(Side::Client, *params)))
    }
}

impl crypto::ServerConfig for NoSecrets {
    fn initial_keys(&self, _version: u32, _dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(keys())
    }

    fn retry_tag(&self, _version: u32, _orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        Checksum::tag(0, &[], packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        Box::new(Handshake::new(Side::Server, *params))
    }
}

impl HmacKey for NoSecrets {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = xxh3_128(data).to_be_bytes();
        for (out, byte) in signature_out.iter_mut().zip(hash) {
            *out = byte;
        }
    }

    fn signature_len(&self) -> usize {
        16
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if signature == xxh3_128(data).to_be_bytes() { Ok(()) } else { Err(CryptoError) }
    }
}

impl HandshakeTokenKey for NoSecrets {
    fn aead_from_hkdf(&self, _random_bytes: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Self)
    }
}

impl AeadKey for NoSecrets {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let tag = Checksum::tag(0, additional_data, data);
        data.extend_from_slice(&tag);
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let body = data.len().checked_sub(TAG_BYTES).ok_or(CryptoError)?;
        let (message, tag) = data.split_at_mut(body);
        if *tag == Checksum::tag(0, additional_data, message) { Ok(message) } else { Err(CryptoError) }
    }
}
