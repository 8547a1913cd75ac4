//! The memory that our control groups have left. A process that takes more is killed without warning.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes left in the tightest control group of this process, if any has a limit. Its file cache counts as free.
pub(super) fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().filter_map(|line| available_by_line(line, Path::new("/sys/fs/cgroup"))).min()
}

/// File names in one version of control groups: limit, usage, and the line of `memory.stat` with the inactive file cache.
struct Version {
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

const V1: Version =
    Version { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_inactive_file" };
const V2: Version = Version { limit: "memory.max", used: "memory.current", cached: "inactive_file" };

/// Bytes left by a line of `/proc/self/cgroup`, which holds hierarchy, controllers and path.
fn available_by_line(line: &str, mount_point: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (version, root) = match controllers {
        "" => (V2, mount_point.to_owned()),
        _ if controllers.split(',').any(|name| name == "memory") => (V1, mount_point.join("memory")),
        _ => return None,
    };
    // In a container the path may be that of the host. Then the limits of the mounted root apply.
    let own = root.join(path);
    own.ancestors()
        .take_while(|group| group.starts_with(&root))
        .filter_map(|group| available_in(group, &version))
        .min()
}

fn available_in(group: &Path, version: &Version) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" means no limit and is not a number.
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
    fn available_memory_is_that_of_the_tightest_group_with_its_file_cache() {
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
            available_by_line("0::/a/b", &root),
            available_by_line("4:cpu,memory:/c", &root),
            available_by_line("5:cpu:/c", &root),
            available_by_line("0::/elsewhere", &root),
            available_by_line("nonsense", &root),
        ];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, [Some(400), Some(0), None, None, None]);
    }
}
