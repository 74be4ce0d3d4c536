//! The least of HTTP/1.1 that is still honest: where a request ends, whether the connection stays,
//! and one answer.
//!
//! Every native arm uses this, so that they differ in what is below HTTP and in nothing else.

/// A request's head may have this many bytes (status 431 beyond).
pub const MAX_HEAD: usize = 8192;

/// What the first bytes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not yet a whole request.
    Partial,
    /// A request of `len` bytes.
    Request {
        /// Bytes up to the end of its head. It has no body.
        len: usize,
        /// Whether the connection stays open after the answer (RFC 9112 §9.3).
        keep_alive: bool,
    },
    /// Not to be answered with the body; the connection ends after the refusal.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a request line and header fields, or a request with content.
    BadRequest,
    /// A method other than GET.
    Method,
    /// More than [`MAX_HEAD`] bytes without an end.
    TooLarge,
}

/// Looks for one request at the start of `bytes` (RFC 9112 §2.1).
#[inline]
pub fn parse(bytes: &[u8]) -> Parsed {
    let Some(len) = end_of_head(bytes) else {
        return if bytes.len() > MAX_HEAD {
            Parsed::Refused(Refusal::TooLarge)
        } else {
            Parsed::Partial
        };
    };
    if len > MAX_HEAD {
        return Parsed::Refused(Refusal::TooLarge);
    }
    let head = &bytes[..len - 2];
    let line_end = next_line(head, 0);
    let line = &head[..line_end - 2];
    let Some(target) = line.strip_prefix(b"GET ") else {
        let known = line
            .iter()
            .position(|&byte| byte == b' ')
            .is_some_and(|space| space > 0 && line[..space].iter().all(u8::is_ascii_uppercase));
        return Parsed::Refused(if known { Refusal::Method } else { Refusal::BadRequest });
    };
    let mut keep_alive = if target.ends_with(b" HTTP/1.1") {
        true
    } else if target.ends_with(b" HTTP/1.0") {
        false
    } else {
        return Parsed::Refused(Refusal::BadRequest);
    };
    let mut start = line_end;
    while start < head.len() {
        let end = next_line(head, start);
        let field = &head[start..end - 2];
        // Three field names matter, and their first letters tell most others apart.
        match field.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(field, b"connection") {
                    if lists(value, b"close") {
                        keep_alive = false;
                    } else if lists(value, b"keep-alive") {
                        keep_alive = true;
                    }
                } else if let Some(value) = value_of(field, b"content-length")
                    && value.trim_ascii() != b"0"
                {
                    return Parsed::Refused(Refusal::BadRequest);
                }
            }
            Some(b't' | b'T') if value_of(field, b"transfer-encoding").is_some() => {
                return Parsed::Refused(Refusal::BadRequest);
            }
            Some(_) => {}
            None => return Parsed::Refused(Refusal::BadRequest),
        }
        start = end;
    }
    Parsed::Request { len, keep_alive }
}

/// Length of the head with the empty line that ends it.
#[inline]
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    const END: &[u8; 4] = b"\r\n\r\n";
    // Most often the bytes are one request and nothing else.
    if bytes.len() <= MAX_HEAD && bytes.ends_with(END) {
        let before = &bytes[..bytes.len() - 1];
        return Some(find(before, END).map_or(bytes.len(), |at| at + END.len()));
    }
    find(&bytes[..bytes.len().min(MAX_HEAD + 1)], END).map(|at| at + END.len())
}

#[inline]
fn find(bytes: &[u8], wanted: &[u8; 4]) -> Option<usize> {
    let wanted = u32::from_le_bytes(*wanted);
    // Of four bytes in a row at least one is looked at; what it is says how far to go on.
    let mut at = 3;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\n' => {
                let four = [bytes[at - 3], bytes[at - 2], bytes[at - 1], byte];
                if u32::from_le_bytes(four) == wanted {
                    return Some(at - 3);
                }
                at += 2;
            }
            b'\r' => at += 1,
            _ => at += 4,
        }
    }
    None
}

/// Where the line that starts at `start` ends, line break included. `head` ends with one.
#[inline]
fn next_line(head: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(found) = head[at..].iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        if at >= start + 2 && head[at - 2] == b'\r' {
            return at;
        }
    }
    head.len()
}

#[inline]
fn value_of<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = field.split_at_checked(name.len())?;
    if start.eq_ignore_ascii_case(name) { rest.strip_prefix(b":") } else { None }
}

/// Whether a comma-separated list has a member (RFC 9110 §5.6.1).
fn lists(value: &[u8], member: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(member))
}

