#!/usr/bin/env bash
# The statements of docs/deployment.md about containers, each tried with Docker (or what DOCKER names):
#
#   docs/deployment/try-docker.sh [--swapped]
#
# As try.sh; see there. Creates containers, a volume and an image whose names start with shmpipe-try, and removes them. The
# image contains only shmpipe and its libraries, not even a shell.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
. ./claims.sh

export DOCKER=${DOCKER:-docker} IMAGE=shmpipe-try:latest
built=../../target/release/shmpipe
SHMPIPE=${SHMPIPE:-$(realpath -e $built 2>/dev/null || command -v shmpipe)}
[ -x "$SHMPIPE" ] || { echo "try-docker.sh: no shmpipe; build it (cargo build --release -p shmpipe-cli)" >&2; exit 2; }
export SHMPIPE

# The tar of an image: the program under /bin, libraries where it looks for them.
libraries=$(ldd "$SHMPIPE" | grep -o '/[^ ]*')
tar -cPh --transform "s,^$SHMPIPE\$,/bin/shmpipe," "$SHMPIPE" $libraries | $DOCKER import - $IMAGE >/dev/null || exit 2
trap 'bash -c "$prelude"; $DOCKER rmi $IMAGE >/dev/null' EXIT

# box [OPTION...] -- COMMAND...: the command in a new container.
box() {
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    $DOCKER run --rm --network none "${options[@]}" $IMAGE /bin/shmpipe "$@"
}
# consumer NAME ADDRESS [OPTION...]: a container with a consumer, which creates the pipe; returns when it is attached.
consumer() {
    local name=$1 pipe=$2
    shift 2
    $DOCKER run -d --name "$name" --network none "$@" $IMAGE /bin/shmpipe recv "$pipe" --follow >/dev/null
    until $DOCKER exec "$name" /bin/shmpipe stat "$pipe" 2>/dev/null | grep -q 'consumer.*alive'; do sleep 0.05; done
}
volume() { $DOCKER volume create --driver local --opt type=tmpfs --opt device=tmpfs --opt o=size="$1",mode=1777 shmpipe-try >/dev/null; }
# The one that has joined the other goes first.
clean() { $DOCKER rm -f shmpipe-try-b; $DOCKER rm -f shmpipe-try-a; $DOCKER volume rm shmpipe-try; } >/dev/null 2>&1
prelude='clean; a=shmpipe-try-a; b=shmpipe-try-b; '
export -f box consumer volume clean
PATIENCE=60

for pipe in ticks posix:/ticks; do
    case $pipe in *:*) kind=posix ;; *) kind=sysv ;; esac
    export pipe

    claim "$kind: by default each container has pipes of its own"
    where 'consumer $a $pipe; box -- stat $pipe'
    otherwise 'consumer $a $pipe; $DOCKER exec $a /bin/shmpipe stat $pipe'
    gives 3 'no pipe at'

    claim "$kind: --ipc=shareable and --ipc=container:NAME join two containers"
    where 'consumer $a $pipe --ipc=shareable; echo hello | box -i --ipc=container:$a -- send $pipe; $DOCKER logs $a'
    otherwise 'consumer $a $pipe --ipc=shareable; echo hello | box -i -- send $pipe; $DOCKER logs $a'
    gives 0 hello

    claim "$kind: a role held in one container is held in the other, though its holder is not visible"
    where 'consumer $a $pipe --ipc=shareable; box --ipc=container:$a -- recv $pipe --timeout 100ms'
    otherwise 'consumer $a $pipe --ipc=shareable; $DOCKER exec $a /bin/shmpipe recv $pipe --timeout 100ms'
    gives 4 'a process not visible from here is already the consumer'

    claim "$kind: a killed container is a dead peer"
    where 'consumer $a $pipe --ipc=shareable; consumer $b other --ipc=container:$a; $DOCKER kill $a >/dev/null; $DOCKER exec $b /bin/shmpipe stat $pipe'
    otherwise 'consumer $a $pipe --ipc=shareable; consumer $b other --ipc=container:$a; $DOCKER exec $b /bin/shmpipe stat $pipe'
    gives 0 'consumer +died'

    claim "$kind: when the container that shares restarts, it has a new namespace: containers that joined the old one are alone"
    where 'consumer $a $pipe --ipc=shareable; consumer $b other --ipc=container:$a; $DOCKER restart -t 0 $a >/dev/null; sleep 1; $DOCKER exec $a /bin/shmpipe stat other'
    otherwise 'consumer $a $pipe --ipc=shareable; consumer $b other --ipc=container:$a; $DOCKER exec $a /bin/shmpipe stat other'
    gives 3

    claim "$kind: works for a user without capabilities on a read-only root, under the default seccomp profile"
    where 'consumer $a $pipe --ipc=shareable --user 1000 --read-only --cap-drop ALL --security-opt no-new-privileges; echo hello | box -i --user 1000 --read-only --cap-drop ALL --ipc=container:$a -- send $pipe; $DOCKER logs $a'
    otherwise 'consumer $a $pipe --ipc=shareable --user 1000 --read-only --cap-drop ALL --security-opt no-new-privileges; echo hello | box -i --user 1001 --read-only --cap-drop ALL --ipc=container:$a -- send $pipe; $DOCKER logs $a'
    gives 0 hello
