//! TCP (RFC 9293).
//!
//! [`connection`] is data; behaviour is in files named after what they do: [`input`] takes
//! segments, [`output`] makes them, [`timers`] runs what time does, [`handshake`] and [`listen`]
//! open connections, [`api`] is what an application calls, and [`congestion`] and [`rtt`] are the
//! documents of their names.

pub(crate) mod api;
pub(crate) mod challenge_ack;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod fast_path;
pub(crate) mod handshake;
pub(crate) mod headers;
pub(crate) mod icmp;
pub(crate) mod input;
pub(crate) mod listen;
pub(crate) mod options;
pub(crate) mod out_of_order;
pub(crate) mod output;
pub(crate) mod prediction;
pub(crate) mod receive_queue;
pub(crate) mod recovery;
pub(crate) mod reset;
pub(crate) mod rtt;
pub(crate) mod sack;
pub(crate) mod send_queue;
pub(crate) mod table;
pub(crate) mod timers;
pub(crate) mod timestamps;
pub(crate) mod transfer;
