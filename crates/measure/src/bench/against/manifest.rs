//! The text of the generated files, with sections copied from the manifest of a tree.

use std::fmt::Write;
use std::path::Path;

/// The sections of a manifest: the header without its brackets, and the lines below it.
fn sections(manifest: &str) -> Vec<(&str, Vec<&str>)> {
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in manifest.lines() {
        let header = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (header, sections.last_mut()) {
            // the lines of an array are indented, so that an inner array is not taken for a header
            (Some(header), _) if line.starts_with('[') => sections.push((header, Vec::new())),
            (_, Some((_, lines))) => lines.push(line),
            (_, None) => {}
        }
    }
    sections
}

/// The string value of `key` in one of the sections.
fn string<'a>(manifest: &'a str, headers: &[&str], key: &str) -> Option<&'a str> {
    let sections = sections(manifest);
    let lines = sections.iter().filter(|(header, _)| headers.contains(header)).flat_map(|(_, lines)| lines);
    let mut values = lines.filter_map(|line| {
        let (found, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix('"')?;
        (found.trim() == key).then(|| value.split('"').next())?
    });
    values.next()
}

/// The name of the package.
pub(super) fn package_name(manifest: &str) -> Option<&str> {
    string(manifest, &["package"], "name")
}

/// The text of the sections for which `wanted` returns true.
fn copied(manifest: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (header, lines) in sections(manifest).into_iter().filter(|(header, _)| wanted(header)) {
        let lines: Vec<&str> = lines.into_iter().filter(|line| !line.trim_start().starts_with('#')).collect();
        let _ = write!(text, "\n[{header}]\n{}\n", lines.join("\n").trim_end());
    }
    text
}

/// Whether it is `dependencies`, for any target, or a subsection of it.
fn is_dependencies(header: &str) -> bool {
    header == "dependencies"
        || header.starts_with("dependencies.")
        || (header.starts_with("target.") && header.contains(".dependencies"))
}

/// The package around the library of one tree.
///
/// # Errors
/// What the manifest of the tree lacks, or uses without support here.
pub(super) fn library(number: usize, root: &Path, manifest: &str) -> Result<String, String> {
    let edition = edition(manifest)?;
    let dependencies = copied(manifest, |header| is_dependencies(header) || header == "features");
    if dependencies.contains("workspace = true") {
        return Err("a dependency is inherited from the workspace, which is not supported here".to_owned());
    }
    let dependencies = dependencies.replace("path = \"", &format!("path = \"{}/", root.display()));
    let lib = root.join("src/lib.rs");
    Ok(package(&format!("shmpipe-against-{number}"), edition, &lib, "shmpipe") + &dependencies)
}

/// The package around the adapter of one tree.
///
/// # Errors
/// As [`library`].
pub(super) fn adapter(number: usize, file: &Path, manifest: &str, measure: &Path) -> Result<String, String> {
    let head = package(&adapter_package(number), edition(manifest)?, file, &adapter_name(number));
    Ok(format!(
        "{head}
[dependencies]
shmpipe = {{ package = \"shmpipe-against-{number}\", path = \"../library-{number}\" }}
shmpipe-measure = {{ path = {measure:?} }}
"
    ))
}

pub(super) fn adapter_package(number: usize) -> String {
    format!("shmpipe-against-{number}-adapter")
}

fn adapter_name(number: usize) -> String {
    format!("adapter_{number}")
}

fn edition(manifest: &str) -> Result<&str, String> {
    let found = string(manifest, &["package", "workspace.package"], "edition");
    found.ok_or_else(|| "no edition in [package] or [workspace.package]".to_owned())
}

/// A package without lints, since each tree has its own.
fn package(name: &str, edition: &str, file: &Path, crate_name: &str) -> String {
    format!(
        "[package]
name = \"{name}\"
version = \"0.0.0\"
edition = \"{edition}\"
publish = false

[lib]
name = \"{crate_name}\"
path = {file:?}
test = false
doctest = false

[lints.rust]
warnings = \"allow\"
"
    )
}

/// The workspace, and the package of the program. The profile is that of this tree's manifest.
pub(super) fn program(trees: usize, placements: usize, this: &str, measure: &Path) -> String {
    let mut text = String::from(
        "[workspace]
resolver = \"3\"

[package]
name = \"shmpipe-against\"
version = \"0.0.0\"
edition = \"2024\"
publish = false
autobins = false
",
    );
    for placement in 0..placements {
        let name = program_name(placement);
        let _ = write!(text, "\n[[bin]]\nname = \"{name}\"\npath = \"src/bin/{name}.rs\"\n");
    }
    let _ = write!(text, "\n[dependencies]\nshmpipe-measure = {{ path = {measure:?} }}\n");
    for number in 0..trees {
        let package = adapter_package(number);
        let _ = writeln!(text, "{package} = {{ path = \"adapter-{number}\" }}");
    }
    text + &copied(this, |header| header == "profile.release" || header.starts_with("profile.release."))
}

/// The name of the program with this code placement.
pub(super) fn program_name(placement: usize) -> String {
    format!("placement-{placement}")
}

/// The library of the program: its main function. The label of this tree is empty.
pub(super) fn main_function(labels: &[&str]) -> String {
    let sides = labels
        .iter()
        .enumerate()
        .map(|(number, label)| format!("        ({label:?}, {}::TRANSPORTS),\n", adapter_name(number)));
    format!(
        "pub fn run() -> std::process::ExitCode {{
    shmpipe_measure::bench::against::serve(&[
{}    ])
}}
",
        sides.collect::<String>()
    )
}

