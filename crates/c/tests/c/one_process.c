// Every call, with both ends in one process.
#include "check.h"

// The bytes of a struct after its last member, which is a bool.
#define IS_ZERO_AFTER(value, last)                                                                                    \
    do {                                                                                                              \
        size_t end = (size_t)((unsigned char *)&(value).last + sizeof(bool) - (unsigned char *)&(value));             \
        TRUE(end < sizeof(value));                                                                                    \
        for (size_t at = end; at < sizeof(value); at++) {                                                             \
            TRUE(((unsigned char *)&(value))[at] == 0);                                                               \
        }                                                                                                             \
    } while (0)

#include <unistd.h>

static int is(const shmpipe_message *message, const char *text) {
    return message->length == strlen(text) && memcmp(message->data, text, message->length) == 0;
}

static void versions(void) {
    TRUE(shmpipe_abi_version() == SHMPIPE_ABI_VERSION);
    TRUE(shmpipe_layout_version() > 0);
    TRUE(strchr(shmpipe_version(), '.') != NULL);
}

// A pipe of another version of the library is refused with both numbers.
static void another_version(void) {
    shmpipe_pipe *pipe, *opened;
    shmpipe_pipe_info info;
    OK(shmpipe_create("memfd", NULL, &pipe));
    OK(shmpipe_pipe_get_info(pipe, &info, sizeof info));
    uint32_t version = shmpipe_layout_version() + 1;
    TRUE(pwrite(info.fd, &version, sizeof version, 8) == sizeof version);
    RETURNS(SHMPIPE_ERR_INCOMPATIBLE, shmpipe_open(shmpipe_pipe_address(pipe), NULL, &opened));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_INCOMPATIBLE), "layout version") != NULL);
    shmpipe_pipe_free(pipe);
}

static void options_and_info(void) {
    shmpipe_options *options;
    shmpipe_pipe *pipe, *again;
    shmpipe_pipe_info info;
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_capacity(options, 5000));
    OK(shmpipe_options_mode(options, 0640));
    OK(shmpipe_options_schema(options, 7));
    OK(shmpipe_options_wait(options, SHMPIPE_WAIT_YIELD));
    OK(shmpipe_options_wake_mode(options, SHMPIPE_WAKE_FENCE));
    OK(shmpipe_options_prefault(options, true));
    OK(shmpipe_options_trust_uid(options, 12345));
    OK(shmpipe_options_wait_sleep(options, 1000));
    OK(shmpipe_options_remove_on_close(options, false));
    OK(shmpipe_options_remove_leftover(options, false));
    OK(shmpipe_options_measure_latency(options, false));
    OK(shmpipe_options_huge_pages(options, false));
    OK(shmpipe_options_lock_memory(options, false));
    OK(shmpipe_options_recreate_stale(options, false));
    OK(shmpipe_options_allow_missing_undo(options, false));
    OK(shmpipe_options_allow_rmid_forced(options, false));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_options_wait(options, 99));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_options_wake_mode(options, 0));
    OK(shmpipe_create("memfd", options, &pipe));
    OK(shmpipe_pipe_get_info(pipe, &info, sizeof info));
    TRUE(info.capacity == 8192 && info.max_len == 4088 && info.schema == 7 && info.mode == 0640);
    TRUE(info.wake_mode == SHMPIPE_WAKE_FENCE && info.fd >= 0 && info.created && !info.duplex);
    TRUE(strcmp(shmpipe_pipe_differences(pipe), "") == 0);

    OK(shmpipe_options_capacity(options, 4096));
    OK(shmpipe_open(shmpipe_pipe_address(pipe), options, &again));
    TRUE(strstr(shmpipe_pipe_differences(again), "4096") != NULL);
    OK(shmpipe_pipe_get_info(again, &info, sizeof info));
    TRUE(!info.created);
    shmpipe_pipe_free(again);
    OK(shmpipe_options_schema(options, 8));
    RETURNS(SHMPIPE_ERR_INCOMPATIBLE, shmpipe_open(shmpipe_pipe_address(pipe), options, &again));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_INCOMPATIBLE), "0x7, expected 0x8") != NULL);
    // An older program, whose struct ends earlier, and a newer one.
    memset(&info, 0xff, sizeof info);
    OK(shmpipe_pipe_get_info(pipe, &info, 16));
    TRUE(info.capacity == 8192 && info.max_len == UINT64_MAX);
    shmpipe_pipe_info longer[2];
    memset(longer, 0xff, sizeof longer);
    OK(shmpipe_pipe_get_info(pipe, longer, sizeof longer));
    TRUE(longer[0].max_len == 4088 && longer[1].id == 0 && !longer[1].duplex);
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_pipe_get_info(pipe, &info, 0));
    // A newer one may have a member where this one has padding.
    IS_ZERO_AFTER(longer[0], duplex);
    shmpipe_pipe_free(pipe);
    shmpipe_options_free(options);
}

