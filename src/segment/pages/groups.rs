//! The memory that control groups leave us: who takes more is killed, and not told.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that the tightest of the groups of this process has left, if any has a limit. What it uses to cache files it can do
/// without.
pub(super) fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().filter_map(|line| left_of(line, Path::new("/sys/fs/cgroup"))).min()
}

/// The files of a version of control groups: limit, use, and in `memory.stat` what is used for files that nobody needs now.
struct Version {
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

const FIRST: Version =
    Version { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_inactive_file" };
const SECOND: Version = Version { limit: "memory.max", used: "memory.current", cached: "inactive_file" };

/// What is left by a line of `/proc/self/cgroup`: hierarchy, controllers, path.
fn left_of(line: &str, mounted: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (version, root) = match controllers {
        "" => (SECOND, mounted.to_owned()),
        _ if controllers.split(',').any(|name| name == "memory") => (FIRST, mounted.join("memory")),
        _ => return None,
    };
    // In a container the path may be one of the host; the limits are then those of the root that is mounted.
    let own = root.join(path);
    own.ancestors()
        .take_while(|group| group.starts_with(&root))
        .filter_map(|group| left_in(group, &version))
        .min()
}

fn left_in(group: &Path, version: &Version) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number: no limit.
    let (limit, used) = (number(version.limit)?, number(version.used)?);
    let stat: PathBuf = group.join("memory.stat");
    let cached = fs::read_to_string(stat).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix(version.cached)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts_and_its_file_cache_does_not() {
        let root = std::env::temp_dir().join(format!("shmpipe-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "900\n");
        write("a/memory.stat", "anon 1\ninactive_file 300\nfile 5\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "100\n");
        write("memory/c/memory.limit_in_bytes", "500\n");
        write("memory/c/memory.usage_in_bytes", "600\n");
        let left = [
            left_of("0::/a/b", &root),
            left_of("4:cpu,memory:/c", &root),
            left_of("5:cpu:/c", &root),
            left_of("0::/elsewhere", &root),
            left_of("nonsense", &root),
        ];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, [Some(400), Some(0), None, None, None]);
    }
}
