//! Connections and datagram sockets: opened, accepted, told apart.

use std::io::ErrorKind;

use millrace_channel::{
    Channel, Config, Handle, Kind, ListenOptions, OptionName, SocketOption, State,
};
use millrace_frames::BURST;
use millrace_port::memory::WireConfig;
use millrace_stack::SynCookies;

use crate::common::{CLIENT, Pair, SERVER, bytes, config, pattern};

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
