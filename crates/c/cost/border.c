// What run.sh counts: MESSAGES messages of LENGTH bytes, or as many looks at an empty pipe, in one process. With "in-set", both ends
// are in a set, which does not wait meanwhile.
#include "shmpipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int code) {
    if (code != SHMPIPE_OK) {
        fprintf(stderr, "%s\n", shmpipe_strerror(code));
        exit(1);
    }
}

// Lengths come from memory, as those of a program do.
__attribute__((noinline)) static void counted(const char *work, shmpipe_producer *producer, shmpipe_consumer *consumer,
                                              const void *const *data, const size_t *lengths, size_t messages) {
    char buffer[1024];
    shmpipe_message message;
    if (strcmp(work, "send-recv") == 0) {
        for (size_t i = 0; i < messages; i++) {
            check(shmpipe_send(producer, data[i], lengths[i]));
            check(shmpipe_recv(consumer, buffer, sizeof buffer, &message));
        }
    } else if (strcmp(work, "in-place") == 0) {
        for (size_t i = 0; i < messages; i++) {
            void *space;
            check(shmpipe_reserve(producer, lengths[i], SHMPIPE_FOREVER, &space));
            memcpy(space, data[i], lengths[i]);
            check(shmpipe_commit(producer, lengths[i], 0, NULL));
            check(shmpipe_borrow(consumer, SHMPIPE_FOREVER, &message));
            check(shmpipe_release(consumer));
        }
    } else {
        for (size_t i = 0; i < messages; i++) {
            if (shmpipe_try_recv(consumer, buffer, sizeof buffer, &message) != SHMPIPE_ERR_EMPTY) {
                exit(1);
            }
        }
    }
}

int main(int count, char **words) {
    if (count != 4) {
        return 2;
    }
    size_t length = strtoul(words[2], NULL, 10), messages = strtoul(words[3], NULL, 10);
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    shmpipe_consumer *consumer;
    check(shmpipe_options_new(&options));
    check(shmpipe_options_capacity(options, 64 << 10));
    check(shmpipe_create("memfd", options, &pipe));
    check(shmpipe_pipe_producer(pipe, &producer));
    check(shmpipe_pipe_consumer(pipe, &consumer));
    check(shmpipe_producer_trust_peer(producer));
    check(shmpipe_consumer_trust_peer(consumer));
    const void **data = calloc(messages, sizeof *data);
    size_t *lengths = calloc(messages, sizeof *lengths);
    char *content = calloc(1, length + 1);
    for (size_t i = 0; i < messages; i++) {
        data[i] = content;
        lengths[i] = length;
    }
    const char *work = words[1];
    shmpipe_set *set;
    check(shmpipe_set_new(&set));
    if (strcmp(work, "in-set") == 0) {
        work = "send-recv";
        check(shmpipe_set_add_producer(set, producer, SHMPIPE_INTEREST_END, 0, NULL));
        check(shmpipe_set_add_consumer(set, consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    }
    counted(work, producer, consumer, data, lengths, messages);
    shmpipe_set_free(set);
    free(content);
    free(lengths);
    free(data);
    check(shmpipe_producer_close(producer));
    check(shmpipe_consumer_close(consumer));
    shmpipe_pipe_free(pipe);
    shmpipe_options_free(options);
    return 0;
}
