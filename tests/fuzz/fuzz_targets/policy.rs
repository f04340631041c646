//! Any bytes as the text of a policy. Seeds: `controller/corpus/policy`.
#![no_main]

#[path = "../../../controller/tests/exercise/policy.rs"]
#[expect(dead_code, reason = "the other target uses the rest")]
mod policy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::exercise_text(data));
