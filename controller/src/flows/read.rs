//! Reading flow records back: a page at a time, in the order of the files.
//!
//! A page costs a bounded number of bytes read, whatever is asked for: one that matches little comes back
//! short, or empty, with a cursor to go on from.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use partywall_proto::admin::StoredFlow;

use super::log::part_of;
use super::part::Part;
use crate::domain::flow_filter::FlowFilter;

/// Bytes read for one page: about a tenth of a second.
const SCAN_MAX_BYTES: u64 = 32 << 20;
/// Longest line that is looked at; what the controller writes is a fraction.
const LINE_MAX_BYTES: u64 = 16 << 10;

/// Where a page ends and the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    part: Part,
    offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.part, self.offset)
    }
}

/// A text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (part, offset) = text.rsplit_once('.').ok_or(NotACursor)?;
        let part = part.parse().map_err(|_| NotACursor)?;
        Ok(Self { part, offset: offset.parse().map_err(|_| NotACursor)? })
    }
}

/// One page.
#[derive(Debug, Default)]
pub(super) struct FlowPage {
    pub(super) flows: Vec<StoredFlow>,
    pub(super) next: Option<Cursor>,
}

/// Reads up to `limit` records that `filter` asks for, from `after` on. No directory, no records.
pub(super) fn read(
    directory: &Path,
    filter: FlowFilter,
    after: Option<Cursor>,
    limit: usize,
) -> io::Result<FlowPage> {
    let mut scan = Scan::new(directory, filter, after, SCAN_MAX_BYTES)?;
    let mut page = FlowPage::default();
    while page.flows.len() < limit {
        match scan.next() {
            Some(stored) => page.flows.push(stored?),
            None => break,
        }
    }
    page.next = scan.rest();
    Ok(page)
}

/// Goes through the records that a filter asks for, until all were seen or so many bytes were read.
pub(super) struct Scan {
    directory: PathBuf,
    filter: FlowFilter,
    after: Option<Cursor>,
    parts: VecDeque<Part>,
    open: Option<(Part, Lines)>,
    left_bytes: u64,
}

impl Scan {
    pub(super) fn new(
        directory: &Path,
        filter: FlowFilter,
        after: Option<Cursor>,
        left_bytes: u64,
    ) -> io::Result<Self> {
        let wanted = |part: &Part| {
            filter.until.is_none_or(|until| !part.is_from(until))
                && filter.from.is_none_or(|from| !part.is_before(from))
                && after.is_none_or(|after| *part >= after.part)
        };
        let parts = parts(directory)?.into_iter().filter(wanted).collect();
        let directory = directory.to_owned();
        Ok(Self { directory, filter, after, parts, open: None, left_bytes })
    }

    /// Where to go on; none once there is nothing more.
    pub(super) fn rest(&self) -> Option<Cursor> {
        match (&self.open, self.parts.front()) {
            (Some((part, lines)), _) => Some(Cursor { part: *part, offset: lines.offset }),
            (None, Some(part)) => Some(Cursor { part: *part, offset: self.start_of(*part) }),
            (None, None) => None,
        }
    }

