//! The kept inputs of a fuzz target, as a plain test: part of the unit tests of each crate that has
//! targets. Needs no fuzzer.

use std::fs;
use std::path::Path;

/// Runs `target` on every seed, every input of its corpus, and the halves of each.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = crates.ancestors().map(|folder| folder.join("tests/fuzz")).find(|folder| folder.is_dir());
    let kept = kept.expect("tests/fuzz is above this crate");
    let mut count = 0;
    for folder in ["seeds", "corpus"] {
        for entry in fs::read_dir(kept.join(folder).join(name)).expect("inputs are kept in tests/fuzz") {
            let bytes = fs::read(entry.expect("an entry").path()).expect("an input");
            let (first, second) = bytes.split_at(bytes.len() / 2);
            for input in [&bytes, first, second] {
                target(input);
            }
            count += 1;
        }
    }
    assert!(count >= 3, "{name}: only {count} inputs");
}
