//! What a scenario asks of a world: conversations, changes, and connections of its own.

use super::*;

impl World {
    /// Plans a conversation.
    ///
    /// # Errors
    /// `InvalidInput` for nodes that are no two hosts, and when the port is the scenario's own.
    pub fn converse(&mut self, conversation: Conversation) -> io::Result<()> {
        self.series(conversation, 1, Duration::ZERO)
    }

    /// Plans `count` conversations of a kind, one every `interval`.
    ///
    /// # Errors
    /// As [`World::converse`].
    pub fn series(
        &mut self,
        conversation: Conversation,
        count: u64,
        interval: Duration,
    ) -> io::Result<()> {
        let (client, server) =
            (self.host_of(conversation.client)?, self.host_of(conversation.server)?);
        if client == server {
            return Err(invalid(format!(
                "{} would talk to itself; a stack has no loopback",
                self.topology.name(conversation.client)
            )));
        }
        if conversation.exchange.is_some_and(|one| one.request == 0 || one.response == 0) {
            return Err(invalid("a request and a response have at least one byte".into()));
        }
        self.check_ipv6(conversation.ipv6)?;
        match self.hosts[server].listens(conversation.port) {
            Some(Server::Conversations) => {}
            Some(Server::External(_)) => {
                return Err(invalid(format!(
                    "port {} of {} is the scenario's own",
                    conversation.port,
                    self.topology.name(conversation.server)
                )));
            }
            None => self.hosts[server].listen(
                conversation.port,
                Server::Conversations,
                self.settings.ipv6,
            )?,
        }
        let start = self.settings.epoch + conversation.start;
        self.series.push(Series { conversation, left: count, interval });
        if count > 0 {
            let series = self.series.len() as u32 - 1;
            self.events.push(start.max(self.now), Event::Start { series });
        }
        Ok(())
    }

    /// Plans a change, `at` counted from the start.
    ///
    /// # Errors
    /// `InvalidInput` for a change that makes no sense.
    pub fn change(&mut self, at: Duration, change: Change) -> io::Result<()> {
        match &change {
            Change::Vanish(node) | Change::Reboot(node) => {
                self.host_of(*node)?;
            }
            Change::Impair(_, directions) => {
                for direction in directions.iter() {
                    direction.validate()?;
                }
            }
            Change::Mtu(_, mtu) if *mtu < 576 => {
                return Err(invalid(format!("a wire's MTU is 576 to 65535 bytes, not {mtu}")));
            }
            _ => {}
        }
        self.changes.push(change);
        let number = self.changes.len() as u32 - 1;
        self.events.push((self.settings.epoch + at).max(self.now), Event::Change { number });
        Ok(())
    }

    /// Has [`Notice::Call`] told with `number` at a time counted from the start.
    pub fn call_at(&mut self, at: Duration, number: u64) {
        self.events.push((self.settings.epoch + at).max(self.now), Event::Call { number });
    }

    /// Listens at a host; what comes is told with `handler`'s number.
    ///
    /// # Errors
    /// As the stack's `listen`.
    pub fn listen(&mut self, node: NodeId, port: u16, handler: u32) -> io::Result<()> {
        let host = self.host_of(node)?;
        if self.hosts[host].listens(port).is_some() {
            let name = self.topology.name(node);
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("port {port} of {name} is taken"),
            ));
        }
        let ipv6 = self.settings.ipv6;
        self.hosts[host].listen(port, Server::External(handler), ipv6)
    }

    /// Connects from a host.
    ///
    /// # Errors
    /// As the stack's `connect`.
    pub fn connect(&mut self, node: NodeId, remote: SocketAddr) -> io::Result<ExternalId> {
        let host = self.host_of(node)?;
        let id = self.hosts[host].stack.connect(remote, None)?;
        let external = External::new(host as u32, id, false);
        Ok(self.add_external(host, external))
    }

    pub(super) fn add_external(&mut self, host: usize, external: External) -> ExternalId {
        let number = self.externals.len() as u32;
        let id = external.id.expect("just made");
        self.hosts[host].set_holder(id, Holder::External(number));
        self.externals.push(external);
        self.touch(host);
        ExternalId(number)
    }

    pub(super) fn with<T>(
        &mut self,
        connection: ExternalId,
        act: impl FnOnce(&mut External, &mut Host) -> T,
    ) -> io::Result<T> {
        let Some(external) = self.externals.get_mut(connection.0 as usize) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if external.id.is_none() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed"));
        }
        let host = external.host as usize;
        let done = act(external, &mut self.hosts[host]);
        self.externals[connection.0 as usize].work(
            connection,
            &mut self.hosts[host].stack,
            &mut self.notices,
        );
        self.touch(host);
        Ok(done)
    }

    /// Writes to a connection of the scenario's. All is taken; what the stack has no room for waits.
    ///
    /// # Errors
    /// `NotConnected` when it is closed, `BrokenPipe` after a shutdown.
    pub fn write(&mut self, connection: ExternalId, data: &[u8]) -> io::Result<()> {
        let ends = self.externals.get(connection.0 as usize).is_some_and(External::ends_writing);
        if ends {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "writing was shut down"));
        }
        self.with(connection, |external, _| external.write(data))
    }

    /// No more is written after what was.
    ///
    /// # Errors
    /// `NotConnected` when it is closed.
    pub fn shutdown(&mut self, connection: ExternalId) -> io::Result<()> {
        self.with(connection, |external, _| external.shut())
    }

    /// Closes when all that was written is with the stack. Nothing more is told of the connection.
    /// One that is over stays so.
    pub fn close(&mut self, connection: ExternalId) {
        let _ = self.with(connection, |external, _| external.close());
    }

    /// Resets the connection. One that is over stays so.
    pub fn abort(&mut self, connection: ExternalId) {
        let _ = self.with(connection, |external, host| external.abort(&mut host.stack));
    }

    /// Leaves what comes in with the stack, so that its window closes, until it is read again.
    ///
    /// # Errors
    /// `NotConnected` when it is closed.
    pub fn pause(&mut self, connection: ExternalId, paused: bool) -> io::Result<()> {
        self.with(connection, |external, _| external.pause(paused))
    }

    /// A look at a connection of the scenario's; when it is over, the last one.
    pub fn info(&self, connection: ExternalId) -> Option<ConnectionInfo> {
        self.look(connection).map(|(info, _)| info)
    }

    /// The same under the names of Linux's `struct tcp_info`.
    pub fn tcp_info(&self, connection: ExternalId) -> Option<TcpInfo> {
        self.look(connection).map(|(_, tcp)| tcp)
    }

    fn look(&self, connection: ExternalId) -> Option<(ConnectionInfo, TcpInfo)> {
        let external = self.externals.get(connection.0 as usize)?;
        match external.id {
            Some(id) => look(&self.hosts[external.host as usize].stack, id),
            None => external.last,
        }
    }

    /// Bytes that were written and wait for room in the stack.
    pub fn waiting(&self, connection: ExternalId) -> usize {
        self.externals.get(connection.0 as usize).map_or(0, External::waiting)
    }

    /// The next thing that the scenario must know.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}
