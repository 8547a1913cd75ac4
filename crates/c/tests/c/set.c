// Sets: what is ready, members that are used outside, closed and removed, and cancels.
#include "check.h"

#include <unistd.h>

// A set keeps no pipe open whose ends have left it.
static void removed_pipe(const char *address) {
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    shmpipe_consumer *consumer;
    shmpipe_set *set;
    shmpipe_event event;
    size_t count;
    ends other = both_ends(4096);
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_capacity(options, 4096));
    OK(shmpipe_options_remove_on_close(options, true));
    OK(shmpipe_create(address, options, &pipe));
    shmpipe_options_free(options);
    OK(shmpipe_pipe_producer(pipe, &producer));
    OK(shmpipe_pipe_consumer(pipe, &consumer));
    OK(shmpipe_set_new(&set));
    OK(shmpipe_set_add_consumer(set, consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    OK(shmpipe_set_add_consumer(set, other.consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, &event, 1, 1000000, &count));
    OK(shmpipe_consumer_close(consumer));
    OK(shmpipe_producer_close(producer));
    shmpipe_pipe_free(pipe);
    int opened = shmpipe_open(address, NULL, &pipe);
    if (opened == SHMPIPE_OK) {
        shmpipe_unlink_force(address);
    }
    RETURNS(SHMPIPE_ERR_NOT_FOUND, opened);
    // The other member is still there.
    OK(shmpipe_send(other.producer, "12345678", 8));
    OK(shmpipe_set_wait(set, &event, 1, 10 * SECOND, &count));
    close_both(other);
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_wait(set, &event, 1, 0, &count));
    shmpipe_set_free(set);
}

// A member that the set has slept for may have something open when the set, or the member, ends.
static void open_after_a_sleep(bool ends_set) {
    ends ends = both_ends(4096);
    shmpipe_set *set;
    shmpipe_event event;
    size_t count;
    char buffer[8];
    OK(shmpipe_set_new(&set));
    OK(shmpipe_set_add_consumer(set, ends.consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    OK(shmpipe_set_add_producer(set, ends.producer, SHMPIPE_INTEREST_END, 0, NULL));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, &event, 1, SECOND / 100, &count));
    OK(shmpipe_send(ends.producer, "12345678", 8));
    OK(shmpipe_borrow(ends.consumer, 0, NULL));
    OK(shmpipe_reserve(ends.producer, 8, 0, NULL));
    if (ends_set) {
        shmpipe_set_free(set);
        OK(shmpipe_borrowed_copy(ends.consumer, buffer, sizeof buffer));
        TRUE(memcmp(buffer, "12345678", 8) == 0);
        OK(shmpipe_release(ends.consumer));
        OK(shmpipe_reserved_write(ends.producer, 0, "reserved", 8));
        OK(shmpipe_commit(ends.producer, 8, 0, NULL));
        OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
        TRUE(memcmp(buffer, "reserved", 8) == 0);
        close_both(ends);
    } else {
        close_both(ends);
        RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_wait(set, &event, 1, 0, &count));
        shmpipe_set_free(set);
    }
}

