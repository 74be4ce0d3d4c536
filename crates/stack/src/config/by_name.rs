//! The configuration's fields by name: one table for all who let others set them, a channel's
//! keywords and a simulated host's options. It knows what type each has and what its range is, and
//! nothing of whose values they are.

use core::fmt::{self, Display, Formatter};
use core::time::Duration;

use super::{AcceptOverflow, Config, MtuProbing, SynCookies, TimeWaitReuse, UserTimeoutOption};
use crate::tcp::congestion::Algorithm;
use crate::tcp::ecn::Ecn;

/// What a setting is, or is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// A whole number; what is larger than the type is its largest or least.
    Whole(i128),
    /// A number; times are in seconds.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// A name.
    Text(String),
    /// None.
    Unset,
    /// Something else, which no setting can be.
    Other,
}

/// Why a setting cannot be so. The text says what it is: "a whole number from 0 to 255".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// There is none of this name.
    Unknown,
    /// It is something of another type.
    WrongType(String),
    /// The type is right, and the value is not.
    OutOfRange(String),
}

/// The longest time that a setting has: a century. What is later than all clocks go overflows them.
pub const LONGEST_SETTING: Duration = Duration::from_secs(3_200_000_000);

/// What a field is taken from, and told as.
pub trait SettingField: Sized {
    /// The field's value.
    ///
    /// # Errors
    /// For a value of another type, and for one that the field cannot have.
    fn take(value: &SettingValue) -> Result<Self, SettingError>;

    /// What [`SettingField::take`] would take.
    fn tell(&self) -> SettingValue;
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {
        $(impl SettingField for $type {
            fn take(value: &SettingValue) -> Result<Self, SettingError> {
                let SettingValue::Whole(number) = *value else {
                    return Err(SettingError::WrongType("a whole number".into()));
                };
                number.try_into().map_err(|_| {
                    let (least, most) = (<$type>::MIN, <$type>::MAX);
                    SettingError::OutOfRange(format!("a whole number from {least} to {most}"))
                })
            }

            fn tell(&self) -> SettingValue {
                SettingValue::Whole((*self).into())
            }
        })*
    };
}

whole_numbers!(u8 u16 u32);

impl SettingField for bool {
    fn take(value: &SettingValue) -> Result<Self, SettingError> {
        match *value {
            SettingValue::Flag(on) => Ok(on),
            _ => Err(SettingError::WrongType("True or False".into())),
        }
    }

    fn tell(&self) -> SettingValue {
        SettingValue::Flag(*self)
    }
}

impl SettingField for Duration {
    fn take(value: &SettingValue) -> Result<Self, SettingError> {
        let seconds = match *value {
            SettingValue::Whole(whole) => whole as f64,
            SettingValue::Number(number) => number,
            _ => return Err(SettingError::WrongType("a number of seconds".into())),
        };
        let most = LONGEST_SETTING.as_secs_f64();
        let bounded = if seconds.is_finite() { seconds.min(most) } else { seconds };
        Duration::try_from_secs_f64(bounded)
            .map_err(|_| SettingError::OutOfRange("a number of seconds from 0 on".into()))
    }

    fn tell(&self) -> SettingValue {
        SettingValue::Number(self.as_secs_f64())
    }
}

impl<T: SettingField> SettingField for Option<T> {
    fn take(value: &SettingValue) -> Result<Self, SettingError> {
        if *value == SettingValue::Unset { Ok(None) } else { T::take(value).map(Some) }
    }

    fn tell(&self) -> SettingValue {
        self.as_ref().map_or(SettingValue::Unset, T::tell)
    }
}

/// The default bounds, or no option at all.
impl SettingField for Option<UserTimeoutOption> {
    fn take(value: &SettingValue) -> Result<Self, SettingError> {
        bool::take(value).map(|on| on.then(UserTimeoutOption::default))
    }

    fn tell(&self) -> SettingValue {
        SettingValue::Flag(self.is_some())
    }
}

/// A full backlog either resets what would be accepted, or does not.
impl SettingField for AcceptOverflow {
    fn take(value: &SettingValue) -> Result<Self, SettingError> {
        let reset = bool::take(value)?;
        Ok(if reset { AcceptOverflow::Reset } else { AcceptOverflow::Drop })
    }

    fn tell(&self) -> SettingValue {
        SettingValue::Flag(*self == AcceptOverflow::Reset)
    }
}

/// One of several that have names.
fn take_choice<T: Copy>(value: &SettingValue, all: &[(&str, T)]) -> Result<T, SettingError> {
    let names: Vec<String> = all.iter().map(|(name, _)| format!("'{name}'")).collect();
    let wanted = format!("one of {}", names.join(", "));
    let SettingValue::Text(text) = value else { return Err(SettingError::WrongType(wanted)) };
    let found = all.iter().find(|(name, _)| name == text);
    found.map(|(_, choice)| *choice).ok_or(SettingError::OutOfRange(wanted))
}

fn tell_choice<T: PartialEq>(value: &T, all: &[(&str, T)]) -> SettingValue {
    let found = all.iter().find(|(_, choice)| choice == value);
    found.map_or(SettingValue::Unset, |(name, _)| SettingValue::Text((*name).into()))
}

