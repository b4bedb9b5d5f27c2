//! The asking side of the control socket, for tools: blocking, with a time limit.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Request;

/// Chosen: a running instance answers within a turn of its event loop.
const PATIENCE: Duration = Duration::from_secs(5);
/// How an answer begins that is an error.
const ERROR: &[u8] = b"{\"error\":";

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
    /// The answer cannot be handed on.
    #[error("standard output: {0}")]
    Out(io::Error),
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
        let mut answer = Vec::new();
        self.copy(request, &mut answer)?;
        String::from_utf8(answer)
            .map_err(|_| AskError::Io { path: self.path.clone(), error: io::ErrorKind::InvalidData.into() })
    }

    /// The same for an answer of any length: it goes to `out` as it comes, with the newline at its
    /// end.
    ///
    /// # Errors
    /// When there is no answer in time, the answer is an error, or `out` takes no more.
    pub fn copy(&mut self, request: &Request, out: &mut impl Write) -> Result<(), AskError> {
        let path = self.path.clone();
        let failed = |error| AskError::Io { path: path.clone(), error };
        writeln!(self.stream.get_mut(), "{}", request.line()).map_err(failed)?;
        // Kept until it is known whether the answer is an error; an error is kept whole.
        let mut kept = Vec::new();
        let mut is_error = None;
        loop {
            let part = self.stream.fill_buf().map_err(failed)?;
            if part.is_empty() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let end = part.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let part = part.get(..end.unwrap_or(part.len())).unwrap_or(part);
            let count = part.len();
            kept.extend_from_slice(part);
            self.stream.consume(count);
            if end.is_some() || kept.len() >= ERROR.len() {
                is_error = is_error.or(Some(kept.starts_with(ERROR)));
            }
            if is_error == Some(false) {
                out.write_all(&kept).map_err(AskError::Out)?;
                kept.clear();
            }
            if end.is_some() {
                break;
            }
        }
        if is_error == Some(true) { Err(AskError::Refused(error_of(&kept))) } else { Ok(()) }
    }
}

impl Ask {
    /// Subscribes: lines come from now on, by [`Self::next_line`].
    ///
    /// # Errors
    /// When it is refused, or there is no answer in time.
    pub fn subscribe(&mut self, request: &Request) -> Result<(), AskError> {
        self.ask(request)?;
        self.stream.get_ref().set_read_timeout(None).map_err(|error| self.io(error))
    }

    /// The next line of a subscription, however long it takes to come.
    ///
    /// # Errors
    /// When the other side has ended.
    pub fn next_line(&mut self) -> Result<String, AskError> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(count) if count > 0 => Ok(line),
            Ok(_) => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.io(error)),
        }
    }

    fn io(&self, error: io::Error) -> AskError {
        AskError::Io { path: self.path.clone(), error }
    }
}

/// The text of an error.
fn error_of(answer: &[u8]) -> String {
    let value = serde_json::from_slice::<serde_json::Value>(answer).unwrap_or_default();
    let text = value.get("error").and_then(|error| error.as_str());
    text.map_or_else(|| String::from_utf8_lossy(answer).trim().to_owned(), str::to_owned)
}
