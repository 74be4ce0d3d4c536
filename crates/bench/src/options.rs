//! `--name value` options of a subcommand, checked against what it knows.

use std::fmt;
use std::str::FromStr;

/// Why a command did not run or did not end well.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong: exit status 2.
    Usage(String),
    /// It was right and the work failed: exit status 1.
    Failed(String),
}

impl Failure {
    /// What failed, and why.
    pub fn of(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Failure::Failed(format!("{what}: {why}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(text) | Failure::Failed(text)) = self;
        f.write_str(text)
    }
}

/// The options given, each at most once.
#[derive(Debug)]
pub struct Options {
    given: Vec<(String, String)>,
}

impl Options {
    /// Reads `arguments`, all of them `--name value` or `--name=value`, with names from `known`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an unknown or repeated name, a missing value, or anything else.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        known: &[&str],
    ) -> Result<Self, Failure> {
        let mut given: Vec<(String, String)> = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(rest) = argument.strip_prefix("--") else {
                return Err(Failure::Usage(format!("{argument:?} is not an option")));
            };
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            if !known.contains(&name) {
                let names = known.join(", --");
                return Err(Failure::Usage(format!("unknown option --{name}; there is --{names}")));
            }
            let value = value
                .or_else(|| arguments.next())
                .ok_or_else(|| Failure::Usage(format!("--{name} needs a value")))?;
            if given.iter().any(|(earlier, _)| earlier == name) {
                return Err(Failure::Usage(format!("--{name} is given twice")));
            }
            given.push((name.to_owned(), value));
        }
        Ok(Options { given })
    }

    /// The text of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that may be left out.
    ///
    /// # Errors
    /// [`Failure::Usage`] when its text is no such value.
    pub fn value<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &str,
        default: T,
    ) -> Result<T, Failure> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|error| Failure::Usage(format!("--{name} {text}: {error}")))
            }
        }
    }

    /// The value of an option that has no default.
    ///
    /// # Errors
    /// [`Failure::Usage`] when its text is no such value.
    pub fn optional<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Failure> {
        self.text(name).map(|_| self.required(name)).transpose()
    }

    /// The value of an option that must be given.
    ///
    /// # Errors
    /// [`Failure::Usage`] when it is missing or its text is no such value.
    pub fn required<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.text(name).ok_or_else(|| Failure::Usage(format!("--{name} is missing")))?;
        text.parse().map_err(|error| Failure::Usage(format!("--{name} {text}: {error}")))
    }
}

/// What a loop does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Looks again at once.
    Spin,
    /// Sleeps in the kernel.
    Sleep,
}

impl FromStr for Wait {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "spin" => Ok(Wait::Spin),
            "sleep" => Ok(Wait::Sleep),
            _ => Err("spin and sleep are known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, Failure> {
        Options::parse(arguments.iter().map(ToString::to_string), &["body", "wait"])
    }

    #[test]
    fn both_spellings_are_read() {
        let options = parse(&["--body", "64", "--wait=spin"]).unwrap();
        assert_eq!(options.value("body", 1024), Ok(64));
        assert_eq!(options.required("wait"), Ok(Wait::Spin));
    }

    #[test]
    fn what_is_left_out_has_its_default_or_is_asked_for() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.value("body", 1024), Ok(1024));
        let failure = options.required::<Wait>("wait").unwrap_err();
        assert_eq!(failure, Failure::Usage("--wait is missing".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, part) in [
            (&["--size", "1"][..], "unknown option --size"),
            (&["body"], "\"body\" is not an option"),
            (&["--body"], "--body needs a value"),
            (&["--body", "1", "--body", "2"], "given twice"),
        ] {
            let Failure::Usage(text) = parse(arguments).unwrap_err() else { panic!() };
            assert!(text.contains(part), "{text}");
        }
        let failure = parse(&["--body=x"]).unwrap().value("body", 1).unwrap_err();
        assert_eq!(failure.to_string(), "--body x: invalid digit found in string");
    }
}
