//! What a client of the socket may ask for: one line of words, ended by a newline.
//!
//! | line | answer after `ok` and a newline |
//! |---|---|
//! | `table SOURCE NAME` | parts of the table, each with its length (4 bytes) before it, then 0 |
//! | `dump SOURCE[,SOURCE...] snap=BYTES buffer=BYTES` | a pcapng stream until the client shuts down its side |
//!
//! A refusal is `error`, a space, the reason and a newline. `SOURCE` is the number of a page. Within
//! a table, the length 2^32 - 1 says that an error follows as one more part.

/// Longest line.
pub(crate) const MOST_LINE: usize = 64 << 10;
/// Largest frame that is shown whole.
const MOST_SNAP: usize = 262_144;
/// Most bytes that one tap may hold.
const MOST_BUFFER: usize = 256 << 20;
/// Sources of one dump.
const MOST_SOURCES: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Table { source: u32, name: String },
    Dump { sources: Vec<u32>, snap: usize, buffer: usize },
}

impl Request {
    /// Reads a line without its newline. The error says what is wrong with it.
    pub(crate) fn parse(line: &[u8]) -> Result<Request, String> {
        let Ok(line) = core::str::from_utf8(line) else {
            return Err("the request is no UTF-8".to_owned());
        };
        let mut words = line.split(' ');
        let request = match words.next().unwrap_or_default() {
            "table" => {
                let source = source(words.next().unwrap_or_default())?;
                let name = words.next().ok_or("table: name one")?.to_owned();
                Request::Table { source, name }
            }
            "dump" => {
                let list = words.next().unwrap_or_default();
                let sources: Vec<u32> = list.split(',').map(source).collect::<Result<_, _>>()?;
                if sources.len() > MOST_SOURCES {
                    return Err(format!("dump: at most {MOST_SOURCES} sources at a time"));
                }
                let (mut snap, mut buffer) = (MOST_SNAP, 8 << 20);
                for word in words.by_ref() {
                    match word.split_once('=') {
                        Some(("snap", text)) => snap = number("snap", text, MOST_SNAP)?,
                        Some(("buffer", text)) => buffer = number("buffer", text, MOST_BUFFER)?,
                        _ => return Err(format!("dump: {word:?} is no option")),
                    }
                }
                Request::Dump { sources, snap, buffer }
            }
            other => return Err(format!("{other:?} is no request; there are table and dump")),
        };
        match words.next() {
            Some(word) => Err(format!("{word:?} is too much")),
            None => Ok(request),
        }
    }
}

fn source(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of a page"))
}

fn number(name: &str, text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} is 1 to {most}, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        assert_eq!(
            Request::parse(b"table 3 connections"),
            Ok(Request::Table { source: 3, name: "connections".into() })
        );
        assert_eq!(
            Request::parse(b"dump 0,2 buffer=4096 snap=96"),
            Ok(Request::Dump { sources: vec![0, 2], snap: 96, buffer: 4096 })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (line, part) in [
            (&b""[..], "no request"),
            (b"\xff\xfe", "UTF-8"),
            (b"reboot", "reboot"),
            (b"table", "no number"),
            (b"table -1 x", "no number"),
            (b"table 0", "name one"),
            (b"table 0 x y", "too much"),
            (b"dump 0,", "no number"),
            (b"dump 0 snap=0", "1 to 262144"),
            (b"dump 0 buffer=99999999999999999999", "1 to 268435456"),
            (b"dump 0 speed=9", "no option"),
        ] {
            let error = Request::parse(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
        }
        let many = format!("dump {}", ["1"; 65].join(","));
        assert!(Request::parse(many.as_bytes()).unwrap_err().contains("at most 64"));
    }
}