int main(void) {
    char address[64];
    snprintf(address, sizeof address, "shmpipe-c-set-%d", (int)getpid());
    removed_pipe(address);
    ends ends[3];
    shmpipe_set *set;
    shmpipe_event events[8];
    size_t count;
    char buffer[64];
    OK(shmpipe_set_new(&set));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_wait(set, events, 8, 0, &count));
    for (int i = 0; i < 3; i++) {
        ends[i] = both_ends(4096);
        OK(shmpipe_set_add_consumer(set, ends[i].consumer, SHMPIPE_INTEREST_MESSAGE, &ends[i]));
    }
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, events, 8, 1000000, &count));
    for (int round = 0; round < 100; round++) {
        int which = round % 3;
        OK(shmpipe_send(ends[which].producer, "buy", 3));
        OK(shmpipe_set_wait(set, events, 8, 10 * SECOND, &count));
        TRUE(count == 1 && events[0].user_data == &ends[which]);
        TRUE(events[0].readiness == SHMPIPE_READY_MESSAGE && events[0].end == 0);
        OK(shmpipe_recv(ends[which].consumer, buffer, sizeof buffer, NULL));
        // Sleeps, so that every member has announced it.
        if (round % 10 == 0) {
            RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, events, 8, 1000000, &count));
        }
        // A member that slept is used without the set.
        OK(shmpipe_send(ends[(which + 1) % 3].producer, "12345678", 8));
        OK(shmpipe_recv(ends[(which + 1) % 3].consumer, buffer, sizeof buffer, NULL));
    }
    // Fewer events than members that are ready: the rest comes later.
    for (int i = 0; i < 3; i++) {
        OK(shmpipe_send(ends[i].producer, "sell", 4));
    }
    bool seen[3] = {false, false, false};
    for (int i = 0; i < 3; i++) {
        OK(shmpipe_set_wait(set, events, 1, 10 * SECOND, &count));
        int which = 0;
        for (int j = 0; j < 3; j++) {
            if (events[0].user_data == &ends[j]) {
                which = j;
            }
        }
        TRUE(!seen[which]);
        seen[which] = true;
        OK(shmpipe_recv(ends[which].consumer, buffer, sizeof buffer, NULL));
    }
    // Nothing may be open in a member.
    OK(shmpipe_send(ends[0].producer, "borrowed", 8));
    OK(shmpipe_borrow(ends[0].consumer, 0, NULL));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_wait(set, events, 8, 0, &count));
    OK(shmpipe_release(ends[0].consumer));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, events, 8, 0, &count));
    int fd;
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_consumer_fd(ends[0].consumer, &fd));
    // An end is reported once.
    OK(shmpipe_producer_abort(ends[0].producer, 9));
    OK(shmpipe_set_wait(set, events, 8, 10 * SECOND, &count));
    TRUE(count == 1 && events[0].readiness == SHMPIPE_READY_ENDED);
    TRUE(events[0].end == SHMPIPE_ERR_PEER_ABORTED && events[0].abort_code == 9);
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, events, 8, 1000000, &count));
    // A producer waits for space; another interest replaces the first.
    char half[2040] = {0};
    OK(shmpipe_send(ends[1].producer, half, sizeof half));
    OK(shmpipe_send(ends[1].producer, half, 1000));
    OK(shmpipe_set_add_consumer(set, ends[1].consumer, SHMPIPE_INTEREST_END, NULL));
    OK(shmpipe_set_add_producer(set, ends[1].producer, SHMPIPE_INTEREST_SPACE, 2000, &ends[1]));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, events, 8, 1000000, &count));
    OK(shmpipe_recv(ends[1].consumer, half, sizeof half, NULL));
    OK(shmpipe_recv(ends[1].consumer, half, sizeof half, NULL));
    OK(shmpipe_set_wait(set, events, 8, 10 * SECOND, &count));
    TRUE(count == 1 && events[0].readiness == SHMPIPE_READY_SPACE && events[0].user_data == &ends[1]);
    RETURNS(SHMPIPE_ERR_TOO_LARGE,
            shmpipe_set_add_producer(set, ends[2].producer, SHMPIPE_INTEREST_SPACE, 4096, NULL));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_set_add_consumer(set, ends[2].consumer, SHMPIPE_INTEREST_SPACE, NULL));
    RETURNS(SHMPIPE_ERR_ARGUMENT,
            shmpipe_set_add_producer(set, ends[2].producer, SHMPIPE_INTEREST_MESSAGE, 0, NULL));
    OK(shmpipe_set_remove_producer(set, ends[1].producer));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_remove_producer(set, ends[1].producer));
    // One set at a time.
    shmpipe_set *other;
    OK(shmpipe_set_new(&other));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_add_consumer(other, ends[2].consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    OK(shmpipe_set_remove_consumer(set, ends[2].consumer));
    OK(shmpipe_set_add_consumer(other, ends[2].consumer, SHMPIPE_INTEREST_MESSAGE, NULL));
    // A member leaves when it is closed, and may outlive its set.
    OK(shmpipe_consumer_close(ends[2].consumer));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_set_wait(other, events, 8, 0, &count));
    shmpipe_set_free(other);
    OK(shmpipe_producer_close(ends[2].producer));
    shmpipe_pipe_free(ends[2].pipe);

    shmpipe_cancel_handle *cancel;
    OK(shmpipe_set_cancel_handle(set, &cancel));
    OK(shmpipe_cancel(cancel));
    RETURNS(SHMPIPE_ERR_CANCELLED, shmpipe_set_wait(set, events, 8, SHMPIPE_FOREVER, &count));
    shmpipe_cancel_free(cancel);
    shmpipe_set_free(set);
    OK(shmpipe_consumer_close(ends[0].consumer));
    shmpipe_pipe_free(ends[0].pipe);
    OK(shmpipe_send(ends[1].producer, "12345678", 8));
    OK(shmpipe_recv(ends[1].consumer, buffer, sizeof buffer, NULL));
    close_both(ends[1]);
    open_after_a_sleep(true);
    open_after_a_sleep(false);
    return 0;
}
