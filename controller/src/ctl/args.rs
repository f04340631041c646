//! What can be said to `partywallctl`, and how it reads.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use partywall_proto::admin::TokenRole;
use partywall_proto::ids::{
    AgentId, DeviceId, OrganisationId, SegmentId, SessionId, TokenId, UserId,
};
use partywall_proto::keys::Secret;

use super::CtlError;
use super::flows::{FlowsArguments, FlowsVerb};
use super::policy::PolicyArguments;
use super::resource_path::ResourcePath;
use super::why::WhyArguments;

/// Partywall's admin command line.
#[derive(Debug, Parser)]
#[command(name = "partywallctl", version, about, max_term_width = 100)]
pub struct Arguments {
    /// Where the controller is.
    #[command(flatten)]
    pub connection: Connection,
    /// Write JSON for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Where the controller is, and who is asking.
#[derive(Debug, Args)]
pub struct Connection {
    /// The controller, as https://HOST:PORT
    #[arg(long, global = true, env = "PARTYWALL_CONTROLLER", value_name = "URL")]
    pub controller: Option<String>,
    /// The controller's CA certificate (`ca.pem` in its data directory); nothing else is trusted
    #[arg(long, global = true, env = "PARTYWALL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File that holds your token; or set PARTYWALL_TOKEN to the token itself
    #[arg(long, global = true, env = "PARTYWALL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The token itself; not an option, because other users see a command's arguments.
    #[arg(skip = token_in_environment())]
    pub token: Option<Secret>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Set up everything that the files describe, as one change
    Apply {
        /// A manifest; repeat for several, `-` reads standard input
        #[arg(short, long = "file", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show what `apply` would change, and change nothing
    Diff {
        /// A manifest; repeat for several, `-` reads standard input
        #[arg(short, long = "file", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Write everything you may see as a manifest
    Export,
    /// Take something away that was set up; refused while something else refers to it
    Delete {
        /// What, as `diff` names it: devices/desk-1, groups/council/staff, policies/council
        resource: ResourcePath,
    },
    /// Make a single-use code that lets one machine enrol; a new code voids the one before
    EnrolCode {
        /// The machine, as device/NAME or gateway/NAME; it must be set up already
        agent: AgentId,
        /// How long the code lives, as in 30m or 1h
        #[arg(long, default_value = "1h", value_name = "DURATION")]
        lifetime: Lifetime,
    },
    /// Tokens of the admin API
    Token {
        /// What to do with them.
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Set a user's password and make a new one-time-code secret
    Credentials {
        /// The user, as NAME@ORGANISATION
        user: UserId,
    },
    /// List the sessions of your organisation's segments
    Sessions,
    /// End a session; its open flows are cut at once
    Revoke {
        /// Its id, from `partywallctl sessions`
        session: SessionId,
    },
    /// Sign a person in for a stock WireGuard client, which cannot do so itself
    SignIn {
        /// The stock client
        #[arg(long)]
        device: DeviceId,
        /// Where to
        #[arg(long)]
        segment: SegmentId,
        /// Who, as NAME@ORGANISATION
        #[arg(long)]
        user: UserId,
    },
    /// Print a wg-quick file for a stock client; its private key is filled in on the device
    StockConfig {
        /// The stock client
        device: DeviceId,
        /// Where to
        #[arg(long)]
        segment: SegmentId,
    },
    /// Show your organisation's flow records: who reached what, and what was refused
    #[command(args_conflicts_with_subcommands = true)]
    Flows {
        /// `status` shows what was kept and dropped.
        #[command(subcommand)]
        verb: Option<FlowsVerb>,
        /// Which ones.
        #[command(flatten)]
        asked: FlowsArguments,
    },
    /// Say why something is let through or refused: at each end, by which rule of which policy version
    Why(WhyArguments),
    /// Your organisation's policy: check it, publish it, look back and roll back
    Policy(PolicyArguments),
    /// Show the audit trail, or verify it
    #[command(args_conflicts_with_subcommands = true)]
    Audit {
        /// `verify` checks the hash chains.
        #[command(subcommand)]
        verb: Option<AuditVerb>,
        /// One chain: an organisation's name or `facilities`
        #[arg(long)]
        chain: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token; its secret is shown once
    Create {
        /// What it may do
        #[arg(long)]
        role: RoleName,
        /// The organisation, for admin and auditor
        #[arg(long)]
        organisation: Option<OrganisationId>,
        /// Whose hands it goes into, for the audit trail
        #[arg(long)]
        holder: String,
        /// How long it lives, as in 12h or 90d
        #[arg(long, default_value = "90d", value_name = "DURATION")]
        lifetime: Lifetime,
    },
    /// List tokens, without their secrets
    List,
    /// Make a token useless
    Revoke {
        /// Its id, from `partywallctl token list`
        token: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Recompute every hash chain that you may see; fails if one does not hold
    Verify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleName {
    /// Organisations, buildings and the devices in them
    Facilities,
    /// Everything of one organisation
    Admin,
    /// Reads one organisation's sessions and audit trail
    Auditor,
}

/// A positive length of time, as in `1h`, `30m` or `90d`, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) seconds: u64,
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no length of time; write it as in 30m, 1h or 90d");
        let span: jiff::Span = text.parse().map_err(|_| refused())?;
        let duration =
            span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
        match u64::try_from(duration.as_secs()) {
            Ok(seconds) if seconds > 0 => Ok(Self { seconds }),
            Ok(_) | Err(_) => Err(refused()),
        }
    }
}

/// The role that the two options name together.
pub(super) fn token_role(
    role: RoleName,
    organisation: Option<OrganisationId>,
) -> Result<TokenRole, CtlError> {
    match (role, organisation) {
        (RoleName::Facilities, None) => Ok(TokenRole::Facilities),
        (RoleName::Admin, Some(organisation)) => Ok(TokenRole::Admin { organisation }),
        (RoleName::Auditor, Some(organisation)) => Ok(TokenRole::Auditor { organisation }),
        (RoleName::Facilities, Some(_)) => Err(CtlError::Usage(
            "facilities stands over no organisation: leave out `--organisation`".to_owned(),
        )),
        (RoleName::Admin | RoleName::Auditor, None) => Err(CtlError::Usage(
            "this role is of one organisation: add `--organisation NAME`".to_owned(),
        )),
    }
}

fn token_in_environment() -> Option<Secret> {
    std::env::var("PARTYWALL_TOKEN").ok().map(Secret::from)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_lifetime_is_positive_and_has_a_unit() {
        let seconds = |text: &str| text.parse::<Lifetime>().map(|lifetime| lifetime.seconds);
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("90d"), Ok(90 * 86400));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        for bad in ["", "0s", "-1h", "3600", "1 month", "soon", "99999999999d"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_role_of_an_organisation_names_it() {
        assert!(token_role(RoleName::Admin, None).is_err());
        assert!(token_role(RoleName::Facilities, Some("council".parse().unwrap())).is_err());
        let organisation: OrganisationId = "council".parse().unwrap();
        assert_eq!(
            token_role(RoleName::Auditor, Some(organisation.clone())).unwrap(),
            TokenRole::Auditor { organisation }
        );
    }
}
