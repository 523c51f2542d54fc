//! Archives whose bytes depend only on the files in them.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::{release::Release, tree::File};

/// A tar archive of these files and their directories, all owned by root.
pub fn tar(files: &[File], release: &Release) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directories = std::collections::BTreeSet::new();
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            let directory = file.path.split_at(end + 1).0;
            if directories.insert(directory) {
                let mut header = header(release, 0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, directory, std::io::empty())?;
            }
        }
        let mut header = header(release, file.mode, file.data.len() as u64);
        builder.append_data(&mut header, &file.path, file.data.as_slice()).context(file.path.clone())?;
    }
    Ok(builder.into_inner()?)
}

fn header(release: &Release, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_mtime(release.epoch);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Compresses, without a name or a date.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
