//! What is written, and what waits for room, frames or a window.

use std::io::ErrorKind;
use std::time::Duration;

use millrace_channel::{Config, Handle, Kind};
use millrace_port::memory::WireConfig;

use crate::common::{CLIENT, Pair, SERVER, bytes, config, pattern};
use crate::find;

#[test]
fn what_does_not_fit_waits_and_is_sent_in_order() {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 8192;
    small.stack.send_buffer_max = 8192;
    let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
    let (client, _) = pair.connect();
    let sent = pattern(200_000);
    let waits = pair.client.write_owned(client, Box::new(sent.clone()), 0).unwrap();
    assert!(waits > 150_000);
    assert_eq!(pair.client.waiting(client).unwrap(), waits);
    // What comes behind it may not overtake it.
    assert_eq!(pair.client.write(client, b"x").unwrap(), 0);
    assert!(pair.client.write_owned(client, Box::new(*b"behind"), 2).unwrap() > waits);
    let (mut got, mut written) = (Vec::new(), false);
    pair.until("all read", |pair| {
        for done in &pair.told_server {
            got.extend(bytes(&pair.server, done));
        }
        written |= find(&pair.told_client, Kind::Written, client);
        got.len() >= sent.len() + 4
    });
    assert!(written);
    assert_eq!(&got[..sent.len()], sent);
    assert_eq!(&got[sent.len()..], b"hind");
    pair.close();
}

#[test]
fn a_full_write_queue_takes_nothing() {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 4096;
    small.stack.send_buffer_max = 4096;
    small.write_queue = 10_000;
    let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
    let (client, _) = pair.connect();
    pair.client.write_owned(client, Box::new(pattern(20_000)), 0).unwrap();
    let waiting = pair.client.waiting(client).unwrap();
    let error = pair.client.write_owned(client, Box::new(*b"no"), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("10000"), "{error}");
    assert_eq!(pair.client.waiting(client).unwrap(), waiting);
    pair.close();
}

#[test]
fn what_waits_is_sent_after_a_close_and_before_the_fin() {
    for close in [false, true] {
        let mut small = config(CLIENT);
        small.stack.send_buffer = 4096;
        small.stack.send_buffer_max = 4096;
        let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
        let (client, _) = pair.connect();
        let sent = pattern(50_000);
        pair.client.write_owned(client, Box::new(sent.clone()), 0).unwrap();
        if close {
            pair.client.close_handle(client);
            assert_eq!(
                pair.client.write(client, b"x").unwrap_err().kind(),
                ErrorKind::NotConnected
            );
        } else {
            pair.client.shutdown_write(client).unwrap();
            assert_eq!(pair.client.write(client, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        let (mut got, mut finished) = (Vec::new(), false);
        pair.until("finished", |pair| {
            for done in &pair.told_server {
                got.extend(bytes(&pair.server, done));
                finished |= done.kind == Kind::Finished;
            }
            finished
        });
        assert_eq!(got, sent);
        pair.close();
    }
}

/// A client whose connection waits for a window that stays closed, with more than it may send.
fn held_up(change: impl FnOnce(&mut Config)) -> (Pair, Handle) {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 4096;
    small.stack.send_buffer_max = 4096;
    change(&mut small);
    let mut server = config(SERVER);
    server.stack.receive_buffer = 16_384;
    server.stack.receive_buffer_max = 16_384;
    let mut pair = Pair::with(WireConfig::default(), small, server);
    let (client, server) = pair.connect();
    pair.server.pause(server).unwrap();
    pair.client.write_owned(client, Box::new(pattern(200_000)), 0).unwrap();
    for _ in 0..500 {
        pair.round();
    }
    assert_eq!(pair.client.info(client).unwrap().send_window, 0);
    (pair, client)
}

/// Milliseconds until the client has no connection any more.
fn until_nothing_is_left(pair: &mut Pair) -> u32 {
    let mut rounds = 0;
    pair.until("nothing is left", |pair| {
        rounds += 1;
        pair.client.connections() == 0
    });
    rounds
}

#[test]
fn lingering_counts_for_what_waits_too() {
    for seconds in [0, 2] {
        let (mut pair, client) = held_up(|_| {});
        pair.client.set_linger(client, Some(Duration::from_secs(seconds))).unwrap();
        pair.client.close_handle(client);
        let took = until_nothing_is_left(&mut pair);
        assert!(took.abs_diff(seconds as u32 * 1000) < 50, "{took} ms");
        pair.round();
        assert_eq!(pair.server.stack().counters().connections_reset, 1);
        pair.close();
    }
}

#[test]
fn what_waits_for_a_window_that_stays_closed_is_given_up_as_all_that_is_closed() {
    let (mut pair, client) = held_up(|config| {
        config.stack.orphan_retries = 3;
        config.stack.max_rto = Duration::from_secs(1);
    });
    // As long as somebody owns it, it may wait.
    for _ in 0..20_000 {
        pair.round();
    }
    assert_eq!(pair.client.connections(), 1);
    pair.client.close_handle(client);
    assert_eq!(pair.client.stack().orphans(), 1);
    assert!(until_nothing_is_left(&mut pair) < 3000);
    pair.close();
}

#[test]
fn what_waits_for_a_connection_that_has_ended_goes_with_it() {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 4096;
    small.stack.send_buffer_max = 4096;
    let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
    let (client, server) = pair.connect();
    pair.client.write_owned(client, Box::new(pattern(200_000)), 0).unwrap();
    pair.server.abort(server);
    pair.until("closed", |pair| find(&pair.told_client, Kind::Closed, client));
    assert!(pair.client.waiting(client).unwrap() > 0);
    // Many close whatever they are told of.
    pair.client.close_handle(client);
    pair.round();
    assert_eq!(pair.client.connections(), 0);
    pair.close();
}

#[test]
fn a_write_that_found_no_frame_goes_on_when_there_are_some() {
    let mut few = config(CLIENT);
    few.frames = 64;
    few.stack.frame_reserve = 16;
    few.stack.send_buffer = 1 << 20;
    let mut pair = Pair::with(WireConfig::default(), few, config(SERVER));
    let (first, _) = pair.connect();
    let (second, _) = pair.connect();
    let sent = pattern(400_000);
    pair.client.write_owned(first, Box::new(sent.clone()), 0).unwrap();
    pair.client.write_owned(second, Box::new(sent.clone()), 0).unwrap();
    assert!(pair.client.counters().writes_starved > 0);
    let mut got = std::collections::HashMap::<Handle, Vec<u8>>::new();
    let mut written = 0;
    pair.until("both read", |pair| {
        for done in &pair.told_server {
            got.entry(done.handle).or_default().extend(bytes(&pair.server, done));
        }
        written += pair.told_client.iter().filter(|done| done.kind == Kind::Written).count();
        got.len() == 2 && got.values().all(|got| got.len() == sent.len())
    });
    assert!(got.values().all(|got| *got == sent));
    assert_eq!(written, 2);
    pair.close();
}

#[test]
fn a_short_write_is_told_when_there_is_room() {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 4096;
    small.stack.send_buffer_max = 4096;
    let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
    let (client, _) = pair.connect();
    assert_eq!(pair.client.write(client, &pattern(10_000)).unwrap(), 4096);
    assert_eq!(pair.client.write_room(client).unwrap(), 0);
    pair.until("writable", |pair| find(&pair.told_client, Kind::Writable, client));
    assert!(pair.client.write_room(client).unwrap() > 0);
    pair.close();
}
