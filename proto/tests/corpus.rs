//! Replays the fuzz corpora, so that what fuzzing found once stays found.
//!
//! The fuzz targets in `tests/fuzz` run the same exercises on bytes of their own.

#[path = "exercise/client_message.rs"]
mod client_message;
#[path = "exercise/enrolment_code.rs"]
mod enrolment_code;
#[path = "exercise/overlay_config.rs"]
mod overlay_config;

use std::fs;
use std::path::Path;

#[test]
fn the_overlay_config_corpus_holds() {
    replay("overlay_config", overlay_config::exercise);
}

#[test]
fn the_enrolment_code_corpus_holds() {
    replay("enrolment_code", enrolment_code::exercise);
}

#[test]
fn the_client_message_corpus_holds() {
    replay("client_message", client_message::exercise);
}

fn replay(name: &str, exercise: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("it can be listed").path();
        let seed = fs::read(&path).expect("a seed can be read");
        // Without a panic hook of our own, the name of the seed is what a failure needs to show.
        eprintln!("{}", path.display());
        exercise(&seed);
        count += 1;
    }
    assert!(count >= 8, "only {count} seeds in {}", folder.display());
}
