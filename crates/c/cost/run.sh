#!/usr/bin/env bash
# Counts instructions per message from C: what the border costs on top of benches/instructions.rs. Prints them, and fails where one
# exceeds its bar, some five percent above what rustc 1.95 and gcc 12 make. Needs cc and valgrind.
#
# The C program is compiled with -O2 and linked with the shared library. It does everything with N messages and with 2 N under
# callgrind; the difference is the cost of N.
set -euo pipefail
cd "$(dirname "$0")"

messages=4096
target=${CARGO_TARGET_DIR:-../../../target}
cargo build --release --quiet --locked -p shmpipe-c
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
soname=$(readelf --dynamic "$target/release/libshmpipe_c.so" | sed -n 's/.*Library soname: \[\(.*\)\]/\1/p')
cp "$target/release/libshmpipe_c.so" "$scratch/$soname"
cc -std=c11 -O2 -I ../include border.c -o "$scratch/border" "$scratch/$soname" -Wl,-rpath,"$scratch"

# The instructions in the function `counted` and below.
collected() { # WORK LENGTH MESSAGES
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=counted "$scratch/border" "$@" 2>&1 |
        sed -n 's/.*Collected : //p'
}

failed=0
printf '%-50s %12s %6s\n' "" instructions bar
while read -r work length bar name; do
    each=$((($(collected "$work" "$length" $((2 * messages))) - $(collected "$work" "$length" $messages)) / messages))
    printf '%-50s %12d %6d\n' "$name" "$each" "$bar"
    [ "$each" -le "$bar" ] || failed=1
done <<'ROWS'
send-recv 8 152 8 B send, receive
in-set 8 152 8 B send, receive, of members of a set
send-recv 64 185 64 B send, receive
send-recv 1024 800 1 KiB send, receive
in-place 64 660 64 B in place: reserve, commit, borrow, release
empty 8 195 try_recv, empty
ROWS
exit $failed
