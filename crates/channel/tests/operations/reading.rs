//! What came in: payloads, pauses, and how much a turn tells.

use std::io::ErrorKind;
use std::time::Duration;

use millrace_channel::Kind;
use millrace_port::memory::WireConfig;

use crate::common::{CLIENT, Pair, SERVER, bytes, config, pattern};
use crate::find;

#[test]
fn a_payload_is_gone_with_its_turn_and_a_held_one_stays() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect();
    pair.client.write(client, b"first").unwrap();
    let mut kept = None;
    pair.until("read", |pair| {
        let done = pair.told_server.iter().find(|done| done.kind == Kind::Read).copied();
        kept = done.map(|done| (done, pair.server.hold(&done, 0).unwrap()));
        kept.is_some()
    });
    let (done, held) = kept.unwrap();
    assert!(pair.server.hold(&done, 0).is_none(), "it is held already");
    // Many frames come and go meanwhile.
    for _ in 0..3000 {
        pair.client.write(client, &pattern(1000)).unwrap();
        pair.round();
    }
    assert_eq!(&*held, b"first");
    assert_eq!(pair.server.payload(&done).len(), 0);
    assert!(pair.server.hold(&done, 0).is_none());
    drop(held);
    pair.close();
}

#[test]
fn a_held_payload_outlives_the_channel() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect();
    pair.client.write(client, b"kept").unwrap();
    let mut held = None;
    pair.until("read", |pair| {
        let done = pair.told_server.iter().find(|done| done.kind == Kind::Read).copied();
        held = done.and_then(|done| pair.server.hold(&done, 0));
        held.is_some()
    });
    assert_eq!(pair.server.close(Duration::ZERO).unwrap(), 1, "one frame is out");
    drop(pair);
    assert_eq!(&*held.unwrap(), b"kept");
}

#[test]
fn one_completion_holds_all_frames_of_a_super_segment() {
    let wire = WireConfig { gso: 65_160, ..WireConfig::default() };
    let mut pair = Pair::with(wire, config(CLIENT), config(SERVER));
    let (client, _) = pair.connect();
    let sent = pattern(300_000);
    let mut written = 0;
    let (mut got, mut most) = (Vec::new(), 0);
    pair.until("all read", |pair| {
        written += pair.client.write(client, &sent[written..]).unwrap();
        for done in &pair.told_server {
            if done.kind == Kind::Read {
                most = most.max(done.frames());
                assert_eq!(
                    pair.server.payload(done).map(<[u8]>::len).sum::<usize>(),
                    done.bytes as usize
                );
                got.extend(bytes(&pair.server, done));
            }
        }
        got.len() >= sent.len()
    });
    assert_eq!(got, sent);
    assert!(most > 10, "super-segments come in {most} frames");
    pair.close();
}

#[test]
fn a_paused_connection_closes_its_window_and_loses_nothing() {
    let small = |address| {
        let mut config = config(address);
        config.stack.receive_buffer = 16_384;
        config.stack.receive_buffer_max = 16_384;
        config.stack.send_buffer = 16_384;
        config.stack.send_buffer_max = 16_384;
        config
    };
    let mut pair = Pair::with(WireConfig::default(), small(CLIENT), small(SERVER));
    let (client, server) = pair.connect();
    pair.server.pause(server).unwrap();
    let sent = pattern(100_000);
    let mut written = 0;
    for _ in 0..2000 {
        written += pair.client.write(client, &sent[written..]).unwrap();
        pair.round();
        assert!(!find(&pair.told_server, Kind::Read, server));
    }
    assert!(written < 40_000, "{written} bytes were taken by somebody");
    assert_eq!(pair.client.info(client).unwrap().send_window, 0);
    pair.server.resume(server).unwrap();
    let mut got = Vec::new();
    pair.until("all read", |pair| {
        written += pair.client.write(client, &sent[written..]).unwrap();
        for done in &pair.told_server {
            got.extend(bytes(&pair.server, done));
        }
        got.len() >= sent.len()
    });
    assert_eq!(got, sent);
    pair.close();
}

#[test]
fn the_end_of_a_paused_connection_is_told_behind_its_data() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.server.pause(server).unwrap();
    pair.client.write(client, b"last words").unwrap();
    pair.client.shutdown_write(client).unwrap();
    for _ in 0..50 {
        pair.round();
        assert!(pair.told_server.is_empty());
    }
    pair.server.resume(server).unwrap();
    pair.round();
    let kinds: Vec<Kind> = pair.told_server.iter().map(|done| done.kind).collect();
    assert_eq!(kinds, [Kind::Read, Kind::Finished]);
    assert_eq!(bytes(&pair.server, &pair.told_server[0]), b"last words");
    pair.close();
}

#[test]
fn a_turn_tells_as_much_of_a_connection_as_its_budget_and_keeps_the_order() {
    let mut careful = config(SERVER);
    careful.read_budget = 10_000;
    let mut pair = Pair::with(WireConfig::default(), config(CLIENT), careful);
    let (client, server) = pair.connect();
    pair.server.pause(server).unwrap();
    let sent = pattern(45_000);
    assert_eq!(pair.client.write(client, &sent).unwrap(), sent.len());
    pair.client.shutdown_write(client).unwrap();
    for _ in 0..200 {
        pair.round();
    }
    // A pause and its end in one turn are no reason to be told twice.
    pair.server.resume(server).unwrap();
    pair.server.pause(server).unwrap();
    pair.server.resume(server).unwrap();
    let (mut got, mut turns, mut ended) = (Vec::new(), 0, false);
    while !ended {
        assert_eq!(pair.server.next_deadline().unwrap(), pair.now, "there is more to be told");
        pair.round();
        let told: usize = pair.told_server.iter().map(|done| done.bytes as usize).sum();
        assert!(told < 10_000 + 2048, "{told} bytes in one turn");
        for done in &pair.told_server {
            assert!(!ended, "{done:?} behind the end");
            got.extend(bytes(&pair.server, done));
            ended = done.kind == Kind::Finished;
        }
        turns += 1;
        if turns == 2 {
            pair.server.pause(server).unwrap();
            pair.round();
            assert!(pair.told_server.is_empty(), "a pause takes effect before all is told");
            pair.server.resume(server).unwrap();
        }
    }
    assert_eq!(got, sent);
    assert_eq!(turns, 5);
    pair.close();
}

#[test]
fn a_reset_does_not_take_what_was_too_much_for_a_turn() {
    let mut careful = config(SERVER);
    careful.read_budget = 10_000;
    let mut pair = Pair::with(WireConfig::default(), config(CLIENT), careful);
    let (client, server) = pair.connect();
    pair.server.pause(server).unwrap();
    let sent = pattern(45_000);
    assert_eq!(pair.client.write(client, &sent).unwrap(), sent.len());
    for _ in 0..200 {
        pair.round();
    }
    pair.server.resume(server).unwrap();
    pair.round();
    let mut got = bytes(&pair.server, &pair.told_server[0]);
    pair.client.abort(client);
    let mut error = None;
    pair.until("closed", |pair| {
        for done in &pair.told_server {
            assert!(error.is_none(), "{done:?} behind the end");
            got.extend(bytes(&pair.server, done));
            error = done.error();
        }
        error.is_some()
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
    assert!(got == sent, "{} bytes", got.len());
    pair.close();
}
