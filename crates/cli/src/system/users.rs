//! Names of users.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr;

/// Longer than any entry that a system's own tools would cope with.
const ENTRY: usize = 16 << 10;

/// The name of a user, or the number where it has none.
pub fn name(uid: u32) -> String {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut strings = vec![0; ENTRY];
    let mut found = ptr::null_mut();
    // SAFETY: `entry`, `strings` with its length, and `found` are live and may be written.
    unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), strings.as_mut_ptr(), strings.len(), &mut found) };
    if found.is_null() {
        return uid.to_string();
    }
    // SAFETY: `found` is not null, so that the call has filled `entry`, whose name is a string with a terminator
    // within `strings`, which is still there.
    unsafe { CStr::from_ptr((*found).pw_name) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn root_has_a_name_and_nobody_at_all_has_a_number() {
        assert_eq!(super::name(0), "root");
        assert_eq!(super::name(3_999_999_999), "3999999999");
    }
}
