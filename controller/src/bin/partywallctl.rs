//! `partywallctl`, the admin command line: see [`partywall_controller::ctl`].

use std::process::ExitCode;

use clap::Parser as _;
use partywall_controller::ctl;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = ctl::Arguments::parse();
    match ctl::run(arguments, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("partywallctl: {error}");
            ExitCode::FAILURE
        }
    }
}
