//! Counts the instructions of a case: the program runs once more under callgrind.
//!
//! The processor's own counters are hidden from most virtual machines, and would differ between machines.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cases::Case;
use super::meter::WATCHED;

/// Instructions that the case takes each time; none where there is no valgrind.
pub(super) fn count(this: &Path, case: &Case) -> Result<Option<f64>> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={WATCHED}"))
        .arg(this)
        .args(["datapath", "--case", &case.slug()]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("valgrind does not start"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind fails: {said}");
    let collected = collected(&said).with_context(|| format!("valgrind counts nothing: {said}"))?;
    let times: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(Some(collected / times))
}

fn collected(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.split_once("Collected : "))?;
    line.1.trim().parse().ok().filter(|count| *count > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_was_not_found_is_no_count() {
        let said = "==7== Events    : Ir\n==7== Collected : 4093\n";
        assert_eq!(collected(said).map(|count| count as u64), Some(4093));
        assert_eq!(collected("==7== Collected : 0\n"), None);
    }
}
