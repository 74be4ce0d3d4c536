//! `millrace-bench stack`: two stacks joined by memory, in one thread, without a kernel.
//!
//! Both arms do the same work in the same run: for each work both pairs are made first, and then
//! the rounds alternate between them, so that what else the machine does strikes both.
//!
//! Times are the thread's processor time. `ns_per_segment` is that over packets on the wire. It
//! holds all that both sides spend on a packet: one stack makes it, the wire carries it, the other
//! stack takes it, and a share of the two programs.

mod millrace_pair;
mod pair;
mod resident;
mod row;
mod smoltcp_pair;

use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use self::pair::{Measured, Pair, Running, Work};
use self::row::Row;
use crate::options::{Failure, Options};

/// The stacks that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Millrace,
    Smoltcp,
}

impl Arm {
    const ALL: &'static [Arm] = &[Arm::Millrace, Arm::Smoltcp];

    fn name(self) -> &'static str {
        match self {
            Arm::Millrace => "millrace",
            Arm::Smoltcp => "smoltcp",
        }
    }

    fn open(self, work: Work) -> Result<Box<dyn Pair>, Failure> {
        Ok(match self {
            Arm::Millrace => Box::new(millrace_pair::MillracePair::open(work)?),
            Arm::Smoltcp => Box::new(smoltcp_pair::SmoltcpPair::open(work)?),
        })
    }

    /// How many idle connections it is measured with. smoltcp looks through all its sockets for
    /// each packet, so a million of them would take it days to open.
    fn idle_connections(self) -> usize {
        match self {
            Arm::Millrace => 1_000_000,
            Arm::Smoltcp => 10_000,
        }
    }
}

impl FromStr for Arm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Arm::ALL.iter().copied().find(|arm| arm.name() == text).ok_or_else(|| {
            let names: Vec<_> = Arm::ALL.iter().map(|arm| arm.name()).collect();
            format!("there is {}", names.join(" and "))
        })
    }
}

/// The names of all works, in the order they are run.
const WORKS: [&str; 6] = ["rr64", "rr1k", "crr", "bulk", "bulk_super", "idle"];

/// The name as it stands in [`WORKS`].
fn known(name: &str) -> Result<&'static str, Failure> {
    WORKS.into_iter().find(|known| *known == name).ok_or_else(|| {
        let known = WORKS.join(", ");
        Failure::Usage(format!("--work {name}: there is {known}"))
    })
}

/// What stands behind a name; nothing for `idle`, which is measured in processes of its own.
fn works(name: &str) -> Vec<Work> {
    let round_trips = |size| [1, 1000].map(|connections| Work::RoundTrips { size, connections });
    match name {
        "rr64" => round_trips(64).to_vec(),
        "rr1k" => round_trips(1024).to_vec(),
        "crr" => vec![Work::ConnectClose { connections: 64 }],
        "bulk" => vec![Work::Bulk { super_segments: false }],
        "bulk_super" => vec![Work::Bulk { super_segments: true }],
        _ => vec![],
    }
}

/// Runs the command with what follows its name.
///
/// # Errors
/// A wrong command line, or an arm that gets stuck.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options =
        Options::parse(arguments, &["json", "seconds", "rounds", "work", "arm", "connections"])?;
    let seconds: f64 = options.value("seconds", 1.0)?;
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|error| Failure::Usage(format!("--seconds {seconds}: {error}")))?;
    let rounds: usize = options.value("rounds", 3)?;
    if rounds == 0 {
        return Err(Failure::Usage("--rounds 0: at least one is needed".into()));
    }
    let names: Vec<&'static str> = match options.text("work") {
        None => WORKS.to_vec(),
        Some(text) => text.split(',').map(known).collect::<Result<_, _>>()?,
    };
    let arms: Vec<Arm> = match options.text("arm") {
        None => Arm::ALL.to_vec(),
        Some(text) => text
            .split(',')
            .map(|name| {
                name.parse().map_err(|error| Failure::Usage(format!("--arm {name}: {error}")))
            })
            .collect::<Result<_, _>>()?,
    };
    let only: Option<usize> = match options.text("connections") {
        None => None,
        Some(_) => Some(options.required("connections")?),
    };
    let mut plan = Vec::new();
    for name in names {
        let mut works = works(name);
        works.retain(|work| only.is_none_or(|only| work.connections() == only));
        plan.push((name, works));
    }
    let mut progress = Progress::new(&plan, arms.len(), rounds);
    let mut rows = Vec::new();
    for (name, works) in plan {
        for work in works {
            rows.extend(compare(name, work, &arms, rounds, duration, &mut progress)?);
        }
        if name == "idle" {
            for &arm in &arms {
                progress.step(&format!("idle {}", arm.name()));
                rows.push(idle(arm)?);
            }
        }
    }
    row::write(&rows, options.text("json"))
}

