// The two ends in two threads, a handle that moves between threads, and cancels from a thread and from a signal handler.
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

enum { MESSAGES = 20000 };

static void *produce(void *argument) {
    shmpipe_producer *producer = argument;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        uint64_t message[32] = {i, ~i};
        OK(shmpipe_send(producer, message, 16 + (i % 31) * 8));
    }
    OK(shmpipe_producer_close(producer));
    return NULL;
}

static void stream(void) {
    ends ends = both_ends(4096);
    pthread_t thread;
    TRUE(pthread_create(&thread, NULL, produce, ends.producer) == 0);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        uint64_t got[32];
        shmpipe_message message;
        OK(shmpipe_recv(ends.consumer, got, sizeof got, &message));
        TRUE(message.length == 16 + (i % 31) * 8 && got[0] == i && got[1] == ~i);
    }
    RETURNS(SHMPIPE_ERR_CLOSED, shmpipe_recv(ends.consumer, NULL, 0, NULL));
    TRUE(pthread_join(thread, NULL) == 0);
    OK(shmpipe_consumer_close(ends.consumer));
    shmpipe_pipe_free(ends.pipe);
}

static void *fail(void *argument) {
    shmpipe_pipe *pipe;
    (void)argument;
    RETURNS(SHMPIPE_ERR_NOT_FOUND, shmpipe_open("posix:/shmpipe-c-of-a-thread", NULL, &pipe));
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_NOT_FOUND), "of-a-thread") != NULL);
    return NULL;
}

// A sentence belongs to its thread.
static void sentences(void) {
    pthread_t thread;
    TRUE(pthread_create(&thread, NULL, fail, NULL) == 0);
    TRUE(pthread_join(thread, NULL) == 0);
    TRUE(strstr(shmpipe_strerror(SHMPIPE_ERR_NOT_FOUND), "of-a-thread") == NULL);
}

static shmpipe_cancel_handle *cancel;

static void *cancel_soon(void *argument) {
    (void)argument;
    struct timespec while_it_falls_asleep = {0, 20000000};
    nanosleep(&while_it_falls_asleep, NULL);
    OK(shmpipe_cancel(cancel));
    return NULL;
}

static void cancel_from_a_thread(void) {
    ends ends = both_ends(4096);
    char buffer[8];
    pthread_t thread;
    OK(shmpipe_consumer_cancel_handle(ends.consumer, &cancel));
    TRUE(pthread_create(&thread, NULL, cancel_soon, NULL) == 0);
    RETURNS(SHMPIPE_ERR_CANCELLED, shmpipe_recv(ends.consumer, buffer, sizeof buffer, NULL));
    TRUE(pthread_join(thread, NULL) == 0);
    shmpipe_cancel_free(cancel);
    close_both(ends);
}

static volatile sig_atomic_t handled;

static void on_signal(int number) {
    (void)number;
    errno = 12345;
    handled = shmpipe_cancel(cancel) == SHMPIPE_OK && errno == 12345 ? 1 : -1;
}

static void cancel_from_a_signal_handler(void) {
    ends ends = both_ends(4096);
    char message[1000] = {0};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    TRUE(sigaction(SIGALRM, &action, NULL) == 0);
    OK(shmpipe_producer_cancel_handle(ends.producer, &cancel));
    struct itimerval soon = {{0, 0}, {0, 50000}};
    TRUE(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    int code;
    do {
        code = shmpipe_send(ends.producer, message, sizeof message);
    } while (code == SHMPIPE_OK);
    TRUE(code == SHMPIPE_ERR_CANCELLED && handled == 1);
    shmpipe_cancel_free(cancel);
    close_both(ends);
}

int main(void) {
    stream();
    sentences();
    cancel_from_a_thread();
    cancel_from_a_signal_handler();
    return 0;
}
