//! Tables that say themselves what is in them, so that a reader of another version still reads them.
//!
//! Little-endian. A name is a length byte and UTF-8; then come the number of columns (1 byte) and for
//! each its kind (1 byte) and name; the number of rows (4 bytes) and of how many they are a part
//! (4 bytes); then the rows, cell by cell. A cell is, by its column's kind: `0` a number of 8 bytes;
//! `1` a text, a length byte and UTF-8; `2` an address, one byte 0 (none), 4 or 6, as many bytes as
//! that family's addresses have, and a port of 2 bytes.

use core::net::{IpAddr, SocketAddr};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A number.
    Number = 0,
    /// At most 255 bytes of text.
    Text = 1,
    /// An address with a port, or none.
    Address = 2,
}

/// What is in a row's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Of a [`Kind::Number`].
    Number(u64),
    /// Of a [`Kind::Text`].
    Text(&'a str),
    /// Of a [`Kind::Address`].
    Address(Option<SocketAddr>),
}

impl Cell<'_> {
    fn kind(&self) -> Kind {
        match self {
            Cell::Number(_) => Kind::Number,
            Cell::Text(_) => Kind::Text,
            Cell::Address(_) => Kind::Address,
        }
    }
}

/// Appends one table to a list of bytes.
#[derive(Debug)]
pub struct Table<'a> {
    bytes: &'a mut Vec<u8>,
    columns: &'a [(&'a str, Kind)],
    /// Where the number of rows stands.
    count_at: usize,
    rows: u32,
    limit: usize,
    /// Rows that found no room.
    left_out: u32,
}

impl<'a> Table<'a> {
    /// Starts a table. Rows that would make `bytes` longer than `limit` are left out.
    ///
    /// # Panics
    /// With more than 255 columns.
    pub fn new(
        bytes: &'a mut Vec<u8>,
        name: &str,
        columns: &'a [(&'a str, Kind)],
        limit: usize,
    ) -> Table<'a> {
        put_text(bytes, name);
        bytes.push(u8::try_from(columns.len()).expect("a table has at most 255 columns"));
        for (name, kind) in columns {
            bytes.push(*kind as u8);
            put_text(bytes, name);
        }
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        Table { bytes, columns, count_at, rows: 0, limit, left_out: 0 }
    }

    /// Adds a row. Returns whether there was room for it.
    ///
    /// # Panics
    /// In debug builds when the cells are not what the columns say.
    pub fn row<'c>(&mut self, cells: impl IntoIterator<Item = Cell<'c>>) -> bool {
        let start = self.bytes.len();
        let mut columns = self.columns.iter();
        for cell in cells {
            let column = columns.next().map(|(_, kind)| *kind);
            debug_assert_eq!(column, Some(cell.kind()), "row {}", self.rows);
            put(self.bytes, &cell);
        }
        debug_assert_eq!(columns.len(), 0, "cells are missing");
        if self.bytes.len() > self.limit {
            self.bytes.truncate(start);
            self.left_out += 1;
            return false;
        }
        self.rows += 1;
        true
    }

    /// Ends the table. `total` is of how many rows these are a part; `None`: of those that were
    /// added or found no room.
    pub fn finish(self, total: Option<u32>) {
        let total = total.unwrap_or(self.rows + self.left_out);
        let at = self.count_at;
        self.bytes[at..at + 4].copy_from_slice(&self.rows.to_le_bytes());
        self.bytes[at + 4..at + 8].copy_from_slice(&total.to_le_bytes());
    }
}

fn put(bytes: &mut Vec<u8>, cell: &Cell<'_>) {
    match cell {
        Cell::Number(number) => bytes.extend_from_slice(&number.to_le_bytes()),
        Cell::Text(text) => put_text(bytes, text),
        Cell::Address(None) => bytes.extend_from_slice(&[0; 3]),
        Cell::Address(Some(address)) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_le_bytes());
        }
    }
}

/// At most 255 bytes, cut where a character begins.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes.push(end as u8);
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_described() {
        let mut bytes = Vec::new();
        let columns = [("n", Kind::Number), ("t", Kind::Text), ("a", Kind::Address)];
        let mut table = Table::new(&mut bytes, "x", &columns, 1 << 20);
        let cells = |address: &str| {
            [Cell::Number(0x0102), Cell::Text("ab"), Cell::Address(address.parse().ok())]
        };
        assert!(table.row(cells("192.0.2.1:80")));
        assert!(table.row(cells("")));
        table.finish(Some(9));
        let mut wanted = b"\x01x\x03\x00\x01n\x01\x01t\x02\x01a\x02\0\0\0\x09\0\0\0".to_vec();
        wanted.extend_from_slice(b"\x02\x01\0\0\0\0\0\0\x02ab\x04\xc0\0\x02\x01\x50\0");
        wanted.extend_from_slice(b"\x02\x01\0\0\0\0\0\0\x02ab\0\0\0");
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn rows_without_room_are_counted_and_text_is_cut_between_characters() {
        let mut bytes = Vec::new();
        let columns = [("t", Kind::Text)];
        let mut table = Table::new(&mut bytes, "x", &columns, 300);
        let long = "ä".repeat(200);
        assert!(table.row([Cell::Text(&long)]));
        assert!(!table.row([Cell::Text(&long)]));
        table.finish(None);
        assert_eq!(bytes[6..14], [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[14], 254);
        assert!(bytes.len() < 300);
    }
}