fn compare(
    name: &'static str,
    work: Work,
    arms: &[Arm],
    rounds: usize,
    duration: Duration,
    progress: &mut Progress,
) -> Result<Vec<Row>, Failure> {
    let connections = work.connections();
    let failed = |arm: Arm, failure| Failure::of(format!("{name} of {}", arm.name()), failure);
    let mut running = Vec::new();
    for &arm in arms {
        let pair = arm.open(work).and_then(Running::start).map_err(|error| failed(arm, error))?;
        running.push((arm, pair, Vec::new()));
    }
    for _ in 0..rounds {
        for (arm, pair, measured) in &mut running {
            progress.step(&format!("{name} {connections} {}", arm.name()));
            let round = pair.measure(duration).map_err(|error| failed(*arm, error))?;
            eprintln!("    {} operations, {} segments", round.done.operations, round.done.segments);
            measured.push(round);
        }
    }
    Ok(running
        .into_iter()
        .map(|(arm, _, measured)| Row::of(name, arm.name(), connections, median(measured)))
        .collect())
}

/// The middle one by operations a second; of an even number, the slower of the two.
fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    measured[(measured.len() - 1) / 2]
}

/// Bytes that an idle connection keeps resident, on one side.
///
/// Each measurement is a process of its own, because freed memory stays with its allocator. Two
/// of them differ in the number of connections alone (the tables are made for that number), so
/// their difference leaves out programs, arenas and wires. Both sides hold the same, so half of
/// the difference is one side's.
fn idle(arm: Arm) -> Result<Row, Failure> {
    const FEW: usize = 1000;
    let many = arm.idle_connections();
    let few_resident = idle_process(arm, FEW)?;
    let many_resident = idle_process(arm, many)?;
    let bytes = many_resident.saturating_sub(few_resident) as f64 / (2 * (many - FEW)) as f64;
    Ok(Row::of_idle(arm.name(), many, bytes))
}

fn idle_process(arm: Arm, connections: usize) -> Result<u64, Failure> {
    let what = format!("idle of {} with {connections} connections", arm.name());
    let program = std::env::current_exe().map_err(|error| Failure::of(&what, error))?;
    let output = Command::new(program)
        .args(["idle", "--arm", arm.name(), "--connections", &connections.to_string()])
        .output()
        .map_err(|error| Failure::of(&what, error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::of(what, said.trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|error| Failure::of(what, format!("{text:?}: {error}")))
}

/// `millrace-bench idle`: opens connections, and prints how much memory is resident then.
///
/// # Errors
/// A wrong command line, or connections that do not open.
pub fn run_idle(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &["arm", "connections"])?;
    let arm: Arm = options.required("arm")?;
    let connections = options.required("connections")?;
    let _running = Running::start(arm.open(Work::Idle { connections })?)?;
    let resident =
        resident::bytes().map_err(|error| Failure::of("resident memory is unknown", error))?;
    println!("{resident}");
    Ok(())
}

/// Says on standard error what is being measured, as `3/40 rr64 1000 smoltcp`.
struct Progress {
    step: usize,
    steps: usize,
}

impl Progress {
    fn new(plan: &[(&str, Vec<Work>)], arms: usize, rounds: usize) -> Self {
        let steps = plan
            .iter()
            .map(|(name, works)| if *name == "idle" { 1 } else { works.len() * rounds })
            .sum::<usize>();
        Progress { step: 0, steps: steps * arms }
    }

    fn step(&mut self, what: &str) {
        self.step += 1;
        eprintln!("{}/{} {what}", self.step, self.steps);
    }
}

#[cfg(test)]
mod tests {
    use super::pair::Done;
    use super::*;

    #[test]
    fn the_median_is_one_that_was_measured() {
        let rate = |operations| Measured {
            done: Done { operations, segments: 1, bytes: 1 },
            seconds: 1.0,
        };
        assert_eq!(median(vec![rate(9), rate(1), rate(5)]).done.operations, 5);
        assert_eq!(median(vec![rate(9), rate(1), rate(5), rate(7)]).done.operations, 5);
        assert_eq!(median(vec![rate(3)]).done.operations, 3);
    }

    #[test]
    fn every_arm_does_every_work() {
        for arm in Arm::ALL {
            for name in WORKS {
                for work in works(name) {
                    let mut running = Running::start(arm.open(work).unwrap()).unwrap();
                    let measured = running.measure(Duration::from_millis(20)).unwrap();
                    assert!(measured.done.operations > 0, "{name} of {}", arm.name());
                }
            }
            let idle = arm.open(Work::Idle { connections: 100 }).unwrap();
            Running::start(idle).unwrap();
        }
    }

    #[test]
    fn unknown_names_are_usage_errors() {
        for (option, value) in [("--work", "rr65"), ("--arm", "lwip"), ("--seconds", "-1")] {
            let arguments = [option, value].map(str::to_owned);
            let failure = run(arguments.into_iter()).unwrap_err();
            assert!(matches!(&failure, Failure::Usage(text) if text.contains(value)), "{failure}");
        }
    }
}
