//! What a command in the lab said and how it ended.

use std::process::ExitStatus;

use anyhow::{Result, bail};

/// A finished command.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Errors
    /// It did not; the message has what the command said.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        bail!("`{}` failed ({}): {}{}", self.command, self.status, self.stderr, self.stdout)
    }
}
