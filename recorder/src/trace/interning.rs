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

impl<K> InternTable<K> {
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
