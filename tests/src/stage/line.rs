//! An open TCP connection to an echo server, as a long conversation that must live or die.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::lab::{Host, PATIENCE};
use anyhow::{Context, Result};

/// A connection; dropping it ends it.
pub struct Line {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    said: u32,
}

impl Line {
    /// Opens a connection from `host`, `to` as socat has it (`TCP:10.1.0.10:7`), and holds one exchange
    /// over it.
    pub fn open(host: &Host, to: &str) -> Result<Self> {
        let mut child = host
            .command(&["socat", "-", &format!("{to},connect-timeout=5")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take().context("stdin was asked for")?;
        let output = BufReader::new(child.stdout.take().context("stdout was asked for")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut line = Self { child, input, lines, said: 0 };
        anyhow::ensure!(line.answers(PATIENCE), "{to} does not answer {}", host.name());
        Ok(line)
    }

    /// Says something new, and whether the echo of it comes back in time.
    pub fn answers(&mut self, limit: Duration) -> bool {
        self.said += 1;
        let said = format!("line {}", self.said);
        if writeln!(self.input, "{said}").and_then(|()| self.input.flush()).is_err() {
            return false;
        }
        // An answer to an earlier line may still be under way.
        std::iter::from_fn(|| self.lines.recv_timeout(limit).ok()).any(|line| line == said)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // `nsenter` ends with its program, and the program with its input.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
