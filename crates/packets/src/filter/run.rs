//! Runs the steps of a filter on a packet.

use millrace_bpf::classic::MEMORY;

use super::decode::{Step, What};

/// What the program returns. It ends, because jumps go forward only; a load beyond the packet and a
/// division by zero end it with 0.
#[inline]
pub(super) fn run(steps: &[Step], packet: &[u8], length: u32) -> u32 {
    let (mut a, mut x) = (0u32, 0u32);
    let mut memory = [0u32; MEMORY];
    let mut at = 0;
    // A program that was checked never leaves its steps.
    while let Some(step) = steps.get(at) {
        let &Step { what, jt, jf, k, place, mask } = step;
        at += 1;
        // Ends the program with 0 unless the value is there.
        macro_rules! get {
            ($value:expr) => {
                match $value {
                    Some(value) => value,
                    None => return 0,
                }
            };
        }
        // A branch, which is predicted, and not a choice between two values, for which the next step
        // would have to wait: that is two to three times as fast.
        macro_rules! test {
            ($holds:expr) => {
                if $holds {
                    core::hint::black_box(());
                    at = usize::from(jt);
                } else {
                    at = usize::from(jf);
                }
            };
        }
        match what {
            What::LoadByte => a = get!(byte(packet, k)),
            What::LoadHalf => a = get!(half(packet, k)),
            What::LoadWord => a = get!(word(packet, k)),
            What::LoadByteIndirect => a = get!(x.checked_add(k).and_then(|k| byte(packet, k))),
            What::LoadHalfIndirect => a = get!(x.checked_add(k).and_then(|k| half(packet, k))),
            What::LoadWordIndirect => a = get!(x.checked_add(k).and_then(|k| word(packet, k))),
            What::LoadImm => a = k,
            What::LoadLen => a = length,
            What::LoadMem => a = memory[k as usize % MEMORY],
            What::LoadXImm => x = k,
            What::LoadXLen => x = length,
            What::LoadXMem => x = memory[k as usize % MEMORY],
            What::LoadXHeader => x = (get!(byte(packet, k)) & 15) << 2,
            What::Store => memory[k as usize % MEMORY] = a,
            What::StoreX => memory[k as usize % MEMORY] = x,
            What::AddK => a = a.wrapping_add(k),
            What::AddX => a = a.wrapping_add(x),
            What::SubK => a = a.wrapping_sub(k),
            What::SubX => a = a.wrapping_sub(x),
            What::MulK => a = a.wrapping_mul(k),
            What::MulX => a = a.wrapping_mul(x),
            What::DivK => a = get!(a.checked_div(k)),
            What::DivX => a = get!(a.checked_div(x)),
            What::ModK => a = get!(a.checked_rem(k)),
            What::ModX => a = get!(a.checked_rem(x)),
            What::AndK => a &= k,
            What::AndX => a &= x,
            What::OrK => a |= k,
            What::OrX => a |= x,
            What::XorK => a ^= k,
            What::XorX => a ^= x,
            What::LshK => a = a.checked_shl(k).unwrap_or(0),
            What::LshX => a = a.checked_shl(x).unwrap_or(0),
            What::RshK => a = a.checked_shr(k).unwrap_or(0),
            What::RshX => a = a.checked_shr(x).unwrap_or(0),
            What::Neg => a = a.wrapping_neg(),
            What::Tax => x = a,
            What::Txa => a = x,
            What::Jump => at = jt.into(),
            What::EqK => test!(a == k),
            What::EqX => test!(a == x),
            What::GtK => test!(a > k),
            What::GtX => test!(a > x),
            What::GeK => test!(a >= k),
            What::GeX => test!(a >= x),
            What::SetK => test!(a & k != 0),
            What::SetX => test!(a & x != 0),
            What::Return => return k,
            What::ReturnA => return a,
            What::LoadByteEq => {
                a = get!(byte(packet, place));
                test!(a == k);
            }
            What::LoadHalfEq => {
                a = get!(half(packet, place));
                test!(a == k);
            }
            What::LoadWordEq => {
                a = get!(word(packet, place));
                test!(a == k);
            }
            What::LoadHalfSet => {
                a = get!(half(packet, place));
                test!(a & k != 0);
            }
            What::LoadByteSet => {
                a = get!(byte(packet, place));
                test!(a & k != 0);
            }
            What::LoadHalfIndirectEq => {
                a = get!(x.checked_add(place).and_then(|place| half(packet, place)));
                test!(a == k);
            }
            What::LoadByteAndEq => {
                a = get!(byte(packet, place)) & mask;
                test!(a == k);
            }
            What::LoadHalfAndEq => {
                a = get!(half(packet, place)) & mask;
                test!(a == k);
            }
            What::LoadWordAndEq => {
                a = get!(word(packet, place)) & mask;
                test!(a == k);
            }
        }
    }
    0
}

#[inline(always)]
fn byte(packet: &[u8], at: u32) -> Option<u32> {
    packet.get(at as usize).map(|&byte| byte.into())
}

#[inline(always)]
fn half(packet: &[u8], at: u32) -> Option<u32> {
    let bytes = packet.get(at as usize..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes).into())
}

#[inline(always)]
fn word(packet: &[u8], at: u32) -> Option<u32> {
    let bytes = packet.get(at as usize..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}
