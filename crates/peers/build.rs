//! Compiles the peers that are written in C++.

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    #[cfg(feature = "cpp")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .warnings(true)
        .file("cpp/boost_spsc_queue.cpp")
        .file("cpp/readerwriterqueue.cpp")
        .compile("shmpipe_peers_cpp");
}
