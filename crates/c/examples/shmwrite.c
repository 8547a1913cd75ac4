// Writes the lines of the standard input into shared memory, where shmread prints them.
//
// The two programs of every tutorial on shared memory, with what those leave out: the reader waits instead of printing what happens to
// be there, nothing is overwritten before it was read, the end is an end, and either may be killed and started again.
//
//     cc shmwrite.c -o shmwrite $(pkg-config --cflags --libs shmpipe)
//     ./shmwrite lines
#include <shmpipe.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int code) {
    if (code != SHMPIPE_OK) {
        fprintf(stderr, "shmwrite: %s\n", shmpipe_strerror(code));
        exit(1);
    }
}

int main(int argc, char **argv) {
    const char *address = argc > 1 ? argv[1] : "lines";
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    // It does not matter which of the two programs starts first.
    check(shmpipe_open_or_create(address, NULL, &pipe));
    check(shmpipe_pipe_producer(pipe, &producer));
    shmpipe_pipe_free(pipe);

    char line[4096];
    while (fgets(line, sizeof line, stdin) != NULL) {
        // Blocks while the pipe is full.
        check(shmpipe_send(producer, line, strlen(line)));
    }
    // The reader receives the rest, and then the end.
    check(shmpipe_producer_close(producer));
    return 0;
}
