//! What a channel shows of itself to who watches from another process: numbers and tables on a page
//! now and then, parts of large tables and frames on request (crate `watch`).
//!
//! The packet's path pays one comparison and one load a turn. A page is written only after something
//! has happened, at most every [`VALUES_EVERY`].

use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_frames::Instant;
use millrace_stack::{AddressState, ConnectionInfo, TcpInfo};
use millrace_watch::{Ask, Cell, Kind, Publisher, Table, TableAsk, Tap, Values};

use crate::Channel;

/// How often numbers are written while something happens.
const VALUES_EVERY: Duration = Duration::from_millis(25);
/// How often tables are.
const TABLES_EVERY: Duration = Duration::from_secs(1);
/// Connections on the page, and entries that are looked at for them.
const PAGE_CONNECTIONS: usize = 256;
const PAGE_ENTRIES: usize = 4096;
/// Rows of each other table on the page.
const PAGE_ROWS: usize = 64;
/// Connections of one answer, and entries that are looked at for them: what one turn has time for.
const PART_CONNECTIONS: usize = 64;
const PART_ENTRIES: usize = 2048;
/// Taps at a time.
const MOST_TAPS: usize = 4;

/// The tables that may be asked for.
const TABLES: [&str; 5] = ["listeners", "sockets", "addresses", "routes", "neighbours"];

const BRIEF: [(&str, Kind); 10] = [
    ("local", Kind::Address),
    ("remote", Kind::Address),
    ("state", Kind::Text),
    ("send_queue", Kind::Number),
    ("receive_queue", Kind::Number),
    ("in_flight", Kind::Number),
    ("mss", Kind::Number),
    ("congestion_window", Kind::Number),
    ("round_trip_us", Kind::Number),
    ("retries", Kind::Number),
];

/// A channel's part in it. Without a publisher (switched off, or no folder to write to) all of this
/// does nothing.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Before the publisher, which is dropped after them so that their last frames are waited for.
    pub(crate) taps: Vec<Tap>,
    publisher: Option<Publisher>,
    attention: Arc<AtomicBool>,
    /// When to write; [`Instant::FAR_FUTURE`] while nothing has happened since the last time.
    due: Instant,
    /// When numbers, and tables, may be written again.
    values_at: Instant,
    tables_at: Instant,
    /// Packets at the front of the transmit batch that taps have seen.
    pub(crate) shown: usize,
}

impl Watched {
    pub(crate) fn off() -> Watched {
        Watched {
            publisher: None,
            attention: Arc::default(),
            due: Instant::FAR_FUTURE,
            values_at: Instant::FAR_FUTURE,
            tables_at: Instant::FAR_FUTURE,
            taps: Vec::new(),
            shown: 0,
        }
    }

    fn on(publisher: Publisher, now: Instant) -> Watched {
        Watched {
            attention: publisher.attention(),
            publisher: Some(publisher),
            due: now,
            values_at: now,
            tables_at: now,
            taps: Vec::with_capacity(MOST_TAPS),
            shown: 0,
        }
    }

    /// Something has happened that numbers will show.
    #[inline]
    pub(crate) fn note(&mut self) {
        self.due = self.due.min(self.values_at);
    }

    /// When to wake to write what nobody would write otherwise.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.due != Instant::FAR_FUTURE).then_some(self.due)
    }
}

impl Channel {
    /// Begins to show this channel. What makes that impossible is a fact, and no error: a program
    /// works as well unwatched.
    pub(crate) fn start_watch(&mut self) {
        let port = self.port.capabilities();
        let (name, bell) = (format!("{}:{}", port.kind, port.name), self.bell.clone());
        match Publisher::open(&name, self.now, move || bell.nudge()) {
            Ok(publisher) => {
                self.watched = Watched::on(publisher, self.now);
                self.show_facts();
                self.attend_now();
            }
            Err(error) => self.facts.push(("watch", format!("off: {error}"))),
        }
    }

