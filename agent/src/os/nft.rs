//! Asks `nft` for the table and has it replaced, as one transaction each.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::os::error::OsError;
use crate::os::ruleset::{Fingerprint, Ruleset, TABLE_NAME, fingerprint_of};

const NFT: &str = "nft";
/// Longer than any transaction of ours takes on a loaded machine; an agent that hangs is worse than
/// one that says so.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What of an error message is repeated.
const MESSAGE_MAX_BYTES: usize = 500;

/// What the kernel's table holds; none where there is none, or none that we made.
pub(super) async fn fetch() -> Result<Option<Fingerprint>, OsError> {
    let output = run(&["-j", "list", "table", "inet", TABLE_NAME], None).await?;
    if output.status.success() {
        let listing: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let unknown = Fingerprint { digest: String::new(), rules: 0 };
        return Ok(Some(listing.as_ref().and_then(fingerprint_of).unwrap_or(unknown)));
    }
    let message = message(&output);
    match message.contains("No such file or directory") {
        true => Ok(None),
        false => Err(refused("list the table", message)),
    }
}

/// Puts `ruleset` in place of what is there.
pub(super) async fn replace(ruleset: &Ruleset) -> Result<(), OsError> {
    commit("install the table", &ruleset.replacement()).await
}

/// Removes the table.
pub(super) async fn remove() -> Result<(), OsError> {
    commit("remove the table", &Ruleset::removal()).await
}

async fn commit(what: &str, transaction: &Value) -> Result<(), OsError> {
    let output = run(&["-j", "-f", "-"], Some(transaction.to_string())).await?;
    match output.status.success() {
        true => Ok(()),
        false => Err(refused(what, message(&output))),
    }
}

async fn run(arguments: &[&str], input: Option<String>) -> Result<Output, OsError> {
    let talk = async {
        let mut nft = Command::new(NFT)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = nft.stdin.take();
        if let (Some(stdin), Some(input)) = (stdin.as_mut(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        drop(stdin);
        nft.wait_with_output().await
    };
    match tokio::time::timeout(TIMEOUT, talk).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(source)) => Err(OsError::Program { program: NFT, advice: advice(&source), source }),
        Err(_) => Err(refused("answer", format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() == io::ErrorKind::NotFound {
        true => "install the package nftables",
        false => "see that nft works on this machine",
    }
}

fn refused(what: &str, message: String) -> OsError {
    OsError::Refused { program: NFT, what: what.to_owned(), message }
}

/// What nft complained about, on one line. It repeats its whole input after each complaint, which
/// is left out.
fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = text.lines().filter(|line| line.contains("rror")).collect();
    let mut message =
        if complaints.is_empty() { text.trim().to_owned() } else { complaints.join("; ") };
    if let Some((at, _)) = message.char_indices().find(|(at, _)| *at >= MESSAGE_MAX_BYTES) {
        message.truncate(at);
    }
    if message.contains("Operation not permitted") {
        message.push_str(" (run the agent as root or give it CAP_NET_ADMIN)");
    }
    message
}
