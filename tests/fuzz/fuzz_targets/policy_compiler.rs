//! Any bytes as the choices that a policy is made of, sound or not. Seeds: `controller/corpus/policy_compiler`.
#![no_main]

#[path = "../../../controller/tests/exercise/policy.rs"]
#[expect(dead_code, reason = "the other target uses the rest")]
mod policy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::exercise_compiler(data));
