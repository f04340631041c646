//! `partywall`, the command for staff. It only talks to the daemon; it needs no privilege.

use std::process::ExitCode;

use clap::Parser;
use partywall_agent::cli::StaffArgs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match StaffArgs::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "partywall: {error:#}");
            ExitCode::FAILURE
        }
    }
}
