#!/usr/bin/env bash
# Runs the tests of the copies, between guard pages, on other processors and with another C library. Copies of more than 64 bytes
# call the C library's memcpy, which selects its code by processor.
#
#   verification/processors.sh            everything
#   verification/processors.sh nehalem    without AVX and without fast string moves, under qemu-user
#   verification/processors.sh valgrind   the machine code by valgrind's interpretation, and its own memcpy
#   verification/processors.sh musl       musl's memcpy
#   verification/processors.sh aarch64    AArch64's own blocks, under qemu-user
#
# Needs rustup, and on Debian qemu-user and valgrind, which it installs as root; for aarch64 what aarch64.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/verification/processors}

step() { printf '\n== %s\n' "$*"; }

need() { # PROGRAM PACKAGE
    type -P "$1" >/dev/null && return
    apt-get update -qq
    apt-get install -y --no-install-recommends "$2"
}

# Runs the tests of the copies. Fails if there are none.
copies() { # RUNNER ARGUMENT...
    local said
    said=$(CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$1 \
        cargo test --locked --release -p shmpipe --lib "${@:2}" copy:: 2>&1) || { echo "$said"; return 1; }
    grep -E '^test result: ok\. [1-9]' <<<"$said" || { echo "no test has run:"; echo "$said"; return 1; }
}

nehalem() {
    step "x86-64 without AVX and ERMS"
    need qemu-x86_64 qemu-user
    # The processor that glibc detects.
    loader=$(ldd /bin/true | grep -o '/[^ ]*/ld-linux[^ ]*')
    if qemu-x86_64 -cpu Nehalem "$loader" --help | grep 'x86-64-v3 (supported'; then
        echo "glibc finds AVX2: that is not the processor asked for"
        exit 1
    fi
    copies "timeout -k 5 600 qemu-x86_64 -cpu Nehalem"
}

valgrind() {
    step "valgrind"
    need valgrind valgrind
    copies "timeout -k 5 600 valgrind -q --error-exitcode=9"
}

musl() {
    step "musl"
    rustup target add x86_64-unknown-linux-musl
    copies env --target x86_64-unknown-linux-musl
}

aarch64() {
    step "aarch64"
    verification/aarch64.sh --lib copy::
}

case ${1:-all} in
all) nehalem; valgrind; musl; aarch64 ;;
nehalem | valgrind | musl | aarch64) "$1" ;;
*) sed -n '2,/^$/s/^# \?//p' "$0" && exit 2 ;;
esac
