// shmpipe for C++17: handles that give themselves back, and errors that are thrown. A thin wrapper of shmpipe.h, header only.
//
// A failure is thrown as shmpipe::error, whose what() is the full sentence. What a program expects in normal operation is a result
// instead: no space or message now, a timeout, and the end of the stream in a loop over recv(). All handles can be moved and not
// copied; one that was moved from is null, and its calls throw. The rules of shmpipe.h on threads and forks apply.
#ifndef SHMPIPE_HPP
#define SHMPIPE_HPP

#include "shmpipe.h"

#include <chrono>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shmpipe {

// A failure, with its code and its sentence.
class error : public std::runtime_error {
public:
    explicit error(int code)
        : std::runtime_error(shmpipe_strerror(code)), code_(code),
          abort_code_(code == SHMPIPE_ERR_PEER_ABORTED ? shmpipe_abort_code() : 0) {}

    // One of shmpipe_code.
    int code() const noexcept { return code_; }

    // With SHMPIPE_ERR_PEER_ABORTED: the number that the other side gave.
    std::uint32_t abort_code() const noexcept { return abort_code_; }

private:
    int code_;
    std::uint32_t abort_code_;
};

namespace detail {

inline void check(int code) {
    if (code != SHMPIPE_OK) {
        throw error(code);
    }
}

// Whether the call succeeded: false if it returned `expected`. Throws every other failure.
inline bool unless(int expected, int code) {
    if (code == expected) {
        return false;
    }
    check(code);
    return true;
}

template <auto End> struct give_back {
    template <class T> void operator()(T *handle) const noexcept { static_cast<void>(End(handle)); }
};

template <class T, auto End> using handle = std::unique_ptr<T, give_back<End>>;

inline std::int64_t nanoseconds(std::chrono::nanoseconds timeout) { return timeout.count() < 0 ? 0 : timeout.count(); }

} // namespace detail

// Whether the library is the one that this program was compiled for.
inline bool is_compatible() noexcept { return shmpipe_abi_version() == SHMPIPE_ABI_VERSION; }

// Options for creating and opening a pipe: options().capacity(64 << 10).mode(0660).
class options {
public:
    options() {
        shmpipe_options *made = nullptr;
        detail::check(shmpipe_options_new(&made));
        handle_.reset(made);
    }

    options &capacity(std::uint64_t bytes) { return set(shmpipe_options_capacity(get(), bytes)); }
    options &duplex(bool duplex) { return set(shmpipe_options_duplex(get(), duplex)); }
    options &mode(std::uint32_t mode) { return set(shmpipe_options_mode(get(), mode)); }
    options &uid(std::uint32_t uid) { return set(shmpipe_options_uid(get(), uid)); }
    options &gid(std::uint32_t gid) { return set(shmpipe_options_gid(get(), gid)); }
    options &trust_uid(std::uint32_t uid) { return set(shmpipe_options_trust_uid(get(), uid)); }
    options &schema(std::uint64_t schema) { return set(shmpipe_options_schema(get(), schema)); }
    options &wake_mode(shmpipe_wake_mode mode) { return set(shmpipe_options_wake_mode(get(), mode)); }
    options &wait(shmpipe_wait wait) { return set(shmpipe_options_wait(get(), wait)); }
    options &wait_sleep(std::chrono::nanoseconds nap) {
        return set(shmpipe_options_wait_sleep(get(), static_cast<std::uint64_t>(detail::nanoseconds(nap))));
    }
    options &remove_on_close(bool remove) { return set(shmpipe_options_remove_on_close(get(), remove)); }
    options &remove_leftover(bool remove) { return set(shmpipe_options_remove_leftover(get(), remove)); }
    options &measure_latency(bool measure) { return set(shmpipe_options_measure_latency(get(), measure)); }
    options &huge_pages(bool huge) { return set(shmpipe_options_huge_pages(get(), huge)); }
    options &lock_memory(bool lock) { return set(shmpipe_options_lock_memory(get(), lock)); }
    options &prefault(bool prefault) { return set(shmpipe_options_prefault(get(), prefault)); }
    options &recreate_stale(bool recreate) { return set(shmpipe_options_recreate_stale(get(), recreate)); }
    options &allow_missing_undo(bool allow) { return set(shmpipe_options_allow_missing_undo(get(), allow)); }
    options &allow_rmid_forced(bool allow) { return set(shmpipe_options_allow_rmid_forced(get(), allow)); }

    shmpipe_options *get() const noexcept { return handle_.get(); }

private:
    options &set(int code) {
        detail::check(code);
        return *this;
    }

