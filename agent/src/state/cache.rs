//! The last signed config on disk: one envelope per line, a snapshot and the deltas after it.
//!
//! What is read back is verified exactly as if it came from the network; the file's owner and mode
//! count for nothing. Only a torn last line is forgiven, because a crash while appending leaves one.

use partywall_proto::envelope::{Envelope, EnvelopeError, PAYLOAD_MAX_BYTES, Payload};
use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{ConfigError, OverlayConfig};

use super::{Pins, StateDir, StateError};

const FILE: &str = "config.jsonl";
/// Deltas may take this much more than their snapshot before a new snapshot is due.
const SLACK_BYTES: usize = 4 << 20;
/// Reading a file larger than this would not be reading our own cache.
const FILE_MAX_BYTES: usize = 4 * PAYLOAD_MAX_BYTES;

/// The cached config was refused, so the agent waits for the controller.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file could not be read or written.
    #[error("the cached config could not be read or written")]
    State(#[from] StateError),
    /// A line that is no envelope, or a file that does not begin with a snapshot.
    #[error("the cached config is damaged at line {line}: {detail}")]
    Damaged {
        /// Counts from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// An envelope that does not hold.
    #[error("the cached config is refused at line {line}")]
    Envelope {
        /// Counts from 1.
        line: usize,
        /// Why.
        #[source]
        source: EnvelopeError,
    },
    /// A delta that does not fit what is before it.
    #[error("the cached config is refused at line {line}")]
    Delta {
        /// Counts from 1.
        line: usize,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// It was made for another machine.
    #[error("the cached config is for {found}, and this is {agent}")]
    OtherAgent {
        /// Whom it is for.
        found: AgentId,
        /// Who we are.
        agent: AgentId,
    },
}

/// The cache file, and how much of it is deltas.
#[derive(Debug, Default)]
pub struct Cache {
    snapshot_bytes: usize,
    delta_bytes: usize,
}

impl Cache {
    /// Reads and verifies the whole cache. Whether the config is still valid is for the caller, who
    /// knows the time. A torn last line is cut off the file.
    ///
    /// # Errors
    /// Any damage but a torn last line; see [`CacheError`].
    pub fn read(
        &mut self,
        state: &StateDir,
        pins: &Pins,
        agent: &AgentId,
    ) -> Result<Option<OverlayConfig>, CacheError> {
        let Some(bytes) = state.read(FILE)? else { return Ok(None) };
        if bytes.len() > FILE_MAX_BYTES {
            let detail = format!("{} bytes are more than any config takes", bytes.len());
            return Err(CacheError::Damaged { line: 1, detail });
        }
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let config = replay(&bytes[..whole], pins, agent)?;
        if whole < bytes.len() {
            state.write(FILE, &bytes[..whole])?;
        }
        let first = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        *self = Self { snapshot_bytes: first, delta_bytes: whole - first };
        Ok(config)
    }

    /// Replaces everything by a snapshot.
    ///
    /// # Errors
    /// What the file system says; the old cache is then still there.
    pub fn replace(&mut self, state: &StateDir, snapshot: &Envelope) -> Result<(), CacheError> {
        let line = line(snapshot);
        state.write(FILE, &line)?;
        *self = Self { snapshot_bytes: line.len(), delta_bytes: 0 };
        Ok(())
    }

    /// Adds a delta.
    ///
    /// # Errors
    /// What the file system says; the cache is then removed, because what it may hold by half
    /// is older than what is enforced.
    pub fn append(&mut self, state: &StateDir, delta: &Envelope) -> Result<(), CacheError> {
        let line = line(delta);
        if let Err(error) = state.append(FILE, &line) {
            self.clear(state)?;
            return Err(error.into());
        }
        self.delta_bytes += line.len();
        Ok(())
    }

    /// Forgets the config, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&mut self, state: &StateDir) -> Result<(), CacheError> {
        *self = Self::default();
        Ok(state.remove(FILE)?)
    }

    /// Whether the deltas have outgrown their snapshot, so that a new one is worth asking for.
    pub fn is_overgrown(&self) -> bool {
        self.delta_bytes > self.snapshot_bytes + SLACK_BYTES
    }
}

fn line(envelope: &Envelope) -> Vec<u8> {
    let mut line = serde_json::to_vec(envelope).expect("an envelope has a JSON form");
    line.push(b'\n');
    line
}

fn replay(bytes: &[u8], pins: &Pins, agent: &AgentId) -> Result<Option<OverlayConfig>, CacheError> {
    let mut held: Option<OverlayConfig> = None;
    for (index, text) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        let damaged = |detail: String| CacheError::Damaged { line, detail };
        let envelope: Envelope =
            serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
        let payload =
            pins.open(&envelope).map_err(|source| CacheError::Envelope { line, source })?;
        let next = match (payload, held) {
            (Payload::Snapshot(config), None) => *config,
            (Payload::Delta(delta), Some(held)) => {
                held.with(&delta).map_err(|source| CacheError::Delta { line, source })?
            }
            (Payload::Snapshot(_), Some(_)) => {
                return Err(damaged("a second snapshot".to_owned()));
            }
            (Payload::Delta(_), None) => {
                return Err(damaged("a delta without a snapshot".to_owned()));
            }
        };
        if next.agent != *agent {
            return Err(CacheError::OtherAgent { found: next.agent, agent: agent.clone() });
        }
        held = Some(next);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::daemon::testing::{delta, device_config, pins, seal, seal_delta};

    fn agent() -> AgentId {
        "device/desk-1".parse().unwrap()
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        (root, state)
    }

    /// A snapshot at 1 and deltas to 2 and 3, with the config at each step.
    fn filled(state: &StateDir) -> Vec<OverlayConfig> {
        let mut cache = Cache::default();
        let mut configs = vec![device_config("council", "s1", 1)];
        cache.replace(state, &seal(&configs[0])).unwrap();
        for generation in [2, 3] {
            let step = delta(configs.last().unwrap(), generation, Vec::new());
            cache.append(state, &seal_delta(&step)).unwrap();
            configs.push(configs.last().unwrap().with(&step).unwrap());
        }
        configs
    }

    #[test]
    fn a_snapshot_and_its_deltas_come_back() {
        let (_root, state) = state();
        assert!(Cache::default().read(&state, &pins(), &agent()).unwrap().is_none());
        let configs = filled(&state);
        let mut cache = Cache::default();
        assert_eq!(cache.read(&state, &pins(), &agent()).unwrap().as_ref(), configs.last());
        cache.clear(&state).unwrap();
        assert!(cache.read(&state, &pins(), &agent()).unwrap().is_none());
    }

    #[test]
    fn a_file_cut_at_any_byte_yields_an_earlier_config_or_none_and_can_be_added_to() {
        let (_root, state) = state();
        let configs = filled(&state);
        let bytes = state.read(FILE).unwrap().unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(state.path().join(FILE), &bytes[..cut]).unwrap();
            let whole_lines = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
            let read = Cache::default().read(&state, &pins(), &agent()).unwrap();
            assert_eq!(
                read.as_ref(),
                whole_lines.checked_sub(1).map(|at| &configs[at]),
                "cut at {cut}"
            );
            assert_eq!(state.read(FILE).unwrap().unwrap().ends_with(b"\n"), whole_lines > 0);
        }
    }

    #[test]
    fn a_cache_of_another_machine_or_segment_key_is_refused() {
        let (_root, state) = state();
        filled(&state);
        let other = "device/desk-2".parse().unwrap();
        let refused = Cache::default().read(&state, &pins(), &other).unwrap_err();
        assert!(matches!(refused, CacheError::OtherAgent { .. }), "{refused}");
        let refused = Cache::default().read(&state, &Pins::default(), &agent()).unwrap_err();
        assert!(matches!(refused, CacheError::Envelope { line: 1, .. }), "{refused}");
    }

    #[test]
    fn a_lost_or_swapped_line_is_refused() {
        let (_root, state) = state();
        filled(&state);
        let bytes = state.read(FILE).unwrap().unwrap();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        for wrong in [vec![1], vec![0, 2], vec![0, 2, 1], vec![0, 0], vec![0, 1, 1]] {
            let file: Vec<u8> = wrong.iter().flat_map(|&at| lines[at]).copied().collect();
            state.write(FILE, &file).unwrap();
            assert!(Cache::default().read(&state, &pins(), &agent()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn deltas_without_end_ask_for_a_snapshot() {
        let mut cache = Cache { snapshot_bytes: 100, delta_bytes: SLACK_BYTES };
        assert!(!cache.is_overgrown());
        cache.delta_bytes += 101;
        assert!(cache.is_overgrown());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_flipped_bit_never_yields_a_config_that_was_not_signed(at in 0usize..2_000, bit in 0u8..8) {
            let (_root, state) = state();
            let configs = filled(&state);
            let mut bytes = state.read(FILE).unwrap().unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            state.write(FILE, &bytes).unwrap();
            if let Ok(Some(config)) = Cache::default().read(&state, &pins(), &agent()) {
                prop_assert!(configs.contains(&config));
            }
        }
    }
}
