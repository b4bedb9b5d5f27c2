//! `bondctl demo`: the bond on this machine alone, in about a minute.
//!
//! Two hosts and the links of a scenario in a sandbox ([`bonding_lab`]), the real `client` and
//! `server` between them, a real download and a sparse echo ("the game") through them. The fastest
//! link alone is measured first, then the bond, in the same lab and in the same way: a file of
//! 10 MB over a new connection, and a long download over TCP, its first seconds apart. Then the
//! link that carries the game is cut, and restored.
//! Everything shown was measured in that minute; nothing is left behind, however it ends: the
//! sandbox goes with its first process.

pub(crate) mod bond;
mod closing;
mod download;
mod figures;
mod run;
mod screen;

pub(crate) use self::run::run;
