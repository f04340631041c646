//! Names through resolv.conf(5), for machines without systemd-resolved.
//!
//! The original is on disk before the file changes, and our file says so in its first line. Whoever
//! finds both, after any kind of exit, can put the original back; a file without that line is
//! somebody else's and stays.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::os::durable;
use crate::os::error::OsError;
use crate::os::names::Names;

const MARKER: &str = "# Written by partywall-agent";
const BACKUP_NAME: &str = "resolv.conf.json";
/// glibc reads no more (resolv.conf(5), `MAXNS`).
const SERVERS_MAX: usize = 3;

/// The file, and where its original is kept meanwhile.
#[derive(Debug, Clone)]
pub(super) struct ResolvConf {
    path: PathBuf,
    backup: PathBuf,
}

/// What was there before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Original {
    Missing,
    Symlink { target: PathBuf },
    File { base64: String, mode: u32 },
}

impl ResolvConf {
    pub(super) fn new(path: &Path, state_dir: &Path) -> Self {
        Self { path: path.to_owned(), backup: state_dir.join(BACKUP_NAME) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is ours at the moment.
    pub(super) fn is_held(&self) -> bool {
        fs::read(&self.path).is_ok_and(|text| text.starts_with(MARKER.as_bytes()))
    }

    /// Writes `names` into the file, keeping the original.
    pub(super) fn hold(&self, names: &Names) -> Result<(), OsError> {
        let text = text(names, &self.backup);
        if fs::read_to_string(&self.path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        if !(self.is_held() && self.backup.exists()) {
            let original = self.original().map_err(OsError::file("read", &self.path))?;
            let bytes = serde_json::to_vec(&original).map_err(io::Error::from);
            bytes
                .and_then(|bytes| durable::replace(&self.backup, &bytes, 0o600))
                .map_err(OsError::file("write", &self.backup))?;
        }
        replace(&self.path, text.as_bytes(), 0o644).map_err(OsError::file("write", &self.path))
    }

    /// Puts the original back, unless somebody else has written the file meanwhile.
    pub(super) fn release(&self) -> Result<(), OsError> {
        let bytes = match fs::read(&self.backup) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(OsError::file("read", &self.backup)(error)),
        };
        if self.is_held() {
            let original: Original = serde_json::from_slice(&bytes)
                .map_err(|error| OsError::file("read", &self.backup)(error.into()))?;
            self.restore(&original).map_err(OsError::file("restore", &self.path))?;
        } else {
            tracing::info!(path = %self.path.display(), "somebody else has changed the file meanwhile; it stays");
        }
        durable::remove(&self.backup).map_err(OsError::file("remove", &self.backup))
    }

    fn original(&self) -> io::Result<Original> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Original::Missing),
            Err(error) => return Err(error),
        };
        if metadata.is_symlink() {
            return Ok(Original::Symlink { target: fs::read_link(&self.path)? });
        }
        if self.is_held() {
            // Ours, but the original is lost: no file is better than a segment's resolvers for
            // ever.
            return Ok(Original::Missing);
        }
        let base64 = BASE64.encode(&fs::read(&self.path)?);
        Ok(Original::File { base64, mode: metadata.permissions().mode() & 0o7777 })
    }

    fn restore(&self, original: &Original) -> io::Result<()> {
        match original {
            Original::Missing => match durable::remove(&self.path) {
                Err(error) if is_pinned(&error) => write_in_place(&self.path, b""),
                done => done,
            },
            Original::Symlink { target } => durable::replace_by_link(&self.path, target),
            Original::File { base64, mode } => {
                let bytes = BASE64.decode(base64.as_bytes());
                let bytes = bytes.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                replace(&self.path, &bytes, *mode)
            }
        }
    }
}

/// In containers and network namespaces the file is often a mount of its own, which can be written
/// but not replaced.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match durable::replace(path, content, mode) {
        Err(error) if is_pinned(&error) => write_in_place(path, content),
        done => done,
    }
}

fn is_pinned(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EXDEV | libc::EROFS | libc::EACCES | libc::EPERM)
    )
}

fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn text(names: &Names, backup: &Path) -> String {
    let mut lines = vec![format!(
        "{MARKER} for {}; the original is kept in {} and comes back when the session ends.",
        names.segment,
        backup.display()
    )];
    lines.extend(
        names.servers.iter().take(SERVERS_MAX).map(|server| format!("nameserver {server}")),
    );
    if !names.search.is_empty() {
        lines.push(format!("search {}", names.search.join(" ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(server: &str) -> Names {
        Names {
            segment: "council".parse().unwrap(),
            servers: vec![server.parse().unwrap()],
            search: vec!["council.example".to_owned()],
            everything: true,
        }
    }

    struct Machine {
        dir: tempfile::TempDir,
        file: ResolvConf,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = ResolvConf::new(&dir.path().join("resolv.conf"), dir.path());
            Self { dir, file }
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.file.path).unwrap()
        }
    }

    #[test]
    fn a_file_comes_back_with_its_mode_after_the_session_or_after_a_crash() {
        let machine = Machine::new();
        fs::write(&machine.file.path, "nameserver 192.0.2.53\n").unwrap();
        fs::set_permissions(&machine.file.path, fs::Permissions::from_mode(0o640)).unwrap();
        machine.file.hold(&names("10.0.0.53")).unwrap();
        assert!(machine.text().contains("nameserver 10.0.0.53\nsearch council.example\n"));
        // A restart, another segment, and then the end.
        ResolvConf::new(&machine.file.path, machine.dir.path()).hold(&names("10.9.9.9")).unwrap();
        assert!(machine.text().contains("10.9.9.9"));
        machine.file.release().unwrap();
        assert_eq!(machine.text(), "nameserver 192.0.2.53\n");
        assert_eq!(fs::metadata(&machine.file.path).unwrap().permissions().mode() & 0o777, 0o640);
        machine.file.release().unwrap();
        assert_eq!(fs::read_dir(machine.dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_comes_back_as_a_link_and_its_target_is_never_written() {
        let machine = Machine::new();
        let target = machine.dir.path().join("target");
        fs::write(&target, "nameserver 192.0.2.53\n").unwrap();
        std::os::unix::fs::symlink("target", &machine.file.path).unwrap();
        machine.file.hold(&names("10.0.0.53")).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "nameserver 192.0.2.53\n");
        machine.file.release().unwrap();
        assert_eq!(fs::read_link(&machine.file.path).unwrap(), Path::new("target"));
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays_and_is_the_next_original() {
        let machine = Machine::new();
        machine.file.hold(&names("10.0.0.53")).unwrap();
        fs::write(&machine.file.path, "nameserver 192.0.2.1\n").unwrap();
        machine.file.hold(&names("10.0.0.53")).unwrap();
        machine.file.release().unwrap();
        assert_eq!(machine.text(), "nameserver 192.0.2.1\n");
        machine.file.hold(&names("10.0.0.53")).unwrap();
        fs::write(&machine.file.path, "nameserver 192.0.2.2\n").unwrap();
        machine.file.release().unwrap();
        assert_eq!(machine.text(), "nameserver 192.0.2.2\n");
    }

    #[test]
    fn a_file_that_was_not_there_is_gone_again() {
        let machine = Machine::new();
        machine.file.hold(&names("10.0.0.53")).unwrap();
        assert!(machine.file.is_held());
        machine.file.release().unwrap();
        assert!(!machine.file.path.exists());
    }
}
