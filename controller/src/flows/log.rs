//! One organisation's flow records on disk: files of JSON lines, one or more for each hour.
//!
//! Lines are only ever appended. What a killed controller left unfinished is closed with a line break
//! before the next line is written, so that a torn line costs itself and no other.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use partywall_proto::admin::StoredFlow;

use super::part::Part;

/// Size at which an hour's file is followed by another: the steps in which the oldest records make room.
const PART_MAX_BYTES: u64 = 16 << 20;

/// See the module. One writer at a time; readers go by the files alone.
pub(super) struct Log {
    directory: PathBuf,
    /// Every file with its size.
    parts: BTreeMap<Part, u64>,
    bytes: u64,
    /// The file last written to.
    open: Option<(Part, File)>,
    part_max_bytes: u64,
}

impl Log {
    /// The records in `directory`, which is made if it is not there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut parts = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Some(part) = part_of(&entry) {
                parts.insert(part, entry.metadata()?.len());
            }
        }
        let bytes = parts.values().sum();
        let directory = directory.to_owned();
        Ok(Self { directory, parts, bytes, open: None, part_max_bytes: PART_MAX_BYTES })
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends `flows`, each to its own hour; answers how many were written before the disk refused,
    /// and its reason.
    pub(super) fn append<'a>(
        &mut self,
        flows: impl IntoIterator<Item = &'a StoredFlow>,
    ) -> (u64, io::Result<()>) {
        // Hours are few in one batch, and most often there is one.
        let mut lines: BTreeMap<Part, (u64, Vec<u8>)> = BTreeMap::new();
        for stored in flows {
            let (count, text) = lines.entry(Part::first_of(stored.flow.at)).or_default();
            serde_json::to_writer(&mut *text, stored).expect("records have a JSON form");
            text.push(b'\n');
            *count += 1;
        }
        let mut written = 0;
        for (hour, (count, text)) in lines {
            if let Err(failure) = self.write(hour, &text) {
                // What is there of the lines is unknown: the next write looks.
                if let Some((part, _)) = self.open.take() {
                    self.measure(part);
                }
                return (written, Err(failure));
            }
            written += count;
        }
        (written, Ok(()))
    }

    /// Removes what is wholly older than `oldest_kept`, then the oldest until `budget_bytes` suffice.
    pub(super) fn prune(&mut self, oldest_kept: Timestamp, budget_bytes: u64) -> io::Result<()> {
        while let Some((part, bytes)) =
            self.parts.first_key_value().map(|(part, len)| (*part, *len))
        {
            if !part.is_before(oldest_kept) && self.bytes <= budget_bytes {
                break;
            }
            self.open.take_if(|(open, _)| *open == part);
            match fs::remove_file(self.path(part)) {
                Ok(()) => {}
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(failure) => return Err(failure),
            }
            self.parts.remove(&part);
            self.bytes -= bytes;
        }
        Ok(())
    }

    fn write(&mut self, hour: Part, text: &[u8]) -> io::Result<()> {
        let last = self.parts.range(hour.siblings()).next_back().map(|(part, len)| (*part, *len));
        let part = match last {
            Some((part, bytes)) if bytes < self.part_max_bytes => part,
            Some((part, _)) => part.next(),
            None => hour,
        };
        if self.open.as_ref().is_none_or(|(open, _)| *open != part) {
            let (file, bytes) = opened(&self.path(part))?;
            self.open = Some((part, file));
            self.set_size(part, bytes);
        }
        let Some((_, file)) = &mut self.open else { return Ok(()) };
        file.write_all(text)?;
        let before = self.parts.get(&part).copied().unwrap_or_default();
        self.set_size(part, before + text.len() as u64);
        Ok(())
    }

    fn measure(&mut self, part: Part) {
        let bytes = fs::metadata(self.path(part)).map_or(0, |found| found.len());
        self.set_size(part, bytes);
    }

    fn set_size(&mut self, part: Part, bytes: u64) {
        let before = self.parts.insert(part, bytes).unwrap_or_default();
        self.bytes = self.bytes - before + bytes;
    }

    fn path(&self, part: Part) -> PathBuf {
        self.directory.join(part.to_string())
    }
}