static void sentences(void) {
    shmpipe_pipe *pipe;
    RETURNS(SHMPIPE_ERR_ADDRESS, shmpipe_open("tcp:1", NULL, &pipe));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_ADDRESS), "\"tcp\" is not a known kind of shared memory") != NULL);
    RETURNS(SHMPIPE_ERR_NOT_FOUND, shmpipe_open("posix:/shmpipe-c-none", NULL, &pipe));
    // Another code keeps its general sentence.
    TRUE(strcmp(shmpipe_strerror(SHMPIPE_ERR_ADDRESS), "the address does not parse") == 0);
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_NOT_FOUND), "shmpipe-c-none") != NULL);
    RETURNS(SHMPIPE_ERR_NOT_FOUND, shmpipe_unlink("posix:/shmpipe-c-none"));
    RETURNS(SHMPIPE_ERR_NOT_FOUND, shmpipe_unlink_force("posix:/shmpipe-c-none"));
    TRUE(strcmp(shmpipe_strerror(SHMPIPE_OK), "no error") == 0);
    TRUE(strlen(shmpipe_strerror(-12345)) > 0);
    for (int code = 0; code > -100; code--) {
        TRUE(strlen(shmpipe_strerror(code)) > 0);
    }
}

static void messages(void) {
    ends ends = both_ends(4096);
    char buffer[64];
    shmpipe_message message;
    OK(shmpipe_send(ends.producer, "hello", 5));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(is(&message, "hello") && message.tag == 0 && message.data == buffer && message.position == 0);
    // All lengths, on the short path and beside it.
    for (size_t length = 0; length <= 2040; length += length < 130 ? 1 : 191) {
        char sent[2048], got[2048];
        for (size_t i = 0; i < length; i++) {
            sent[i] = (char)(i * 7 + length);
        }
        memset(got, 0, sizeof got);
        OK(shmpipe_send(ends.producer, sent, length));
        OK(shmpipe_recv(ends.consumer, got, sizeof got, &message));
        TRUE(message.length == length && memcmp(sent, got, length) == 0 && got[length] == 0);
    }
    // NULL is an empty message, and a message need not be looked at.
    OK(shmpipe_send(ends.producer, NULL, 0));
    OK(shmpipe_recv(ends.consumer, NULL, 0, &message));
    TRUE(message.length == 0);
    OK(shmpipe_try_send(ends.producer, "12345678", 8));
    OK(shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, NULL));
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, &message));
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, 0, &message));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, 1000000, &message));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_TIMED_OUT), "empty until the deadline") != NULL);
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_wait_for_message(ends.consumer, 1000000));

    struct iovec parts[20];
    for (int i = 0; i < 20; i++) {
        parts[i].iov_base = "ab";
        parts[i].iov_len = 2;
    }
    uint64_t position;
    OK(shmpipe_sendv(ends.producer, parts, 2, 7, SHMPIPE_FOREVER, &position));
    OK(shmpipe_sendv(ends.producer, parts, 20, 8, 0, NULL));
    OK(shmpipe_sendv(ends.producer, NULL, 0, 9, SECOND, NULL));
    OK(shmpipe_wait_for_message(ends.consumer, SHMPIPE_FOREVER));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(is(&message, "abab") && message.tag == 7 && message.position == position);
    OK(shmpipe_recv_timeout(ends.consumer, buffer, sizeof buffer, SECOND, &message));
    TRUE(message.length == 40 && message.tag == 8);
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(message.length == 0 && message.tag == 9);

    // A short buffer leaves the message where it is.
    OK(shmpipe_send(ends.producer, "a message that is too long", 26));
    RETURNS(SHMPIPE_ERR_TOO_SMALL, shmpipe_recv(ends.consumer, buffer, 25, &message));
    TRUE(message.length == 26);
    RETURNS(SHMPIPE_ERR_TOO_SMALL, shmpipe_recv(ends.consumer, NULL, 0, NULL));
    OK(shmpipe_recv(ends.consumer, buffer, 26, &message));
    TRUE(is(&message, "a message that is too long"));

    // Full.
    char kilobyte[1000] = {0};
    int sent = 0;
    while (shmpipe_try_send(ends.producer, kilobyte, sizeof kilobyte) == SHMPIPE_OK) {
        sent++;
    }
    TRUE(sent == 4);
    RETURNS(SHMPIPE_ERR_FULL, shmpipe_try_send(ends.producer, kilobyte, sizeof kilobyte));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_send_timeout(ends.producer, kilobyte, sizeof kilobyte, 1000000));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_flush(ends.producer, 1000000));
    OK(shmpipe_count_dropped(ends.producer, 3));
    uint64_t bytes;
    OK(shmpipe_free_space(ends.producer, &bytes));
    TRUE(bytes < 1008);
    RETURNS(SHMPIPE_ERR_TOO_LARGE, shmpipe_send(ends.producer, kilobyte, 4096 / 2));
    shmpipe_stats stats;
    OK(shmpipe_inspect(shmpipe_pipe_address(ends.pipe), &stats, sizeof stats));
    TRUE(stats.forth.unread == 4 && stats.forth.dropped == 3 && stats.capacity == 4096 && stats.open);
    TRUE(stats.forth.producer.peer == SHMPIPE_PEER_OPEN && stats.back.used == 0 && !stats.duplex);
    TRUE(!stats.measure_latency && stats.forth_latency.samples == 0);
    // A program that knows fewer members gets those.
    memset(&stats, 0xff, sizeof stats);
    OK(shmpipe_inspect(shmpipe_pipe_address(ends.pipe), &stats, offsetof(shmpipe_stats, forth_latency)));
    TRUE(!stats.measure_latency && stats.forth_latency.samples == UINT64_MAX);
    close_both(ends);
}

