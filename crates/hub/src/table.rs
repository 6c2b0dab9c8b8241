//! A table whose memory follows what is in it: indexes stay what they are, entries lie close together.
//!
//! A vector with holes keeps the size of its busiest hour for as long as one late entry is alive, wherever the holes
//! are. Here a removed entry's room is taken by the last one, and when three quarters of the room are free it is given
//! back. What stays of a former entry is four bytes.
//!
//! Not here: which indexes are free (their owner hands them out), and who may still use a former one (generations).

/// The place of an index that has no entry. A table of 2^32 entries does not fit into any machine's memory.
const NOWHERE: u32 = u32::MAX;

/// Below this room nothing is given back.
const SHRINK_ABOVE: usize = 64;

/// Entries by index.
#[derive(Debug)]
pub struct Table<T> {
    /// By index: where the entry lies.
    places: Vec<u32>,
    /// Entries in no order, each with its index.
    entries: Vec<(u32, T)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { places: Vec::new(), entries: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Puts an entry at an index; gives back the one that was there.
    pub fn put(&mut self, index: u32, entry: T) -> Option<T> {
        if let Some(old) = self.get_mut(index) {
            return Some(std::mem::replace(old, entry));
        }
        let at = index as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, NOWHERE);
        }
        self.places[at] = place(self.entries.len());
        self.entries.push((index, entry));
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let place = std::mem::replace(self.places.get_mut(index as usize)?, NOWHERE);
        if place == NOWHERE {
            return None;
        }
        let (_, entry) = self.entries.swap_remove(place as usize);
        if let Some((moved, _)) = self.entries.get(place as usize) {
            self.places[*moved as usize] = place;
        }
        if self.entries.capacity() > SHRINK_ABOVE && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        Some(entry)
    }

    /// An entry.
    pub fn get(&self, index: u32) -> Option<&T> {
        let place = *self.places.get(index as usize)?;
        self.entries.get(place as usize).map(|(_, entry)| entry)
    }

    /// An entry, to change it.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let place = *self.places.get(index as usize)?;
        self.entries.get_mut(place as usize).map(|(_, entry)| entry)
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries with their indexes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().map(|(index, entry)| (*index, entry))
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NOWHERE)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_that_was_large_gives_its_memory_back_whoever_stays() {
        let mut table = Table::default();
        for index in 0..10_000_u32 {
            assert_eq!(table.put(index, [index; 8]), None);
        }
        for index in (0..10_000).filter(|index| index % 20 != 7) {
            assert_eq!(table.remove(index), Some([index; 8]));
        }
        assert_eq!(table.len(), 500);
        assert!(table.entries.capacity() <= 2_000, "{}", table.entries.capacity());
        assert!(table.iter().all(|(index, entry)| index % 20 == 7 && *entry == [index; 8]));
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0..200_u32, any::<Option<u16>>()), 0..1_000)) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (index, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(table.put(index, value), map.insert(index, value)),
                    None => prop_assert_eq!(table.remove(index), map.remove(&index)),
                }
                prop_assert_eq!(table.get(index), map.get(&index));
                prop_assert_eq!(table.get_mut(index), map.get_mut(&index));
                prop_assert_eq!(table.len(), map.len());
            }
            let all: HashMap<_, _> = table.iter().map(|(index, value)| (index, *value)).collect();
            prop_assert_eq!(all, map);
        }
    }
}
