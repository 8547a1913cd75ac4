"""Sends the lines of standard input, or writes the messages received to standard output, a line each."""

import argparse
import signal
import sys

import shmpipe


def send(address: str) -> None:
    with shmpipe.open_or_create(address).producer() as producer:
        producer.send_many(line.removesuffix(b"\n") for line in sys.stdin.buffer)


def recv(address: str) -> None:
    with shmpipe.open_or_create(address).consumer() as consumer:
        while True:
            try:
                messages = consumer.recv_many()
            except shmpipe.Closed:
                return
            sys.stdout.buffer.writelines(message + b"\n" for message in messages)
            sys.stdout.buffer.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m shmpipe", description=__doc__)
    parser.add_argument("command", choices=["send", "recv"])
    parser.add_argument("address")
    arguments = parser.parse_args()
    # As other programs in a pipe of the shell.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        (send if arguments.command == "send" else recv)(arguments.address)
    except shmpipe.Error as error:
        print(f"shmpipe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
