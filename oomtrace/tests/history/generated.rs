//! Makes series of samples whose cause is known: how the usage of a container goes until it is killed at its limit.

use oomtrace::history::{
    Sampled, Track,
    shape::{Course, End, Of, course},
};

/// The limit, in MiB.
pub const LIMIT: f64 = 512.0;
/// Pages of a MiB.
pub const MIB: f64 = 256.0;
/// 10 s.
pub const INTERVAL_NS: u64 = 10_000_000_000;
/// The host has been up for a while.
pub const BOOT_S: f64 = 86_400.0;

/// Numbers that are the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// As often between 1 and 10 as between 10 and 100.
    pub fn between_powers(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    pub fn bell(&mut self, width: f64) -> f64 {
        let (one, two) = (self.between(1e-12, 1.0), self.between(0.0, std::f64::consts::TAU));
        width * (-2.0 * one.ln()).sqrt() * two.cos()
    }
}

/// What is drawn for each series.
pub struct Drawn {
    /// How long it lives, in seconds.
    pub life: f64,
    /// What it uses at first, in MiB.
    pub base: f64,
    noise: f64,
    /// Height and length of a garbage collector's teeth.
    tooth: (f64, f64),
}

impl Drawn {
    pub fn of(dice: &mut Dice) -> Self {
        let life = dice.between_powers(600.0, 40.0 * 3600.0);
        let height = if dice.between(0.0, 3.0) < 2.0 { 0.0 } else { dice.between(10.0, 60.0) };
        Self {
            life,
            base: dice.between(60.0, 250.0),
            noise: dice.between(0.5, 6.0),
            tooth: (height, dice.between(20.0, 300.0)),
        }
    }

    fn tooth(&self, at: f64, most: f64) -> f64 {
        self.tooth.0.min(most) * ((at % self.tooth.1) / self.tooth.1)
    }

    fn room(&self) -> f64 {
        LIMIT - self.base - self.tooth.0
    }
}

/// What came of it: the samples, and when it was killed, in seconds.
pub struct Series {
    pub samples: Vec<(f64, f64)>,
    pub killed: f64,
}

/// Samples each 10 s until the end. The first 20 s are the start.
pub fn sampled(dice: &mut Dice, drawn: &Drawn, killed: f64, usage: impl Fn(f64) -> f64) -> Series {
    let mut samples = Vec::new();
    let mut at = dice.between(0.0, 10.0);
    while at < killed {
        let usage = (usage(at) + dice.bell(drawn.noise)).clamp(5.0, LIMIT);
        samples.push((at, if at < 20.0 { usage.min(drawn.base * at / 20.0 + 5.0) } else { usage }));
        at += 10.0 * dice.between(0.98, 1.02);
    }
    Series { samples, killed }
}

pub fn leak(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    sampled(dice, &drawn, drawn.life, |at| {
        drawn.base + drawn.room() * at / drawn.life + drawn.tooth(at, LIMIT)
    })
}

/// Its pace follows the load of the day.
pub fn leak_with_load(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    let turn = std::f64::consts::TAU / dice.between(3600.0, 86_400.0);
    let grown = |at: f64| at - 0.8 / turn * ((turn * at).cos() - 1.0);
    let all = grown(drawn.life);
    sampled(dice, &drawn, drawn.life, |at| {
        drawn.base + drawn.room() * grown(at) / all + drawn.tooth(at, LIMIT)
    })
}

/// Slower and slower, as caches and heaps that warm up.
pub fn slowing(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    sampled(dice, &drawn, drawn.life, |at| {
        let grown = (20.0 * at / drawn.life).ln_1p() / 21f64.ln();
        drawn.base + drawn.room() * grown + drawn.tooth(at, LIMIT)
    })
}

/// Between the last sample and the kill.
pub fn burst(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    sampled(dice, &drawn, drawn.life, |at| drawn.base + drawn.tooth(at, LIMIT * 0.7 - drawn.base))
}

