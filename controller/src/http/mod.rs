//! The controller's edge: the admin API, the agents' stream, and the server that carries both.
//!
//! A handler extracts, authorises, calls [`App`] and converts; it decides nothing. Every
//! answer that is not a success is a problem (RFC 9457), whoever found it.

mod access;
mod audit;
mod effect;
mod extract;
mod flows;
mod manifest;
mod meta;
mod policy_schema;
mod problem;
mod resources;
mod revision;
mod router;
mod server;
mod stream;
mod versions;
mod why;

use std::time::Duration;

use tokio::sync::watch;

use crate::app::App;

pub use policy_schema::policy_schema_of;
pub use router::{openapi, router};
pub use server::{Server, ServerError, StopHandle, listeners_from_systemd};

/// What every handler may reach.
#[derive(Clone)]
pub struct Edge {
    app: App,
    /// True once the server is to stop: streams say goodbye then.
    stopping: watch::Receiver<bool>,
    /// Time between pings on a stream.
    ping_interval: Duration,
}

impl Edge {
    /// The edge of `app`; its streams end when `stopping` becomes true or its sender goes.
    pub fn new(app: App, stopping: watch::Receiver<bool>, ping_interval: Duration) -> Self {
        Self { app, stopping, ping_interval }
    }
}
