//! Any bytes as a message of an agent, as the controller reads it. Seeds: `proto/corpus/client_message`.
#![no_main]

#[path = "../../../proto/tests/exercise/client_message.rs"]
mod client_message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| client_message::exercise(data));
