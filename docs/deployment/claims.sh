# shellcheck shell=bash
# The commands in which try.sh, try-docker.sh and try-systemd.sh are written; they source this file.
#
#   claim STATEMENT       states the claim, as docs/deployment.md does
#   needs COMMAND         skips the claim where the command fails
#   where COMMAND         runs the case that the claim is about
#   otherwise COMMAND     runs the control: the same without what the claim is about
#   gives CODE [PATTERN]  checks that the exit code ([18]: one of two) and the output match for the case, and not for the control
#
# A claim whose case and control end alike fails, because it would say nothing. `--swapped` exchanges the two commands:
# every claim that runs must fail then.

ok=0 failed=0 skipped=0 swapped=
[ "${1:-}" != --swapped ] || swapped=yes

# A claim that takes longer than this has failed.
PATIENCE=20

claim() {
    statement=$1 missing=''
    [[ $statement =~ ${KEEP:-} ]] || missing=kept
}

needs() { [ -n "$missing" ] || bash -c "${prelude:-}$1" >/dev/null 2>&1 || missing=$1; }

where() { [ -n "$missing" ] || observe first "$1"; }
otherwise() { [ -n "$missing" ] || observe second "$1"; }

# observe NAME COMMAND: runs the command, keeps its exit code in NAME_code and what it wrote in NAME_output.
observe() {
    local output code=0
    output=$(timeout -k 2 $PATIENCE bash -c "${prelude:-}$2" 2>&1 </dev/null) || code=$?
    printf -v "$1_command" %s "$2"
    printf -v "$1_output" %s "$output"
    printf -v "$1_code" %s "$code"
}

gives() {
    local code=$1 pattern=${2:-}
    [ "$missing" != kept ] || return
    if [ -n "$missing" ]; then
        skipped=$((skipped + 1))
        printf 'skipped  %s\n         needs: %s\n' "$statement" "$missing"
        return
    fi
    local asked=first control=second
    [ -z "$swapped" ] || asked=second control=first
    if holds $asked && ! holds $control; then
        ok=$((ok + 1))
        printf 'ok       %s\n' "$statement"
    else
        failed=$((failed + 1))
        printf 'FAILED   %s\n         expected exit code %s and %s\n' "$statement" "$code" "'$pattern'"
        show $asked '' && show $control ', the control, which has to end otherwise'
    fi
}

# Reads `code` and `pattern` of gives.
holds() {
    local found=$1_code output=$1_output
    # shellcheck disable=SC2053 # a pattern, for where two codes will do
    [[ ${!found} = $code ]] && grep -qE -- "$pattern" <<<"${!output}"
}

show() {
    local command=$1_command found=$1_code output=$1_output
    printf '         %s%s\n         gave %s: %s\n' "${!command}" "$2" "${!found}" "$(head -n 4 <<<"${!output}")"
}

# Prints the sum, and ends with 0 if nothing has failed (--swapped: if nothing has not failed).
verdict() {
    printf '\n%s ok, %s failed, %s skipped; Linux %s\n' $ok $failed $skipped "$(uname -r)"
    if [ -n "$swapped" ]; then [ $ok = 0 ]; else [ $failed = 0 ]; fi
}
