//! Congestion control: how much may be in flight.
//!
//! An algorithm is a set of pure functions on [`Congestion`]. Which one runs is a byte of the
//! connection and one `match` an event, no dynamic call. Loss detection and recovery (what is
//! lost, what is sent again) belong to the connection and not to the algorithm.

mod newreno;

/// Names as Linux's `TCP_CONGESTION` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// RFC 5681 and RFC 6582.
    #[default]
    NewReno,
}

impl Algorithm {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::NewReno => "reno",
        }
    }
}

/// What every algorithm has. Bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    /// Congestion window.
    pub(crate) window: u32,
    /// Slow start below it, congestion avoidance from there.
    pub(crate) threshold: u32,
    /// The algorithm's own: NewReno's acknowledged bytes since the last increase.
    private: u32,
    algorithm: Algorithm,
}

impl Congestion {
    pub(crate) const EMPTY: Congestion =
        Congestion { window: 0, threshold: 0, private: 0, algorithm: Algorithm::NewReno };

    pub(crate) fn new(algorithm: Algorithm, mss: u32, initial_segments: u8) -> Self {
        let window = mss * u32::from(initial_segments.max(1));
        Congestion { window, threshold: u32::MAX, private: 0, algorithm }
    }

    #[inline]
    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// New data was acknowledged outside recovery. `limited`: the window was what held us back
    /// (RFC 7661: a window that is not used must not grow).
    #[inline]
    pub(crate) fn on_ack(&mut self, acked: u32, mss: u32, limited: bool) {
        if !limited {
            return;
        }
        match self.algorithm {
            Algorithm::NewReno => newreno::on_ack(self, acked, mss),
        }
    }

    /// A loss was found by duplicate acknowledgements, `flight` bytes being unacknowledged.
    pub(crate) fn on_loss(&mut self, flight: u32, mss: u32) {
        match self.algorithm {
            Algorithm::NewReno => newreno::on_loss(self, flight, mss),
        }
    }

    /// The retransmission timer ran out. `first`: for this data, so that back-off does not lower
    /// the threshold again and again (RFC 5681 §3.1).
    pub(crate) fn on_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        if first {
            self.on_loss(flight, mss);
        }
        self.window = mss;
        self.private = 0;
    }

    /// Nothing was sent for longer than a timeout: what is known of the path is old (RFC 5681
    /// §4.1).
    pub(crate) fn on_idle(&mut self, mss: u32, initial_segments: u8) {
        self.window = self.window.min(mss * u32::from(initial_segments.max(1)));
    }
}
