//! `tap` against the kernel on its own side of the interface.

mod kernel;
mod netns;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use millrace_frames::TxBatch;
use millrace_port::interface::Interface;
use millrace_port::tap::{Tap, TapConfig};
use millrace_port::{Port, clock};
use millrace_wire::mac::Mac;

use kernel::Side;
use netns::{Namespace, OURS, PEER_ADDRESS, reply};

const HANG: Duration = Duration::from_secs(20);

fn host(test: &str) -> Option<Namespace> {
    match netns::tap_host() {
        Ok(host) => Some(host),
        Err(error) => {
            println!("SKIP {test}: {error}");
            None
        }
    }
}

fn config() -> TapConfig {
    TapConfig { kernel_address: Some((IpAddr::V4(PEER_ADDRESS), 24)), ..TapConfig::new(OURS) }
}

fn open(host: &Namespace, config: &TapConfig) -> Side<Tap> {
    let port = host.enter(|| Tap::open(config)).unwrap();
    host.introduce(OURS, port.capabilities().mac.unwrap());
    Side::new(port)
}

#[test]
fn udp_passes_both_ways() {
    let Some(host) = host("udp_passes_both_ways") else { return };
    let mut side = open(&host, &config());
    kernel::udp_passes_both_ways(&mut side, &host);
    side.close();
}

#[test]
fn the_kernel_answers_a_ping() {
    let Some(host) = host("the_kernel_answers_a_ping") else { return };
    let mut side = open(&host, &config());
    kernel::the_kernel_answers_a_ping(&mut side, host.mac(OURS).0);
    side.close();
}

#[test]
fn udp_super_segments_pass_both_ways() {
    let Some(host) = host("udp_super_segments_pass_both_ways") else { return };
    let mut side = open(&host, &config());
    kernel::udp_super_segments_pass_both_ways(&mut side, &host);
    side.close();
}

#[test]
fn tcp_super_segments_pass_both_ways() {
    let Some(host) = host("tcp_super_segments_pass_both_ways") else { return };
    let mut side = open(&host, &config());
    kernel::tcp_super_segments_pass_both_ways(&mut side, &host);
    side.close();
}

