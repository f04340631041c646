//! Benchmarks: what is measured, against which bar, and how it came out.
//!
//! A bar is a promise or a rival's median from the same run; a figure without its spread is not shown.

mod bare;
mod config;
mod control;
mod datapath;
mod flows;
mod idle;
mod iperf;
mod machine;
mod many_peers;
mod metric;
mod person;
mod ping;
mod policy;
mod publish;
mod rival;
mod row;
mod rules;
mod side;
mod throughput;

pub use control::control;
pub use datapath::{datapath, one_case};
pub use flows::flows;
pub use iperf::Congestion;
pub use many_peers::many_peers;
pub use publish::publish;
pub use row::{Better, Row, table, write};
pub use rules::policy;
pub use throughput::{Part, throughput};
