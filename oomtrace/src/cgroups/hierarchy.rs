//! Finds where memory cgroups are mounted. Reads files of `/proc`; mounts and writes nothing.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::{event::CgroupVersion, host::root::Root};

/// Where memory cgroups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHierarchy {
    /// cgroup v1, v2 or none.
    pub version: CgroupVersion,
    /// Where the root of the hierarchy is mounted; `None` if this mount namespace has no such mount.
    pub mount: Option<PathBuf>,
    /// The kernel's number of the hierarchy; 0 is the unified one. `None` where the kernel has no memory
    /// controller.
    pub hierarchy_id: Option<u32>,
}

/// Why the place of the memory cgroups is not known.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

impl MemoryHierarchy {
    /// Reads `/proc/cgroups` (which hierarchy) and `/proc/self/mountinfo` (where). `built`: the kernel's
    /// types show a memory controller. It can still be off (`cgroup_disable=memory`).
    pub fn detect(root: &Root, built: bool) -> Result<Self, HierarchyError> {
        let nowhere = Self { version: CgroupVersion::None, mount: None, hierarchy_id: None };
        if !built {
            return Ok(nowhere);
        }
        let mounts = Mounts::read(root)?;
        let controller = match fs::read_to_string(root.path("/proc/cgroups")) {
            Ok(text) => controller(&text),
            // A kernel without the v1 interface does not have this file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(HierarchyError::Read { path: "/proc/cgroups", source }),
        };
        match controller {
            Some(Controller { enabled: false, .. }) => Ok(nowhere),
            Some(Controller { hierarchy_id, .. }) if hierarchy_id != 0 => Ok(Self {
                version: if mounts.v2_anywhere { CgroupVersion::Hybrid } else { CgroupVersion::V1 },
                mount: mounts.v1_memory,
                hierarchy_id: Some(hierarchy_id),
            }),
            // Some kernels list only controllers that v1 can use. Then memory is off, or on the unified
            // hierarchy.
            None if is_disabled(root) => Ok(nowhere),
            _ => Ok(Self { version: CgroupVersion::V2, mount: mounts.v2, hierarchy_id: Some(0) }),
        }
    }
}

/// Whether the kernel's command line has `cgroup_disable=memory`.
fn is_disabled(root: &Root) -> bool {
    let cmdline = fs::read_to_string(root.path("/proc/cmdline")).unwrap_or_default();
    let mut off = cmdline.split_ascii_whitespace().filter_map(|word| word.strip_prefix("cgroup_disable="));
    off.any(|controllers| controllers.split(',').any(|controller| controller == "memory"))
}

/// A line of `/proc/cgroups`.
struct Controller {
    hierarchy_id: u32,
    enabled: bool,
}

/// The line of the memory controller.
fn controller(cgroups: &str) -> Option<Controller> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != "memory" {
            return None;
        }
        let hierarchy_id = fields.next()?.parse().ok()?;
        Some(Controller { hierarchy_id, enabled: fields.nth(1)? == "1" })
    })
}

/// Cgroup mounts. Only a mount of a hierarchy's root counts: in a bind mount of a part, the paths would begin
/// elsewhere.
#[derive(Default)]
struct Mounts {
    v1_memory: Option<PathBuf>,
    v2: Option<PathBuf>,
    v2_anywhere: bool,
}

impl Mounts {
    fn read(root: &Root) -> Result<Self, HierarchyError> {
        const PATH: &str = "/proc/self/mountinfo";
        let text = fs::read(root.path(PATH)).map_err(|source| HierarchyError::Read { path: PATH, source })?;
        let mut mounts = Self::default();
        for mount in text.split(|byte| *byte == b'\n').filter_map(Mount::parse) {
            let whole = mount.root == b"/";
            match mount.kind {
                b"cgroup2" => {
                    mounts.v2_anywhere = true;
                    if whole && mounts.v2.is_none() {
                        mounts.v2 = Some(unescape(mount.point));
                    }
                }
                b"cgroup" if whole && mount.has_option(b"memory") && mounts.v1_memory.is_none() => {
                    mounts.v1_memory = Some(unescape(mount.point));
                }
                _ => {}
            }
        }
        Ok(mounts)
    }
}

/// A line of `mountinfo`, see proc_pid_mountinfo(5).
struct Mount<'a> {
    root: &'a [u8],
    point: &'a [u8],
    kind: &'a [u8],
    options: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        // Any number of optional fields, then a dash.
        fields.find(|field| *field == b"-")?;
        let kind = fields.next()?;
        let options = fields.nth(1)?;
        Some(Self { root, point, kind, options })
    }

    fn has_option(&self, wanted: &[u8]) -> bool {
        self.options.split(|byte| *byte == b',').any(|option| option == wanted)
    }
}

