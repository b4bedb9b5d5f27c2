//! What a client shares with the servers that it joined: `NAME.psk` beside `NAME.key`.
//!
//! A line for each server: its public key and the pre-shared key, both in base64. A pre-shared key
//! stays when the client's own key is replaced. It is as secret as the private key.

use std::path::{Path, PathBuf};

use bonding_proto::crypto::keys::{PresharedKey, PublicKey};
use zeroize::Zeroizing;

use super::keys::{decode, encode, read_secret};
use super::{StateError, atomic, prepare_folder};

/// A client joins few servers.
const BYTES_MAX: u64 = 65_536;

/// The file beside a key.
pub fn file(private_key: &Path) -> PathBuf {
    private_key.with_extension("psk")
}

/// What is shared with `server`; `None`: nothing, since the client joined before there was anything
/// to share, or did not join.
///
/// # Errors
/// When the file is damaged, or others can read it.
pub fn load(path: &Path, server: &PublicKey) -> Result<Option<PresharedKey>, StateError> {
    let found = read(path)?.into_iter().find(|(of, _)| of == server);
    Ok(found.map(|(_, preshared)| preshared))
}

/// Writes down what is shared with `server` from now on.
///
/// # Errors
/// As [`load`], and when the file cannot be written.
pub fn store(path: &Path, server: &PublicKey, preshared: &PresharedKey) -> Result<(), StateError> {
    prepare_folder(path)?;
    let mut all = read(path)?;
    all.retain(|(of, _)| of != server);
    all.push((*server, preshared.clone()));
    let mut text = Zeroizing::new(String::new());
    for (server, preshared) in &all {
        let (server, preshared) = (encode(&server.0), Zeroizing::new(encode(preshared.bytes())));
        for part in [&server, " ", &preshared, "\n"] {
            text.push_str(part);
        }
    }
    atomic::replace(path, text.as_bytes()).map_err(StateError::io("write", path))
}

fn read(path: &Path) -> Result<Vec<(PublicKey, PresharedKey)>, StateError> {
    let content = match read_secret(path, BYTES_MAX) {
        Err(StateError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        content => content?,
    };
    parse(&content).ok_or_else(|| StateError::Damaged {
        path: path.to_owned(),
        why: "it holds no keys".to_owned(),
        remedy: "restore it from a copy, or remove it and join again",
    })
}

fn parse(content: &[u8]) -> Option<Vec<(PublicKey, PresharedKey)>> {
    let text = std::str::from_utf8(content).ok()?;
    let line = |line: &str| {
        let (server, preshared) = line.split_once(' ')?;
        Some((PublicKey(decode(server)?), PresharedKey::from_bytes(decode(preshared)?)))
    };
    text.strip_suffix('\n')?.split('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_server_has_one_and_a_later_one_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder.path().join("state/client.key"));
        assert_eq!(path, folder.path().join("state/client.psk"));
        let [one, two] = [1, 2].map(|byte| PublicKey([byte; 32]));
        let key = |byte| PresharedKey::from_bytes([byte; 32]);
        assert!(load(&path, &one).unwrap().is_none());
        for (server, byte) in [(one, 5), (two, 6), (one, 7)] {
            store(&path, &server, &key(byte)).unwrap();
            assert!(load(&path, &server).unwrap() == Some(key(byte)));
        }
        assert!(load(&path, &two).unwrap() == Some(key(6)));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_damaged_or_open_file_is_an_error_and_its_content_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.psk");
        let server = PublicKey([1; 32]);
        store(&path, &server, &PresharedKey::from_bytes([5; 32])).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(&path, &server).map(drop).unwrap_err().to_string();
            assert!(error.contains("client.psk is damaged: it holds no keys; "), "{error}");
        }
        std::fs::write(&path, &whole).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&path, &server), Err(StateError::Exposed { .. })));
    }
}
