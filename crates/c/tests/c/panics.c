// Makes every function panic: none lets it out, and a handle in which one has panicked can only be closed.
#include "check.h"

// Makes the next call in this thread panic. Only in builds with debug assertions.
void shmpipe_test_panic(void);

static int calls;

#define PANICS(call) (calls++, shmpipe_test_panic(), RETURNS(SHMPIPE_ERR_PANICKED, call))
#define PRODUCER(call)                                                                                                \
    do {                                                                                                              \
        ends = both_ends(4096);                                                                                       \
        PANICS(call);                                                                                                 \
        RETURNS(SHMPIPE_ERR_PANICKED, shmpipe_send(ends.producer, "12345678", 8));                                    \
        RETURNS(SHMPIPE_ERR_PANICKED, call);                                                                          \
        OK(shmpipe_producer_close(ends.producer));                                                                    \
        RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));                  \
        TRUE(shmpipe_abort_code() == UINT32_MAX);                                                                     \
        OK(shmpipe_consumer_close(ends.consumer));                                                                    \
        shmpipe_pipe_free(ends.pipe);                                                                                 \
    } while (0)
#define CONSUMER(call)                                                                                                \
    do {                                                                                                              \
        ends = both_ends(4096);                                                                                       \
        PANICS(call);                                                                                                 \
        RETURNS(SHMPIPE_ERR_PANICKED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));                      \
        RETURNS(SHMPIPE_ERR_PANICKED, call);                                                                          \
        OK(shmpipe_consumer_close(ends.consumer));                                                                    \
        RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_send(ends.producer, "12345678", 8));                                \
        TRUE(shmpipe_abort_code() == UINT32_MAX);                                                                     \
        OK(shmpipe_producer_close(ends.producer));                                                                    \
        shmpipe_pipe_free(ends.pipe);                                                                                 \
    } while (0)
// A function without a result: it returns, and does nothing.
#define RETURNS_FROM(call) (calls++, shmpipe_test_panic(), call)

