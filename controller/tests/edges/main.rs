//! The controller's edges from outside: over real TLS on the loopback, with nothing of the app replaced.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, helpers of tests too")]

mod api;
mod command_line;
mod controller;
mod effect;
mod flows;
mod openapi;
mod policy_schema;
mod stream;
mod tls;
mod why;
