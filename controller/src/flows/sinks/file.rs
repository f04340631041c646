//! A sink that is a file of JSON lines on the controller's machine.
//!
//! Its path is made of the folder that whoever runs the controller has set aside and two names, neither of
//! which can hold a slash or a dot: an organisation cannot reach any other file with it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use partywall_proto::admin::StoredFlow;
use partywall_proto::ids::{OrganisationId, SinkId};

use super::SendError;
use crate::flows::log::opened;
use crate::flows::writer::check_room;

/// Size at which the file moves aside, over the one that did so before.
const FILE_MAX_BYTES: u64 = 256 << 20;

/// See the module.
pub(super) struct FileTarget {
    path: Option<PathBuf>,
    open: Option<(File, u64)>,
    file_max_bytes: u64,
}

impl FileTarget {
    pub(super) fn new(files: Option<&Path>, organisation: &OrganisationId, name: &SinkId) -> Self {
        let path = files.map(|it| it.join(organisation.as_str()).join(format!("{name}.jsonl")));
        Self { path, open: None, file_max_bytes: FILE_MAX_BYTES }
    }

    pub(super) async fn send(&mut self, flows: &Arc<[StoredFlow]>) -> Result<(), SendError> {
        let Some(path) = self.path.clone() else {
            let why = "whoever runs the controller has set no folder aside for files";
            return Err(SendError::Never { records: flows.len() as u64, why: why.to_owned() });
        };
        let (open, flows, max) = (self.open.take(), Arc::clone(flows), self.file_max_bytes);
        let writing = tokio::task::spawn_blocking(move || append(&path, open, &flows, max));
        match writing.await.unwrap_or_else(|broken| Err(io::Error::other(broken))) {
            Ok(open) => {
                self.open = Some(open);
                Ok(())
            }
            Err(failure) => Err(SendError::Later(format!("cannot be written: {}", failure.kind()))),
        }
    }
}

fn append(
    path: &Path,
    open: Option<(File, u64)>,
    flows: &[StoredFlow],
    file_max_bytes: u64,
) -> io::Result<(File, u64)> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    check_room(folder)?;
    // Whoever collects the file may have moved it away.
    let open = open.filter(|(file, _)| is_at(file, path));
    let (mut file, mut bytes) = match open {
        Some((_, bytes)) if bytes >= file_max_bytes => {
            fs::rename(path, path.with_extension("jsonl.1"))?;
            opened(path)?
        }
        Some(open) => open,
        None => opened(path)?,
    };
    let mut text = Vec::new();
    for stored in flows {
        serde_json::to_writer(&mut text, stored)?;
        text.push(b'\n');
    }
    file.write_all(&text)?;
    bytes += text.len() as u64;
    Ok((file, bytes))
}

fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::testing::flow;

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    #[tokio::test]
    async fn a_file_moves_aside_when_it_is_large_and_comes_back_when_it_was_taken_away() {
        let place = tempfile::tempdir().unwrap();
        let (council, name) = ("council".parse().unwrap(), "siem".parse().unwrap());
        let mut target = FileTarget::new(Some(place.path()), &council, &name);
        target.file_max_bytes = 1;
        let flows: Arc<[StoredFlow]> = vec![flow("a", 0), flow("b", 0)].into();
        let path = place.path().join("council/siem.jsonl");
        target.send(&flows).await.unwrap();
        assert_eq!((lines(&path), lines(&path.with_extension("jsonl.1"))), (2, 0));
        target.send(&flows).await.unwrap();
        assert_eq!((lines(&path), lines(&path.with_extension("jsonl.1"))), (2, 2));
        fs::rename(&path, place.path().join("taken")).unwrap();
        target.send(&flows).await.unwrap();
        assert_eq!((lines(&path), lines(&place.path().join("taken"))), (2, 2));
    }

    #[tokio::test]
    async fn without_a_folder_there_are_no_files() {
        let (council, name) = ("council".parse().unwrap(), "siem".parse().unwrap());
        let mut target = FileTarget::new(None, &council, &name);
        let refused = target.send(&vec![flow("a", 0)].into()).await;
        assert!(matches!(refused, Err(SendError::Never { records: 1, .. })), "{refused:?}");
    }
}
