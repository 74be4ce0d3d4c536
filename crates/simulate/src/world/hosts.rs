//! A turn of a host: its stack takes, tells its applications, and sends.

use super::*;

impl World {
    /// A host takes what came, runs its timers, tells its applications, and sends.
    pub(super) fn turn(&mut self, host: usize) {
        if self.hosts[host].gone {
            return;
        }
        let now = self.now;
        self.turns += 1;
        if self.turns > TURNS {
            if self.turns == TURNS + 1 {
                let node = self.hosts[host].node;
                let name = self.topology.name(node).to_owned();
                self.violate(format!("{name} has something to do at once, again and again"));
            }
            return;
        }
        let state = &mut self.hosts[host];
        state.stack.receive(now, &mut state.rx);
        state.stack.advance(now);
        loop {
            let mut moved = false;
            while let Some(event) = self.hosts[host].stack.next_event() {
                moved = true;
                self.hear(host, event);
            }
            moved |= self.transmit(host);
            if !moved {
                break;
            }
        }
        let state = &mut self.hosts[host];
        state.turns += 1;
        // Long queues make the check slow, so a long run is only looked at now and then.
        if self.settings.check && (state.turns < 500 || state.turns.is_multiple_of(16)) {
            state.stack.check_invariants();
        }
        if let Some(deadline) = state.stack.next_deadline()
            && deadline < state.timer
        {
            state.timer = deadline.max(now);
            self.events.push(state.timer, Event::Timer { host: host as u32 });
        }
    }

    pub(super) fn transmit(&mut self, host: usize) -> bool {
        let mut moved = false;
        let (wire, end) = self.ports[self.hosts[host].node.index()][0];
        loop {
            let state = &mut self.hosts[host];
            if state.stack.transmit(self.now, &mut state.tx) == 0 {
                return moved;
            }
            moved = true;
            for at in 0..self.hosts[host].tx.len() {
                let state = &mut self.hosts[host];
                let packet = state.tx[at];
                if !state.spec.transmit_time.is_zero() {
                    state.sent_at = sent(self.now, state.sent_at, state.spec.transmit_time);
                    state.sending.push_back(packet);
                    self.events.push(state.sent_at, Event::Sent { host: host as u32 });
                    continue;
                }
                let number = self.packets.take();
                self.packets.get(number).gather(state.stack.arena(), &packet);
                state.stack.arena_mut().transmitted(&packet);
                self.send(wire, end, number);
            }
            self.hosts[host].tx.clear();
        }
    }

    pub(super) fn hear(&mut self, host: usize, event: StackEvent) {
        match event {
            StackEvent::Accept(listener) => self.accept(host, listener),
            StackEvent::Connection(id, ready) => match self.hosts[host].holder(id) {
                Holder::Endpoint(endpoint) if self.endpoints[endpoint as usize].id == Some(id) => {
                    let stack = &mut self.hosts[host].stack;
                    let state = &mut self.endpoints[endpoint as usize];
                    state.hear(stack, &self.content, self.now, ready);
                    self.act(endpoint);
                }
                Holder::External(external) if self.externals[external as usize].id == Some(id) => {
                    let stack = &mut self.hosts[host].stack;
                    self.externals[external as usize].hear(
                        ExternalId(external),
                        stack,
                        ready,
                        &mut self.notices,
                    );
                }
                _ => self.violate(format!("{ready:?} was told of a connection that was let go of")),
            },
            StackEvent::Datagram(_) => self.violate("a datagram without a socket".into()),
        }
    }

    pub(super) fn accept(&mut self, host: usize, listener: ListenerId) {
        let Some(&(_, port, server)) = self.hosts[host].listeners.get(&listener.index()) else {
            return self.violate("an event of a listener that there is not".into());
        };
        let stack = &mut self.hosts[host].stack;
        let Ok(Some(id)) = stack.accept(listener) else { return };
        let info = stack.info(id).expect("just accepted");
        if info.local.port() != port {
            self.violate(format!("accepted at port {} for port {port}", info.local.port()));
        }
        match server {
            Server::External(handler) => {
                let external = External::new(host as u32, id, true);
                let connection = self.add_external(host, external);
                self.notices.push_back(Notice::Accepted { handler, connection });
            }
            Server::Conversations => {
                let key = (host as u32, port, info.remote);
                let endpoint = self.expected.get(&key).map(|number| number * 2 + 1);
                let fresh = endpoint.filter(|&at| {
                    let state = &self.endpoints[at as usize];
                    state.id.is_none() && !state.over()
                });
                let Some(endpoint) = fresh else {
                    // A SYN that came twice, long after the first was over.
                    self.strays += 1;
                    let stack = &mut self.hosts[host].stack;
                    stack.abort(id);
                    stack.release(id);
                    return;
                };
                let state = &mut self.endpoints[endpoint as usize];
                let stack = &mut self.hosts[host].stack;
                state.set_up(stack, id);
                state.hear(stack, &self.content, self.now, Ready::CONNECTED);
                self.hosts[host].set_holder(id, Holder::Endpoint(endpoint));
                self.act(endpoint);
            }
        }
    }

    pub(super) fn act(&mut self, endpoint: u32) {
        let state = &mut self.endpoints[endpoint as usize];
        let stack = &mut self.hosts[state.host as usize].stack;
        let next = state.act(stack, &self.content, self.now);
        if let Some(next) = next
            && state.scheduled.is_none_or(|at| next < at)
        {
            state.scheduled = Some(next);
            self.events.push(next, Event::Look { endpoint });
        }
        if let Some(wrong) = state.wrong.take() {
            let (conversation, side) = (state.conversation, state.side);
            self.violate(format!(
                "conversation {conversation}, {}: {wrong}",
                ["client", "server"][usize::from(side)]
            ));
        }
    }
}
