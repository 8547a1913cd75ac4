// Several pipes and signals in one event loop: prints what arrives, until every producer has ended or Ctrl-C is pressed.
//
//     cc epoll.c -o epoll $(pkg-config --cflags --libs shmpipe)
//     ./epoll ticks orders
#include <shmpipe.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

typedef struct {
    const char *address;
    shmpipe_consumer *consumer;
} feed;

static void check(int code) {
    if (code != SHMPIPE_OK) {
        fprintf(stderr, "epoll: %s\n", shmpipe_strerror(code));
        exit(1);
    }
}

static void check_call(const char *call, int result) {
    if (result == -1) {
        perror(call);
        exit(1);
    }
}

// Receives what is there. Returns whether the feed has ended.
static int receive(feed *feed) {
    char buffer[4096];
    shmpipe_message message;
    // So many at a time, so that no feed keeps the others waiting: its descriptor stays readable.
    for (int i = 0; i < 64; i++) {
        int code = shmpipe_try_recv(feed->consumer, buffer, sizeof buffer, &message);
        if (code == SHMPIPE_ERR_EMPTY) {
            // The descriptor is readable again when there is more.
            return 0;
        }
        if (code == SHMPIPE_ERR_TOO_SMALL) {
            fprintf(stderr, "epoll: %s: a message of %zu bytes\n", feed->address, message.length);
            exit(1);
        }
        if (code != SHMPIPE_OK) {
            printf("%s: %s\n", feed->address, shmpipe_strerror(code));
            return 1;
        }
        printf("%s: %.*s\n", feed->address, (int)message.length, buffer);
    }
    return 0;
}

int main(int argc, char **argv) {
    int loop = epoll_create1(EPOLL_CLOEXEC);
    check_call("epoll_create1", loop);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    check_call("sigprocmask", sigprocmask(SIG_BLOCK, &signals, NULL));
    int signal = signalfd(-1, &signals, SFD_CLOEXEC);
    check_call("signalfd", signal);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    check_call("epoll_ctl", epoll_ctl(loop, EPOLL_CTL_ADD, signal, &event));

    int open = argc - 1;
    feed *feeds = calloc((size_t)open + 1, sizeof *feeds);
    if (feeds == NULL) {
        perror("calloc");
        return 1;
    }
    for (int i = 0; i < open; i++) {
        shmpipe_pipe *pipe;
        int fd;
        feeds[i].address = argv[i + 1];
        check(shmpipe_open_or_create(feeds[i].address, NULL, &pipe));
        check(shmpipe_pipe_consumer(pipe, &feeds[i].consumer));
        shmpipe_pipe_free(pipe);
        check(shmpipe_consumer_fd(feeds[i].consumer, &fd));
        event.data.ptr = &feeds[i];
        check_call("epoll_ctl", epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event));
    }
    while (open > 0) {
        struct epoll_event ready[16];
        int count = epoll_wait(loop, ready, 16, -1);
        check_call("epoll_wait", count);
        for (int i = 0; i < count; i++) {
            feed *feed = ready[i].data.ptr;
            if (feed == NULL) {
                open = 0;
            } else if (receive(feed)) {
                // Closing it removes its descriptor from the loop.
                check(shmpipe_consumer_close(feed->consumer));
                feed->consumer = NULL;
                open--;
            }
        }
        fflush(stdout);
    }
    for (int i = 0; i < argc - 1; i++) {
        if (feeds[i].consumer != NULL) {
            check(shmpipe_consumer_close(feeds[i].consumer));
        }
    }
    free(feeds);
    close(signal);
    close(loop);
    return 0;
}
