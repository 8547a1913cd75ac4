#!/usr/bin/env python3
"""Runs the independent implementation against the command line: `run.py SECONDS [--shmpipe PATH] [--seed N] [--plant NAME]`."""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

CLONE_NEWIPC = 0x08000000
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def objects():
    found = []
    for kind in ("shm", "sem"):
        with open(f"/proc/sysvipc/{kind}") as file:
            found += [(kind, *line.split()[:2]) for line in file.readlines()[1:]]
    return set(found)


def build():
    subprocess.run(["cargo", "build", "-q", "-p", "shmpipe-cli", "--locked"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(ROOT, target, "debug", "shmpipe")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--shmpipe", help="the command line; built if not given")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--plant", help="plant this bug, or `all` in turn, and expect the run to fail")
    arguments = parser.parse_args()
    command_line = os.path.abspath(arguments.shmpipe) if arguments.shmpipe else build()
    if arguments.plant:
        import plants
        sys.exit(plants.run(arguments.plant, arguments.seconds, command_line))
    sys.exit(run(arguments.seconds, command_line, arguments.seed))


def run(seconds, command_line, seed):
    import kernel
    import messages
    import peers
    import rounds
    import scenarios

    own = kernel.libc.unshare(CLONE_NEWIPC) == 0
    print(f"seed {seed}, {'own' if own else 'shared'} IPC namespace", flush=True)
    peers.shmpipe, peers.directory = command_line, tempfile.mkdtemp(prefix="shmpipe-independent-")
    before = objects()
    totals = rounds.Totals()
    try:
        scenarios.run_all(seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rounds.Round(seed + totals.rounds, messages, totals).run()
        left = objects() - before
        if own and left:
            raise peers.Fault(f"left behind: {sorted(left)}")
    except peers.Fault as fault:
        print(f"FAULT: {fault}")
        return 1
    finally:
        shutil.rmtree(peers.directory)
    print(f"{totals.messages} messages in {totals.rounds} rounds, {totals.kills} kills, {totals.repeats} repeats; no fault")
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
