//! The controller's edges from outside: over real TLS on the loopback, with nothing of the app replaced.

mod api;
mod command_line;
mod controller;
mod openapi;
mod stream;
mod tls;