int main(void) {
    ends ends;
    char buffer[64];
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    shmpipe_consumer *consumer;
    shmpipe_cancel_handle *cancel;
    shmpipe_set *set;
    shmpipe_message message;
    shmpipe_event event;
    shmpipe_stats stats;
    shmpipe_pipe_info info;
    struct iovec part = {buffer, 8};
    size_t count;
    uint64_t number;
    int fd;

    PANICS(shmpipe_options_new(&options));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_PANICKED), "which is a bug in it: as the test asked") != NULL);
    OK(shmpipe_options_new(&options));
    PANICS(shmpipe_options_capacity(options, 4096));
    PANICS(shmpipe_options_duplex(options, true));
    PANICS(shmpipe_options_mode(options, 0600));
    PANICS(shmpipe_options_uid(options, 0));
    PANICS(shmpipe_options_gid(options, 0));
    PANICS(shmpipe_options_trust_uid(options, 0));
    PANICS(shmpipe_options_schema(options, 1));
    PANICS(shmpipe_options_wake_mode(options, SHMPIPE_WAKE_NEVER));
    PANICS(shmpipe_options_wait(options, SHMPIPE_WAIT_SPIN));
    PANICS(shmpipe_options_wait_sleep(options, 1));
    PANICS(shmpipe_options_remove_on_close(options, true));
    PANICS(shmpipe_options_remove_leftover(options, true));
    PANICS(shmpipe_options_measure_latency(options, true));
    PANICS(shmpipe_options_huge_pages(options, true));
    PANICS(shmpipe_options_lock_memory(options, true));
    PANICS(shmpipe_options_prefault(options, true));
    PANICS(shmpipe_options_recreate_stale(options, true));
    PANICS(shmpipe_options_allow_missing_undo(options, true));
    PANICS(shmpipe_options_allow_rmid_forced(options, true));
    PANICS(shmpipe_create("memfd", options, &pipe));
    PANICS(shmpipe_open("fd:0", options, &pipe));
    PANICS(shmpipe_open_or_create("memfd", options, &pipe));
    // Options and pipes are as they were.
    OK(shmpipe_create("memfd", options, &pipe));
    OK(shmpipe_pipe_get_info(pipe, &info, sizeof info));
    TRUE(info.capacity == 1 << 20 && info.schema == 0 && !info.duplex);
    RETURNS_FROM(shmpipe_options_free(NULL));
    shmpipe_options_free(options);
    shmpipe_pipe *again;
    PANICS(shmpipe_reopen(pipe, &again));
    PANICS(shmpipe_unlink("posix:/shmpipe-c-none"));
    PANICS(shmpipe_unlink_force("posix:/shmpipe-c-none"));
    PANICS(shmpipe_pipe_get_info(pipe, &info, sizeof info));
    PANICS(shmpipe_pipe_producer(pipe, &producer));
    PANICS(shmpipe_pipe_consumer(pipe, &consumer));
    PANICS(shmpipe_pipe_duplex(pipe, 0, &producer, &consumer, NULL));
    PANICS(shmpipe_inspect(shmpipe_pipe_address(pipe), &stats, sizeof stats));
    RETURNS_FROM(shmpipe_pipe_free(NULL));
    shmpipe_pipe_free(pipe);

    PRODUCER(shmpipe_send(ends.producer, "12345678", 8));
    PRODUCER(shmpipe_try_send(ends.producer, "12345678", 8));
    PRODUCER(shmpipe_send_timeout(ends.producer, "12345678", 8, 0));
    PRODUCER(shmpipe_sendv(ends.producer, &part, 1, 0, 0, NULL));
    PRODUCER(shmpipe_reserve(ends.producer, 8, 0, NULL));
    PRODUCER(shmpipe_reserved_write(ends.producer, 0, "12345678", 8));
    PRODUCER(shmpipe_commit(ends.producer, 0, 0, NULL));
    PRODUCER(shmpipe_abandon(ends.producer));
    PRODUCER(shmpipe_batch_begin(ends.producer));
    PRODUCER(shmpipe_batch_push(ends.producer, "12345678", 8));
    PRODUCER(shmpipe_batch_pushv(ends.producer, &part, 1, 0, 0, NULL));
    PRODUCER(shmpipe_batch_commit(ends.producer));
    PRODUCER(shmpipe_batch_abandon(ends.producer));
    PRODUCER(shmpipe_producer_trust_peer(ends.producer));
    PRODUCER(shmpipe_flush(ends.producer, 0));
    PRODUCER(shmpipe_free_space(ends.producer, &number));
    PRODUCER(shmpipe_count_dropped(ends.producer, 1));
    PRODUCER(shmpipe_producer_position(ends.producer, &number));
    PRODUCER(shmpipe_producer_peer(ends.producer, &fd));
    PRODUCER(shmpipe_producer_wait_for_peer(ends.producer, 0));
    PRODUCER(shmpipe_producer_check(ends.producer));
    PRODUCER(shmpipe_producer_cancel_handle(ends.producer, &cancel));
    PRODUCER(shmpipe_producer_fd(ends.producer, &fd));

    CONSUMER(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    CONSUMER(shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    CONSUMER(shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, 0, &message));
    CONSUMER(shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, &message, 1, 0, &count));
    CONSUMER(shmpipe_borrow(ends.consumer, 0, &message));
    CONSUMER(shmpipe_borrow_next(ends.consumer, &message));
    CONSUMER(shmpipe_borrowed_copy(ends.consumer, buffer, sizeof buffer));
    CONSUMER(shmpipe_release(ends.consumer));
    CONSUMER(shmpipe_requeue(ends.consumer));
    CONSUMER(shmpipe_consumer_trust_peer(ends.consumer));
    CONSUMER(shmpipe_wait_for_message(ends.consumer, 0));
    CONSUMER(shmpipe_consumer_position(ends.consumer, &number));
    CONSUMER(shmpipe_consumer_peer(ends.consumer, &fd));
    CONSUMER(shmpipe_consumer_wait_for_peer(ends.consumer, 0));
    CONSUMER(shmpipe_consumer_check(ends.consumer));
    CONSUMER(shmpipe_consumer_cancel_handle(ends.consumer, &cancel));
    CONSUMER(shmpipe_consumer_fd(ends.consumer, &fd));

    // One that panics as it ends has ended all the same.
    ends = both_ends(4096);
    PANICS(shmpipe_producer_close(ends.producer));
    PANICS(shmpipe_consumer_close(ends.consumer));
    OK(shmpipe_pipe_producer(ends.pipe, &producer));
    OK(shmpipe_pipe_consumer(ends.pipe, &consumer));
    PANICS(shmpipe_producer_abort(producer, 1));
    PANICS(shmpipe_consumer_abort(consumer, 1));
    shmpipe_pipe_free(ends.pipe);

    ends = both_ends(4096);
    OK(shmpipe_consumer_cancel_handle(ends.consumer, &cancel));
    PANICS(shmpipe_cancel(cancel));
    RETURNS_FROM(shmpipe_cancel_free(NULL));
    shmpipe_cancel_free(cancel);
    // After a panic in another call, a tap can only be freed.
    shmpipe_tap *tap, *back;
    shmpipe_passed passed;
    PANICS(shmpipe_tap_open(shmpipe_pipe_address(ends.pipe), false, &tap));
    OK(shmpipe_tap_open(shmpipe_pipe_address(ends.pipe), false, &tap));
    PANICS(shmpipe_tap_back(tap, false, &back));
    PANICS(shmpipe_tap_next(tap, &passed));
    RETURNS(SHMPIPE_ERR_PANICKED, shmpipe_tap_next(tap, &passed));
    RETURNS_FROM(shmpipe_tap_free(NULL));
    shmpipe_tap_free(tap);
    // After a panic in another call, a set can only be freed.
    PANICS(shmpipe_set_new(&set));
    OK(shmpipe_set_new(&set));
    PANICS(shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_END, NULL));
    RETURNS(SHMPIPE_ERR_PANICKED, shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_END, NULL));
    PANICS(shmpipe_set_add_producer(set, ends.producer, SHMPIPE_INTEREST_END, 0, NULL));
    PANICS(shmpipe_set_remove_consumer(set, ends.consumer));
    PANICS(shmpipe_set_remove_producer(set, ends.producer));
    PANICS(shmpipe_set_wait(set, &event, 1, 0, &count));
    PANICS(shmpipe_set_cancel_handle(set, &cancel));
    RETURNS_FROM(shmpipe_set_free(NULL));
    shmpipe_set_free(set);
    close_both(ends);
    // A member that panics before it has left its set, or has ended what is open, stays where they find it.
    ends = both_ends(4096);
    OK(shmpipe_send(ends.producer, "12345678", 8));
    OK(shmpipe_set_new(&set));
    OK(shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    PANICS(shmpipe_consumer_close(ends.consumer));
    OK(shmpipe_set_wait(set, &event, 1, 10 * SECOND, &count));
    TRUE(count == 1 && event.readiness == SHMPIPE_READY_MESSAGE);
    shmpipe_set_free(set);
    OK(shmpipe_reserve(ends.producer, 8, 0, NULL));
    PANICS(shmpipe_producer_close(ends.producer));
    shmpipe_pipe_free(ends.pipe);
    // Otherwise it ends as a Rust program that panics.
    ends = both_ends(4096);
    PANICS(shmpipe_producer_close(ends.producer));
    RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    TRUE(shmpipe_abort_code() == UINT32_MAX);
    OK(shmpipe_consumer_close(ends.consumer));
    shmpipe_pipe_free(ends.pipe);
    // The caller compares with the number of functions.
    printf("%d\n", calls);
    return 0;
}
