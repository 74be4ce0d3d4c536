//! What an application may set on a connection or a listener: the options of setsockopt(2), under
//! their names.
//!
//! The stack has one set of settings, made from its configuration. A connection that differs has
//! its own in its [`super::transfer::Transfer`] and the flag [`Flags::CUSTOM`]; a listener's are
//! inherited by what it accepts.

use core::num::NonZeroU64;
use core::time::Duration;
use std::io;

use super::api::{ConnectionId, ListenerId};
use super::congestion::Algorithm;
use super::connection::{Flags, State};
use crate::Config;
use crate::address::Word;
use crate::control::IpFields;
use crate::stack::Stack;

/// Settings of one connection. `no_delay` and `cork` are a listener's only; a connection has them
/// in its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) no_delay: bool,
    pub(crate) cork: bool,
    pub(crate) keepalive: bool,
    pub(crate) keepalive_idle: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_count: u8,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) linger: Option<Duration>,
    /// Most unsent bytes for which the connection is writable.
    pub(crate) notsent_lowat: u32,
    /// Most payload of a segment, sent and announced; 0: what the MTU allows.
    pub(crate) max_segment: u16,
    /// Most window to announce; 0: what the buffer allows.
    pub(crate) window_clamp: u32,
    /// Time in FIN-WAIT-2 without an application; `None`: none, the connection just ends.
    pub(crate) fin_wait_2: Option<Duration>,
    pub(crate) syn_retries: u8,
    pub(crate) type_of_service: u8,
    /// 0: the protocol's.
    pub(crate) time_to_live: u8,
    pub(crate) mtu_discovery: MtuDiscovery,
    /// Most bytes of the send and the receive buffer, fixed by the application; 0: tuned.
    pub(crate) send_buffer: u32,
    pub(crate) receive_buffer: u32,
    /// Most bytes a second; `None`: as congestion control has it.
    pub(crate) max_pacing_rate: Option<NonZeroU64>,
    pub(crate) algorithm: Algorithm,
}

/// Path MTU discovery of a connection, by the numbers of `IP_MTU_DISCOVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MtuDiscovery {
    /// `IP_PMTUDISC_DONT`: routers may cut IPv4's packets into fragments, and what they report is
    /// not followed. Fragments are fragile (RFC 8900). IPv6's routers cut nothing, so there this is
    /// the next.
    Never,
    /// `IP_PMTUDISC_WANT`: routers may not, and what they report is followed (RFC 1191, RFC 8201).
    Want,
    /// `IP_PMTUDISC_DO`: the same, for a connection.
    Always,
    /// `IP_PMTUDISC_PROBE`: routers may not, and what they report is not followed.
    Probe,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Settings {
        Settings {
            no_delay: config.no_delay,
            cork: false,
            keepalive: config.keepalive,
            keepalive_idle: config.keepalive_idle,
            keepalive_interval: config.keepalive_interval,
            keepalive_count: config.keepalive_count,
            user_timeout: config.user_timeout.filter(|time| !time.is_zero()),
            linger: None,
            notsent_lowat: unbounded_if_zero(config.notsent_lowat),
            max_segment: 0,
            window_clamp: 0,
            fin_wait_2: Some(config.fin_wait_2),
            syn_retries: config.syn_retries,
            type_of_service: 0,
            time_to_live: 0,
            mtu_discovery: MtuDiscovery::Want,
            send_buffer: 0,
            receive_buffer: 0,
            max_pacing_rate: None,
            algorithm: config.congestion,
        }
    }

    /// What they set in the IP header.
    pub(crate) fn ip_fields(&self) -> IpFields {
        IpFields { class: self.type_of_service, hop_limit: self.time_to_live }
    }
}

