//! `partywall`: what a person at a desk types.
//!
//! Passwords and codes are never arguments, because arguments are visible to every user of
//! the machine.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use partywall_proto::ids::{SegmentId, UserId};
use partywall_proto::keys::Secret;
use zeroize::Zeroizing;

use super::target::Target;
use super::{SOCKET, words};
use crate::ipc::{Reply, Request, call};

/// Longer than any password that somebody types.
const SECRET_MAX_BYTES: usize = 1024;

/// Sign in to your own organisation's network from any desk.
#[derive(Debug, Parser)]
#[command(name = "partywall", version)]
pub struct StaffArgs {
    /// Where the agent listens.
    #[arg(long, global = true, default_value = SOCKET, hide_default_value = true)]
    socket: PathBuf,
    /// Print JSON for programs instead of sentences.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sign in; asks for your password and the code from your token
    Login {
        /// The network, as `partywall status` lists it
        segment: SegmentId,
        /// Your account, as in alice@council
        #[arg(long)]
        user: UserId,
        /// Read the password and then the code from standard input, one line each
        #[arg(long)]
        stdin: bool,
    },
    /// Sign out; every open connection ends
    Logout,
    /// Show whether you are signed in and whether the network answers
    Status {
        /// Also show what was dropped, and why
        #[arg(long)]
        drops: bool,
    },
    /// Show whether a destination is allowed, and by which rule
    Why {
        /// As in 10.2.0.5, 10.2.0.5:443 or `[fd00::5]:53/udp`
        target: String,
    },
}

impl StaffArgs {
    /// Does what was asked and prints the outcome.
    ///
    /// # Errors
    /// What to tell the person. Nothing else is printed then, unless JSON was asked for.
    pub async fn run(self) -> anyhow::Result<()> {
        let request = self.verb.request()?;
        let reply = call(&self.socket, &request).await?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&reply)?)?;
        }
        let sentences = self.verb.sentences(reply)?;
        if !self.json {
            write!(out, "{sentences}")?;
        }
        Ok(out.flush()?)
    }
}

impl Verb {
    fn request(&self) -> anyhow::Result<Request> {
        Ok(match self {
            Self::Login { segment, user, stdin } => {
                let (password, code) = match stdin {
                    true => read_secrets(&mut io::stdin().lock())?,
                    false => prompt(user)?,
                };
                Request::Login { segment: segment.clone(), user: user.clone(), password, code }
            }
            Self::Logout => Request::Logout,
            Self::Status { drops: _ } => Request::Status,
            Self::Why { target } => {
                let Target { address, protocol, port } = target.parse()?;
                Request::Why { address, protocol, port }
            }
        })
    }

    fn sentences(&self, reply: Reply) -> anyhow::Result<String> {
        let (now, zone) = (Timestamp::now(), TimeZone::system());
        Ok(match (self, reply) {
            (_, Reply::Refused { problem }) => bail!(problem),
            (_, Reply::SignedIn { session }) => {
                format!("{}\n", words::signed_in(&session, now, &zone))
            }
            (_, Reply::SignedOut { session }) => format!("{}\n", words::signed_out(&session)),
            (Self::Status { drops: true }, Reply::Status(view)) => {
                format!("{}{}", words::status(&view, now, &zone), words::drops(&view))
            }
            (_, Reply::Status(view)) => words::status(&view, now, &zone),
            (Self::Why { target }, Reply::Why(view)) => words::why(target, &view),
            (Self::Login { .. } | Self::Logout | Self::Status { .. }, Reply::Why(_)) => {
                bail!("the agent answered another question; update both")
            }
        })
    }
}

fn prompt(user: &UserId) -> anyhow::Result<(Secret, Secret)> {
    let advice = "cannot ask without a terminal; use --stdin";
    let password = rpassword::prompt_password(format!("Password of {user}: ")).context(advice)?;
    let code = rpassword::prompt_password("Code from your token: ").context(advice)?;
    checked(password, code)
}

fn read_secrets(input: &mut impl BufRead) -> anyhow::Result<(Secret, Secret)> {
    let mut line = || -> anyhow::Result<String> {
        let mut text = Zeroizing::new(String::new());
        input.read_line(&mut text).context("cannot read standard input")?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    };
    checked(line()?, line()?)
}

fn checked(password: String, code: String) -> anyhow::Result<(Secret, Secret)> {
    let (password, code) = (Secret::from(password), Secret::from(code.trim().to_owned()));
    if password.expose().is_empty() {
        bail!("the password is empty; type your password, then the code from your token");
    }
    if code.expose().is_empty() {
        bail!("the code is empty; type the code that your token shows");
    }
    if password.expose().len() > SECRET_MAX_BYTES || code.expose().len() > SECRET_MAX_BYTES {
        bail!("the password or the code is longer than {SECRET_MAX_BYTES} bytes");
    }
    Ok((password, code))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        StaffArgs::command().debug_assert();
        let login = ["partywall", "login", "council", "--user", "alice@council", "--stdin"];
        StaffArgs::try_parse_from(login).unwrap();
        StaffArgs::try_parse_from(["partywall", "status", "--json", "--drops"]).unwrap();
        let wrong = ["partywall", "login", "council", "--user", "alice"];
        let refused = StaffArgs::try_parse_from(wrong).unwrap_err().to_string();
        assert!(refused.contains("name@organisation"), "{refused}");
    }

    #[test]
    fn two_lines_are_the_password_and_the_code() {
        let (password, code) = read_secrets(&mut &b"correct horse \r\n 123456\n"[..]).unwrap();
        assert_eq!((password.expose(), code.expose()), ("correct horse ", "123456"));
        for short in [&b""[..], b"password\n", b"\n123456\n"] {
            assert!(read_secrets(&mut &*short).is_err());
        }
    }
}
