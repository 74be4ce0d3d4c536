//! Names of domains, with compression and without.

use millrace_wire::domain::Names;
use proptest::prelude::*;

fn texts(names: Option<Names<'_>>) -> Option<Vec<String>> {
    names.map(|names| names.map(|name| name.to_string()).collect())
}

fn plain(bytes: &[u8]) -> Option<Vec<String>> {
    texts(Names::parse(bytes))
}

fn compressed(bytes: &[u8]) -> Option<Vec<String>> {
    texts(Names::parse_compressed(bytes))
}

#[test]
fn names_follow_one_another() {
    let two = b"\x03eng\x05apple\x03com\0\x09marketing\x07example\0";
    let expected = Some(vec!["eng.apple.com".to_owned(), "marketing.example".to_owned()]);
    assert_eq!(plain(two), expected);
    assert_eq!(compressed(two), expected);
    assert_eq!(plain(b""), Some(vec![]));
    assert_eq!(plain(b"\0\0\0"), Some(vec![]));
    assert_eq!(plain(&[two, &b"\0\0\0"[..]].concat()), expected);
    // Nothing follows what fills up.
    assert_eq!(plain(&[two, &b"\0\x01a\0"[..]].concat()), None);
}

/// The example of RFC 3397 §3.
#[test]
fn names_end_with_those_before_them() {
    let bytes = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
    let expected = ["eng.apple.com", "marketing.apple.com"].map(str::to_owned);
    assert_eq!(compressed(bytes), Some(expected.to_vec()));
    assert_eq!(plain(bytes), None);
    // By one that does so itself, and by nothing but a pointer.
    let bytes = b"\x03com\0\x01a\xc0\x00\x01b\xc0\x05\xc0\x09";
    let expected = ["com", "a.com", "b.a.com", "b.a.com"].map(str::to_owned);
    assert_eq!(compressed(bytes), Some(expected.to_vec()));
}

#[test]
fn pointers_that_do_not_lead_back_are_refused() {
    for bytes in [
        // To itself, to the name that it ends, forward, beyond the end, cut.
        &b"\xc0\x00"[..],
        b"\x01a\xc0\x00",
        b"\x01a\0\x01b\xc0\x03",
        b"\x01a\xc0\x04\x01b\0",
        b"\x01a\0\x01b\xc0\x40",
        b"\x01a\0\x01b\xc0",
        // Lengths that nobody has given a meaning.
        b"\x01a\0\x40",
        b"\x01a\0\x80\x00",
    ] {
        assert_eq!(compressed(bytes), None, "{bytes:?}");
    }
}

#[test]
fn names_have_a_longest() {
    let label = |len: u8| [&[len][..], &vec![b'x'; len.into()]].concat();
    let name = |last: u8| [label(63), label(63), label(63), label(last), vec![0]].concat();
    assert_eq!(plain(&name(61)).unwrap()[0].len(), 253);
    assert_eq!(plain(&name(62)), None);
    // Together with what a pointer leads to.
    let mut bytes = name(61);
    bytes.extend(b"\x01a\xc0\x40");
    assert_eq!(compressed(&bytes).unwrap()[1].len(), 253 - 62);
    let mut bytes = name(61);
    bytes.extend(b"\x01a\xc0\x00");
    assert_eq!(compressed(&bytes), None);
    assert_eq!(plain(b"\x01"), None);
    assert_eq!(plain(b"\x05abc\0"), None);
    assert_eq!(plain(b"\x01a"), None);
}

#[test]
fn some_names_have_no_text() {
    let is_plain = |bytes| Names::parse(bytes).unwrap().next().unwrap().is_plain();
    assert!(!is_plain(b"\x0a_srv-1.com\0"));
    assert!(is_plain(b"\x06_srv-1\x03com\0"));
    for bytes in [b"\x01.\0", b"\x01 \0", b"\x01\x1b\0", b"\x01\n\0", b"\x01\xe4\0", b"\x01\0\0"] {
        assert!(!is_plain(bytes), "{bytes:?}");
    }
}

proptest! {
    /// Whatever comes, there is an end, and names are no longer than they may be.
    #[test]
    fn all_bytes_are_borne(bytes in proptest::collection::vec(prop_oneof![
        4 => 0u8..6, 1 => Just(0xc0u8), 1 => any::<u8>(),
    ], 0..600)) {
        for names in [Names::parse(&bytes), Names::parse_compressed(&bytes)].into_iter().flatten() {
            for name in names {
                let len: usize = name.labels().map(|label| label.len() + 1).sum();
                prop_assert!((2..255).contains(&len));
            }
        }
    }
}