    detail::handle<shmpipe_options, shmpipe_options_free> handle_;
};

// Cancels blocked calls, from another thread or from a signal handler.
class cancel_handle {
public:
    explicit cancel_handle(shmpipe_cancel_handle *taken) noexcept : handle_(taken) {}

    // Async-signal-safe.
    void cancel() const noexcept { static_cast<void>(shmpipe_cancel(handle_.get())); }

private:
    detail::handle<shmpipe_cancel_handle, shmpipe_cancel_free> handle_;
};

// A message that is written in place. Without commit() nothing is sent.
class reservation {
public:
    reservation(shmpipe_producer *producer, void *space) noexcept : producer_(producer), space_(space) {}
    reservation(reservation &&other) noexcept
        : producer_(std::exchange(other.producer_, nullptr)), space_(std::exchange(other.space_, nullptr)) {}
    reservation &operator=(reservation &&) = delete;
    ~reservation() {
        if (producer_ != nullptr) {
            static_cast<void>(shmpipe_abandon(producer_));
        }
    }

    // Where to write, as long as this exists; null without producer::trust_peer().
    void *data() const & noexcept { return space_; }
    void *data() const && = delete;

    void write(std::size_t offset, std::string_view bytes) {
        detail::check(shmpipe_reserved_write(producer_, offset, bytes.data(), bytes.size()));
    }

    // Sends the first `length` bytes. Returns the position of the message.
    std::uint64_t commit(std::size_t length, std::uint32_t tag = 0) {
        std::uint64_t position = 0;
        detail::check(shmpipe_commit(producer_, length, tag, &position));
        producer_ = nullptr;
        return position;
    }

private:
    shmpipe_producer *producer_;
    void *space_;
};

// Messages that become visible together. Without commit() none is sent.
class batch {
public:
    explicit batch(shmpipe_producer *producer) noexcept : producer_(producer) {}
    batch(batch &&other) noexcept : producer_(std::exchange(other.producer_, nullptr)) {}
    batch &operator=(batch &&) = delete;
    ~batch() {
        if (producer_ != nullptr) {
            static_cast<void>(shmpipe_batch_abandon(producer_));
        }
    }

    void push(std::string_view message) {
        detail::check(shmpipe_batch_push(producer_, message.data(), message.size()));
    }

    void commit() {
        detail::check(shmpipe_batch_commit(producer_));
        producer_ = nullptr;
    }

private:
    shmpipe_producer *producer_;
};

// The sending end. Closes the pipe for this side when it goes.
class producer {
public:
    explicit producer(shmpipe_producer *taken) noexcept : handle_(taken) {}

    // Blocks while the pipe is full.
    void send(std::string_view message) { detail::check(shmpipe_send(get(), message.data(), message.size())); }

    // False if there is no space now.
    bool try_send(std::string_view message) {
        return detail::unless(SHMPIPE_ERR_FULL, shmpipe_try_send(get(), message.data(), message.size()));
    }

    // False if there was no space in time.
    bool send_for(std::string_view message, std::chrono::nanoseconds timeout) {
        std::int64_t limit = detail::nanoseconds(timeout);
        return detail::unless(limit == 0 ? SHMPIPE_ERR_FULL : SHMPIPE_ERR_TIMED_OUT,
                              shmpipe_send_timeout(get(), message.data(), message.size(), limit));
    }

    // Sends parts as one message, such as {header, body}. Returns its position.
    std::uint64_t send(std::initializer_list<std::string_view> parts, std::uint32_t tag = 0) {
        std::vector<struct iovec> joined;
        joined.reserve(parts.size());
        for (std::string_view part : parts) {
            joined.push_back({const_cast<char *>(part.data()), part.size()});
        }
        std::uint64_t position = 0;
        detail::check(shmpipe_sendv(get(), joined.data(), joined.size(), tag, SHMPIPE_FOREVER, &position));
        return position;
    }

    // Blocks while the pipe is full. The producer must outlive the result.
    reservation reserve(std::size_t length) & {
        void *space = nullptr;
        detail::check(shmpipe_reserve(get(), length, SHMPIPE_FOREVER, &space));
        return reservation(get(), space);
    }

    // The producer must outlive the result.
    shmpipe::batch batch() & {
        detail::check(shmpipe_batch_begin(get()));
        return shmpipe::batch(get());
    }

    // See shmpipe_producer_trust_peer() for the promise.
    void trust_peer() { detail::check(shmpipe_producer_trust_peer(get())); }

    // False if not everything was released in time.
    bool flush_for(std::chrono::nanoseconds timeout) {
        return detail::unless(SHMPIPE_ERR_TIMED_OUT, shmpipe_flush(get(), detail::nanoseconds(timeout)));
    }
    void flush() { detail::check(shmpipe_flush(get(), SHMPIPE_FOREVER)); }

