//! The state directory: mode 0700, held by one agent at a time through a lock file, each file 0600.
//!
//! A file is replaced as a whole: written beside, fsynced, renamed, directory fsynced. A reader
//! never sees half of one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const LOCK: &str = "lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent holds it.
    #[error("another partywall-agent is using {}; stop it first", directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
    },
    /// Reading, writing or making a file failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is there, but its content is not what the agent wrote.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
}

/// An open state directory. The lock goes when this is dropped, or with the process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`StateError::Held`] where another agent has it; otherwise what the file system says.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |what| move |source| StateError::Io { what, path: path.to_owned(), source };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(fail("make the directory"))?;
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(fail("restrict the directory"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(path.join(LOCK))
            .map_err(fail("open the lock file in"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Held { directory: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(fail("lock")(source)),
        }
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole of a file; none where it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io("read", name, source)),
        }
    }

    /// Replaces a file as a whole, durably.
    ///
    /// # Errors
    /// What the file system says; the old file is then still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let fail = |source| self.io("write", name, source);
        let mut file = tempfile::Builder::new()
            .prefix(name)
            .suffix(".new")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(&self.path)
            .map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(self.path.join(name)).map_err(|error| fail(error.error))?;
        self.sync(name)
    }

    /// Adds to the end of a file, durably.
    ///
    /// # Errors
    /// What the file system says; a part of `bytes` may then be there.
    pub fn append(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let fail = |source| self.io("append to", name, source);
        let mut file = OpenOptions::new().append(true).open(self.path.join(name)).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        file.sync_data().map_err(fail)
    }

    /// Removes a file, durably. One that is not there is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => self.sync(name),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(self.io("remove", name, source)),
        }
    }

    /// A JSON file as a value; none where it is not there.
    ///
    /// # Errors
    /// What the file system says, or [`StateError::Damaged`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            self.damaged(name, format!("{error}; restore it, or enrol this machine again"))
        })
    }

    /// Replaces a file by the JSON of `value`, durably.
    ///
    /// # Errors
    /// What the file system says.
    ///
    /// # Panics
    /// Never for the agent's own types: they all have a JSON form.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let mut bytes = serde_json::to_vec_pretty(value).expect("state has a JSON form");
        bytes.push(b'\n');
        self.write(name, &bytes)
    }

    pub(super) fn damaged(&self, name: &str, detail: String) -> StateError {
        StateError::Damaged { path: self.path.join(name), detail }
    }

    fn sync(&self, name: &str) -> Result<(), StateError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|source| self.io("sync the directory of", name, source))
    }

    fn io(&self, what: &'static str, name: &str, source: io::Error) -> StateError {
        StateError::Io { what, path: self.path.join(name), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path()).unwrap();
        let refused = StateDir::open(root.path()).unwrap_err();
        assert!(matches!(refused, StateError::Held { .. }), "{refused}");
        drop(first);
        StateDir::open(root.path()).unwrap();
    }

    #[test]
    fn nobody_else_may_read_the_directory_or_its_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let state = StateDir::open(&path).unwrap();
        state.write("x", b"1").unwrap();
        state.write("x", b"2").unwrap();
        assert_eq!(
            (mode(&path), mode(&path.join("x")), mode(&path.join(LOCK))),
            (0o700, 0o600, 0o600)
        );
        assert_eq!(state.read("x").unwrap().unwrap(), b"2");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "a temporary file was left");
    }

    #[test]
    fn a_directory_that_was_open_to_others_is_closed() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let _state = StateDir::open(root.path()).unwrap();
        assert_eq!(mode(root.path()), 0o700);
    }

    #[test]
    fn a_damaged_file_is_told_from_a_missing_one() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        assert!(state.read_json::<Vec<u8>>("x").unwrap().is_none());
        state.write("x", b"[1,").unwrap();
        assert!(matches!(state.read_json::<Vec<u8>>("x"), Err(StateError::Damaged { .. })));
        state.remove("x").unwrap();
        state.remove("x").unwrap();
        assert!(state.read("x").unwrap().is_none());
    }
}
