//! What is left of a run: reports, counters, the digest, and who is not done.

use super::*;

impl World {
    /// What became of each conversation that has started.
    pub fn reports(&self) -> Vec<Report> {
        let reports = self.conversations.iter().enumerate().map(|(number, &(conversation, at))| {
            let [client, server] = [0, 1].map(|side| &self.endpoints[number * 2 + side]);
            let look = |endpoint: &Endpoint| {
                let mut report = endpoint.report.clone();
                if let Some(id) = endpoint.id {
                    report.info = self.hosts[endpoint.host as usize].stack.info(id).ok();
                }
                report
            };
            Report {
                conversation,
                started: at,
                sides: [look(client), look(server)],
                latencies: client.latencies.clone(),
            }
        });
        reports.collect()
    }

    /// Sides of conversations that are not over: conversation, side, what is known of it.
    pub(crate) fn unfinished(&self) -> Vec<u32> {
        (0..self.endpoints.len() as u32).filter(|&at| !self.endpoints[at as usize].over()).collect()
    }

    pub(crate) fn endpoint(&self, at: u32) -> &Endpoint {
        &self.endpoints[at as usize]
    }

    pub(crate) fn endpoint_info(&self, at: u32) -> Option<ConnectionInfo> {
        let endpoint = self.endpoint(at);
        self.hosts[endpoint.host as usize].stack.info(endpoint.id?).ok()
    }

    /// Gives up a side that waits for what will never come.
    pub(crate) fn give_up(&mut self, at: u32) {
        let endpoint = &mut self.endpoints[at as usize];
        let host = endpoint.host as usize;
        if endpoint.id.is_some() {
            endpoint.abort(&mut self.hosts[host].stack, self.now);
        }
        endpoint.report.ended.get_or_insert(self.now);
        self.touch(host);
    }

    /// Closes all listeners, so that nothing holds a frame or a connection any more.
    pub(crate) fn close_listeners(&mut self) {
        for host in 0..self.hosts.len() {
            for (_, (id, _, _)) in std::mem::take(&mut self.hosts[host].listeners) {
                self.hosts[host].stack.close_listener(id);
            }
            self.touch(host);
        }
    }

    /// Connections and frames that are still in use, by host that is there.
    pub(crate) fn leftovers(&mut self) -> Vec<(String, usize, usize)> {
        let mut left = Vec::new();
        for host in self.hosts.iter_mut().filter(|host| !host.gone) {
            host.stack.arena_mut().collect_held();
            let (connections, frames) = (host.stack.connections(), host.frames_in_use());
            if connections > 0 || frames > 0 {
                left.push((self.topology.name(host.node).to_owned(), connections, frames));
            }
        }
        left
    }

    /// What should never happen and did: a byte out of place, an event out of turn.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// SHA-256 of every packet on every wire, with its time: the same for two runs exactly when
    /// they did the same.
    pub fn digest(&self) -> Option<String> {
        self.digest.as_ref().map(Digest::hex)
    }

    /// Events that have happened: how much work it was.
    pub fn events(&self) -> u64 {
        self.events_run
    }

    /// Packets on the wires now.
    pub fn in_flight(&self) -> usize {
        self.packets.in_use()
    }

    /// Each host's name, what its stack counted, and the packets that found no frame.
    pub fn stacks(&self) -> impl Iterator<Item = (&str, &Counters, u64)> {
        self.hosts
            .iter()
            .map(|host| (self.topology.name(host.node), host.stack.counters(), host.rx_no_frame))
    }

    /// Each router's name and counters.
    pub fn routers(&self) -> impl Iterator<Item = (&str, RouterCounters)> {
        self.devices.iter().enumerate().filter_map(|(node, device)| match device {
            Device::Router(router) => Some((
                self.topology.name(NodeId(node as u32)),
                self.routers[*router as usize].counters,
            )),
            _ => None,
        })
    }

    /// Each wire's name and what its two directions counted.
    pub fn wires(&self) -> impl Iterator<Item = (String, [LinkCounters; 2])> {
        self.wires.iter().enumerate().map(|(number, wire)| {
            let name = self.topology.wire_name(WireId(number as u32));
            let counters = [0, 1].map(|end| LinkCounters {
                link: *wire.links[end].counters(),
                ..wire.counters[end]
            });
            (name, counters)
        })
    }
}