pub(super) const BIN: &str = "fn main() -> std::process::ExitCode {\n    shmpipe_against::run()\n}\n";

/// The build script: every program but the first has its functions in a random order.
pub(super) fn build_script(placements: usize) -> String {
    let mut text = String::from("fn main() {\n    println!(\"cargo::rerun-if-changed=build.rs\");\n");
    for placement in 1..placements {
        let name = program_name(placement);
        let _ = writeln!(
            text,
            "    println!(\"cargo::rustc-link-arg-bin={name}=-Wl,--shuffle-sections=.text*={placement}\");"
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
[workspace]
members = [
    \"crates/cli\",
]
[workspace.package]
edition = \"2021\"
[profile.release]
debug = \"line-tables-only\"
[package]
name = \"shmpipe\"
edition.workspace = true
[dependencies]
# why
bytemuck = { version = \"1\", features = [
    \"derive\"
] }
[dependencies.libc]
version = \"0.2\"
[target.'cfg(shmpipe_loom)'.dependencies]
loom = \"0.7\"
[target.'cfg(target_os = \"macos\")'.dependencies.mach]
version = \"1\"
[target.x86_64-unknown-linux-gnu.dependencies]
inner = { path = \"crates/inner\" }
[dev-dependencies]
shmpipe-testing = { path = \"crates/testing\" }
[target.'cfg(not(shmpipe_loom))'.dev-dependencies]
shmpipe-measure = { path = \"crates/measure\" }
[features]
fast = []
[[bench]]
name = \"costs\"
";

    #[test]
    fn library_has_only_the_dependencies_of_its_tree() {
        let text = library(3, Path::new("/tree"), MANIFEST).unwrap();
        let headers: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(
            headers,
            [
                "[package]",
                "[lib]",
                "[lints.rust]",
                "[dependencies]",
                "[dependencies.libc]",
                "[target.'cfg(shmpipe_loom)'.dependencies]",
                "[target.'cfg(target_os = \"macos\")'.dependencies.mach]",
                "[target.x86_64-unknown-linux-gnu.dependencies]",
                "[features]",
            ]
        );
        for line in [
            "name = \"shmpipe-against-3\"",
            "edition = \"2021\"",
            "path = \"/tree/src/lib.rs\"",
            "    \"derive\"",
            "inner = { path = \"/tree/crates/inner\" }",
            "fast = []",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn inherited_dependencies_are_an_error() {
        let manifest = MANIFEST.replace("version = \"0.2\"", "workspace = true");
        assert!(library(1, Path::new("/tree"), &manifest).unwrap_err().contains("inherited"));
        let manifest = MANIFEST.replace("edition = \"2021\"", "");
        assert!(library(1, Path::new("/tree"), &manifest).unwrap_err().contains("edition"));
    }

    #[test]
    fn package_name_is_not_taken_from_a_program() {
        assert_eq!(package_name(MANIFEST), Some("shmpipe"));
        assert_eq!(package_name("[package]\nname = \"x\"\n[[bin]]\nname = \"shmpipe\"\n"), Some("x"));
        assert_eq!(package_name("[workspace]\n"), None);
    }

    #[test]
    fn adapter_depends_on_its_own_library() {
        let text = adapter(2, Path::new("/a.rs"), MANIFEST, Path::new("/measure")).unwrap();
        assert!(text.contains("name = \"adapter_2\"\npath = \"/a.rs\""), "{text}");
        assert!(
            text.contains("shmpipe = { package = \"shmpipe-against-2\", path = \"../library-2\" }"),
            "{text}"
        );
    }

    #[test]
    fn program_links_all_trees_once_for_each_placement() {
        let text = program(2, 2, MANIFEST, Path::new("/measure"));
        assert_eq!(text.matches("[[bin]]").count(), 2, "{text}");
        assert!(text.contains("shmpipe-against-1-adapter = { path = \"adapter-1\" }"), "{text}");
        assert!(text.contains("[profile.release]\ndebug = \"line-tables-only\""), "{text}");
        let main = main_function(&["", "HEAD"]);
        assert!(
            main.contains("(\"\", adapter_0::TRANSPORTS),\n        (\"HEAD\", adapter_1::TRANSPORTS),"),
            "{main}"
        );
        let script = build_script(3);
        assert!(script.contains("bin=placement-2=-Wl,--shuffle-sections=.text*=2"), "{script}");
        assert!(!script.contains("placement-0"), "{script}");
    }
}