    void wait_for_peer() { detail::check(shmpipe_producer_wait_for_peer(get(), SHMPIPE_FOREVER)); }
    void check() { detail::check(shmpipe_producer_check(get())); }

    shmpipe_peer peer() const {
        int peer = SHMPIPE_PEER_UNKNOWN;
        detail::check(shmpipe_producer_peer(get(), &peer));
        return static_cast<shmpipe_peer>(peer);
    }

    shmpipe::cancel_handle cancel_handle() const {
        shmpipe_cancel_handle *made = nullptr;
        detail::check(shmpipe_producer_cancel_handle(get(), &made));
        return shmpipe::cancel_handle(made);
    }

    // A descriptor for an event loop, after which only try_send() sends.
    int fd() {
        int fd = -1;
        detail::check(shmpipe_producer_fd(get(), &fd));
        return fd;
    }

    // As the destructor, and throws what that cannot.
    void close() { detail::check(shmpipe_producer_close(handle_.release())); }
    void abort(std::uint32_t code) { detail::check(shmpipe_producer_abort(handle_.release(), code)); }

    shmpipe_producer *get() const noexcept { return handle_.get(); }

private:
    detail::handle<shmpipe_producer, shmpipe_producer_close> handle_;
};

// Messages that are borrowed where they are, released together when this goes.
class borrowed {
public:
    borrowed(shmpipe_consumer *consumer, const shmpipe_message &first) noexcept : consumer_(consumer), last_(first) {}
    borrowed(borrowed &&other) noexcept : consumer_(std::exchange(other.consumer_, nullptr)), last_(other.last_) {}
    borrowed &operator=(borrowed &&) = delete;
    ~borrowed() {
        if (consumer_ != nullptr) {
            static_cast<void>(shmpipe_release(consumer_));
        }
    }

    // The message that was borrowed last.
    const shmpipe_message &message() const & noexcept { return last_; }
    shmpipe_message message() const && noexcept { return last_; }

    // Its bytes in the ring, as long as this exists. Throws without consumer::trust_peer(): then copy() copies them.
    std::string_view bytes() const && = delete;
    std::string_view bytes() const & {
        if (last_.data == nullptr) {
            throw std::logic_error("the bytes of a borrowed message need the promise of trust_peer(); copy() does not");
        }
        return {static_cast<const char *>(last_.data), last_.length};
    }

    std::string copy() const {
        std::string bytes(last_.length, '\0');
        detail::check(shmpipe_borrowed_copy(consumer_, bytes.data(), bytes.size()));
        return bytes;
    }

    // Borrows one more. False if there is none now.
    bool next() { return detail::unless(SHMPIPE_ERR_EMPTY, shmpipe_borrow_next(consumer_, &last_)); }

    void release() { detail::check(shmpipe_release(std::exchange(consumer_, nullptr))); }

    // Leaves all of them in the pipe.
    void requeue() { detail::check(shmpipe_requeue(std::exchange(consumer_, nullptr))); }

private:
    shmpipe_consumer *consumer_;
    shmpipe_message last_;
};

// The receiving end. Closes the pipe for this side when it goes.
class consumer {
public:
    explicit consumer(shmpipe_consumer *taken) noexcept : handle_(taken) {}

    // Receives into a buffer; blocks while the pipe is empty. Nothing at the end of the stream:
    // while (auto message = consumer.recv(buffer, sizeof buffer)) { ... }
    std::optional<shmpipe_message> recv(void *buffer, std::size_t capacity) {
        shmpipe_message message;
        int code = shmpipe_recv(get(), buffer, capacity, &message);
        return detail::unless(SHMPIPE_ERR_CLOSED, code) ? std::optional(message) : std::nullopt;
    }

    // The same into a string of the message's length.
    std::optional<std::string> recv() {
        int code = shmpipe_wait_for_message(get(), SHMPIPE_FOREVER);
        if (!detail::unless(SHMPIPE_ERR_CLOSED, code)) {
            return std::nullopt;
        }
        shmpipe_message message;
        detail::check(shmpipe_borrow(get(), SHMPIPE_FOREVER, &message));
        borrowed held(get(), message);
        std::string bytes;
        try {
            bytes = held.copy();
        } catch (...) {
            held.requeue();
            throw;
        }
        held.release();
        return bytes;
    }

