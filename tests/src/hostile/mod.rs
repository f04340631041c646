//! A hostile peer: a registered device with a live session whose owner controls every byte that it
//! sends, and the table of what such a peer may try.
//!
//! A row says which drop reason it must meet. A row that no reason fits is a hole in the filter or in
//! the list of reasons, never a reason to leave the row out.

mod injector;
pub mod packet;
mod raw_tunnel;
mod table;

pub use injector::{Datagram, Injector};
pub use raw_tunnel::{Handshake, Keys, RawTunnel};
pub use table::{Row, Scene, Side, rows, rows_below_ip};
