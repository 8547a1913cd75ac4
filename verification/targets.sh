#!/usr/bin/env bash
# Checks the targets besides x86_64-unknown-linux-gnu, and the oldest supported compiler.
#
#   verification/targets.sh          everything
#   verification/targets.sh check    library, command line and C interface compile for the supported targets and with the oldest
#                                    supported compiler; 32-bit targets are refused with the reason
#   verification/targets.sh musl     runs the tests linked with musl
#   verification/targets.sh oldest   runs the library's tests built by the oldest supported compiler
#
# Needs rustup, which installs compilers and targets, and a C linker. aarch64.sh runs the tests for aarch64.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/verification/targets}

# All little-endian: nothing here could run the other byte order.
supported="aarch64-unknown-linux-gnu aarch64-unknown-linux-musl riscv64gc-unknown-linux-gnu x86_64-unknown-linux-musl"
refused=i686-unknown-linux-gnu
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

step() { printf '\n== %s\n' "$*"; }
get_oldest() { rustup toolchain list | grep -q "^$oldest" || rustup toolchain install "$oldest" --profile minimal; }

check() {
    for target in $supported; do
        step "$target: check"
        rustup target add "$target"
        cargo check --locked -p shmpipe -p shmpipe-cli -p shmpipe-c --target "$target"
    done
    step "$refused: refused"
    rustup target add "$refused"
    if said=$(cargo check --locked -p shmpipe --target "$refused" 2>&1); then
        echo "it compiles"
        exit 1
    fi
    grep 'error: shmpipe is for 64-bit Linux' <<<"$said"
    step "Rust $oldest: check"
    get_oldest
    cargo "+$oldest" check --locked -p shmpipe -p shmpipe-cli -p shmpipe-c
}

musl() {
    step "x86_64-unknown-linux-musl: tests"
    rustup target add x86_64-unknown-linux-musl
    cargo test --locked -p shmpipe -p shmpipe-cli --lib --bins --tests --target x86_64-unknown-linux-musl
}

oldest() {
    step "Rust $oldest: tests"
    get_oldest
    cargo "+$oldest" test --locked -p shmpipe --lib --tests
}

case ${1:-all} in
all) check; musl; oldest ;;
check | musl | oldest) "$1" ;;
*) sed -n '2,/^$/s/^# \?//p' "$0" && exit 2 ;;
esac