/// A path of `mountinfo`: blanks, tabs, newlines and backslashes are written as `\` and three octal digits.
fn unescape(path: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let octal = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                Some(((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after))
            }
            _ => None,
        };
        let (byte, after) = octal.unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    const HEADER: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
    const V1_MEMORY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const V1_OTHERS: &str = "34 31 0:31 / /sys/fs/cgroup/cpuset rw shared:1 - cgroup cgroup rw,cpuset\n\
        36 31 0:40 /part /mnt/part rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=memory\n";
    const V2_BESIDE: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn detect(cgroups: Option<&str>, mounts: &[&str]) -> Result<MemoryHierarchy, HierarchyError> {
        detect_with(cgroups, mounts, "quiet cgroup_disable=cpuset")
    }

    fn detect_with(
        cgroups: Option<&str>,
        mounts: &[&str],
        cmdline: &str,
    ) -> Result<MemoryHierarchy, HierarchyError> {
        let mounts = mounts.concat();
        let mut files = vec![("proc/self/mountinfo", mounts.as_str()), ("proc/cmdline", cmdline)];
        let cgroups = cgroups.map(|line| format!("{HEADER}cpuset\t3\t1\t1\n{line}"));
        if let Some(cgroups) = &cgroups {
            files.push(("proc/cgroups", cgroups));
        }
        let (_dir, root) = root(&files);
        MemoryHierarchy::detect(&root, true)
    }

    const NOWHERE: MemoryHierarchy =
        MemoryHierarchy { version: CgroupVersion::None, mount: None, hierarchy_id: None };

    fn found(version: CgroupVersion, mount: Option<&str>, hierarchy_id: u32) -> MemoryHierarchy {
        MemoryHierarchy { version, mount: mount.map(PathBuf::from), hierarchy_id: Some(hierarchy_id) }
    }

    #[test]
    fn each_kind_of_host() {
        let v1 = Some("memory\t4\t24\t1\n");
        let v2 = Some("memory\t0\t24\t1\n");
        assert_eq!(
            detect(v1, &[V1_OTHERS, V1_MEMORY]).unwrap(),
            found(CgroupVersion::V1, Some("/sys/fs/cgroup/memory"), 4)
        );
        assert_eq!(
            detect(v1, &[V1_MEMORY, V2_BESIDE]).unwrap(),
            found(CgroupVersion::Hybrid, Some("/sys/fs/cgroup/memory"), 4)
        );
        // Controllers other than memory on v1 do not make memory v1.
        assert_eq!(
            detect(v2, &[V1_OTHERS, V2_BESIDE]).unwrap(),
            found(CgroupVersion::V2, Some("/sys/fs/cgroup/unified"), 0)
        );
        assert_eq!(
            detect(None, &["30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"]).unwrap(),
            found(CgroupVersion::V2, Some("/sys/fs/cgroup"), 0)
        );
        // The kernel has it, but it is not mounted here.
        assert_eq!(detect(v1, &[V1_OTHERS]).unwrap(), found(CgroupVersion::V1, None, 4));
        // On the unified hierarchy, which is mounted nowhere.
        assert_eq!(detect(None, &[V1_OTHERS]).unwrap(), found(CgroupVersion::V2, None, 0));
    }

    #[test]
    fn a_kernel_without_the_memory_controller() {
        assert_eq!(detect(Some("memory\t0\t1\t0\n"), &[V2_BESIDE]).unwrap(), NOWHERE);
        let disabled = |cmdline| detect_with(None, &[V2_BESIDE], cmdline).unwrap() == NOWHERE;
        assert!(disabled("quiet cgroup_disable=memory root=/dev/vda\n"));
        assert!(disabled("cgroup_disable=cpuset,memory\n"));
        assert!(!disabled("cgroup_disable=memory_hugetlb xcgroup_disable=memory\n"));
        let (_dir, root) = root(&[]);
        assert_eq!(MemoryHierarchy::detect(&root, false).unwrap(), NOWHERE);
    }

    #[test]
    fn escaped_mount_points() {
        let mount = "1 1 0:1 / /a\\040b\\134\\011\\9\\777 rw - cgroup2 none rw\n";
        let expected = PathBuf::from("/a b\\\t\\9\\777");
        assert_eq!(detect(None, &[mount]).unwrap().mount, Some(expected));
    }

    proptest! {
        #[test]
        fn any_line_is_safe(line: Vec<u8>) {
            if let Some(mount) = Mount::parse(&line) {
                let _ = unescape(mount.point);
            }
        }
    }
}