    /// Shows how the channel works; again when it is known better.
    pub(crate) fn show_facts(&mut self) {
        let facts = self.watch_facts();
        if let Some(publisher) = &mut self.watched.publisher {
            let texts = facts.iter().map(|(name, text)| (*name, text.as_str()));
            publisher.publish_facts(self.now, texts);
        }
    }

    fn watch_facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = self.facts();
        let link = |path: &str| {
            std::fs::read_link(path).map(|to| to.to_string_lossy().into_owned()).unwrap_or_default()
        };
        // PID/task/TID, and net:[INODE]: which thread turns the channel, and where its interface is.
        let thread = link("/proc/thread-self");
        facts.push(("thread", thread.rsplit('/').next().unwrap_or_default().to_owned()));
        facts.push(("network namespace", link("/proc/thread-self/ns/net")));
        facts
    }

    /// Ends it, before the channel does.
    pub(crate) fn stop_watch(&mut self) {
        self.watched = Watched::off();
    }

    /// Writes what is due and answers what was asked.
    #[inline]
    pub(crate) fn attend(&mut self) {
        if self.now >= self.watched.due || self.watched.attention.load(Ordering::Relaxed) {
            self.attend_now();
        }
    }

    #[cold]
    fn attend_now(&mut self) {
        let Some(mut publisher) = self.watched.publisher.take() else { return };
        let now = self.now;
        if now >= self.watched.due {
            publisher.publish_values(now, |values| self.values(values));
            self.watched.values_at = now + VALUES_EVERY;
            self.watched.due = self.watched.tables_at;
            if now >= self.watched.tables_at {
                publisher.publish_tables(now, |bytes, limit| self.page_tables(bytes, limit));
                self.watched.tables_at = now + TABLES_EVERY;
                self.watched.due = Instant::FAR_FUTURE;
            }
            self.counters.watch_failures = publisher.failures();
        }
        if self.watched.attention.load(Ordering::Relaxed) {
            for ask in publisher.take_asks() {
                match ask {
                    Ask::Table(ask) => self.answer(ask),
                    Ask::Tap(tap) => {
                        self.watched.taps.retain(Tap::is_wanted);
                        // One too many is dropped, which its reader sees.
                        if self.watched.taps.len() < MOST_TAPS {
                            tap.place();
                            self.watched.taps.push(tap);
                        }
                    }
                    _ => {}
                }
            }
        }
        self.watched.publisher = Some(publisher);
    }

    /// Shows what has just been received.
    #[cold]
    pub(crate) fn show_received(&mut self) {
        self.watched.taps.retain(Tap::is_wanted);
        for tap in &mut self.watched.taps {
            tap.received(self.now, self.stack.arena(), &self.rx);
        }
    }

    /// Shows what is about to be sent and was not shown before.
    #[cold]
    pub(crate) fn show_sent(&mut self) {
        self.watched.taps.retain(Tap::is_wanted);
        let packets = &self.tx[self.watched.shown.min(self.tx.len())..];
        for tap in &mut self.watched.taps {
            tap.sent(self.now, self.stack.arena(), packets);
        }
    }

    fn values(&mut self, values: &mut Values) {
        let statistics = self.port.statistics();
        for (name, value) in [
            ("rx_packets", statistics.rx_packets),
            ("rx_bytes", statistics.rx_bytes),
            ("tx_packets", statistics.tx_packets),
            ("tx_bytes", statistics.tx_bytes),
            ("rx_bursts", statistics.rx_bursts),
            ("system_calls", statistics.system_calls),
        ] {
            values.counter("port", name, value);
        }
        for (name, value) in statistics.drops {
            values.counter("port_drop", name, value);
        }
        for (name, value) in statistics.details {
            values.counter("port_detail", name, value);
        }
        for (name, value) in self.counters.iter() {
            values.counter("channel", name, value);
        }
        for (name, value) in self.stack.counters().iter() {
            values.counter("stack", name, value);
        }
        let arena = self.stack.arena();
        for (name, value) in [
            ("frames_free", arena.free() as u64),
            ("frames", arena.frames() as u64),
            ("frame_bytes", arena.frame_size() as u64),
            ("connections", self.stack.connections() as u64),
            ("connections_most", self.stack.connection_entries() as u64),
            ("connections_time_wait", self.stack.time_wait_connections() as u64),
            ("connections_orphaned", self.stack.orphans() as u64),
            ("link_down", u64::from(self.link_down)),
        ] {
            values.gauge("state", name, value);
        }
        values.counter("state", "frames_exhausted", arena.exhausted());
    }

    fn page_tables(&self, bytes: &mut Vec<u8>, limit: usize) {
        for name in TABLES {
            self.table(name, bytes, limit, PAGE_ROWS);
        }
        let mut table = Table::new(bytes, "connections", &BRIEF, limit);
        let entries = 0..self.stack.connection_entries().min(PAGE_ENTRIES);
        let found = entries.filter_map(|index| self.stack.connection_at(index));
        for info in found.take(PAGE_CONNECTIONS) {
            table.row(brief(&info));
        }
        table.finish(Some(self.stack.connections() as u32));
    }

    fn answer(&self, ask: TableAsk) {
        let mut bytes = Vec::new();
        if ask.name == "connections" {
            let next = self.connections_part(ask.cursor as usize, &mut bytes);
            return ask.answer(bytes, next);
        }
        if TABLES.contains(&ask.name.as_str()) {
            // All of these are bounded by the configuration, at 65,534 rows.
            self.table(&ask.name, &mut bytes, usize::MAX, usize::MAX);
        }
        ask.answer(bytes, None);
    }

    /// Connections from entry `first` on, as many as a turn has time for, with all that TCP knows.
    fn connections_part(&self, first: usize, bytes: &mut Vec<u8>) -> Option<u32> {
        let mut columns = BRIEF.to_vec();
        columns.extend([("attached", Kind::Number), ("congestion_control", Kind::Text)]);
        columns.extend(TcpInfo::default().iter().map(|(name, _)| (name, Kind::Number)));
        let mut table = Table::new(bytes, "connections", &columns, usize::MAX);
        let mut rows = 0;
        let mut index = first;
        let end = self.stack.connection_entries().min(first.saturating_add(PART_ENTRIES));
        while index < end && rows < PART_CONNECTIONS {
            if let (Some(info), Some((tcp, algorithm))) =
                (self.stack.connection_at(index), self.stack.tcp_info_at(index))
            {
                let attached = u64::from(self.stack.is_attached(index));
                let more = [Cell::Number(attached), Cell::Text(algorithm.name())];
                let tcp = tcp.iter().map(|(_, value)| Cell::Number(value));
                table.row(brief(&info).into_iter().chain(more).chain(tcp));
                rows += 1;
            }
            index += 1;
        }
        table.finish(Some(self.stack.connections() as u32));
        (index < self.stack.connection_entries()).then_some(index as u32)
    }

    fn table(&self, name: &str, bytes: &mut Vec<u8>, limit: usize, most: usize) {
        let number = |value: u64| Cell::Number(value);
        match name {
            "listeners" => {
                let columns = [
                    ("local", Kind::Address),
                    ("accept_queue", Kind::Number),
                    ("backlog", Kind::Number),
                    ("half_open", Kind::Number),
                    ("syn_queue", Kind::Number),
                    ("cookies", Kind::Number),
                ];
                let mut table = Table::new(bytes, name, &columns, limit);
                for one in self.stack.listeners().take(most) {
                    table.row([
                        Cell::Address(Some(one.local)),
                        number(one.accept_queue.into()),
                        number(one.backlog.into()),
                        number(one.half_open.into()),
                        number(one.syn_queue.into()),
                        number(one.cookies.into()),
                    ]);
                }
                table.finish(Some(self.stack.listeners().count() as u32));
            }
            "sockets" => {
                let columns = [
                    ("local", Kind::Address),
                    ("remote", Kind::Address),
                    ("queued", Kind::Number),
                    ("dropped", Kind::Number),
                ];
                let mut table = Table::new(bytes, name, &columns, limit);
                for one in self.stack.datagram_sockets().take(most) {
                    table.row([
                        Cell::Address(Some(one.local)),
                        Cell::Address(one.remote),
                        number(one.queued.into()),
                        number(one.dropped),
                    ]);
                }
                table.finish(Some(self.stack.datagram_sockets().count() as u32));
            }
            "addresses" => {
                let columns = [("address", Kind::Text), ("state", Kind::Text)];
                let mut table = Table::new(bytes, name, &columns, limit);
                for one in self.stack.addresses().take(most) {
                    let address = format!("{}/{}", one.address, one.prefix);
                    table.row([Cell::Text(&address), Cell::Text(state(one.state))]);
                }
                table.finish(Some(self.stack.addresses().count() as u32));
            }
            "routes" => {
                let columns =
                    [("destination", Kind::Text), ("gateway", Kind::Text), ("origin", Kind::Text)];
                let mut table = Table::new(bytes, name, &columns, limit);
                for one in self.stack.routes().take(most) {
                    let destination = format!("{}/{}", one.route.destination, one.route.prefix);
                    let gateway = one.route.gateway.map(|gateway| gateway.to_string());
                    let origin = format!("{:?}", one.origin).to_lowercase();
                    let gateway = gateway.as_deref().unwrap_or_default();
                    table.row([Cell::Text(&destination), Cell::Text(gateway), Cell::Text(&origin)]);
                }
                table.finish(Some(self.stack.routes().count() as u32));
            }
            _ => {
                let columns = [("address", Kind::Text), ("mac", Kind::Text), ("state", Kind::Text)];
                let mut table = Table::new(bytes, name, &columns, limit);
                for one in self.stack.neighbours().take(most) {
                    let mac = one.mac.map(|mac| mac.to_string()).unwrap_or_default();
                    let address = one.address.to_string();
                    table.row([
                        Cell::Text(&address),
                        Cell::Text(&mac),
                        Cell::Text(one.state.name()),
                    ]);
                }
                table.finish(Some(self.stack.neighbours().count() as u32));
            }
        }
    }
}

