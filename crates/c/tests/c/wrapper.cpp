// The C++ wrapper: every class, ends by destructors, results instead of exceptions where the header says so.
#include "shmpipe.hpp"

#include <cstdio>
#include <cstdlib>
#include <new>
#include <type_traits>

using namespace std::chrono_literals;

#define TRUE(condition)                                                                                               \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                            \
            std::exit(1);                                                                                             \
        }                                                                                                             \
    } while (0)

template <class Call> static int thrown_by(Call call) {
    try {
        call();
    } catch (const shmpipe::error &error) {
        TRUE(std::strlen(error.what()) > 0);
        return error.code();
    }
    return SHMPIPE_OK;
}

static std::string_view bytes(const shmpipe_message &message) {
    return {static_cast<const char *>(message.data), message.length};
}

// An allocation fails while this is true.
static bool is_out_of_memory = false;

void *operator new(std::size_t size) {
    void *memory = is_out_of_memory ? nullptr : std::malloc(size);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

// What refers to a temporary object is not to be had.
template <class T, class = void> struct gives_bytes : std::false_type {};
template <class T> struct gives_bytes<T, std::void_t<decltype(std::declval<T>().bytes())>> : std::true_type {};
template <class T, class = void> struct gives_data : std::false_type {};
template <class T> struct gives_data<T, std::void_t<decltype(std::declval<T>().data())>> : std::true_type {};
template <class T, class = void> struct lends : std::false_type {};
template <class T> struct lends<T, std::void_t<decltype(std::declval<T>().borrow())>> : std::true_type {};
template <class T, class = void> struct reserves : std::false_type {};
template <class T> struct reserves<T, std::void_t<decltype(std::declval<T>().reserve(1))>> : std::true_type {};
template <class T, class = void> struct batches : std::false_type {};
template <class T> struct batches<T, std::void_t<decltype(std::declval<T>().batch())>> : std::true_type {};
static_assert(gives_bytes<shmpipe::borrowed &>() && !gives_bytes<shmpipe::borrowed>());
static_assert(gives_data<shmpipe::reservation &>() && !gives_data<shmpipe::reservation>());
static_assert(lends<shmpipe::consumer &>() && !lends<shmpipe::consumer>());
static_assert(reserves<shmpipe::producer &>() && !reserves<shmpipe::producer>());
static_assert(batches<shmpipe::producer &>() && !batches<shmpipe::producer>());

int main() {
    TRUE(shmpipe::is_compatible());
    auto pipe = shmpipe::pipe::create("memfd", shmpipe::options().capacity(4096).schema(7));
    TRUE(pipe.info().capacity == 4096 && pipe.info().schema == 7 && pipe.differences().empty());
    TRUE(pipe.address().rfind("fd:", 0) == 0);
    char buffer[2048];
    {
        auto consumer = pipe.consumer();
        {
            auto producer = pipe.producer();
            TRUE(thrown_by([&] { auto second = pipe.producer(); }) == SHMPIPE_ERR_TAKEN);
            producer.send("hello");
            TRUE(bytes(*consumer.recv(buffer, sizeof buffer)) == "hello");
            auto position = producer.send({"two ", "parts"}, 7);
            auto message = consumer.try_recv(buffer, sizeof buffer);
            TRUE(bytes(*message) == "two parts" && message->tag == 7 && message->position == position);
            // Parts without a tag, and bytes by pointer and length.
            producer.send({"two ", "parts"});
            producer.send({"five, and what follows", std::size_t{4}});
            TRUE(*consumer.recv() == "two parts" && *consumer.recv() == "five");
            TRUE(!consumer.try_recv(buffer, sizeof buffer) && !consumer.recv_for(buffer, sizeof buffer, 1ms));
            TRUE(!consumer.recv_for(buffer, sizeof buffer, 0ms));

            // A message that there is no memory for stays in the pipe.
            std::string_view sentence = "a message that is longer than a string without an allocation";
            producer.send(sentence);
            is_out_of_memory = true;
            try {
                consumer.recv();
                TRUE(!"there was memory");
            } catch (const std::bad_alloc &) {
                is_out_of_memory = false;
            }
            TRUE(*consumer.recv() == sentence);

            // A reservation and a batch that are not committed send nothing.
            { auto space = producer.reserve(8); }
            {
                auto batch = producer.batch();
                batch.push("neither");
            }
            auto space = producer.reserve(100);
            TRUE(space.data() == nullptr);
            space.write(0, "written");
            space.commit(7);
            auto batch = producer.batch();
            batch.push("one");
            batch.push("two");
            batch.commit();
            TRUE(*consumer.recv() == "written");
            {
                auto held = consumer.borrow();
                TRUE(held->copy() == "one" && held->next() && held->copy() == "two" && !held->next());
                held->requeue();
            }
            consumer.trust_peer();
            {
                auto held = consumer.borrow();
                TRUE(held->bytes() == "one");
            }
            TRUE(*consumer.recv() == "two");
            producer.flush();
            TRUE(producer.peer() == SHMPIPE_PEER_OPEN && producer.flush_for(1ms));

            std::string half(2040, 'x');
            while (producer.try_send(half)) {
            }
            TRUE(!producer.send_for(half, 1ms) && !producer.send_for(half, 0ms));
            TRUE(shmpipe::inspect(pipe.address()).forth.unread > 0);
            shmpipe::tap tap(pipe.address(), true);
            TRUE(tap.next()->length > 0 && thrown_by([&] { tap.back(); }) == SHMPIPE_ERR_STATE);
            while (tap.next()) {
            }
            auto moved = std::move(producer);
            TRUE(thrown_by([&] { producer.send("moved"); }) == SHMPIPE_ERR_ARGUMENT);
            while (consumer.try_recv(buffer, sizeof buffer)) {
            }
            moved.send("the last one");
        }
        // Closed by its destructor.
        TRUE(bytes(*consumer.recv(buffer, sizeof buffer)) == "the last one");
        TRUE(!consumer.recv(buffer, sizeof buffer) && !consumer.recv() && !consumer.borrow());
        pipe.producer().abort(42);
        try {
            consumer.recv(buffer, sizeof buffer);
            TRUE(!"an abort is thrown");
        } catch (const shmpipe::error &error) {
            TRUE(error.code() == SHMPIPE_ERR_PEER_ABORTED && error.abort_code() == 42);
        }
        auto cancel = consumer.cancel_handle();
        cancel.cancel();
        TRUE(thrown_by([&] { consumer.recv(buffer, sizeof buffer); }) == SHMPIPE_ERR_CANCELLED);
        consumer.close();
    }
    {
        auto consumer = pipe.consumer();
        auto producer = pipe.producer();
        shmpipe::set set;
        set.add(consumer, &consumer);
        TRUE(set.wait_for(1ms).empty());
        producer.send("ready");
        auto events = set.wait();
        TRUE(events.size() == 1 && events[0].user_data == &consumer && events[0].readiness == SHMPIPE_READY_MESSAGE);
        TRUE(*consumer.recv() == "ready");
        set.remove(consumer);
        TRUE(consumer.fd() >= 0);
    }
    // Options that were moved from are not the defaults.
    shmpipe::options options;
    auto moved_to = std::move(options);
    try {
        shmpipe::pipe::create("memfd", options);
        TRUE(!"the options are null");
    } catch (const std::logic_error &) {
    }
    auto duplex = shmpipe::pipe::create("memfd", shmpipe::options().duplex(true));
    auto [to_b, from_b] = duplex.duplex();
    auto [to_a, from_a] = duplex.duplex(SHMPIPE_SIDE_B);
    to_b.send("6 times 7?");
    TRUE(*from_a.recv() == "6 times 7?");
    to_a.send("42");
    TRUE(*from_b.recv() == "42");
    TRUE(thrown_by([] { shmpipe::pipe::open("posix:/shmpipe-c-none"); }) == SHMPIPE_ERR_NOT_FOUND);
    TRUE(thrown_by([] { shmpipe::unlink("posix:/shmpipe-c-none"); }) == SHMPIPE_ERR_NOT_FOUND);
    return 0;
}
