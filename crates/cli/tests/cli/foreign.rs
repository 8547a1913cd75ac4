//! Segments that are not pipes.

use std::ptr;

use crate::process::{Name, ask};

/// A segment of another program under a key of ours.
pub struct Foreign {
    pub id: i32,
    base: *mut u8,
    size: usize,
}

impl Foreign {
    pub fn new(key: i32, size: usize) -> Foreign {
        // SAFETY: takes numbers.
        let id = unsafe { libc::shmget(key, size, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
        assert!(id >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a new segment, at an address of the kernel's choice.
        let base = unsafe { libc::shmat(id, ptr::null(), 0) };
        assert!(base as isize != -1);
        let foreign = Foreign { id, base: base.cast(), size };
        for at in 0..size {
            // SAFETY: within the segment, which is still private to this test.
            unsafe { foreign.base.add(at).write(at as u8 ^ 0x5a) };
        }
        foreign
    }

    pub fn is_untouched(&self) -> bool {
        // SAFETY: within the segment; volatile, since others may have it attached.
        (0..self.size).all(|at| unsafe { self.base.add(at).read_volatile() } == at as u8 ^ 0x5a)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the address came from shmat and is detached once; removal takes numbers.
        unsafe {
            libc::shmdt(self.base.cast());
            libc::shmctl(self.id, libc::IPC_RMID, ptr::null_mut());
        }
    }
}

#[test]
fn a_foreign_segment_is_7_and_left_unchanged() {
    // The keys of two names: known once there was a pipe under each.
    for size in [100, 8192] {
        let name = Name::new("foreign");
        ask(&["create", &name]).code(0);
        let shmpipe::Object::SysV { key, .. } = shmpipe::inspect(&*name).unwrap().object else {
            panic!("a System V pipe");
        };
        ask(&["rm", &name]).code(0);
        let foreign = Foreign::new(key, size);
        for command in ["send", "recv", "stat", "rm", "create"] {
            ask(&[command, &name]).code(7).wrote(b"").said(&["is not a pipe"]);
        }
        ask(&["rm", "--force", &name]).code(7);
        let listed = ask(&["ls", "--json"]).code(0);
        let objects: Vec<serde_json::Value> = serde_json::from_slice(&listed.out).unwrap();
        assert!(objects.iter().all(|object| object["shm_id"] != foreign.id));
        assert!(foreign.is_untouched());
        drop(foreign);
        let sets = std::fs::read_to_string("/proc/sysvipc/sem").unwrap();
        let signed = key.to_string();
        let ours = sets.lines().any(|row| row.split_whitespace().next() == Some(&signed));
        assert!(!ours, "a set was left beside the foreign segment");
    }
}
