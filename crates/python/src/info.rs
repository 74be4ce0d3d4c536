//! A look at a connection.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What TCP knows of a connection at one moment. Times are in seconds, sizes in bytes.
#[pyclass(frozen, get_all, module = "millrace._native")]
pub(crate) struct ConnectionInfo {
    /// Our end, (host, port).
    local: (String, u16),
    /// The peer's end, (host, port).
    remote: (String, u16),
    /// State of RFC 9293, such as ESTABLISHED.
    state: &'static str,
    /// Bytes written and not acknowledged.
    send_queue: u32,
    /// Bytes received and not told, because the handle is paused.
    receive_queue: u32,
    /// Bytes of the frames that it holds, whatever is in them.
    memory: usize,
    /// Bytes sent and not acknowledged.
    in_flight: u32,
    /// Largest payload of a segment.
    mss: u16,
    /// Congestion window.
    congestion_window: u32,
    /// Slow start threshold; None before the first loss.
    slow_start_threshold: Option<u32>,
    /// Window that the peer announces.
    send_window: u32,
    /// Window that the peer was told.
    receive_window: u32,
    /// Smoothed round-trip time; None before the first sample.
    round_trip: Option<f64>,
    /// Retransmission timeout without back-off.
    retransmission_timeout: f64,
    /// Timeouts in a row.
    retries: u8,
}

#[pymethods]
impl ConnectionInfo {
    fn __repr__(&self) -> String {
        let ((local, local_port), (remote, remote_port)) = (&self.local, &self.remote);
        let Self { state, send_queue, in_flight, .. } = self;
        format!(
            "<{state} {local}:{local_port} to {remote}:{remote_port}, {send_queue} bytes queued, \
             {in_flight} in flight>"
        )
    }
}

impl From<millrace_channel::ConnectionInfo> for ConnectionInfo {
    fn from(info: millrace_channel::ConnectionInfo) -> ConnectionInfo {
        let threshold = info.slow_start_threshold;
        ConnectionInfo {
            local: (info.local.ip().to_string(), info.local.port()),
            remote: (info.remote.ip().to_string(), info.remote.port()),
            state: info.state.name(),
            send_queue: info.send_queue,
            receive_queue: info.receive_queue,
            memory: info.memory,
            in_flight: info.in_flight,
            mss: info.mss,
            congestion_window: info.congestion_window,
            slow_start_threshold: (threshold != u32::MAX).then_some(threshold),
            send_window: info.send_window,
            receive_window: info.receive_window,
            round_trip: (!info.round_trip.is_zero()).then_some(info.round_trip.as_secs_f64()),
            retransmission_timeout: info.retransmission_timeout.as_secs_f64(),
            retries: info.retries,
        }
    }
}

/// Linux's `struct tcp_info` as a dictionary.
pub(crate) fn tcp_info<'py>(
    py: Python<'py>,
    info: &millrace_channel::TcpInfo,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in info.iter() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
