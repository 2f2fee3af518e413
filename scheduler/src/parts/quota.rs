//! The CPU time that control groups allow the process (Linux), in CPUs. Elsewhere there are no such files, and so no quota.
//!
//! | file                                           | says                                                       |
//! |------------------------------------------------|------------------------------------------------------------|
//! | `/proc/self/cgroup`                            | the process's groups: one of version 2, one of version 1 for each controller |
//! | `/proc/self/mountinfo`                         | where the trees of groups are mounted, and from which group on |
//! | `cpu.max` (version 2)                          | quota and period in microseconds, or `max`                 |
//! | `cpu.cfs_quota_us`, `cpu.cfs_period_us` (1)    | the same; a quota of -1: none                              |
//!
//! Each group from the process's own up to the one that is mounted may have a quota; the smallest counts. What is above the mount
//! (a container's host) cannot be seen. The folders are looked up again when `/proc/self/cgroup` has changed, so when the process
//! was moved. A file that is not there, may not be read or says something else is as one without a quota: a limit that is not understood must
//! not stop a program. Where the process lacks descriptors or memory to read a file, there is no answer.
//!
//! A look at a process whose groups are the same reads two or three small files; of each file it reads a bounded part.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a file that are read. A host of many containers has some thousand mounts, of 200 bytes each.
const MOST: u64 = 1 << 20;

/// Groups that are looked at. Trees are some five deep.
const MOST_GROUPS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group in whose folder there may be a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    folder: PathBuf,
}

/// Reads the quota again and again.
#[derive(Debug)]
pub(crate) struct Quota {
    /// `/`, but for tests.
    root: PathBuf,
    /// What `/proc/self/cgroup` said when `groups` was made.
    place: Vec<u8>,
    groups: Vec<Group>,
}

impl Quota {
    pub(crate) fn under(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            place: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Whole CPUs that the quota allows now, one at least. `None`: there is none. An error: it cannot be known now.
    pub(crate) fn whole_cpus(&mut self) -> io::Result<Option<usize>> {
        let Some(place) = read(&self.root.join("proc/self/cgroup"))? else {
            return Ok(None);
        };
        if place != self.place {
            let mounts = read(&self.root.join("proc/self/mountinfo"))?.unwrap_or_default();
            self.groups = groups(&place, &mounts);
            self.place = place;
        }
        let mut least = None;
        for group in &self.groups {
            let file = |name| {
                Ok::<_, io::Error>(
                    read(&self.root.join(&group.folder).join(name))?.unwrap_or_default(),
                )
            };
            let quota = match group.version {
                Version::One => quota_of_1(&file("cpu.cfs_quota_us")?, &file("cpu.cfs_period_us")?),
                Version::Two => quota_of_2(&file("cpu.max")?),
            };
            least = least.into_iter().chain(quota).min();
        }
        Ok(least)
    }
}

/// The beginning of a file; `None` if it is not there or may not be read.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let done = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    match done {
        Ok(_) => Ok(Some(bytes)),
        // Soon the file may well be read.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
            ) =>
        {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}

/// The process's groups with those above them, relative to the root of the file system.
///
/// `place` is the text of `/proc/self/cgroup`, with lines as `3:cpu,cpuacct:/a/b` (version 1) and `0::/a/b` (version 2).
/// `mounts` is that of `/proc/self/mountinfo`, with lines as `32 31 0:29 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`: the
/// fourth field is the group that is mounted, the fifth where.
fn groups(place: &[u8], mounts: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in place.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let version = if controllers.is_empty() {
            Version::Two
        } else if has_cpu(controllers) {
            Version::One
        } else {
            continue;
        };
        for mount in mounts.split(|&byte| byte == b'\n') {
            if let Some((group, point)) = mount_of(mount, version) {
                add_with_parents(&mut groups, version, path, &group, &point);
            }
        }
    }
    groups.truncate(MOST_GROUPS);
    groups
}

