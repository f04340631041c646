//! One direction of a TCP connection that must carry TLS records and nothing else.
//!
//! Segments are put in order first: a record's header may be anywhere in a segment.

use std::collections::BTreeMap;

/// Largest TLS record with its expansion, in bytes (RFC 8446 §5.2).
const RECORD_MAX_BYTES: usize = 16384 + 256;

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Sequence number of the first byte; none where the recording began in mid-connection.
    first: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
}

impl Stream {
    pub(super) fn push(&mut self, sequence: u32, syn: bool, payload: &[u8]) {
        if syn {
            self.first = Some(sequence.wrapping_add(1));
        }
        if payload.is_empty() {
            // Acknowledgements say nothing, and one after a FIN has a number beyond the stream's end.
            return;
        }
        // A keep-alive probe repeats one byte before the stream's end (RFC 9293 §3.8.4), and a
        // retransmission may be longer than what it repeats.
        let known = self.segments.entry(sequence).or_default();
        if payload.len() > known.len() {
            *known = payload.to_vec();
        }
    }

    /// Whether all bytes are records.
    pub(super) fn check(&self) -> Result<(), String> {
        let (first, bytes) = self.contiguous()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.first.is_some() {
            return records(&bytes);
        }
        // The recording began within a record, perhaps: some boundary near the start must fit.
        let starts = 0..bytes.len().min(RECORD_MAX_BYTES);
        match starts.into_iter().any(|start| records(&bytes[start..]).is_ok()) {
            true => Ok(()),
            false => Err(format!("no TLS record after sequence number {first}")),
        }
    }

    fn contiguous(&self) -> Result<(u32, Vec<u8>), String> {
        let lowest = || {
            // The sequence may wrap: the first segment is the one with nothing close before it.
            let before =
                |at: u32| self.segments.keys().any(|&s| s != at && at.wrapping_sub(s) < 1 << 30);
            self.segments.keys().copied().find(|&at| !before(at))
        };
        let Some(first) = self.first.or_else(lowest) else { return Ok((0, Vec::new())) };
        let mut order: Vec<(u32, &Vec<u8>)> =
            self.segments.iter().map(|(at, bytes)| (at.wrapping_sub(first), bytes)).collect();
        order.sort_unstable_by_key(|(offset, _)| *offset);
        let mut bytes: Vec<u8> = Vec::new();
        for (offset, segment) in order {
            let offset = offset as usize;
            if offset > u32::MAX as usize / 2 {
                // Before the stream: a SYN's own number, or a keep-alive probe.
                continue;
            }
            if offset > bytes.len() {
                return Err(format!("a gap in the recorded stream, {} bytes in", bytes.len()));
            }
            if offset + segment.len() > bytes.len() {
                bytes.extend_from_slice(&segment[bytes.len() - offset..]);
            }
        }
        Ok((first, bytes))
    }
}

/// RFC 8446 §5.1: a content type from 20 to 23, version 3.x, a bounded length; the last record may be
/// cut by the end of the recording.
fn records(mut bytes: &[u8]) -> Result<(), String> {
    while let [kind, major, minor, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(20..=23).contains(kind) || *major != 3 || *minor > 3 || length > RECORD_MAX_BYTES {
            return Err(format!(
                "not a TLS record: {}",
                data_encoding::HEXLOWER.encode(&bytes[..5])
            ));
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}
