//! `TCP_INFO` and `TCP_CC_INFO` in the form that `linux/tcp.h` gives them.

use core::time::Duration;

use millrace_stack::{ConnectionInfo, Stack, State};

use crate::socket::{Kind, Socket};

/// Collects fields at the places that the kernel's ABI gives them.
struct Layout(Vec<u8>);

impl Layout {
    const LEN: usize = 280;

    fn new() -> Layout {
        Layout(vec![0; Layout::LEN])
    }

    fn byte(&mut self, at: usize, value: u8) {
        self.0[at] = value;
    }

    fn word(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    #[allow(dead_code, reason = "the vocabulary of the layout")]
    fn long(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// The kernel's numbers of the states (`net/tcp_states.h`).
pub(crate) fn state_number(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

/// `TCP_LISTEN`.
const LISTEN: u8 = 10;

/// `struct tcp_info`, at most `most` bytes.
pub(crate) fn tcp_info(socket: &Socket, stack: Option<&Stack>, most: usize) -> Vec<u8> {
    let mut layout = Layout::new();
    match (&socket.kind, stack) {
        (Kind::Listener { .. }, _) => layout.byte(0, LISTEN),
        (Kind::Stream(stream), Some(stack)) => match stack.info(stream.id) {
            Ok(info) => fill(&mut layout, &info),
            Err(_) => layout.byte(0, state_number(State::Closed)),
        },
        _ => layout.byte(0, state_number(State::Closed)),
    }
    layout.0.truncate(most);
    layout.0
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn fill(layout: &mut Layout, info: &ConnectionInfo) {
    let mss = u32::from(info.mss).max(1);
    layout.byte(0, state_number(info.state));
    layout.byte(2, info.retries);
    layout.byte(4, info.retries);
    layout.word(8, micros(info.retransmission_timeout));
    layout.word(16, mss);
    layout.word(24, info.in_flight.div_ceil(mss));
    layout.word(68, micros(info.round_trip));
    layout.word(
        76,
        match info.slow_start_threshold {
            u32::MAX => 0x7fff_ffff,
            bytes => bytes / mss,
        },
    );
    layout.word(80, info.congestion_window / mss);
    layout.word(84, mss);
    layout.word(88, 3);
    layout.word(140, info.send_queue.saturating_sub(info.in_flight));
    layout.word(228, info.send_window);
    layout.word(232, info.receive_window);
}

/// `union tcp_cc_info`: CUBIC and NewReno have nothing to show.
pub(crate) fn congestion_info(_socket: &Socket, _stack: Option<&Stack>, _most: usize) -> Vec<u8> {
    Vec::new()
}
