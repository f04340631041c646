//! Replays the fuzz corpora, so that what fuzzing found once stays found.
//!
//! The fuzz targets in `tests/fuzz` run the same exercises on bytes of their own.

#[path = "exercise/policy.rs"]
mod policy;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[test]
fn the_policy_corpus_holds() {
    replay("policy", policy::exercise_text);
}

#[test]
fn the_policy_compiler_corpus_holds() {
    replay("policy_compiler", policy::exercise_compiler);
}

proptest! {
    #[test]
    fn no_policy_allows_what_it_does_not_say(choices in proptest::collection::vec(any::<u8>(), 0..200)) {
        policy::exercise_compiler(&choices);
    }
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
