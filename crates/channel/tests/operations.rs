//! Operations and completions in virtual time, in one thread.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{CLIENT, Pair, SERVER, bytes, config, pattern};
use millrace_channel::{
    Channel, Config, Handle, Kind, ListenOptions, OptionName, Route, SocketOption, State, Wait,
};
use millrace_frames::BURST;
use millrace_port::memory::WireConfig;
use millrace_stack::SynCookies;

fn find(told: &[millrace_channel::Completion], kind: Kind, handle: Handle) -> bool {
    told.iter().any(|done| done.kind == kind && done.handle == handle)
}

#[test]
fn an_accepted_connection_knows_its_listener() {
    let mut pair = Pair::new();
    let listener = pair.server.listen(Channel::any(80), 8).unwrap();
    pair.client.connect(format!("{SERVER}:80").parse().unwrap(), None).unwrap();
    let mut accepted = None;
    pair.until("accepted", |pair| {
        accepted = pair.told_server.iter().find(|done| done.kind == Kind::Accepted).copied();
        accepted.is_some()
    });
    assert_eq!(accepted.unwrap().listener, Some(listener));
    assert_eq!(pair.server.local_address(listener).unwrap().port(), 80);
    pair.close();
}

#[test]
fn a_listener_tells_what_its_connections_get_and_decides_it() {
    let mut pair = Pair::new();
    let listener = pair.server.listen(Channel::any(80), 8).unwrap();
    for on in [true, false] {
        if !on {
            pair.server.set_option(listener, SocketOption::NoDelay(on)).unwrap();
        }
        let (_, accepted) = pair.connect();
        for handle in [listener, accepted] {
            let set = pair.server.option(handle, OptionName::NoDelay).unwrap();
            assert_eq!(set, SocketOption::NoDelay(on), "{}", handle.what());
        }
    }
    pair.close();
}

#[test]
fn fast_open_saves_a_round_trip_once_there_is_a_cookie() {
    let mut pair = Pair::new();
    let options = ListenOptions { fast_open: 8, ..ListenOptions::new(8) };
    pair.server.listen_with(Channel::any(80), options).unwrap();
    let remote = format!("{SERVER}:80").parse().unwrap();
    for round in 0..2 {
        let question = pattern(300);
        let (client, written) =
            pair.client.connect_with_data(remote, None, &question[..200]).unwrap();
        // What is written in the same turn goes along.
        assert_eq!((written, pair.client.write(client, &question[200..]).unwrap()), (200, 100));
        let mut got = Vec::new();
        let mut early = false;
        pair.until("asked", |pair| {
            for done in &pair.told_server {
                match done.kind {
                    Kind::Accepted => {
                        let info = pair.server.info(done.handle).unwrap();
                        early = info.state == State::SynReceived;
                    }
                    Kind::Read => got.extend(bytes(&pair.server, done)),
                    _ => {}
                }
            }
            got.len() == 300
        });
        assert_eq!((got, early), (question, round == 1));
        pair.client.close_handle(client);
    }
    assert_eq!(pair.server.stack().counters().fast_open_passive, 1);
    pair.close();
}

#[test]
fn echo() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect();
    assert_eq!(pair.client.write(client, b"mill").unwrap(), 4);
    let mut answer = Vec::new();
    pair.until("answered", |pair| {
        for done in &pair.told_server {
            if done.kind == Kind::Read {
                let held = pair.server.hold(done, 0).unwrap();
                assert_eq!(pair.server.write(done.handle, &held).unwrap(), held.len());
            }
        }
        for done in &pair.told_client {
            answer.extend(bytes(&pair.client, done));
        }
        answer.len() == 4
    });
    assert_eq!(answer, b"mill");
    pair.close();
}

