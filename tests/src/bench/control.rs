//! How long people wait: from `partywall login` to the first byte of their server, and from
//! `partywallctl revoke` to the last byte of a running transfer.
//!
//! Times are taken outside the lab, around whole commands, as a person would feel them.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Better, Row};
use crate::lab::{Building, Host, Lab, Topology, Transfer, wait_for};

/// Bars of the second issue's third point.
const LOGIN_BAR_MS: f64 = 500.0;
const REVOKE_BAR_MS: f64 = 250.0;

const SERVER: &str = "http://10.1.0.10";
/// Longer than any pause between two pieces of a transfer that still runs.
const QUIET: Duration = Duration::from_millis(300);
/// Test users take turns: nobody's code is asked for twice within its step.
const USERS: usize = 8;

/// Measures `rounds` sign-ins and revocations; `told` hears how it goes.
///
/// # Errors
/// A sign-in or a revocation fails.
pub fn control(rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut building = Building::up(Lab::up(&Topology::named("pair")?)?)?;
    let device = building.host("device").clone();
    let (mut login_ms, mut revoke_ms) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let user = format!("user-{}@bench", round % USERS + 1);
        let lines = building.credentials(&user).lines();
        let began = Instant::now();
        let login = ["partywall", "login", "bench", "--user", &user, "--stdin"];
        device.run_with_input(&login, &lines)?.ok()?;
        first_byte(&device)?;
        login_ms.push(began.elapsed().as_secs_f64() * 1000.0);

        let transfer = Transfer::start(&device, &format!("{SERVER}/slow"))?;
        wait_for("the transfer is under way", Duration::from_secs(5), || {
            transfer.bytes() > 1 << 20
        })?;
        let sessions = building.sessions("bench")?;
        let session = sessions.first().context("there is no session to revoke")?.id.to_string();
        let began = Instant::now();
        building.ctl("bench", &["revoke", &session])?.ok()?;
        let last = transfer.last_byte(QUIET, Duration::from_secs(10))?;
        revoke_ms.push(last.saturating_duration_since(began).as_secs_f64() * 1000.0);
        told(&format!(
            "round {round} of {rounds}: login {:.0} ms, revoke {:.0} ms",
            login_ms[round - 1],
            revoke_ms[round - 1]
        ));
    }
    Ok(vec![
        Row::new("login to first byte", "ms", &login_ms, LOGIN_BAR_MS, Better::Lower),
        Row::new("revoke to last byte", "ms", &revoke_ms, REVOKE_BAR_MS, Better::Lower),
    ])
}

fn first_byte(device: &Host) -> Result<()> {
    let mut child = device
        .command(&["curl", "--silent", "--no-buffer", "--max-time", "5", &format!("{SERVER}/")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("curl does not start")?;
    let mut byte = [0];
    let read = child.stdout.take().expect("stdout was asked for").read(&mut byte)?;
    // The rest of the page is not waited for in the measurement, but the process is.
    let waiter = std::thread::spawn(move || child.wait());
    ensure!(read == 1, "the server sends nothing after the sign-in");
    drop(waiter);
    Ok(())
}