    fn step(&mut self) -> io::Result<Option<StoredFlow>> {
        while self.left_bytes > 0 {
            let Some((_, lines)) = &mut self.open else {
                let Some(part) = self.parts.pop_front() else { break };
                self.open = self.opened(part)?.map(|lines| (part, lines));
                continue;
            };
            let before = lines.offset;
            if !lines.step()? {
                self.open = None;
                continue;
            }
            self.left_bytes = self.left_bytes.saturating_sub(lines.offset - before);
            // A torn line is nobody's record.
            if let Ok(stored) = serde_json::from_slice::<StoredFlow>(&lines.line)
                && self.filter.matches(&stored)
            {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    fn opened(&self, part: Part) -> io::Result<Option<Lines>> {
        let mut file = match File::open(self.directory.join(part.to_string())) {
            Ok(file) => file,
            // It made room meanwhile.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let offset = self.start_of(part);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Some(Lines { file: BufReader::new(file), offset, line: Vec::new() }))
    }

    fn start_of(&self, part: Part) -> u64 {
        self.after.filter(|after| after.part == part).map_or(0, |after| after.offset)
    }
}

impl Iterator for Scan {
    type Item = io::Result<StoredFlow>;

    fn next(&mut self) -> Option<io::Result<StoredFlow>> {
        self.step().transpose()
    }
}

fn parts(directory: &Path) -> io::Result<Vec<Part>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    let mut parts = Vec::new();
    for entry in entries {
        parts.extend(part_of(&entry?));
    }
    parts.sort_unstable();
    Ok(parts)
}

/// The finished lines of a file that may grow meanwhile.
struct Lines {
    file: BufReader<File>,
    /// Where the next line begins.
    offset: u64,
    line: Vec<u8>,
}

impl Lines {
    /// Goes on to the next line; false where there is no whole one. One that is too long to be ours is
    /// an empty line.
    fn step(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = (&mut self.file).take(LINE_MAX_BYTES).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            self.offset += read as u64;
            return Ok(true);
        }
        if (read as u64) < LINE_MAX_BYTES {
            return Ok(false);
        }
        self.line.clear();
        let rest = self.file.skip_until(b'\n')?;
        self.offset += (read + rest) as u64;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Log;
    use super::super::testing::{flow, hours_from_start};
    use super::*;

    fn written(flows: &[StoredFlow]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        Log::open(place.path()).unwrap().append(flows).1.unwrap();
        place
    }

    fn names(page: &FlowPage) -> Vec<&str> {
        page.flows.iter().map(|stored| stored.flow.device.as_str()).collect()
    }

    #[test]
    fn pages_lead_on_without_a_gap_over_files_and_new_records() {
        let place = written(&[flow("a", 0), flow("b", 1), flow("c", 3600), flow("d", 3601)]);
        let all = FlowFilter::default();
        let first = read(place.path(), all.clone(), None, 3).unwrap();
        assert_eq!(names(&first), ["a", "b", "c"]);
        let cursor = first.next.unwrap().to_string().parse().unwrap();
        Log::open(place.path()).unwrap().append(&[flow("e", 3602)]).1.unwrap();
        let second = read(place.path(), all.clone(), Some(cursor), 3).unwrap();
        assert_eq!(names(&second), ["d", "e"]);
        assert_eq!(second.next, None);
    }

    #[test]
    fn only_what_is_asked_for_is_answered() {
        let place = written(&[flow("a", 0), flow("b", 1800), flow("c", 3600), flow("d", 7200)]);
        let ask = |filter: FlowFilter| {
            let page = read(place.path(), filter, None, 10).unwrap();
            names(&page).join(" ")
        };
        let at = |hours| Some(hours_from_start(hours));
        assert_eq!(ask(FlowFilter { from: at(1), ..Default::default() }), "c d");
        assert_eq!(ask(FlowFilter { until: at(1), ..Default::default() }), "a b");
        assert_eq!(ask(FlowFilter { from: at(1), until: at(2), ..Default::default() }), "c");
        assert_eq!(ask(FlowFilter { device: "b".parse().ok(), ..Default::default() }), "b");
        assert_eq!(ask(FlowFilter { user: "alice@nhs".parse().ok(), ..Default::default() }), "");
        assert_eq!(
            ask(FlowFilter { address: "10.1.0.0/16".parse().ok(), ..Default::default() }),
            "a b c d"
        );
        assert_eq!(
            ask(FlowFilter { address: "10.2.0.0/16".parse().ok(), ..Default::default() }),
            ""
        );
        assert_eq!(ask(FlowFilter { rule: "web".parse().ok(), ..Default::default() }), "a b c d");
    }

    #[test]
    fn lines_that_are_not_ours_are_passed_over() {
        let place = written(&[flow("a", 0)]);
        let path = place.path().join(parts(place.path()).unwrap()[0].to_string());
        let mut text = fs::read(&path).unwrap();
        text.extend(b"\n{}\nnonsense\n\xff\xfe\n");
        text.extend([b'x'; 40 << 10]);
        text.push(b'\n');
        fs::write(&path, text).unwrap();
        Log::open(place.path()).unwrap().append(&[flow("b", 1)]).1.unwrap();
        let page = read(place.path(), FlowFilter::default(), None, 10).unwrap();
        assert_eq!(names(&page), ["a", "b"]);
    }

    #[test]
    fn a_page_reads_a_bounded_amount_and_says_where_to_go_on() {
        let place = tempfile::tempdir().unwrap();
        let part = Part::first_of(hours_from_start(0));
        let path = place.path().join(part.to_string());
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        fs::write(&path, line.repeat(SCAN_MAX_BYTES as usize / 1024 + 3)).unwrap();
        let page = read(place.path(), FlowFilter::default(), None, 10).unwrap();
        assert_eq!(page.next, Some(Cursor { part, offset: SCAN_MAX_BYTES }));
        assert!(page.flows.is_empty());
        let page = read(place.path(), FlowFilter::default(), page.next, 10).unwrap();
        assert_eq!(page.next, None);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for bad in
            ["", "1", "2026-11-22T19-0000.jsonl", "../x.jsonl.3", "2026-11-22T19-0000.jsonl.-1"]
        {
            assert_eq!(bad.parse::<Cursor>(), Err(NotACursor), "{bad}");
        }
    }
}
