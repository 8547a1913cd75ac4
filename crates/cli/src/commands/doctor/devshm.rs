//! /dev/shm, where `posix:` pipes live.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};
use procfs::process::Process;

use super::check::Check;
use super::namespaces;
use super::sizes::PIPE;
use crate::output::units;

const NAME: &str = "/dev/shm";

/// The state of a directory of shared memory objects.
#[derive(Clone, Debug)]
struct Directory {
    file_system: String,
    read_only: bool,
    /// Bytes; 0 where the file system sets no limit.
    size: u64,
    free: u64,
    /// Files that still fit; `None` where the file system sets no limit.
    free_files: Option<u64>,
    mode: u32,
    writable: bool,
}

pub fn check() -> Check {
    match Directory::at(Path::new(NAME)) {
        Ok(directory) => judge(&directory, namespaces::container().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut check = Check::new(NAME);
            check.summary("does not exist");
            check.find(
                "/dev/shm does not exist",
                "posix: pipes are files in it; other kinds do not need it",
                "mkdir -m 1777 /dev/shm && mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm",
            );
            check
        }
        Err(error) => Check::impossible(NAME, error.to_string()),
    }
}

impl Directory {
    fn at(directory: &Path) -> io::Result<Self> {
        let mode = fs::metadata(directory)?.mode();
        let found = statvfs(directory)?;
        Ok(Directory {
            file_system: file_system(directory).unwrap_or_else(|| "unknown".to_owned()),
            read_only: found.flags().contains(FsFlags::ST_RDONLY),
            size: found.blocks() * found.fragment_size(),
            free: found.blocks_available() * found.fragment_size(),
            free_files: (found.files() > 0).then_some(found.files_available()),
            mode,
            writable: access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok(),
        })
    }
}

/// The type of the file system that a directory lies in.
fn file_system(directory: &Path) -> Option<String> {
    let mounts = Process::myself().ok()?.mountinfo().ok()?;
    // The longest mount point above it; of several at one point, the last is on top.
    let mounts = mounts.0.into_iter().filter(|mount| directory.starts_with(&mount.mount_point));
    mounts.max_by_key(|mount| mount.mount_point.as_os_str().len()).map(|mount| mount.fs_type)
}

fn judge(directory: &Directory, in_container: bool) -> Check {
    let Directory { size, free, .. } = *directory;
    let mut check = Check::new(NAME);
    check.fact("file_system", directory.file_system.clone());
    check.fact("size_bytes", size);
    check.fact("free_bytes", free);
    check.fact("read_only", directory.read_only);
    check.fact("writable", directory.writable);
    check.fact("mode", format!("{:04o}", directory.mode & 0o7777));
    check.summary(match size {
        0 => format!("{} without size limit", directory.file_system),
        _ => format!(
            "{} of {}, {} free",
            directory.file_system,
            units::show_size(size),
            units::show_size(free)
        ),
    });
    if directory.file_system != "tmpfs" {
        check.find(
            format!("it is not a tmpfs but {}", directory.file_system),
            "shared memory may lie on a disk, and posix: pipes may be refused",
            "mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm",
        );
    }
    if directory.read_only {
        check.find(
            "it is mounted read-only",
            "posix: pipes cannot be created",
            "mount -o remount,rw /dev/shm",
        );
    } else if !directory.writable {
        check.find(
            format!("this user may not write to it (mode {:04o})", directory.mode & 0o7777),
            "posix: pipes cannot be created",
            "chmod 1777 /dev/shm",
        );
    }
    if directory.mode & 0o1002 == 0o0002 {
        check.find(
            "it is writable by everyone and not sticky",
            "any user can remove or replace the pipes of others",
            "chmod +t /dev/shm",
        );
    }
    let nearly_full = size > 0 && free < size / 10;
    if size > 0 && (nearly_full || free < PIPE) && !directory.read_only {
        let larger = units::show_size((2 * size).max(64 << 20)).replace(' ', "").replace("iB", "");
        check.find(
            format!("only {} of {} are free", units::show_size(free), units::show_size(size)),
            format!("a pipe of the default capacity takes {}, all of it on creation", units::show_size(PIPE)),
            match in_container {
                true => format!(
                    "docker run --shm-size={larger} ...   # Kubernetes: an emptyDir with medium: Memory"
                ),
                false => format!("mount -o remount,size={larger} /dev/shm"),
            },
        );
    }
    if directory.free_files == Some(0) {
        check.find(
            "it has no room for more files",
            "posix: pipes cannot be created",
            "mount -o remount,nr_inodes=1000000 /dev/shm",
        );
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    fn directory() -> Directory {
        Directory {
            file_system: "tmpfs".to_owned(),
            read_only: false,
            size: 64 << 20,
            free: 60 << 20,
            free_files: Some(1000),
            mode: 0o41777,
            writable: true,
        }
    }

    fn fixes(change: impl Fn(&mut Directory), in_container: bool) -> Vec<String> {
        let mut directory = directory();
        change(&mut directory);
        judge(&directory, in_container).findings.into_iter().map(|finding| finding.fix).collect()
    }

    #[test]
    fn what_is_wrong_is_found_and_what_is_not_is_not() {
        assert_eq!(judge(&directory(), false).verdict(), Verdict::Ok);
        assert_eq!(fixes(|p| p.size = 0, false), [] as [&str; 0], "no limit");
        assert_eq!(fixes(|p| p.free = 6 << 20, false), ["mount -o remount,size=128M /dev/shm"]);
        let docker = fixes(|p| p.free = 6 << 20, true);
        assert!(docker[0].starts_with("docker run --shm-size=128M"), "{docker:?}");
        // All of it is free, and yet no pipe fits.
        assert_eq!(
            fixes(|p| (p.size, p.free) = (1 << 20, 1 << 20), false),
            ["mount -o remount,size=64M /dev/shm"]
        );
        assert_eq!(fixes(|p| p.read_only = true, false), ["mount -o remount,rw /dev/shm"]);
        assert_eq!(fixes(|p| (p.writable, p.mode) = (false, 0o755), false), ["chmod 1777 /dev/shm"]);
        assert_eq!(fixes(|p| p.mode = 0o40777, false), ["chmod +t /dev/shm"]);
        assert_eq!(fixes(|p| p.free_files = Some(0), false).len(), 1);
        assert!(fixes(|p| p.file_system = "ext4".to_owned(), false)[0].starts_with("mount -t tmpfs"));
    }
}