#[test]
fn an_interface_that_goes_down_is_an_error_until_it_is_up_again() {
    let Some(host) = host("an_interface_that_goes_down_is_an_error_until_it_is_up_again") else {
        return;
    };
    let mut side = open(&host, &config());
    host.ip(&format!("link set {OURS} down"));
    let start = Instant::now();
    let error = loop {
        match side.rx() {
            Ok(_) => assert!(start.elapsed() < HANG, "the port has not noticed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NetworkDown);
    assert!(error.to_string().contains(&format!("ip link set {OURS} up")), "{error}");
    let mut batch = TxBatch::new();
    assert!(reply::send(&mut side.arena, &mut batch, &[2; 60], 0));
    batch[0].checksum_start = 0;
    let error = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap_err();
    assert_eq!((error.kind(), batch.len()), (ErrorKind::NetworkDown, 1));
    host.ip(&format!("link set {OURS} up"));
    while side.rx().is_err() {
        assert!(start.elapsed() < HANG, "the port does not come back");
    }
    assert_eq!(side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap(), 1);
    host.introduce(OURS, side.port.capabilities().mac.unwrap());
    kernel::udp_passes_both_ways(&mut side, &host);
    side.close();
}

#[test]
fn an_interface_that_is_deleted_is_an_error() {
    let Some(host) = host("an_interface_that_is_deleted_is_an_error") else { return };
    let mut side = open(&host, &config());
    host.ip(&format!("link del {OURS}"));
    let error = side.rx().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    assert!(error.to_string().contains("gone"), "{error}");
    let mut batch = TxBatch::new();
    assert!(reply::send(&mut side.arena, &mut batch, &[2; 60], 0));
    batch[0].checksum_start = 0;
    let error = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    side.arena.transmitted(&batch[0]);
    side.close();
}

#[test]
fn the_interface_is_made_as_asked_and_goes_with_the_port() {
    let Some(host) = host("the_interface_is_made_as_asked_and_goes_with_the_port") else { return };
    let asked = TapConfig { mtu: 9000, ..config() };
    let side = open(&host, &asked);
    let made = host.enter(|| Interface::find(OURS)).unwrap();
    assert_eq!((made.mtu, made.up, made.driver.as_str()), (9000, true, "tun"));
    assert!(made.is_local_virtual());
    let ours = side.port.capabilities().mac.unwrap();
    assert!(ours.is_unicast() && Some(ours) != made.mac);
    assert!(host.run("ip", &format!("addr show {OURS}")).contains("inet 192.0.2.2/24"));
    side.close();
    // A program that another test is just starting may still have the descriptor for a moment.
    let start = Instant::now();
    let error = loop {
        match host.enter(|| Interface::find(OURS)) {
            Ok(_) => assert!(start.elapsed() < HANG, "the interface is still there"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let stays = TapConfig { persist: true, ..config() };
    open(&host, &stays).close();
    assert!(host.enter(|| Interface::find(OURS)).is_ok());
    // And may be used again, once the kernel has noticed that somebody is there.
    let port = loop {
        match host.enter(|| Tap::open(&config())) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && start.elapsed() < HANG => {}
            result => break result.unwrap(),
        }
    };
    host.introduce(OURS, port.capabilities().mac.unwrap());
    let mut side = Side::new(port);
    while !host.enter(|| Interface::find(OURS)).unwrap().running {
        assert!(start.elapsed() < HANG, "the interface has no carrier");
        std::thread::yield_now();
    }
    kernel::udp_passes_both_ways(&mut side, &host);
    side.close();
}

#[test]
fn the_kernel_may_have_an_ipv6_address() {
    let Some(host) = host("the_kernel_may_have_an_ipv6_address") else { return };
    if host.enter(|| std::net::UdpSocket::bind("[::1]:0")).is_err() {
        println!("SKIP the_kernel_may_have_an_ipv6_address: this kernel has no IPv6");
        return;
    }
    let address = (IpAddr::V6("2001:db8::2".parse().unwrap()), 64);
    let asked = TapConfig { kernel_address: Some(address), queues: 2, ..TapConfig::new(OURS) };
    let first = open(&host, &asked);
    let second = open(&host, &TapConfig { queue: 1, ..asked });
    let addresses = host.run("ip", &format!("addr show {OURS}"));
    assert!(addresses.contains("inet6 2001:db8::2/64"), "{addresses}");
    first.close();
    second.close();
}

#[test]
fn what_cannot_be_opened_is_told() {
    let Some(host) = host("what_cannot_be_opened_is_told") else { return };
    let error = |config: TapConfig| {
        let error = host.enter(|| Tap::open(&config)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, text) = error(TapConfig::new("lo"));
    assert_eq!(kind, ErrorKind::InvalidInput, "{text}");
    assert!(text.contains("lo exists already"), "{text}");
    let (kind, _) = error(TapConfig::new("a name"));
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, _) = error(TapConfig { queues: 0, ..config() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, _) = error(TapConfig { mac: Some(Mac([1, 0, 0, 0, 0, 1])), ..config() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, text) = error(TapConfig { mtu: 100_000, ..config() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(text.contains("100000"), "{text}");
    let address = Some((IpAddr::V4(PEER_ADDRESS), 33));
    let (kind, _) = error(TapConfig { kernel_address: address, ..config() });
    assert_eq!(kind, ErrorKind::InvalidInput);

    let side = open(&host, &config());
    let (kind, text) = error(config());
    assert_eq!(kind, ErrorKind::ResourceBusy);
    assert!(text.contains("in use"), "{text}");
    let (kind, text) = error(TapConfig { queues: 2, ..config() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(text.contains("number of queues"), "{text}");
    side.close();

    let refused = || kernel::without_capabilities(|| Tap::open(&config())).unwrap_err();
    let refused = host.enter(refused);
    let text = refused.to_string();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("CAP_NET_ADMIN"), "{text}");
}

#[test]
fn each_flow_goes_to_the_queue_that_sends_for_it() {
    let Some(host) = host("each_flow_goes_to_the_queue_that_sends_for_it") else { return };
    let queue = |queue| TapConfig { queue, queues: 2, ..config() };
    let mut sides = [open(&host, &queue(0)), open(&host, &queue(1))];
    assert_eq!(sides[0].port.capabilities().mac, sides[1].port.capabilities().mac);
    for flow in 0..16 {
        let socket = host.udp(6000 + flow);
        socket.set_read_timeout(Some(HANG)).unwrap();
        socket.send(b"first").unwrap();
        let (start, mut request) = (Instant::now(), None);
        while request.is_none() {
            for side in &mut sides {
                let packets = side.rx().unwrap();
                request = packets
                    .into_iter()
                    .find(|packet| {
                        reply::is(reply::UDP, &packet.bytes)
                            && reply::word(&packet.bytes, 36) == 6000 + flow
                    })
                    .or(request);
            }
            assert!(start.elapsed() < HANG, "flow {flow} did not come");
        }
        // Whichever queue it came on, the second one answers, and so has the flow from now on.
        let answer = reply::udp_answer(&request.unwrap().bytes, b"answer");
        sides[1].send(&answer, 0);
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
        socket.send(b"second").unwrap();
        let packet = sides[1].expect_udp();
        assert_eq!(reply::udp_payload(&packet.bytes), b"second");
    }
    sides.into_iter().for_each(Side::close);
}
