//! The flow table: from a hash to the number of an entry, flat, by linear probing.
//!
//! A slot holds 32 bits of hash and 32 bits of index, so a look-up that misses touches one cache
//! line and no entry. It never grows and is never more than half full.

/// Open-addressing table of `(hash, index)`. Keys themselves live with the entries.
#[derive(Debug)]
pub(crate) struct FlowTable {
    /// 0 is empty; else hash in the upper half and index + 1 in the lower.
    slots: Box<[u64]>,
    mask: usize,
}

impl FlowTable {
    /// A table for at most `entries`.
    pub(crate) fn new(entries: u32) -> Self {
        let size = (entries as usize * 2).next_power_of_two().max(16);
        FlowTable { slots: vec![0; size].into_boxed_slice(), mask: size - 1 }
    }

    /// The index that was inserted with `hash` and for which `is_it` holds.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut position = hash as usize & self.mask;
        loop {
            let slot = self.slots[position];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == hash {
                let index = slot as u32 - 1;
                if is_it(index) {
                    return Some(index);
                }
            }
            position = (position + 1) & self.mask;
        }
    }

    /// Adds an entry. The caller keeps to the number of entries given at the start.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, index: u32) {
        let mut position = hash as usize & self.mask;
        while self.slots[position] != 0 {
            position = (position + 1) & self.mask;
        }
        self.slots[position] = u64::from(hash) << 32 | u64::from(index + 1);
    }

    /// Removes an entry. Later ones of the same run move up, so no tombstones are left.
    pub(crate) fn remove(&mut self, hash: u32, index: u32) -> bool {
        let wanted = u64::from(hash) << 32 | u64::from(index + 1);
        let mut hole = hash as usize & self.mask;
        while self.slots[hole] != wanted {
            if self.slots[hole] == 0 {
                return false;
            }
            hole = (hole + 1) & self.mask;
        }
        let mut position = hole;
        loop {
            position = (position + 1) & self.mask;
            let slot = self.slots[position];
            if slot == 0 {
                break;
            }
            let home = (slot >> 32) as usize & self.mask;
            // Move it only if its home is not between the hole and where it stands.
            if position.wrapping_sub(home) & self.mask >= position.wrapping_sub(hole) & self.mask {
                self.slots[hole] = slot;
                hole = position;
            }
        }
        self.slots[hole] = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(operations in prop::collection::vec((0u32..64, any::<bool>()), 0..400)) {
            // Few distinct hashes, so that runs are long and overlap.
            let hash_of = |index: u32| ((index % 7) * 3).wrapping_add(0xffff_fff0);
            let mut table = FlowTable::new(64);
            let mut model = HashMap::new();
            for (index, insert) in operations {
                if insert && !model.contains_key(&index) {
                    table.insert(hash_of(index), index);
                    model.insert(index, ());
                } else if !insert {
                    prop_assert_eq!(table.remove(hash_of(index), index), model.remove(&index).is_some());
                }
                for index in 0..64 {
                    let found = table.find(hash_of(index), |at| at == index);
                    prop_assert_eq!(found.is_some(), model.contains_key(&index));
                }
            }
        }
    }
}