#[test]
fn a_thousand_connections_are_told_apart() {
    let mut pair = Pair::new();
    pair.server.listen(Channel::any(80), 1024).unwrap();
    let remote = format!("{SERVER}:80").parse().unwrap();
    let handles: Vec<Handle> =
        (0..1000).map(|_| pair.client.connect(remote, None).unwrap()).collect();
    for (number, &handle) in handles.iter().enumerate() {
        pair.client.write(handle, &(number as u32).to_be_bytes()).unwrap();
    }
    let mut answered = vec![0; 1000];
    let mut buffers = std::collections::HashMap::<Handle, Vec<u8>>::new();
    pair.until("all answered", |pair| {
        for done in &pair.told_server {
            if done.kind == Kind::Read {
                let question = bytes(&pair.server, done);
                pair.server.write(done.handle, &question).unwrap();
            }
        }
        for done in &pair.told_client {
            if done.kind == Kind::Read {
                let buffer = buffers.entry(done.handle).or_default();
                buffer.extend(bytes(&pair.client, done));
                if let Ok(number) = buffer[..].try_into().map(u32::from_be_bytes) {
                    assert_eq!(handles[number as usize], done.handle);
                    answered[number as usize] += 1;
                }
            }
        }
        answered.iter().sum::<i32>() == 1000
    });
    assert!(answered.iter().all(|&times| times == 1));
    pair.close();
}

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
fn nothing_more_is_told_of_what_was_closed_before_it_was_connected() {
    let mut small = config(CLIENT);
    small.stack.send_buffer = 4096;
    small.stack.send_buffer_max = 4096;
    let mut pair = Pair::with(WireConfig::default(), small, config(SERVER));
    pair.server.listen(Channel::any(80), 8).unwrap();
    let client = pair.client.connect(format!("{SERVER}:80").parse().unwrap(), None).unwrap();
    pair.client.write_owned(client, Box::new(pattern(50_000)), 0).unwrap();
    pair.client.close_handle(client);
    let mut got = 0;
    pair.until("all read", |pair| {
        assert!(pair.told_client.is_empty(), "{:?}", pair.told_client);
        got += pair.told_server.iter().map(|done| done.bytes).sum::<u32>();
        got == 50_000
    });
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

#[test]
fn ends_are_told_once_and_handles_become_stale() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.client.shutdown_write(client).unwrap();
    pair.until("finished", |pair| find(&pair.told_server, Kind::Finished, server));
    assert_eq!(pair.server.info(server).unwrap().state, State::CloseWait);
    pair.server.close_handle(server);
    pair.until("closed", |pair| find(&pair.told_client, Kind::Closed, client));
    let done = pair.told_client.iter().find(|done| done.kind == Kind::Closed).copied().unwrap();
    assert!(done.error().is_none());
    assert!(pair.client.info(client).is_ok(), "to be looked at for one turn");
    pair.round();
    assert_eq!(pair.client.info(client).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(pair.client.write(client, b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    pair.client.close_handle(client);
    pair.close();
}

#[test]
fn an_abort_is_told_to_the_peer_alone() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.client.abort(client);
    let mut error = None;
    pair.until("closed", |pair| {
        assert!(pair.told_client.is_empty());
        error = pair
            .told_server
            .iter()
            .find(|done| done.kind == Kind::Closed && done.handle == server)
            .and_then(|done| done.error());
        error.is_some()
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionReset);
    pair.close();
}

#[test]
fn what_is_written_to_a_connection_that_has_ended_is_lost() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect();
    pair.client.write(client, b"question").unwrap();
    pair.round();
    pair.client.abort(client);
    pair.round();
    // The question and the reset came in one turn.
    assert!(find(&pair.told_server, Kind::Closed, server));
    assert_eq!(pair.server.write(server, b"answer").unwrap(), 6);
    assert_eq!(pair.server.write_owned(server, Box::new(*b"more"), 0).unwrap(), 0);
    pair.round();
    let error = pair.server.write(server, b"later").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    pair.close();
}

#[test]
fn nobody_there_is_an_error_with_a_name() {
    let mut pair = Pair::new();
    let refused = pair.client.connect(format!("{SERVER}:81").parse().unwrap(), None).unwrap();
    let silent = pair.client.connect("192.0.2.77:80".parse().unwrap(), None).unwrap();
    let mut ends = std::collections::HashMap::new();
    pair.until("both failed", |pair| {
        for done in &pair.told_client {
            assert_eq!(done.kind, Kind::Closed);
            ends.insert(done.handle, done.error().unwrap().kind());
        }
        ends.len() == 2
    });
    assert_eq!(ends[&refused], ErrorKind::ConnectionRefused);
    assert_eq!(ends[&silent], ErrorKind::HostUnreachable);
    let error = pair.client.connect("198.51.100.1:80".parse().unwrap(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
    pair.close();
}

#[test]
fn a_peer_that_vanishes_is_a_timeout() {
    let mut hasty = config(CLIENT);
    hasty.stack.retries = 3;
    let mut pair = Pair::with(WireConfig::default(), hasty, config(SERVER));
    let (client, _) = pair.connect();
    pair.client.write(client, b"anybody?").unwrap();
    // From here on only the client has turns.
    let mut error = None;
    for _ in 0..20_000 {
        pair.now += Duration::from_millis(1);
        pair.client.poll(&mut pair.told_client, pair.now).unwrap();
        if let Some(done) = pair.told_client.first() {
            assert_eq!((done.kind, done.handle), (Kind::Closed, client));
            error = done.error();
            break;
        }
    }
    assert_eq!(error.unwrap().kind(), ErrorKind::TimedOut);
    pair.close();
}

#[test]
fn datagrams_come_with_their_sender() {
    let mut pair = Pair::new();
    let server = pair.server.bind_datagram(format!("{SERVER}:53").parse().unwrap()).unwrap();
    let client = pair.client.bind_datagram(Channel::any(0)).unwrap();
    let port = pair.client.local_address(client).unwrap().port();
    let remote = format!("{SERVER}:53").parse().unwrap();
    for text in [&b"one"[..], b"two", b""] {
        pair.client.send_datagram(client, text, Some(remote)).unwrap();
    }
    let mut got = Vec::new();
    pair.until("three datagrams", |pair| {
        for done in &pair.told_server {
            assert_eq!((done.kind, done.handle), (Kind::Datagram, server));
            let source = pair.server.source(done).unwrap();
            assert_eq!(source, format!("{CLIENT}:{port}").parse().unwrap());
            got.push(bytes(&pair.server, done));
        }
        got.len() == 3
    });
    assert_eq!(got, [&b"one"[..], b"two", b""]);
    let long = pattern(60_000);
    pair.client.send_datagram(client, &long, Some(remote)).unwrap();
    pair.until("a datagram in fragments", |pair| {
        let Some(done) = pair.told_server.first() else { return false };
        assert!(done.frames() > 1 && done.bytes == 60_000);
        assert!(pair.server.source(done).is_some() && bytes(&pair.server, done) == long);
        true
    });
    pair.client.set_dont_fragment(client, true).unwrap();
    let error = pair.client.send_datagram(client, &long, Some(remote)).unwrap_err();
    assert!(error.to_string().contains("1472"), "{error}");
    let error = pair.client.send_datagram(client, b"", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    pair.client.connect_datagram(client, remote).unwrap();
    pair.client.send_datagram(client, b"four", None).unwrap();
    assert_eq!(pair.client.write(client, b"").unwrap_err().kind(), ErrorKind::InvalidInput);
    pair.close();
}

/// Bursts with a pause between them are no flood, though each fills a batch: the stack is told when
/// nothing waits.
#[test]
fn bursts_of_connections_are_all_answered() {
    let mut server = config(SERVER);
    server.stack.syn_cookies = SynCookies::Always;
    let mut pair = Pair::with(WireConfig::default(), config(CLIENT), server);
    pair.server.listen(Channel::any(80), 64).unwrap();
    // Both learn the other's hardware address, and nothing is proven by that.
    let socket = pair.client.bind_datagram(Channel::any(0)).unwrap();
    let remote = format!("{SERVER}:80").parse().unwrap();
    pair.client.send_datagram(socket, b"", Some(remote)).unwrap();
    (0..4).for_each(|_| pair.round());
    for burst in 1..=4 {
        let before = pair.server.stack().counters().packets_in;
        let handles: Vec<_> =
            (0..BURST).map(|_| pair.client.connect(remote, None).unwrap()).collect();
        pair.round();
        let counters = pair.server.stack().counters();
        assert_eq!(counters.packets_in - before, BURST as u64);
        assert_eq!(counters.syn_cookies_sent, burst * BURST as u64);
        handles.into_iter().for_each(|handle| pair.client.abort(handle));
        (0..100).for_each(|_| pair.round());
    }
    pair.close();
}

#[test]
fn a_channel_that_is_closed_in_the_middle_leaves_no_frame_behind() {
    let mut pair = Pair::new();
    let connections: Vec<_> = (0..200).map(|_| pair.connect()).collect();
    for &(client, server) in &connections {
        pair.client.write_owned(client, Box::new(pattern(100_000)), 0).unwrap();
        pair.server.write(server, &pattern(5000)).unwrap();
    }
    for _ in 0..3 {
        pair.round();
    }
    assert!(pair.client.free_frames() < pair.client.total_frames());
    pair.close();
}

#[test]
fn a_closed_channel_says_so() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect();
    assert_eq!(pair.client.close(Duration::ZERO).unwrap(), 0);
    assert_eq!(pair.client.close(Duration::ZERO).unwrap(), 0);
    let remote = format!("{SERVER}:80").parse().unwrap();
    assert_eq!(pair.client.connect(remote, None).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(pair.client.listen(Channel::any(1), 1).unwrap_err().kind(), ErrorKind::NotConnected);
    let route = Route::default_by("192.0.2.254".parse().unwrap());
    for done in [
        pair.client.add_address("198.51.100.7/24".parse().unwrap()),
        pair.client.remove_address(CLIENT.parse().unwrap()),
        pair.client.add_route(route),
        pair.client.remove_route(route),
        pair.client.set_wait(Wait::Spin),
    ] {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    }
    assert!(pair.client.write(client, b"x").is_err());
    assert!(pair.client.turn(&mut pair.told_client, None).is_err());
    // The peer was told by a reset.
    let mut reset = false;
    for _ in 0..10 {
        pair.now += Duration::from_millis(1);
        pair.server.poll(&mut pair.told_server, pair.now).unwrap();
        reset |= pair.told_server.iter().any(|done| done.kind == Kind::Closed);
    }
    assert!(reset);
    pair.close();
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let base = config(CLIENT);
    for (config, word) in [
        (Config { addresses: Vec::new(), ..base.clone() }, "address"),
        (Config { gateways: vec!["198.51.100.1".parse().unwrap()], ..base.clone() }, "gateway"),
        (Config { gateways: vec![CLIENT.parse().unwrap()], ..base.clone() }, "gateway"),
        (Config { frames: 0, ..base.clone() }, "frames"),
        (Config { frame_size: Some(3000), ..base.clone() }, "power of two"),
    ] {
        let error = Channel::open("memory:refused", config).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(word), "{error}");
    }
}
