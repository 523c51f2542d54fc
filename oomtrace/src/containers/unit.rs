//! Finds the innermost systemd unit from the names of cgroups.
//!
//! Slices nest by their names, and a service or scope ends the chain: everything below belongs to what runs
//! in it, and says nothing about this host's units. Only below `user@UID.service` another manager has its own
//! units, with names that its user chose.

use std::borrow::Cow;

use crate::event::Systemd;

/// The innermost unit of `names`, the topmost first. Its name is not unescaped, as `systemctl` shows it. If
/// the unit belongs to a user's manager, that user is returned too.
pub fn innermost(names: &[&[u8]]) -> Option<Systemd> {
    let mut unit = None;
    let mut slice = "";
    // The user whose slice contains it, and the user whose manager owns it.
    let mut user = None;
    let mut manager = None;
    let found = |name: &str, user| Systemd { unit: name.to_owned(), user };
    for name in names {
        let Ok(name) = std::str::from_utf8(name) else { break };
        // systemd writes a `_` before a unit's name that could be a file of the cgroup.
        let name = name.strip_prefix('_').unwrap_or(name);
        let Some((stem, kind)) = name.rsplit_once('.').filter(|(stem, _)| is_unit_stem(stem)) else { break };
        match kind {
            "slice" if slice_parent(stem) == slice => {
                user = if manager.is_none() { stem.strip_prefix("user-") } else { None };
                slice = stem;
                unit = Some(found(name, manager));
            }
            "service" if user.is_some() && stem.strip_prefix("user@") == user => {
                unit = Some(found(name, manager));
                slice = "";
                manager = user.and_then(|uid| uid.parse().ok());
                user = None;
                if manager.is_none() {
                    break;
                }
            }
            "service" | "scope" | "mount" | "socket" | "swap" => return Some(found(name, manager)),
            _ => break,
        }
    }
    unit
}

/// Letters, digits and `:-_.\@`: what systemd allows.
fn is_unit_stem(stem: &str) -> bool {
    !stem.is_empty()
        && stem.len() < 255
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
}

/// `a-b.slice` is in `a.slice`, and `a.slice` at the top.
fn slice_parent(stem: &str) -> &str {
    stem.rsplit_once('-').map_or("", |(parent, _)| parent)
}

/// The path of a slice: `a-b.slice` → `/a.slice/a-b.slice`. Empty for the root slice.
pub fn slice_path(slice: &str) -> Option<String> {
    if slice == "-.slice" {
        return Some(String::new());
    }
    let stem = slice.strip_suffix(".slice").filter(|stem| is_unit_stem(stem))?;
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let mut path = String::new();
    for end in ends {
        path.push('/');
        path.push_str(stem.get(..end).filter(|part| !part.is_empty())?);
        path.push_str(".slice");
    }
    Some(path)
}

/// Undoes systemd's `\xNN` escapes in the name of a machine. A `-` stays: it would stand for `/`, but no
/// machine's name has one, and instances (`@`) do not escape it.
pub fn unescape(escaped: &str) -> Option<Cow<'_, str>> {
    if !escaped.contains('\\') {
        return Some(Cow::Borrowed(escaped));
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'\\' {
            let (x, high, low) = (rest.next()?, rest.next()?, rest.next()?);
            (x == b'x').then_some(digit(high)? << 4 | digit(low)?)?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
