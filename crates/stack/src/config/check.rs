//! What of a configuration makes no sense, told by name before a stack is made.

use core::hint::black_box;
use std::io;

use millrace_frames::Arena;
use millrace_wire::ipv6;

use super::Config;
use crate::tcp::input::MOST_OUT_OF_ORDER_FRAMES;

/// The most that a connection costs in all tables, whether it is in use or not.
const CONNECTION_BYTES: usize = 320;

/// # Errors
/// `InvalidInput`, with the setting, its value and what it may be; `OutOfMemory` when there is none
/// for the tables of so many connections.
pub(crate) fn check(config: &Config, arena: &Arena) -> io::Result<()> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if config.mtu < 576 {
        return refuse(format!("mtu {} is below IPv4's least, 576", config.mtu));
    }
    let v6 = config.addresses.iter().any(|own| own.address.is_ipv6());
    if (v6 || config.ipv6.router_discovery) && usize::from(config.mtu) < ipv6::MIN_MTU {
        return refuse(format!("mtu {} is below IPv6's least, 1280", config.mtu));
    }
    if config.addresses.len() > 255 {
        return refuse(format!("{} addresses are more than 255", config.addresses.len()));
    }
    if config.connections >= 1 << 31 || config.connections == 0 {
        return refuse(format!("connections must be 1 to 2^31 - 1, not {}", config.connections));
    }
    // The tables are made at once, and the process ends where there is no memory for one.
    let bytes = config.connections as usize * CONNECTION_BYTES;
    let mut tables = Vec::<u8>::new();
    let room = tables.try_reserve_exact(bytes);
    // Nothing is ever in it, and yet it is to be asked for.
    black_box(&tables);
    if room.is_err() {
        return Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "no memory for {} connections, which take {} MB; allow fewer of them",
                config.connections,
                bytes >> 20
            ),
        ));
    }
    if config.neighbours == 0 || config.neighbours == u16::MAX {
        return refuse(format!("neighbours must be 1 to 65534, not {}", config.neighbours));
    }
    if config.listeners == u16::MAX || config.datagram_sockets == u16::MAX {
        return refuse("listeners and datagram_sockets must be below 65535".into());
    }
    if config.receive_buffer < 2048 || config.receive_buffer > 1 << 30 {
        return refuse(format!(
            "receive_buffer must be 2048 to 2^30 bytes, not {}",
            config.receive_buffer
        ));
    }
    if config.send_buffer < 2048 || config.send_buffer > 1 << 30 {
        return refuse(format!(
            "send_buffer must be 2048 to 2^30 bytes, not {}",
            config.send_buffer
        ));
    }
    if config.min_rto > config.max_rto || config.initial_rto > config.max_rto {
        return refuse(format!(
            "max_rto {:?} is below min_rto {:?} or initial_rto {:?}",
            config.max_rto, config.min_rto, config.initial_rto
        ));
    }
    if config.initial_rto.is_zero() {
        return refuse("initial_rto of 0 would give up every connection at once".into());
    }
    let (idle, interval) = (config.keepalive_idle, config.keepalive_interval);
    if idle.is_zero() || interval.is_zero() || config.keepalive_count == 0 {
        return refuse(format!(
            "keepalive_idle, keepalive_interval and keepalive_count must be above 0, not {idle:?}, \
             {interval:?} and {}",
            config.keepalive_count
        ));
    }
    if config.reassembly.datagrams == 0 || config.reassembly.datagrams > 4096 {
        let datagrams = config.reassembly.datagrams;
        return refuse(format!("reassembly_datagrams must be 1 to 4096, not {datagrams}"));
    }
    if let Some(name) = config.dhcp.as_ref().and_then(|dhcp| dhcp.host_name.as_ref())
        && (name.is_empty() || name.len() > 63 || !name.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return refuse(format!("dhcp.host_name {name:?} is no name of 1 to 63 plain characters"));
    }
    if !(1..=7).contains(&config.multicast.robustness) {
        let robustness = config.multicast.robustness;
        return refuse(format!("multicast_robustness must be 1 to 7, not {robustness}"));
    }
    if config.out_of_order_frames > MOST_OUT_OF_ORDER_FRAMES {
        return refuse(format!(
            "out_of_order_frames {} is more than {MOST_OUT_OF_ORDER_FRAMES}, the most that a \
             receive queue takes at once",
            config.out_of_order_frames
        ));
    }
    if config.fast_open.keys.len() > 2 {
        return refuse(format!(
            "{} keys for Fast Open are more than 2",
            config.fast_open.keys.len()
        ));
    }
    if config.ipv6.hop_limit == 0 {
        return refuse("hop_limit 0 would reach nobody; it must be 1 to 255".into());
    }
    if config.control_queue == 0 {
        return refuse("control_queue 0 would answer nobody; it must be at least 1".into());
    }
    for own in &config.addresses {
        crate::interface::check_address(own)?;
    }
    if config.ephemeral_ports.is_empty() || *config.ephemeral_ports.start() == 0 {
        return refuse(format!("no ephemeral ports in {:?}", config.ephemeral_ports));
    }
    if !config.mac.is_unicast() {
        return refuse(format!("{} is no address of one host", config.mac));
    }
    let most = arena.frame_size() - Arena::HEADROOM;
    if config.tx_gso == 0 && usize::from(config.mtu) > most + 40 {
        return refuse(format!(
            "mtu {} does not fit frames of {} bytes; use larger frames",
            config.mtu,
            arena.frame_size()
        ));
    }
    if config.frame_reserve as usize >= arena.frames() {
        return refuse(format!(
            "frame_reserve {} leaves none of {} frames",
            config.frame_reserve,
            arena.frames()
        ));
    }
    Ok(())
}
