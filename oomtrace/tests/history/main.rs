//! What the history says of series whose cause is known.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "tests"
)]

mod generated;
mod limits;
mod tracks;

use generated::{Dice, Series};
use oomtrace::event::Shape::{self, AtLimit, Burst, Growth, Irregular, Short, Steps};

const SERIES: usize = 300;

/// What causes a series, and what may be said of it.
struct Row {
    name: &'static str,
    make: fn(&mut Dice) -> Series,
    /// The word that is true, and how many of a hundred must have it.
    bar: Option<(Shape, usize)>,
    /// Other words that are true or say nothing.
    allowed: &'static [Shape],
    /// How many of a hundred may have another word.
    wrong: usize,
}

const fn row(
    name: &'static str,
    make: fn(&mut Dice) -> Series,
    bar: Option<(Shape, usize)>,
    allowed: &'static [Shape],
) -> Row {
    Row { name, make, bar, allowed, wrong: 10 }
}

const ROWS: [Row; 10] = [
    row("leak", generated::leak, Some((Growth, 75)), &[Irregular]),
    // Where the pace drops at night just below the limit, it really was there for long.
    row("leak with load", generated::leak_with_load, Some((Growth, 70)), &[Irregular, AtLimit]),
    // Its first part is steep, its last part flat: steps and growth are not false.
    row("slowing growth", generated::slowing, None, &[Irregular, Growth, Steps, AtLimit]),
    row("burst", generated::burst, Some((Burst, 100)), &[]),
    row("fast rise", generated::fast_rise, Some((Burst, 100)), &[]),
    // The last step is a burst if it is a quarter of the limit.
    Row { wrong: 30, ..row("steps", generated::steps, Some((Steps, 55)), &[Burst, Irregular]) },
    row("cache", generated::cache, Some((AtLimit, 95)), &[Irregular]),
    // The last wave rises in one step, and its top is flat.
    row("waves", generated::waves, None, &[Irregular, AtLimit, Steps]),
    Row { wrong: 25, ..row("random walk", generated::walk, None, &[Irregular, AtLimit, Burst, Steps]) },
    row("start-up", generated::start_up, Some((Short, 100)), &[]),
];

#[test]
fn each_cause_has_its_word_or_none() {
    for Row { name, make, bar, allowed, wrong } in ROWS {
        let mut dice = Dice::new(7);
        let said: Vec<Shape> = (0..SERIES).map(|_| generated::told(&make(&mut dice)).shape).collect();
        let count = |word: Shape| said.iter().filter(|one| **one == word).count() * 100;
        let all: Vec<String> = [Short, AtLimit, Burst, Steps, Growth, Irregular]
            .into_iter()
            .map(|word| (word, count(word) / SERIES))
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{word:?} {count}"))
            .collect();
        println!("{name}: {}", all.join(", "));
        if let Some((word, least)) = bar {
            assert!(count(word) >= least * SERIES, "{name}: {word:?} in less than {least} %: {all:?}");
        }
        let right = |word: &Shape| allowed.contains(word) || bar.is_some_and(|(is, _)| is == *word);
        let others = said.iter().filter(|word| !right(word)).count() * 100;
        assert!(others <= wrong * SERIES, "{name}: over {wrong} % have a wrong word: {all:?}");
        match name {
            "burst" | "fast rise" => assert_eq!(count(Growth), 0, "{name}: growth"),
            "leak" | "leak with load" | "slowing growth" => assert_eq!(count(Burst), 0, "{name}: a burst"),
            _ => {}
        }
    }
}
