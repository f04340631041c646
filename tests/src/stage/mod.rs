//! What the system tests stand on: a building with Partywall in it, a controller alone, conversations that
//! must live or die, and the daemons' logs when a test fails.
//!
//! Only tests use this. What a test wants done is done, or the test fails right there.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

mod alone;
mod building;
mod line;
mod logs;
mod stock;

pub use alone::{ADDRESS, Alone};
pub use building::{INTRANET, Stage, url};
pub use line::Line;
pub use logs::ShowLogs;
pub use stock::{INTERFACE, Stock};

pub use crate::lab::PATIENCE;
