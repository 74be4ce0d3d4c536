//! Two channels in two threads, in real time: waiting and waking.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{CLIENT, SERVER, bytes, channel, config, pattern, ping, serve};
use millrace_channel::{Channel, Completions, Kind, Wait, Wake};
use millrace_port::memory::{WireConfig, wire};

const WAITS: [Wait; 3] = [Wait::Spin, Wait::Sleep, Wait::SpinThenSleep(Duration::from_micros(50))];

#[test]
fn every_way_of_waiting_echoes() {
    for wait in WAITS {
        let (a, b) = wire(WireConfig::default());
        let mut ends = [(a, CLIENT), (b, SERVER)].map(|(port, address)| {
            let mut config = config(address);
            config.wait = wait;
            config.write_queue = 1 << 24;
            Some(channel(port, &config))
        });
        let server = ends[1].take().unwrap();
        let thread = thread::spawn(move || serve(server));
        let mut client = ends[0].take().unwrap();
        let handle = client.connect(format!("{SERVER}:7").parse().unwrap(), None).unwrap();
        let sent = pattern(if wait == Wait::Spin { 50_000 } else { 500_000 });
        client.write_owned(handle, Box::new(sent.clone()), 0).unwrap();
        let mut got = Vec::new();
        let mut batch = Completions::new();
        while got.len() < sent.len() {
            assert_eq!(client.turn(&mut batch, None).unwrap(), Wake::Work);
            for done in &batch {
                assert_ne!(done.kind, Kind::Closed, "{:?}", done.error());
                got.extend(bytes(&client, done));
            }
        }
        assert_eq!(got, sent);
        client.close_handle(handle);
        assert_eq!(client.close(Duration::from_secs(5)).unwrap(), 0);
        let mut server = thread.join().unwrap();
        assert_eq!(server.close(Duration::ZERO).unwrap(), 0);
    }
}

/// Each side sleeps until the other has spoken, so one wake-up that is missed is a hang.
#[test]
fn no_wake_up_is_missed() {
    const ROUNDS: usize = 20_000;
    for wait in [Wait::Sleep, Wait::SpinThenSleep(Duration::from_micros(3))] {
        let (a, b) = wire(WireConfig::default());
        let [mut client, server] = [(a, CLIENT), (b, SERVER)].map(|(port, address)| {
            let mut config = config(address);
            config.wait = wait;
            channel(port, &config)
        });
        let thread = thread::spawn(move || serve(server));
        let handle = client.connect(format!("{SERVER}:7").parse().unwrap(), None).unwrap();
        ping(&mut client, handle, ROUNDS);
        client.close_handle(handle);
        client.close(Duration::from_secs(5)).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn a_bell_ends_every_wait() {
    for wait in WAITS {
        let (port, _other) = wire(WireConfig::default());
        let mut config = config(CLIENT);
        config.wait = wait;
        let mut channel = channel(port, &config);
        let bell = channel.bell();
        let (ready, waits) = mpsc::channel();
        let ringer = thread::spawn(move || {
            for () in waits {
                bell.ring();
            }
        });
        let mut batch = Completions::new();
        for _ in 0..200 {
            ready.send(()).unwrap();
            assert_eq!(channel.turn(&mut batch, None).unwrap(), Wake::Bell);
        }
        drop(ready);
        ringer.join().unwrap();
    }
}

#[test]
fn a_wait_ends_in_time_and_when_the_other_end_leaves() {
    for wait in WAITS {
        let (port, other) = wire(WireConfig::default());
        let mut config = config(CLIENT);
        config.wait = wait;
        let mut channel = channel(port, &config);
        let mut batch = Completions::new();
        let turn = channel.turn(&mut batch, Some(Duration::from_millis(2)));
        assert_eq!(turn.unwrap(), Wake::Timeout);
        assert_eq!(channel.turn(&mut batch, Some(Duration::ZERO)).unwrap(), Wake::Timeout);
        let thread = thread::spawn(move || drop(other));
        assert_eq!(channel.turn(&mut batch, None).unwrap(), Wake::Exhausted);
        thread.join().unwrap();
    }
}

/// Payloads are let go of in other threads, which tell the channel nothing.
#[test]
fn frames_that_others_give_back_are_used_in_the_same_turn() {
    let (a, b) = wire(WireConfig::default());
    let mut few = config(SERVER);
    few.frames = 64;
    few.stack.frame_reserve = 16;
    let mut server = channel(b, &few);
    let mut client = channel(a, &config(CLIENT));
    server.listen(Channel::any(9), 8).unwrap();
    let sender = thread::spawn(move || {
        let handle = client.connect(format!("{SERVER}:9").parse().unwrap(), None).unwrap();
        client.write_owned(handle, Box::new(pattern(1 << 20)), 0).unwrap();
        let mut batch = Completions::new();
        while batch.iter().all(|done| done.kind != Kind::Closed) {
            client.turn(&mut batch, None).unwrap();
        }
    });
    let (mut held, mut batch) = (Vec::new(), Completions::new());
    while server.turn(&mut batch, Some(Duration::from_millis(300))).unwrap() == Wake::Work {
        for done in &batch {
            held.extend((0..done.frames()).filter_map(|frame| server.hold(done, frame)));
        }
    }
    assert!(server.free_frames() <= 16, "{} frames are left", server.free_frames());
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    let turn = server.turn(&mut batch, Some(Duration::from_secs(20)));
    assert_eq!(turn.unwrap(), Wake::Work, "{} frames are free", server.free_frames());
    reader.join().unwrap();
    server.close(Duration::ZERO).unwrap();
    sender.join().unwrap();
}

#[test]
fn closing_delivers_what_was_written_while_there_is_time() {
    let (a, b) = wire(WireConfig::default());
    let mut client = channel(a, &config(CLIENT));
    let mut server = channel(b, &config(SERVER));
    let sent = pattern(3_000_000);
    let wanted = sent.clone();
    let thread = thread::spawn(move || {
        server.listen(Channel::any(9), 8).unwrap();
        let (mut got, mut batch) = (Vec::new(), Completions::new());
        loop {
            server.turn(&mut batch, None).unwrap();
            for done in &batch {
                got.extend(bytes(&server, done));
                match done.kind {
                    Kind::Finished => {
                        server.close_handle(done.handle);
                        assert_eq!(server.close(Duration::from_secs(10)).unwrap(), 0);
                        return got;
                    }
                    Kind::Closed => panic!("{:?} after {} bytes", done.error(), got.len()),
                    _ => {}
                }
            }
        }
    });
    let handle = client.connect(format!("{SERVER}:9").parse().unwrap(), None).unwrap();
    let mut batch = Completions::new();
    client.turn(&mut batch, None).unwrap();
    assert_eq!(batch[0].kind, Kind::Connected);
    client.write_owned(handle, Box::new(sent), 0).unwrap();
    assert_eq!(client.close(Duration::from_secs(30)).unwrap(), 0);
    assert!(thread.join().unwrap() == wanted);
}
