//! Numbers that stand for what was written before.

use std::{borrow::Borrow, hash::Hash};

use polletto_protos::InternedString;
use rustc_hash::FxHashMap;

/// One field of `InternedData`: equal keys have equal numbers, from 1 on, for the whole recording.
#[derive(Debug)]
pub struct InternTable<K> {
    iids: FxHashMap<K, u64>,
}

impl<K> Default for InternTable<K> {
    fn default() -> InternTable<K> {
        InternTable { iids: FxHashMap::default() }
    }
}

impl<K: Eq + Hash> InternTable<K> {
    /// The key's number. If it is new, `define` writes what it stands for.
    pub fn iid<Q>(&mut self, key: &Q, define: impl FnOnce(u64)) -> u64
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(&iid) = self.iids.get(key) {
            return iid;
        }
        let iid = self.iids.len() as u64 + 1;
        define(iid);
        self.iids.insert(key.to_owned(), iid);
        iid
    }
}

/// As [`InternTable`], of keys that come and go: which were not asked for since many others were are forgotten. Asked for
/// again, they are defined again, under another number. No number ever stands for two keys.
#[derive(Debug)]
pub struct RecentTable<K> {
    recent: FxHashMap<K, u64>,
    /// Those that will be forgotten next, unless they are asked for before.
    older: FxHashMap<K, u64>,
    /// How many numbers were given away.
    numbers: u64,
    limit: usize,
}

impl<K: Copy + Eq + Hash> RecentTable<K> {
    /// Keeps the last `limit` keys that were asked for, and at most twice as many.
    pub fn new(limit: usize) -> RecentTable<K> {
        RecentTable { recent: FxHashMap::default(), older: FxHashMap::default(), numbers: 0, limit }
    }

    /// See [`InternTable::iid`].
    pub fn iid(&mut self, key: K, define: impl FnOnce(u64)) -> u64 {
        if let Some(&iid) = self.recent.get(&key) {
            return iid;
        }
        let iid = self.older.get(&key).copied().unwrap_or_else(|| {
            self.numbers += 1;
            define(self.numbers);
            self.numbers
        });
        if self.recent.len() >= self.limit {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, iid);
        iid
    }

    /// Forgets all others.
    pub fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        for keys in [&mut self.recent, &mut self.older] {
            keys.retain(|key, _| stays(key));
        }
    }
}

impl<K> InternTable<K> {
    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.iids.len()
    }

    /// All keys, and their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.iids.iter().map(|(key, &iid)| (key, iid))
    }
}

impl InternTable<Vec<u8>> {
    /// The number of a text or of any bytes, which `new` defines if it was not there before.
    pub fn string(&mut self, bytes: &[u8], new: &mut Vec<InternedString>) -> u64 {
        self.iid(bytes, |iid| new.push(InternedString { iid: Some(iid), str: Some(bytes.to_vec()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_long_not_asked_for_gets_another_number_and_nothing_else_does() {
        let mut table = RecentTable::new(2);
        let mut defined = Vec::new();
        let mut ask = |table: &mut RecentTable<char>, key: char| {
            let iid = table.iid(key, |iid| defined.push((key, iid)));
            assert!(defined.contains(&(key, iid)));
            iid
        };
        // The first one is asked for again and again.
        let iids: Vec<u64> = "abacadaeab".chars().map(|key| ask(&mut table, key)).collect();
        assert_eq!(iids, [1, 2, 1, 3, 1, 4, 1, 5, 1, 6]);
        assert!(table.recent.len() + table.older.len() <= 4);
        table.retain(|&key| key == 'a');
        assert_eq!([ask(&mut table, 'a'), ask(&mut table, 'b')], [1, 7]);
    }

    #[test]
    fn a_text_is_defined_once_and_never_as_0() {
        let (mut table, mut new) = (InternTable::default(), Vec::new());
        let iids = [&b"usr"[..], b"lib", b"usr"].map(|text| table.string(text, &mut new));
        assert_eq!(iids, [1, 2, 1]);
        assert_eq!(
            new.iter().map(|entry| (entry.iid(), entry.str())).collect::<Vec<_>>(),
            [(1, &b"usr"[..]), (2, b"lib")]
        );
    }
}
