//! What must hold of a stack between any two calls. For tests and fuzzing: it walks everything.

use millrace_frames::{Frame, Owners};
use millrace_wire::seq::Seq;

use crate::stack::Stack;
use crate::tcp::connection::{Connection, Features, Flags, NO_LINK, State};
use crate::tcp::list::List;
use crate::tcp::receive_window::ROUNDING;
use crate::tcp::timers::EXPIRY_SHIFT;

impl Stack {
    /// Asserts that lists, counts and queues agree with each other.
    ///
    /// # Panics
    /// When they do not: a mistake in this crate, whatever the peer sent.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        self.check_entries();
        self.check_lists();
        self.check_transfers();
        assert!(self.path_mtus.len() <= usize::from(self.config.path_mtus), "path MTUs");
        self.check_listeners();
        self.check_addresses();
        self.reassembly.check(&self.arena);
        self.check_sockets();
        self.igmp.check();
        self.mld.check();
        let waiting: u32 = self
            .connections
            .iter()
            .filter_map(|one| self.transfers.get(one.transfer))
            .map(|transfer| u32::from(transfer.blocks.frames()))
            .sum();
        assert_eq!(waiting, self.out_of_order_total, "frames out of order");
        let orphans = self.connections.iter().filter(|one| one.features.has(Features::ORPHAN));
        assert_eq!(orphans.count(), self.orphans as usize, "orphans");
        for (index, connection) in self.connections.iter().enumerate() {
            if connection.state != State::Closed {
                self.check_timers(index, connection);
                self.check_sending(connection);
            }
            if connection.state != State::Closed || connection.flags.has(Flags::ATTACHED) {
                self.check_receiving(index, connection);
                self.check_out_of_order(index);
            }
        }
    }

    fn check_entries(&self) {
        let mut free = 0;
        let mut at = self.free_connections;
        while at != NO_LINK {
            let connection = &self.connections[at as usize];
            assert_eq!(connection.state, State::Closed, "free entry {at}");
            let taken = Flags::IN_TABLE.with(Flags::ATTACHED).with(Flags::IN_ACCEPT);
            assert!(!connection.flags.has(taken), "free entry {at} is {:?}", connection.flags);
            let armed = Flags::REXMIT_ARMED.with(Flags::DELACK_ARMED).with(Flags::EXPIRE_ARMED);
            assert!(!connection.flags.has(armed), "free entry {at} waits for time");
            free += 1;
            assert!(free <= self.connections.len(), "the free list is a ring");
            at = connection.link;
        }
        let in_use = self.connections.len() - free;
        assert_eq!(in_use, self.connections_in_use as usize, "entries in use");
        for (index, connection) in self.connections.iter().enumerate() {
            if connection.flags.has(Flags::IN_TABLE) {
                let found =
                    self.flows.find(self.flow_hash(&self.tuple_of(index)), |at| at == index as u32);
                assert!(found.is_some(), "entry {index} is not in the flow table");
            }
            let synchronised = connection.state != State::Closed;
            assert_eq!(synchronised, connection.flags.has(Flags::IN_TABLE), "entry {index}");
        }
    }

    fn check_transfers(&self) {
        let mut taken: Vec<u32> =
            self.connections.iter().map(|one| one.transfer).filter(|&at| at != NO_LINK).collect();
        taken.sort_unstable();
        let count = taken.len();
        taken.dedup();
        assert_eq!(taken.len(), count, "two connections have one record");
        assert_eq!(count, self.transfers.in_use(), "records in use");
        for (index, connection) in self.connections.iter().enumerate() {
            let plain =
                connection.flags.has(Flags::HALF_OPEN) && !connection.flags.has(Flags::CUSTOM);
            assert!(
                !plain || connection.transfer == NO_LINK,
                "half-open entry {index} has a record"
            );
        }
    }

    fn check_lists(&self) {
        let walk = |list: List, flag: Flags, next: fn(&Connection) -> u32, name: &str| {
            let (mut at, mut last, mut count) = (list.head, NO_LINK, 0);
            while at != NO_LINK {
                let connection = &self.connections[at as usize];
                assert!(connection.flags.has(flag), "{at} is on {name} without its flag");
                count += 1;
                assert!(count <= self.connections.len(), "{name} is a ring");
                (last, at) = (at, next(connection));
            }
            assert_eq!(last, list.tail, "the end of {name}");
            let flagged = self.connections.iter().filter(|one| one.flags.has(flag)).count();
            assert_eq!(count, flagged, "{name}");
        };
        walk(self.out, Flags::IN_OUT, |one| one.out_next, "out");
        walk(self.ready, Flags::IN_READY, |one| one.ready_next, "ready");
        let starved = self.connections.iter().filter(|one| one.flags.has(Flags::IN_STARVED));
        assert_eq!(starved.count(), self.starved.len(), "starved");
        let flagged = |&at: &u32| self.connections[at as usize].flags.has(Flags::IN_STARVED);
        assert!(self.starved.iter().all(flagged), "starved without its flag");

        let (mut at, mut before, mut count) = (self.fin_wait_2.head, NO_LINK, 0);
        while at != NO_LINK {
            let connection = &self.connections[at as usize];
            let orphan = connection.features.has(Features::ORPHAN);
            assert!(orphan && connection.state == State::FinWait2, "on the FIN-WAIT-2 list");
            assert_eq!(connection.link_back, before, "back link on the FIN-WAIT-2 list");
            count += 1;
            (before, at) = (at, connection.link);
        }
        assert_eq!(before, self.fin_wait_2.tail, "the end of FIN-WAIT-2");
        let waits =
            |one: &&Connection| one.state == State::FinWait2 && one.features.has(Features::ORPHAN);
        assert_eq!(count, self.connections.iter().filter(waits).count(), "FIN-WAIT-2");

        let (mut at, mut before, mut count) = (self.time_wait.head, NO_LINK, 0);
        while at != NO_LINK {
            let connection = &self.connections[at as usize];
            assert_eq!(connection.state, State::TimeWait, "on the TIME-WAIT list");
            assert_eq!(connection.link_back, before, "back link on the TIME-WAIT list");
            count += 1;
            (before, at) = (at, connection.link);
        }
        assert_eq!(before, self.time_wait.tail, "the end of TIME-WAIT");
        assert_eq!(count, self.time_wait_count, "TIME-WAIT");
        let states = self.connections.iter().filter(|one| one.state == State::TimeWait).count();
        assert_eq!(count as usize, states, "TIME-WAIT");
    }

    fn check_timers(&self, index: usize, connection: &Connection) {
        let armed = Flags::REXMIT_ARMED.with(Flags::DELACK_ARMED).with(Flags::EXPIRE_ARMED);
        if connection.flags.has(armed) {
            let expires = self.wheel.expires(index as u32).expect("a deadline without a timer");
            // What the timer is set to tells what has passed of the deadlines' 32 bits.
            for (flag, at, since) in [
                (Flags::REXMIT_ARMED, connection.rexmit_at, expires),
                (Flags::DELACK_ARMED, connection.delack_at, expires),
                (Flags::EXPIRE_ARMED, connection.expire_at, expires >> EXPIRY_SHIFT),
            ] {
                let early =
                    connection.flags.has(flag) && (at.wrapping_sub(since as u32) as i32) < 0;
                assert!(!early, "a deadline before the timer: {connection:?}");
            }
        }
        let outstanding = connection.snd_una != connection.snd_nxt;
        if outstanding {
            let pending = Flags::REXMIT_ARMED.with(Flags::IN_OUT);
            assert!(
                connection.flags.has(pending),
                "unacknowledged data without a timer: {connection:?}"
            );
        }
        if connection.state == State::TimeWait {
            assert!(connection.flags.has(Flags::EXPIRE_ARMED), "TIME-WAIT without an end");
        }
    }

    fn check_sending(&self, connection: &Connection) {
        let Connection { snd_una, snd_nxt, snd_end, .. } = *connection;
        assert!(snd_una.le(snd_nxt), "{snd_una} {snd_nxt}");
        if let Some(transfer) = self.transfers.get(connection.transfer) {
            transfer.sent.check(snd_una, snd_nxt);
        }
        let fin = u32::from(connection.flags.has(Flags::FIN_QUEUED));
        assert!(snd_nxt.le(snd_end + fin), "sent {snd_nxt} of {snd_end}");
        let (mut at, mut last, mut frames) = (connection.send.head, Frame::NONE, 0u16);
        let mut cursor_seen = connection.cursor.is_none();
        let mut seq: Option<Seq> = None;
        while at.is_some() {
            let meta = self.arena.meta(at);
            assert!(self.arena.owners(at).contains(Owners::UNACKED), "{at:?} in a send queue");
            let start = Seq(meta.mark);
            assert!(seq.is_none_or(|seq| seq == start), "a hole in the send queue");
            if seq.is_none() {
                assert!(start.le(snd_una.max(start)) && snd_una.lt(start + u32::from(meta.len)));
            }
            if at == connection.cursor {
                cursor_seen = true;
                let end = start + u32::from(meta.len);
                // What was written before the SYN went out lies behind it.
                let begun = !connection.flags.has(Flags::SEND_SYN);
                assert!(snd_nxt.le(end) && (snd_nxt.ge(start) || !begun), "the cursor's frame");
            }
            seq = Some(start + u32::from(meta.len));
            frames = frames.saturating_add(1);
            (last, at) = (at, meta.next);
        }
        assert_eq!(frames, connection.send_frames, "frames of the send queue");
        assert_eq!(last, connection.send.tail, "the end of the send queue");
        assert!(cursor_seen, "the cursor is not in the send queue");
        if let Some(seq) = seq {
            assert_eq!(seq, snd_end, "the send queue's last byte");
        }
    }

    fn check_receiving(&self, index: usize, connection: &Connection) {
        let (mut at, mut last) = (connection.receive.head, Frame::NONE);
        let (mut frames, mut bytes) = (0u32, 0u32);
        while at.is_some() {
            assert!(self.arena.owners(at).contains(Owners::RECEIVED), "{at:?} in a receive queue");
            let meta = self.arena.meta(at);
            frames += 1;
            bytes += u32::from(meta.len);
            (last, at) = (at, meta.next);
        }
        assert_eq!(last, connection.receive.tail, "the end of the receive queue");
        let counted = (u32::from(connection.receive_frames), connection.receive_bytes);
        assert_eq!((frames, bytes), counted, "the receive queue");
        let limit = self.receive_limit(index);
        let most = limit + limit / ROUNDING;
        assert!(bytes <= most || connection.flags.has(Flags::CUSTOM), "{bytes} bytes");

        let (mut at, mut last) = (connection.out_of_order.head, Frame::NONE);
        let mut seq: Option<Seq> = None;
        while at.is_some() {
            assert!(self.arena.owners(at).contains(Owners::RECEIVED), "{at:?} out of order");
            let meta = self.arena.meta(at);
            assert!(seq.is_none_or(|seq| seq.le(Seq(meta.mark))), "out of order is not in order");
            assert!(Seq(meta.mark).gt(connection.rcv_nxt), "out of order what is in order");
            seq = Some(Seq(meta.mark));
            (last, at) = (at, meta.next);
        }
        assert_eq!(last, connection.out_of_order.tail, "the end of the out-of-order queue");
    }

    fn check_addresses(&self) {
        let mut users = [0u32; 256];
        let mut free = vec![false; self.connections.len()];
        let mut at = self.free_connections;
        while at != NO_LINK {
            free[at as usize] = true;
            at = self.connections[at as usize].link;
        }
        for (connection, _) in self.connections.iter().zip(free).filter(|(_, free)| !free) {
            users[usize::from(connection.local)] += 1;
        }
        for (local, counted) in self.addresses.users().enumerate() {
            assert_eq!(users[local], counted, "connections of address {local}");
        }
    }

    fn check_listeners(&self) {
        let all: u32 = self.listeners.iter().map(|listener| listener.half_open).sum();
        assert_eq!(all, self.half_open_total, "half-open connections");
        for (number, listener) in self.listeners.iter().enumerate() {
            let mut queued = 0;
            let (mut at, mut last) = (listener.head, NO_LINK);
            while at != NO_LINK {
                let connection = &self.connections[at as usize];
                assert!(connection.flags.has(Flags::IN_ACCEPT), "{at} on an accept queue");
                assert_eq!(usize::from(connection.listener), number);
                queued += 1;
                (last, at) = (at, connection.link);
            }
            assert_eq!(last, listener.tail, "the end of an accept queue");
            assert_eq!(queued, listener.queued, "accept queue of listener {number}");
            assert!(queued <= listener.backlog);
            let (mut at, mut before, mut listed, mut young) =
                (listener.half_open_list.head, NO_LINK, 0, 0);
            while at != NO_LINK {
                let connection = &self.connections[at as usize];
                assert!(connection.flags.has(Flags::HALF_OPEN), "{at} on a half-open list");
                assert_eq!(connection.link_back, before, "back link of a half-open list");
                listed += 1;
                young += u32::from(connection.retries == 0);
                (before, at) = (at, connection.link);
            }
            assert_eq!(before, listener.half_open_list.tail, "the end of a half-open list");
            assert_eq!((listed, young), (listener.half_open, listener.young), "half-open list");
            let early = self.connections.iter().filter(|one| {
                one.features.has(Features::EARLY) && usize::from(one.listener) == number
            });
            assert_eq!(early.count(), listener.fast_open.count as usize, "early connections");
            let half_open = self
                .connections
                .iter()
                .filter(|one| {
                    one.flags.has(Flags::HALF_OPEN) && usize::from(one.listener) == number
                })
                .count();
            assert_eq!(half_open, listener.half_open as usize, "half-open of listener {number}");
        }
    }
}
