#!/usr/bin/env bash
# The statements of docs/deployment.md about systemd, each tried with the one that runs here:
#
#   docs/deployment/try-systemd.sh [--swapped]
#
# As try.sh; see there. For root of a machine, or of a booted container, meant for experiments: it adds a user shmpipe-try with a
# login and one shmpipe-try-sys without, logs them in and out, and removes them and their pipes.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
. ./claims.sh

built=../../target/release/shmpipe
SHMPIPE=${SHMPIPE:-$(realpath -e $built 2>/dev/null || command -v shmpipe)}
[ -x "$SHMPIPE" ] && [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] ||
    { echo "try-systemd.sh: needs shmpipe, root and a systemd that runs" >&2; exit 2; }
export SHMPIPE
export human=shmpipe-try system=shmpipe-try-sys
useradd --create-home $human && useradd --system $system || exit 2
trap '{ bash -c "$prelude"; loginctl terminate-user $human; userdel --remove $human; userdel $system; } 2>/dev/null' EXIT

# unit [PROPERTY...] -- COMMAND...: the command as a service, with its exit code and its output.
unit() { run --wait --pipe "$@"; }
# service NAME [PROPERTY...] -- COMMAND...: the same in the background.
service() { run --unit "shmpipe-try-$1" "${@:2}"; sleep 0.5; }
run() {
    local words=()
    while [ "$1" != -- ]; do
        case $1 in *=*) words+=(-p "$1") ;; *) words+=("$1") ;; esac
        shift
    done
    systemd-run --quiet --collect "${words[@]}" "${@:2}"
}
# Lets the human in and out, and waits until logind has noticed.
login() { run --wait --pipe PAMName=login User=$human -- true; sleep 1; while loginctl show-user $human >/dev/null 2>&1; do sleep 0.2; done; }
# as USER COMMAND...
as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
here() { $SHMPIPE "$@" >/dev/null; }
clean() {
    systemctl stop 'shmpipe-try-*'
    loginctl disable-linger $human
    for user in $human $system; do
        awk -v uid="$(id -u $user)" '$8 == uid { print $2 }' /proc/sysvipc/shm | xargs -rn1 ipcrm --shmem-id
        awk -v uid="$(id -u $user)" '$5 == uid { print $2 }' /proc/sysvipc/sem | xargs -rn1 ipcrm --semaphore-id
    done
    rm -rf /run/systemd/system/shmpipe-try-* /dev/shm/try /run/shmpipe-try /var/tmp/try /tmp/try
} >/dev/null 2>&1
prelude='clean; '
export -f unit service run login as here clean
PATIENCE=40

for pipe in try posix:/try file:/var/tmp/try; do
    case $pipe in *:*) kind=${pipe%%:*} ;; *) kind=sysv ;; esac
    export pipe

    claim "$kind: MemoryDenyWriteExecute, RestrictNamespaces, NoNewPrivileges, LockPersonality, SystemCallFilter=@system-service, no capabilities: no effect"
    where 'as $system $SHMPIPE create $pipe; echo hello | unit User=$system MemoryDenyWriteExecute=yes RestrictNamespaces=yes NoNewPrivileges=yes LockPersonality=yes SystemCallFilter=@system-service CapabilityBoundingSet= -- $SHMPIPE send $pipe; as $system $SHMPIPE recv $pipe --timeout 1s'
    otherwise 'as $system $SHMPIPE create $pipe; echo hello | unit User=$system SystemCallFilter=@basic-io -- $SHMPIPE send $pipe; as $system $SHMPIPE recv $pipe --timeout 1s'
    gives 0 hello

    claim "$kind: PrivateUsers hides the owner, who is then not trusted"
    where 'as $human $SHMPIPE create $pipe --mode 0666; unit User=$system PrivateUsers=yes -- $SHMPIPE recv $pipe --timeout 100ms --trust-uid $(id -u $human)'
    otherwise 'as $human $SHMPIPE create $pipe --mode 0666; unit User=$system -- $SHMPIPE recv $pipe --mode 0666 --timeout 100ms --trust-uid $(id -u $human)'
    gives 8 'user 65534'
