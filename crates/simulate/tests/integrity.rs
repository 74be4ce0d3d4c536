//! Random worlds: every byte arrives once and in order or the connection says that it failed; no
//! connection hangs; no frame is left behind.
//!
//! `MILLRACE_SEEDS=10000 cargo test --release -p millrace-simulate --test integrity` runs more of
//! them, as `millrace simulate --integrity 10000` does, and `MILLRACE_SEED=17` one, as
//! `millrace simulate --random --seed 17` does.

use millrace_simulate::integrity;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(first: u64, count: u64) {
    let (first, count) = number("MILLRACE_SEED").map_or((first, count), |seed| (seed, 1));
    let (mut broken, mut complete, mut connections) = (Vec::new(), 0, 0);
    for seed in first..first + count {
        match integrity::run(seed, None, true) {
            Ok(passed) => {
                complete += passed.complete;
                connections += passed.connections;
            }
            Err(wrong) => {
                eprintln!("seed {seed}:\n{wrong}");
                eprintln!("to see it again: millrace simulate --random --seed {seed} --trace FILE");
                broken.push(seed);
            }
        }
    }
    println!("{count} worlds, {connections} connections, {complete} complete");
    assert!(broken.is_empty(), "{} of {count} worlds are broken: {broken:?}", broken.len());
    if count > 100 {
        assert!(complete * 2 > connections, "most connections of most worlds are complete");
    }
}

#[test]
fn every_byte_arrives_or_the_connection_says_that_it_failed() {
    run(0, number("MILLRACE_SEEDS").unwrap_or(200));
}

#[test]
fn a_seed_makes_the_same_packets_every_time() {
    for seed in 0..10 {
        let digest = || integrity::run(seed, None, true).map(|passed| passed.digest);
        assert_eq!(digest(), digest());
    }
}

#[test]
fn shorter_ways_send_the_same_packets() {
    for seed in 0..number("MILLRACE_SEEDS").unwrap_or(60) {
        let short = integrity::run(seed, None, true).map(|passed| passed.digest);
        let long = integrity::judge(integrity::without_prediction(seed).unwrap());
        assert_eq!(short, long.map(|passed| passed.digest), "seed {seed}");
    }
}
