// moodycamel's ReaderWriterQueue and its blocking variant, between threads.

#include "queue.h"

#include <readerwriterqueue/readerwriterqueue.h>

namespace {

using moodycamel::BlockingReaderWriterQueue;
using moodycamel::ReaderWriterQueue;

// As try_enqueue never allocates, a queue is as full as its first blocks; the values fill a ring of so many bytes.
template <std::size_t N> struct Polling {
    using Queue = ReaderWriterQueue<Message<N>>;

    static void *create(std::size_t count) { return new Queue(count); }
    static void destroy(void *queue) { delete static_cast<Queue *>(queue); }

    static bool push(void *queue, const unsigned char *message) {
        return static_cast<Queue *>(queue)->try_enqueue(*reinterpret_cast<const Message<N> *>(message));
    }

    static bool pop(void *queue, unsigned char *buffer) {
        return static_cast<Queue *>(queue)->try_dequeue(*reinterpret_cast<Message<N> *>(buffer));
    }

    static constexpr ThreadQueue functions = {create, destroy, push, pop};
};

template <std::size_t N> constexpr ThreadQueue Polling<N>::functions;

// Sleeps on a semaphore after it has polled for a moment; a full queue is polled.
template <std::size_t N> struct Blocking {
    using Queue = BlockingReaderWriterQueue<Message<N>>;

    static void *create(std::size_t count) { return new Queue(count); }
    static void destroy(void *queue) { delete static_cast<Queue *>(queue); }

    static bool push(void *queue, const unsigned char *message) {
        return static_cast<Queue *>(queue)->try_enqueue(*reinterpret_cast<const Message<N> *>(message));
    }

    static bool pop(void *queue, unsigned char *buffer) {
        // a second at a time, so that the caller can look whether there is anybody left
        return static_cast<Queue *>(queue)->wait_dequeue_timed(*reinterpret_cast<Message<N> *>(buffer), 1000000);
    }

    static constexpr ThreadQueue functions = {create, destroy, push, pop};
};

template <std::size_t N> constexpr ThreadQueue Blocking<N>::functions;

} // namespace

extern "C" const ThreadQueue *peers_reader_writer_queue(std::size_t size, bool blocks) {
    return blocks ? of_size<ThreadQueue, Blocking>(size) : of_size<ThreadQueue, Polling>(size);
}
