//! The asking side of the control socket, for tools: blocking, with a time limit.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Request;

/// Chosen: a running instance answers within a turn of its event loop.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer: more than the answering side keeps.
const ANSWER_MAX_BYTES: u64 = 8 << 20;

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No process listens.
    #[error("nothing is running behind {}; start a client or server, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("no permission to ask on {}; try as root", .0.display())]
    NotPermitted(PathBuf),
    /// It listens but does not answer.
    #[error("no answer on {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The answer is an error.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running client or server.
#[derive(Debug)]
pub struct Ask {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Ask {
    /// Connects to the socket of a running instance.
    ///
    /// # Errors
    /// When nothing runs there or this user may not ask.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let failed = |error: io::Error| {
            let kind = error.kind();
            if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                AskError::NotRunning(path.to_owned())
            } else if kind == io::ErrorKind::PermissionDenied {
                AskError::NotPermitted(path.to_owned())
            } else {
                AskError::Io { path: path.to_owned(), error }
            }
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Self { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Asks once and waits for the line of JSON that answers.
    ///
    /// # Errors
    /// When there is no answer in time, or the answer is an error.
    pub fn ask(&mut self, request: &Request) -> Result<String, AskError> {
        let mut answer = String::new();
        let outcome = writeln!(self.stream.get_mut(), "{}", request.line())
            .and_then(|()| self.stream.by_ref().take(ANSWER_MAX_BYTES).read_line(&mut answer));
        let failed = |error| AskError::Io { path: self.path.clone(), error };
        outcome.map_err(failed)?;
        if !answer.ends_with('\n') {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let error = serde_json::from_str::<serde_json::Value>(&answer)
            .ok()
            .and_then(|value| value.get("error").and_then(|error| error.as_str().map(str::to_owned)));
        match error {
            Some(error) => Err(AskError::Refused(error)),
            None => Ok(answer),
        }
    }
}
