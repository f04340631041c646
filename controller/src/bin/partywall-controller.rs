//! `partywall-controller`, the daemon: see [`partywall_controller::daemon`].

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use partywall_controller::daemon::{self, Arguments, InitRequest, Verb};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_from_env("PARTYWALL_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("partywall-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.verb {
        Verb::Init(request) => init(&request).await,
        Verb::Serve(request) => Ok(daemon::serve(&request).await?),
    }
}

async fn init(request: &InitRequest) -> anyhow::Result<()> {
    let made = daemon::init(request).await?;
    let mut out = std::io::stdout();
    let token = match &request.token_file {
        Some(path) => format!("--token-file {}", path.display()),
        None => {
            writeln!(out, "{}", made.token.secret.expose()).context("cannot print the token")?;
            "--token-file FILE".to_owned()
        }
    };
    let (data, ca, address) = (request.data.display(), made.ca.display(), &request.address);
    let own = match &request.ca {
        Some(_) => " --cert FILE --key FILE",
        None => "",
    };
    eprintln!(
        "{} is initialised in {data}. The first administrator's token (facilities) {}.\n\
         Next:\n  \
         partywall-controller serve --data {data} --listen ADDR:PORT{own}\n  \
         partywallctl --controller https://{address} --ca {ca} {token} apply -f building.yaml",
        request.name,
        match &request.token_file {
            Some(path) => format!("is in {}", path.display()),
            None => "is the line above; it is not shown again".to_owned(),
        },
    );
    Ok(())
}
