//! Names the shared library for the dynamic linker.

fn main() {
    // Before 1.0, each minor version may break programs.
    let (major, minor) = (version("MAJOR"), version("MINOR"));
    let compatible = if major == "0" { format!("{major}.{minor}") } else { major };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libshmpipe.so.{compatible}");
    // A thread that waits for descriptors runs its code until the process ends.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}

fn version(part: &str) -> String {
    std::env::var(format!("CARGO_PKG_VERSION_{part}")).expect("cargo sets it")
}