static void latency(void) {
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    shmpipe_producer *producer;
    shmpipe_consumer *consumer;
    shmpipe_stats stats;
    char kilobyte[1024] = "x";
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_capacity(options, 4096));
    OK(shmpipe_options_measure_latency(options, true));
    OK(shmpipe_create("memfd", options, &pipe));
    shmpipe_options_free(options);
    OK(shmpipe_pipe_producer(pipe, &producer));
    OK(shmpipe_pipe_consumer(pipe, &consumer));
    for (int i = 0; i < 10; i++) {
        OK(shmpipe_send(producer, kilobyte, sizeof kilobyte));
        OK(shmpipe_recv(consumer, kilobyte, sizeof kilobyte, NULL));
    }
    OK(shmpipe_inspect(shmpipe_pipe_address(pipe), &stats, sizeof stats));
    TRUE(stats.measure_latency && stats.forth_latency.samples == 10 && stats.back_latency.samples == 0);
    TRUE(stats.forth_latency.p50 > 0 && stats.forth_latency.p50 <= stats.forth_latency.max);
    OK(shmpipe_producer_close(producer));
    OK(shmpipe_consumer_close(consumer));
    shmpipe_pipe_free(pipe);
}

static void tap(void) {
    ends ends = both_ends(4096);
    shmpipe_tap *tap, *back;
    shmpipe_passed passed;
    char buffer[1024] = "unread";
    struct iovec part = {buffer, 6};
    OK(shmpipe_sendv(ends.producer, &part, 1, 7, SHMPIPE_FOREVER, NULL));
    RETURNS(SHMPIPE_ERR_NOT_FOUND, shmpipe_tap_open("shmpipe-c-none", false, &tap));
    OK(shmpipe_tap_open(shmpipe_pipe_address(ends.pipe), true, &tap));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_tap_back(tap, false, &back));
    OK(shmpipe_tap_next(tap, &passed));
    TRUE(passed.length == 6 && memcmp(passed.data, "unread", 6) == 0 && passed.tag == 7 && passed.missed == 0);
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_tap_next(tap, &passed));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    for (int i = 0; i < 10; i++) {
        OK(shmpipe_send(ends.producer, buffer, sizeof buffer));
        OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    }
    OK(shmpipe_tap_next(tap, &passed));
    TRUE(passed.data == NULL && passed.missed >= 10 * 1032);
    shmpipe_tap_free(tap);
    shmpipe_tap_free(NULL);
    close_both(ends);
}

