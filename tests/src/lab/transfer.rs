//! A running download, and when its last byte came.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::host::Host;
use super::wait::{PATIENCE, wait_for, within};

/// A download that is read as it comes. Dropping it ends it.
#[derive(Debug)]
pub struct Transfer {
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    bytes: u64,
    last: Instant,
    ended: bool,
}

impl Transfer {
    /// Starts a download of `url` on a host and waits for its first bytes.
    ///
    /// # Errors
    /// Nothing comes within [`PATIENCE`].
    pub fn start(host: &Host, url: &str) -> Result<Self> {
        let mut child = host
            .command(&["curl", "--silent", "--globoff", "--no-buffer", "--output", "-", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("curl does not start")?;
        let mut stdout = child.stdout.take().expect("stdout was asked for");
        let seen = Arc::new(Mutex::new(Seen { bytes: 0, last: Instant::now(), ended: false }));
        let write = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = stdout.read(&mut buffer).unwrap_or(0);
                let mut seen = write.lock().expect("the reader does not panic");
                if read == 0 {
                    seen.ended = true;
                    break;
                }
                *seen =
                    Seen { bytes: seen.bytes + read as u64, last: Instant::now(), ended: false };
            }
        });
        let transfer = Self { child, seen };
        let what = format!("{url} sends its first bytes");
        wait_for(&what, PATIENCE, || transfer.bytes() > 0)?;
        Ok(transfer)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.seen().bytes
    }

    /// Whether more bytes come within `patience`.
    pub fn flows(&self, patience: Duration) -> bool {
        let before = self.bytes();
        wait_for("more bytes", patience, || self.bytes() > before).is_ok()
    }

    /// Waits until nothing has come for `quiet`, or the connection has ended, and says when the last
    /// byte came.
    ///
    /// # Errors
    /// Bytes still come at the deadline.
    pub fn last_byte(&self, quiet: Duration, deadline: Duration) -> Result<Instant> {
        within("the transfer stops", deadline, || {
            let seen = self.seen();
            Ok((seen.ended || seen.last.elapsed() >= quiet).then_some(seen.last))
        })
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().expect("the reader does not panic")
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        // The reader's pipe is closed by curl's end, so curl itself must go, not only nsenter.
        for pid in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