/// Within 10 to 30 s.
pub fn fast_rise(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    let takes = dice.between(10.0, 30.0);
    let begins = drawn.life - takes;
    sampled(dice, &drawn, drawn.life, |at| match at - begins {
        before if before < 0.0 => drawn.base + drawn.tooth(at, 60.0),
        since => drawn.base + (LIMIT - drawn.base) * since / takes,
    })
}

/// Two or three, and the last one is the kill.
pub fn steps(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    let count = if dice.between(0.0, 1.0) < 0.5 { 2 } else { 3 };
    let mut steps: Vec<(f64, f64)> =
        (0..count).map(|_| (dice.between(0.1, 0.95) * drawn.life, dice.between(1.0, 2.0))).collect();
    steps.push((drawn.life, dice.between(1.0, 2.0)));
    let all: f64 = steps.iter().map(|(_, height)| height).sum();
    steps.iter_mut().for_each(|(_, height)| *height *= (LIMIT - drawn.base) / all);
    sampled(dice, &drawn, drawn.life, |at| {
        drawn.base + steps.iter().filter(|(when, _)| *when <= at).map(|(_, height)| height).sum::<f64>()
    })
}

/// Filled with page cache, and then at its limit.
pub fn cache(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    let full = dice.between(0.05, 0.6) * drawn.life;
    let dips: Vec<f64> = (0..997).map(|_| dice.between(0.985, 1.0)).collect();
    sampled(dice, &drawn, drawn.life.max(full + 120.0), |at| match at / full {
        part if part < 1.0 => drawn.base + (LIMIT - drawn.base) * part,
        part => LIMIT * dips[(part * 7919.0) as usize % dips.len()],
    })
}

/// Waves of load, the highest of which reaches the limit.
pub fn waves(dice: &mut Dice) -> Series {
    let drawn = Drawn::of(dice);
    let length = dice.between(600.0, 7200.0);
    let count = ((drawn.life / length) as usize).max(2);
    let mut heights: Vec<f64> = (0..count + 2).map(|_| dice.between(0.4, 0.9)).collect();
    heights[count - 1] = 1.02;
    sampled(dice, &drawn, (count as f64 - 0.5) * length, |at| {
        let wave = (std::f64::consts::PI * (at % length) / length).sin().powi(2);
        drawn.base + (LIMIT - drawn.base) * heights[(at / length) as usize] * wave
    })
}

/// Up and down by chance.
pub fn walk(dice: &mut Dice) -> Series {
    let (mut samples, mut usage) = (Vec::new(), Drawn::of(dice).base);
    for step in 0..14_400 {
        usage = (usage + dice.bell(8.0)).clamp(40.0, LIMIT * 0.999);
        samples.push((f64::from(step) * 10.0, usage));
        if usage >= LIMIT * 0.99 {
            break;
        }
    }
    let killed = samples.last().map_or(0.0, |(at, _)| *at);
    Series { samples, killed }
}

/// Killed in its first minute.
pub fn start_up(dice: &mut Dice) -> Series {
    let drawn = Drawn { life: dice.between(3.0, 55.0), ..Drawn::of(dice) };
    sampled(dice, &drawn, drawn.life, |at| drawn.base + (LIMIT - drawn.base) * at / drawn.life)
}

/// In ns since boot.
pub fn ns(seconds: f64) -> u64 {
    ((BOOT_S + seconds) * 1e9) as u64
}

/// What a track of this series has.
pub fn track(series: &Series) -> Track {
    let mut track = Track::of(1, Track::FROM_START);
    for (at, usage) in &series.samples {
        let usage = (usage * MIB) as u64;
        let limit = Some((LIMIT * MIB) as u64);
        let sampled = Sampled { usage, unreclaimable: Some(usage), peak: Some(usage), limit };
        track.push(ns(*at), INTERVAL_NS, sampled);
    }
    track
}

/// What is said of its kill.
pub fn told(series: &Series) -> Course {
    let track = track(series);
    let end = End { at_ns: ns(series.killed), usage: (LIMIT * MIB) as u64 };
    let start_ns = if track.samples == 0 { end.at_ns } else { track.first_ns };
    course(&track.points(INTERVAL_NS), Of::Usage, end, (start_ns, INTERVAL_NS))
}
