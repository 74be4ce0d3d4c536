//! The connection table: entries taken and given back, and the lists that run through them.

use millrace_frames::Owners;

use super::connection::{Connection, Features, Flags, NO_LINK, Ready, State};
use super::traffic::Traffic;
use crate::address::Word;
use crate::ip::pseudo;
use crate::memory::LEAST;
use crate::stack::Stack;

/// The four numbers that name a connection, ours as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FourTuple {
    pub(crate) remote: Word,
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    pub(crate) local: u8,
}

impl FourTuple {
    /// For keyed functions of the four numbers.
    pub(crate) fn words(&self) -> [u64; 3] {
        [
            self.remote as u64,
            (self.remote >> 64) as u64,
            u64::from(self.remote_port) << 32
                | u64::from(self.local_port) << 16
                | u64::from(self.local),
        ]
    }
}

impl Stack {
    #[inline(always)]
    pub(crate) fn flow_hash(&self, tuple: &FourTuple) -> u32 {
        let ports = u32::from(tuple.remote_port) << 16 | u32::from(tuple.local_port);
        self.keys.flow(tuple.remote, ports, tuple.local)
    }

    #[inline(always)]
    pub(crate) fn find_connection(&self, hash: u32, tuple: &FourTuple) -> Option<usize> {
        let connections = &self.connections;
        self.flows
            .find(hash, |index| {
                let connection = &connections[index as usize];
                connection.remote == tuple.remote
                    && connection.remote_port == tuple.remote_port
                    && connection.local_port == tuple.local_port
                    && connection.local == tuple.local
            })
            .map(|index| index as usize)
    }

    /// Takes an entry and puts it into the flow table. When none is free, the oldest in TIME-WAIT
    /// makes way, or the oldest that is closed and has only its peer's FIN to wait for.
    pub(crate) fn take_connection(&mut self, hash: u32, tuple: &FourTuple) -> Option<usize> {
        if self.free_connections == NO_LINK {
            self.recycle_time_wait();
        }
        if self.free_connections == NO_LINK && !self.end_fin_wait_2() {
            self.counters.drop_no_connection_entry += 1;
            return None;
        }
        let index = self.free_connections as usize;
        let address_sum = pseudo(self.addresses.word(tuple.local), tuple.remote, 0, 0);
        let neighbour = self.last_neighbour(tuple.remote, tuple.local);
        self.addresses.hold(tuple.local);
        let connection = &mut self.connections[index];
        self.free_connections = connection.link;
        // A freed entry may still be on the lists of those that send or tell; its place there is
        // kept, and does no harm.
        let mut flags = Flags::default();
        for list in [Flags::IN_OUT, Flags::IN_READY, Flags::IN_STARVED] {
            if connection.flags.has(list) {
                flags.set(list);
            }
        }
        flags.set(Flags::IN_TABLE);
        if self.config.no_delay {
            flags.set(Flags::NO_DELAY);
        }
        *connection = Connection {
            remote: tuple.remote,
            remote_port: tuple.remote_port,
            local_port: tuple.local_port,
            local: tuple.local,
            address_sum,
            flags,
            out_next: connection.out_next,
            ready_next: connection.ready_next,
            generation: connection.generation,
            algorithm: self.config.congestion,
            neighbour,
            traffic: Traffic::new(self.now_ms),
            ..Connection::EMPTY
        };
        self.connections_in_use += 1;
        self.flows.insert(hash, index as u32);
        Some(index)
    }

    /// Frees the oldest entry in TIME-WAIT that no application holds: whoever holds one must first
    /// hear that it is over.
    fn recycle_time_wait(&mut self) {
        let mut at = self.time_wait.head;
        while at != NO_LINK {
            let connection = &self.connections[at as usize];
            if !connection.flags.has(Flags::ATTACHED) {
                self.counters.time_wait_recycled += 1;
                return self.free_connection(at as usize);
            }
            at = connection.link;
        }
    }

    /// The tuple by which a connection is found.
    pub(crate) fn tuple_of(&self, index: usize) -> FourTuple {
        let Connection { remote, remote_port, local_port, local, .. } = self.connections[index];
        FourTuple { remote, remote_port, local_port, local }
    }

    fn leave_flow_table(&mut self, index: usize) {
        if self.connections[index].flags.has(Flags::IN_TABLE) {
            self.connections[index].flags.clear(Flags::IN_TABLE);
            // Hashed anew: that is cheaper than four bytes in every entry.
            let hash = self.flow_hash(&self.tuple_of(index));
            self.flows.remove(hash, index as u32);
        }
    }

    /// Gives an entry and all its frames back.
    pub(crate) fn free_connection(&mut self, index: usize) {
        if self.connections[index].state == State::TimeWait {
            self.leave_time_wait(index);
        }
        self.leave_half_open(index);
        self.leave_early(index);
        self.leave_orphans(index);
        self.leave_accept_queue(index);
        self.discard_out_of_order(index);
        self.release_transfer(index);
        self.leave_flow_table(index);
        let connection = &mut self.connections[index];
        connection.forget_data(&mut self.arena);
        connection.receive.release_all(&mut self.arena, Owners::RECEIVED);
        connection.state = State::Closed;
        self.addresses.let_go(connection.local);
        connection.flags.clear(
            Flags::IN_TABLE
                .with(Flags::ATTACHED)
                .with(Flags::REXMIT_ARMED)
                .with(Flags::DELACK_ARMED)
                .with(Flags::EXPIRE_ARMED),
        );
        connection.ready = Ready::default();
        connection.generation = connection.generation.wrapping_add(1);
        connection.link = self.free_connections;
        self.free_connections = index as u32;
        self.connections_in_use -= 1;
        // Its timer stays on the wheel: running out it finds nothing armed, and the next
        // connection of this entry may well want one that is no later.
    }