done

claim "sysv: a container that is not shareable shares its namespace with no container"
where 'consumer $a ticks --ipc=private; box --ipc=container:$a -- stat ticks'
otherwise 'consumer $a ticks --ipc=shareable; box --ipc=container:$a -- stat ticks'
gives 125

claim "sysv: --ipc=host shares with the host"
where '$SHMPIPE create shmpipe-try >/dev/null; box --ipc=host -- stat shmpipe-try; code=$?; $SHMPIPE rm shmpipe-try; exit $code'
otherwise '$SHMPIPE create shmpipe-try >/dev/null; box -- stat shmpipe-try; code=$?; $SHMPIPE rm shmpipe-try; exit $code'
gives 0 'name +shmpipe-try'

claim "sysv: --ipc=none removes only /dev/shm"
where 'box --ipc=none -- create ticks'
otherwise 'box --ipc=none -- create posix:/ticks'
gives 0

claim "posix: without /dev/shm there is no POSIX shared memory"
where 'box --ipc=none -- create posix:/ticks'
otherwise 'box -- create posix:/ticks'
gives 1 '/dev/shm'

claim "posix: /dev/shm has 64 MiB"
where 'box -- create posix:/big --capacity 64MiB'
otherwise 'box -- create posix:/big --capacity 32MiB'
gives 1 'needs 67112960 bytes'

claim "posix: --shm-size makes it larger"
where 'box --shm-size 128m -- create posix:/big --capacity 64MiB'
otherwise 'box -- create posix:/big --capacity 64MiB'
gives 0

claim "sysv: is not limited by /dev/shm"
where 'box -- create big --capacity 128MiB'
otherwise 'box -- create posix:/big --capacity 128MiB'
gives 0

claim "sysv: a limit that the container sets is named"
where 'box --sysctl kernel.shmmax=65536 -- create ticks'
otherwise 'box -- create ticks'
gives 1 'SHMMAX is 65536'

for pipe in ticks posix:/ticks; do
    case $pipe in *:*) kind=posix ;; *) kind=sysv ;; esac
    export pipe

    claim "$kind: the memory of a pipe counts against the memory limit of the container that creates it; beyond it, that container is killed"
    where 'box --memory 20m --memory-swap 20m --shm-size 128m -- create $pipe --capacity 64MiB'
    otherwise 'box --memory 200m --memory-swap 200m --shm-size 128m -- create $pipe --capacity 64MiB'
    gives 137
done

claim "file: not on the root of a container, which is overlayfs"
where 'box -- create file:/ticks'
otherwise 'volume 8m; box -v shmpipe-try:/pipes -- create file:/pipes/ticks'
gives 7 'overlay'

claim "file: a volume joins two containers, whatever their IPC namespaces"
where 'volume 8m; consumer $a file:/pipes/ticks -v shmpipe-try:/pipes; echo hello | box -i -v shmpipe-try:/pipes -- send file:/pipes/ticks; $DOCKER logs $a'
otherwise 'volume 8m; consumer $a file:/pipes/ticks -v shmpipe-try:/pipes; echo hello | box -i --tmpfs /pipes -- send file:/pipes/ticks; $DOCKER logs $a'
gives 0 hello

claim "file: the size of the volume is the limit"
where 'volume 8m; box -v shmpipe-try:/pipes -- create file:/pipes/ticks --capacity 16MiB'
otherwise 'volume 64m; box -v shmpipe-try:/pipes -- create file:/pipes/ticks --capacity 16MiB'
gives 1 'needs 16781312 bytes'

claim "file: a side that has the volume read-only can watch"
where 'volume 8m; consumer $a file:/pipes/ticks -v shmpipe-try:/pipes; box -v shmpipe-try:/pipes:ro -- stat file:/pipes/ticks'
otherwise 'volume 8m; consumer $a file:/pipes/ticks -v shmpipe-try:/pipes; echo x | box -i -v shmpipe-try:/pipes:ro -- send file:/pipes/ticks'
gives 0 'consumer +alive'

verdict