static void in_place(void) {
    ends ends = both_ends(4096);
    char buffer[64];
    shmpipe_message message;
    void *space;
    uint64_t position;
    // Without the promise, bytes are copied.
    OK(shmpipe_reserve(ends.producer, 100, SHMPIPE_FOREVER, &space));
    TRUE(space == NULL);
    OK(shmpipe_reserved_write(ends.producer, 0, "hello ", 6));
    OK(shmpipe_reserved_write(ends.producer, 6, "world", 5));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_reserved_write(ends.producer, 96, "world", 5));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_reserved_write(ends.producer, SIZE_MAX, "world", 5));
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_commit(ends.producer, 101, 3, NULL));
    OK(shmpipe_commit(ends.producer, 11, 3, &position));
    OK(shmpipe_borrow(ends.consumer, SHMPIPE_FOREVER, &message));
    TRUE(message.data == NULL && message.length == 11 && message.tag == 3 && message.position == position);
    RETURNS(SHMPIPE_ERR_TOO_SMALL, shmpipe_borrowed_copy(ends.consumer, buffer, 10));
    OK(shmpipe_borrowed_copy(ends.consumer, buffer, sizeof buffer));
    TRUE(memcmp(buffer, "hello world", 11) == 0);
    OK(shmpipe_requeue(ends.consumer));

    OK(shmpipe_producer_trust_peer(ends.producer));
    OK(shmpipe_consumer_trust_peer(ends.consumer));
    OK(shmpipe_reserve(ends.producer, 8, 0, &space));
    memcpy(space, "in place", 8);
    OK(shmpipe_commit(ends.producer, 8, 0, NULL));
    OK(shmpipe_reserve(ends.producer, 8, SECOND, NULL));
    OK(shmpipe_abandon(ends.producer));
    // The message that was requeued, and one more.
    OK(shmpipe_borrow(ends.consumer, 0, &message));
    TRUE(is(&message, "hello world"));
    shmpipe_message second;
    OK(shmpipe_borrow_next(ends.consumer, &second));
    TRUE(is(&second, "in place") && is(&message, "hello world"));
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_borrow_next(ends.consumer, &second));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_borrow(ends.consumer, 0, &second));
    TRUE(memcmp(message.data, "hello world", 11) == 0);
    OK(shmpipe_release(ends.consumer));
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_borrow_next(ends.consumer, &second));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_release(ends.consumer));
    OK(shmpipe_producer_position(ends.producer, &position));
    uint64_t released;
    OK(shmpipe_consumer_position(ends.consumer, &released));
    TRUE(released == position);
    OK(shmpipe_flush(ends.producer, 0));
    // What is borrowed when the consumer ends stays in the pipe.
    OK(shmpipe_send(ends.producer, "borrowed", 8));
    OK(shmpipe_borrow(ends.consumer, SHMPIPE_FOREVER, &message));
    OK(shmpipe_consumer_close(ends.consumer));
    OK(shmpipe_pipe_consumer(ends.pipe, &ends.consumer));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(is(&message, "borrowed"));
    close_both(ends);
}

