// A forked child: handles of the parent refuse everything and can be given back, and the pipe can be reopened.
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

// Ends a child without the checks for leaks that sanitizers make at exit: it leaves to its end what is the parent's.
static void end_child(void) {
    fflush(stdout);
    execlp("true", "true", (char *)NULL);
    _exit(1);
}

static void wait_for(pid_t child) {
    int status;
    TRUE(waitpid(child, &status, 0) == child);
    TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// Handles in which nothing is open, whose calls take the short path in the parent.
static void idle_handles(void) {
    ends ends = both_ends(4096);
    char buffer[64];
    OK(shmpipe_send(ends.producer, "12345678", 8));
    pid_t child = fork();
    if (child == 0) {
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_send(ends.producer, "12345678", 8));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
        close_both(ends);
        end_child();
    }
    wait_for(child);
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    close_both(ends);
}

int main(void) {
    idle_handles();
    ends ends = both_ends(4096);
    shmpipe_set *set;
    char buffer[64];
    shmpipe_message message;
    shmpipe_event event;
    size_t count;
    uint64_t number;
    int fd;
    OK(shmpipe_set_new(&set));
    OK(shmpipe_set_add_producer(set, ends.producer, SHMPIPE_INTEREST_END, 0, NULL));
    RETURNS(SHMPIPE_ERR_TIMED_OUT, shmpipe_set_wait(set, &event, 1, 1000000, &count));
    // So that something is open in each.
    OK(shmpipe_send(ends.producer, "borrowed", 8));
    OK(shmpipe_borrow(ends.consumer, 0, NULL));
    OK(shmpipe_reserve(ends.producer, 8, 0, NULL));
    struct iovec part = {buffer, 8};
    shmpipe_tap *tap;
    shmpipe_passed passed;
    OK(shmpipe_tap_open(shmpipe_pipe_address(ends.pipe), true, &tap));

    pid_t child = fork();
    if (child == 0) {
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_send(ends.producer, "12345678", 8));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_commit(ends.producer, 8, 0, NULL));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_abandon(ends.producer));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_reserved_write(ends.producer, 0, "12345678", 8));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_sendv(ends.producer, &part, 1, 0, 0, NULL));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_producer_position(ends.producer, &number));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_producer_check(ends.producer));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_producer_fd(ends.producer, &fd));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_borrow_next(ends.consumer, &message));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_borrowed_copy(ends.consumer, buffer, sizeof buffer));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_release(ends.consumer));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_requeue(ends.consumer));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_consumer_peer(ends.consumer, &fd));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_set_wait(set, &event, 1, 0, &count));
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_tap_next(tap, &passed));
        shmpipe_tap_free(tap);
        RETURNS(SHMPIPE_ERR_FORKED, shmpipe_pipe_producer(ends.pipe, &ends.producer));
        shmpipe_pipe *pipe;
        shmpipe_consumer *consumer;
        OK(shmpipe_reopen(ends.pipe, &pipe));
        RETURNS(SHMPIPE_ERR_TAKEN, shmpipe_pipe_consumer(pipe, &consumer));
        shmpipe_pipe_free(pipe);
        // Gives back what it inherited, in an order that would matter to the parent.
        close_both(ends);
        shmpipe_set_free(set);
        end_child();
    }
    wait_for(child);
    // For the parent nothing has happened.
    OK(shmpipe_tap_next(tap, &passed));
    TRUE(passed.length == 8);
    shmpipe_tap_free(tap);
    OK(shmpipe_requeue(ends.consumer));
    OK(shmpipe_commit(ends.producer, 8, 7, NULL));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    OK(shmpipe_recv(ends.consumer, buffer, sizeof buffer, &message));
    TRUE(message.tag == 7);
    OK(shmpipe_consumer_close(ends.consumer));

    // The child as the consumer.
    child = fork();
    if (child == 0) {
        shmpipe_pipe *pipe;
        shmpipe_consumer *consumer;
        OK(shmpipe_reopen(ends.pipe, &pipe));
        OK(shmpipe_pipe_consumer(pipe, &consumer));
        for (uint64_t i = 0; i < 1000; i++) {
            OK(shmpipe_recv(consumer, &number, sizeof number, &message));
            TRUE(message.length == 8 && number == i);
        }
        RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_recv(consumer, &number, sizeof number, &message));
        OK(shmpipe_consumer_close(consumer));
        shmpipe_pipe_free(pipe);
        OK(shmpipe_producer_close(ends.producer));
        shmpipe_set_free(set);
        shmpipe_pipe_free(ends.pipe);
        end_child();
    }
    OK(shmpipe_producer_wait_for_peer(ends.producer, SHMPIPE_FOREVER));
    for (uint64_t i = 0; i < 1000; i++) {
        OK(shmpipe_send(ends.producer, &i, sizeof i));
    }
    OK(shmpipe_producer_close(ends.producer));
    wait_for(child);
    shmpipe_set_free(set);
    shmpipe_pipe_free(ends.pipe);
    return 0;
}
