//! A cache bounded by bytes that forgets what was used longest ago.

use std::collections::HashMap;

/// Values by number.
pub(crate) struct Lru<V> {
    entries: HashMap<u32, CachedValue<V>>,
    capacity: usize,
    bytes: usize,
    clock: u64,
}

struct CachedValue<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<V> Lru<V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            capacity,
            bytes: 0,
            clock: 0,
        }
    }

    /// Marks an entry as used; says whether it is there.
    pub(crate) fn touch(&mut self, key: u32) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get(&mut self, key: u32) -> Option<&V> {
        self.clock += 1;
        let entry = self.entries.get_mut(&key)?;
        entry.used = self.clock;
        Some(&entry.value)
    }

    /// Adds an entry and, when the capacity is passed, forgets the oldest until a quarter is free. The newest always stays.
    pub(crate) fn insert(&mut self, key: u32, value: V, bytes: usize) {
        self.clock += 1;
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(
            key,
            CachedValue {
                value,
                bytes,
                used: self.clock,
            },
        ) {
            self.bytes -= old.bytes;
        }
        if self.bytes > self.capacity {
            self.evict(key);
        }
    }

    fn evict(&mut self, keep: u32) {
        let mut ages: Vec<(u64, u32)> = self
            .entries
            .iter()
            .map(|(k, e)| (e.used, *k))
            .filter(|a| a.1 != keep)
            .collect();
        ages.sort_unstable();
        for (_, key) in ages {
            if self.bytes <= self.capacity / 4 * 3 {
                break;
            }
            if let Some(old) = self.entries.remove(&key) {
                self.bytes -= old.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_go_first_and_the_newest_stays() {
        let mut cache = Lru::new(100);
        for key in 0..4 {
            cache.insert(key, key, 25);
        }
        assert!(cache.touch(0));
        cache.insert(4, 4, 25);
        assert!(cache.touch(0) && cache.touch(4) && !cache.touch(1) && !cache.touch(2));
        cache.insert(5, 5, 1000);
        assert!(cache.touch(5) && !cache.touch(0));
        cache.insert(6, 6, 10);
        assert!(cache.touch(6) && !cache.touch(5));
    }
}
