//! Stacks by the thousand, and on request by the million.

use oomtrace::facts::{Decoder, OomKillFacts};

use crate::{
    impossible,
    rules::told,
    world::{AT, CURRENT, IN_POD, LEADER, MEMCGS, NODES, OF_HOST, Oc, TASK, WORDS, kill, layout, search},
};

/// SplitMix64: the same stacks in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// A word as stacks hold it. What makes the struct is among them, but for `without`.
    fn word(&mut self, without: Lack) -> u64 {
        let random = self.next();
        match self.below(12) {
            0 | 1 => 0,
            2 if without != Lack::Pages => random % 4,
            3 if without != Lack::Pages => random % 100_000,
            // Two halves: flags and an order, a constraint and what fills it up.
            4 if without != Lack::Pages => ((random % 4) << 32) | ((random >> 32) % (1 << 29)),
            5 => MEMCGS[self.below(3)],
            6 | 7 if without != Lack::Chosen => [TASK, LEADER, CURRENT][self.below(3)],
            8 if without != Lack::Anchor => AT + random % WORDS as u64 * 8,
            9 => NODES + random % 1000 * 8,
            10 => 0xffff_ffff_8100_0000 + random % (1 << 24),
            _ => random | 1 << 41,
        }
    }
}

/// What no word of a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Anchor,
    Chosen,
    /// A number that can be one of pages.
    Pages,
    /// Any words at all, each of its own.
    Everything,
}

fn fill(random: &mut Random, bytes: &mut [u8], without: Lack) {
    for word in bytes.chunks_exact_mut(8) {
        let value = if without == Lack::Everything { random.next() } else { random.word(without) };
        word.copy_from_slice(&value.to_ne_bytes());
    }
}

/// The victim allocates itself, or another one does.
fn any_kill(random: &mut Random) -> OomKillFacts {
    let mut facts = kill();
    if random.below(2) == 0 {
        facts.trigger.tgid = facts.victim.tgid;
    }
    facts
}

fn random_stacks(count: u64) {
    let (mut random, mut search) = (Random(1), search());
    for n in 0..count {
        let without = [Lack::Anchor, Lack::Chosen, Lack::Pages, Lack::Everything][random.below(4)];
        let mut facts = any_kill(&mut random);
        fill(&mut random, &mut facts.stack.as_mut().unwrap().bytes, without);
        let found = search.find(&facts);
        assert!(found.is_none(), "stack {n} without {without:?}: {found:?}");
    }
}

fn impossible_stacks(count: u64) {
    let (mut random, mut search, layout) = (Random(2), search(), layout());
    for n in 0..count {
        let ways = impossible::all(random.next());
        let (why, oc) = ways[random.below(ways.len())];
        let mut facts = kill();
        let bytes = &mut facts.stack.as_mut().unwrap().bytes;
        // The rest of the stack cannot make it good.
        fill(&mut random, bytes, Lack::Everything);
        oc.put(&layout, bytes);
        let found = search.find(&facts);
        assert!(found.is_none(), "stack {n}, {why}: {found:?}");
    }
}

/// Places for structs: no two share a word, and none an anchor.
const PLACES: [usize; 6] = [32, 48, 64, 80, 96, 112];

fn one_among_decoys(count: u64) {
    let (mut random, mut search, layout) = (Random(3), search(), layout());
    for n in 0..count {
        let mut facts = kill();
        let bytes = &mut facts.stack.as_mut().unwrap().bytes;
        fill(&mut random, bytes, Lack::Everything);
        let true_one = random.below(PLACES.len());
        let mut expected = None;
        for (place, word) in PLACES.into_iter().enumerate() {
            let anchor = Some(4 + 2 * place);
            let oc = if place == true_one {
                let scored = random.next();
                let oc = Oc {
                    word: word + random.below(4),
                    anchor,
                    gfp_mask: (scored % (1 << 29)) as u32,
                    order: (scored % 11) as i32,
                    totalpages: 1 + scored % (1 << 30),
                    chosen: [TASK, LEADER][random.below(2)],
                    chosen_points: 1 + (scored % 1000) as i64,
                    ..[IN_POD, OF_HOST][random.below(2)]
                };
                expected = Some(told(&oc));
                oc
            } else {
                let ways = impossible::all(random.next());
                let (_, decoy) = ways[random.below(ways.len())];
                let anchor = match decoy.anchor {
                    at if at == IN_POD.anchor => anchor,
                    // One above it would lie in another struct.
                    at => at.filter(|at| *at < PLACES[0]),
                };
                Oc { word: word + random.below(4), anchor, ..decoy }
            };
            oc.put(&layout, bytes);
        }
        let found = search.find(&facts).map(|found| Decoder::new(4096).oom_control(&found.oom).unwrap());
        assert_eq!(found, expected, "stack {n}");
    }
}

#[test]
fn nothing_is_found_in_random_stacks() {
    random_stacks(5_000);
}

#[test]
fn nothing_is_found_where_one_value_is_impossible() {
    impossible_stacks(5_000);
}

#[test]
fn the_true_one_is_found_among_decoys() {
    one_among_decoys(2_000);
}

#[test]
#[ignore = "the full count takes a minute without --release"]
fn nothing_is_found_in_a_million_random_stacks() {
    random_stacks(1_000_000);
}

#[test]
#[ignore = "the full count takes a minute without --release"]
fn nothing_is_found_in_a_million_impossible_stacks() {
    impossible_stacks(1_000_000);
}

#[test]
#[ignore = "the full count takes a minute without --release"]
fn the_true_one_is_found_a_hundred_thousand_times() {
    one_among_decoys(100_000);
}