static void batches(void) {
    ends ends = both_ends(4096);
    struct iovec part = {"three", 5};
    shmpipe_message messages[8];
    size_t count;
    char buffer[64];
    OK(shmpipe_batch_begin(ends.producer));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_send(ends.producer, "12345678", 8));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_commit(ends.producer, 0, 0, NULL));
    OK(shmpipe_batch_push(ends.producer, "one", 3));
    OK(shmpipe_batch_abandon(ends.producer));
    OK(shmpipe_batch_begin(ends.producer));
    OK(shmpipe_batch_push(ends.producer, "one", 3));
    OK(shmpipe_batch_push(ends.producer, "two", 3));
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, NULL));
    OK(shmpipe_batch_pushv(ends.producer, &part, 1, 3, 0, NULL));
    OK(shmpipe_batch_pushv(ends.producer, &part, 1, 4, SECOND, NULL));
    OK(shmpipe_batch_pushv(ends.producer, &part, 1, 5, SHMPIPE_FOREVER, NULL));
    OK(shmpipe_batch_commit(ends.producer));
    RETURNS(SHMPIPE_ERR_STATE, shmpipe_batch_commit(ends.producer));
    // Two fit: 8 bytes each.
    OK(shmpipe_recv_batch(ends.consumer, buffer, 16, messages, 8, SHMPIPE_FOREVER, &count));
    TRUE(count == 2 && is(&messages[0], "one") && is(&messages[1], "two"));
    TRUE((const char *)messages[1].data == buffer + 8);
    RETURNS(SHMPIPE_ERR_TOO_SMALL, shmpipe_recv_batch(ends.consumer, buffer, 4, messages, 8, 0, &count));
    TRUE(messages[0].length == 5);
    OK(shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, messages, 2, SECOND, &count));
    TRUE(count == 2 && messages[0].tag == 3 && messages[1].tag == 4);
    OK(shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, messages, 8, 0, &count));
    TRUE(count == 1 && messages[0].tag == 5);
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, messages, 8, 0, &count));
    RETURNS(SHMPIPE_ERR_TIMED_OUT,
            shmpipe_recv_batch(ends.consumer, buffer, sizeof buffer, messages, 8, 1000000, &count));
    close_both(ends);
}

static void peers_and_ends(void) {
    ends ends = both_ends(4096);
    char buffer[64];
    int peer;
    shmpipe_producer *second;
    RETURNS(SHMPIPE_ERR_TAKEN, shmpipe_pipe_producer(ends.pipe, &second));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_TAKEN), "producer") != NULL);
    OK(shmpipe_producer_peer(ends.producer, &peer));
    TRUE(peer == SHMPIPE_PEER_OPEN);
    OK(shmpipe_producer_wait_for_peer(ends.producer, 0));
    OK(shmpipe_consumer_wait_for_peer(ends.consumer, SHMPIPE_FOREVER));
    OK(shmpipe_producer_check(ends.producer));
    OK(shmpipe_consumer_check(ends.consumer));
    OK(shmpipe_send(ends.producer, "the last", 8));
    OK(shmpipe_producer_abort(ends.producer, 42));
    OK(shmpipe_consumer_peer(ends.consumer, &peer));
    TRUE(peer == SHMPIPE_PEER_ABORTED);
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    TRUE(shmpipe_abort_code() == 42);
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_PEER_ABORTED), "aborted with code 42") != NULL);
    RETURNS(SHMPIPE_ERR_EMPTY, shmpipe_try_recv(ends.consumer, buffer, sizeof buffer, NULL));
    OK(shmpipe_pipe_producer(ends.pipe, &ends.producer));
    OK(shmpipe_producer_close(ends.producer));
    RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_consumer_check(ends.consumer));
    OK(shmpipe_pipe_producer(ends.pipe, &ends.producer));
    OK(shmpipe_consumer_abort(ends.consumer, 43));
    RETURNS(SHMPIPE_ERR_PEER_ABORTED, shmpipe_send(ends.producer, "12345678", 8));
    TRUE(shmpipe_abort_code() == 43);
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_producer_wait_for_peer(ends.producer, 1000000));
    OK(shmpipe_producer_close(ends.producer));
    shmpipe_pipe_free(ends.pipe);
}

