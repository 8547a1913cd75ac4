#!/usr/bin/env bash
# Prints which modules of the library, and of the command line, name which others, and fails if one names a module above it.
# DESIGN.md says what each is for.
#
#   verification/floors.sh            prints each floor with those below that it uses
set -euo pipefail
cd "$(dirname "$0")/.."

# From the ground up. Comments do not count.
library="permissions position sys protocol address error options segment backend pipe inspect os endpoint waiting"
cli="exit args system output commands main"
protocol="sync record corruption layout processor copy wakeup liveness ring latency sleep half front reader tap recovery writer duplex models"

# Prints the arrows between the modules of a folder.
arrows() { # FOLDER PREFIX
    find "$1" -name '*.rs' | sort | while read -r file; do
        module=${file#"$1"/}
        module=${module%.rs}
        module=${module%%/*}
        sed 's,//.*,,' "$file" | { grep -oE "\b$2::\w+" || true; } | sed "s,.*::,$module ,"
    done | sort -u | awk '$1 != $2'
}

# Fails if an arrow points up, or if a module has no floor.
check() { # FLOORS FOLDER PREFIX
    arrows "$2" "$3" | awk -v floors="$1" -v folder="$2" '
        BEGIN { count = split(floors, name, " "); for (i = 1; i <= count; i++) floor[name[i]] = i }
        $1 == "lib" { next }
        !($1 in floor) || !($2 in floor) { printf "%s: %s or %s is on no floor\n", folder, $1, $2; bad = 1; next }
        floor[$2] > floor[$1] { printf "%s: %s names %s, which is above it\n", folder, $1, $2; bad = 1 }
        { below[$1] = below[$1] " " $2 }
        END {
            for (i = count; i >= 1; i--) printf "%-12s%s\n", name[i], below[name[i]]
            exit bad
        }'
}

echo "the library:"
check "$library" src crate
echo "its protocol:"
check "$protocol" src/protocol crate::protocol
echo "the command line:"
check "$cli" crates/cli/src crate

# The protocol runs under loom, so it names the operating system in `sync` alone.
if grep -rnE 'crate::sys|\blibc::|std::(fs|io|net|process|thread)' src/protocol --include='*.rs' |
    grep -vE '^src/protocol/(sync|models|copy/tests)[./]|^[^:]*:[0-9]*: *//|libc::memcpy'; then
    echo "the protocol names the operating system"
    exit 1
fi
# A path to the root of the crate would bypass the floors.
if grep -rnE '\bcrate::[A-Z]' src --include='*.rs' | grep -vE '^[^:]*:[0-9]*: *//|\]\(crate::'; then
    echo "a name from the root of the crate: name its module"
    exit 1
fi