macro_rules! choices {
    ($($type:ident: [$($name:literal => $choice:ident),*];)*) => {
        $(impl SettingField for $type {
            fn take(value: &SettingValue) -> Result<Self, SettingError> {
                take_choice(value, &[$(($name, $type::$choice)),*])
            }

            fn tell(&self) -> SettingValue {
                tell_choice(self, &[$(($name, $type::$choice)),*])
            }
        })*
    };
}

choices! {
    SynCookies: ["off" => Off, "when-full" => WhenFull, "always" => Always];
    TimeWaitReuse: ["never" => Never, "with-timestamps" => WithTimestamps, "always" => Always];
    MtuProbing: ["off" => Off, "black-hole" => BlackHole, "always" => Always];
}

/// Those of which a list exists already.
macro_rules! listed {
    ($($type:ident)*) => {
        $(impl SettingField for $type {
            fn take(value: &SettingValue) -> Result<Self, SettingError> {
                take_choice(value, &$type::ALL.map(|one| (one.name(), one)))
            }

            fn tell(&self) -> SettingValue {
                SettingValue::Text(self.name().into())
            }
        })*
    };
}

listed!(Algorithm Ecn);

macro_rules! settings {
    ($($name:ident => $($field:ident).+;)*) => {
        impl Config {
            /// The names of all settings.
            pub const SETTINGS: &[&str] = &[$(stringify!($name)),*];

            /// Sets the field of this name.
            ///
            /// # Errors
            /// For a name that there is not, and for a value that it cannot have. What makes no
            /// sense beside other settings is told when a stack is made.
            pub fn set(&mut self, name: &str, value: &SettingValue) -> Result<(), SettingError> {
                match name {
                    $(stringify!($name) => self.$($field).+ = SettingField::take(value)?,)*
                    _ => return Err(SettingError::Unknown),
                }
                Ok(())
            }

            /// All settings: names, and what they are.
            pub fn settings(&self) -> impl Iterator<Item = (&'static str, SettingValue)> {
                [$((stringify!($name), self.$($field).+.tell())),*].into_iter()
            }
        }
    };
}

settings! {
    connections => connections;
    time_wait_connections => time_wait_connections;
    time_wait_reuse => time_wait_reuse;
    orphans => orphans;
    orphan_retries => orphan_retries;
    listeners => listeners;
    syn_queue => syn_queue;
    syn_cookies => syn_cookies;
    syn_patience => syn_patience;
    abort_on_overflow => accept_overflow;
    datagram_sockets => datagram_sockets;
    datagram_queue => datagram_queue;

    frame_reserve => frame_reserve;
    memory_low => memory_low;
    memory_pressure => memory_pressure;
    memory_retries => memory_retries;
    send_buffer => send_buffer;
    send_buffer_max => send_buffer_max;
    receive_buffer => receive_buffer;
    receive_buffer_max => receive_buffer_max;
    out_of_order_frames => out_of_order_frames;
    out_of_order_frames_total => out_of_order_frames_total;
    notsent_lowat => notsent_lowat;

    congestion => congestion;
    ecn => ecn;
    initial_window => initial_window;
    initial_rto => initial_rto;
    min_rto => min_rto;
    max_rto => max_rto;
    retries => retries;
    syn_retries => syn_retries;
    syn_ack_retries => syn_ack_retries;
    delayed_ack => delayed_ack;
    time_wait => time_wait;
    fin_wait_2 => fin_wait_2;
    keepalive => keepalive;
    keepalive_idle => keepalive_idle;
    keepalive_interval => keepalive_interval;
    keepalive_count => keepalive_count;
    user_timeout => user_timeout;
    user_timeout_option => user_timeout_option;
    least_train => least_train;
    tso_win_divisor => tso_win_divisor;

    window_scaling => tcp.window_scaling;
    timestamps => tcp.timestamps;
    sack => tcp.sack;
    dsack => tcp.dsack;
    rack => tcp.rack;
    tail_loss_probe => tcp.tail_loss_probe;
    prr => tcp.prr;
    frto => tcp.frto;
    limited_transmit => tcp.limited_transmit;
    undo => tcp.undo;
    rto_restart => tcp.rto_restart;
    held_timestamps => tcp.held_timestamps;
    pacing => tcp.pacing;
    quick_ack => tcp.quick_ack;
    slow_start_after_idle => tcp.slow_start_after_idle;
    prediction => tcp.prediction;

    fast_open_client => fast_open.client;
    fast_open_server => fast_open.server;
    fast_open_client_without_cookie => fast_open.client_without_cookie;
    fast_open_server_without_cookie => fast_open.server_without_cookie;
    fast_open_cache => fast_open.cache;

    mtu_probing => mtu_probing;
    base_mss => base_mss;
    path_mtus => path_mtus;

    resets_per_second => resets_per_second;
    icmp_per_second => icmp_per_second;
    challenge_acks_per_second => challenge_acks_per_second;
    invalid_ack_interval => invalid_ack_interval;
    control_queue => control_queue;

    routes => routes;
    redirects => redirects;
    learned_redirects => learned_redirects;
    neighbours => neighbours;
    neighbour_queue => neighbour_queue;
    neighbour_reachable => neighbour_reachable;
    neighbour_retry => neighbour_retry;
    neighbour_retries => neighbour_retries;

    reassembly_datagrams => reassembly.datagrams;
    reassembly_datagrams_per_source => reassembly.datagrams_per_source;
    reassembly_frames_per_datagram => reassembly.frames_per_datagram;
    reassembly_memory => reassembly.memory;
    reassembly_timeout => reassembly.timeout;
    reassembly_timeout_v6 => reassembly.timeout_v6;

    multicast_groups => multicast.groups;
    multicast_groups_per_socket => multicast.groups_per_socket;
    multicast_sources => multicast.sources;
    multicast_robustness => multicast.robustness;
    multicast_report_interval => multicast.report_interval;
    multicast_old_report_interval => multicast.old_report_interval;

    dad_transmits => ipv6.dad_transmits;
    optimistic_dad => ipv6.optimistic;
    temporary_addresses => ipv6.temporary_addresses;
    temporary_preferred => ipv6.temporary_preferred;
    temporary_valid => ipv6.temporary_valid;
    hop_limit => ipv6.hop_limit;
    retransmit_timer => ipv6.retransmit_timer;
    reachable_time => ipv6.reachable_time;
    learned_routes => ipv6.learned_routes;
    learned_prefixes => ipv6.learned_prefixes;
    learned_name_servers => ipv6.learned_name_servers;
    extension_headers => ipv6.extension_headers;
    extension_bytes => ipv6.extension_bytes;
    extension_options => ipv6.extension_options;
}

