//! Runs random worlds: `integrity [FIRST] [COUNT]`.

fn main() {
    let number = |at| std::env::args().nth(at).map(|text: String| text.parse().expect("a number"));
    let first: u64 = number(1).unwrap_or(0);
    let count: u64 = number(2).unwrap_or(100);
    let begun = std::time::Instant::now();
    let (mut events, mut connections, mut complete, mut broken) = (0, 0, 0, 0);
    if count == 1 {
        let trace = std::env::args().nth(3).map(Into::into);
        let random = millrace_simulate::integrity::random_world(first, trace, true).unwrap();
        println!("{}", random.description);
        match millrace_simulate::integrity::judge(random) {
            Ok(passed) => println!("{passed:?}"),
            Err(wrong) => println!("{wrong}"),
        }
        return;
    }
    for seed in first..first + count {
        let start = std::time::Instant::now();
        match millrace_simulate::integrity::run(seed, None, true) {
            Ok(passed) => {
                events += passed.events;
                connections += passed.connections;
                complete += passed.complete;
            }
            Err(error) => {
                broken += 1;
                println!("seed {seed}: {error}");
            }
        }
        let took = start.elapsed();
        if took.as_secs() >= 2 {
            println!("seed {seed} took {took:?}");
        }
    }
    println!(
        "{count} worlds from seed {first}, {broken} broken, {connections} connections, {complete} \
         complete, {events} events in {:?}",
        begun.elapsed()
    );
}
