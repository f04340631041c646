//! Shows why a test failed: the ends of the daemons' logs.

use std::path::{Path, PathBuf};

/// Lines of each log that are shown.
const TAIL_LINES: usize = 25;

/// Prints the ends of a lab's logs when it is dropped in a panic. Make it after the lab, so that it goes
/// first.
pub struct ShowLogs {
    dir: PathBuf,
}

impl ShowLogs {
    /// For the lab whose logs are in `dir`.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.into() }
    }
}

impl Drop for ShowLogs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                ["agent", "controller", "wireguard"].iter().any(|daemon| name.contains(daemon))
            })
            .collect();
        logs.sort();
        for path in logs {
            let text =
                String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("--- {} ---\n{}", path.display(), tail.join("\n"));
        }
    }
}