/// The group that is mounted there and the folder where, if the line is of a tree with this version's CPU controller.
fn mount_of(line: &[u8], version: Version) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (group, point) = (fields.nth(3)?, fields.next()?);
    let mut fields = fields.skip_while(|&field| field != b"-").skip(1);
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let fits = match version {
        Version::One => kind == b"cgroup" && has_cpu(options),
        Version::Two => kind == b"cgroup2",
    };
    fits.then(|| (unescaped(group), unescaped(point)))
}

fn add_with_parents(
    groups: &mut Vec<Group>,
    version: Version,
    path: &[u8],
    mounted: &[u8],
    point: &[u8],
) {
    let (path, mounted) = (as_path(path), as_path(mounted));
    let (Ok(below), Ok(point)) = (path.strip_prefix(mounted), as_path(point).strip_prefix("/"))
    else {
        return;
    };
    // The process's group is outside of what its name space shows.
    if below.components().any(|part| part.as_os_str() == "..") {
        return;
    }
    let folders = below.ancestors().map(|ancestor| point.join(ancestor));
    groups.extend(folders.map(|folder| Group { version, folder }));
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// `cpu` is in the list.
fn has_cpu(list: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|name| name == b"cpu")
}

/// A field of `mountinfo`, where space, tab, newline and backslash are written as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        let escaped = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        if escaped.is_some() {
            rest = &rest[3..];
        }
        bytes.push(escaped.unwrap_or(*first));
    }
    bytes
}

/// Version 2: `150000 100000`, or `max 100000`.
fn quota_of_2(text: &[u8]) -> Option<usize> {
    let mut numbers = text.split(u8::is_ascii_whitespace);
    whole(number(numbers.next()?)?, number(numbers.next()?)?)
}