/// The part that a directory's entry is; none for anything else.
pub(super) fn part_of(entry: &fs::DirEntry) -> Option<Part> {
    entry.file_name().to_str()?.parse().ok()
}

/// Opens a file to append to, with its last line ended, and says how long it is.
pub(super) fn opened(path: &Path) -> io::Result<(File, u64)> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok((file, 0));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, bytes));
    }
    file.write_all(b"\n")?;
    Ok((file, bytes + 1))
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::super::testing::{flow, hours_from_start};
    use super::*;
    use crate::domain::flow_filter::FlowFilter;

    fn devices(directory: &Path) -> Vec<String> {
        let page = read(directory, FlowFilter::default(), None, 10_000).unwrap();
        page.flows.iter().map(|stored| stored.flow.device.to_string()).collect()
    }

    #[test]
    fn a_torn_line_costs_itself_and_no_other() {
        let whole = tempfile::tempdir().unwrap();
        let mut log = Log::open(whole.path()).unwrap();
        log.append(&[flow("a", 0), flow("b", 1)]).1.unwrap();
        let name = log.parts.first_key_value().unwrap().0.to_string();
        let text = fs::read(whole.path().join(&name)).unwrap();
        let first = text.iter().position(|b| *b == b'\n').unwrap() + 1;
        for cut in 0..=text.len() {
            let torn = tempfile::tempdir().unwrap();
            fs::write(torn.path().join(&name), &text[..cut]).unwrap();
            // Readable as it is, and after the next controller has gone on writing.
            let mut kept = Vec::new();
            kept.extend((cut >= first).then_some("a"));
            kept.extend((cut >= text.len()).then_some("b"));
            assert_eq!(devices(torn.path()), kept, "cut at {cut}");
            Log::open(torn.path()).unwrap().append(&[flow("c", 2)]).1.unwrap();
            // A line that lacks nothing but its end is a whole one.
            let mut after = Vec::new();
            after.extend((cut + 1 >= first).then_some("a"));
            after.extend((cut + 1 >= text.len()).then_some("b"));
            after.push("c");
            assert_eq!(devices(torn.path()), after, "cut at {cut}, and written on");
        }
    }

    #[test]
    fn the_oldest_goes_first_by_age_and_by_size() {
        let place = tempfile::tempdir().unwrap();
        let mut log = Log::open(place.path()).unwrap();
        for hour in 0..6 {
            log.append(&[flow(&format!("h{hour}"), hour * 3600)]).1.unwrap();
        }
        log.prune(hours_from_start(2), u64::MAX).unwrap();
        assert_eq!(devices(place.path()), ["h2", "h3", "h4", "h5"]);
        let budget = log.bytes() - 1;
        log.prune(hours_from_start(2), budget).unwrap();
        assert_eq!(devices(place.path()), ["h3", "h4", "h5"]);
        assert_eq!(log.bytes(), Log::open(place.path()).unwrap().bytes(), "the sum is right");
        // The file that is written to goes as well, and writing goes on.
        log.prune(hours_from_start(9), u64::MAX).unwrap();
        assert_eq!(log.bytes(), 0);
        log.append(&[flow("late", 9 * 3600)]).1.unwrap();
        assert_eq!(devices(place.path()), ["late"]);
    }

    #[test]
    fn a_full_file_is_followed_by_another_and_a_late_record_finds_its_hour() {
        let place = tempfile::tempdir().unwrap();
        let mut log = Log::open(place.path()).unwrap();
        log.part_max_bytes = 1;
        log.append(&[flow("a", 0)]).1.unwrap();
        log.append(&[flow("b", 1)]).1.unwrap();
        log.append(&[flow("next-hour", 3600)]).1.unwrap();
        log.append(&[flow("late", 2)]).1.unwrap();
        assert_eq!(log.parts.len(), 4);
        assert_eq!(devices(place.path()), ["a", "b", "late", "next-hour"]);
    }
}