/// The answers, made once.
#[derive(Debug)]
pub struct Answers {
    keep: Box<[u8]>,
    close: Box<[u8]>,
    bad_request: Box<[u8]>,
    method: Box<[u8]>,
    too_large: Box<[u8]>,
}

impl Answers {
    /// Answers with a body of so many bytes.
    pub fn new(body: usize) -> Self {
        let body: Vec<u8> = (0..body).map(|at| b'a' + (at % 26) as u8).collect();
        Answers {
            keep: answer("200 OK", "", &body),
            close: answer("200 OK", "Connection: close\r\n", &body),
            bad_request: answer("400 Bad Request", "Connection: close\r\n", b""),
            method: answer("405 Method Not Allowed", "Allow: GET\r\nConnection: close\r\n", b""),
            too_large: answer("431 Request Header Fields Too Large", "Connection: close\r\n", b""),
        }
    }

    /// The answer to a good request.
    #[inline]
    pub fn to(&self, keep_alive: bool) -> &[u8] {
        if keep_alive { &self.keep } else { &self.close }
    }

    /// The answer to a refused one.
    pub fn refusing(&self, refusal: Refusal) -> &[u8] {
        match refusal {
            Refusal::BadRequest => &self.bad_request,
            Refusal::Method => &self.method,
            Refusal::TooLarge => &self.too_large,
        }
    }
}

fn answer(status: &str, fields: &str, body: &[u8]) -> Box<[u8]> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n";

    fn request(bytes: &[u8]) -> (usize, bool) {
        match parse(bytes) {
            Parsed::Request { len, keep_alive } => (len, keep_alive),
            other => panic!("{other:?} from {:?}", bytes.escape_ascii().to_string()),
        }
    }

    #[test]
    fn a_request_is_whole_at_its_empty_line_and_not_before() {
        for cut in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST[..cut]), Parsed::Partial, "cut at {cut}");
        }
        assert_eq!(request(REQUEST), (REQUEST.len(), true));
    }

    #[test]
    fn pipelined_requests_are_taken_one_by_one() {
        let mut stream = REQUEST.repeat(3);
        stream.extend_from_slice(&REQUEST[..7]);
        let mut rest = &stream[..];
        for _ in 0..3 {
            let (len, _) = request(rest);
            assert_eq!(len, REQUEST.len());
            rest = &rest[len..];
        }
        assert_eq!(parse(rest), Parsed::Partial);
    }

    #[test]
    fn the_end_is_found_at_every_alignment() {
        for padding in 0..9 {
            let target = "x".repeat(padding);
            let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut stream = head.clone().into_bytes();
            assert_eq!(request(&stream).0, head.len());
            stream.extend_from_slice(b"GET");
            assert_eq!(request(&stream).0, head.len());
        }
    }

    #[test]
    fn connection_and_version_say_whether_it_stays() {
        for (text, keep_alive) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nCONNECTION:TE, Close \r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nX-Connection: close\r\n\r\n", true),
        ] {
            assert_eq!(request(text.as_bytes()), (text.len(), keep_alive), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_plain_get_is_refused() {
        for (text, refusal) in [
            ("POST / HTTP/1.1\r\n\r\n", Refusal::Method),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/2\r\n\r\n", Refusal::BadRequest),
            ("\x16\x03\x01\r\n\r\n", Refusal::BadRequest),
            ("\r\n\r\n", Refusal::BadRequest),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused(refusal), "{text:?}");
        }
        let endless = [b'x'; MAX_HEAD + 1];
        assert_eq!(parse(&endless), Parsed::Refused(Refusal::TooLarge));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Every string of seven bytes of the alphabet that the parser branches on.
        let alphabet = *b"\r\n :cG";
        let mut bytes = *b"GET /x HTTP/1.1\r\n_______\r\n\r\n";
        for mut number in 0..alphabet.len().pow(7) {
            for slot in &mut bytes[17..24] {
                *slot = alphabet[number % alphabet.len()];
                number /= alphabet.len();
            }
            let _ = parse(&bytes);
            let _ = parse(&bytes[17..]);
        }
    }

    #[test]
    fn answers_carry_the_body_they_announce() {
        let answers = Answers::new(1024);
        for bytes in [answers.to(true), answers.to(false)] {
            let text = std::str::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("\r\nContent-Length: 1024"));
            assert_eq!(body.len(), 1024);
        }
        assert!(answers.to(false).windows(17).any(|part| part == b"Connection: close"));
        assert!(answers.refusing(Refusal::Method).starts_with(b"HTTP/1.1 405 "));
    }
}