done

# The units beside this file, with shmpipe for the two programs.
units() {
    local side
    for side in producer consumer; do
        sed "s,/usr/bin/shmpipe,$SHMPIPE,; s/^User=.*/User=$system/; s/ticks/try/" feed-$side.service >/run/systemd/system/shmpipe-try-$side.service
    done
    sed -i "s,^ExecStart=.*,ExecStart=sh -c 'i=0; while sleep 0.05; do i=\$((i + 1)); echo \$\$i; done | $SHMPIPE send try'," /run/systemd/system/shmpipe-try-producer.service
    sed -i "s,^ExecStart=.*,ExecStart=$SHMPIPE recv try," /run/systemd/system/shmpipe-try-consumer.service
    systemctl daemon-reload
    systemctl start "$@"
}
received() { $SHMPIPE --json stat try | grep -oP '"consumer_messages":\K\d+'; }
export -f units received

claim "sysv: the pair of units: either may be killed, is restarted, and continues; so does the other one"
where 'units shmpipe-try-consumer shmpipe-try-producer; sleep 1; systemctl kill -s KILL shmpipe-try-consumer; sleep 1; systemctl kill -s KILL shmpipe-try-producer; sleep 1.5; before=$(received); sleep 0.5; [ "$(received)" -gt "$before" ] && systemctl is-active shmpipe-try-consumer shmpipe-try-producer'
otherwise 'units shmpipe-try-consumer; sleep 1; systemctl kill -s KILL shmpipe-try-consumer; sleep 1.5; before=$(received); sleep 0.5; [ "$(received)" -gt "$before" ] && systemctl is-active shmpipe-try-consumer shmpipe-try-producer'
gives 0 'active'

claim "sysv: PrivateIPC hides it"
where 'as $system $SHMPIPE create try; unit User=$system PrivateIPC=yes -- $SHMPIPE stat try'
otherwise 'as $system $SHMPIPE create try; unit User=$system -- $SHMPIPE stat try'
gives 3 'no pipe at'

claim "posix: PrivateIPC does not"
where 'as $system $SHMPIPE create posix:/try; unit User=$system PrivateIPC=yes -- $SHMPIPE stat posix:/try'
otherwise 'as $system $SHMPIPE create posix:/try; unit User=$system TemporaryFileSystem=/dev/shm:mode=1777 -- $SHMPIPE stat posix:/try'
gives 0 'owner'

claim "sysv: PrivateIPC with JoinsNamespaceOf joins two units"
where 'service a User=$system PrivateIPC=yes -- $SHMPIPE recv try --follow; unit User=$system PrivateIPC=yes JoinsNamespaceOf=shmpipe-try-a.service -- $SHMPIPE stat try'
otherwise 'service a User=$system PrivateIPC=yes -- $SHMPIPE recv try --follow; unit User=$system PrivateIPC=yes -- $SHMPIPE stat try'
gives 0 'consumer +alive'

claim "file: PrivateTmp hides what is in /tmp and /var/tmp"
where 'as $system $SHMPIPE create file:/var/tmp/try; unit User=$system PrivateTmp=yes -- $SHMPIPE stat file:/var/tmp/try'
otherwise 'as $system $SHMPIPE create file:/var/tmp/try; unit User=$system -- $SHMPIPE stat file:/var/tmp/try'
gives 3 'no pipe at'

claim "posix: PrivateTmp and PrivateDevices hide nothing, ProtectSystem=strict leaves /dev/shm writable"
where 'as $system $SHMPIPE create posix:/try; echo x | unit User=$system PrivateTmp=yes PrivateDevices=yes ProtectSystem=strict -- $SHMPIPE send posix:/try'
otherwise 'as $system $SHMPIPE create posix:/try; echo x | unit User=$system ReadOnlyPaths=/dev/shm -- $SHMPIPE send posix:/try'
gives 0

