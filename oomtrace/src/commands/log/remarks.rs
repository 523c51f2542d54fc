//! What standard error says about a log that was read: what it has besides kills, and what was not
//! understood.

use crate::{sources::saved_log::Tally, stderr::say};

/// Remarks that are not errors: one line each.
pub(super) fn say_all(tally: &Tally, unreported: u64) {
    if unreported > 0 {
        let suppressed = match tally.suppressed {
            0 => String::new(),
            count => format!("; in the whole log it says that it left out {count} reports"),
        };
        say(&format!(
            "oomtrace: the kernel wrote only one line about {unreported} of these kills, without cgroup, container and trigger: it \
             writes ten full reports in five seconds{suppressed}"
        ));
    }
    for (count, what) in [
        (tally.exiting, "chosen processes were already exiting and needed no kill"),
        (tally.nobody, "times the OOM killer found no process to kill"),
    ] {
        if count > 0 {
            say(&format!("oomtrace: {count} {what}"));
        }
    }
}

/// What was not understood, for a message.
pub(super) fn not_understood(tally: &Tally) -> String {
    let first = tally.unread.first_unknown.map(|line| format!(" (the first is line {line})"));
    let parts = [
        (tally.torn, "lines that report a kill are not complete".to_owned()),
        (tally.unknown_kills, "lines report a kill in the format of an unknown kernel".to_owned()),
        (tally.blobs, "texts were left out by `journalctl` (use -a, or -o export)".to_owned()),
        (tally.unread.unknown, format!("lines have no known format{}", first.unwrap_or_default())),
        (tally.unread.long, "lines are too long".to_owned()),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}
