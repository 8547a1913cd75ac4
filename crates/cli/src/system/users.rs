//! Users.

use nix::unistd::{self, Uid, User};

/// The effective user of this process.
pub fn current() -> u32 {
    unistd::geteuid().as_raw()
}

/// The name of a user, or the number of one without a name.
pub fn name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn root_has_a_name_and_an_unknown_user_a_number() {
        assert_eq!(super::name(0), "root");
        assert_eq!(super::name(3_999_999_999), "3999999999");
    }
}
