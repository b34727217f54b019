//! Changes of bytes that were right, or nearly.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A change of the whole.
#[derive(Debug, Clone)]
pub enum Mutation {
    /// A bit of one byte.
    Flip(Index, u8),
    /// A byte is missing.
    Delete(Index),
    /// There is one more.
    Insert(Index, u8),
    /// All from here on is missing.
    Truncate(Index),
    /// A stretch comes twice.
    Repeat(Index, u8),
}

impl Mutation {
    /// Changes the bytes; where there are none there is nothing to change.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Mutation::Flip(place, bit) => {
                let place = place.index(bytes.len());
                bytes[place] ^= 1 << (bit % 8);
            }
            Mutation::Delete(place) => {
                bytes.remove(place.index(bytes.len()));
            }
            Mutation::Insert(place, byte) => bytes.insert(place.index(bytes.len()), *byte),
            Mutation::Truncate(place) => bytes.truncate(place.index(bytes.len())),
            Mutation::Repeat(place, length) => {
                let from = place.index(bytes.len());
                let to = (from + usize::from(*length)).min(bytes.len());
                let stretch = bytes[from..to].to_vec();
                bytes.splice(from..from, stretch);
            }
        }
    }
}

/// Any of them; what is inserted is mostly one of `special`.
pub fn mutation(special: &'static [u8]) -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![3 => select(special), 1 => any::<u8>()];
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(place, bit)| Mutation::Flip(place, bit)),
        2 => any::<Index>().prop_map(Mutation::Delete),
        4 => (any::<Index>(), byte).prop_map(|(place, byte)| Mutation::Insert(place, byte)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(place, many)| Mutation::Repeat(place, many)),
    ]
}
