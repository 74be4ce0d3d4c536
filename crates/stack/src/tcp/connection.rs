//! A connection's entry: data only. 256 bytes, four cache lines, no buffer of its own.

use millrace_frames::{Arena, Frame, Owners};
use millrace_wire::seq::Seq;

use super::congestion::{Algorithm, Congestion};
use super::quickack::QuickAck;
use super::rtt::Rtt;
use super::traffic::Traffic;
use crate::address::Word;
use crate::neighbour::NeighbourRef;

/// States of RFC 9293 §3.3.2 (LISTEN is a listener's, not a connection's).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed,
    /// We sent a SYN.
    SynSent,
    /// Both SYNs are out, ours is not acknowledged.
    SynReceived,
    /// Data flows.
    Established,
    /// We sent a FIN, the peer did not.
    FinWait1,
    /// Our FIN is acknowledged, the peer's has not come.
    FinWait2,
    /// The peer sent a FIN, we did not.
    CloseWait,
    /// Both sent a FIN, ours is not acknowledged.
    Closing,
    /// Both sent a FIN, the peer first; ours is not acknowledged.
    LastAck,
    /// All is done; old segments may still come.
    TimeWait,
}

impl State {
    /// Whether both SYNs have passed and our FIN has not been acknowledged: data may be sent.
    #[inline]
    pub(crate) fn sends_data(self) -> bool {
        matches!(
            self,
            State::Established
                | State::CloseWait
                | State::FinWait1
                | State::Closing
                | State::LastAck
        )
    }

    /// The name that RFC 9293 and `ss` use.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "CLOSED",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }
}

