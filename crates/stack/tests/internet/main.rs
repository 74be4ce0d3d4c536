//! The layers below TCP, and UDP, against their RFCs.

#[path = "../common/mod.rs"]
mod common;

mod arp;
mod checksum;
mod configuration;
mod dhcp;
mod fragmentation;
mod icmp;
mod igmp;
mod ip;
mod multicast;
mod reassembly;
mod routes;
mod udp;
