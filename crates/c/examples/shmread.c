// Prints the lines that shmwrite writes into shared memory, until it ends.
//
//     cc shmread.c -o shmread $(pkg-config --cflags --libs shmpipe)
//     ./shmread lines
#include <shmpipe.h>

#include <stdio.h>
#include <stdlib.h>

static void check(int code) {
    if (code != SHMPIPE_OK) {
        fprintf(stderr, "shmread: %s\n", shmpipe_strerror(code));
        exit(1);
    }
}

int main(int argc, char **argv) {
    const char *address = argc > 1 ? argv[1] : "lines";
    shmpipe_pipe *pipe;
    shmpipe_consumer *consumer;
    check(shmpipe_open_or_create(address, NULL, &pipe));
    check(shmpipe_pipe_consumer(pipe, &consumer));
    shmpipe_pipe_free(pipe);

    char line[4096];
    shmpipe_message message;
    for (;;) {
        // Blocks while the pipe is empty.
        int code = shmpipe_recv(consumer, line, sizeof line, &message);
        if (code == SHMPIPE_ERR_CLOSED) {
            break;
        }
        check(code);
        fwrite(line, 1, message.length, stdout);
    }
    check(shmpipe_consumer_close(consumer));
    // The pipe stays for the next pair; shmpipe_unlink() removes it.
    return 0;
}
