//! Past the extension headers of a packet, within limits (RFC 8200 §4, RFC 8504 §5.3, RFC 7112).

use millrace_wire::icmpv6::parameter;
use millrace_wire::ipv6;
use millrace_wire::ipv6::extension::{
    Action, DESTINATION, FRAGMENT, HOP_BY_HOP, Header, Opt, ROUTING,
};

use super::config::Ipv6Config;
use crate::fragmentation::FRAGMENT_HEADER;

/// What is behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upper {
    /// The upper-layer protocol, or [`FRAGMENT`].
    pub(crate) protocol: u8,
    /// Offset of its header from the first byte walked.
    pub(crate) at: usize,
    /// Offset of the byte that names it, from the IPv6 header's first byte.
    pub(crate) named_at: usize,
    /// A fragment header was passed: the packet is a fragment that is the whole.
    pub(crate) fragment: bool,
}

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Malformed, or more than the limits allow: dropped without a word.
    Drop,
    /// The sender is told (RFC 4443 §3.4).
    Problem {
        code: u8,
        /// Offset from the IPv6 header's first byte.
        pointer: usize,
        /// Even if the packet went to a group.
        to_group: bool,
    },
}

/// Hop-by-hop options that are known: a router's business, or without meaning to a host.
const ROUTER_ALERT: u8 = 0x05;
/// Padding beyond this has no honest purpose (RFC 8504 §5.3).
const MOST_PADDING: usize = 7;

/// Walks over the extension headers in `bytes`, the first one's number being `first`, and its place
/// in the packet `base`. Stops at a fragment header, unless the fragment is the whole packet
/// (RFC 6946).
pub(crate) fn walk(
    first: u8,
    bytes: &[u8],
    base: usize,
    limits: &Ipv6Config,
) -> Result<Upper, Fault> {
    let (mut number, mut rest) = (first, bytes);
    // The fixed header names the first one, or the fragment header of what was put together.
    let mut named_at = if base == ipv6::HEADER_LEN { 6 } else { base - FRAGMENT_HEADER };
    let (mut headers, mut options, mut fragment) = (0, 0, false);
    loop {
        let at = bytes.len() - rest.len();
        let upper = Upper { protocol: number, at, named_at, fragment };
        if number == HOP_BY_HOP && (headers > 0 || base != ipv6::HEADER_LEN) {
            // Only the first may be one.
            let pointer = named_at;
            return Err(Fault::Problem { code: parameter::NEXT_HEADER, pointer, to_group: false });
        }
        let (header, behind) = match Header::split(number, rest) {
            Ok(None) => return Ok(upper),
            Ok(Some(split)) => split,
            Err(_) => return Err(Fault::Drop),
        };
        headers += 1;
        let walked = at + header.len();
        if headers > limits.extension_headers || walked > usize::from(limits.extension_bytes) {
            return Err(Fault::Drop);
        }
        match number {
            HOP_BY_HOP | DESTINATION => {
                check_options(&header, base + at, &mut options, limits)?;
            }
            // Nothing is routed through a host. Type 0 is no more (RFC 5095).
            ROUTING if header.segments_left() > 0 => {
                let pointer = base + at + 2;
                return Err(Fault::Problem { code: parameter::FIELD, pointer, to_group: false });
            }
            FRAGMENT => {
                let atomic =
                    rest.get(2..4).is_some_and(|field| field[0] == 0 && field[1] & !6 == 0);
                if !atomic {
                    return Ok(upper);
                }
                fragment = true;
            }
            _ => {}
        }
        named_at = base + at;
        (number, rest) = (header.next, behind);
    }
}

