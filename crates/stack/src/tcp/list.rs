//! Lists of connections through fields of their own: they take no memory beside the table, and any
//! connection leaves one in a few steps.
//!
//! `link` and `link_back` serve one list at a time: a listener's half-open connections, those that are
//! closed and wait for their peer's FIN, and those in TIME-WAIT.

use core::mem::replace;

use super::connection::{Connection, NO_LINK};

/// A list through one of the connections' link fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { head: NO_LINK, tail: NO_LINK };

    /// Puts a connection that is on no list by `link` behind the others of this one.
    #[inline]
    pub(crate) fn push_back(&mut self, connections: &mut [Connection], index: usize) {
        let back = replace(&mut self.tail, index as u32);
        connections[index].link = NO_LINK;
        connections[index].link_back = back;
        match back {
            NO_LINK => self.head = index as u32,
            back => connections[back as usize].link = index as u32,
        }
    }

    /// Takes a connection off this list, wherever it is on it.
    #[inline]
    pub(crate) fn remove(&mut self, connections: &mut [Connection], index: usize) {
        let connection = &mut connections[index];
        let back = replace(&mut connection.link_back, NO_LINK);
        let next = replace(&mut connection.link, NO_LINK);
        match back {
            NO_LINK => self.head = next,
            back => connections[back as usize].link = next,
        }
        match next {
            NO_LINK => self.tail = back,
            next => connections[next as usize].link_back = back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(list: &List, connections: &[Connection]) -> Vec<u32> {
        let (mut at, mut before, mut seen) = (list.head, NO_LINK, Vec::new());
        while at != NO_LINK {
            seen.push(at);
            assert_eq!(connections[at as usize].link_back, before);
            (before, at) = (at, connections[at as usize].link);
        }
        assert_eq!(list.tail, before);
        seen
    }

    #[test]
    fn who_leaves_first_last_or_between_leaves_the_others_in_order() {
        for (leaves, left) in [(4, vec![2, 0]), (2, vec![4, 0]), (0, vec![4, 2])] {
            let mut connections = [Connection::EMPTY; 5];
            let mut list = List::EMPTY;
            for index in [4, 2, 0] {
                list.push_back(&mut connections, index);
            }
            assert_eq!(walked(&list, &connections), [4, 2, 0]);
            list.remove(&mut connections, leaves);
            assert_eq!(walked(&list, &connections), left);
            list.push_back(&mut connections, leaves);
            assert_eq!(walked(&list, &connections).last(), Some(&(leaves as u32)));
            for index in [4, 2, 0] {
                list.remove(&mut connections, index);
            }
            assert!(walked(&list, &connections).is_empty());
        }
    }
}
