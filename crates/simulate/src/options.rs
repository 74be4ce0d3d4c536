//! A host's options by name: what a scenario or a random world says about a stack.

use std::io;

use millrace_frames::Duration;

use millrace_stack::{Algorithm, Ecn};

use crate::topology::HostSpec;

/// A value of an option. Times are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// A whole number.
    Integer(u64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A name.
    Text(String),
}

impl OptionValue {
    fn wrong(&self, name: &str, wanted: &str) -> io::Error {
        let text = match self {
            OptionValue::Integer(value) => value.to_string(),
            OptionValue::Number(value) => value.to_string(),
            OptionValue::Flag(value) => value.to_string(),
            OptionValue::Text(value) => format!("{value:?}"),
        };
        io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is {wanted}, not {text}"))
    }

    fn integer<T: TryFrom<u64>>(&self, name: &str) -> io::Result<T> {
        let whole = match *self {
            OptionValue::Integer(value) => Some(value),
            OptionValue::Number(value) if value >= 0.0 && value.fract() == 0.0 => {
                Some(value as u64)
            }
            _ => None,
        };
        whole
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| self.wrong(name, "a whole number within its bounds"))
    }

    fn time(&self, name: &str) -> io::Result<Duration> {
        let seconds = match *self {
            OptionValue::Integer(value) => value as f64,
            OptionValue::Number(value) => value,
            _ => f64::NAN,
        };
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| self.wrong(name, "a number of seconds from 0 on"))
    }

    fn algorithm(&self, name: &str) -> io::Result<Algorithm> {
        match self {
            OptionValue::Text(value) => {
                value.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
            }
            _ => Err(self.wrong(name, "a name such as \"cubic\"")),
        }
    }

    fn marks(&self, name: &str) -> io::Result<Ecn> {
        match self {
            OptionValue::Text(value) => Ecn::named(value),
            _ => None,
        }
        .ok_or_else(|| self.wrong(name, &format!("one of {}", Ecn::ALL.map(Ecn::name).join(", "))))
    }

    fn flag(&self, name: &str) -> io::Result<bool> {
        match *self {
            OptionValue::Flag(value) => Ok(value),
            OptionValue::Integer(value @ 0..=1) => Ok(value == 1),
            _ => Err(self.wrong(name, "true or false")),
        }
    }
}

/// Sets an option of a host. A new field of the stack's configuration needs one line here.
///
/// # Errors
/// `InvalidInput` for a name that there is not (the names are listed), or a value that it cannot
/// have.
pub fn set_option(host: &mut HostSpec, name: &str, value: &OptionValue) -> io::Result<()> {
    macro_rules! options {
        ($($group:ident: { $($option:ident => $field:expr,)* })*) => {
            match name {
                $($(stringify!($option) => $field = value.$group(name)?,)*)*
                _ => {
                    let names = [$($(stringify!($option)),*),*].join(", ");
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("a host has no option {name:?}; there are: {names}"),
                    ));
                }
            }
        };
    }
    let config = &mut host.config;
    options! {
        integer: {
            frames => host.frames,
            frame_size => host.frame_size,
            super_segments => host.super_segments,
            connections => config.connections,
            listeners => config.listeners,
            time_wait_connections => config.time_wait_connections,
            neighbours => config.neighbours,
            neighbour_retries => config.neighbour_retries,
            frame_reserve => config.frame_reserve,
            memory_low => config.memory_low,
            memory_pressure => config.memory_pressure,
            memory_retries => config.memory_retries,
            send_buffer => config.send_buffer,
            send_buffer_max => config.send_buffer_max,
            receive_buffer => config.receive_buffer,
            receive_buffer_max => config.receive_buffer_max,
            out_of_order_frames => config.out_of_order_frames,
            initial_window => config.initial_window,
            syn_retries => config.syn_retries,
            syn_ack_retries => config.syn_ack_retries,
            retries => config.retries,
            dad_transmits => config.ipv6.dad_transmits,
        }
        time: {
            transmit_time => host.transmit_time,
            initial_rto => config.initial_rto,
            min_rto => config.min_rto,
            max_rto => config.max_rto,
            delayed_ack => config.delayed_ack,
            time_wait => config.time_wait,
            fin_wait_2 => config.fin_wait_2,
            neighbour_reachable => config.neighbour_reachable,
            neighbour_retry => config.neighbour_retry,
        }
        algorithm: {
            congestion => config.congestion,
        }
        marks: {
            ecn => config.ecn,
        }
        flag: {
            window_scaling => config.tcp.window_scaling,
            timestamps => config.tcp.timestamps,
            sack => config.tcp.sack,
            dsack => config.tcp.dsack,
            rack => config.tcp.rack,
            tail_loss_probe => config.tcp.tail_loss_probe,
            prr => config.tcp.prr,
            frto => config.tcp.frto,
            limited_transmit => config.tcp.limited_transmit,
            undo => config.tcp.undo,
            rto_restart => config.tcp.rto_restart,
            held_timestamps => config.tcp.held_timestamps,
            pacing => config.tcp.pacing,
            prediction => config.tcp.prediction,
        }
    }
    Ok(())
}