static void cancel(void) {
    ends ends = both_ends(4096);
    char buffer[64];
    shmpipe_cancel_handle *handle;
    OK(shmpipe_consumer_cancel_handle(ends.consumer, &handle));
    OK(shmpipe_cancel(handle));
    RETURNS(SHMPIPE_ERR_CANCELLED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    OK(shmpipe_send(ends.producer, "still here", 10));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    shmpipe_cancel_free(handle);
    OK(shmpipe_producer_cancel_handle(ends.producer, &handle));
    close_both(ends);
    // It outlives what it was made for.
    OK(shmpipe_cancel(handle));
    shmpipe_cancel_free(handle);
}

static void duplex(void) {
    shmpipe_options *options;
    shmpipe_pipe *pipe;
    shmpipe_producer *to_b, *to_a;
    shmpipe_consumer *from_b, *from_a;
    shmpipe_message message;
    char buffer[64];
    int side;
    OK(shmpipe_options_new(&options));
    OK(shmpipe_options_duplex(options, true));
    OK(shmpipe_create("memfd", options, &pipe));
    shmpipe_options_free(options);
    RETURNS(SHMPIPE_ERR_ARGUMENT, shmpipe_pipe_duplex(pipe, 3, &to_b, &from_b, &side));
    RETURNS(SHMPIPE_ERR_UNSUPPORTED, shmpipe_pipe_producer(pipe, &to_b));
    OK(shmpipe_pipe_duplex(pipe, SHMPIPE_SIDE_ANY, &to_b, &from_b, &side));
    TRUE(side == SHMPIPE_SIDE_A);
    OK(shmpipe_pipe_duplex(pipe, SHMPIPE_SIDE_B, &to_a, &from_a, NULL));
    RETURNS(SHMPIPE_ERR_TAKEN, shmpipe_pipe_duplex(pipe, SHMPIPE_SIDE_A, &to_b, &from_b, NULL));
    OK(shmpipe_send(to_b, "6 times 7?", 10));
    OK(shmpipe_recv(from_a, buffer, sizeof buffer, &message));
    TRUE(is(&message, "6 times 7?"));
    OK(shmpipe_send(to_a, "42", 2));
    shmpipe_stats stats;
    OK(shmpipe_inspect(shmpipe_pipe_address(pipe), &stats, sizeof stats));
    TRUE(stats.duplex && stats.back.unread == 1 && stats.forth.unread == 0);
    OK(shmpipe_producer_close(to_b));
    RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_recv(from_a, buffer, sizeof buffer, &message));
    OK(shmpipe_recv(from_b, buffer, sizeof buffer, &message));
    TRUE(is(&message, "42"));
    OK(shmpipe_consumer_close(from_b));
    OK(shmpipe_producer_close(to_a));
    OK(shmpipe_consumer_close(from_a));
    shmpipe_pipe_free(pipe);
}

int main(void) {
    versions();
    another_version();
    options_and_info();
    sentences();
    messages();
    in_place();
    batches();
    peers_and_ends();
    cancel();
    duplex();
    latency();
    tap();
    return 0;
}