    /// The connection is over, but its application does not know yet: all it has is given back
    /// but the entry, which says how it ended until the application lets go.
    pub(crate) fn end_connection(&mut self, index: usize) {
        if self.connections[index].state == State::TimeWait {
            self.leave_time_wait(index);
        }
        self.leave_half_open(index);
        self.stop_chronograph(index);
        // What was received and acknowledged is the application's, who may not know of it yet.
        let connection = &self.connections[index];
        let worth = connection.features.has(Features::EARLY) || connection.receive_bytes > 0;
        let queued = worth && connection.flags.has(Flags::IN_ACCEPT);
        self.leave_early(index);
        if !queued && !self.connections[index].flags.has(Flags::ATTACHED) {
            return self.free_connection(index);
        }
        self.discard_out_of_order(index);
        let connection = &mut self.connections[index];
        connection.state = State::Closed;
        connection.flags.clear(
            Flags::REXMIT_ARMED
                .with(Flags::DELACK_ARMED)
                .with(Flags::EXPIRE_ARMED)
                .with(Flags::SEND_SYN)
                .with(Flags::PROBE),
        );
        connection.acks_owed = 0;
        connection.forget_data(&mut self.arena);
        self.leave_flow_table(index);
        self.tell(index, Ready::CLOSED);
    }

    /// Whoever may have been waiting is told, once a turn.
    #[inline]
    pub(crate) fn tell(&mut self, index: usize, ready: Ready) {
        let connection = &mut self.connections[index];
        connection.ready.set(ready);
        if connection.flags.has(Flags::IN_READY) || !connection.flags.has(Flags::ATTACHED) {
            return;
        }
        connection.flags.set(Flags::IN_READY);
        connection.ready_next = NO_LINK;
        match self.ready.tail {
            NO_LINK => self.ready.head = index as u32,
            tail => self.connections[tail as usize].ready_next = index as u32,
        }
        self.ready.tail = index as u32;
    }

    pub(crate) fn pop_ready(&mut self) -> Option<usize> {
        if self.ready.head == NO_LINK {
            return None;
        }
        let index = self.ready.head as usize;
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::IN_READY);
        self.ready.head = connection.ready_next;
        if self.ready.head == NO_LINK {
            self.ready.tail = NO_LINK;
        }
        Some(index)
    }

    /// A write found no free frame: whoever waits is told when there are some again, for perhaps
    /// nothing is in flight whose acknowledgement would do it. One that has its share has something
    /// in flight.
    pub(crate) fn push_starved(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::IN_STARVED) || connection.send_frames >= LEAST {
            return;
        }
        connection.flags.set(Flags::IN_STARVED);
        self.starved.push_back(index as u32);
    }

    /// Tells as many of the starved connections as there are frames, the longest waiting first.
    pub(crate) fn feed_starved(&mut self) {
        let reserve = self.config.frame_reserve as usize;
        for _ in reserve..self.arena.free() {
            let Some(index) = self.starved.pop_front() else { return };
            let index = index as usize;
            let connection = &mut self.connections[index];
            connection.flags.clear(Flags::IN_STARVED);
            let over = matches!(connection.state, State::Closed | State::TimeWait);
            if connection.flags.has(Flags::WANT_WRITE) && !over {
                connection.flags.clear(Flags::WANT_WRITE);
                self.tell(index, Ready::WRITABLE);
            }
        }
    }

    /// Something is to be sent at the end of the turn.
    #[inline]
    pub(crate) fn push_out(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::IN_OUT) {
            return;
        }
        connection.flags.set(Flags::IN_OUT);
        connection.out_next = NO_LINK;
        match self.out.tail {
            NO_LINK => self.out.head = index as u32,
            tail => self.connections[tail as usize].out_next = index as u32,
        }
        self.out.tail = index as u32;
    }

    /// The first connection with something to send; there must be one.
    #[inline]
    pub(crate) fn pop_out(&mut self) -> usize {
        let index = self.out.head as usize;
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::IN_OUT);
        self.out.head = connection.out_next;
        if self.out.head == NO_LINK {
            self.out.tail = NO_LINK;
        }
        index
    }

    /// Enters TIME-WAIT: buffers go, the four numbers stay for twice the segment lifetime.
    pub(crate) fn enter_time_wait(&mut self, index: usize) {
        if self.time_wait_count >= self.config.time_wait_connections.max(1) {
            self.counters.time_wait_recycled += 1;
            let oldest = self.time_wait.head as usize;
            self.forget_time_wait(oldest);
        }
        self.leave_orphans(index);
        self.discard_out_of_order(index);
        let connection = &mut self.connections[index];
        connection.state = State::TimeWait;
        connection.flags.clear(Flags::REXMIT_ARMED.with(Flags::DELACK_ARMED));
        connection.forget_data(&mut self.arena);
        if connection.flags.has(Flags::ATTACHED) {
            self.give_back_if_plain(index);
        } else {
            self.release_transfer(index);
        }
        self.time_wait.push_back(&mut self.connections, index);
        self.time_wait_count += 1;
        self.arm_expiry(index, self.config.time_wait);
        self.tell(index, Ready::CLOSED);
    }

    /// Ends a TIME-WAIT; an application that still has the handle keeps the entry, closed.
    pub(crate) fn forget_time_wait(&mut self, index: usize) {
        self.end_connection(index);
    }

    pub(crate) fn leave_time_wait(&mut self, index: usize) {
        self.time_wait.remove(&mut self.connections, index);
        self.time_wait_count -= 1;
        // No longer TIME-WAIT, so that it is not taken off the list again.
        self.connections[index].state = State::Closed;
    }
}
