// Boost.Lockfree's spsc_queue of fixed capacity, which has no pointers in it and so may lie in shared memory.
// Messages are copied straight from and to the caller's bytes.

#include "queue.h"

#include <boost/lockfree/spsc_queue.hpp>

#include <new>

namespace {

// As many values as fit a ring of 1 MiB: a power of two, and two at least.
constexpr std::size_t count(std::size_t size) {
    std::size_t count = 2;
    while (count * 2 * size <= (std::size_t(1) << 20)) {
        count *= 2;
    }
    return count;
}

template <std::size_t N> struct Kind {
    using Queue = boost::lockfree::spsc_queue<Message<N>, boost::lockfree::capacity<count(N)>>;

    static void create(void *memory) { new (memory) Queue(); }

    static bool push(void *queue, const unsigned char *message) {
        return static_cast<Queue *>(queue)->push(*reinterpret_cast<const Message<N> *>(message));
    }

    static bool pop(void *queue, unsigned char *buffer) {
        return static_cast<Queue *>(queue)->pop(*reinterpret_cast<Message<N> *>(buffer));
    }

    static constexpr SharedQueue functions = {sizeof(Queue), create, push, pop};
};

template <std::size_t N> constexpr SharedQueue Kind<N>::functions;

} // namespace

extern "C" const SharedQueue *peers_boost_spsc_queue(std::size_t size) {
    return of_size<SharedQueue, Kind>(size);
}
