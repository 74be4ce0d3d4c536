//! TCP (RFC 9293).
//!
//! [`connection`] is data, and [`transfer`] what of it is needed only while data moves; behaviour is
//! in files named after what they do: [`input`] takes segments, [`output`] chooses those that leave
//! and [`emit`] writes them, [`timers`] runs what time does, [`handshake`] and [`listen`] open
//! connections, [`api`] is what an application calls. What was sent and what became of it is in
//! [`scoreboard`]; what an [`acknowledgement`] tells goes there, [`loss_detection`] finds what is
//! lost, and [`recovery`] decides what that means, with a file for each of their parts: [`rack`],
//! [`tail_loss_probe`], [`prr`], [`frto`], [`undo`], [`limited_transmit`], [`rto_restart`],
//! [`held_timestamps`]. [`congestion`], [`rtt`], [`delivery_rate`] and [`pacing`] are the documents
//! of their names.

mod ack_field;
mod acknowledgement;
pub(crate) mod api;
pub(crate) mod autotuning;
pub(crate) mod buffers;
pub(crate) mod challenge_ack;
pub(crate) mod chronograph;
pub(crate) mod coalesce;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod delivery_rate;
pub(crate) mod ecn;
pub(crate) mod emit;
pub(crate) mod fast_open;
pub(crate) mod fast_path;
mod fast_path_v6;
pub(crate) mod frto;
pub(crate) mod handshake;
pub(crate) mod headers;
pub(crate) mod held_timestamps;
pub(crate) mod icmp;
mod in_order;
pub(crate) mod info;
pub(crate) mod input;
pub(crate) mod keepalive;
pub(crate) mod limited_transmit;
pub(crate) mod list;
pub(crate) mod listen;
mod loss_detection;
pub(crate) mod nagle;
mod one_segment;
pub(crate) mod options;
pub(crate) mod ordinary;
pub(crate) mod orphan;
pub(crate) mod out_of_order;
pub(crate) mod output;
pub(crate) mod pacing;
pub(crate) mod plpmtud;
pub(crate) mod prediction;
pub(crate) mod proven_peers;
pub(crate) mod prr;
pub(crate) mod push;
pub(crate) mod quickack;
pub(crate) mod rack;
pub(crate) mod receive_queue;
pub(crate) mod receive_window;
pub(crate) mod recovery;
pub(crate) mod reset;
pub(crate) mod retransmit;
pub(crate) mod rto_restart;
pub(crate) mod rtt;
pub(crate) mod sack;
pub(crate) mod scoreboard;
pub(crate) mod send_queue;
pub(crate) mod settings;
pub(crate) mod syn_cookie;
pub(crate) mod syn_queue;
pub(crate) mod table;
pub(crate) mod tail_loss_probe;
pub(crate) mod time_wait;
pub(crate) mod timers;
pub(crate) mod timestamps;
pub(crate) mod traffic;
pub(crate) mod transfer;
pub(crate) mod undo;
pub(crate) mod user_timeout;
pub(crate) mod user_timeout_option;
pub(crate) mod window_validation;
