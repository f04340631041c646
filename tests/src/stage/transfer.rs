//! A download that runs for minutes, and when its last byte came.

use std::time::{Duration, Instant};

use crate::lab::{Host, Process, wait_for};
use anyhow::Result;

/// A running download of `/slow`, which the server holds to 8 MB/s.
pub struct Transfer {
    _process: Process,
    path: std::path::PathBuf,
}

impl Transfer {
    /// Starts it on `host` and waits until bytes flow. `dir` is any directory of the machine's own.
    pub fn start(host: &Host, url: &str, dir: &std::path::Path) -> Result<Self> {
        let path = dir.join(format!("{}-transfer", host.name()));
        let shown = path.display().to_string();
        let process = host.spawn("transfer", &["curl", "-sgN", "-o", &shown, url])?;
        let transfer = Self { _process: process, path };
        wait_for("the transfer runs", Duration::from_secs(10), || transfer.bytes() > 200_000)?;
        Ok(transfer)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Whether bytes come within a second.
    pub fn runs(&self) -> bool {
        let before = self.bytes();
        wait_for("bytes", Duration::from_secs(1), || self.bytes() > before).is_ok()
    }

    /// Watches for `watch` and says when the last byte came, after `since`; zero if none did.
    pub fn last_byte_after(&self, since: Instant, watch: Duration) -> Duration {
        let mut bytes = self.bytes();
        let mut last = Duration::ZERO;
        while since.elapsed() < watch {
            let now = self.bytes();
            if now != bytes {
                (bytes, last) = (now, since.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        last
    }
}
