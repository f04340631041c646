//! The one lab that outlives its maker, and the file that names it.
//!
//! `scripts/lab` and `scripts/demo --keep` share it, so that either can take down what the other left.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::lab::{Building, BuildingState, Lab, LabState};

/// What is kept between two calls.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// The lab.
    pub lab: LabState,
    /// Partywall in it; none for a bare lab.
    pub building: Option<BuildingState>,
}

impl Kept {
    /// The lab that was left running.
    ///
    /// # Errors
    /// There is none.
    pub fn read() -> Result<Self> {
        let text =
            std::fs::read_to_string(path()).context("no lab is up: `scripts/lab up` makes one")?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path().display()))
    }

    /// Remembers it. Only its owner may read the file: the test users' secrets are in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self) -> Result<()> {
        let mut options = std::fs::File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path())?;
        Ok(file.write_all(&serde_json::to_vec_pretty(self)?)?)
    }
}

/// Leaves a building running.
///
/// # Errors
/// The file cannot be written.
pub fn keep(building: Building) -> Result<()> {
    let (lab, building) = building.keep();
    Kept { lab, building: Some(building) }.write()
}

/// One at a time: a second would make the first unreachable.
///
/// # Errors
/// A lab is up.
pub fn refuse_second() -> Result<()> {
    if Kept::read().is_ok_and(|kept| Lab::attach(&kept.lab).is_ok()) {
        bail!("a lab is up already: `scripts/lab status` shows it, `scripts/lab down` ends it");
    }
    Ok(())
}

/// Takes it down.
///
/// # Errors
/// There is none, or the file stays.
pub fn down() -> Result<()> {
    let kept = Kept::read()?;
    if let Ok(lab) = Lab::attach(&kept.lab) {
        lab.down();
    }
    std::fs::remove_file(path()).context("the lab's state file stays")
}

/// Beside other run-time state, so that a restart of the machine forgets the lab with it.
fn path() -> PathBuf {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/run".into(), PathBuf::from);
    dir.join("partywall-lab.json")
}