/// Version 1: two files with a number each.
fn quota_of_1(quota: &[u8], period: &[u8]) -> Option<usize> {
    whole(number(quota.trim_ascii())?, number(period.trim_ascii())?)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Rounded down, as `parts/cpus.rs` says.
fn whole(quota: u64, period: u64) -> Option<usize> {
    let cpus = quota.checked_div(period)?.max(1);
    Some(usize::try_from(cpus).unwrap_or(usize::MAX))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::{Group, Quota, Version, groups, quota_of_1, quota_of_2, unescaped};

    fn folders(place: &str, mounts: &str) -> Vec<(Version, String)> {
        let text = |group: Group| (group.version, group.folder.to_str().unwrap().to_string());
        let groups = groups(place.as_bytes(), mounts.as_bytes());
        groups.into_iter().map(text).collect()
    }

    const MOUNT_2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_own_group_and_all_above_it_are_looked_at() {
        use Version::{One, Two};
        let found = folders("0::/kubepods/pod7/c1\n", MOUNT_2);
        let expected = [
            "sys/fs/cgroup/kubepods/pod7/c1",
            "sys/fs/cgroup/kubepods/pod7",
            "sys/fs/cgroup/kubepods",
            "sys/fs/cgroup/",
        ];
        assert_eq!(found, expected.map(|folder| (Two, folder.to_string())));
        // In a container's own name space.
        let found = folders("0::/\n", MOUNT_2);
        assert_eq!(found, [(Two, "sys/fs/cgroup/".to_string())]);
        // Version 1 has a tree for each set of controllers; a container sees its own part of it.
        let place = "5:cpuset:/docker/c1\n4:cpu,cpuacct:/docker/c1/a b\n2:name=systemd:/\n0::/\n";
        let mounts = "1 2 0:3 / / rw - ext4 /dev/vda rw\n\
             33 31 0:31 /docker/c1 /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n\
             32 31 0:29 /docker/c1 /sys/fs/c\\040group/cpu,cpuacct ro master:9 - cgroup cgroup rw,cpu,cpuacct\n";
        let found = folders(place, mounts);
        let expected = [
            "sys/fs/c group/cpu,cpuacct/a b",
            "sys/fs/c group/cpu,cpuacct/",
        ];
        assert_eq!(found, expected.map(|folder| (One, folder.to_string())));
    }

    #[test]
    fn what_is_not_understood_is_no_group() {
        assert_eq!(folders("", MOUNT_2), []);
        assert_eq!(folders("0::/a\n", ""), []);
        assert_eq!(folders("nonsense\n1:cpu\n\n:::\n", MOUNT_2), []);
        assert_eq!(folders("0::/a\n", "30 23 0:26 /\n - cgroup2\n- - -\n"), []);
        // Outside of what the name space shows, or of the part that is mounted.
        assert_eq!(folders("0::/../b\n", MOUNT_2), []);
        let part = MOUNT_2.replace("0:26 /", "0:26 /other");
        assert_eq!(folders("0::/a\n", &part), []);
        let deep = format!("0::{}\n", "/a".repeat(1000));
        assert_eq!(folders(&deep, MOUNT_2).len(), super::MOST_GROUPS);
    }

    #[test]
    fn quotas_are_whole_cpus_rounded_down_and_one_at_least() {
        for (text, cpus) in [
            ("50000 100000\n", Some(1)),
            ("100000 100000\n", Some(1)),
            ("250000 100000\n", Some(2)),
            ("300000 100000", Some(3)),
            ("max 100000\n", None),
            ("100000 0\n", None),
            ("100000", None),
            ("-1 100000\n", None),
            ("99999999999999999999 1\n", None),
            ("", None),
        ] {
            assert_eq!(quota_of_2(text.as_bytes()), cpus, "{text:?}");
        }
        assert_eq!(quota_of_1(b"150000\n", b"50000\n"), Some(3));
        assert_eq!(quota_of_1(b"1000\n", b"100000\n"), Some(1));
        assert_eq!(quota_of_1(b"-1\n", b"100000\n"), None);
        assert_eq!(quota_of_1(b"", b"100000\n"), None);
    }

    #[test]
    fn fields_of_mountinfo_are_read_as_they_were_meant() {
        assert_eq!(unescaped(b"/a\\040b\\134\\011"), b"/a b\\\t");
        assert_eq!(unescaped(b"\\04 \\ \\900\\"), b"\\04 \\ \\900\\");
    }

    #[test]
    #[cfg_attr(miri, ignore = "files")]
    fn a_quota_is_seen_when_it_changes_and_where_the_process_moves() {
        let root = super::FakeRoot::new("quota");
        root.write("proc/self/mountinfo", MOUNT_2);
        root.write("proc/self/cgroup", "0::/pod/c1\n");
        root.write("sys/fs/cgroup/pod/cpu.max", "max 100000\n");
        root.write("sys/fs/cgroup/pod/c1/cpu.max", "600000 100000\n");
        let mut quota = Quota::under(root.path());
        assert_eq!(quota.whole_cpus().unwrap(), Some(6));
        // The parent's.
        root.write("sys/fs/cgroup/pod/cpu.max", "350000 100000\n");
        assert_eq!(quota.whole_cpus().unwrap(), Some(3));
        root.write("sys/fs/cgroup/pod/c1/cpu.max", "50000 100000\n");
        assert_eq!(quota.whole_cpus().unwrap(), Some(1));
        // To a group with no limit of its own, which is mounted elsewhere.
        root.write("proc/self/cgroup", "7:cpu:/lone\n0::/pod\n");
        root.write(
            "proc/self/mountinfo",
            "32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu\n",
        );
        assert_eq!(quota.whole_cpus().unwrap(), None);
        root.write("cpu/cpu.cfs_quota_us", "400000\n");
        root.write("cpu/cpu.cfs_period_us", "200000\n");
        assert_eq!(quota.whole_cpus().unwrap(), Some(2));
        assert_eq!(
            Quota::under(root.path().join("nowhere"))
                .whole_cpus()
                .unwrap(),
            None
        );
    }
}

/// A folder with files as a system has them.
#[cfg(all(test, not(loom)))]
pub(crate) use self::fake::FakeRoot;

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "for tests")]
mod fake {
    use std::path::{Path, PathBuf};

    pub(crate) struct FakeRoot(PathBuf);

    impl FakeRoot {
        pub(crate) fn new(name: &str) -> Self {
            let name = format!("weald-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        pub(crate) fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for FakeRoot {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
