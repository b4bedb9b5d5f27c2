//! The entry points for newcomers and developers.
fn main() {}
