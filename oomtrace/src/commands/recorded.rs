//! What the commands that read recorded lines have in common: which lines they take, and what they report at the end.

use crate::{
    cli::{Taken, values::Moment},
    failure::{Code, Failure},
    host::clock::{self, ClockOffset},
    recorded::{Files, Tally},
};

/// A reader of the lines whose time is asked for.
pub(super) fn reader(taken: &Taken) -> Files {
    let now = ClockOffset::sample().unix_ns(clock::boot_time());
    let time = |moment: Moment| clock::rfc3339(moment.unix_ns(now));
    Files::new(taken.since.map(time), taken.until.map(time))
}

/// Reports what was left out on standard error, and fails with what could not be read or was not understood.
pub(super) fn said(tally: &Tally, unreadable: &[String]) -> Result<(), Failure> {
    tally.say();
    if !unreadable.is_empty() {
        return Err(Failure::message(Code::RunTime, unreadable.join("; ")));
    }
    match tally.not_understood() {
        Some(what) => {
            let failure = Failure::message(Code::Data, format!("not understood: {what}"));
            Err(match tally.kernel_log {
                true => failure.hint("kills of a kernel's log are printed by `oomtrace log FILE`"),
                false => failure,
            })
        }
        None => Ok(()),
    }
}
