// One side of a pipe, for a test in Rust that has the other: send, recv or hold, at an address.
#include "check.h"

#include <unistd.h>

// The bytes of message number i, as tests/c/sides.rs makes them too.
static size_t fill(unsigned char *message, uint64_t i) {
    size_t length = 8 + i * 37 % 1500;
    memcpy(message, &i, sizeof i);
    for (size_t at = 8; at < length; at++) {
        message[at] = (unsigned char)(i + at);
    }
    return length;
}

int main(int count, char **words) {
    TRUE(count == 4);
    uint64_t messages = strtoull(words[3], NULL, 10);
    unsigned char sent[2048], got[2048];
    shmpipe_pipe *pipe;
    OK(shmpipe_open(words[2], NULL, &pipe));
    if (strcmp(words[1], "recv") == 0) {
        shmpipe_consumer *consumer;
        shmpipe_message message;
        OK(shmpipe_pipe_consumer(pipe, &consumer));
        for (uint64_t i = 0; i < messages; i++) {
            OK(shmpipe_recv(consumer, got, sizeof got, &message));
            TRUE(message.length == fill(sent, i) && memcmp(sent, got, message.length) == 0 && message.tag == i);
        }
        RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_recv(consumer, got, sizeof got, &message));
        OK(shmpipe_consumer_close(consumer));
    } else {
        shmpipe_producer *producer;
        OK(shmpipe_pipe_producer(pipe, &producer));
        for (uint64_t i = 0; i < messages; i++) {
            struct iovec part = {sent, fill(sent, i)};
            OK(shmpipe_sendv(producer, &part, 1, (uint32_t)i, SHMPIPE_FOREVER, NULL));
        }
        if (strcmp(words[1], "hold") == 0) {
            // Dies with a batch and without a word.
            OK(shmpipe_batch_begin(producer));
            OK(shmpipe_batch_push(producer, "12345678", 8));
            puts("held");
            fflush(stdout);
            pause();
        }
        OK(shmpipe_producer_close(producer));
    }
    shmpipe_pipe_free(pipe);
    return 0;
}
