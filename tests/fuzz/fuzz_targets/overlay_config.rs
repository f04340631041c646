//! Any bytes as a signed payload and as an envelope. Seeds: `proto/corpus/overlay_config`.
#![no_main]

#[path = "../../../proto/tests/exercise/overlay_config.rs"]
mod overlay_config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| overlay_config::exercise(data));
