//! `partywall-agent`: enrol this machine, run the daemon, clean up after a crash.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::FalseyValueParser;
use clap::{Parser, Subcommand};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::ids::AgentId;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::SOCKET;
use crate::control::enrol;
use crate::daemon::{Daemon, DaemonError, Machine, Tuning};
use crate::dataplane::{Offloads, SHARDS_MAX};
use crate::state::{Enrolment, Keys, StateDir};

const STATE: &str = "/var/lib/partywall";
const TUN: &str = "partywall0";
/// What systemd says in `SERVICE_RESULT` where the daemon ended as it should.
const ENDED_WELL: &str = "success";

/// Partywall's daemon on devices and gateways.
#[derive(Debug, Parser)]
#[command(name = "partywall-agent", version)]
pub struct AgentArgs {
    /// Where keys, enrolment and the cached config are kept.
    #[arg(long, global = true, default_value = STATE)]
    state: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make this machine's keys and have the controller admit it
    Enrol {
        /// The line that `partywallctl enrol-code` printed; `-` reads it from standard input
        code: String,
    },
    /// Run the daemon in the foreground
    Run {
        /// Where `partywall` finds the daemon
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
        /// Name of the tunnel interface
        #[arg(long, default_value = TUN)]
        tun: String,
        /// Exchange single packets with the tunnel interface, never many at once; for a kernel that does
        /// it wrong
        #[arg(long, env = "PARTYWALL_NO_TUN_OFFLOAD", value_parser = FalseyValueParser::new())]
        no_tun_offload: bool,
        /// Send and receive single datagrams, never many at once; for a kernel or a network card that
        /// does it wrong
        #[arg(long, env = "PARTYWALL_NO_UDP_OFFLOAD", value_parser = FalseyValueParser::new())]
        no_udp_offload: bool,
        /// Threads that carry packets [default: one on a device, one for each core on a gateway]
        #[arg(long, env = "PARTYWALL_SHARDS", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
        shards: Option<u16>,
        /// Have the threads hand packets over, rather than the kernel give each to the right one
        #[arg(long, env = "PARTYWALL_NO_STEERING", value_parser = FalseyValueParser::new())]
        no_steering: bool,
    },
    /// Undo what a daemon that crashed has left on this machine
    Mend {
        /// Name of the tunnel interface
        #[arg(long, default_value = TUN)]
        tun: String,
        /// For the service manager: leave the leak guard up where the daemon crashed and is about to be
        /// started again (SERVICE_RESULT says so)
        #[arg(long)]
        after_service: bool,
    },
}

impl AgentArgs {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong and what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Enrol { code } => {
                let code = read_code(code)?;
                let state = StateDir::open(&self.state)?;
                let enrolment = enrol(&state, &code).await?;
                let said = format!("This machine is enrolled as {}.\n", enrolment.agent);
                Ok(io::stdout().lock().write_all(said.as_bytes())?)
            }
            Verb::Run { socket, tun, no_tun_offload, no_udp_offload, shards, no_steering } => {
                let state = StateDir::open(&self.state)?;
                let enrolment = Enrolment::read(&state)?.ok_or(DaemonError::NotEnrolled)?;
                let keys = Keys::open(&state)?;
                let is_gateway = matches!(enrolment.agent, AgentId::Gateway(_));
                info!(agent = %enrolment.agent, key = %keys.wireguard_key(), "starting");
                let offloads = Offloads { tun: !no_tun_offload, udp: !no_udp_offload };
                let tuning = Tuning { shards, offloads, steering: !no_steering };
                let machine = Machine::new(&keys, is_gateway, tun, tuning, self.state);
                let stop = stop_signal()?;
                let daemon = Daemon::start(state, socket, machine).await?;
                notify(sd_notify::NotifyState::Ready);
                let ended = daemon.run(stop).await;
                notify(sd_notify::NotifyState::Stopping);
                Ok(ended?)
            }
            Verb::Mend { tun, after_service } => {
                let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
                if after_service && !result.is_empty() && result != ENDED_WELL {
                    warn!(result, "the daemon crashed; the leak guard stays until it is back");
                    return Ok(());
                }
                // The lock: what a live daemon has set up is not to be undone under it.
                let _state = StateDir::open(&self.state)?;
                Machine::mend(tun, self.state).await.context("not everything could be undone")
            }
        }
    }
}

fn read_code(text: String) -> anyhow::Result<EnrolmentCode> {
    let text = match text.as_str() {
        "-" => io::read_to_string(io::stdin().lock()).context("cannot read standard input")?,
        _ => text,
    };
    Ok(text.parse()?)
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without a service manager there is nobody to tell, and that is fine.
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        AgentArgs::command().debug_assert();
        AgentArgs::try_parse_from(["partywall-agent", "run", "--tun", "pw1"]).unwrap();
        AgentArgs::try_parse_from(["partywall-agent", "run", "--no-tun-offload"]).unwrap();
        AgentArgs::try_parse_from(["partywall-agent", "run", "--shards", "4"]).unwrap();
        for shards in ["0", "257", "-1"] {
            AgentArgs::try_parse_from(["partywall-agent", "run", "--shards", shards]).unwrap_err();
        }
        AgentArgs::try_parse_from(["partywall-agent", "enrol", "pw1-x", "--state", "/x"]).unwrap();
        AgentArgs::try_parse_from(["partywall-agent", "mend"]).unwrap();
    }

    #[test]
    fn a_damaged_code_is_refused_without_repeating_it() {
        let refused = read_code("pw1-c2VjcmV0".to_owned()).unwrap_err().to_string();
        assert!(!refused.contains("c2Vj"), "{refused}");
    }
}