impl Display for SettingValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Whole(number) => write!(f, "{number}"),
            SettingValue::Number(number) => write!(f, "{number}"),
            SettingValue::Flag(on) => write!(f, "{on}"),
            SettingValue::Text(text) => write!(f, "{text}"),
            SettingValue::Unset => write!(f, "none"),
            SettingValue::Other => write!(f, "something else"),
        }
    }
}

impl SettingError {
    /// For people: what is wrong with `name` being what `shown` says.
    pub fn explain(&self, name: &str, shown: impl Display) -> String {
        match self {
            SettingError::Unknown => format!("there is no setting {name:?}"),
            SettingError::WrongType(wanted) | SettingError::OutOfRange(wanted) => {
                format!("{name} is {wanted}, not {shown}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_taken() {
        let told = Config::default();
        let mut taken = Config::default();
        for (name, value) in told.settings() {
            taken.set(name, &value).unwrap_or_else(|error| panic!("{name}: {value:?}: {error:?}"));
        }
        assert_eq!(format!("{taken:?}"), format!("{told:?}"));
    }

    #[test]
    fn no_two_names_are_of_one_field() {
        for (name, value) in Config::default().settings() {
            let mut changed = Config::default();
            let other = match value {
                SettingValue::Whole(number) => SettingValue::Whole(if number > 0 { 0 } else { 1 }),
                SettingValue::Number(seconds) => SettingValue::Number(seconds + 1.0),
                SettingValue::Flag(on) => SettingValue::Flag(!on),
                SettingValue::Text(text) if text == "always" => SettingValue::Text("off".into()),
                SettingValue::Text(_) if name == "congestion" => SettingValue::Text("bbr".into()),
                SettingValue::Text(_) if name == "ecn" => SettingValue::Text("on".into()),
                SettingValue::Text(_) => SettingValue::Text("always".into()),
                SettingValue::Unset => SettingValue::Number(1.0),
                SettingValue::Other => unreachable!("no setting is this"),
            };
            changed.set(name, &other).unwrap();
            let plain = Config::default();
            let differ: Vec<_> =
                changed.settings().zip(plain.settings()).filter(|(a, b)| a != b).collect();
            assert_eq!(differ.len(), 1, "{name}: {differ:?}");
        }
    }

    #[test]
    fn errors_say_what_a_setting_is() {
        let mut config = Config::default();
        let said = |config: &mut Config, name: &str, value| {
            config.set(name, &value).unwrap_err().explain(name, "that")
        };
        for (name, value, words) in [
            ("retries", SettingValue::Whole(256), "a whole number from 0 to 255, not that"),
            ("retries", SettingValue::Number(7.0), "retries is a whole number, not that"),
            ("time_wait", SettingValue::Number(f64::NAN), "a number of seconds from 0 on"),
            ("time_wait", SettingValue::Text("long".into()), "a number of seconds, not that"),
            ("sack", SettingValue::Whole(1), "sack is True or False, not that"),
            ("ecn", SettingValue::Text("some".into()), "'off', 'on', 'accurate', 'passive'"),
            ("mtu_probing", SettingValue::Flag(true), "one of 'off', 'black-hole', 'always'"),
            ("sacks", SettingValue::Flag(true), "there is no setting \"sacks\""),
        ] {
            let text = said(&mut config, name, value);
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
