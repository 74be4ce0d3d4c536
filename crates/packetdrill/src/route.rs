//! What the network namespace says about the way to the peer: `ip route get`.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use millrace_stack::Config;

/// A route's attributes (ip-route(8)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The address that packets come from.
    pub(crate) source: Option<IpAddr>,
    /// The device that they leave by.
    pub(crate) device: Option<String>,
    /// Path MTU.
    pub(crate) mtu: Option<u16>,
    /// Initial congestion window in segments.
    pub(crate) initial_window: Option<u8>,
}

impl Route {
    /// Asks for the route to `remote`. Where there is no `ip` or no route, nothing is known.
    pub(crate) fn ask(remote: IpAddr) -> Route {
        let output = Command::new("ip")
            .args(["-o", "route", "get", &remote.to_string()])
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => {
                parse(&String::from_utf8_lossy(&output.stdout))
            }
            _ => Route::default(),
        }
    }

    /// Carries over what has a meaning for a stack that is made.
    pub(crate) fn configure(&self, config: &mut Config) {
        if let Some(window) = self.initial_window {
            config.initial_window = window;
        }
    }
}

/// Reads keys and values; `lock` may stand between them.
fn parse(text: &str) -> Route {
    let mut route = Route::default();
    let mut words = text.split_whitespace().filter(|&word| word != "lock");
    while let Some(word) = words.next() {
        let value = || words.clone().next();
        match word {
            "src" => route.source = value().and_then(|value| value.parse().ok()),
            "mtu" => route.mtu = value().and_then(|value| value.parse().ok()),
            "dev" => route.device = value().map(str::to_owned),
            "initcwnd" => route.initial_window = value().and_then(|value| value.parse().ok()),
            _ => {}
        }
    }
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let route = parse(
            "192.0.2.1 via 192.168.0.2 dev tun0 src 192.168.0.1 uid 0 \\    cache mtu lock 640 \
             advmss 600 initcwnd 11",
        );
        assert_eq!(
            route,
            Route {
                source: "192.168.0.1".parse().ok(),
                device: Some("tun0".into()),
                mtu: Some(640),
                initial_window: Some(11),
            }
        );
        assert_eq!(parse("RTNETLINK answers: Network is unreachable"), Route::default());
    }

    #[test]
    fn the_route_says_how_a_connection_begins() {
        let mut config = Config::default();
        Route { initial_window: Some(4), ..Route::default() }.configure(&mut config);
        assert_eq!(config.initial_window, 4);
    }
}
