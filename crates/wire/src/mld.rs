//! Multicast Listener Discovery: version 2 (RFC 3810), and what is left of version 1 (RFC 2710).
//! These are ICMPv6 messages; their checksum is that of ICMPv6.

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::Malformed;
pub use crate::igmp::RecordKind;

/// ICMPv6 type of a query.
pub const QUERY: u8 = 130;
/// ICMPv6 type of a version 1 report.
pub const REPORT_V1: u8 = 131;
/// ICMPv6 type of a version 1 done.
pub const DONE: u8 = 132;
/// ICMPv6 type of a version 2 report.
pub const REPORT_V2: u8 = 143;

/// Length of the messages of version 1.
pub const V1_LEN: usize = 24;
/// Length of a version 2 query without sources.
pub const QUERY_LEN: usize = 28;
/// Length of a version 2 report without records.
pub const REPORT_LEN: usize = 8;
/// Length of a record without sources.
pub const RECORD_LEN: usize = 20;

/// Reads the maximum response code: from 32,768 on a mantissa and an exponent (RFC 3810 §5.1.3).
#[inline]
pub const fn decode_time(code: u16) -> u32 {
    if code < 0x8000 {
        return code as u32;
    }
    ((code & 0x0fff) as u32 | 0x1000) << ((code >> 12 & 7) + 3)
}

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A router asks who listens.
    Query(Query<'a>),
    /// A host of version 1 listens to a group.
    ReportV1(Ipv6Addr),
    /// A host of version 1 listens no more.
    Done(Ipv6Addr),
    /// A host of version 2 tells what it listens to; only routers need to know.
    ReportV2,
}

/// A query.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The router's version: 1 or 2.
    pub version: u8,
    /// How long answers may be spread over.
    pub max_response: Duration,
    /// The group that is asked for; `::`: all.
    pub group: Ipv6Addr,
    /// Robustness variable of the router; 0: not told.
    pub robustness: u8,
    /// Time between two queries of the router, in seconds; 0: not told.
    pub interval: u16,
    sources: &'a [[u8; 16]],
}

impl<'a> Query<'a> {
    /// The sources that are asked for; none: all.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = Ipv6Addr> + 'a {
        self.sources.iter().map(|&octets| Ipv6Addr::from(octets))
    }
}

/// Reads an ICMPv6 message of one of the four types, from its type on. `None` for other types.
///
/// # Errors
/// [`Malformed::Truncated`]; [`Malformed::TotalLength`] for a query of 25 to 27 bytes, whose
/// version nobody can tell (RFC 3810 §8.1).
pub fn parse(bytes: &[u8]) -> Result<Option<Kind<'_>>, Malformed> {
    let kind = *bytes.first().ok_or(Malformed::Truncated)?;
    match kind {
        REPORT_V2 if bytes.len() < REPORT_LEN => return Err(Malformed::Truncated),
        REPORT_V2 => return Ok(Some(Kind::ReportV2)),
        QUERY | REPORT_V1 | DONE => {}
        _ => return Ok(None),
    }
    let message = bytes.first_chunk::<V1_LEN>().ok_or(Malformed::Truncated)?;
    let mut octets = [0; 16];
    octets.copy_from_slice(&message[8..]);
    let group = Ipv6Addr::from(octets);
    match kind {
        REPORT_V1 => return Ok(Some(Kind::ReportV1(group))),
        DONE => return Ok(Some(Kind::Done(group))),
        _ => {}
    }
    let code = u16::from_be_bytes([message[4], message[5]]);
    let millis = |count: u32| Duration::from_millis(count.into());
    if bytes.len() == V1_LEN {
        let max_response = millis(code.into());
        return Ok(Some(Kind::Query(Query {
            version: 1,
            max_response,
            group,
            robustness: 0,
            interval: 0,
            sources: &[],
        })));
    }
    let more = bytes.get(V1_LEN..QUERY_LEN).ok_or(Malformed::TotalLength)?;
    let count = usize::from(u16::from_be_bytes([more[2], more[3]]));
    let sources = bytes[QUERY_LEN..].as_chunks().0.get(..count).ok_or(Malformed::Truncated)?;
    Ok(Some(Kind::Query(Query {
        version: 2,
        max_response: millis(decode_time(code)),
        group,
        robustness: more[0] & 7,
        interval: crate::igmp::decode_time(more[1]),
        sources,
    })))
}

/// Writes a message of version 1 ([`REPORT_V1`] or [`DONE`]) without its checksum: [`V1_LEN`]
/// bytes.
///
/// # Panics
/// If `buf` is shorter.
pub fn emit_v1(buf: &mut [u8], kind: u8, group: Ipv6Addr) {
    let message: &mut [u8; V1_LEN] = buf.first_chunk_mut().expect("room for a message");
    message[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    message[8..].copy_from_slice(&group.octets());
}

/// Writes the header of a version 2 report without its checksum: [`REPORT_LEN`] bytes. Records
/// follow.
///
/// # Panics
/// If `buf` is shorter.
pub fn emit_report(buf: &mut [u8], records: u16) {
    let [high, low] = records.to_be_bytes();
    buf[..REPORT_LEN].copy_from_slice(&[REPORT_V2, 0, 0, 0, 0, 0, high, low]);
}

/// Writes a record and returns its length, [`RECORD_LEN`] and 16 bytes for each source.
///
/// # Panics
/// If `buf` has no room, or there are more than 65,535 sources.
pub fn emit_record(
    buf: &mut [u8],
    kind: RecordKind,
    group: Ipv6Addr,
    sources: impl ExactSizeIterator<Item = Ipv6Addr>,
) -> usize {
    let count = u16::try_from(sources.len()).expect("at most 65535 sources");
    buf[..2].copy_from_slice(&[kind as u8, 0]);
    buf[2..4].copy_from_slice(&count.to_be_bytes());
    buf[4..20].copy_from_slice(&group.octets());
    let len = RECORD_LEN + 16 * usize::from(count);
    for (to, source) in buf[RECORD_LEN..len].chunks_exact_mut(16).zip(sources) {
        to.copy_from_slice(&source.octets());
    }
    len
}
