//! TCP against its RFCs, a topic a file, each with the other side played segment by segment.

#[path = "../common/mod.rs"]
mod common;

mod autotuning;
mod challenge_ack;
mod close;
mod congestion;
mod cork;
mod delayed_ack;
mod ecn;
mod exhaustion;
mod fast_open;
mod fast_retransmit;
mod frto;
mod handshake;
mod icmp_errors;
mod info;
mod keepalive;
mod listen_queues;
mod listener;
mod nagle;
mod notsent_lowat;
mod orphan;
mod out_of_order;
mod pacing;
mod ports;
mod push;
mod quickack;
mod rack;
mod record;
mod reset;
mod retransmission;
mod rto_restart;
mod sack_generation;
mod scoreboard;
mod simultaneous_open;
mod super_segments;
mod syn_cookie;
mod tail_loss_probe;
mod teardown;
mod time_wait;
mod timestamps;
mod urgent;
mod user_timeout;
mod window;
