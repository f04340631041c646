//! What a crash would leave behind, written to the state directory before it is done, so that the
//! next start or `mend` can undo it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use partywall_proto::ids::SessionId;
use serde::{Deserialize, Serialize};

use crate::os::durable;
use crate::os::error::OsError;

const FILE_NAME: &str = "system.json";

/// What is ours in the operating system and does not say so itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The session that is enforced.
    #[serde(default)]
    pub(super) session: Option<SessionId>,
    /// Overlay addresses that sockets may be bound to.
    #[serde(default)]
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Kernel settings that were changed, with the values from before.
    #[serde(default)]
    pub(super) sysctls: BTreeMap<String, String>,
}

impl Record {
    /// What the last run left; nothing where there was none. A file that cannot be read is reported
    /// and then taken for none: to refuse the network for its sake would help nobody.
    pub(super) fn load(state_dir: &Path) -> Result<Self, OsError> {
        let path = path(state_dir);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the record of system changes is damaged and is left out");
                Self::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(OsError::file("read", &path)(error)),
        }
    }

    /// On disk when this returns. An empty record leaves no file.
    pub(super) fn save(&self, state_dir: &Path) -> Result<(), OsError> {
        let path = path(state_dir);
        let saved = match *self == Self::default() {
            true => durable::remove(&path),
            false => serde_json::to_vec(self)
                .map_err(io::Error::from)
                .and_then(|bytes| durable::replace(&path, &bytes, 0o600)),
        };
        saved.map_err(OsError::file("write", &path))
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_an_empty_one_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::load(dir.path()).unwrap();
        assert_eq!(record, Record::default());
        record.addresses.insert("100.64.0.5".parse().unwrap());
        record.save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), record);
        std::fs::write(path(dir.path()), "{torn").unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Record::default());
        Record::default().save(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
