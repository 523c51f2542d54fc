//! Lines that were written twice: a line's name in, whether it was there before out.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashSet;

use crate::recorded::Head;

/// Names that are remembered: 4 MiB or so.
const REMEMBERED: usize = 1 << 18;

/// Finds lines that were there before.
#[derive(Debug, Default)]
pub struct Twice {
    names: HashSet<u64>,
    order: VecDeque<u64>,
    /// By a key of this process's own: nobody can make two names that are taken for one.
    hasher: RandomState,
}

impl Twice {
    /// Whether a line of this name was among the last that are remembered. A line without a name was not.
    pub fn is_again(&mut self, head: &Head<'_>) -> bool {
        let name = match (&head.stream, head.seq, &head.id) {
            (Some(stream), Some(seq), _) => self.hasher.hash_one((stream, seq)),
            (_, _, Some(id)) => self.hasher.hash_one(id),
            _ => return false,
        };
        if !self.names.insert(name) {
            return true;
        }
        self.order.push_back(name);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        false
    }
}
