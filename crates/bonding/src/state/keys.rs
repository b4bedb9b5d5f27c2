//! Private and pre-shared keys in files, one line of base64 each, as WireGuard has them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonding_proto::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::{StateError, atomic, prepare_folder};

/// 44 characters, a newline, and white space of an editor.
const BYTES_MAX: u64 = 256;
const REMEDY: &str = "a key is 44 characters of base64, as `bondctl genkey` prints it";

/// A key as people and files write it.
pub fn encode(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// The inverse of [`encode`].
pub fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// A public key as people read it.
pub fn show(key: &PublicKey) -> String {
    encode(&key.0)
}

/// A new private key, from the kernel's random numbers.
///
/// # Errors
/// When the kernel has none.
pub fn generate() -> io::Result<PrivateKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(io::Error::other)?;
    // RFC 7748 §5: stored clamped, as WireGuard does, so that every tool derives the same public
    // key.
    let [first, .., last] = &mut *bytes;
    *first &= 248;
    *last = (*last & 127) | 64;
    Ok(PrivateKey::from_bytes(*bytes))
}

/// The private key in `path`, which is the owner's alone.
///
/// # Errors
/// When the file is missing or damaged, or others can read it.
pub fn load(path: &Path) -> Result<PrivateKey, StateError> {
    secret(path).map(|bytes| PrivateKey::from_bytes(*bytes))
}

/// The pre-shared key in `path`; it is kept as a private one.
///
/// # Errors
/// As [`load`].
pub fn load_preshared(path: &Path) -> Result<PresharedKey, StateError> {
    secret(path).map(|bytes| PresharedKey::from_bytes(*bytes))
}

/// The private key in `path`, made if there is none yet. `true`: it is new.
///
/// # Errors
/// As [`load`], and when none can be made. A file that is there is never overwritten.
pub fn load_or_make(path: &Path) -> Result<(PrivateKey, bool), StateError> {
    match load(path) {
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return result.map(|key| (key, false)),
    }
    prepare_folder(path)?;
    let key = generate().map_err(StateError::io("make a key for", path))?;
    let line = Zeroizing::new(format!("{}\n", encode(key.bytes())));
    match atomic::create(path, line.as_bytes()) {
        Ok(()) => Ok((key, true)),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path).map(|key| (key, false)),
        Err(error) => Err(StateError::io("write", path)(error)),
    }
}

/// The file of the key that is to take the place of the one in `private_key`.
pub fn next_file(private_key: &Path) -> PathBuf {
    private_key.with_extension("next")
}

/// The key in `next`, which is there, is the one of `path` from now on. One of the two names it at
/// any moment, and `path` is never missing.
///
/// # Errors
/// When the folder cannot be written.
pub fn promote(next: &Path, path: &Path) -> Result<(), StateError> {
    atomic::rename(next, path).map_err(StateError::io("write", path))
}

/// Removes the key in `next`, if there is one: it takes no place.
///
/// # Errors
/// When the folder cannot be written.
pub fn discard(next: &Path) -> Result<(), StateError> {
    atomic::remove(next).map_err(StateError::io("remove", next))
}

fn secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, StateError> {
    let content = read_secret(path, BYTES_MAX)?;
    let damaged =
        |why: &str| StateError::Damaged { path: path.to_owned(), why: why.to_owned(), remedy: REMEDY };
    let text = std::str::from_utf8(&content).map_err(|_| damaged("it is not text"))?;
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| damaged("it is not base64"))?);
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| damaged("it has not 32 bytes"))?;
    Ok(Zeroizing::new(key))
}

/// The content of a file that only its owner may read.
pub(super) fn read_secret(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let read = || StateError::io("read", path);
    // Opening a pipe would wait for its writer.
    let file = File::options().read(true).custom_flags(NONBLOCK).open(path).map_err(read())?;
    let about = file.metadata().map_err(read())?;
    if !about.is_file() {
        return Err(StateError::NotAFile(path.to_owned()));
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Exposed { path: path.to_owned(), mode });
    }
    let owner = about.uid();
    let own = rustix::process::geteuid();
    // Root may use the key of a service that has a user of its own, and a folder.
    let is_services = || own.is_root() && atomic::folder(path).metadata().is_ok_and(|it| it.uid() == owner);
    if owner != 0 && owner != own.as_raw() && !is_services() {
        return Err(StateError::Foreign { path: path.to_owned(), owner });
    }
    Ok(Zeroizing::new(atomic::read_open(&file, bytes_max).map_err(read())?))
}

#[expect(clippy::cast_possible_wrap, reason = "a flag of open(2)")]
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/server.key");
        let (key, new) = load_or_make(&path).unwrap();
        assert!(new);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim()), (45, encode(key.bytes()).as_str()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((key.bytes()[0] & 7, key.bytes()[31] & 192), (0, 64), "RFC 7748 §5");
        let (again, new) = load_or_make(&path).unwrap();
        assert!(!new && again == key);
        assert_ne!(generate().unwrap(), generate().unwrap());
    }

    /// Root joins for a service that has a user of its own: both can use the key. Only root can try
    /// that; any other user's files belong to that user anyway.
    #[test]
    fn a_key_belongs_to_the_owner_of_its_folder() {
        const USER: u32 = 12_345;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        let may = std::os::unix::fs::chown(&state, Some(USER), Some(USER)).is_ok();
        let path = state.join("client.key");
        let (key, _) = load_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), fs::metadata(&state).unwrap().uid());
        assert!(load(&path).unwrap() == key);
        if may {
            // The key of a user in another's folder is known to that user.
            std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
            assert!(matches!(load(&path), Err(StateError::Foreign { owner: USER, .. })));
        }
    }

    #[test]
    fn what_others_can_read_is_refused_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        let text = encode(&[7; 32]);
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610, 0o601] {
            write(&path, &text, mode);
            let error = load_or_make(&path).unwrap_err();
            assert!(matches!(error, StateError::Exposed { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 600 /"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        for mode in [0o600, 0o400] {
            write(&path, &text, mode);
            assert_eq!(load(&path).unwrap().bytes(), &[7; 32]);
        }
    }

    #[test]
    fn a_key_path_that_is_not_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load_or_make(folder.path()), Err(StateError::NotAFile(_))));
        assert!(matches!(load(Path::new("/dev/null")), Err(StateError::NotAFile(_))));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(load(&pipe), Err(StateError::NotAFile(_))));
        let missing = load(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
    }

    #[test]
    fn a_damaged_key_is_named_and_its_content_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.key");
        for text in ["", "hello!", "c2VjcmV0", &"A".repeat(64), &"A".repeat(300), "\u{feff}"] {
            write(&path, text, 0o600);
            let error = load_or_make(&path).unwrap_err().to_string();
            assert!(error.contains("client.key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        write(&path, &format!("  {}\n\n", encode(&[9; 32])), 0o600);
        assert_eq!(load_preshared(&path).unwrap().bytes(), &[9; 32]);
        assert_eq!(decode(&encode(&[9; 32])), Some([9; 32]));
        assert_eq!(decode("AAAA"), None);
    }
}
