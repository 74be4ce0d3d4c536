//! Fast Open (RFC 7413), the server's side and the client's.

mod client;
mod server;
