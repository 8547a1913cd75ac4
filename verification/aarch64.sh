#!/usr/bin/env bash
# Builds the tests for aarch64 and runs them under qemu-user. This checks page size, layouts, system calls and code that only this
# target has (its own copies, unsigned chars). It does not check the memory order, since qemu on x86-64 keeps x86's order: litmus.sh
# does that.
#
#   verification/aarch64.sh                     everything
#   verification/aarch64.sh --test conformance  any arguments of cargo test
#
# Needs rustup, and on Debian gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user, which it installs as root. Tests start
# themselves as other processes, so the kernel must know qemu for this machine type (binfmt_misc). If it does not, this script
# registers it, as root, while the tests run. Tests that qemu-user cannot run are listed below.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
binfmt=/proc/sys/fs/binfmt_misc

if ! { command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc; } >/dev/null; then
    apt-get update -qq
    apt-get install -y --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
fi
rustup target add $target

# Tests that cannot run under qemu-user, by parts of their names (libtest's --skip), with the reason.
skipped=()
skip() { # REASON NAME...
    shift
    for name in "$@"; do skipped+=(--skip "$name"); done
}
skip "MADV_DONTFORK is not passed on: a child has the mapping, and so the role" \
    a_private_pipe_that_lost_its_set_gets_another_when_unattached \
    an_ftok_address_uses_the_key_of_ftok
skip "no ptrace" a_remover_does_not_remove_a_pipe_created_meanwhile
skip "no seccomp" a_file_system_without_unnamed_files
skip "a library compiled here is not one of the target's" undo::
skip "madvise, mincore and prctl of pages are qemu's own" pages::tests
# From tests/conformance only the tests of one process and of streams. The rest starts processes while a pipe is open
# (MADV_DONTFORK again). No tests/hostile: it forks and single-steps.

if ! [ -e $binfmt/qemu-aarch64 ]; then
    [ -e $binfmt/register ] || mount -t binfmt_misc none $binfmt
    name=shmpipe-aarch64-$$
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":$name:M::$magic:$mask:$(readlink -f "$(command -v qemu-aarch64)"):F" >$binfmt/register
    trap 'echo -1 >$binfmt/$name' EXIT
fi

export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# qemu sometimes hangs. No test program takes longer.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="timeout -k 5 1200"
cargo_test() {
    cargo test --locked --no-fail-fast --target $target -p shmpipe \
        --target-dir "${CARGO_TARGET_DIR:-target/verification/aarch64}" "$@" "${skipped[@]}"
}
if [ $# -gt 0 ]; then
    cargo_test "$@" --
    exit
fi
cargo_test --lib --test addresses --test files --test layout --test memfd --test sysv --test types --
cargo_test --test conformance -- ::one_process:: ::stream::
