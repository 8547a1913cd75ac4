// What the queues in C++ have in common: values of each of the sizes of src/slots.rs.

#ifndef SHMPIPE_PEERS_QUEUE_H
#define SHMPIPE_PEERS_QUEUE_H

#include <cstddef>

template <std::size_t N> struct Message {
    unsigned char bytes[N];
};

// A queue in memory of the caller's, of `len` bytes.
struct SharedQueue {
    std::size_t len;
    void (*create)(void *memory);
    bool (*push)(void *queue, const unsigned char *message);
    bool (*pop)(void *queue, unsigned char *buffer);
};

// A queue that allocates its own memory, for about `count` values.
struct ThreadQueue {
    void *(*create)(std::size_t count);
    void (*destroy)(void *queue);
    bool (*push)(void *queue, const unsigned char *message);
    bool (*pop)(void *queue, unsigned char *buffer);
};

// The functions of the kind whose values have that size, or null.
template <typename Functions, template <std::size_t> class Kind> const Functions *of_size(std::size_t size) {
    switch (size) {
#define CASE(N)                                                                                                        \
    case N:                                                                                                            \
        return &Kind<N>::functions;
        CASE(8) CASE(16) CASE(32) CASE(56) CASE(64) CASE(128)
        CASE(256) CASE(512) CASE(1024) CASE(4096) CASE(8192) CASE(65536)
#undef CASE
    default:
        return nullptr;
    }
}

#endif