claim "file: with ProtectSystem=strict a side can watch, but not take part"
where 'as $system $SHMPIPE create file:/var/tmp/try; unit User=$system ProtectSystem=strict -- $SHMPIPE stat file:/var/tmp/try || exit 99; echo x | unit User=$system ProtectSystem=strict -- $SHMPIPE send file:/var/tmp/try'
otherwise 'as $system $SHMPIPE create file:/var/tmp/try; echo x | unit User=$system -- $SHMPIPE send file:/var/tmp/try'
gives '[18]' 'ead-only'

claim "file: two strict units can share a preserved RuntimeDirectory"
where 'echo x | unit User=$system ProtectSystem=strict RuntimeDirectory=shmpipe-try RuntimeDirectoryPreserve=yes -- $SHMPIPE send file:/run/shmpipe-try/try; unit User=$system ProtectSystem=strict RuntimeDirectory=shmpipe-try RuntimeDirectoryPreserve=yes -- $SHMPIPE recv file:/run/shmpipe-try/try --timeout 1s'
otherwise 'echo x | unit User=$system ProtectSystem=strict RuntimeDirectory=shmpipe-try -- $SHMPIPE send file:/run/shmpipe-try/try; unit User=$system ProtectSystem=strict RuntimeDirectory=shmpipe-try -- $SHMPIPE recv file:/run/shmpipe-try/try --timeout 1s'
gives 0 x

claim "file: so are ReadWritePaths"
where 'as $system $SHMPIPE create file:/var/tmp/try; echo x | unit User=$system ProtectSystem=strict ReadWritePaths=/var/tmp -- $SHMPIPE send file:/var/tmp/try'
otherwise 'as $system $SHMPIPE create file:/var/tmp/try; echo x | unit User=$system ProtectSystem=strict -- $SHMPIPE send file:/var/tmp/try'
gives 0

claim "posix: without /proc the error names it"
where 'as $system $SHMPIPE create posix:/try; unit User=$system InaccessiblePaths=/proc -- $SHMPIPE recv posix:/try --timeout 100ms'
otherwise 'as $system $SHMPIPE create posix:/try; unit User=$system -- $SHMPIPE recv posix:/try --timeout 100ms'
gives '[18]' '/proc'

claim "sysv: a filter without @ipc ends the process"
where 'unit User=$system SystemCallFilter=~@ipc -- $SHMPIPE create try'
otherwise 'unit User=$system SystemCallFilter=~@ipc -- $SHMPIPE create posix:/try'
gives 255

claim "sysv: with ProcSubset=pid it works, and ls names what it cannot read"
where 'as $system $SHMPIPE create try; echo x | unit User=$system ProcSubset=pid -- $SHMPIPE send try || exit 99; unit User=$system ProcSubset=pid -- $SHMPIPE ls'
otherwise 'as $system $SHMPIPE create try; unit User=$system -- $SHMPIPE ls'
gives 1 'sysvipc'

claim "posix: LimitFSIZE is a limit, and the error names it"
where 'unit User=$system LimitFSIZE=65536 -- $SHMPIPE create posix:/try'
otherwise 'unit User=$system LimitFSIZE=65536 -- $SHMPIPE create try'
gives 1 'RLIMIT_FSIZE is 65536'

