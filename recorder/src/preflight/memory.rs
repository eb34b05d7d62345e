//! How much memory the control groups leave us.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The tightest limit that holds for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes that we and our neighbours in the group may use together.
    pub limit: u64,
    /// Bytes that they use already.
    pub used: u64,
    /// The file that says so.
    pub file: PathBuf,
}

impl MemoryLimit {
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// Reads the limits of our control group and of all above it.
pub(super) fn tightest_limit() -> Option<MemoryLimit> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    tightest_below(Path::new("/sys/fs/cgroup"), &groups)
}

fn tightest_below(root: &Path, groups: &str) -> Option<MemoryLimit> {
    let limits = groups.lines().filter_map(|line| hierarchy(root, line)).flat_map(|(hierarchy, group, limit, used)| {
        // In a namespace of their own, groups above us are not there; their files then cannot be read.
        let above = group.ancestors().map(|group| hierarchy.join(group)).collect::<Vec<_>>();
        above.into_iter().filter_map(move |group| read_limit(&group, limit, used))
    });
    limits.min_by_key(MemoryLimit::left)
}

/// Where the memory limits of a line of `/proc/self/cgroup` are: the hierarchy, the group in it, and two file names.
fn hierarchy<'a>(root: &Path, line: &'a str) -> Option<(PathBuf, &'a Path, &'static str, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    let group = Path::new(group.strip_prefix('/')?);
    match controllers {
        "" => Some((root.to_owned(), group, "memory.max", "memory.current")),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            Some((root.join("memory"), group, "memory.limit_in_bytes", "memory.usage_in_bytes"))
        }
        _ => None,
    }
}

fn read_limit(group: &Path, limit: &str, used: &str) -> Option<MemoryLimit> {
    // Bytes, or the word `max`; the first version writes a number close to 2^63 for that.
    const NO_LIMIT: u64 = 1 << 60;
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let bytes = number(limit).filter(|&bytes| bytes < NO_LIMIT)?;
    Some(MemoryLimit { limit: bytes, used: number(used)?, file: group.join(limit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: [&str; 2], contents: [&str; 2]) {
        let group = root.join(path);
        fs::create_dir_all(&group).unwrap();
        for (file, content) in files.iter().zip(contents) {
            fs::write(group.join(file), content).unwrap();
        }
    }

    #[test]
    fn the_group_that_leaves_least_decides() {
        const V2: [&str; 2] = ["memory.max", "memory.current"];
        const V1: [&str; 2] = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
        let root = std::env::temp_dir().join(format!("polletto-cgroup-{}", std::process::id()));
        group(&root, "a", V2, ["1000\n", "100\n"]);
        group(&root, "a/b", V2, ["950\n", "10\n"]);
        group(&root, "free", V2, ["max\n", "10\n"]);
        group(&root, "memory/c", V1, ["500\n", "1\n"]);
        group(&root, "memory/free", V1, ["9223372036854771712\n", "1\n"]);
        let tightest = |groups| tightest_below(&root, groups).map(|limit| (limit.left(), limit.file));

        assert_eq!(tightest("0::/a/b\n"), Some((900, root.join("a/memory.max"))));
        assert_eq!(tightest("4:cpu,memory:/c\n0::/a/b\n"), Some((499, root.join("memory/c/memory.limit_in_bytes"))));
        for none in ["", "0::/free\n", "0::/\n", "4:memory:/free\n", "1:cpu:/a\n", "0::/not-there\n", "garbage\n0:\n"] {
            assert_eq!(tightest(none), None, "{none}");
        }
        fs::remove_dir_all(root).unwrap();
    }
}
