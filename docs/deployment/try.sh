#!/usr/bin/env bash
# The statements of docs/deployment.md that need no container engine and no systemd, each tried on this machine:
#
#   docs/deployment/try.sh             every statement, and whether it holds here
#   docs/deployment/try.sh --swapped   each exchanged with its control: all must fail
#
# Runs in its own namespaces, so that it sees, touches and leaves nothing on this machine. As root it can also act as
# several users; otherwise it skips the statements that need them. Needs util-linux, perl-base and shmpipe: the one in
# $SHMPIPE, or built here, or in the path. $KEEP=PATTERN runs only the statements that match.
set -uo pipefail
cd "$(dirname "$0")" || exit 2

if [ -z "${INSIDE:-}" ]; then
    built=../../target/release/shmpipe
    export SHMPIPE=${SHMPIPE:-$(realpath -e $built 2>/dev/null || command -v shmpipe)}
    [ -x "$SHMPIPE" ] || { echo "try.sh: no shmpipe; build it (cargo build --release -p shmpipe-cli)" >&2; exit 2; }
    user='--user --map-root-user'
    unshare $user --map-auto true 2>/dev/null && user="$user --map-auto"
    [ "$(id -u)" != 0 ] || user=''
    # All users can reach it, and it need not be on tmpfs.
    PLACE=$(mktemp -d) && chmod 0755 "$PLACE" || exit 2
    trap 'rm -rf "$PLACE"' EXIT
    export PLACE
    INSIDE=yes unshare $user --ipc --mount --pid --fork --kill-child --mount-proc bash "$PWD/${0##*/}" "$@"
    exit
fi

