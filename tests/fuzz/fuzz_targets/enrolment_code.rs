//! Any bytes as an enrolment code. Seeds: `proto/corpus/enrolment_code`.
#![no_main]

#[path = "../../../proto/tests/exercise/enrolment_code.rs"]
mod enrolment_code;

libfuzzer_sys::fuzz_target!(|data: &[u8]| enrolment_code::exercise(data));