fn brief(info: &ConnectionInfo) -> [Cell<'static>; 10] {
    [
        Cell::Address(Some(info.local)),
        Cell::Address(Some(info.remote)),
        Cell::Text(info.state.name()),
        Cell::Number(info.send_queue.into()),
        Cell::Number(info.receive_queue.into()),
        Cell::Number(info.in_flight.into()),
        Cell::Number(info.mss.into()),
        Cell::Number(info.congestion_window.into()),
        Cell::Number(info.round_trip.as_micros() as u64),
        Cell::Number(info.retries.into()),
    ]
}

fn state(state: AddressState) -> &'static str {
    match state {
        AddressState::Tentative => "tentative",
        AddressState::Optimistic => "optimistic",
        AddressState::Preferred => "preferred",
        AddressState::Deprecated => "deprecated",
        AddressState::Duplicate => "duplicate",
    }
}

/// Whether channels show themselves unless told otherwise: `MILLRACE_WATCH` is not 0, off or no.
pub(crate) fn by_default() -> bool {
    std::env::var("MILLRACE_WATCH")
        .map_or(true, |value| !matches!(value.as_str(), "0" | "off" | "no"))
}

impl Channel {
    /// The file of the page that this channel shows itself on, if it does.
    ///
    /// # Errors
    /// `NotFound` says why it does not.
    pub fn watch_page(&self) -> io::Result<&std::path::Path> {
        self.watched.publisher.as_ref().map(Publisher::path).ok_or_else(|| {
            let why = self.facts.iter().find(|(name, _)| *name == "watch");
            let why = why.map_or("switched off", |(_, text)| text.as_str());
            io::Error::new(io::ErrorKind::NotFound, format!("this channel is not watched: {why}"))
        })
    }
}
