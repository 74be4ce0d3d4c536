//! Ends of connections, from either side, and of channels.

use std::io::ErrorKind;
use std::time::Duration;

use millrace_channel::{Channel, Kind, Route, State, Wait};
use millrace_port::memory::WireConfig;

use crate::common::{CLIENT, Pair, SERVER, config, pattern};
use crate::find;

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
