//! Peers that fill queues: connections which are established as they should be, and then send what
//! can only be kept, because what comes before it never comes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;

use millrace_frames::{Duration, Owners, RxBatch};
use millrace_port::{Port, clock};
use millrace_wire::tcp::Flags;

use super::craft::{Craft, Dice, Gun, Wire, answer, answers, syn_options};
use super::{Figures, Strength};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Single bytes, with a gap before each.
    Tiny,
    /// Full segments, all but the first.
    OutOfOrder,
}

const SEGMENT: usize = 1460;
const RETRY_SYN: Duration = Duration::from_secs(1);

struct Hoarder {
    from: SocketAddrV4,
    sequence: u32,
    asked: Option<Duration>,
    /// What the server expects an acknowledgement of; none before its SYN.
    peer: Option<u32>,
    /// What the server has room for, and the scale of what it announces.
    window: u32,
    scale: u8,
    offset: u32,
}

pub(super) fn run(
    interface: &str,
    wire: Wire,
    kind: Kind,
    strength: &Strength,
    mut dice: Dice,
) -> io::Result<Figures> {
    let filter = answers(&wire, wire.sources);
    let mut gun = Gun::new(interface, wire, strength.packets_per_s, filter)?;
    let mut hoarders: Vec<Hoarder> = (0..strength.connections as u32)
        .map(|number| Hoarder {
            from: SocketAddrV4::new(wire.source(number / 1000 + 1), 2000 + (number % 1000) as u16),
            sequence: dice.roll() as u32,
            asked: None,
            peer: None,
            window: 0,
            scale: 0,
            offset: 0,
        })
        .collect();
    let by_address: HashMap<SocketAddrV4, usize> =
        hoarders.iter().enumerate().map(|(at, hoarder)| (hoarder.from, at)).collect();
    let options = syn_options();
    let payload = [0x5a; SEGMENT];
    let (mut resets, mut turn) = (0, 0);
    while gun.elapsed() < strength.time {
        resets += listen(&mut gun, &mut hoarders, &by_address)?;
        let now = gun.elapsed();
        for _ in 0..gun.allowance() {
            turn = (turn + 1) % hoarders.len();
            let hoarder = &mut hoarders[turn];
            let mut craft = Craft {
                from: hoarder.from,
                flags: Flags::SYN,
                sequence: hoarder.sequence,
                acknowledgement: 0,
                options: options.padded(),
                payload: &[],
            };
            match hoarder.peer {
                None if hoarder.asked.is_none_or(|asked| now - asked > RETRY_SYN) => {
                    hoarder.asked = Some(now);
                }
                None => continue,
                Some(acknowledgement) => {
                    let (step, len) = match kind {
                        Kind::Tiny => (2, 1),
                        Kind::OutOfOrder => (SEGMENT as u32, SEGMENT),
                    };
                    // The first goes without payload and completes the handshake.
                    craft.flags = Flags::ACK;
                    craft.options = &[];
                    craft.acknowledgement = acknowledgement;
                    craft.sequence = hoarder.sequence.wrapping_add(1);
                    if hoarder.offset > 0 {
                        craft.sequence = craft.sequence.wrapping_add(hoarder.offset);
                        craft.payload = &payload[..len];
                    }
                    hoarder.offset += step;
                    if hoarder.offset + SEGMENT as u32 > hoarder.window {
                        hoarder.offset = step;
                    }
                }
            }
            gun.load(&craft);
        }
        gun.fire()?;
    }
    let established = hoarders.iter().filter(|hoarder| hoarder.peer.is_some()).count();
    Ok(vec![
        ("sent", gun.packets_sent()),
        ("micros", gun.elapsed().as_micros() as u64),
        ("established", established as u64),
        ("resets", resets),
    ])
}

/// Takes the server's answers. Returns how many connections it ended.
fn listen(
    gun: &mut Gun,
    hoarders: &mut [Hoarder],
    by_address: &HashMap<SocketAddrV4, usize>,
) -> io::Result<u64> {
    let mut batch = RxBatch::new();
    let mut resets = 0;
    gun.port.rx(clock::now(), &mut gun.arena, &mut batch)?;
    for &head in batch.iter() {
        if let Some((to, segment)) = answer(gun.arena.bytes(head))
            && let Some(&at) = by_address.get(&to)
        {
            let hoarder = &mut hoarders[at];
            if segment.flags().contains(Flags::RST) {
                // It comes back, as another connection.
                resets += u64::from(hoarder.peer.is_some());
                hoarder.sequence = hoarder.sequence.wrapping_add(0x1234_5678);
                (hoarder.peer, hoarder.asked, hoarder.offset) = (None, None, 0);
            } else if segment.flags().contains(Flags::SYN) && hoarder.peer.is_none() {
                hoarder.peer = Some(segment.sequence().0.wrapping_add(1));
                hoarder.offset = 0;
                hoarder.window = segment.window().into();
                let scale = segment.options().ok().and_then(|options| options.window_scale);
                hoarder.scale = scale.unwrap_or(0).min(14);
            } else {
                hoarder.window = u32::from(segment.window()) << hoarder.scale;
            }
        }
        gun.arena.release_chain(head, Owners::RECEIVED);
    }
    Ok(resets)
}
