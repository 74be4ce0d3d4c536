//! The layers below TCP, and UDP, against their RFCs.

#[path = "../common/mod.rs"]
mod common;

mod arp;
mod checksum;
mod configuration;
mod fragmentation;
mod icmp;
mod ip;
mod reassembly;
mod routes;
mod udp;
