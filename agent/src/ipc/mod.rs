//! The daemon's unix socket, over which `partywall` speaks: one JSON request per line, one reply per line.
//!
//! Any local user may connect (mode 0666): a sign-in carries its own proof of who asks, and a status
//! holds no secret. What one user may not do to another is decided from the caller's uid, which
//! the kernel vouches for: only root and whoever signed in may sign out, and only root sees
//! who is connected to a gateway.

mod client;
mod messages;
mod server;

pub use client::{ClientError, call};
pub use messages::{
    ControllerView, DropView, PeerView, Reply, Request, SessionView, StatusView, WhyView,
};
pub use server::{Call, IpcError, serve};
