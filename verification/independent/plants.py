"""Bugs to plant in this implementation: each run with one of them must fail."""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

# name: file, text that occurs once in it, what takes its place
PLANTS = {
    "next-word-not-cleared": ("ends.py", "        self.memory.store_ring_word(end, 0)\n", ""),
    "wrap-not-written": ("ends.py", "            return WRAP\n", "            return word\n"),
    "batch-visible-early": ("ends.py", "                if sent:\n", "                if True:\n"),
    "recovery-trusts-tail": ("ends.py", "while (record := self.memory.record_at(at)) is not None:", "while False:"),
    "released-before-read": ("ends.py", "        self.next = record.end\n",
                             "        self.next = record.end\n        self.memory.store(HEAD, self.next, RELEASE)\n"),
    "commit-does-not-wake": ("ends.py", "        self.count(BYTES, size)\n        self.wake()\n", "        self.count(BYTES, size)\n"),
    "threshold-too-high": ("ends.py", "threshold = (end + 8 - self.memory.capacity)", "threshold = (end + 72 - self.memory.capacity)"),
    "role-before-state": ("ends.py", "        self.state = self.state & ~3 | phase\n",
                          "        self.role.give_up()\n        time.sleep(0.3)\n        self.state = self.state & ~3 | phase\n"),
    "end-overtakes-message": ("ends.py", "if end is None or attempt() is not None:", "if end is None:"),
    "own-role-not-checked": ("ends.py", "            raise RoleLost\n\n    def end_of_other", "            pass\n\n    def end_of_other"),
    "claim-takes-by-force": ("sysv.py", "if not other or not presence_exists(other):", "if True:"),
    "claim-never-asks": ("sysv.py", "if not other or not presence_exists(other):", "if not other:"),
    "presence-leftover-kept": ("sysv.py", "if kernel.semaphore(set.semid, PRESENCE):", "if False:"),
    "failed-creation-leaves-set": ("sysv.py", "if created and set.stage() == 0:", "if False:"),
    "failed-creation-leaves-stage": ("sysv.py", "        set.set(STAGE, 0)\n", ""),
    "adopts-without-sem-id": ("sysv.py", "if not memory.swap(SEM_ID, seen,", "if not memory.swap(SEM_ID, seen, seen if True else"),
}


def run(name, seconds, command_line):
    """0 if each run failed, as it should."""
    missed = [plant for plant in (PLANTS if name == "all" else [name]) if not is_caught(plant, seconds, command_line)]
    if missed:
        print("not caught:", *missed)
    return 1 if missed else 0


def is_caught(name, seconds, command_line):
    file, old, new = PLANTS[name]
    with tempfile.TemporaryDirectory(prefix="shmpipe-plant-") as directory:
        for source in os.listdir(HERE):
            if source.endswith(".py"):
                shutil.copy(os.path.join(HERE, source), directory)
        path = os.path.join(directory, file)
        with open(path) as opened:
            text = opened.read()
        if text.count(old) != 1:
            raise SystemExit(f"{name}: its text occurs {text.count(old)} times in {file}")
        with open(path, "w") as opened:
            opened.write(text.replace(old, new))
        result = subprocess.run([sys.executable, os.path.join(directory, "run.py"), str(seconds), "--shmpipe", command_line],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line for line in result.stdout.splitlines() if "FAULT" in line] or result.stdout.splitlines()[-1:]
    print(f"{name}: exit code {result.returncode}: {' '.join(lines)}", flush=True)
    return result.returncode == 1
