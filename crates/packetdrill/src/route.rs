//! What the network namespace says about the way to the peer: `ip route get`.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use millrace_stack::Config;

/// A route's attributes (ip-route(8)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    /// The address that packets come from.
    pub(crate) source: Option<IpAddr>,
    /// Path MTU.
    pub(crate) mtu: Option<u16>,
    /// Maximum segment size to announce.
    pub(crate) advertised_mss: Option<u16>,
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

    /// Carries over what has a meaning for the stack.
    pub(crate) fn configure(&self, config: &mut Config) {
        if let Some(mtu) = self.mtu {
            config.mtu = config.mtu.min(mtu);
        }
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
            "advmss" => route.advertised_mss = value().and_then(|value| value.parse().ok()),
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
                mtu: Some(640),
                advertised_mss: Some(600),
                initial_window: Some(11),
            }
        );
        assert_eq!(parse("RTNETLINK answers: Network is unreachable"), Route::default());
    }

    #[test]
    fn the_route_narrows_the_path_and_never_widens_it() {
        let mut config = Config::default();
        Route { mtu: Some(9000), ..Route::default() }.configure(&mut config);
        assert_eq!(config.mtu, 1500);
        Route { mtu: Some(640), initial_window: Some(4), ..Route::default() }
            .configure(&mut config);
        assert_eq!((config.mtu, config.initial_window), (640, 4));
    }
}
