//! The story of one building, told by doing it: each step is checked, none is assumed.
//!
//! While the wire is being recorded nobody uses the network signed out: what a signed-out desk sends
//! is in the clear, as it is without Partywall, and would be found there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::{Building, PATIENCE, Transfer, wire, within};

const SERVER: &str = "10.1.0.10";
const SERVER_IPV6: &str = "[fd10:1::10]";
const TUNNEL: &str = "partywall0";
const COUNCIL_PAGE: &str = "Council intranet";
const NHS_PAGE: &str = "NHS records";

/// One step, as a facilities manager reads it.
#[derive(Debug, Clone)]
pub struct Step {
    /// What was done.
    pub what: &'static str,
    /// What was seen, or what is wrong.
    pub seen: String,
    /// Whether it is as it must be.
    pub holds: bool,
}

type Act = fn(&mut Stage) -> Result<String>;

/// The building and what goes on in it.
struct Stage {
    building: Building,
    transfer: Option<Transfer>,
}

const ACTS: [(&str, Act); 13] = [
    ("Alice (council) signs in at desk 1", |s| s.sign_in("desk-1", "alice@council", "council")),
    ("Nina (NHS) signs in at desk 2, beside her", |s| s.sign_in("desk-2", "nina@nhs", "nhs")),
    ("Desk 1 opens the council's intranet", |s| s.opens("desk-1", COUNCIL_PAGE)),
    ("Desk 2 opens the NHS records, at the very same address", |s| s.opens("desk-2", NHS_PAGE)),
    ("Desk 1 gets nothing of the NHS", |s| s.gets_nothing("desk-1", "records.nhs.test", "desk-2")),
    ("Desk 2 gets nothing of the council", |s| {
        s.gets_nothing("desk-2", "intranet.council.test", "desk-1")
    }),
    ("Alice signs out; Nina moves to desk 1", Stage::change_hands),
    ("Desk 1 is an NHS desk now", |s| s.opens("desk-1", NHS_PAGE)),
    ("Alice signs in at desk 2 and starts a download", Stage::download),
    ("Her session is revoked", Stage::revoke),
    ("The controller loses power", Stage::power_cut),
    ("The controller is back; nobody had to do anything", Stage::recovery),
    ("The record of who did what is intact", Stage::audit),
];

/// Plays the story; `told` hears of each step as it ends. The building is handed back as it is then.
///
/// # Errors
/// The stage itself fails, for instance a capture that cannot be read. A step that does not hold is
/// no error.
pub fn play(building: Building, mut told: impl FnMut(&Step)) -> Result<Building> {
    let mut stage = Stage { building, transfer: None };
    let mut tell = |what, result: Result<String>| {
        let holds = result.is_ok();
        let seen = result.unwrap_or_else(|error| format!("{error:#}"));
        told(&Step { what, seen, holds });
    };
    tell("Nobody is signed in: the desks reach neither network", stage.nobody());
    let wire = stage.building.lab().capture("lan")?;
    for (what, act) in ACTS {
        tell(what, act(&mut stage));
    }
    let findings = wire::judge(&wire.stop()?, stage.building.allowed());
    let clean = findings.violations.is_empty() && findings.wireguard > 0 && findings.tls > 0;
    let result = match clean {
        true => Ok(findings.to_string()),
        false => {
            eprintln!("{findings}");
            let first = findings.violations.first().map_or("no tunnel at all", |v| v.what.as_str());
            Err(anyhow::anyhow!("{} frames of something else: {first}", findings.violations.len()))
        }
    };
    tell("All the while, on the building's cable", result);
    Ok(stage.building)
}

impl Stage {
    fn page(&self, desk: &str, server: &str) -> Result<String> {
        let url = format!("http://{server}/");
        let curl = ["curl", "-sS", "--globoff", "--connect-timeout", "3", "--max-time", "20", &url];
        Ok(self.building.host(desk).ok(&curl)?.trim().to_owned())
    }

    fn nobody(&mut self) -> Result<String> {
        for desk in ["desk-1", "desk-2"] {
            for server in [SERVER, SERVER_IPV6] {
                if let Ok(page) = self.page(desk, server) {
                    anyhow::bail!("{desk} reads {page:?} without a session");
                }
            }
        }
        Ok("no answer from either".into())
    }

    fn sign_in(&mut self, desk: &str, user: &str, segment: &str) -> Result<String> {
        // The wait for a fresh code is the person's, not the product's.
        let lines = self.building.credentials(user).lines();
        let login = ["partywall", "login", segment, "--user", user, "--stdin"];
        let began = Instant::now();
        let said = self.building.host(desk).run_with_input(&login, &lines)?.ok()?;
        let said = said.lines().next().unwrap_or_default().trim().to_owned();
        Ok(format!("{said} ({} ms)", began.elapsed().as_millis()))
    }

