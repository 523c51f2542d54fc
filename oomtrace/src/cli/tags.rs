//! Data that the operator adds to lines: `--label` and `--tag`.

use std::collections::BTreeMap;

use clap::{CommandFactory, error::ErrorKind};

use crate::{cli::Cli, containers::labels::LabelKeys};

/// The most bytes of a label's key.
const LABEL_MAX: usize = 256;
/// The most tags.
const TAGS_MAX: usize = 16;
/// The most bytes of all keys and values of tags. Each line contains them.
const TAGS_BYTES: usize = 512;

pub(super) fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err("a label has a key of at least one character, none of them a control character".into());
    }
    if text.len() > LABEL_MAX {
        return Err(format!("the key has {} bytes, at most {LABEL_MAX} are possible", text.len()));
    }
    Ok(text.to_owned())
}

pub(super) fn tag(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("a tag is KEY=VALUE, as in cluster=blue")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.is_empty() || !key.bytes().all(is_plain) {
        // Many stores read a dot as the start of a nested object.
        return Err("the key of a tag has letters, digits, - and _ only");
    }
    if value.is_empty() || value.contains(char::is_control) {
        return Err("the value of a tag has at least one character, none of them a control character");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The operator's labels.
///
/// # Errors
/// A usage error if they conflict.
pub fn labels(given: &[String]) -> Result<LabelKeys, clap::Error> {
    LabelKeys::with(given).map_err(|why| usage(&format!("--label: {why}")))
}

/// The operator's tags.
///
/// # Errors
/// A usage error if they conflict.
pub fn tags(given: &[(String, String)]) -> Result<BTreeMap<String, String>, clap::Error> {
    let mut tags = BTreeMap::new();
    for (key, value) in given {
        if tags.insert(key.clone(), value.clone()).is_some() {
            return Err(usage(&format!("--tag: {key} is given twice")));
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(usage(&format!("--tag: {} are given, at most {TAGS_MAX} are possible", tags.len())));
    }
    let bytes: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > TAGS_BYTES {
        return Err(usage(&format!("--tag: they have {bytes} bytes, at most {TAGS_BYTES} are possible")));
    }
    Ok(tags)
}

fn usage(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, message)
}
