//! `partywall-controller`, the daemon: `init` makes a data directory, `serve` runs on it.
//!
//! This is the one place that knows which store the app runs on.

mod args;
mod init;
mod serve;

pub use args::{Arguments, Verb};
pub use init::{InitError, InitRequest, Initialised, init};
pub use serve::{ServeError, ServeRequest, serve};

/// The store's directory within the data directory.
const STORE_DIRECTORY: &str = "store";
/// The flow records' directory within the data directory.
const FLOWS_DIRECTORY: &str = "flows";