    // Nothing if there is no message now. The end of the stream is thrown.
    std::optional<shmpipe_message> try_recv(void *buffer, std::size_t capacity) {
        shmpipe_message message;
        int code = shmpipe_try_recv(get(), buffer, capacity, &message);
        return detail::unless(SHMPIPE_ERR_EMPTY, code) ? std::optional(message) : std::nullopt;
    }

    // Nothing if there was no message in time. The end of the stream is thrown.
    std::optional<shmpipe_message> recv_for(void *buffer, std::size_t capacity, std::chrono::nanoseconds timeout) {
        shmpipe_message message;
        std::int64_t limit = detail::nanoseconds(timeout);
        int code = shmpipe_recv_timeout(get(), buffer, capacity, limit, &message);
        int none = limit == 0 ? SHMPIPE_ERR_EMPTY : SHMPIPE_ERR_TIMED_OUT;
        return detail::unless(none, code) ? std::optional(message) : std::nullopt;
    }

    // Borrows the next message where it is; blocks while the pipe is empty. Nothing at the end of the stream. The consumer must outlive
    // the result.
    std::optional<borrowed> borrow() & {
        shmpipe_message message;
        if (!detail::unless(SHMPIPE_ERR_CLOSED, shmpipe_borrow(get(), SHMPIPE_FOREVER, &message))) {
            return std::nullopt;
        }
        return std::optional<borrowed>(std::in_place, get(), message);
    }

    // See shmpipe_consumer_trust_peer() for the promise.
    void trust_peer() { detail::check(shmpipe_consumer_trust_peer(get())); }

    void wait_for_peer() { detail::check(shmpipe_consumer_wait_for_peer(get(), SHMPIPE_FOREVER)); }
    void check() { detail::check(shmpipe_consumer_check(get())); }

    shmpipe_peer peer() const {
        int peer = SHMPIPE_PEER_UNKNOWN;
        detail::check(shmpipe_consumer_peer(get(), &peer));
        return static_cast<shmpipe_peer>(peer);
    }

    shmpipe::cancel_handle cancel_handle() const {
        shmpipe_cancel_handle *made = nullptr;
        detail::check(shmpipe_consumer_cancel_handle(get(), &made));
        return shmpipe::cancel_handle(made);
    }

    // A descriptor for an event loop, after which only try_recv() receives.
    int fd() {
        int fd = -1;
        detail::check(shmpipe_consumer_fd(get(), &fd));
        return fd;
    }

    // As the destructor, and throws what that cannot.
    void close() { detail::check(shmpipe_consumer_close(handle_.release())); }
    void abort(std::uint32_t code) { detail::check(shmpipe_consumer_abort(handle_.release(), code)); }

    shmpipe_consumer *get() const noexcept { return handle_.get(); }

private:
    detail::handle<shmpipe_consumer, shmpipe_consumer_close> handle_;
};

// An open pipe, without a role yet.
class pipe {
public:
    static pipe create(const std::string &address) { return attach(shmpipe_create, address, nullptr); }
    static pipe create(const std::string &address, const options &options) {
        return attach(shmpipe_create, address, given(options));
    }
    static pipe open(const std::string &address) { return attach(shmpipe_open, address, nullptr); }
    static pipe open(const std::string &address, const options &options) {
        return attach(shmpipe_open, address, given(options));
    }
    static pipe open_or_create(const std::string &address) { return attach(shmpipe_open_or_create, address, nullptr); }
    static pipe open_or_create(const std::string &address, const options &options) {
        return attach(shmpipe_open_or_create, address, given(options));
    }

    // For a forked child.
    pipe reopen() const {
        shmpipe_pipe *made = nullptr;
        detail::check(shmpipe_reopen(get(), &made));
        return pipe(made);
    }

    shmpipe::producer producer() const {
        shmpipe_producer *made = nullptr;
        detail::check(shmpipe_pipe_producer(get(), &made));
        return shmpipe::producer(made);
    }

    shmpipe::consumer consumer() const {
        shmpipe_consumer *made = nullptr;
        detail::check(shmpipe_pipe_consumer(get(), &made));
        return shmpipe::consumer(made);
    }

    // Claims a side of a pipe with two directions.
    std::pair<shmpipe::producer, shmpipe::consumer> duplex(shmpipe_side side = SHMPIPE_SIDE_ANY) const {
        shmpipe_producer *out = nullptr;
        shmpipe_consumer *in = nullptr;
        detail::check(shmpipe_pipe_duplex(get(), side, &out, &in, nullptr));
        return {shmpipe::producer(out), shmpipe::consumer(in)};
    }

    shmpipe_pipe_info info() const {
        shmpipe_pipe_info info;
        detail::check(shmpipe_pipe_get_info(get(), &info, sizeof info));
        return info;
    }

