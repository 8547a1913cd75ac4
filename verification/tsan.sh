#!/usr/bin/env bash
# Sends between two threads, in place, under ThreadSanitizer, which reports a missing ordering as a data race.
#
#   verification/tsan.sh [--messages N] [--seed N]    1,000,000 messages by default
#   verification/tsan.sh build                        builds only
#
# Needs rustup, for a nightly toolchain and the sources of the standard library: an uninstrumented standard library causes false
# reports. Without these it prints "left out" and runs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

leave_out() { echo "tsan: left out: $*" && exit 0; }
command -v rustup >/dev/null || leave_out "no rustup, and so no nightly toolchain"
[ "$(uname -m)" = x86_64 ] || leave_out "set up for x86-64 alone"
rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal ||
    leave_out "no nightly toolchain available"
sources=$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library
[ -e "$sources/Cargo.lock" ] || rustup component add rust-src --toolchain nightly ||
    leave_out "no sources of nightly's standard library available"

target=x86_64-unknown-linux-gnu
# The portable copies: the sanitizer does not see into `asm!` blocks.
RUSTFLAGS="-Zsanitizer=thread --cfg shmpipe_portable" cargo +nightly build -Zbuild-std --target $target --release \
    --locked --target-dir target/verification/tsan -p shmpipe-torture
[ "${1:-}" != build ] || exit 0

# The first report ends it, with the exit code 66.
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 history_size=4 ${TSAN_OPTIONS:-}"
exec "target/verification/tsan/$target/release/shmpipe-torture" threads "$@"
