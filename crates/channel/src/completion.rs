//! What a turn hands to the application.

use std::io;

use crate::Handle;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A listener has a new connection, [`Completion::handle`]; [`Completion::listener`] is whose.
    Accepted,
    /// A connection that was opened from here is established.
    Connected,
    /// Bytes came in: [`crate::Channel::payload`].
    Read,
    /// [`crate::Channel::write`] took less than it was given, and there is room again.
    Writable,
    /// All that waited after [`crate::Channel::write_owned`] is in the send buffer now.
    Written,
    /// The peer sends no more; everything it sent has been told. Writing goes on until it is ended
    /// from this side, so an application that has no more to say closes the handle now.
    Finished,
    /// The connection is over, and [`Completion::error`] says how. The handle is stale from the
    /// next turn on.
    Closed,
    /// A datagram came in: [`crate::Channel::payload`] and [`crate::Channel::source`].
    Datagram,
}

impl Kind {
    /// All of them, in the order of declaration.
    pub const ALL: [Kind; 8] = [
        Kind::Accepted,
        Kind::Connected,
        Kind::Read,
        Kind::Writable,
        Kind::Written,
        Kind::Finished,
        Kind::Closed,
        Kind::Datagram,
    ];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Accepted => "accepted",
            Kind::Connected => "connected",
            Kind::Read => "read",
            Kind::Writable => "writable",
            Kind::Written => "written",
            Kind::Finished => "finished",
            Kind::Closed => "closed",
            Kind::Datagram => "datagram",
        }
    }
}

/// One thing that happened. Of one connection, what happened first is told first.
///
/// A payload is no part of it: it is in the channel's frames, until the next turn begins
/// ([`crate::Channel::payload`]) or for as long as it is held ([`crate::Channel::hold`]).
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What happened.
    pub kind: Kind,
    /// To what.
    pub handle: Handle,
    /// The listener of an accepted connection.
    pub listener: Option<Handle>,
    /// Why a connection was closed before its time, as a socket's errno; 0: in order.
    pub errno: i32,
    /// Bytes of the payload.
    pub bytes: u32,
    /// First frame of the payload in the turn's list of frames.
    pub(crate) first: u32,
    /// Frames of the payload.
    pub(crate) count: u32,
    /// A datagram's place in the turn's list of sources.
    pub(crate) source: u32,
    /// The turn it belongs to.
    pub(crate) turn: u32,
}

impl Completion {
    /// Why a connection was closed before its time.
    pub fn error(&self) -> Option<io::Error> {
        (self.errno != 0).then(|| io::Error::from_raw_os_error(self.errno))
    }

    /// Number of frames that the payload is in. A datagram that came in fragments is in several.
    #[inline]
    pub fn frames(&self) -> usize {
        match self.kind {
            Kind::Read | Kind::Datagram => self.count as usize,
            _ => 0,
        }
    }
}

/// The completions of one turn. Kept by the application and filled again each turn.
pub type Completions = Vec<Completion>;
