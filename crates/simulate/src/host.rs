//! A host: a stack, the port that joins it to its wire, and whose each connection is.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use millrace_frames::{
    Arena, ArenaConfig, Duration, Hugepages, Instant, RxBatch, Transmit, TxBatch,
};
use millrace_stack::{ConnectionId, InterfaceAddress, ListenerId, Route, Stack};

use crate::random::Dice;
use crate::topology::{HostSpec, Interface, NodeId, PREFIX_V4, PREFIX_V6, Plan};

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    Endpoint(u32),
    External(u32),
}

/// Who takes the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Conversations.
    Conversations,
    /// The scenario's handler of this number.
    External(u32),
}

pub(crate) struct Host {
    pub(crate) node: NodeId,
    pub(crate) interface: Interface,
    pub(crate) spec: HostSpec,
    pub(crate) stack: Stack,
    pub(crate) rx: RxBatch,
    pub(crate) tx: TxBatch,
    /// The earliest timer event that is queued.
    pub(crate) timer: Instant,
    /// Packets that the port has not sent yet, and when it will have sent the last of them.
    pub(crate) sending: VecDeque<Transmit>,
    pub(crate) sent_at: Instant,
    holders: Vec<Holder>,
    pub(crate) listeners: BTreeMap<usize, (ListenerId, u16, Server)>,
    /// It vanished: nothing goes in or out any more.
    pub(crate) gone: bool,
    pub(crate) dirty: bool,
    /// Packets that found no frame.
    pub(crate) rx_no_frame: u64,
    /// Stacks that it had.
    boots: u64,
    /// Turns of its stacks.
    pub(crate) turns: u64,
}

impl Host {
    pub(crate) fn new(
        node: NodeId,
        spec: HostSpec,
        plan: &Plan,
        seed: u64,
        ipv6: bool,
        now: Instant,
    ) -> io::Result<Host> {
        let interface = plan.interfaces[plan.of_node[node.index()][0]];
        let stack = boot(node, &spec, interface, plan, seed, ipv6, now)?;
        let holders = vec![Holder::Nobody; stack.config().connections as usize];
        Ok(Host {
            node,
            interface,
            spec,
            stack,
            rx: RxBatch::new(),
            tx: TxBatch::new(),
            timer: Instant::FAR_FUTURE,
            sending: VecDeque::new(),
            sent_at: now,
            holders,
            listeners: BTreeMap::new(),
            gone: false,
            dirty: true,
            rx_no_frame: 0,
            boots: 0,
            turns: 0,
        })
    }

    /// Starts anew, with a stack that knows nothing of the old one's connections.
    pub(crate) fn reboot(
        &mut self,
        plan: &Plan,
        seed: u64,
        ipv6: bool,
        now: Instant,
    ) -> io::Result<()> {
        self.boots += 1;
        let seed = seed ^ self.boots << 48;
        self.stack = boot(self.node, &self.spec, self.interface, plan, seed, ipv6, now)?;
        self.holders.fill(Holder::Nobody);
        self.rx.clear();
        self.sending.clear();
        self.timer = Instant::FAR_FUTURE;
        self.sent_at = now;
        self.gone = false;
        // One a port, whatever the families, and in an order that is the same every time.
        let listeners = core::mem::take(&mut self.listeners);
        let servers: BTreeMap<u16, Server> =
            listeners.into_values().map(|(_, port, server)| (port, server)).collect();
        for (port, server) in servers {
            self.listen(port, server, ipv6)?;
        }
        Ok(())
    }

    pub(crate) fn listen(&mut self, port: u16, server: Server, ipv6: bool) -> io::Result<()> {
        for ipv6 in [false, true].into_iter().filter(|&v6| !v6 || ipv6) {
            let local = (self.interface.address(ipv6), port).into();
            let id = self.stack.listen(local, 128)?;
            self.listeners.insert(id.index(), (id, port, server));
        }
        Ok(())
    }

    pub(crate) fn listens(&self, port: u16) -> Option<Server> {
        self.listeners.values().find(|entry| entry.1 == port).map(|entry| entry.2)
    }

    pub(crate) fn holder(&self, id: ConnectionId) -> Holder {
        self.holders[id.index()]
    }

    pub(crate) fn set_holder(&mut self, id: ConnectionId, holder: Holder) {
        self.holders[id.index()] = holder;
    }

    /// Frames that somebody owns.
    pub(crate) fn frames_in_use(&self) -> usize {
        self.stack.arena().frames() - self.stack.arena().free()
    }
}

fn boot(
    node: NodeId,
    spec: &HostSpec,
    interface: Interface,
    plan: &Plan,
    seed: u64,
    ipv6: bool,
    now: Instant,
) -> io::Result<Stack> {
    let mut dice = Dice::new(seed).part(u64::from(node.0));
    let segment = interface.segment as usize;
    let mut config = spec.config.clone();
    config.mac = interface.mac;
    config.mtu = plan.mtu[segment];
    config.seed = [dice.roll(), dice.roll(), dice.roll(), dice.roll()];
    config.tx_gso = spec.super_segments.into();
    config.tx_checksum = spec.super_segments > 0;
    config.addresses = vec![InterfaceAddress { address: interface.v4.into(), prefix: PREFIX_V4 }];
    let gateway = plan.gateways[segment].map(|router| plan.interfaces[router]);
    config.gateway = gateway.map(|router| router.v4.into());
    if ipv6 {
        config.addresses.push(InterfaceAddress { address: interface.v6.into(), prefix: PREFIX_V6 });
    }
    let arena = Arena::new(ArenaConfig {
        frames: spec.frames,
        frame_size: spec.frame_size,
        hugepages: Hugepages::Never,
    })?;
    let mut stack = Stack::new(config, arena, now)?;
    if let Some(router) = gateway.filter(|_| ipv6) {
        stack.add_route(Route::default_by(router.v6.into()))?;
    }
    Ok(stack)
}

/// How long a port needs for the next packet.
pub(crate) fn sent(now: Instant, before: Instant, time: Duration) -> Instant {
    now.max(before) + time
}
