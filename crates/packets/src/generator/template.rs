//! A packet, and what of it varies.

use core::fmt;

use millrace_wire::{ipv6, protocol};

use super::layout::{self, Layout};
use super::stamp::{self, Stamp};
use super::values::Values;

/// Bytes of the longest frame: the largest IP packet behind Ethernet with two tags.
pub const LONGEST: usize = 65_535 + 22;
/// Bytes of the shortest.
pub const SHORTEST: usize = 14;

/// A part of the packet that varies: `width` bytes at `offset`, in network order, of which the bits
/// of `mask` are replaced.
#[derive(Clone, Debug)]
pub struct Field {
    /// Where it begins.
    pub offset: usize,
    /// Bytes, 1 to 16.
    pub width: usize,
    /// Which of its bits; a value stands at the lowest of them.
    pub mask: u128,
    /// What it is.
    pub values: Values,
}

/// Why a template makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// What is put right in each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The lengths in the headers of IP and UDP: the frame ends with the packet.
    pub lengths: bool,
    /// The checksums of IPv4, and of TCP, UDP and ICMP.
    pub checksums: bool,
}

/// Renders packets.
#[derive(Clone)]
pub struct Template {
    bytes: Box<[u8]>,
    sizes: Values,
    fields: Box<[Field]>,
    repair: Repair,
    layout: Layout,
    /// Where the stamp is, and of which stream.
    stamp: Option<(usize, u16)>,
    sequence: u32,
    least: usize,
    most: usize,
    /// The next packet's size, which is drawn before its fields.
    size: usize,
}

impl Template {
    /// A template of `bytes`, the longest packet; the others are its first bytes. `sizes` are those
    /// of the frames. `stamp`: each packet is stamped, as one of this stream, behind its headers.
    ///
    /// # Errors
    /// [`Wrong`] for what does not fit together.
    pub fn new(
        bytes: Vec<u8>,
        sizes: Values,
        fields: Vec<Field>,
        repair: Repair,
        stamp: Option<u16>,
    ) -> Result<Template, Wrong> {
        let layout = Layout::of(&bytes);
        let (least, most) = sizes.bounds();
        let wrong = |text: String| Err(Wrong(text));
        if bytes.len() > LONGEST {
            return wrong(format!("a frame has at most {LONGEST} bytes, not {}", bytes.len()));
        }
        let longest = bytes.len() as u128;
        if least < SHORTEST as u128 || most > longest {
            return wrong(format!(
                "frames of {least} to {most} bytes: a frame has {SHORTEST} bytes at least, and this \
                 template has {longest}"
            ));
        }
        let (least, most) = (least as usize, most as usize);
        let stamp = match stamp {
            None => None,
            Some(stream) => {
                let Some(at) = payload(&bytes, &layout) else {
                    return wrong(
                        "a packet whose headers cannot be read has no place for a stamp".into(),
                    );
                };
                if at + stamp::LEN > least {
                    return wrong(format!(
                        "frames of {least} bytes have no room for a stamp of {} bytes behind {at} \
                         of headers; make them {} bytes",
                        stamp::LEN,
                        at + stamp::LEN
                    ));
                }
                Some((at, stream))
            }
        };
        if repair.lengths && least < layout.headers() {
            return wrong(format!(
                "frames of {least} bytes are shorter than their headers, {} bytes",
                layout.headers()
            ));
        }
        if repair.lengths
            && let Some((ip, _)) = layout.ip
            && most - ip > 65_535
        {
            return wrong(format!("an IP packet has at most 65535 bytes, not {}", most - ip));
        }
        for Field { offset, width, mask, values } in &fields {
            let end = offset.saturating_add(*width);
            if !(1..=16).contains(width) || end > least {
                return wrong(format!(
                    "a field of {width} bytes at {offset} is no part of frames of {least} bytes"
                ));
            }
            let all = if *width == 16 { u128::MAX } else { (1 << (8 * width)) - 1 };
            let room = mask >> mask.trailing_zeros().min(127);
            if *mask == 0 || *mask & !all != 0 || room & room.wrapping_add(1) != 0 {
                return wrong(format!("{mask:#x} is no run of bits of {width} bytes"));
            }
            if values.bounds().1 > room {
                return wrong(format!(
                    "the field at {offset} holds 0 to {room}, and not {}",
                    values.bounds().1
                ));
            }
        }
        let mut template = Template {
            bytes: bytes.into(),
            sizes,
            fields: fields.into(),
            repair,
            layout,
            stamp,
            sequence: 0,
            least,
            most,
            size: 0,
        };
        template.size = template.sizes.draw() as usize;
        Ok(template)
    }

    /// The sizes of the shortest and of the longest frame.
    pub fn sizes(&self) -> (usize, usize) {
        (self.least, self.most)
    }

    /// After how many packets the same come again; `None`: never.
    pub fn period(&self) -> Option<u64> {
        if self.stamp.is_some() {
            return None;
        }
        let mut period = self.sizes.period()?;
        for field in &self.fields {
            let other = field.values.period()?;
            period = period.checked_mul(other / gcd(period, other))?;
        }
        Some(period)
    }

    /// Packets that were stamped so far.
    pub fn stamped(&self) -> Option<u32> {
        self.stamp.map(|_| self.sequence)
    }

    /// The size of the next packet.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes the next packet, of [`Template::size`] bytes, to the start of `to`; `time` is for its
    /// stamp, nanoseconds since 1970.
    ///
    /// # Panics
    /// When `to` is shorter.
    #[inline]
    pub fn render(&mut self, to: &mut [u8], time: u64) {
        let frame = &mut to[..self.size];
        frame.copy_from_slice(&self.bytes[..self.size]);
        for field in &mut self.fields {
            let value = field.values.draw();
            let place = &mut frame[field.offset..field.offset + field.width];
            write(place, field.mask, value);
        }
        if let Some((at, stream)) = self.stamp {
            let stamp = Stamp { stream, sequence: self.sequence, time };
            self.sequence = self.sequence.wrapping_add(1);
            frame[at..at + stamp::LEN].copy_from_slice(&stamp.bytes());
        }
        if self.repair.lengths {
            self.layout.write_lengths(frame);
        }
        if self.repair.checksums {
            self.layout.write_checksums(frame);
        }
        self.size = self.sizes.draw() as usize;
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("sizes", &self.sizes())
            .field("fields", &self.fields.len())
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// Replaces the bits of `mask`.
#[inline]
fn write(place: &mut [u8], mask: u128, value: u128) {
    let width = place.len();
    let mut wide = [0; 16];
    wide[16 - width..].copy_from_slice(place);
    let shifted = (value << mask.trailing_zeros()) & mask;
    let new = (u128::from_be_bytes(wide) & !mask) | shifted;
    place.copy_from_slice(&new.to_be_bytes()[16 - width..]);
}

/// Where a packet's payload begins.
fn payload(frame: &[u8], layout: &Layout) -> Option<usize> {
    match (layout.transport, layout.ip) {
        (Some((at, protocol::TCP)), _) => {
            let words = usize::from(frame.get(at + 12)? >> 4);
            Some(at + words.max(5) * 4)
        }
        (Some((at, protocol::UDP | protocol::ICMP | protocol::ICMPV6)), _) => Some(at + 8),
        (Some((at, _)), _) => Some(at),
        (None, Some((at, layout::Version::V4(header)))) => Some(at + header),
        (None, Some((at, layout::Version::V6))) => Some(at + ipv6::HEADER_LEN),
        (None, None) => layout::past_tags(frame).map(|(at, _)| at),
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
