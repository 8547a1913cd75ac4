#!/usr/bin/env bash
# Runs the litmus files through herd7. Each claim must be `Never`, and `Sometimes` without its ordering.
#
#   verification/litmus.sh             all files
#   verification/litmus.sh sleep space files whose names start with these words
#
# The comment at the head of each file lists variants as sed scripts: `also NAME: SED` must be Never as well, `without NAME: SED`
# must be Sometimes, or a race. C11 files run under RC11 and under the C11 model with the weaker SC (partialSC): a claim must hold in
# both, a weakened one must fail in one.
#
# herd7 comes from Debian's herdtools7 if there is one, else from a minimal sid in target/verification (650 MB), which needs root,
# debootstrap and network.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=$PWD/target/verification
sid=$cache/sid
scratch=$cache/litmus
rm -rf "$scratch"
mkdir -p "$scratch"

in_sid() { chroot "$sid" env LC_ALL=C "$@"; }
if ! command -v herd7 >/dev/null && ! [ -x "$sid/usr/bin/herd7" ]; then
    echo "herd7: none here, installing it into $sid"
    rm -rf --one-file-system "$sid"
    command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
    debootstrap --variant=minbase sid "$sid" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$cache/sid.log"
    in_sid apt-get -qq -o Acquire::Check-Valid-Until=false update >>"$cache/sid.log"
    in_sid env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends herdtools7 \
        >>"$cache/sid.log" 2>&1
fi
# herd MODEL FILE
herd() {
    if command -v herd7 >/dev/null; then timeout 60 herd7 -model "$1" "$2"; else
        cp "$2" "$sid/tmp/shmpipe.litmus"
        in_sid timeout 60 herd7 -model "$1" /tmp/shmpipe.litmus
    fi
}

models() { # FILE
    case $(head -n 1 "$1") in
    "C "*) echo rc11.cat c11_partialSC.cat ;;
    "AArch64 "*) echo aarch64.cat ;;
    "X86_64 "*) echo x86tso-mixed.cat ;;
    esac
}

# observed MODEL FILE: Never, Sometimes, or race.
observed() {
    local output
    output=$(herd "$1" "$2" 2>&1) || true
    case $output in
    *"Flag *undef*"*) echo race ;;
    *"Observation "*" Never "*) echo Never ;;
    *"Observation "*" Sometimes "*) echo Sometimes ;;
    *"Observation "*" Always "*) echo Always ;;
    *) printf 'no verdict: %s\n' "$output" ;;
    esac
}

claims=0 weakened=0 failures=0
report() { # WANTED NAME RESULTS GOOD
    printf '%-5s %-9s %-70s %s\n' "$4" "$1" "$2" "$3"
    [ "$4" = ok ] || failures=$((failures + 1))
}

# claim NAME FILE: Never in all models.
claim() {
    local results="" verdict=ok
    for model in $(models "$2"); do
        result=$(observed "$model" "$2")
        results+="$result "
        [ "$result" = Never ] || verdict=WRONG
    done
    claims=$((claims + 1))
    report Never "$1" "$results" "$verdict"
}

# weaker NAME FILE: Sometimes, or a race, in one of them.
weaker() {
    local results="" verdict=WRONG
    for model in $(models "$2"); do
        result=$(observed "$model" "$2")
        results+="$result "
        case $result in Sometimes | Always | race) verdict=ok ;; Never) ;; *) verdict=WRONG && break ;; esac
    done
    weakened=$((weakened + 1))
    report Sometimes "$1" "$results" "$verdict"
}

run() { # FILE
    local name kind variant script
    name=$(basename "$1" .litmus)
    claim "$name" "$1"
    while IFS= read -r line; do
        kind=${line%% *} line=${line#* }
        variant=${line%%: *} script=${line#*: }
        # Leaves the comment itself unchanged.
        sed '1,/^\*)/b;'"$script" "$1" >"$scratch/variant.litmus"
        if cmp -s "$1" "$scratch/variant.litmus"; then
            report "" "$name, $kind $variant" "the sed script changes nothing" WRONG
        elif [ "$kind" = also ]; then
            claim "$name, also $variant" "$scratch/variant.litmus"
        else
            weaker "$name, without $variant" "$scratch/variant.litmus"
        fi
    done < <(sed -n '/^   \(also\|without\) .*: /s/^   //p' "$1")
}

files=()
for prefix in "${@:-}"; do
    for file in verification/litmus/"$prefix"*.litmus; do
        [ -e "$file" ] || { echo "no litmus file starts with $prefix" >&2 && exit 2; }
        files+=("$file")
    done
done
for file in "${files[@]}"; do run "$file"; done

if [ "$failures" -gt 0 ]; then
    echo "litmus: FAILED: $failures of $((claims + weakened)) are not what they must be"
    exit 1
fi
echo "litmus: PASSED: ${#files[@]} files, $claims claims Never, $weakened without their order not"