mount -t tmpfs -o mode=1777,size=8m tmpfs /dev/shm || exit 2
mkdir "$PLACE/bin" && cp "$SHMPIPE" forbid "$PLACE/bin/" && chmod 0755 "$PLACE"/bin/*
export PATH=$PLACE/bin:$PATH
cd "$PLACE" || exit 2
. "$OLDPWD/claims.sh"

# ---- the parts of the commands below     ---------------------------------------------------------------------------

# Three users, the first two of one group.
alice() { setpriv --reuid 2001 --regid 2001 --groups 2100 "$@"; }
bob() { setpriv --reuid 2002 --regid 2002 --groups 2100 "$@"; }
carol() { setpriv --reuid 2003 --regid 2003 --clear-groups "$@"; }

# until_true COMMAND: waits until it succeeds.
until_true() { until "$@" >/dev/null 2>&1; do sleep 0.02; done; }

# produces ADDRESS [WORD...]: a producer that stays, started by the words; consumes: a consumer.
produces() {
    local pipe=$1
    shift
    "$@" shmpipe send "$pipe" < <(exec sleep 60 2>/dev/null) >/dev/null 2>&1 &
    until_true eval "shmpipe --json stat '$pipe' | grep '\"producer_alive\":true'"
}
consumes() {
    local pipe=$1
    shift
    "$@" shmpipe recv "$pipe" --follow >received 2>heard &
    until_true eval "shmpipe --json stat '$pipe' | grep '\"consumer_alive\":true'"
}
# kill9: kills the process started last.
kill9() { kill -9 $! && wait $! 2>/dev/null; true; }

# number ADDRESS FIELD: a number in the output of stat.
number() { shmpipe --json stat "$1" | grep -oP "\"$2\":\K-?\d+"; }

# Writes 32 bits over those at an offset of a pipe's header.
scribble() {
    case $1 in
    posix:* | file:*) perl -e 'open my $f, "+<", $ARGV[0]; seek $f, $ARGV[1], 0; print $f pack "V", $ARGV[2]' "$(path "$1")" "$2" "$3" ;;
    *) perl -e 'shmwrite($ARGV[0], pack("V", $ARGV[2]), $ARGV[1], 4) or die' "$(number "$1" shm_id)" "$2" "$3" ;;
    esac
}
path() { case $1 in posix:*) echo "/dev/shm${1#posix:}" ;; *) echo "${1#file:}" ;; esac; }

# Every command starts with nothing there, and ends its children.
clean() { ipcrm --all; rm -rf /dev/shm/* "$PLACE"/dir received heard; mkdir -m 1777 "$PLACE/dir"; } 2>/dev/null
prelude='clean; trap "jobs -p | xargs -r kill -9; wait" EXIT 2>/dev/null; '
export -f alice bob carol until_true produces consumes kill9 number scribble path clean

# ---- System V: which namespace decides -----------------------------------------------------------------------------

claim "sysv: a pipe is not found from another IPC namespace"
where 'shmpipe create ticks; unshare --ipc shmpipe stat ticks'
otherwise 'shmpipe create ticks; shmpipe stat ticks'
gives 3 'no pipe at'

claim "sysv: send creates another pipe of the same name there, and reports no error"
where 'shmpipe create ticks; echo lost | unshare --ipc shmpipe send ticks; shmpipe recv ticks --timeout 200ms'
otherwise 'shmpipe create ticks; echo lost | shmpipe send ticks; shmpipe recv ticks --timeout 200ms'
gives 5

claim "sysv: neither the mount namespace nor /dev/shm matters"
where 'shmpipe create ticks; unshare --mount sh -c "mount -t tmpfs tmpfs /dev/shm; shmpipe stat ticks"'
otherwise 'shmpipe create ticks; unshare --ipc sh -c "shmpipe stat ticks"'
gives 0 'name +ticks'

claim "sysv: the size of /dev/shm does not matter"
where 'shmpipe create ticks --capacity 32M'
otherwise 'dd if=/dev/zero of=/dev/shm/big bs=1M count=32'
gives 0

claim "sysv: nsenter --ipc joins another namespace"
where 'unshare --ipc --fork sh -c "shmpipe create ticks; sleep 60" >/dev/null 2>&1 & sleep 0.3; nsenter --ipc --target $! shmpipe stat ticks'
otherwise 'unshare --ipc --fork sh -c "shmpipe create ticks; sleep 60" >/dev/null 2>&1 & sleep 0.3; shmpipe stat ticks'
gives 0 'name +ticks'

# ---- what holds for every kind of shared memory --------------------------------------------------------------------

for pipe in ticks posix:/ticks "file:$PLACE/dir/ticks"; do
    case $pipe in *:*) kind=${pipe%%:*} ;; *) kind=sysv ;; esac
    export pipe
    can="shmpipe create $pipe && shmpipe rm $pipe"

    # -- pid, network and user namespaces

    claim "$kind: the pid namespace does not matter: a role held outside is held inside, though its holder is not visible"
    needs "$can"
    where 'shmpipe create $pipe; produces $pipe; echo x | unshare --pid --fork --kill-child shmpipe send $pipe'
    otherwise 'shmpipe create $pipe; produces $pipe; echo x | shmpipe send $pipe'
    gives 4 'a process not visible from here'

    claim "$kind: a producer killed in another pid namespace counts as dead"
    needs "$can"
    where 'shmpipe create $pipe; produces $pipe unshare --pid --fork --kill-child; kill9; shmpipe recv $pipe --timeout 2s'
    otherwise 'shmpipe create $pipe; produces $pipe unshare --pid --fork --kill-child; shmpipe recv $pipe --timeout 500ms'
    gives 6 'the producer died'

    claim "$kind: the network and UTS namespaces do not matter"
    needs "$can"
    where 'shmpipe create $pipe; echo x | unshare --net --uts shmpipe send $pipe; shmpipe recv $pipe --timeout 500ms'
    otherwise 'shmpipe create $pipe; echo x | unshare --net --uts true; shmpipe recv $pipe --timeout 500ms'
    gives 0 x

    claim "$kind: root of a user namespace is an ordinary user outside: it may not open a pipe of root"
    needs "$can && alice unshare --user --map-root-user true"
    where 'shmpipe create $pipe; alice unshare --user --map-root-user shmpipe recv $pipe --timeout 100ms'
    otherwise 'alice shmpipe create $pipe; alice unshare --user --map-root-user shmpipe recv $pipe --timeout 100ms'
    gives 8 'no permission|expected root or our own user'

    claim "$kind: user ids are those of the reader's user namespace"
    needs "$can && alice unshare --user --map-root-user true"
    where 'alice shmpipe create $pipe; alice unshare --user --map-root-user shmpipe stat $pipe'
    otherwise 'alice shmpipe create $pipe; alice shmpipe stat $pipe'
    gives 0 'owner .*uid 0,'

    claim "$kind: an owner without a mapping in the user namespace shows as 65534"
    needs "$can && alice unshare --user --map-root-user true"
    where 'bob shmpipe create $pipe --mode 0666; alice unshare --user --map-root-user shmpipe recv $pipe --timeout 100ms'
    otherwise 'bob shmpipe create $pipe --mode 0666; alice shmpipe recv $pipe --timeout 100ms'
    gives 8 'user 65534'

    # -- two users

    claim "$kind: by default a pipe is for one user"
    needs "$can && alice true"
    where 'alice shmpipe create $pipe; bob shmpipe recv $pipe --timeout 100ms --trust-uid 2001'
    otherwise 'alice shmpipe create $pipe; alice shmpipe recv $pipe --timeout 100ms'
    gives 8 'no permission .*mode 0600'

    claim "$kind: mode 0660 and a group are not enough: the other side has to trust the owner"
    needs "$can && alice true"
    where 'alice shmpipe create $pipe --mode 0660 --gid 2100; bob shmpipe recv $pipe --timeout 100ms'
    otherwise 'alice shmpipe create $pipe --mode 0660 --gid 2100; bob shmpipe recv $pipe --timeout 100ms --trust-uid 2001'
    gives 8 'user 2001 created'

    claim "$kind: mode 0660, a group and --trust-uid join two users"
    needs "$can && alice true"
    where 'alice shmpipe create $pipe --mode 0660 --gid 2100; echo x | bob shmpipe send $pipe --trust-uid 2001; alice shmpipe recv $pipe --timeout 1s'
    otherwise 'alice shmpipe create $pipe --mode 0660 --gid 2001; echo x | bob shmpipe send $pipe --trust-uid 2001; alice shmpipe recv $pipe --timeout 1s'
    gives 0 x

    claim "$kind: a pipe that root creates and gives to a group needs no --trust-uid"
    needs "$can && alice true"
    where 'shmpipe create $pipe --mode 0660 --gid 2100; echo x | bob shmpipe send $pipe; alice shmpipe recv $pipe --timeout 1s'
    otherwise 'shmpipe create $pipe --mode 0660 --gid 2100; echo x | carol shmpipe send $pipe; alice shmpipe recv $pipe --timeout 1s'
    gives 0 x

    claim "$kind: a user who may only read can watch, but not take part"
    needs "$can && alice true"
    where 'alice shmpipe create $pipe --mode 0644; bob shmpipe stat $pipe >/dev/null || exit 99; bob shmpipe recv $pipe --trust-uid 2001 --timeout 100ms'
    otherwise 'alice shmpipe create $pipe --mode 0666; bob shmpipe stat $pipe >/dev/null || exit 99; bob shmpipe recv $pipe --mode 0666 --trust-uid 2001 --timeout 100ms'
    gives 8 'read and write permission'

    claim "$kind: the umask does not narrow the requested mode"
    needs "$can"
    where 'umask 077; shmpipe create $pipe --mode 0660; shmpipe stat $pipe'
    otherwise 'umask 077; shmpipe create $pipe; shmpipe stat $pipe'
    gives 0 'mode +0660'

    claim "$kind: another user may take the name first; that pipe is refused"
    needs "$can && alice true"
    where 'bob shmpipe create $pipe --mode 0666; echo secret | alice shmpipe send $pipe'
    otherwise 'alice shmpipe create $pipe --mode 0666; echo secret | alice shmpipe send $pipe --mode 0666'
    gives 8 'user 2002 created'

    claim "$kind: a world-writable pipe is refused unless the opener requests that mode"
    needs "$can"
    where 'shmpipe create $pipe --mode 0666; echo secret | shmpipe send $pipe'
    otherwise 'shmpipe create $pipe --mode 0666; echo secret | shmpipe send $pipe --mode 0666'
    gives 8 'every user may write'

    # -- one side at a time

    claim "$kind: an existing pipe keeps its properties, and the opener sees the differences"
    needs "$can"
    where 'shmpipe create $pipe --capacity 64KiB; echo x | shmpipe send $pipe --capacity 1MiB --mode 0660'
    otherwise 'echo x | shmpipe send $pipe --capacity 1MiB --mode 0660'
    gives 0 'the segment has 65536'

    claim "$kind: a second producer, an old one too, is refused while the first lives"
    needs "$can"
    where 'shmpipe create $pipe; produces $pipe; echo x | shmpipe send $pipe'
    otherwise 'shmpipe create $pipe; produces $pipe; kill9; echo x | shmpipe send $pipe'
    gives 4 'is already the producer of this pipe'

    claim "$kind: another layout version is refused with both numbers"
    needs "$can"
    where 'shmpipe create $pipe; scribble $pipe 8 99; shmpipe recv $pipe --timeout 100ms'
    otherwise 'shmpipe create $pipe; scribble $pipe 8 $(shmpipe create sysv:0x77 >&2; perl -e "shmread(\$ARGV[0], my \$v, 8, 4); print unpack q(V), \$v" $(number sysv:0x77 shm_id)); shmpipe recv $pipe --timeout 100ms'
    gives 7 'layout version 99, expected'

    claim "$kind: only rm --force removes a pipe of another layout version"
    needs "$can"
    where 'shmpipe create $pipe; scribble $pipe 8 99; shmpipe rm $pipe && exit 99; shmpipe rm --force $pipe && shmpipe create $pipe'
    otherwise 'shmpipe create $pipe; scribble $pipe 8 99; shmpipe rm $pipe || shmpipe create $pipe'
    gives 0

    claim "$kind: another schema is refused with both numbers"
    needs "$can"
    where 'shmpipe create $pipe --schema 1; echo x | shmpipe send $pipe --schema 2'
    otherwise 'shmpipe create $pipe --schema 1; echo x | shmpipe send $pipe --schema 1'
    gives 7 'schema 0x1, expected 0x2'

    # -- system calls that are forbidden

    claim "$kind: where membarrier is forbidden, a new pipe wakes by fence"
    needs "$can && forbid 324 true"
    where 'forbid 324 shmpipe create $pipe; shmpipe stat $pipe'
    otherwise 'shmpipe create $pipe; shmpipe stat $pipe'
    gives 0 'wake mode +fence'

    claim "$kind: where membarrier is forbidden, a pipe created elsewhere is refused with the reason"
    needs "$can && forbid 324 true"
    where 'shmpipe create $pipe; forbid 324 shmpipe recv $pipe --timeout 100ms'
    otherwise 'shmpipe create $pipe --wake fence; forbid 324 shmpipe recv $pipe --timeout 100ms'
    gives 7 'by membarrier, which this process cannot'

    # -- after a crash

    claim "$kind: what was sent before a kill -9 is received after it, then the death is reported"
    needs "$can"
    where 'shmpipe create $pipe; shmpipe send $pipe < <(echo kept; exec sleep 60 2>/dev/null) & until_true eval "shmpipe --json stat $pipe | grep producer_messages.:1"; kill9; shmpipe recv $pipe --timeout 2s'
    otherwise 'shmpipe create $pipe; shmpipe send $pipe < <(echo kept); shmpipe recv $pipe --timeout 2s'
    gives 6 'kept'

    claim "$kind: the next process in the role of a killed side continues there"
    needs "$can"
    where 'shmpipe create $pipe; consumes $pipe; kill9; echo x | shmpipe send $pipe; shmpipe recv $pipe --timeout 1s'
    otherwise 'shmpipe create $pipe; consumes $pipe; echo x | shmpipe send $pipe; shmpipe recv $pipe --timeout 1s'
    gives 0 x

    claim "$kind: a stopped process keeps its role: it may continue at any time"
    needs "$can"
    where 'shmpipe create $pipe; produces $pipe; kill -STOP $!; sleep 0.3; echo x | shmpipe send $pipe'
    otherwise 'shmpipe create $pipe; produces $pipe; kill9; echo x | shmpipe send $pipe'
    gives 4

    claim "$kind: rm does not remove a pipe in use"
    needs "$can"
    where 'shmpipe create $pipe; produces $pipe; shmpipe rm $pipe'
    otherwise 'shmpipe create $pipe; produces $pipe; kill9; shmpipe rm $pipe'
    gives 4

    claim "$kind: a side whose pipe was removed by force gets an error"
    needs "$can"
    where 'shmpipe create $pipe; consumes $pipe; shmpipe rm --force $pipe; wait $!; code=$?; cat heard; exit $code'
    otherwise 'shmpipe create $pipe; consumes $pipe; kill -INT $!; wait $!; code=$?; cat heard; exit $code'
    gives 3 'removed'
done

# ---- what has a name in a file system ------------------------------------------------------------------------------

claim "posix: a pipe is not found where another /dev/shm is mounted"
needs 'shmpipe create posix:/ticks'
where 'shmpipe create posix:/ticks; unshare --mount sh -c "mount -t tmpfs tmpfs /dev/shm; shmpipe stat posix:/ticks"'
otherwise 'shmpipe create posix:/ticks; unshare --ipc shmpipe stat posix:/ticks'
gives 3 'no pipe at'

claim "posix: the size of /dev/shm is the limit, and creating the pipe reports it"
needs 'shmpipe create posix:/ticks'
where 'shmpipe create posix:/ticks --capacity 16MiB'
otherwise 'shmpipe create posix:/ticks --capacity 4MiB'
gives 1 'needs 16781312 bytes'

claim "posix: a process that may write to it can truncate it, which ends us"
needs 'shmpipe create posix:/ticks'
where 'shmpipe create posix:/ticks; (sleep 1; echo x) | shmpipe send posix:/ticks & sleep 0.5; truncate -s 4096 /dev/shm/ticks; wait $!'
otherwise 'shmpipe create posix:/ticks; (sleep 1; echo x) | shmpipe send posix:/ticks & sleep 0.5; truncate -s 2M /dev/shm/ticks; wait $!'
gives 135

claim "posix: a symbolic link is not followed"
needs 'shmpipe create posix:/ticks'
where 'shmpipe create posix:/other; ln -s other /dev/shm/ticks; shmpipe stat posix:/ticks'
otherwise 'shmpipe create posix:/other; mv /dev/shm/other /dev/shm/ticks; shmpipe stat posix:/ticks'
gives '[17]' 'symbolic link'

claim "posix: without /proc the error names it"
needs 'shmpipe create posix:/ticks'
where 'shmpipe create posix:/ticks; unshare --mount sh -c "mount -t tmpfs tmpfs /proc; shmpipe recv posix:/ticks --timeout 100ms"'
otherwise 'shmpipe create posix:/ticks; shmpipe recv posix:/ticks --timeout 100ms'
gives 1 '/proc'

claim "posix: chmod and chown do not take a pipe from processes that have it open"
needs 'shmpipe create posix:/ticks && alice true'
where 'alice shmpipe create posix:/ticks; consumes posix:/ticks alice; chown 2002 /dev/shm/ticks; echo x | shmpipe send posix:/ticks --trust-uid 2002; sleep 0.3; cat received'
otherwise 'alice shmpipe create posix:/ticks; consumes posix:/ticks alice; echo x | bob shmpipe send posix:/ticks --trust-uid 2001; sleep 0.3; cat received'
gives 0 '^x$'

claim "file: in a directory with the setgid bit the pipe gets the directory's group"
needs 'shmpipe create file:$PLACE/dir/ticks && alice true'
where 'mkdir dir/feed; chgrp 2100 dir/feed; chmod 2770 dir/feed; shmpipe create file:dir/feed/ticks --mode 0660; bob shmpipe recv file:dir/feed/ticks --timeout 100ms'
otherwise 'mkdir dir/feed; chgrp 2100 dir/feed; chmod 0770 dir/feed; shmpipe create file:dir/feed/ticks --mode 0660; bob shmpipe recv file:dir/feed/ticks --timeout 100ms'
gives 5

# id: a file that says that the machine was rebooted.
export other_boot='echo 0f0e0d0c-0b0a-4908-8706-050403020100 >id; mount --bind id /proc/sys/kernel/random/boot_id'

claim "file: on a disk, from before the last boot it is refused"
needs 'shmpipe create file:$PLACE/dir/ticks && [ $(stat -f -c %T $PLACE) != tmpfs ]'
where 'echo kept | shmpipe send file:dir/ticks; unshare --mount sh -c "$other_boot; shmpipe recv file:dir/ticks --timeout 100ms"'
otherwise 'echo kept | shmpipe send file:dir/ticks; shmpipe recv file:dir/ticks --timeout 100ms'
gives '[17]' 'from before the last boot'

claim "file: not while a process holds one of its roles, whatever the boot id"
needs 'shmpipe create file:$PLACE/dir/ticks && [ $(stat -f -c %T $PLACE) != tmpfs ]'
where 'shmpipe create file:dir/ticks; produces file:dir/ticks; unshare --mount sh -c "$other_boot; shmpipe recv file:dir/ticks --timeout 100ms"'
otherwise 'shmpipe create file:dir/ticks; produces file:dir/ticks; kill9; unshare --mount sh -c "$other_boot; shmpipe recv file:dir/ticks --timeout 100ms"'
gives 5

claim "file: not on overlayfs, where a claim would be lost at once"
needs 'shmpipe create file:$PLACE/dir/ticks && cd $PLACE/dir && mkdir l u w m && unshare --mount mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m'
where 'cd dir; mkdir l u w m; unshare --mount sh -c "mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m; shmpipe create file:m/ticks"'
otherwise 'cd dir; mkdir l u w m; shmpipe create file:m/ticks'
gives 7 overlay

claim "file: on a read-only mount a side can watch, but not take part"
needs 'shmpipe create file:$PLACE/dir/ticks'
where 'shmpipe create file:dir/ticks; unshare --mount sh -c "mount --bind dir dir; mount -o remount,bind,ro dir; shmpipe stat file:dir/ticks >/dev/null || exit 99; shmpipe recv file:dir/ticks --timeout 100ms"'
otherwise 'shmpipe create file:dir/ticks; shmpipe recv file:dir/ticks --timeout 100ms'
gives '[18]' 'ead-only'

# ---- System V: limits, /proc, and what logind does -----------------------------------------------------------------

claim "sysv: a limit of the namespace is named with the file that raises it"
where 'echo 65536 >/proc/sys/kernel/shmmax; shmpipe create ticks; code=$?; echo 4294967296 >/proc/sys/kernel/shmmax; exit $code'
otherwise 'shmpipe create ticks'
gives 1 'SHMMAX is 65536, needed 1052672; raise it in /proc/sys/kernel/shmmax'

claim "sysv: without /proc a pipe works"
where 'unshare --mount sh -c "mount -t tmpfs tmpfs /proc; echo x | shmpipe send ticks; shmpipe recv ticks --timeout 1s"'
otherwise 'unshare --mount sh -c "mount -t tmpfs tmpfs /proc; echo x | shmpipe send ticks; shmpipe ls"'
gives 0 x

claim "sysv: without /proc, ls says so"
where 'unshare --mount sh -c "mount -t tmpfs tmpfs /proc; shmpipe ls"'
otherwise 'shmpipe ls'
gives 0 'reading /proc/sysvipc/shm failed'

forced='echo 1 >/proc/sys/kernel/shm_rmid_forced; trap "echo 0 >/proc/sys/kernel/shm_rmid_forced" EXIT; '

claim "sysv: where the kernel removes segments with their last attachment, a pipe is refused, and the error names the sysctl"
where "$forced"'echo x | shmpipe send ticks'
otherwise 'echo x | shmpipe send ticks'
gives 7 'kernel.shm_rmid_forced is 1'

claim "sysv: what is sent there is lost before it is received"
where "$forced"'echo x | shmpipe send ticks --allow-rmid-forced; shmpipe recv ticks --allow-rmid-forced --timeout 200ms'
otherwise 'echo x | shmpipe send ticks --allow-rmid-forced; shmpipe recv ticks --allow-rmid-forced --timeout 200ms'
gives 5 'stayed empty'

claim "sysv: a keeper keeps it"
where "$forced"'shmpipe keep ticks >kept 2>/dev/null & keeper=$!; until_true test -s kept; echo x | shmpipe send ticks --allow-rmid-forced; shmpipe recv ticks --allow-rmid-forced --timeout 1s; kill $keeper'
otherwise "$forced"'echo x | shmpipe send ticks --allow-rmid-forced; shmpipe recv ticks --allow-rmid-forced --timeout 200ms'
gives 0 x

claim "sysv: where the kernel removes segments, posix: works as ever"
where "$forced"'echo x | shmpipe send posix:/ticks; shmpipe recv posix:/ticks --timeout 1s'
otherwise "$forced"'echo x | shmpipe send ticks'
gives 0 x

claim "sysv: doctor finds such a kernel"
where "$forced"'shmpipe doctor'
otherwise 'shmpipe doctor'
gives 10 'kernel.shm_rmid_forced is 1'

claim "sysv: RemoveIPC removes the semaphore set of a pipe in use; its sides go on, and the next process gives it another"
where 'shmpipe create ticks; consumes ticks; ipcrm --semaphore-id $(number ticks sem_id); echo on | shmpipe send ticks; sleep 0.5; cat received'
otherwise 'shmpipe create ticks; consumes ticks; ipcrm --shmem-id $(number ticks shm_id); echo on | shmpipe send ticks; sleep 0.5; cat received'
gives 0 on

claim "sysv: a side that lost its semaphore set keeps its role"
where 'shmpipe create ticks; produces ticks; ipcrm --semaphore-id $(number ticks sem_id); echo second | shmpipe send ticks'
otherwise 'shmpipe create ticks; produces ticks; kill9; ipcrm --semaphore-id $(number ticks sem_id); echo second | shmpipe send ticks'
gives 4 'already the producer'

claim "sysv: once all processes are gone, the next one opens it and finds what was left"
where 'echo kept | shmpipe send ticks; ipcrm --semaphore-id $(number ticks sem_id); shmpipe recv ticks --timeout 1s'
otherwise 'echo kept | shmpipe send ticks; ipcrm --shmem-id $(number ticks shm_id); shmpipe recv ticks --timeout 200ms'
gives 0 kept

verdict
