//! The name of a session in its endpoint.

/// Names a session while its client is known. After the client is removed, the number may name
/// another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u16);
