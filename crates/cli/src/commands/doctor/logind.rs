//! Whether systemd-logind removes a user's semaphore sets and /dev/shm files when the user logs out (`RemoveIPC=`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::check::Check;
use crate::system::processes;
use crate::system::users;

const NAME: &str = "logind";

/// Where logind looks for its settings, the first of these first.
const PLACES: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// The highest uid of a system user; logind spares those.
const LAST_SYSTEM_USER: u32 = 999;

/// Checks what would happen to the pipes of that user.
pub fn check(uid: u32) -> Check {
    match processes::are_visible() {
        false => Check::impossible(NAME, "processes of other users are hidden (/proc mounted with hidepid)"),
        true => judge(Path::new("/"), uid, processes::is_running("systemd-logind")),
    }
}

fn judge(root: &Path, uid: u32, is_running: bool) -> Check {
    let mut check = Check::new(NAME);
    let user = users::name(uid);
    let removes = removes_ipc(root);
    let lingers = root.join("var/lib/systemd/linger").join(&user).exists();
    check.fact("logind_is_running", is_running);
    check.fact("remove_ipc", removes);
    check.fact("uid", uid);
    check.fact("lingers", lingers);
    let spared = if uid == 0 {
        Some("spares root".to_owned())
    } else if uid <= LAST_SYSTEM_USER {
        Some(format!("spares system users such as {user}"))
    } else {
        lingers.then(|| format!("spares {user}, who lingers"))
    };
    check.summary(match (is_running, removes, &spared) {
        (false, ..) => "is not running".to_owned(),
        (_, false, _) => "keeps the objects of users who log out (RemoveIPC=no)".to_owned(),
        (_, _, Some(spared)) => {
            format!("removes the objects of users who log out (RemoveIPC=yes), but {spared}")
        }
        (_, _, None) => format!("removes the objects of user {user} at logout (RemoveIPC=yes)"),
    });
    if is_running && removes && spared.is_none() {
        check.find(
            format!("when the last session of user {user} ends, logind removes the user's semaphore sets and files in /dev/shm, even in use"),
            "a pair that is still running loses its roles (System V) or its name (posix:) and fails with \"removed\"",
            format!("loginctl enable-linger {user}   # or RemoveIPC=no in /etc/systemd/logind.conf, then systemctl restart systemd-logind"),
        );
    }
    check
}

/// The effective setting under `root`; the default of logind is yes.
fn removes_ipc(root: &Path) -> bool {
    let main = PLACES.iter().find_map(|place| fs::read_to_string(root.join(place).join("logind.conf")).ok());
    // Of drop-ins with the same name the first place wins. All are read in the order of their names, across places.
    let mut drop_ins = BTreeMap::new();
    for place in PLACES.iter().rev() {
        let Ok(entries) = fs::read_dir(root.join(place).join("logind.conf.d")) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
    }
    let drop_ins = drop_ins.values().filter_map(|path| fs::read_to_string(path).ok());
    main.into_iter().chain(drop_ins).filter_map(|text| setting(&text)).next_back().unwrap_or(true)
}

/// The last valid `RemoveIPC=` of a file.
fn setting(text: &str) -> Option<bool> {
    let mut section = "";
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let (Some(("RemoveIPC", value)), "[Login]") =
            (line.split_once('=').map(|(key, value)| (key.trim(), value.trim())), section)
        {
            found = boolean(value).or(found);
        }
    }
    found
}

/// A boolean as systemd reads it.
fn boolean(text: &str) -> Option<bool> {
    match &*text.to_ascii_lowercase() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;
    use std::path::PathBuf;

    /// A directory in place of `/`, removed when the test ends.
    struct Root(PathBuf);

    impl Root {
        fn new(topic: &str) -> Root {
            let root = Root(std::env::temp_dir().join(format!("shmpipe-{}-{topic}", std::process::id())));
            fs::create_dir_all(&root.0).unwrap();
            root
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn settings_are_read_as_systemd_reads_them() {
        let root = Root::new("settings");
        assert!(removes_ipc(&root.0), "the default");
        root.put("usr/lib/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
        assert!(!removes_ipc(&root.0));
        root.put("etc/systemd/logind.conf", "[Login]\n#RemoveIPC=no\n");
        assert!(removes_ipc(&root.0), "a file in /etc hides the one in /usr/lib");
        root.put("usr/lib/systemd/logind.conf.d/50-a.conf", "[Login]\n RemoveIPC = Off \n");
        assert!(!removes_ipc(&root.0));
        root.put("run/systemd/logind.conf.d/60-b.conf", "[Login]\nRemoveIPC=1\n[Other]\nRemoveIPC=no\n");
        assert!(removes_ipc(&root.0), "a later drop-in wins, and only its own section counts");
        root.put("etc/systemd/logind.conf.d/60-b.conf", "[Login]\nRemoveIPC=perhaps\n");
        assert!(!removes_ipc(&root.0), "hidden by one of the same name, which says nothing valid");
        root.put("etc/systemd/logind.conf.d/99-c.txt", "[Login]\nRemoveIPC=yes\n");
        assert!(!removes_ipc(&root.0), "not a .conf");
    }

    #[test]
    fn users_that_logind_spares_have_no_finding() {
        let root = Root::new("users");
        let verdict = |uid, running| judge(&root.0, uid, running).verdict();
        assert_eq!(verdict(1_234_567, true), Verdict::Finding);
        assert_eq!(verdict(1000, false), Verdict::Ok, "no logind");
        assert_eq!((verdict(0, true), verdict(999, true)), (Verdict::Ok, Verdict::Ok));
        root.put("var/lib/systemd/linger/1234567", "");
        assert_eq!(verdict(1_234_567, true), Verdict::Ok, "lingers");
        root.put("etc/systemd/logind.conf", "[Login]\nRemoveIPC=no\n");
        assert_eq!(verdict(7_654_321, true), Verdict::Ok);
    }
}
