//! What is printed: one flat row for each work, number of connections and arm.

use std::fmt::Write as _;
use std::{fs, io};

use super::pair::Measured;
use crate::options::Failure;

/// One row. A figure that a work does not have is `null` in JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    work: &'static str,
    arm: &'static str,
    connections: usize,
    ops_per_s: Option<f64>,
    ns_per_segment: Option<f64>,
    gbit_per_s: Option<f64>,
    bytes_per_connection: Option<f64>,
}

impl Row {
    /// The row of something that was timed.
    pub fn of(
        work: &'static str,
        arm: &'static str,
        connections: usize,
        measured: Measured,
    ) -> Self {
        let Measured { done, seconds } = measured;
        let per_segment = (done.segments > 0).then(|| seconds * 1e9 / done.segments as f64);
        Row {
            work,
            arm,
            connections,
            ops_per_s: Some(measured.rate()),
            ns_per_segment: per_segment,
            gbit_per_s: Some(done.bytes as f64 * 8.0 / 1e9 / seconds),
            bytes_per_connection: None,
        }
    }

    /// The row of idle connections.
    pub fn of_idle(arm: &'static str, connections: usize, bytes: f64) -> Self {
        Row {
            work: "idle",
            arm,
            connections,
            ops_per_s: None,
            ns_per_segment: None,
            gbit_per_s: None,
            bytes_per_connection: Some(bytes),
        }
    }

    fn json(&self) -> String {
        let Row { work, arm, connections, .. } = self;
        let mut text =
            format!(r#"{{"work": "{work}", "arm": "{arm}", "connections": {connections}"#);
        for (name, value, digits) in self.figures() {
            match value {
                Some(value) => write!(text, r#", "{name}": {value:.digits$}"#),
                None => write!(text, r#", "{name}": null"#),
            }
            .expect("a string takes it");
        }
        text.push('}');
        text
    }

    fn figures(&self) -> [(&'static str, Option<f64>, usize); 4] {
        [
            ("ops_per_s", self.ops_per_s, 1),
            ("ns_per_segment", self.ns_per_segment, 1),
            ("gbit_per_s", self.gbit_per_s, 3),
            ("bytes_per_connection", self.bytes_per_connection, 1),
        ]
    }
}

impl Measured {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.done.operations as f64 / self.seconds
    }
}

/// Writes rows: as a table to standard output, or as JSON to `file`, or with `-` as JSON to
/// standard output.
///
/// # Errors
/// When the file cannot be written.
pub fn write(rows: &[Row], file: Option<&str>) -> Result<(), Failure> {
    let Some(file) = file else {
        print!("{}", table(rows));
        return Ok(());
    };
    let lines: Vec<String> = rows.iter().map(|row| format!("  {}", row.json())).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    let result = if file == "-" {
        io::Write::write_all(&mut io::stdout(), text.as_bytes())
    } else {
        fs::write(file, text)
    };
    result.map_err(|error| Failure::of(format!("cannot write {file}"), error))
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<11} {:<9} {:>11}", "work", "arm", "connections");
    if let Some(row) = rows.first() {
        for (name, _, _) in row.figures() {
            write!(text, " {name:>20}").expect("a string takes it");
        }
    }
    text.push('\n');
    for row in rows {
        let Row { work, arm, connections, .. } = row;
        write!(text, "{work:<11} {arm:<9} {connections:>11}").expect("a string takes it");
        for (_, value, digits) in row.figures() {
            let value = value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            write!(text, " {value:>20}").expect("a string takes it");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::pair::Done;
    use super::*;

    #[test]
    fn a_row_has_every_field_and_null_for_what_was_not_measured() {
        let measured = Measured {
            done: Done { operations: 1000, segments: 2000, bytes: 1_000_000 },
            seconds: 2.0,
        };
        assert_eq!(
            Row::of("rr64", "smoltcp", 1, measured).json(),
            r#"{"work": "rr64", "arm": "smoltcp", "connections": 1, "ops_per_s": 500.0, "#
                .to_owned()
                + r#""ns_per_segment": 1000000.0, "gbit_per_s": 0.004, "#
                + r#""bytes_per_connection": null}"#
        );
        let idle = Row::of_idle("smoltcp", 10, 320.25).json();
        assert!(idle.ends_with(r#""ops_per_s": null, "ns_per_segment": null, "gbit_per_s": null, "bytes_per_connection": 320.2}"#), "{idle}");
    }

    #[test]
    fn nothing_measured_divides_by_nothing() {
        let measured = Measured { done: Done::default(), seconds: 1.0 };
        assert!(
            Row::of("bulk", "smoltcp", 1, measured).json().contains(r#""ns_per_segment": null"#)
        );
    }
}