    fn opens(&mut self, desk: &str, page: &str) -> Result<String> {
        for server in [SERVER, SERVER_IPV6] {
            let found = self.page(desk, server)?;
            ensure!(found == page, "{server} shows {found:?}");
        }
        Ok(format!("\u{201c}{page}\u{201d}, over IPv4 and IPv6"))
    }

    /// No name, no address of the other segment's pool, and no device in it answers.
    fn gets_nothing(&mut self, desk: &str, name: &str, other: &str) -> Result<String> {
        let host = self.building.host(desk);
        let resolved = host.run(&["timeout", "3", "getent", "ahosts", name])?;
        ensure!(!resolved.success(), "{name} resolves to {}", resolved.stdout.trim());
        for address in self.overlay_addresses(other)? {
            // Into the tunnel: with a split tunnel, the address would else be looked for on the LAN.
            let ping = ["ping", "-c1", "-W1", "-I", TUNNEL, &address];
            let ping = self.building.host(desk).run(&ping)?;
            ensure!(!ping.success(), "{address} of {other} answers");
        }
        Ok("no name, no answer".into())
    }

    fn overlay_addresses(&self, desk: &str) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        for organisation in ["council", "nhs"] {
            for session in self.building.sessions(organisation)? {
                if session.device.as_str() == desk {
                    addresses.extend(session.addresses.iter().map(ToString::to_string));
                }
            }
        }
        ensure!(!addresses.is_empty(), "{desk} has no session");
        Ok(addresses)
    }

    fn change_hands(&mut self) -> Result<String> {
        let old = Transfer::start(self.building.host("desk-1"), &slow())?;
        self.building.sign_out("desk-1")?;
        let ended = old.last_byte(Duration::from_millis(400), Duration::from_secs(5));
        ended.context("Alice's open connection outlives her session")?;
        self.building.sign_out("desk-2")?;
        let said = self.sign_in("desk-1", "nina@nhs", "nhs")?;
        ensure!(!old.flows(Duration::from_millis(500)), "Alice's old connection came back");
        Ok(format!("her open connection died; {said}"))
    }

    fn download(&mut self) -> Result<String> {
        let said = self.sign_in("desk-2", "alice@council", "council")?;
        let transfer = Transfer::start(self.building.host("desk-2"), &slow())?;
        ensure!(transfer.flows(PATIENCE), "the download does not flow");
        self.transfer = Some(transfer);
        Ok(said)
    }

    fn revoke(&mut self) -> Result<String> {
        let transfer = self.transfer.take().context("there is no download")?;
        let sessions = self.building.sessions("council")?;
        let session = sessions.first().context("the council has no session")?;
        ensure!(transfer.flows(PATIENCE), "the download had stopped before");
        let began = Instant::now();
        self.building.ctl("council", &["revoke", &session.id.to_string()])?.ok()?;
        let last = transfer.last_byte(Duration::from_millis(400), Duration::from_secs(5))?;
        let took = last.saturating_duration_since(began);
        Ok(format!("the download stopped after {} ms", took.as_millis()))
    }

    fn power_cut(&mut self) -> Result<String> {
        let transfer = Transfer::start(self.building.host("desk-1"), &slow())?;
        self.building.kill_controller();
        ensure!(transfer.flows(PATIENCE), "desk 1's download stopped");
        self.opens("desk-1", NHS_PAGE)?;
        let refused = self.building.try_sign_in("desk-2", "alice@council", "council")?;
        ensure!(!refused.success(), "somebody could sign in without the controller");
        Ok("desk 1 works on, its download too; nobody new can sign in".into())
    }

    fn recovery(&mut self) -> Result<String> {
        self.building.start_controller()?;
        for host in ["gw-council", "gw-nhs", "desk-1", "desk-2"] {
            self.building.wait_until_connected(host)?;
        }
        self.opens("desk-1", NHS_PAGE)?;
        // The code that was given while the controller was away may have been the user's last word.
        let said = within("Alice signs in again", Duration::from_secs(30), || {
            self.sign_in("desk-2", "alice@council", "council").map(Some)
        })?;
        self.opens("desk-2", COUNCIL_PAGE)?;
        Ok(said)
    }

    fn audit(&mut self) -> Result<String> {
        for who in ["facilities", "council", "nhs"] {
            self.building.ctl(who, &["audit", "verify"])?.ok()?;
        }
        Ok("every organisation's chain verifies".into())
    }
}

fn slow() -> String {
    format!("http://{SERVER}/slow")
}