fn check_options(
    header: &Header<'_>,
    at: usize,
    count: &mut u8,
    limits: &Ipv6Config,
) -> Result<(), Fault> {
    let mut padding = 0;
    for option in header.options() {
        let Ok(option) = option else { return Err(Fault::Drop) };
        match option.kind {
            Opt::PAD_1 => padding += 1,
            Opt::PAD_N => {
                padding += 2 + option.data.len();
                // Bytes in it would be a channel for who has no other.
                if option.data.iter().any(|&byte| byte != 0) {
                    return Err(Fault::Drop);
                }
            }
            kind => {
                padding = 0;
                *count += 1;
                if *count > limits.extension_options {
                    return Err(Fault::Drop);
                }
                if kind == ROUTER_ALERT && header.number == HOP_BY_HOP {
                    continue;
                }
                let pointer = at + option.offset;
                let code = parameter::OPTION;
                match option.action() {
                    Action::Skip => {}
                    Action::Discard => return Err(Fault::Drop),
                    Action::Report => return Err(Fault::Problem { code, pointer, to_group: true }),
                    Action::ReportToUnicast => {
                        return Err(Fault::Problem { code, pointer, to_group: false });
                    }
                }
            }
        }
        if padding > MOST_PADDING {
            return Err(Fault::Drop);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walked(first: u8, bytes: &[u8]) -> Result<Upper, Fault> {
        walk(first, bytes, 40, &Ipv6Config::default())
    }

    fn problem(code: u8, pointer: usize, to_group: bool) -> Result<Upper, Fault> {
        Err(Fault::Problem { code, pointer, to_group })
    }

    #[test]
    fn headers_in_good_faith_are_passed() {
        let upper =
            |protocol, at, named_at, fragment| Ok(Upper { protocol, at, named_at, fragment });
        assert_eq!(walked(6, b"tcp"), upper(6, 0, 6, false));
        // Hop-by-hop with a router alert, destination options with padding, an empty routing
        // header, an atomic fragment.
        let bytes = [
            60, 0, 5, 2, 0, 0, 1, 0, //
            43, 0, 1, 4, 0, 0, 0, 0, //
            44, 0, 4, 0, 0, 0, 0, 0, //
            17, 0, 0, 0, 0, 0, 0, 9, //
            1, 2, 3,
        ];
        assert_eq!(walked(0, &bytes), upper(17, 32, 64, true));
        // A real fragment is where it ends.
        let mut fragment = bytes;
        fragment[27] = 1;
        assert_eq!(walked(0, &fragment), upper(44, 24, 56, false));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        // Hop-by-hop options that are not first.
        let bytes = [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walked(60, &bytes), problem(parameter::NEXT_HEADER, 40, false));
        // Routing through us, of type 0 and of any other.
        for kind in [0, 2, 4, 253] {
            let bytes = [6, 0, kind, 1, 0, 0, 0, 0];
            assert_eq!(walked(43, &bytes), problem(parameter::FIELD, 42, false));
        }
        // Options that are not known, by their upper two bits.
        let option = |kind| walked(60, &[6, 0, kind, 4, 0, 0, 0, 0]);
        assert!(option(0x1e).is_ok());
        assert_eq!(option(0x5e), Err(Fault::Drop));
        assert_eq!(option(0x9e), problem(parameter::OPTION, 42, true));
        assert_eq!(option(0xde), problem(parameter::OPTION, 42, false));
    }

    #[test]
    fn nothing_is_without_a_limit() {
        let empty = [60, 0, 1, 4, 0, 0, 0, 0];
        assert!(walked(60, &empty.repeat(8)).is_err());
        let mut seven = empty.repeat(7);
        seven.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        assert!(walked(60, &seven).is_ok());
        // One header of many options, one of much padding, one with something in the padding, and
        // one that is too long.
        let mut options = vec![6, 3];
        options.extend([0x1e, 1, 0].repeat(10));
        assert_eq!(walked(60, &options), Err(Fault::Drop));
        let mut padding = vec![6, 1];
        padding.extend([0; 14]);
        assert_eq!(walked(60, &padding), Err(Fault::Drop));
        assert_eq!(walked(60, &[6, 0, 1, 4, 0, 0, 7, 0]), Err(Fault::Drop));
        let mut long = vec![6, 80];
        long.extend([0x1e, 255].iter().chain(&[0; 255]).chain(&[0x1e, 255]).chain(&[0; 700]));
        assert_eq!(walked(60, &long), Err(Fault::Drop));
    }

    proptest! {
        #[test]
        fn whatever_comes_has_an_end(
            first: u8,
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            match walked(first, &bytes) {
                Ok(upper) => prop_assert!(upper.at <= bytes.len() && upper.named_at < 40 + upper.at.max(1)),
                Err(Fault::Problem { pointer, .. }) => prop_assert!(pointer < 40 + bytes.len()),
                Err(Fault::Drop) => {}
            }
        }
    }
}
