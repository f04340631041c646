//! The lab (a building in network namespaces), and what tests, demo and benchmarks do in it.
//!
//! Nothing here sends a packet outside a private network namespace without uplink: go through
//! [`lab::Lab`], which refuses to start anywhere else.

pub mod bench;
pub mod hostile;
pub mod kept;
pub mod lab;
pub mod stage;
pub mod story;
pub mod traffic;

/// Ends a program: 0, or 1 with one message that names its causes.
pub fn exit(result: anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