    std::string address() const { return text(shmpipe_pipe_address(get())); }
    std::string differences() const { return text(shmpipe_pipe_differences(get())); }

    shmpipe_pipe *get() const noexcept { return handle_.get(); }

private:
    explicit pipe(shmpipe_pipe *taken) noexcept : handle_(taken) {}

    static const shmpipe_options *given(const options &options) {
        if (options.get() == nullptr) {
            // It would stand for the defaults.
            throw std::logic_error("the options were moved from");
        }
        return options.get();
    }

    template <class Call> static pipe attach(Call call, const std::string &address, const shmpipe_options *options) {
        shmpipe_pipe *made = nullptr;
        detail::check(call(address.c_str(), options, &made));
        return pipe(made);
    }

    static std::string text(const char *found) { return found == nullptr ? std::string() : std::string(found); }

    detail::handle<shmpipe_pipe, shmpipe_pipe_free> handle_;
};

inline void unlink(const std::string &address) { detail::check(shmpipe_unlink(address.c_str())); }
inline void unlink_force(const std::string &address) { detail::check(shmpipe_unlink_force(address.c_str())); }

inline shmpipe_stats inspect(const std::string &address) {
    shmpipe_stats stats;
    detail::check(shmpipe_inspect(address.c_str(), &stats, sizeof stats));
    return stats;
}

// Looks at the messages that pass, without taking part.
class tap {
public:
    // The messages sent from now on, or first those that were not released yet.
    explicit tap(const std::string &address, bool unread = false) {
        shmpipe_tap *opened = nullptr;
        detail::check(shmpipe_tap_open(address.c_str(), unread, &opened));
        handle_.reset(opened);
    }

    // The other direction of a duplex pipe.
    tap back(bool unread = false) const {
        shmpipe_tap *opened = nullptr;
        detail::check(shmpipe_tap_back(get(), unread, &opened));
        return tap(opened);
    }

    // The next message, whose bytes stay until the next call, or what was missed before it; nothing if no other was sent yet.
    std::optional<shmpipe_passed> next() {
        shmpipe_passed passed;
        const int code = shmpipe_tap_next(get(), &passed);
        if (code == SHMPIPE_ERR_EMPTY) {
            return std::nullopt;
        }
        detail::check(code);
        return passed;
    }

    shmpipe_tap *get() const noexcept { return handle_.get(); }

private:
    explicit tap(shmpipe_tap *taken) noexcept : handle_(taken) {}

    detail::handle<shmpipe_tap, shmpipe_tap_free> handle_;
};

// Waits for many pipes in one thread. Members stay the caller's; one that is closed leaves.
class set {
public:
    set() {
        shmpipe_set *made = nullptr;
        detail::check(shmpipe_set_new(&made));
        handle_.reset(made);
    }

    void add(const consumer &member, void *user_data, shmpipe_interest interest = SHMPIPE_INTEREST_MESSAGE) {
        detail::check(shmpipe_set_add_consumer(get(), member.get(), interest, user_data));
    }
    void add(const producer &member, void *user_data, std::size_t length) {
        detail::check(shmpipe_set_add_producer(get(), member.get(), SHMPIPE_INTEREST_SPACE, length, user_data));
    }
    void remove(const consumer &member) { detail::check(shmpipe_set_remove_consumer(get(), member.get())); }
    void remove(const producer &member) { detail::check(shmpipe_set_remove_producer(get(), member.get())); }

    // Blocks until a member is ready.
    std::vector<shmpipe_event> wait(std::size_t most = 64) { return wait(most, SHMPIPE_FOREVER); }

    // No event if none was ready in time.
    std::vector<shmpipe_event> wait_for(std::chrono::nanoseconds timeout, std::size_t most = 64) {
        return wait(most, detail::nanoseconds(timeout));
    }

    shmpipe::cancel_handle cancel_handle() const {
        shmpipe_cancel_handle *made = nullptr;
        detail::check(shmpipe_set_cancel_handle(get(), &made));
        return shmpipe::cancel_handle(made);
    }

    shmpipe_set *get() const noexcept { return handle_.get(); }

private:
    std::vector<shmpipe_event> wait(std::size_t most, std::int64_t timeout) {
        std::vector<shmpipe_event> events(most);
        std::size_t count = 0;
        int code = shmpipe_set_wait(get(), events.data(), most, timeout, &count);
        detail::unless(SHMPIPE_ERR_TIMED_OUT, code);
        events.resize(count);
        return events;
    }

    detail::handle<shmpipe_set, shmpipe_set_free> handle_;
};

} // namespace shmpipe

#endif
