//! Warnings before a limit: none for page cache, one for a leak, at most one for what warms up.

use oomtrace::history::{
    Sampled, Track,
    near::{Near, News, news},
};

use crate::generated::{self, Dice, Drawn, INTERVAL_NS, LIMIT, MIB, Series, ns};

/// Each thing that was said, and when.
fn said(series: &Series, unreclaimable: impl Fn(f64) -> f64) -> Vec<(u64, News)> {
    let mut track = Track::of(1, Track::FROM_START);
    let pages = |mib: f64| (mib * MIB) as u64;
    let mut said = Vec::new();
    for (at, usage) in &series.samples {
        let sampled = Sampled {
            usage: pages(*usage),
            unreclaimable: Some(pages(unreclaimable(*usage))),
            peak: None,
            limit: Some(pages(LIMIT)),
        };
        track.push(ns(*at), INTERVAL_NS, sampled);
        said.extend(news(&mut track, INTERVAL_NS).map(|news| (ns(*at), news)));
    }
    said
}

#[test]
fn page_cache_is_no_danger() {
    let mut dice = Dice::new(11);
    for _ in 0..50 {
        let series = generated::cache(&mut dice);
        assert_eq!(said(&series, |usage| usage.min(0.3 * LIMIT)), []);
    }
    // All of it at the limit for half an hour.
    let samples = (0..180).map(|step| (f64::from(step) * 10.0, LIMIT)).collect();
    assert_eq!(said(&Series { samples, killed: 1800.0 }, |_| 100.0), []);
}

#[test]
fn what_warms_up_and_stays_there_is_told_once_at_the_most() {
    let (mut dice, mut told) = (Dice::new(12), 0);
    for _ in 0..50 {
        let drawn = Drawn::of(&mut dice);
        let warm = dice.between(60.0, 7200.0);
        let series = generated::sampled(&mut dice, &drawn, warm + 7200.0, |at| {
            LIMIT * 0.92 * (1.0 - (-5.0 * at / warm).exp())
        });
        let said = said(&series, |usage| usage);
        assert!(said.len() <= 1, "{said:?}");
        told += said.len();
    }
    // While it still rises, nobody can know where it ends.
    println!("of 50 that warm up to 92 % and stay there, {told} are told");
}

#[test]
fn what_stays_below_is_never_told() {
    let mut dice = Dice::new(15);
    for _ in 0..30 {
        let drawn = Drawn::of(&mut dice);
        let level = dice.between(0.3, 0.93);
        let series = generated::sampled(&mut dice, &drawn, 4.0 * 3600.0, |_| LIMIT * level);
        assert_eq!(said(&series, |usage| usage), [], "at {level}");
    }
}

#[test]
fn a_leak_is_told_once_and_killed_in_the_time_that_was_told() {
    for (make, name, least) in [
        (generated::leak as fn(&mut Dice) -> Series, "leak", 80),
        (generated::leak_with_load, "leak with load", 60),
    ] {
        let (mut dice, mut slow, mut told, mut full, mut inside) = (Dice::new(13), 0, 0, 0, 0);
        for _ in 0..150 {
            let series = make(&mut dice);
            let said = said(&series, |usage| usage);
            assert!(said.len() <= 1, "{name}: {said:?}");
            // What gets from 90 % to the limit in a few samples cannot be told.
            slow += usize::from(series.killed > 3600.0);
            told += usize::from(series.killed > 3600.0 && !said.is_empty());
            match said.first() {
                Some((at, News::Near(Near::Rising { to_limit_ns: (low, high), .. }))) => {
                    let after = ns(series.killed) - at;
                    full += 1;
                    inside += usize::from((*low..=*high).contains(&after));
                }
                Some((_, News::Near(Near::Full))) | None => {}
                Some((_, News::Far)) => unreachable!("{name}: nothing was near"),
            }
        }
        println!(
            "{name}: {told} of {slow} that take over an hour are told; {inside} of {full} are killed in time"
        );
        assert!(told * 100 >= slow * 90, "{name}: {told} of {slow} are told");
        assert!(inside * 100 >= full * least, "{name}: {inside} of {full}");
    }
}

#[test]
fn a_burst_cannot_be_told() {
    let mut dice = Dice::new(14);
    for _ in 0..100 {
        assert_eq!(said(&generated::burst(&mut dice), |usage| usage), []);
    }
}

#[test]
fn it_is_far_again_below_four_fifths_and_told_again_after_an_hour() {
    let level = |minute: i32| match minute {
        10..12 | 13..20 | 40..50 | 90..100 => 0.98,
        20..30 => 0.85,
        // Not for long.
        12 => 0.7,
        _ => 0.5,
    };
    let samples = (0..115 * 6).map(|step| (f64::from(step) * 10.0, LIMIT * level(step / 6))).collect();
    let said = said(&Series { samples, killed: 6900.0 }, |usage| usage);
    let minutes: Vec<(u64, bool)> = said
        .iter()
        .map(|(at, news)| ((at - ns(0.0)) / 60_000_000_000, matches!(news, News::Near(Near::Full))))
        .collect();
    assert_eq!(minutes, [(11, true), (35, false), (91, true), (105, false)]);
}
