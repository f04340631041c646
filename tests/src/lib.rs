//! The lab (a building in network namespaces), and what tests, demo and benchmarks do in it.
//!
//! Nothing here sends a packet outside a private network namespace without uplink: go through
//! [`lab::Lab`], which refuses to start anywhere else.

pub mod hostile;
pub mod lab;
