//! The guest's whole file system as one cpio archive: busybox, an init script and the programs under test.
//!
//! Writes the `newc` format that the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed, because emulated
//! processors unpack slowly.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The kernel starts this as process 1.
const INIT: &str = include_str!("init.sh");

/// File types and modes, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;

/// Packs the archive: `programs` under their names in `/bin`, including `busybox`; the `libraries` that they
/// need, if they are not static, under their own paths; and `job`, a shell fragment for init.sh with its
/// variables and the function `job`.
///
/// # Errors
/// If a file cannot be read, or is too large for the format (4 GiB).
pub fn pack(programs: &[(&str, PathBuf)], libraries: &[PathBuf], job: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let usual = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "var/log"];
    let parents = libraries.iter().flat_map(|library| library.ancestors().skip(1));
    let parents = parents.filter_map(|parent| parent.strip_prefix("/").ok()?.to_str());
    // In this order a directory comes before those in it.
    for directory in usual.into_iter().chain(parents).filter(|path| !path.is_empty()).collect::<BTreeSet<_>>()
    {
        archive.entry(directory, DIRECTORY, b"")?;
    }
    archive.entry("sbin", SYMLINK, b"bin")?;
    archive.entry(
        "etc/passwd",
        TEXT,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    archive.entry("etc/group", TEXT, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.entry("init", PROGRAM, INIT.as_bytes())?;
    archive.entry("job", TEXT, job.as_bytes())?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    for (name, program) in programs {
        archive.entry(&format!("bin/{name}"), PROGRAM, &read(program)?)?;
    }
    for library in libraries {
        let name = library.to_str().context("a library's path is not UTF-8")?.trim_start_matches('/');
        archive.entry(name, PROGRAM, &read(library)?)?;
    }
    archive.finish()
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Appends one file: a header of hexadecimal fields, the name, the content. Name and content are padded
    /// to 4 bytes.
    ///
    /// Device nodes are not needed: `/dev/console` is in the kernel's own archive, and devtmpfs has the
    /// others.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len())?;
        let name_size = u32::try_from(name.len() + 1)?;
        // Inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum (unused).
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, b"")?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_a_content_each_padded() {
        let mut archive = Archive::default();
        archive.entry("ab", TEXT, b"hello").unwrap();
        let expected = "070701\
            00000001000081a400000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000300000000ab\0\0\0\0hello\0\0\0";
        // 110 bytes of header and 3 of name make 113, padded to 116; then 5 of content, padded to 8.
        assert_eq!(String::from_utf8(archive.bytes).unwrap(), expected);
    }

    #[test]
    fn a_library_has_its_path_and_the_directories_above_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("lib/deep/libx.so");
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&library, "code").unwrap();
        let packed = pack(&[], std::slice::from_ref(&library), "").unwrap();
        let name = |path: &Path| format!("{}\0", path.strip_prefix("/").unwrap().display());
        let at = |path: &Path| {
            let name = name(path);
            packed.windows(name.len()).position(|bytes| bytes == name.as_bytes())
        };
        let order: Vec<_> = library.ancestors().take(3).map(at).collect();
        assert!(order.iter().all(Option::is_some) && order.is_sorted_by(|one, next| one > next), "{order:?}");
    }
}
