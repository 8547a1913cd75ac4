// A feed handler: fixed-size ticks that are written and read in place, never waiting for a slow reader.
//
//     cc feed.c -o feed $(pkg-config --cflags --libs shmpipe)
//     ./feed subscribe ticks &
//     ./feed publish ticks 1000000
#include <shmpipe.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Both programs are compiled with it. Its version is the pipe's schema: a program with another one is refused.
typedef struct {
    uint64_t sequence;
    uint32_t symbol;
    uint32_t size;
    double bid;
    double ask;
} tick;

enum { SCHEMA = 1, SYMBOLS = 8, TICK = 1 };

static void check(int code) {
    if (code != SHMPIPE_OK) {
        fprintf(stderr, "feed: %s\n", shmpipe_strerror(code));
        exit(1);
    }
}

static shmpipe_pipe *attach(const char *address) {
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    check(shmpipe_options_new(&options));
    check(shmpipe_options_capacity(options, 4 << 20));
    check(shmpipe_options_schema(options, SCHEMA));
    check(shmpipe_open_or_create(address, options, &pipe));
    shmpipe_options_free(options);
    return pipe;
}

static void publish(const char *address, uint64_t count) {
    shmpipe_pipe *pipe = attach(address);
    shmpipe_producer *producer;
    check(shmpipe_pipe_producer(pipe, &producer));
    shmpipe_pipe_free(pipe);
    // Both programs are ours, so they may use the memory in place.
    check(shmpipe_producer_trust_peer(producer));
    check(shmpipe_producer_wait_for_peer(producer, SHMPIPE_FOREVER));
    uint64_t dropped = 0;
    for (uint64_t sequence = 0; sequence < count; sequence++) {
        void *space;
        int code = shmpipe_reserve(producer, sizeof(tick), 0, &space);
        if (code == SHMPIPE_ERR_FULL) {
            // A feed is worth nothing late. `shmpipe stat` shows the count.
            check(shmpipe_count_dropped(producer, 1));
            dropped++;
            continue;
        }
        check(code);
        tick *tick = space;
        tick->sequence = sequence;
        tick->symbol = (uint32_t)(sequence % SYMBOLS);
        tick->size = 100;
        tick->bid = 1.0842 + (double)(sequence % 100) / 10000;
        tick->ask = tick->bid + 0.0001;
        check(shmpipe_commit(producer, sizeof *tick, TICK, NULL));
    }
    printf("sent %" PRIu64 ", dropped %" PRIu64 "\n", count - dropped, dropped);
    check(shmpipe_producer_close(producer));
}

static void subscribe(const char *address) {
    shmpipe_pipe *pipe = attach(address);
    shmpipe_consumer *consumer;
    check(shmpipe_pipe_consumer(pipe, &consumer));
    shmpipe_pipe_free(pipe);
    check(shmpipe_consumer_trust_peer(consumer));
    double last[SYMBOLS] = {0};
    uint64_t received = 0, missed = 0, expected = 0;
    shmpipe_message message;
    int code;
    // Waits for one, takes what has arrived by then, and releases it all together.
    while ((code = shmpipe_borrow(consumer, SHMPIPE_FOREVER, &message)) == SHMPIPE_OK) {
        do {
            const tick *tick = message.data;
            if (message.tag != TICK || message.length != sizeof *tick || tick->symbol >= SYMBOLS) {
                fprintf(stderr, "feed: the message at %" PRIu64 " is no tick\n", message.position);
                exit(1);
            }
            missed += tick->sequence - expected;
            expected = tick->sequence + 1;
            last[tick->symbol] = (tick->bid + tick->ask) / 2;
            received++;
        } while (shmpipe_borrow_next(consumer, &message) == SHMPIPE_OK);
        check(shmpipe_release(consumer));
    }
    if (code != SHMPIPE_ERR_CLOSED) {
        check(code);
    }
    printf("received %" PRIu64 ", missed %" PRIu64 ", last of symbol 0: %.5f\n", received, missed, last[0]);
    check(shmpipe_consumer_close(consumer));
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "publish") == 0) {
        publish(argv[2], strtoull(argv[3], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "subscribe") == 0) {
        subscribe(argv[2]);
    } else {
        fprintf(stderr, "feed publish ADDRESS COUNT, or feed subscribe ADDRESS\n");
        return 2;
    }
    return 0;
}
