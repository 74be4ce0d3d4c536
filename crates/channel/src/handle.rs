//! What an application holds of a listener, a connection or a datagram socket.

use millrace_stack::{ConnectionId, ListenerId, SocketId};

/// A listener, a connection or a datagram socket of one channel. Copied freely; one that was
/// closed is stale, and stays so when its entry is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub(crate) Inner);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Inner {
    Listener(ListenerId),
    Connection(ConnectionId),
    Datagram(SocketId),
}

impl Handle {
    pub(crate) fn connection(id: ConnectionId) -> Handle {
        Handle(Inner::Connection(id))
    }

    pub(crate) fn listener(id: ListenerId) -> Handle {
        Handle(Inner::Listener(id))
    }

    pub(crate) fn datagram(id: SocketId) -> Handle {
        Handle(Inner::Datagram(id))
    }

    /// Whether this is a connection.
    #[inline]
    pub fn is_connection(self) -> bool {
        matches!(self.0, Inner::Connection(_))
    }

    /// Whether this is a listener.
    #[inline]
    pub fn is_listener(self) -> bool {
        matches!(self.0, Inner::Listener(_))
    }

    /// Whether this is a datagram socket.
    #[inline]
    pub fn is_datagram(self) -> bool {
        matches!(self.0, Inner::Datagram(_))
    }

    /// A connection's place in a table of [`crate::Channel::capacity`] entries: where an
    /// application keeps what it knows of it. `None` for the other kinds.
    #[inline]
    pub fn index(self) -> Option<usize> {
        match self.0 {
            Inner::Connection(id) => Some(id.index()),
            _ => None,
        }
    }

    /// `listener`, `connection` or `datagram socket`.
    pub fn what(self) -> &'static str {
        match self.0 {
            Inner::Listener(_) => "listener",
            Inner::Connection(_) => "connection",
            Inner::Datagram(_) => "datagram socket",
        }
    }
}
