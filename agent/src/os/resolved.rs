//! Names through systemd-resolved, by `resolvectl`. It keeps them per interface and forgets them
//! with it, so a crash leaves nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::os::error::OsError;
use crate::os::names::Names;

const RESOLVECTL: &str = "resolvectl";
const RUN_DIR: &str = "/run/systemd/resolve";
/// The stub resolver's addresses (systemd-resolved.service(8)).
const STUBS: [&str; 2] = ["nameserver 127.0.0.53", "nameserver 127.0.0.54"];
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether programs on this machine ask systemd-resolved.
pub(super) fn serves(resolv_conf: &Path) -> bool {
    if !Path::new(RUN_DIR).is_dir() {
        return false;
    }
    let points_there = fs::canonicalize(resolv_conf).is_ok_and(|path| path.starts_with(RUN_DIR));
    let asks_stub = fs::read_to_string(resolv_conf)
        .is_ok_and(|text| text.lines().any(|line| STUBS.contains(&line.trim())));
    points_there || asks_stub
}

pub(super) async fn hold(names: &Names, tun_name: &str) -> Result<(), OsError> {
    let servers: Vec<String> = names.servers.iter().map(ToString::to_string).collect();
    resolvectl("dns", tun_name, &servers).await?;
    let mut domains = names.search.clone();
    if names.everything {
        // The routing domain of every name (systemd.network(5), "Domains=").
        domains.push("~.".to_owned());
    }
    resolvectl("domain", tun_name, &domains).await?;
    let default = if names.everything { "yes" } else { "no" };
    resolvectl("default-route", tun_name, &[default.to_owned()]).await
}

pub(super) async fn release(tun_name: &str) -> Result<(), OsError> {
    resolvectl("revert", tun_name, &[]).await
}

async fn resolvectl(verb: &str, tun_name: &str, arguments: &[String]) -> Result<(), OsError> {
    let run = Command::new(RESOLVECTL)
        .arg(verb)
        .arg(tun_name)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let refused = |message: String| OsError::Refused {
        program: RESOLVECTL,
        what: format!("set {verb} of {tun_name}"),
        message,
    };
    match tokio::time::timeout(TIMEOUT, run).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Ok(Err(source)) => Err(OsError::Program {
            program: RESOLVECTL,
            advice: "systemd-resolved serves this machine, but its tool is missing or broken",
            source,
        }),
        Err(_) => Err(refused(format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}
