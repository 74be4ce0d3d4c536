//! Buffers that grow with what a connection moves.

use core::time::Duration;

use millrace_frames::Instant;
use millrace_port::memory::{Impairment, WireConfig};
use millrace_stack::{Config, ConnectionId, SocketOption};

use crate::common::net::Net;
use crate::common::peer::{ACK, Peer, pattern};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Moves `bytes` over a wire of 20 ms each way; returns how long that took.
fn bulk(net: &mut Net, client: ConnectionId, server: ConnectionId, bytes: usize) -> Duration {
    let start: Instant = net.now;
    let data = pattern(0, 100_000);
    let (mut written, mut read) = (0, 0);
    let done = net.run(
        Duration::from_secs(120),
        |net| {
            let before = written + read;
            while written < bytes {
                let part = &data[..data.len().min(bytes - written)];
                match net.hosts[0].stack.write(client, part).unwrap() {
                    0 => break,
                    taken => written += taken,
                }
            }
            read += net.hosts[1].read(server).len();
            READ.with(|total| total.set(read));
            written + read > before
        },
        |_| READ.with(|total| total.get()) >= bytes,
    );
    assert!(done, "{} of {bytes} bytes came", READ.with(|total| total.get()));
    net.now - start
}

std::thread_local! {
    static READ: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// A wire of 20 ms each way.
fn wire() -> WireConfig {
    let slow = Impairment { delay: 20 * MILLISECOND, ..Impairment::default() };
    WireConfig { impairment: [slow; 2], queue: 1 << 16, ..WireConfig::default() }
}

fn net(change: impl Fn(&mut Config)) -> Net {
    Net::new(wire(), 16_384, |_, config| {
        config.send_buffer = 100_000;
        config.receive_buffer = 100_000;
        config.send_buffer_max = 4 << 20;
        config.receive_buffer_max = 4 << 20;
        change(config);
    })
}

#[test]
fn both_grow_with_the_bandwidth_delay_product() {
    let mut tuned = net(|_| {});
    let (client, server) = tuned.pair(80);
    let fast = bulk(&mut tuned, client, server, 20 << 20);
    let grown = tuned.hosts[1].stack.tcp_info(server).unwrap().rcv_ssthresh;
    assert!(grown > 1 << 20 && grown <= 4 << 20, "{grown}");
    assert!(tuned.hosts[1].stack.counters().receive_buffers_grown > 0);
    assert_eq!(tuned.hosts[0].stack.counters().segments_retransmitted, 0);

    let mut fixed = net(|config| {
        config.send_buffer_max = 0;
        config.receive_buffer_max = 0;
    });
    let (client, server) = fixed.pair(80);
    let slow = bulk(&mut fixed, client, server, 20 << 20);
    assert!(fast * 4 < slow, "{fast:?} with tuning, {slow:?} without");
}

#[test]
fn a_reader_that_does_not_read_gets_no_more() {
    let mut peer = Peer::with(|config| {
        config.receive_buffer = 60_000;
        config.receive_buffer_max = 1 << 20;
    });
    let id = peer.accepted_with(Some(1000), Some(0));
    for at in 0..60u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
    }
    assert_eq!(peer.stack.tcp_info(id).unwrap().rcv_ssthresh, 60_000);
    // In units of 32 bytes, and rounded up.
    assert!(peer.take().last().unwrap().window < 20);
    peer.read(id);
}

#[test]
fn an_application_that_fixes_the_size_has_it_fixed() {
    let mut net = net(|_| {});
    let (client, server) = net.pair(80);
    net.hosts[1].stack.set_option(server, SocketOption::ReceiveBuffer(50_000)).unwrap();
    net.hosts[0].stack.set_option(client, SocketOption::SendBuffer(30_000)).unwrap();
    assert_eq!(net.hosts[0].stack.write_room(client).unwrap(), 30_000);
    bulk(&mut net, client, server, 1 << 20);
    assert_eq!(net.hosts[1].stack.tcp_info(server).unwrap().rcv_ssthresh, 50_000);
    assert_eq!(net.hosts[1].stack.counters().receive_buffers_grown, 0);
}

#[test]
fn a_clamp_holds_the_window_down() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::WindowClamp(5000)).unwrap();
    // What was promised before is not taken back.
    for at in 0..70u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
        peer.read(id);
    }
    peer.advance_ms(100);
    assert!(peer.take().last().unwrap().window <= 5000);
}

#[test]
fn buffers_do_not_grow_while_frames_are_short() {
    let mut net = Net::new(wire(), 512, |_, config| {
        config.send_buffer = 100_000;
        config.receive_buffer = 100_000;
        config.send_buffer_max = 4 << 20;
        config.receive_buffer_max = 4 << 20;
    });
    let (client, server) = net.pair(80);
    bulk(&mut net, client, server, 4 << 20);
    let arena = net.hosts[1].stack.arena();
    assert!(arena.free() <= arena.frames());
    assert!(net.hosts[1].stack.tcp_info(server).unwrap().rcv_ssthresh < 1 << 20);
}
