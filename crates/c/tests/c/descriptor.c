// Descriptors: poll() wakes for a message, for space and for an end, and not otherwise.
#include "check.h"

#include <poll.h>

static int readable(int fd, int milliseconds) {
    struct pollfd polled = {fd, POLLIN, 0};
    return poll(&polled, 1, milliseconds);
}

int main(void) {
    ends ends = both_ends(4096);
    char buffer[2048];
    shmpipe_message message;
    int fd, again;
    OK(shmpipe_consumer_fd(ends.consumer, &fd));
    OK(shmpipe_consumer_fd(ends.consumer, &again));
    TRUE(fd == again && fd >= 0);
    // The first look is the caller's.
    TRUE(readable(fd, 0) == 1);
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(readable(fd, 10) == 0);
    // What waits, or asks the kernel, is refused.
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, 1, &message));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_borrow(ends.consumer, SECOND, &message));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_wait_for_message(ends.consumer, 0));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_consumer_wait_for_peer(ends.consumer, 0));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_consumer_check(ends.consumer));
    for (int i = 0; i < 100; i++) {
        OK(shmpipe_send(ends.producer, "12345678", 8));
        TRUE(readable(fd, 10000) == 1);
        OK(shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, 0, &message));
        TRUE(message.length == 8);
        RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    }
    TRUE(readable(fd, 10) == 0);
    // Borrowing, in place and many at a time, works too.
    OK(shmpipe_consumer_trust_peer(ends.consumer));
    OK(shmpipe_send(ends.producer, "one", 3));
    OK(shmpipe_send(ends.producer, "two", 3));
    TRUE(readable(fd, 10000) == 1);
    OK(shmpipe_borrow(ends.consumer, 0, &message));
    TRUE(memcmp(message.data, "one", 3) == 0);
    OK(shmpipe_borrow_next(ends.consumer, &message));
    TRUE(memcmp(message.data, "two", 3) == 0);
    OK(shmpipe_requeue(ends.consumer));
    shmpipe_message messages[4];
    size_t count;
    OK(shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, messages, 4, 0, &count));
    TRUE(count == 2);
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_borrow(ends.consumer, 0, &message));
    TRUE(readable(fd, 10) == 0);
    shmpipe_set *set;
    OK(shmpipe_set_new(&set));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    shmpipe_set_free(set);
    uint64_t position;
    OK(shmpipe_consumer_position(ends.consumer, &position));
    OK(shmpipe_producer_close(ends.producer));
    TRUE(readable(fd, 10000) == 1);
    RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    OK(shmpipe_consumer_close(ends.consumer));

    // A producer waits for space.
    OK(shmpipe_pipe_producer(ends.pipe, &ends.producer));
    OK(shmpipe_pipe_consumer(ends.pipe, &ends.consumer));
    OK(shmpipe_producer_fd(ends.producer, &fd));
    memset(buffer, 0, sizeof buffer);
    while (shmpipe_try_send(ends.producer, buffer, 1000) == SHMPIPE_OK) {
    }
    RETURNS(SHMPIPE_ERR_FULL, shmpipe_send_timeout(ends.producer, buffer, 1000, 0));
    TRUE(readable(fd, 10) == 0);
    uint64_t bytes;
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_send(ends.producer, buffer, 8));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_send_timeout(ends.producer, buffer, 8, 1));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_reserve(ends.producer, 8, 0, NULL));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_batch_begin(ends.producer));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_flush(ends.producer, 0));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_free_space(ends.producer, &bytes));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_count_dropped(ends.producer, 1));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_producer_wait_for_peer(ends.producer, 0));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_producer_check(ends.producer));
    while (shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, NULL) == SHMPIPE_OK) {
    }
    TRUE(readable(fd, 10000) == 1);
    OK(shmpipe_try_send(ends.producer, buffer, 1000));
    // Ends as every consumer does.
    OK(shmpipe_producer_abort(ends.producer, 5));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    TRUE(shmpipe_abort_code() == 5);
    OK(shmpipe_consumer_close(ends.consumer));
    shmpipe_pipe_free(ends.pipe);

    // A handle that gets none is as before.
    shmpipe_options *options;
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_wake_mode(options, SHMPIPE_WAKE_NEVER));
    OK(shmpipe_create("memfd", options, &ends.pipe));
    shmpipe_options_free(options);
    OK(shmpipe_pipe_producer(ends.pipe, &ends.producer));
    OK(shmpipe_pipe_consumer(ends.pipe, &ends.consumer));
    TRUE(shmpipe_producer_fd(ends.producer, &fd) != SHMPIPE_OK);
    TRUE(shmpipe_consumer_fd(ends.consumer, &fd) != SHMPIPE_OK);
    OK(shmpipe_try_send(ends.producer, "still here", 10));
    OK(shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(message.length == 10);
    OK(shmpipe_set_new(&set));
    OK(shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    OK(shmpipe_producer_abort(ends.producer, 5));
    RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    // Closing it while it is in the set, too.
    OK(shmpipe_consumer_close(ends.consumer));
    shmpipe_set_free(set);
    shmpipe_pipe_free(ends.pipe);
    return 0;
}
