//! The way to the controller: one WebSocket over pinned TLS, kept up for ever.

mod backoff;
mod dial;
mod enrol;
mod link;
mod stream;
mod tls;

pub use backoff::Backoff;
pub use dial::{Addresses, DialError};
pub use enrol::{EnrolError, enrol};
pub use link::{Link, LinkEvent};
pub use stream::{Challenge, Stream, StreamError};
pub use tls::{TlsError, Trust};

#[cfg(test)]
pub(crate) mod testing;
