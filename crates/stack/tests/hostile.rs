//! Arbitrary frames, calls and times against a stack with connections in every state. The fuzz
//! target `fuzz/fuzz_targets/hostile.rs` runs the same scripts, chosen by coverage.

#[path = "common/craft.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod craft;
#[path = "common/craft6.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod craft6;
#[path = "common/hostile/mod.rs"]
mod hostile;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[test]
fn nothing_at_all() {
    for variant in 0..8 {
        hostile::run(&[variant, 0xaa]);
        hostile::run(&[variant]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6d69_6c6c),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_script_panics_leaks_or_breaks_an_invariant(
        script in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        hostile::run(&script);
    }
}

/// What the fuzzer has found worth keeping (`fuzz/corpus/hostile`): each file reaches code that the
/// others do not, or once broke something.
#[test]
fn the_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/hostile");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect(folder).map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} files in {folder}", files.len());
    for file in files {
        let script = std::fs::read(&file).unwrap();
        eprintln!("{}", file.display());
        hostile::run(&script);
    }
}
