//! Internet Group Management Protocol: version 3 (RFC 3376), and what is left of versions 1 and 2
//! (RFC 1112, RFC 2236) on links with older routers or hosts.

use core::net::Ipv4Addr;
use core::time::Duration;

use crate::{Malformed, checksum};

/// Length of the messages of versions 1 and 2, and of a version 3 report without records.
pub const HEADER_LEN: usize = 8;
/// Length of a version 3 query without sources.
pub const QUERY_LEN: usize = 12;
/// Length of a group record without sources.
pub const RECORD_LEN: usize = 8;

const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

/// What a group record of a report says (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Only these sources are wanted: answer to a query.
    IsInclude = 1,
    /// All but these sources are wanted: answer to a query.
    IsExclude = 2,
    /// From now on only these sources are wanted.
    ToInclude = 3,
    /// From now on all but these sources are wanted.
    ToExclude = 4,
    /// These sources are wanted as well.
    Allow = 5,
    /// These sources are wanted no more.
    Block = 6,
}

/// Reads a time code of versions 3 and 2: from 128 on a mantissa and an exponent (RFC 3376 §4.1.1).
#[inline]
pub const fn decode_time(code: u8) -> u16 {
    if code < 128 {
        return code as u16;
    }
    ((code & 0x0f) as u16 | 0x10) << ((code >> 4 & 7) + 3)
}

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
}

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A router asks who listens.
    Query(Query<'a>),
    /// A host of version 1 listens to a group.
    ReportV1(Ipv4Addr),
    /// A host of version 2 listens to a group.
    ReportV2(Ipv4Addr),
    /// A host of version 2 listens no more.
    Leave(Ipv4Addr),
    /// A host of version 3 tells what it listens to; only routers need to know.
    ReportV3,
    /// Anything else, by its type.
    Other(u8),
}

/// A membership query.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The router's version: 1, 2 or 3.
    pub version: u8,
    /// How long answers may be spread over; 10 s where version 1 does not say.
    pub max_response: Duration,
    /// The group that is asked for; `0.0.0.0`: all.
    pub group: Ipv4Addr,
    /// Robustness variable of the router; 0: not told.
    pub robustness: u8,
    /// Time between two queries of the router, in seconds; 0: not told.
    pub interval: u16,
    sources: &'a [[u8; 4]],
}

impl<'a> Query<'a> {
    /// The sources that are asked for; none: all.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = Ipv4Addr> + 'a {
        self.sources.iter().map(|&octets| Ipv4Addr::from(octets))
    }
}

impl<'a> Packet<'a> {
    /// Checks the length, also that of a version 3 query's sources. `bytes` are the payload of an
    /// IPv4 packet, without link padding.
    ///
    /// # Errors
    /// [`Malformed::Truncated`]; [`Malformed::TotalLength`] for a query of 9 to 11 bytes, whose
    /// version nobody can tell (RFC 3376 §7.1).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] == QUERY && bytes.len() > HEADER_LEN {
            if bytes.len() < QUERY_LEN {
                return Err(Malformed::TotalLength);
            }
            if bytes.len() < QUERY_LEN + 4 * source_count(bytes) {
                return Err(Malformed::Truncated);
            }
        }
        Ok(Self { header, bytes })
    }

    /// True if the checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::finish(checksum::sum(self.bytes)) == 0
    }

    /// What the message says.
    pub fn kind(&self) -> Kind<'a> {
        let [kind, code, _, _, a, b, c, d] = *self.header;
        let group = Ipv4Addr::new(a, b, c, d);
        match kind {
            QUERY => Kind::Query(self.query(code, group)),
            REPORT_V1 => Kind::ReportV1(group),
            REPORT_V2 => Kind::ReportV2(group),
            LEAVE => Kind::Leave(group),
            REPORT_V3 => Kind::ReportV3,
            other => Kind::Other(other),
        }
    }

    fn query(&self, code: u8, group: Ipv4Addr) -> Query<'a> {
        let tenths = |count: u16| Duration::from_millis(u64::from(count) * 100);
        let Some(more) = self.bytes.get(HEADER_LEN..QUERY_LEN) else {
            let (version, code) = if code == 0 { (1, 100) } else { (2, code) };
            let max_response = tenths(code.into());
            return Query {
                version,
                max_response,
                group,
                robustness: 0,
                interval: 0,
                sources: &[],
            };
        };
        let sources = self.bytes[QUERY_LEN..].as_chunks().0;
        Query {
            version: 3,
            max_response: tenths(decode_time(code)),
            group,
            robustness: more[0] & 7,
            interval: decode_time(more[1]),
            sources: &sources[..source_count(self.bytes)],
        }
    }
}

#[inline]
fn source_count(bytes: &[u8]) -> usize {
    u16::from_be_bytes([bytes[10], bytes[11]]).into()
}

/// A message of version 1 or 2 to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Version 1 membership report.
    ReportV1,
    /// Version 2 membership report.
    ReportV2,
    /// Version 2 leave group.
    Leave,
}

/// Writes a message of version 1 or 2 with its checksum: [`HEADER_LEN`] bytes.
///
/// # Panics
/// If `buf` is shorter.
pub fn emit_old(buf: &mut [u8], kind: Old, group: Ipv4Addr) {
    let message: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for a message");
    let kind = match kind {
        Old::ReportV1 => REPORT_V1,
        Old::ReportV2 => REPORT_V2,
        Old::Leave => LEAVE,
    };
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[4..].copy_from_slice(&group.octets());
    fill_checksum(message);
}

/// Writes the header of a version 3 report: [`HEADER_LEN`] bytes. Records follow, then
/// [`fill_checksum`].
///
/// # Panics
/// If `buf` is shorter.
pub fn emit_report(buf: &mut [u8], records: u16) {
    let [high, low] = records.to_be_bytes();
    buf[..HEADER_LEN].copy_from_slice(&[REPORT_V3, 0, 0, 0, 0, 0, high, low]);
}

/// Writes a group record and returns its length, [`RECORD_LEN`] and 4 bytes for each source.
///
/// # Panics
/// If `buf` has no room, or there are more than 65,535 sources.
pub fn emit_record(
    buf: &mut [u8],
    kind: RecordKind,
    group: Ipv4Addr,
    sources: impl ExactSizeIterator<Item = Ipv4Addr>,
) -> usize {
    let count = u16::try_from(sources.len()).expect("at most 65535 sources");
    buf[..2].copy_from_slice(&[kind as u8, 0]);
    buf[2..4].copy_from_slice(&count.to_be_bytes());
    buf[4..8].copy_from_slice(&group.octets());
    let len = RECORD_LEN + 4 * usize::from(count);
    for (to, source) in buf[RECORD_LEN..len].chunks_exact_mut(4).zip(sources) {
        to.copy_from_slice(&source.octets());
    }
    len
}

/// Writes the checksum of a whole message.
///
/// # Panics
/// If `message` is shorter than [`HEADER_LEN`].
pub fn fill_checksum(message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = checksum::finish(checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
