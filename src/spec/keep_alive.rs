//! How dead TCP peers are found.

use std::time::Duration;

use ringport_platform::sockopt::{Opt, OptSet, OptValue, Setting};

use super::check::{Check, join};
use super::raw;
use super::sockopt::SockOptions;

/// Probes on idle TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepAlive {
    /// None.
    Off,
    /// With these times; `None` is the system's setting.
    On {
        /// Idle time before the first probe: 1 to 32,767 whole seconds.
        idle: Option<Duration>,
        /// Time between probes: 1 to 32,767 whole seconds.
        interval: Option<Duration>,
        /// Probes without an answer that end the connection: 1 to 127.
        count: Option<u32>,
    },
}

impl Default for KeepAlive {
    /// After 15 s every 15 s, 9 times.
    fn default() -> Self {
        let span = Some(Duration::from_secs(15));
        KeepAlive::On { idle: span, interval: span, count: Some(9) }
    }
}

impl KeepAlive {
    /// Adds the options that mean it to those of a TCP socket.
    pub(super) fn add_to(self, options: &mut SockOptions) {
        let KeepAlive::On { idle, interval, count } = self else {
            return options.default_to(Opt::SoKeepalive, false);
        };
        options.default_to(Opt::SoKeepalive, true);
        for (opt, span) in [(Opt::TcpKeepidle, idle), (Opt::TcpKeepintvl, interval)] {
            if let Some(span) = span {
                options.default_to(opt, span);
            }
        }
        if let Some(count) = count {
            options.default_to(Opt::TcpKeepcnt, i64::from(count));
        }
    }

    pub(super) fn to_raw(self) -> raw::KeepAliveConfig {
        let KeepAlive::On { idle, interval, count } = self else {
            return raw::KeepAliveConfig { disable: Some(true), ..raw::KeepAliveConfig::default() };
        };
        let seconds = |span: Option<Duration>| {
            Some(span.map_or(SYSTEM, |span| i32::try_from(span.as_secs()).unwrap_or(i32::MAX)))
        };
        let count = Some(count.map_or(SYSTEM, |count| i32::try_from(count).unwrap_or(i32::MAX)));
        raw::KeepAliveConfig { disable: Some(false), idle: seconds(idle), interval: seconds(interval), count }
    }
}

impl Check {
    /// Keep-alive as its own message says, or the options of the socket, or the defaults. Where two speak, they must agree.
    pub(super) fn keep_alive(
        &mut self,
        raw: Option<&raw::KeepAliveConfig>,
        path: &str,
        options: &OptSet,
    ) -> KeepAlive {
        let none = raw::KeepAliveConfig::default();
        let config = raw.unwrap_or(&none);
        let by_option = options.find(Opt::SoKeepalive).map(|setting| *setting == Setting::Off);
        if let (Some(disable), Some(other)) = (config.disable, by_option)
            && disable != other
        {
            self.fault(join(path, "disable"), "sock_option.so_option.keep_alive says otherwise");
        }
        if config.disable.or(by_option).unwrap_or(false) {
            for (field, value) in
                [("idle", config.idle), ("interval", config.interval), ("count", config.count)]
            {
                if value.is_some() {
                    self.fault(join(path, field), "keep-alive is disabled, so this has no effect");
                }
            }
            for opt in [Opt::TcpKeepidle, Opt::TcpKeepintvl, Opt::TcpKeepcnt] {
                // Where the option says so, the options are checked against each other.
                if config.disable == Some(true) && by_option.is_none() && options.find(opt).is_some() {
                    self.fault(join(path, "disable"), format!("keep-alive is disabled, and {opt} is set"));
                }
            }
            return KeepAlive::Off;
        }
        let mut value = |field: &str, value, opt, default: i64| {
            self.keep_alive_value(join(path, field), value, (opt, options.find(opt)), default)
        };
        let span = |seconds: Option<i64>| {
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
        };
        KeepAlive::On {
            idle: span(value("idle", config.idle, Opt::TcpKeepidle, 15)),
            interval: span(value("interval", config.interval, Opt::TcpKeepintvl, 15)),
            count: value("count", config.count, Opt::TcpKeepcnt, 9)
                .and_then(|count| u32::try_from(count).ok()),
        }
    }

    /// Seconds or probes; `None` is the system's setting.
    fn keep_alive_value(
        &mut self,
        path: String,
        value: Option<i32>,
        (opt, set): (Opt, Option<&Setting>),
        default: i64,
    ) -> Option<i64> {
        let by_option = set.and_then(|setting| match setting {
            Setting::Value(OptValue::Int(number)) => Some(*number),
            Setting::Value(OptValue::Time(span)) => i64::try_from(span.as_secs()).ok(),
            Setting::Value(_) | Setting::Off => None,
        });
        let Some(value) = value.map(i64::from) else { return Some(by_option.unwrap_or(default)) };
        if by_option.is_some_and(|other| other != value) {
            self.fault(path, format!("{opt} of sock_option says otherwise"));
            return None;
        }
        if value == i64::from(SYSTEM) {
            return None;
        }
        let is_time = matches!(opt.row().form, ringport_platform::sockopt::Form::Time { .. });
        let setting = match u64::try_from(value) {
            Ok(seconds) if is_time => OptValue::Time(Duration::from_secs(seconds)),
            // A negative time has no value; as a number it is refused with the same words.
            Ok(_) | Err(_) => OptValue::Int(value),
        };
        match OptSet::new().insert(opt, Setting::Value(setting)) {
            Ok(()) => Some(value),
            Err(_) => {
                let wanted = opt.row().form.describe(opt.row().unit);
                self.fault(
                    path,
                    format!("{opt} takes {wanted}, or -1 for the system's setting, not {value}"),
                );
                None
            }
        }
    }
}

/// Leaves a value to the system.
const SYSTEM: i32 = -1;