macro_rules! bits {
    ($(#[$outer:meta])* $vis:vis struct $name:ident($int:ty) { $($(#[doc = $doc:literal])* $flag:ident = $value:expr;)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        $vis struct $name($int);

        // Two flags of one bit would be found by nobody.
        const _: () = {
            let mut seen: $int = 0;
            $(assert!(seen & $value == 0); seen |= $value;)+
            let _ = seen;
        };

        #[allow(dead_code, reason = "every set has the whole vocabulary")]
        impl $name {
            $($(#[doc = $doc])* pub const $flag: $name = $name($value);)+

            /// Whether any of `other` is set.
            #[inline]
            pub const fn has(self, other: $name) -> bool {
                self.0 & other.0 != 0
            }

            /// Sets all of `other`.
            #[inline]
            pub fn set(&mut self, other: $name) {
                self.0 |= other.0;
            }

            /// Clears all of `other`.
            #[inline]
            pub fn clear(&mut self, other: $name) {
                self.0 &= !other.0;
            }

            /// Whether none is set.
            #[inline]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Both sets together.
            #[inline]
            pub const fn with(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }
    };
}

bits! {
    pub(crate) struct Flags(u32) {
        /// On the list of connections with something to send.
        IN_OUT = 1;
        /// On the list of connections with something to tell.
        IN_READY = 1 << 1;
        /// An application has the connection. Without one it is freed when it is closed.
        ATTACHED = 1 << 2;
        /// The application closed: no more is written, what comes is refused.
        APP_CLOSED = 1 << 3;
        /// A FIN follows the data in the send queue.
        FIN_QUEUED = 1 << 4;
        /// The peer's FIN was seen, perhaps beyond a gap.
        FIN_SEEN = 1 << 5;
        /// Send our SYN or SYN-ACK.
        SEND_SYN = 1 << 6;
        /// The pacing deadline is set.
        PACING_ARMED = 1 << 7;
        /// What was received and not acknowledged ends a write of the peer's.
        PUSHED = 1 << 8;
        /// The rexmit timer is a persist timer (RFC 9293 §3.8.6.1).
        PERSIST = 1 << 9;
        /// Send a window probe.
        PROBE = 1 << 10;
        /// Send what the window takes even if it is little.
        FORCE = 1 << 11;
        /// No Nagle.
        NO_DELAY = 1 << 12;
        /// The application found the send buffer full and wants to know when it is not.
        WANT_WRITE = 1 << 13;
        /// Window scaling was agreed on.
        SCALING = 1 << 14;
        /// On a listener's accept queue.
        IN_ACCEPT = 1 << 15;
        /// Counted among the listener's half-open ones.
        HALF_OPEN = 1 << 16;
        /// The rexmit deadline is set.
        REXMIT_ARMED = 1 << 17;
        /// The delayed acknowledgement's deadline is set.
        DELACK_ARMED = 1 << 18;
        /// The expiry deadline is set.
        EXPIRE_ARMED = 1 << 19;
        /// The expiry deadline is a linger: abort when it comes.
        LINGERING = 1 << 20;
        /// Opened from here.
        ACTIVE = 1 << 21;
        /// In the flow table.
        IN_TABLE = 1 << 22;
        /// Reading was shut down: data is acknowledged and thrown away.
        READ_SHUT = 1 << 24;
        /// On the list of connections that found no frame to write to.
        IN_STARVED = 1 << 25;
        /// A duplicate waits to be reported (RFC 2883).
        REPORT_DUPLICATE = 1 << 26;
        /// Accurate ECN: every packet is counted by its codepoint.
        COUNTS_MARKS = 1 << 23;
        /// Its settings differ from the stack's: see [`super::settings`].
        CUSTOM = 1 << 27;
        /// Partial segments wait for more ([`super::nagle`]).
        CORK = 1 << 28;
        /// The last write said that more follows.
        MORE = 1 << 29;
        /// The expiry deadline is the keepalive's ([`super::keepalive`]).
        KEEPALIVE = 1 << 30;
        /// Segments are smaller than what was agreed on ([`super::plpmtud`]).
        SMALL_SEGMENTS = 1 << 31;
    }
}

bits! {
    /// What both ends agreed on in their SYNs.
    pub(crate) struct Features(u16) {
        /// Timestamps on every segment (RFC 7323).
        TIMESTAMPS = 1;
        /// The peer reads SACK blocks, and may send them (RFC 2018).
        SACK = 1 << 1;
        /// Explicit congestion notification (RFC 3168).
        ECN = 1 << 2;
        /// Accurate ECN (RFC 9768).
        ACCURATE_ECN = 1 << 3;
        /// Data of a SYN was taken (RFC 7413).
        FAST_OPEN = 1 << 4;
        /// Half-open, and the peer has acknowledged the SYN, but the listener wants data first.
        DEFERRED = 1 << 5;
        /// In SYN-RECEIVED, and open already (RFC 7413).
        EARLY = 1 << 6;
        /// The SYN-ACK has a Fast Open cookie...
        COOKIE_DUE = 1 << 7;
        /// ...in the experimental form.
        EXPERIMENT = 1 << 8;
        /// Its application has closed it, and it goes on ([`super::orphan`]).
        ORPHAN = 1 << 9;
        /// `rcv_nxt` has gone once around the numbers, which [`super::traffic`] has not counted yet.
        RECEIVED_AROUND = 1 << 10;
        /// What came was marked: ECE goes on every segment (RFC 3168 §6.1.3).
        ECHOES_CE = 1 << 11;
        /// The window has come down: CWR goes on the next new data (RFC 3168 §6.1.2).
        CWR_OWED = 1 << 12;
        /// The path does things to ECN bits that it must not: nothing that is sent is ECN-capable.
        NOT_ECN_CAPABLE = 1 << 13;
        /// The two bits with which the peer's SYN or SYN-ACK came.
        SYN_CAME_AS_0 = 1 << 14;
        SYN_CAME_AS_1 = 1 << 15;
    }
}

bits! {
    /// What a connection has to tell its application.
    pub struct Ready(u8) {
        /// `connect` succeeded.
        CONNECTED = 1;
        /// There is something to read.
        READABLE = 2;
        /// A send buffer that was full has room again.
        WRITABLE = 4;
        /// The peer sent its FIN, and everything before it has come.
        FINISHED = 8;
        /// The connection is over; [`crate::Stack::failure`] says whether it went well.
        CLOSED = 16;
        /// Everything written, the FIN included, was acknowledged.
        FLUSHED = 32;
    }
}

/// Why a connection ended before its time, as the errno that a socket would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// The peer reset it (`ECONNRESET`).
    Reset,
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// No answer (`ETIMEDOUT`).
    TimedOut,
    /// The next hop does not answer, or a router said so (`EHOSTUNREACH`).
    HostUnreachable,
    /// Ended from this side (`ECONNABORTED`).
    Aborted,
}

/// A list of frames linked by `next`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) head: Frame,
    pub(crate) tail: Frame,
}

impl Queue {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, arena: &mut Arena, frame: Frame) {
        arena.meta_mut(frame).next = Frame::NONE;
        if self.tail.is_some() {
            arena.meta_mut(self.tail).next = frame;
        } else {
            self.head = frame;
        }
        self.tail = frame;
    }

    /// Adds frames that are linked to each other, the first of which knows their bytes
    /// (`Meta::total`).
    pub(crate) fn push_chain(&mut self, arena: &mut Arena, head: Frame, tail: Frame) {
        arena.meta_mut(tail).next = Frame::NONE;
        match self.tail.get() {
            Some(last) => arena.meta_mut(last).next = head,
            None => self.head = head,
        }
        self.tail = tail;
    }

    /// Takes the first chain off that [`Queue::push_chain`] added, and tells how many frames it
    /// has.
    pub(crate) fn pop_chain(&mut self, arena: &mut Arena) -> Option<(Frame, u16)> {
        let head = self.head.get()?;
        let (mut at, mut frames) = (head, 1);
        let mut left = arena.meta(head).total - u32::from(arena.meta(head).len);
        while left > 0 {
            at = arena.meta(at).next;
            left -= u32::from(arena.meta(at).len);
            frames += 1;
        }
        self.head = core::mem::replace(&mut arena.meta_mut(at).next, Frame::NONE);
        if self.head.is_none() {
            self.tail = Frame::NONE;
        }
        Some((head, frames))
    }

    #[inline]
    pub(crate) fn release_all(&mut self, arena: &mut Arena, owner: Owners) {
        if self.head.is_some() {
            arena.release_chain(self.head, owner);
            *self = Queue::default();
        }
    }
}

/// No link.
pub(crate) const NO_LINK: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Connection {
    // First line: what a look-up and the fast path read.
    pub(crate) remote: Word,
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    pub(crate) local: u8,
    pub(crate) state: State,
    /// One's-complement sum of both addresses, for checksums.
    pub(crate) address_sum: u16,
    pub(crate) flags: Flags,
    pub(crate) rcv_nxt: Seq,
    /// Right edge of the window that the peer was told.
    pub(crate) rcv_adv: Seq,
    pub(crate) snd_una: Seq,
    pub(crate) snd_nxt: Seq,
    pub(crate) snd_wnd: u32,
    /// Where the data written so far ends (a FIN comes after).
    pub(crate) snd_end: Seq,

    // Second line: sending.
    pub(crate) send: Queue,
    /// The frame that holds `snd_nxt`.
    pub(crate) cursor: Frame,
    pub(crate) snd_wl1: Seq,
    pub(crate) max_window: u32,
    pub(crate) neighbour: NeighbourRef,
    pub(crate) mss: u16,
    pub(crate) snd_shift: u8,
    pub(crate) rcv_shift: u8,
    pub(crate) congestion: Congestion,
    pub(crate) out_next: u32,
    pub(crate) ready_next: u32,
    /// Timeouts in a row without progress.
    pub(crate) retries: u8,
    /// Pure acknowledgements to send now.
    pub(crate) acks_owed: u8,
    pub(crate) ready: Ready,
    /// The upper 8 bits of [`Traffic::busy`].
    pub(crate) busy_high: u8,

    // Third line: receiving and timing.
    pub(crate) receive: Queue,
    pub(crate) receive_bytes: u32,
    pub(crate) receive_frames: u16,
    pub(crate) send_frames: u16,
    pub(crate) out_of_order: Queue,
    pub(crate) rtt: Rtt,
    /// Ticks, lower 32 bits; valid while its flag is set.
    pub(crate) rexmit_at: u32,
    pub(crate) delack_at: u32,
    /// The same, in units of [`super::timers::EXPIRY_SHIFT`].
    pub(crate) expire_at: u32,
    /// Sequence numbers received since the last acknowledgement went out: `rcv_nxt` less these is
    /// what that one said.
    pub(crate) unacknowledged: u32,

    // Fourth line: what is rarely needed.
    pub(crate) generation: u32,
    /// Next on the accept queue, on the TIME-WAIT list or on the free list.
    pub(crate) link: u32,
    /// Before it on the TIME-WAIT list.
    pub(crate) link_back: u32,
    /// Sequence number of the peer's FIN.
    pub(crate) fin_seq: Seq,
    /// When something left last, microseconds: lower 32 bits. Set with those above by `sent_now`.
    pub(crate) last_sent: u32,
    /// What has passed, for TCP_INFO.
    pub(crate) traffic: Traffic,
    /// What is needed only while data moves; [`NO_LINK`]: nothing.
    pub(crate) transfer: u32,
    /// Initial sequence numbers, ours and the peer's.
    pub(crate) iss: Seq,
    pub(crate) irs: Seq,
    /// Timestamp of the peer to echo (RFC 7323 §4.3), and when it came, in seconds.
    pub(crate) ts_recent: u32,
    pub(crate) ts_recent_at: u32,
    /// What is added to our clock for this connection's timestamps.
    pub(crate) ts_offset: u32,
    pub(crate) listener: u16,
    pub(crate) features: Features,
    pub(crate) failure: Option<Failure>,
    pub(crate) algorithm: Algorithm,
    /// And the 16 above them: in nine years no pause is taken for a short one.
    pub(crate) last_sent_high: u16,
    pub(crate) quick_ack: QuickAck,
}

const _: () = assert!(core::mem::size_of::<Connection>() == 256);

impl Connection {
    pub(crate) const EMPTY: Connection = Connection {
        remote: 0,
        remote_port: 0,
        local_port: 0,
        local: 0,
        state: State::Closed,
        address_sum: 0,
        flags: Flags(0),
        rcv_nxt: Seq(0),
        rcv_adv: Seq(0),
        snd_una: Seq(0),
        snd_nxt: Seq(0),
        snd_wnd: 0,
        snd_end: Seq(0),
        send: Queue { head: Frame::NONE, tail: Frame::NONE },
        cursor: Frame::NONE,
        snd_wl1: Seq(0),
        max_window: 0,
        neighbour: NeighbourRef::NONE,
        mss: 536,
        snd_shift: 0,
        rcv_shift: 0,
        congestion: Congestion::EMPTY,
        out_next: NO_LINK,
        ready_next: NO_LINK,
        retries: 0,
        acks_owed: 0,
        ready: Ready(0),
        busy_high: 0,
        receive: Queue { head: Frame::NONE, tail: Frame::NONE },
        receive_bytes: 0,
        receive_frames: 0,
        send_frames: 0,
        out_of_order: Queue { head: Frame::NONE, tail: Frame::NONE },
        rtt: Rtt::EMPTY,
        rexmit_at: 0,
        delack_at: 0,
        expire_at: 0,
        unacknowledged: 0,
        generation: 0,
        link: NO_LINK,
        link_back: NO_LINK,
        fin_seq: Seq(0),
        last_sent: 0,
        traffic: Traffic::EMPTY,
        transfer: NO_LINK,
        iss: Seq(0),
        irs: Seq(0),
        ts_recent: 0,
        ts_recent_at: 0,
        ts_offset: 0,
        listener: u16::MAX,
        features: Features(0),
        failure: None,
        algorithm: Algorithm::Cubic,
        last_sent_high: 0,
        quick_ack: QuickAck::EMPTY,
    };

    /// Something leaves now, in microseconds of the clock.
    #[inline(always)]
    pub(crate) fn sent_now(&mut self, whole_us: u64) {
        self.last_sent = whole_us as u32;
        self.last_sent_high = (whole_us >> 32) as u16;
    }

    /// Microseconds since something left last.
    #[inline]
    pub(crate) fn since_sent(&self, whole_us: u64) -> u64 {
        let last = u64::from(self.last_sent_high) << 32 | u64::from(self.last_sent);
        whole_us.wrapping_sub(last) & ((1 << 48) - 1)
    }

    /// Whether nothing may have left for a timeout. It may seem so once in an hour when it is not.
    #[inline(always)]
    pub(crate) fn may_have_idled(&self, whole_us: u64) -> bool {
        (whole_us >> 32) as u16 != self.last_sent_high
            || (whole_us as u32).wrapping_sub(self.last_sent) > self.rtt.timeout
    }

    /// Bytes sent and not acknowledged (FIN included), by the sender's current position.
    #[inline]
    pub(crate) fn flight(&self) -> u32 {
        (self.snd_nxt - self.snd_una).max(0) as u32
    }

    /// Whether a peer may acknowledge so much, and has not long ago (RFC 5961 §5.2): who is not on
    /// the path can only guess such a number.
    #[inline]
    pub(crate) fn may_acknowledge(&self, ack: Seq) -> bool {
        ack.le(self.snd_nxt) && ack.ge(self.snd_una - self.max_window)
    }

    /// Bytes written and not yet sent.
    #[inline]
    pub(crate) fn unsent(&self) -> u32 {
        (self.snd_end - self.snd_nxt).max(0) as u32
    }

    /// Bytes in the send queue.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        (self.snd_end - self.snd_una).max(0) as u32
    }

    /// The window that the peer was told, from here on.
    #[inline]
    pub(crate) fn rcv_wnd(&self) -> u32 {
        (self.rcv_adv - self.rcv_nxt).max(0) as u32
    }

    /// Whether the FIN is to be sent after the data and was not.
    #[inline]
    pub(crate) fn fin_unsent(&self) -> bool {
        self.flags.has(Flags::FIN_QUEUED) && self.snd_nxt.le(self.snd_end)
    }

    /// Whether data may be sent in this state.
    #[inline]
    pub(crate) fn sends_data(&self) -> bool {
        self.state.sends_data() || self.features.has(Features::EARLY)
    }
}
