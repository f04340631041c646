//! What the agent keeps on disk: its keys, its enrolment, the pinned segment keys and the last
//! signed config.
//!
//! Everything lives in one directory that only root may enter and only one agent may hold. Whole
//! files are replaced by rename after fsync, so that a crash leaves the old or the new one.

mod cache;
mod directory;
mod enrolment;
mod keys;
mod pins;
mod signed_out;

pub use cache::{Cache, CacheError};
pub use directory::{StateDir, StateError};
pub use enrolment::Enrolment;
pub use keys::Keys;
pub use pins::{PinConflict, Pins};
pub use signed_out::SignedOut;
