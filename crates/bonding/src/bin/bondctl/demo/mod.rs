//! `bondctl demo`: the bond on this machine alone, in about a minute.
//!
//! Two hosts and the links of a scenario in a sandbox ([`bonding_lab`]), the real `client` and `server` between them, a real
//! download and a sparse echo ("the game") through them. First the fastest link alone is measured in the same lab; then the
//! bond carries the same download; then a link is cut and restored. Everything shown was measured in that minute; nothing
//! is left behind, however it ends: the sandbox goes with its first process.

pub(crate) mod bond;
mod download;
mod figures;
mod run;
mod screen;

pub(crate) use self::run::run;
