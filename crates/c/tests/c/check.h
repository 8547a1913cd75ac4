// Checks for the programs beside it: a failed one says where and what, and ends the process.
#ifndef CHECK_H
#define CHECK_H

#include "shmpipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void check_code(const char *file, int line, const char *call, int expected, int found) {
    if (found != expected) {
        fprintf(stderr, "%s:%d: %s returned %d, expected %d: %s\n", file, line, call, found, expected,
                shmpipe_strerror(found));
        exit(1);
    }
}

static inline void check_true(const char *file, int line, const char *condition, int found) {
    if (!found) {
        fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
        exit(1);
    }
}

#define RETURNS(expected, call) check_code(__FILE__, __LINE__, #call, expected, call)
#define OK(call) RETURNS(SHMPIPE_OK, call)
#define TRUE(condition) check_true(__FILE__, __LINE__, #condition, condition)

// A pipe that only this process and its children have.
typedef struct {
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    shmpipe_consumer *consumer;
} ends;

static inline ends both_ends(uint64_t capacity) {
    ends ends;
    shmpipe_options *options;
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_capacity(options, capacity));
    OK(shmpipe_create("memfd", options, &ends.pipe));
    shmpipe_options_free(options);
    OK(shmpipe_pipe_producer(ends.pipe, &ends.producer));
    OK(shmpipe_pipe_consumer(ends.pipe, &ends.consumer));
    return ends;
}

static inline void close_both(ends ends) {
    OK(shmpipe_producer_close(ends.producer));
    OK(shmpipe_consumer_close(ends.consumer));
    shmpipe_pipe_free(ends.pipe);
}

#define SECOND INT64_C(1000000000)

#endif