for pipe in try posix:/try; do
    case $pipe in *:*) kind=posix ;; *) kind=sysv ;; esac
    export pipe

    claim "$kind: two units under one DynamicUser name share a pipe"
    where 'service a DynamicUser=yes User=shmpipe-try-dyn -- $SHMPIPE recv $pipe --follow; echo hello | unit DynamicUser=yes User=shmpipe-try-dyn -- $SHMPIPE send $pipe; sleep 0.5; unit DynamicUser=yes User=shmpipe-try-dyn -- $SHMPIPE stat $pipe'
    otherwise 'service a DynamicUser=yes User=shmpipe-try-dyn -- $SHMPIPE recv $pipe --follow; echo hello | unit DynamicUser=yes User=shmpipe-try-other -- $SHMPIPE send $pipe; unit DynamicUser=yes User=shmpipe-try-dyn -- $SHMPIPE stat $pipe'
    gives 0 'released +1 messages'

    claim "$kind: pipes of a DynamicUser are removed when its last unit stops"
    where 'unit DynamicUser=yes -- $SHMPIPE create $pipe >/dev/null; $SHMPIPE stat $pipe'
    otherwise 'unit User=$system -- $SHMPIPE create $pipe >/dev/null; $SHMPIPE stat $pipe'
    gives 3

    claim "$kind: RemoveIPC=no does not change that"
    where 'unit DynamicUser=yes RemoveIPC=no -- $SHMPIPE create $pipe >/dev/null; $SHMPIPE stat $pipe'
    otherwise 'unit User=$system RemoveIPC=no -- $SHMPIPE create $pipe >/dev/null; $SHMPIPE stat $pipe'
    gives 3

    claim "$kind: RemoveIPC=yes of a unit with another user does the same"
    where 'unit User=$system RemoveIPC=yes -- $SHMPIPE create $pipe >/dev/null; sleep 1; $SHMPIPE stat $pipe'
    otherwise 'unit User=$system -- $SHMPIPE create $pipe >/dev/null; sleep 1; $SHMPIPE stat $pipe'
    gives 3

    if [ $kind = sysv ]; then
        claim "sysv: when a human user logs out, logind removes the semaphore set of a pipe in use by services, which go on"
        where 'service a User=$human -- $SHMPIPE recv $pipe --follow; login; sleep 1; echo hello | as $human $SHMPIPE send $pipe; sleep 0.5; as $human $SHMPIPE stat $pipe'
        otherwise 'as $human $SHMPIPE create $pipe; login; sleep 1; echo hello | as $human $SHMPIPE send $pipe; sleep 0.5; as $human $SHMPIPE stat $pipe'
        gives 0 'released +1 messages'
    else
        claim "posix: when a human user logs out, logind removes the user's pipes, even in use by services; sides that wait get an error"
        where 'service a User=$human -- sh -c "$SHMPIPE recv $pipe --follow; echo \$? >/var/tmp/try"; login; sleep 1; cat /var/tmp/try'
        otherwise 'service a User=$human -- sh -c "$SHMPIPE recv $pipe --follow; echo \$? >/var/tmp/try"; cat /var/tmp/try'
        gives 0 '^3$'
    fi

    claim "$kind: not while the user is lingering"
    where 'loginctl enable-linger $human; as $human $SHMPIPE create $pipe; run --wait --pipe PAMName=login User=$human -- true; sleep 14; $SHMPIPE stat $pipe'
    otherwise 'as $human $SHMPIPE create $pipe; run --wait --pipe PAMName=login User=$human -- true; sleep 14; $SHMPIPE stat $pipe'
    gives 0 owner

    claim "$kind: not those of a system user"
    where 'as $system $SHMPIPE create $pipe; run --wait --pipe PAMName=login User=$system -- true; sleep 14; $SHMPIPE stat $pipe'
    otherwise 'as $human $SHMPIPE create $pipe; run --wait --pipe PAMName=login User=$human -- true; sleep 14; $SHMPIPE stat $pipe | grep semid.0'
    gives 0 owner
done

claim "file: a file outside of /dev/shm stays when its owner logs out"
where 'as $human $SHMPIPE create file:/var/tmp/try; login; $SHMPIPE stat file:/var/tmp/try'
otherwise 'as $human $SHMPIPE create posix:/try; login; $SHMPIPE stat posix:/try'
gives 0 owner

verdict
