//! TCP against its RFCs, a topic a file, each with the other side played segment by segment.

#[path = "../common/mod.rs"]
mod common;

mod challenge_ack;
mod close;
mod congestion;
mod delayed_ack;
mod exhaustion;
mod fast_retransmit;
mod handshake;
mod info;
mod keepalive;
mod listen_queues;
mod listener;
mod nagle;
mod out_of_order;
mod ports;
mod reset;
mod retransmission;
mod sack_generation;
mod simultaneous_open;
mod super_segments;
mod syn_cookie;
mod teardown;
mod time_wait;
mod timestamps;
mod urgent;
mod user_timeout;
mod window;
