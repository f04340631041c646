//! Where Partywall's programs are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a lab with Partywall in it runs.
pub const NAMES: [&str; 4] =
    ["partywall-controller", "partywallctl", "partywall-agent", "partywall"];

/// The directory of the programs: `PARTYWALL_BIN_DIR`, or where this program itself was built.
///
/// # Errors
/// They are not built.
pub fn dir() -> Result<PathBuf> {
    let dir = match env::var_os("PARTYWALL_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => beside(&env::current_exe().context("this program's own path is unknown")?),
    };
    let missing: Vec<&str> = NAMES.into_iter().filter(|name| !dir.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(dir);
    }
    bail!(
        "{} not found in {}: run `cargo build -p partywall-agent -p partywall-controller --bins` first, \
         or set PARTYWALL_BIN_DIR",
        missing.join(", "),
        dir.display()
    )
}

/// A `PATH` with the programs first, and the system directories that a plain user's may lack.
pub(super) fn path() -> String {
    let own = dir().map(|dir| format!("{}:", dir.display())).unwrap_or_default();
    let inherited = env::var("PATH").unwrap_or_default();
    format!("{own}{inherited}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Test programs are one directory below the others (`deps`).
fn beside(exe: &Path) -> PathBuf {
    let dir = exe.parent().unwrap_or(Path::new("/"));
    match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().unwrap_or(dir).into(),
        Some(_) | None => dir.into(),
    }
}