macro_rules! socket_options {
    ($($(#[doc = $doc:literal])+ $name:ident($type:ty) = $text:literal,)+) => {
        /// An option of a connection or a listener, with its value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum SocketOption {
            $($(#[doc = $doc])+ $name($type),)+
        }

        /// An option without a value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OptionName {
            $($(#[doc = $doc])+ $name,)+
        }

        impl OptionName {
            /// All of them.
            pub const ALL: &[OptionName] = &[$(OptionName::$name,)+];

            /// The name that setsockopt(2) has for it.
            pub const fn text(self) -> &'static str {
                match self {
                    $(OptionName::$name => $text,)+
                }
            }
        }

        impl SocketOption {
            /// Which one it is.
            pub const fn name(self) -> OptionName {
                match self {
                    $(SocketOption::$name(_) => OptionName::$name,)+
                }
            }
        }
    };
}

socket_options! {
    /// Small segments leave at once, without waiting for acknowledgements (no Nagle, RFC 9293
    /// §3.7.4).
    NoDelay(bool) = "TCP_NODELAY",
    /// Partial segments wait until this is cleared, for at most 200 ms or a retransmission
    /// timeout.
    Cork(bool) = "TCP_CORK",
    /// Acknowledge at once for now (true), or delay from now on (false). Not kept: the heuristics
    /// go on from there.
    QuickAck(bool) = "TCP_QUICKACK",
    /// Probe an idle connection (RFC 1122 §4.2.3.6).
    KeepAlive(bool) = "SO_KEEPALIVE",
    /// Idle time before the first keepalive probe; whole seconds, 1 to 32,767.
    KeepIdle(Duration) = "TCP_KEEPIDLE",
    /// Time between keepalive probes; whole seconds, 1 to 32,767.
    KeepInterval(Duration) = "TCP_KEEPINTVL",
    /// Keepalive probes without an answer before the connection ends, 1 to 127.
    KeepCount(u8) = "TCP_KEEPCNT",
    /// How long what was sent may stay unacknowledged before the connection ends (RFC 5482);
    /// `None`: as long as retransmission goes on. Whole milliseconds; 24 days at most.
    UserTimeout(Option<Duration>) = "TCP_USER_TIMEOUT",
    /// How long [`Stack::close`] may take to deliver what was written before it aborts; `None`: as
    /// long as retransmission goes on; zero: abort at once (RFC 9293 §3.9.1). 26 days at most.
    Linger(Option<Duration>) = "SO_LINGER",
    /// The connection is writable only while fewer bytes than this are unsent.
    NotSentLowat(u32) = "TCP_NOTSENT_LOWAT",
    /// Most payload of a segment, 88 to 32,767. Before the connection is open it is announced too;
    /// reading an open connection's gives what is in use.
    MaxSegment(u16) = "TCP_MAXSEG",
    /// Most window to announce, bytes; 0: what the buffer allows.
    WindowClamp(u32) = "TCP_WINDOW_CLAMP",
    /// Time in FIN-WAIT-2 after a close; `None`: the connection ends there at once; zero: as
    /// configured. Whole seconds; 26 days at most.
    Linger2(Option<Duration>) = "TCP_LINGER2",
    /// Retransmissions of our SYN before `connect` fails, 1 to 127.
    SynCount(u8) = "TCP_SYNCNT",
    /// Type of service (traffic class) of the packets; its two lowest bits are ECN's and stay 0.
    TypeOfService(u8) = "IP_TOS",
    /// Time to live (hop limit) of the packets, 1 to 255.
    TimeToLive(u8) = "IP_TTL",
    /// What is done about packets that a path does not take whole, as Linux numbers it.
    MtuDiscover(MtuDiscovery) = "IP_MTU_DISCOVER",
    /// Size of the send buffer, bytes: fixed from then on. 0: tuned again.
    SendBuffer(u32) = "SO_SNDBUF",
    /// Size of the receive buffer, bytes: fixed from then on. 0: tuned again.
    ReceiveBuffer(u32) = "SO_RCVBUF",
    /// Most bytes a second to send; `None`: as congestion control has it. An initial window may leave
    /// at once.
    MaxPacingRate(Option<NonZeroU64>) = "SO_MAX_PACING_RATE",
    /// Congestion control.
    Congestion(Algorithm) = "TCP_CONGESTION",
}

impl core::str::FromStr for OptionName {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<OptionName> {
        OptionName::ALL.iter().copied().find(|option| option.text() == text).ok_or_else(|| {
            let names: Vec<_> = OptionName::ALL.iter().map(|option| option.text()).collect();
            invalid(format!("no socket option is called {text:?}; there are {}", names.join(", ")))
        })
    }
}

impl SocketOption {
    /// The option of a name with the value that setsockopt(2) takes: 0 or 1, seconds for
    /// `TCP_KEEPIDLE`, `TCP_KEEPINTVL` and `TCP_LINGER2` (-1: none, 0: as configured), milliseconds
    /// for `TCP_USER_TIMEOUT` (0: none), seconds for `SO_LINGER` (-1: off), bytes a second for
    /// `SO_MAX_PACING_RATE` (-1: no limit), bytes.
    ///
    /// # Errors
    /// `InvalidInput` for a value out of bounds, and for `TCP_CONGESTION`, whose value is a text.
    pub fn from_number(name: OptionName, value: i64) -> io::Result<SocketOption> {
        let between = |low: i64, high: i64| {
            if (low..=high).contains(&value) {
                Ok(value)
            } else {
                Err(invalid(format!("{} is {low} to {high}, not {value}", name.text())))
            }
        };
        let seconds = |value: i64| Duration::from_secs(value.unsigned_abs());
        let flag = || between(0, i64::from(i32::MAX)).map(|value| value != 0);
        let bytes = || between(0, i64::from(u32::MAX)).map(|value| value as u32);
        Ok(match name {
            OptionName::NoDelay => SocketOption::NoDelay(flag()?),
            OptionName::Cork => SocketOption::Cork(flag()?),
            OptionName::QuickAck => SocketOption::QuickAck(flag()?),
            OptionName::KeepAlive => SocketOption::KeepAlive(flag()?),
            OptionName::KeepIdle => SocketOption::KeepIdle(seconds(between(1, 32_767)?)),
            OptionName::KeepInterval => SocketOption::KeepInterval(seconds(between(1, 32_767)?)),
            OptionName::KeepCount => SocketOption::KeepCount(between(1, 127)? as u8),
            OptionName::UserTimeout => {
                let millis = between(0, i64::from(i32::MAX))?;
                let time = Duration::from_millis(millis.unsigned_abs());
                SocketOption::UserTimeout((millis > 0).then_some(time))
            }
            OptionName::Linger => {
                let time = between(-1, i64::from(i32::MAX))?;
                SocketOption::Linger((time >= 0).then(|| seconds(time)))
            }
            OptionName::NotSentLowat => SocketOption::NotSentLowat(bytes()?),
            OptionName::MaxSegment => SocketOption::MaxSegment(between(0, 32_767)? as u16),
            OptionName::WindowClamp => SocketOption::WindowClamp(bytes()?),
            OptionName::Linger2 => {
                let time = between(-1, i64::from(i32::MAX))?;
                SocketOption::Linger2((time >= 0).then(|| seconds(time)))
            }
            OptionName::SynCount => SocketOption::SynCount(between(1, 127)? as u8),
            OptionName::TypeOfService => SocketOption::TypeOfService(between(0, 255)? as u8),
            OptionName::TimeToLive => SocketOption::TimeToLive(between(1, 255)? as u8),
            OptionName::MtuDiscover => SocketOption::MtuDiscover(match between(0, 3)? {
                0 => MtuDiscovery::Never,
                1 => MtuDiscovery::Want,
                2 => MtuDiscovery::Always,
                _ => MtuDiscovery::Probe,
            }),
            OptionName::SendBuffer => SocketOption::SendBuffer(bytes()?),
            OptionName::ReceiveBuffer => SocketOption::ReceiveBuffer(bytes()?),
            OptionName::MaxPacingRate => {
                let rate = between(-1, i64::MAX)?;
                let limit = (rate != -1).then(|| {
                    let rate = NonZeroU64::new(rate.unsigned_abs());
                    rate.ok_or_else(|| invalid("SO_MAX_PACING_RATE of 0 would send nothing".into()))
                });
                SocketOption::MaxPacingRate(limit.transpose()?)
            }
            OptionName::Congestion => {
                return Err(invalid("TCP_CONGESTION takes a name, such as reno".into()));
            }
        })
    }

    /// The value as [`SocketOption::from_number`] takes it. `None` for `TCP_CONGESTION`.
    pub fn number(self) -> Option<i64> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Some(match self {
            SocketOption::NoDelay(on)
            | SocketOption::Cork(on)
            | SocketOption::QuickAck(on)
            | SocketOption::KeepAlive(on) => on.into(),
            SocketOption::KeepIdle(time) | SocketOption::KeepInterval(time) => seconds(time),
            SocketOption::KeepCount(number)
            | SocketOption::SynCount(number)
            | SocketOption::TypeOfService(number)
            | SocketOption::TimeToLive(number) => number.into(),
            SocketOption::UserTimeout(time) => time.map_or(0, millis),
            SocketOption::Linger(time) | SocketOption::Linger2(time) => time.map_or(-1, seconds),
            SocketOption::MaxSegment(bytes) => bytes.into(),
            SocketOption::NotSentLowat(bytes)
            | SocketOption::WindowClamp(bytes)
            | SocketOption::SendBuffer(bytes)
            | SocketOption::ReceiveBuffer(bytes) => bytes.into(),
            SocketOption::MtuDiscover(how) => (how as u8).into(),
            SocketOption::MaxPacingRate(rate) => {
                rate.map_or(-1, |rate| i64::try_from(rate.get()).unwrap_or(i64::MAX))
            }
            SocketOption::Congestion(_) => return None,
        })
    }
}

/// Least `TCP_MAXSEG`, and Linux's `TCP_MIN_MSS`.
pub(crate) const LEAST_MSS: u16 = 88;

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Applies an option that is nothing but a setting, having checked it.
fn apply(settings: &mut Settings, option: SocketOption) -> io::Result<()> {
    let within = |name: &str, time: Duration| {
        if time.is_zero() || time > Duration::from_secs(32_767) {
            return Err(invalid(format!("{name} is 1 to 32767 seconds, not {time:?}")));
        }
        Ok(time)
    };
    match option {
        SocketOption::NoDelay(on) => settings.no_delay = on,
        SocketOption::Cork(on) => settings.cork = on,
        SocketOption::KeepAlive(on) => settings.keepalive = on,
        SocketOption::KeepIdle(time) => settings.keepalive_idle = within("TCP_KEEPIDLE", time)?,
        SocketOption::KeepInterval(time) => {
            settings.keepalive_interval = within("TCP_KEEPINTVL", time)?;
        }
        SocketOption::KeepCount(count) if (1..=127).contains(&count) => {
            settings.keepalive_count = count;
        }
        SocketOption::UserTimeout(time) => settings.user_timeout = time.filter(|t| !t.is_zero()),
        SocketOption::Linger(time) => settings.linger = time,
        SocketOption::NotSentLowat(bytes) => {
            settings.notsent_lowat = unbounded_if_zero(bytes);
        }
        SocketOption::MaxSegment(0) => settings.max_segment = 0,
        SocketOption::MaxSegment(bytes) if (LEAST_MSS..=32_767).contains(&bytes) => {
            settings.max_segment = bytes;
        }
        // As Linux does: half of the least receive buffer is the least clamp.
        SocketOption::WindowClamp(bytes) => {
            settings.window_clamp = if bytes == 0 { 0 } else { bytes.max(1152) };
        }
        SocketOption::Linger2(time) => settings.fin_wait_2 = time,
        SocketOption::SynCount(count) if (1..=127).contains(&count) => {
            settings.syn_retries = count;
        }
        SocketOption::TypeOfService(value) => settings.type_of_service = value & !3,
        SocketOption::TimeToLive(value) if value > 0 => settings.time_to_live = value,
        SocketOption::MtuDiscover(how) => settings.mtu_discovery = how,
        SocketOption::SendBuffer(bytes) => settings.send_buffer = bounded(bytes),
        SocketOption::ReceiveBuffer(bytes) => settings.receive_buffer = bounded(bytes),
        SocketOption::MaxPacingRate(rate) => settings.max_pacing_rate = rate,
        SocketOption::KeepCount(count) => {
            return Err(invalid(format!("TCP_KEEPCNT is 1 to 127, not {count}")));
        }
        SocketOption::MaxSegment(bytes) => {
            return Err(invalid(format!("TCP_MAXSEG is {LEAST_MSS} to 32767, not {bytes}")));
        }
        SocketOption::SynCount(count) => {
            return Err(invalid(format!("TCP_SYNCNT is 1 to 127, not {count}")));
        }
        SocketOption::TimeToLive(_) => return Err(invalid("IP_TTL is 1 to 255, not 0".into())),
        SocketOption::Congestion(algorithm) => settings.algorithm = algorithm,
        SocketOption::QuickAck(_) => {}
    }
    Ok(())
}

/// No bound where setsockopt(2) says 0.
fn unbounded_if_zero(bytes: u32) -> u32 {
    if bytes == 0 { u32::MAX } else { bytes }
}

/// A buffer's size that works: 0 for tuned, else 2 KiB to 1 GiB as the configuration's.
fn bounded(bytes: u32) -> u32 {
    if bytes == 0 { 0 } else { bytes.clamp(2048, 1 << 30) }
}

impl Settings {
    /// Most payload of a segment, where the interface takes segments of `own` bytes.
    fn segment_limit(&self, own: u16) -> u16 {
        match self.max_segment {
            0 => own,
            most => most.min(own),
        }
    }

    /// Most received bytes to keep, where the tuned buffer has `tuned`.
    pub(crate) fn receive_limit(&self, tuned: u32) -> u32 {
        let clamp = match self.window_clamp {
            0 => u32::MAX,
            clamp => clamp,
        };
        match self.receive_buffer {
            0 => tuned.min(clamp),
            fixed => fixed.min(clamp),
        }
    }

    fn get(&self, name: OptionName) -> SocketOption {
        match name {
            OptionName::NoDelay => SocketOption::NoDelay(self.no_delay),
            OptionName::Cork => SocketOption::Cork(self.cork),
            OptionName::QuickAck => SocketOption::QuickAck(true),
            OptionName::KeepAlive => SocketOption::KeepAlive(self.keepalive),
            OptionName::KeepIdle => SocketOption::KeepIdle(self.keepalive_idle),
            OptionName::KeepInterval => SocketOption::KeepInterval(self.keepalive_interval),
            OptionName::KeepCount => SocketOption::KeepCount(self.keepalive_count),
            OptionName::UserTimeout => SocketOption::UserTimeout(self.user_timeout),
            OptionName::Linger => SocketOption::Linger(self.linger),
            OptionName::NotSentLowat => SocketOption::NotSentLowat(self.notsent_lowat),
            OptionName::MaxSegment => SocketOption::MaxSegment(self.max_segment),
            OptionName::WindowClamp => SocketOption::WindowClamp(self.window_clamp),
            OptionName::Linger2 => SocketOption::Linger2(self.fin_wait_2),
            OptionName::SynCount => SocketOption::SynCount(self.syn_retries),
            OptionName::TypeOfService => SocketOption::TypeOfService(self.type_of_service),
            OptionName::TimeToLive => SocketOption::TimeToLive(match self.time_to_live {
                0 => 64,
                set => set,
            }),
            OptionName::MtuDiscover => SocketOption::MtuDiscover(self.mtu_discovery),
            OptionName::SendBuffer => SocketOption::SendBuffer(self.send_buffer),
            OptionName::ReceiveBuffer => SocketOption::ReceiveBuffer(self.receive_buffer),
            OptionName::MaxPacingRate => SocketOption::MaxPacingRate(self.max_pacing_rate),
            OptionName::Congestion => SocketOption::Congestion(self.algorithm),
        }
    }
}

impl Stack {
    /// The connection's settings.
    #[inline]
    pub(crate) fn settings(&self, index: usize) -> &Settings {
        if !self.connections[index].flags.has(Flags::CUSTOM) {
            return &self.default_settings;
        }
        let own = self.transfer(index).and_then(|transfer| transfer.settings.as_deref());
        own.unwrap_or(&self.default_settings)
    }

    /// The listener's settings, which its connections begin with.
    pub(crate) fn listener_settings(&self, listener: usize) -> &Settings {
        self.listeners[listener].settings.as_deref().unwrap_or(&self.default_settings)
    }

    /// Sets an option of a connection, as setsockopt(2) does.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale, `InvalidInput` for a value out of bounds.
    pub fn set_option(&mut self, id: ConnectionId, option: SocketOption) -> io::Result<()> {
        let index = self.entry(id)?;
        match option {
            SocketOption::NoDelay(on) => {
                // As Linux: what waits leaves now, corked or not.
                if on && self.connections[index].unsent() > 0 {
                    self.connections[index].flags.set(Flags::FORCE);
                }
                self.set_flag(index, Flags::NO_DELAY, on, on);
            }
            SocketOption::Cork(on) => self.set_flag(index, Flags::CORK, on, !on),
            SocketOption::QuickAck(on) => self.set_quick_ack(index, on),
            SocketOption::Congestion(algorithm) => self.set_congestion(id, algorithm)?,
            _ => {
                let mut settings = self.settings(index).clone();
                apply(&mut settings, option)?;
                self.keep_settings(index, settings);
                self.settings_changed(index, option.name());
            }
        }
        Ok(())
    }

    /// An option of a connection.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn option(&self, id: ConnectionId, name: OptionName) -> io::Result<SocketOption> {
        let index = self.entry(id)?;
        let connection = &self.connections[index];
        Ok(match name {
            OptionName::NoDelay => SocketOption::NoDelay(connection.flags.has(Flags::NO_DELAY)),
            OptionName::Cork => SocketOption::Cork(connection.flags.has(Flags::CORK)),
            OptionName::QuickAck => SocketOption::QuickAck(!connection.is_interactive()),
            OptionName::Congestion => SocketOption::Congestion(connection.algorithm),
            // As Linux: what is in use, once that is known.
            OptionName::MaxSegment if connection.state != State::SynSent => {
                SocketOption::MaxSegment(connection.mss)
            }
            OptionName::SendBuffer => SocketOption::SendBuffer(self.send_limit(index)),
            OptionName::ReceiveBuffer => SocketOption::ReceiveBuffer(self.receive_limit(index)),
            name => self.settings(index).get(name),
        })
    }

    /// Sets an option of a listener: the connections that it accepts from now on have it.
    ///
    /// # Errors
    /// `NotConnected` if the listener is closed, `InvalidInput` for a value out of bounds.
    pub fn set_listener_option(&mut self, id: ListenerId, option: SocketOption) -> io::Result<()> {
        self.listener(id)?;
        let listener = &self.listeners[id.index()];
        let mut settings =
            listener.settings.clone().unwrap_or_else(|| self.default_settings.clone().into());
        apply(&mut settings, option)?;
        let plain = *settings == self.default_settings;
        self.listeners[id.index()].settings = (!plain).then_some(settings);
        Ok(())
    }

    /// An option of a listener.
    ///
    /// # Errors
    /// `NotConnected` if the listener is closed.
    pub fn listener_option(&self, id: ListenerId, name: OptionName) -> io::Result<SocketOption> {
        self.listener(id)?;
        let settings = self.listener_settings(id.index());
        Ok(match name {
            // What its connections begin with, not that nobody fixed it.
            OptionName::SendBuffer if settings.send_buffer == 0 => {
                SocketOption::SendBuffer(self.config.send_buffer)
            }
            OptionName::ReceiveBuffer => {
                SocketOption::ReceiveBuffer(settings.receive_limit(self.config.receive_buffer))
            }
            name => settings.get(name),
        })
    }

    /// A connection that a listener opens has the listener's settings.
    pub(crate) fn inherit_settings(&mut self, index: usize, listener: usize) {
        let Some(settings) = self.listeners[listener].settings.as_deref() else { return };
        let mut settings = settings.clone();
        let connection = &mut self.connections[index];
        match core::mem::replace(&mut settings.no_delay, self.default_settings.no_delay) {
            true => connection.flags.set(Flags::NO_DELAY),
            false => connection.flags.clear(Flags::NO_DELAY),
        }
        if core::mem::take(&mut settings.cork) {
            connection.flags.set(Flags::CORK);
        }
        connection.algorithm = settings.algorithm;
        settings.algorithm = self.default_settings.algorithm;
        let limits = settings.max_pacing_rate.is_some();
        self.keep_settings(index, settings);
        if limits {
            self.settings_changed(index, OptionName::MaxPacingRate);
        }
    }

    /// Stores a connection's settings where they differ from the stack's.
    fn keep_settings(&mut self, index: usize, settings: Settings) {
        if settings == self.default_settings {
            if self.connections[index].flags.has(Flags::CUSTOM) {
                self.connections[index].flags.clear(Flags::CUSTOM);
                self.transfer_mut(index).settings = None;
            }
        } else {
            self.transfer_mut(index).settings = Some(Box::new(settings));
            self.connections[index].flags.set(Flags::CUSTOM);
        }
    }

    /// Sets or clears a flag; `go_on`: what waits may leave now.
    fn set_flag(&mut self, index: usize, flag: Flags, on: bool, go_on: bool) {
        let connection = &mut self.connections[index];
        if on {
            connection.flags.set(flag);
        } else {
            connection.flags.clear(flag);
        }
        if go_on && connection.unsent() > 0 {
            self.push_out(index);
        }
    }

    /// What follows at once from a changed setting.
    fn settings_changed(&mut self, index: usize, name: OptionName) {
        match name {
            OptionName::KeepAlive | OptionName::KeepIdle | OptionName::KeepInterval => {
                self.restart_keepalive(index);
            }
            OptionName::MaxSegment => {
                let most = self.settings(index).max_segment;
                let connection = &mut self.connections[index];
                if most > 0 && most < connection.mss && connection.state != State::SynSent {
                    connection.mss = most;
                }
            }
            OptionName::ReceiveBuffer => self.window_update(index),
            OptionName::UserTimeout => self.advertise_user_timeout(index),
            OptionName::SendBuffer | OptionName::NotSentLowat => self.tell_room(index),
            OptionName::MaxPacingRate => {
                let most = self.settings(index).max_pacing_rate;
                self.transfer_mut(index).pacing.limit(most);
                self.push_out(index);
            }
            _ => {}
        }
    }

    /// Most payload of a segment to announce to the peer.
    pub(crate) fn announced_mss(&self, index: usize) -> u16 {
        let own = self.own_mss(self.connections[index].remote);
        self.settings(index).segment_limit(own)
    }

    /// What a listener announces to a peer for the connections that it accepts: most payload of a
    /// segment, and the receive buffer.
    pub(crate) fn announced_by_listener(&self, listener: usize, remote: Word) -> (u16, u32) {
        let settings = self.listener_settings(listener);
        let buffer = settings.receive_limit(self.config.receive_buffer);
        (settings.segment_limit(self.own_mss(remote)), buffer)
    }
}
