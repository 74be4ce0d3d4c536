//! The writing end: what a channel or a port has to show itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use millrace_frames::Instant;

use crate::page::{Block, Page};
use crate::source::Source;
use crate::table::{Cell, Kind, Table};
use crate::{Ask, Values, server};

/// Shows one channel or port. It is taken off the page and the socket when it is dropped; taps are to
/// be dropped before, or those who look are waited for in vain.
#[derive(Debug)]
pub struct Publisher {
    page: Page,
    source: Arc<Source>,
    values: Values,
    generation: u32,
    failures: u64,
}

impl Publisher {
    /// Makes a page for `name`, and the process's socket if it is the first. `wake` is called from
    /// other threads when somebody has asked for something: it should make the owner look at
    /// [`Publisher::attention`] soon.
    ///
    /// # Errors
    /// What makes a folder, a file or a socket impossible, with its name.
    pub fn open(
        name: &str,
        now: Instant,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Publisher> {
        let place = server::register(name, Box::new(wake))?;
        let source = place.source;
        match Page::create(&place.folder, &place.identity, source.number, now) {
            Ok(page) => {
                let values = Values::default();
                Ok(Publisher { page, source, values, generation: 0, failures: 0 })
            }
            Err(error) => {
                server::leave(&source);
                Err(error)
            }
        }
    }

    /// Where its page is.
    pub fn path(&self) -> &std::path::Path {
        self.page.path()
    }

    /// Shows texts by name, instead of those before.
    pub fn publish_facts<'a>(
        &mut self,
        now: Instant,
        facts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let written = self.page.write(Block::Facts, 0, now, |bytes| {
            let columns = [("name", Kind::Text), ("text", Kind::Text)];
            let limit = bytes.len() + Block::Facts.capacity();
            let mut table = Table::new(bytes, "facts", &columns, limit);
            for (name, text) in facts {
                table.row([Cell::Text(name), Cell::Text(text)]);
            }
            table.finish(None);
        });
        self.failures += u64::from(written.is_err());
    }

    /// Shows the numbers that `collect` gives, instead of those before.
    pub fn publish_values(&mut self, now: Instant, collect: impl FnOnce(&mut Values)) {
        self.values.begin();
        collect(&mut self.values);
        let (values, names) = self.values.end();
        let mut result = Ok(());
        if let Some(names) = names {
            self.generation = self.generation.wrapping_add(1);
            result = self.page.write(Block::Names, self.generation, now, |bytes| {
                let columns = [("group", Kind::Text), ("name", Kind::Text), ("kind", Kind::Text)];
                let limit = bytes.len() + Block::Names.capacity();
                let mut table = Table::new(bytes, "names", &columns, limit);
                for (group, name, grows) in names {
                    table.row([Cell::Text(group), Cell::Text(name), Cell::Text(grows.name())]);
                }
                table.finish(None);
            });
        }
        let written = self.page.write(Block::Values, self.generation, now, |bytes| {
            let most = Block::Values.capacity() / 8;
            bytes.extend(values.iter().take(most).flat_map(|value| value.to_le_bytes()));
        });
        self.failures += u64::from(result.and(written).is_err());
    }

    /// Shows the tables that `fill` appends, instead of those before. It is given the length that
    /// the bytes may have, those that are there already included.
    pub fn publish_tables(&mut self, now: Instant, fill: impl FnOnce(&mut Vec<u8>, usize)) {
        let written = self.page.write(Block::Tables, 0, now, |bytes| {
            let limit = bytes.len() + Block::Tables.capacity();
            fill(bytes, limit);
        });
        self.failures += u64::from(written.is_err());
    }

    /// Writes to the page that failed, as on a file system that is full.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// A flag that is raised while somebody has asked for something. To be looked at once a turn: it
    /// is one load of a line that hardly ever changes.
    pub fn attention(&self) -> Arc<AtomicBool> {
        self.source.attention()
    }

    /// Takes what was asked for, and lowers the flag.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        self.source.take()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Nobody will answer these.
        drop(self.source.take());
        server::leave(&self.source);
    }
}
