// shmpipe: a pipe between two unrelated processes at the speed of shared memory.
//
// Generated from the crate shmpipe-c: see cbindgen.toml. The manual is docs/c.md, the C++ wrapper shmpipe.hpp.
//
// RESULTS     Functions that can fail return 0 or a negative shmpipe_code, and shmpipe_strerror() has the sentence of the failure. An
//             out parameter is written on success only, unless its function says otherwise.
// OWNERSHIP   A function that makes a handle writes it to its last pointer; one function gives it back: *_free, or *_close and
//             *_abort for a producer and a consumer, whatever that returns. Handles do not depend on one another: a pipe's handle may
//             be given back before its producer, a set before its members, a cancel handle before or after anything. Memory that is
//             passed in stays the caller's, and is not used after the call. Strings that are returned stay the library's.
// THREADS     A handle may move between threads; one thread at a time uses it. Several may use a pipe's handle, and any thread, or a
//             signal handler, may call shmpipe_cancel() at any time. A set and its members count as one handle. A failure's sentence
//             belongs to the thread. There is no other state outside the handles.
// MISUSE      NULL, an impossible argument, or a call that does not fit what is open in the handle is an error and changes nothing.
//             A handle that was given back, one that two threads use at the same time, and memory shorter than its length cannot be
//             told from right use: the behaviour is undefined.
// FORK        A forked child does not inherit the memory. There every handle of the parent refuses its calls with
//             SHMPIPE_ERR_FORKED; only shmpipe_reopen() opens the pipe again. Giving a handle back frees its memory, and does
//             nothing to the parent's pipe.
// TIMEOUTS    Nanoseconds. 0 does not wait, a negative number (SHMPIPE_FOREVER) waits as long as it takes.
// CANCEL      A blocked call does not end by a signal: see shmpipe_cancel(). pthread_cancel() of a thread in a blocked call aborts the
//             process.

#ifndef SHMPIPE_H
#define SHMPIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

// A version of this interface: that of the header that a program was compiled with, to compare with shmpipe_abi_version().
#define SHMPIPE_ABI_VERSION 1

// A timeout that never passes.
#define SHMPIPE_FOREVER -1

// What a function returns: 0, or one of these. The numbers are stable.
typedef enum shmpipe_code {
  // Success.
  SHMPIPE_OK = 0,
  // There is no space now: the consumer has to release messages first.
  SHMPIPE_ERR_FULL = -1,
  // There is no message now.
  SHMPIPE_ERR_EMPTY = -2,
  // The timeout passed.
  SHMPIPE_ERR_TIMED_OUT = -3,
  // shmpipe_cancel() ended the wait. Every call that has to wait returns it from then on.
  SHMPIPE_ERR_CANCELLED = -4,
  // The other side closed; for a consumer, after every message was received. Returned until a successor attaches.
  SHMPIPE_ERR_CLOSED = -5,
  // The other side ended with an error, whose number shmpipe_abort_code() returns. Returned once.
  SHMPIPE_ERR_PEER_ABORTED = -6,
  // The other side died. Returned once; the next call waits for its successor.
  SHMPIPE_ERR_PEER_DIED = -7,
  // The pipe was removed, or the role taken by force. Close the handle and reopen the pipe.
  SHMPIPE_ERR_LOST = -8,
  // The segment holds a value that no correct peer writes. Every later call returns the same.
  SHMPIPE_ERR_CORRUPT = -9,
  // The message, or the batch, is longer than this pipe can ever take.
  SHMPIPE_ERR_TOO_LARGE = -10,
  // The buffer is shorter than the message, which stays in the pipe.
  SHMPIPE_ERR_TOO_SMALL = -11,
  // An argument is NULL or impossible.
  SHMPIPE_ERR_ARGUMENT = -20,
  // The handle cannot do this now: something is open in it, or nothing is.
  SHMPIPE_ERR_STATE = -21,
  // The handle belongs to the parent of this forked process. Use shmpipe_reopen().
  SHMPIPE_ERR_FORKED = -22,
  // The library has a bug, and panicked. The handle can only be closed.
  SHMPIPE_ERR_PANICKED = -23,
  // The address does not parse.
  SHMPIPE_ERR_ADDRESS = -40,
  // There is no pipe at this address.
  SHMPIPE_ERR_NOT_FOUND = -41,
  // There is a pipe at this address already.
  SHMPIPE_ERR_EXISTS = -42,
  // This kind of pipe cannot do what the call asks for.
  SHMPIPE_ERR_UNSUPPORTED = -43,
  // The system denies access.
  SHMPIPE_ERR_PERMISSION = -44,
  // A user who is not trusted could change the pipe.
  SHMPIPE_ERR_UNTRUSTED = -45,
  // The file, or its file system, cannot hold a pipe.
  SHMPIPE_ERR_FILE = -46,
  // What is at this address is no pipe.
  SHMPIPE_ERR_FOREIGN = -47,
  // The pipe is another one than expected: its version, schema, name or number of directions.
  SHMPIPE_ERR_INCOMPATIBLE = -48,
  // The pipe's contents cannot be used.
  SHMPIPE_ERR_DAMAGED = -49,
  // Something is not available in the amount requested.
  SHMPIPE_ERR_LIMIT = -50,
  // The role, or the side of a duplex pipe, has a holder.
  SHMPIPE_ERR_TAKEN = -51,
  // Another process has been creating or removing this pipe for longer than that should take.
  SHMPIPE_ERR_BUSY = -52,
  // The kernel lacks something that pipes depend on.
  SHMPIPE_ERR_KERNEL = -53,
  // A system call failed for another reason.
  SHMPIPE_ERR_OS = -54,
  // An error that this version of the C interface does not know.
  SHMPIPE_ERR_OTHER = -99,
} shmpipe_code;

// How a call waits.
typedef enum shmpipe_wait {
  // Polls for a moment, then sleeps until the other side wakes this one. The default.
  SHMPIPE_WAIT_BLOCK = 0,
  // Polls without pause: the lowest latency, at the cost of a whole core.
  SHMPIPE_WAIT_SPIN = 1,
  // Polls for 20 microseconds, then yields the core between polls.
  SHMPIPE_WAIT_YIELD = 2,
} shmpipe_wait;

// How sleepers are woken.
typedef enum shmpipe_wake_mode {
  // By a barrier that the side that goes to sleep runs in the other one: a message costs no fence.
  SHMPIPE_WAKE_MEMBARRIER = 1,
  // By a fence for each message.
  SHMPIPE_WAKE_FENCE = 2,
  // Never: both sides poll.
  SHMPIPE_WAKE_NEVER = 3,
} shmpipe_wake_mode;

// A side of a pipe with two directions.
typedef enum shmpipe_side {
  // The first that is free. Not for a process that may be restarted.
  SHMPIPE_SIDE_ANY = 0,
  // Side A.
  SHMPIPE_SIDE_A = 1,
  // Side B.
  SHMPIPE_SIDE_B = 2,
} shmpipe_side;

// What a side knows about the other one.
typedef enum shmpipe_peer {
  // Unknown, because the pipe was removed.
  SHMPIPE_PEER_UNKNOWN = 0,
  // No process has claimed this role since the pipe was created.
  SHMPIPE_PEER_NEVER_CAME = 1,
  // It is attached, or was a moment ago.
  SHMPIPE_PEER_OPEN = 2,
  // It closed.
  SHMPIPE_PEER_CLOSED = 3,
  // It aborted, and no successor has attached.
  SHMPIPE_PEER_ABORTED = 4,
  // It died without closing, and no successor has attached.
  SHMPIPE_PEER_DIED = 5,
} shmpipe_peer;

// What a set waits for at a member. Each also waits for the other side's end.
typedef enum shmpipe_interest {
  // The end of the other side only.
  SHMPIPE_INTEREST_END = 0,
  // A consumer: a message.
  SHMPIPE_INTEREST_MESSAGE = 1,
  // A producer: space for a message.
  SHMPIPE_INTEREST_SPACE = 2,
} shmpipe_interest;

// What a member is ready for.
typedef enum shmpipe_readiness {
  // The other side has ended, or the pipe is lost. Reported once.
  SHMPIPE_READY_ENDED = 0,
  // There is a message.
  SHMPIPE_READY_MESSAGE = 1,
  // There is the space that was asked for.
  SHMPIPE_READY_SPACE = 2,
} shmpipe_readiness;

// Cancels blocked calls, from another thread or from a signal handler. It outlives what it was made for.
typedef struct shmpipe_cancel_handle shmpipe_cancel_handle;

// The receiving end of a pipe. Closing it ends the stream for the producer.
typedef struct shmpipe_consumer shmpipe_consumer;

// Options for creating and opening a pipe. NULL in their place means the defaults.
typedef struct shmpipe_options shmpipe_options;

// An open pipe, without a role yet. Several threads may use it at the same time.
typedef struct shmpipe_pipe shmpipe_pipe;

// The sending end of a pipe. Closing it ends the stream for the consumer.
typedef struct shmpipe_producer shmpipe_producer;

// Waits for many pipes in one thread. Its members stay the caller's; one thread at a time uses the set and its members.
typedef struct shmpipe_set shmpipe_set;

// A tap on a direction of a pipe.
typedef struct shmpipe_tap shmpipe_tap;

// The properties of a pipe. Later versions may have more members, at the end.
typedef struct shmpipe_pipe_info {
  // The random number that distinguishes this segment from every other.
  uint64_t id;
  // Bytes of ring data, in each direction.
  uint64_t capacity;
  // Bytes of the longest message.
  uint64_t max_len;
  // The number that the creator set.
  uint64_t schema;
  // Permission bits.
  uint32_t mode;
  // One of shmpipe_wake_mode.
  int wake_mode;
  // A descriptor of the pipe's file, which stays the library's; -1 for a System V segment.
  int fd;
  // Whether this handle created the pipe.
  bool created;
  // Whether the pipe has two directions.
  bool duplex;
} shmpipe_pipe_info;

// A message received.
typedef struct shmpipe_message {
  // Where its bytes are: in the caller's buffer, or in the ring. NULL for a borrowed message without the promise.
  const void *data;
  // Bytes of the message.
  size_t length;
  // Its position in the stream. With the id of the pipe it identifies the message for ever, also if it is received twice.
  uint64_t position;
  // The tag that the producer set; 0 without one.
  uint32_t tag;
} shmpipe_message;

// A member that is ready.
typedef struct shmpipe_event {
  // What was given when the member was added.
  void *user_data;
  // One of shmpipe_readiness.
  int readiness;
  // After an end: the code that a call of the member would return, such as SHMPIPE_ERR_CLOSED.
  int end;
  // With SHMPIPE_ERR_PEER_ABORTED: the number that the other side gave.
  uint32_t abort_code;
} shmpipe_event;

// A side of a pipe at one moment. This struct does not grow.
typedef struct shmpipe_side_stats {
  // One of shmpipe_peer.
  int peer;
  // A hint at the process; 0 if it is not visible from here.
  uint32_t pid;
  // How often the role was claimed.
  uint64_t epoch;
  // The write position, or the read position.
  uint64_t position;
  // Messages sent, or released.
  uint64_t messages;
  // Payload bytes of those.
  uint64_t bytes;
  // Calls that had to wait, for space or for data.
  uint64_t waits;
  // Wake-ups of the other side.
  uint64_t wakeups;
} shmpipe_side_stats;

// A direction of a pipe at one moment. This struct does not grow.
typedef struct shmpipe_direction_stats {
  // Bytes of its ring between the read and the write position.
  uint64_t used;
  // Messages sent and not yet released.
  uint64_t unread;
  // Messages that producers counted as dropped.
  uint64_t dropped;
  // The side that sends.
  struct shmpipe_side_stats producer;
  // The side that receives.
  struct shmpipe_side_stats consumer;
} shmpipe_direction_stats;

// How long sampled messages were under way since the pipe was created, from the commit to the receipt, in nanoseconds. A percentile is at
// most an eighth above the true one. All 0 without samples, or if the pipe does not measure it. This struct does not grow.
typedef struct shmpipe_latency {
  // Messages sampled.
  uint64_t samples;
  // What half of them did not exceed.
  uint64_t p50;
  // What 90 % of them did not exceed.
  uint64_t p90;
  // What 99 % of them did not exceed.
  uint64_t p99;
  // What 99.9 % of them did not exceed.
  uint64_t p999;
  // What 99.99 % of them did not exceed.
  uint64_t p9999;
  // The longest.
  uint64_t max;
} shmpipe_latency;

// The state of a pipe at one moment. The two sides run meanwhile, so the numbers need not agree to the byte.
// Later versions may have more members, at the end.
typedef struct shmpipe_stats {
  // The random number of the segment.
  uint64_t id;
  // Bytes of ring data, in each direction.
  uint64_t capacity;
  // Bytes of the segment.
  uint64_t size;
  // The number that the creator set.
  uint64_t schema;
  // Bytes of the longest message.
  uint64_t max_len;
  // The direction; in a pipe with two, from side A to side B.
  struct shmpipe_direction_stats forth;
  // The direction from side B to side A; all 0 if there is none.
  struct shmpipe_direction_stats back;
  // Owner.
  uint32_t uid;
  // The owner's group.
  uint32_t gid;
  // Permission bits.
  uint32_t mode;
  // One of shmpipe_wake_mode.
  int wake_mode;
  // Whether the pipe has two directions.
  bool duplex;
  // Whether any process has it open.
  bool open;
  // Whether it is from before the last boot.
  bool stale;
  // Whether it is removed once both sides have closed.
  bool remove_on_close;
  // Whether the next process that looks for it removes it once it is left over.
  bool remove_leftover;
  // Whether it measures latency.
  bool measure_latency;
  // The latency of the direction; in a pipe with two, from side A to side B.
  struct shmpipe_latency forth_latency;
  // The latency of the direction from side B to side A.
  struct shmpipe_latency back_latency;
} shmpipe_stats;

// A message that passed, or messages that the tap has missed. This struct does not grow.
typedef struct shmpipe_passed {
  // Its bytes, until the next call with the tap; NULL if messages were missed.
  const void *data;
  // Their number.
  size_t length;
  // Its position.
  uint64_t position;
  // Its tag.
  uint32_t tag;
  // Bytes of the stream that the producer overwrote before the tap had copied them; 0 for a message.
  uint64_t missed;
} shmpipe_passed;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the version of this interface that the library has.
//
// A program that may run with another library than it was compiled with compares it with SHMPIPE_ABI_VERSION first.
uint32_t shmpipe_abi_version(void);

// Returns the version of the segment's layout, which both ends must have in common.
uint32_t shmpipe_layout_version(void);

// Returns the version of the library, such as "0.1.0".
const char *shmpipe_version(void);

// Returns the sentence for a code: what was found, what was expected, and what to do about it.
//
// If this thread's latest failure had that code, it is the sentence of that failure, with details such as numbers or the process that
// holds a role. The string is valid until the next failure in this thread. Never NULL.
const char *shmpipe_strerror(int code);

// Returns the number with which the other side aborted, of the latest SHMPIPE_ERR_PEER_ABORTED in this thread.
//
// UINT32_MAX if the other side is a Rust program that panicked; 0 if there was none.
uint32_t shmpipe_abort_code(void);

// Makes options with the defaults: 1 MiB, mode 0600, schema 0, waits that sleep, a segment that stays when both sides have closed.
int shmpipe_options_new(struct shmpipe_options **options);

// Gives options back. NULL does nothing.
void shmpipe_options_free(struct shmpipe_options *options);

// Sets the bytes of ring data, rounded up to a power of two and to at least 4096. The longest message has half of that, less 8.
int shmpipe_options_capacity(struct shmpipe_options *options,
                             uint64_t bytes);

// Sets whether the pipe has two directions.
int shmpipe_options_duplex(struct shmpipe_options *options, bool duplex);

// Sets the permission bits of a new pipe, as for chmod().
int shmpipe_options_mode(struct shmpipe_options *options, uint32_t mode);

// Sets the user who owns a new pipe. Needs privilege.
int shmpipe_options_uid(struct shmpipe_options *options, uint32_t uid);

// Sets the group that owns a new pipe.
int shmpipe_options_gid(struct shmpipe_options *options, uint32_t gid);

// Also accepts pipes that this user created or owns. Can be called for several users.
int shmpipe_options_trust_uid(struct shmpipe_options *options, uint32_t uid);

// Sets a number that both ends must agree on, such as the version of the messages. 0 is the default.
int shmpipe_options_schema(struct shmpipe_options *options, uint64_t schema);

// Sets how sleepers of a new pipe are woken: one of shmpipe_wake_mode.
int shmpipe_options_wake_mode(struct shmpipe_options *options, int mode);

// Sets how this side waits: one of shmpipe_wait.
int shmpipe_options_wait(struct shmpipe_options *options, int wait);

// Sets that this side sleeps for that long between two polls, so that the other side never has to wake it.
int shmpipe_options_wait_sleep(struct shmpipe_options *options, uint64_t nanoseconds);

// Sets whether a new pipe is removed when both sides have closed.
int shmpipe_options_remove_on_close(struct shmpipe_options *options, bool remove);

// Sets whether the next process that looks for a new pipe removes it once it is left over: used, empty, open in no process.
int shmpipe_options_remove_leftover(struct shmpipe_options *options,
                                    bool remove);

// Sets whether a new pipe measures how long some messages are under way: see shmpipe_latency.
int shmpipe_options_measure_latency(struct shmpipe_options *options, bool measure);

// Sets whether a new pipe lies in huge pages.
int shmpipe_options_huge_pages(struct shmpipe_options *options, bool huge);

// Sets whether the pipe's memory is locked, so that it is never swapped out.
int shmpipe_options_lock_memory(struct shmpipe_options *options, bool lock);

// Sets whether every page is faulted in when the pipe is created or opened.
int shmpipe_options_prefault(struct shmpipe_options *options, bool prefault);

// Recreates a pipe whose file dates from before the last boot, instead of failing. Messages in it are lost.
int shmpipe_options_recreate_stale(struct shmpipe_options *options, bool recreate);

// Accepts a kernel that does not undo what a killed process held, as gVisor's, for System V pipes.
int shmpipe_options_allow_missing_undo(struct shmpipe_options *options, bool allow);

// Accepts a kernel that removes a System V pipe with the last process that has it open (kernel.shm_rmid_forced).
int shmpipe_options_allow_rmid_forced(struct shmpipe_options *options, bool allow);

// Creates a pipe. Fails with SHMPIPE_ERR_EXISTS if there is one.
//
// `address` is a name such as "ticks", or "sysv:0x4d2", "posix:/ticks", "file:PATH", "memfd" and so on: see the manual.
int shmpipe_create(const char *address, const struct shmpipe_options *options, struct shmpipe_pipe **pipe);

// Opens a pipe. Fails with SHMPIPE_ERR_NOT_FOUND if there is none.
int shmpipe_open(const char *address, const struct shmpipe_options *options, struct shmpipe_pipe **pipe);

// Opens a pipe, or creates it if there is none. It does not matter which side starts first.
int shmpipe_open_or_create(const char *address, const struct shmpipe_options *options, struct shmpipe_pipe **pipe);

// Opens the same pipe once more, as a forked child must.
//
// `pipe` is a handle from before the fork, which stays the caller's.
int shmpipe_reopen(const struct shmpipe_pipe *pipe, struct shmpipe_pipe **reopened);

// Gives a handle back. NULL does nothing. Roles that were claimed through it stay, and the pipe does too.
void shmpipe_pipe_free(struct shmpipe_pipe *pipe);

// Removes a pipe that has neither a producer nor a consumer. Fails with SHMPIPE_ERR_TAKEN if it has.
int shmpipe_unlink(const char *address);

// Removes a pipe also while it is in use: both sides then fail with SHMPIPE_ERR_LOST.
int shmpipe_unlink_force(const char *address);

// Returns an address by which another process can open the pipe. Valid as long as the handle; NULL for NULL.
const char *shmpipe_pipe_address(const struct shmpipe_pipe *pipe);

// Returns how the options differ from the pipe that was opened, as a text; an empty one if they do not. Valid as long as the
// handle; NULL for NULL.
const char *shmpipe_pipe_differences(const struct shmpipe_pipe *pipe);

// Reports the properties of a pipe. `size` is sizeof *info.
int shmpipe_pipe_get_info(const struct shmpipe_pipe *pipe, struct shmpipe_pipe_info *info, size_t size);

// Claims the producer role and continues where the last producer stopped.
//
// Fails with SHMPIPE_ERR_TAKEN while there is a producer. The pipe's handle can be given back then.
int shmpipe_pipe_producer(const struct shmpipe_pipe *pipe, struct shmpipe_producer **producer);

// Claims the consumer role and continues where the last consumer stopped: what it did not release is received again.
//
// Fails with SHMPIPE_ERR_TAKEN while there is a consumer. The pipe's handle can be given back then.
int shmpipe_pipe_consumer(const struct shmpipe_pipe *pipe, struct shmpipe_consumer **consumer);

// Claims a side of a pipe with two directions: a producer to the other side, and a consumer of what that sends.
//
// `side` is one of shmpipe_side. `taken`, unless it is NULL, gets the side that was claimed. Two threads may use the two handles at
// the same time. The side is free when both are closed.
int shmpipe_pipe_duplex(const struct shmpipe_pipe *pipe,
                        int side,
                        struct shmpipe_producer **producer,
                        struct shmpipe_consumer **consumer,
                        int *taken);

// Sends a message; blocks while the pipe is full.
//
// Copies the bytes. `data` may be NULL if `length` is 0. Makes a system call only to wake a sleeping consumer,
// or to sleep.
int shmpipe_send(struct shmpipe_producer *producer, const void *data, size_t length);

// Sends a message if there is space now; otherwise SHMPIPE_ERR_FULL.
//
// Does not notice that the consumer died, nor that the pipe was removed: shmpipe_producer_check() does.
int shmpipe_try_send(struct shmpipe_producer *producer, const void *data, size_t length);

// Sends a message; blocks for `timeout` nanoseconds at most while the pipe is full.
//
// 0 does not wait, as shmpipe_try_send(). A negative timeout, SHMPIPE_FOREVER, never passes.
int shmpipe_send_timeout(struct shmpipe_producer *producer, const void *data, size_t length, int64_t timeout);

// Sends parts as one message, with a tag; blocks for `timeout` nanoseconds at most.
//
// The tag is a number that the application defines; without one it is 0. `position`, unless it is NULL, gets the position of the
// message, which the consumer gets too.
int shmpipe_sendv(struct shmpipe_producer *producer,
                  const struct iovec *parts,
                  size_t count,
                  uint32_t tag,
                  int64_t timeout,
                  uint64_t *position);

// Reserves space for a message of up to `length` bytes, to write it in place; blocks for `timeout` nanoseconds at most.
//
// Nothing is sent before shmpipe_commit(). Until then no other call of the handle sends. `space`, unless it is NULL, gets the
// address to write to; NULL without the promise of shmpipe_producer_trust_peer(): then shmpipe_reserved_write() writes.
int shmpipe_reserve(struct shmpipe_producer *producer,
                    size_t length,
                    int64_t timeout,
                    void **space);

// Copies bytes into the reservation at `offset`.
int shmpipe_reserved_write(struct shmpipe_producer *producer, size_t offset, const void *data, size_t length);

// Sends the first `length` bytes of the reservation as the message, and ends it. Never blocks.
//
// `position`, unless it is NULL, gets the position of the message.
int shmpipe_commit(struct shmpipe_producer *producer, size_t length, uint32_t tag, uint64_t *position);

// Ends the reservation without a message.
int shmpipe_abandon(struct shmpipe_producer *producer);

// Begins a batch: messages that become visible all at once.
int shmpipe_batch_begin(struct shmpipe_producer *producer);

// Adds a message to the batch; blocks while the pipe is full.
//
// A failure leaves the batch as it was.
int shmpipe_batch_push(struct shmpipe_producer *producer, const void *data, size_t length);

// Adds parts as one message to the batch, with a tag; blocks for `timeout` nanoseconds at most.
int shmpipe_batch_pushv(struct shmpipe_producer *producer,
                        const struct iovec *parts,
                        size_t count,
                        uint32_t tag,
                        int64_t timeout,
                        uint64_t *position);

// Sends all messages of the batch at once, and ends it. Never blocks.
int shmpipe_batch_commit(struct shmpipe_producer *producer);

// Ends the batch without a message.
int shmpipe_batch_abandon(struct shmpipe_producer *producer);

// Promises that the consumer obeys the protocol, for the right to write messages in place.
//
// The promise: every process that has the pipe open for writing keeps to the layout and the protocol. A consumer that breaks them
// can then make this program behave in any way.
int shmpipe_producer_trust_peer(struct shmpipe_producer *producer);

// Blocks until the consumer has released everything that was sent, for `timeout` nanoseconds at most.
int shmpipe_flush(struct shmpipe_producer *producer, int64_t timeout);

// Reports the bytes of the ring that records can take now. A message takes 8 bytes and its length rounded up to 8.
int shmpipe_free_space(struct shmpipe_producer *producer, uint64_t *bytes);

// Counts messages that this producer has not sent and will not send, for those who watch the pipe.
int shmpipe_count_dropped(struct shmpipe_producer *producer, uint64_t messages);

// Reports the position of the next message, if it fits before the end of the ring.
int shmpipe_producer_position(const struct shmpipe_producer *producer, uint64_t *position);

// Reports what this side knows about the consumer: one of shmpipe_peer. At most one system call.
int shmpipe_producer_peer(const struct shmpipe_producer *producer, int *peer);

// Blocks until a consumer attaches, for `timeout` nanoseconds at most.
int shmpipe_producer_wait_for_peer(struct shmpipe_producer *producer, int64_t timeout);

// Checks that this side still has the pipe and its role, and that the consumer has not ended. Never blocks; two to four system
// calls.
//
// For a program that only uses calls that do not wait: those ask the kernel nothing. Call it now and then.
int shmpipe_producer_check(struct shmpipe_producer *producer);

// Makes a handle that cancels blocked calls of this producer.
int shmpipe_producer_cancel_handle(const struct shmpipe_producer *producer, struct shmpipe_cancel_handle **cancel);

// Gives this producer a descriptor for epoll() and the like, and reports it.
//
// It is readable when there may be space again. From then on only calls with a timeout of 0 send; one that returns
// SHMPIPE_ERR_FULL makes the descriptor unreadable until there is space, or the consumer ends. The descriptor stays the library's:
// do not read or close it. If this fails, the handle is as before.
int shmpipe_producer_fd(struct shmpipe_producer *producer,
                        int *fd);

// Closes the pipe for this side and gives the handle back, whatever this returns.
//
// The consumer receives the rest, then SHMPIPE_ERR_CLOSED. What is open in the handle is abandoned.
int shmpipe_producer_close(struct shmpipe_producer *producer);

// Ends this side with an error, and gives the handle back, whatever this returns: what it sent is not all that it had to send.
//
// The consumer receives the rest, then SHMPIPE_ERR_PEER_ABORTED with `code`, whose meaning the application defines.
int shmpipe_producer_abort(struct shmpipe_producer *producer,
                           uint32_t code);

// Receives the next message into a buffer; blocks while the pipe is empty.
//
// `message`, unless it is NULL, gets its length, tag and position. If the buffer is too small, SHMPIPE_ERR_TOO_SMALL: the message
// stays in the pipe, and `message` says how long it is. Makes a system call only to wake a sleeping
// producer, or to sleep.
int shmpipe_recv(struct shmpipe_consumer *consumer,
                 void *buffer,
                 size_t capacity,
                 struct shmpipe_message *message);

// Receives the next message into a buffer if there is one now; otherwise SHMPIPE_ERR_EMPTY.
//
// Does not notice that the producer died, nor that the pipe was removed: shmpipe_consumer_check() does.
int shmpipe_try_recv(struct shmpipe_consumer *consumer, void *buffer, size_t capacity, struct shmpipe_message *message);

// Receives the next message into a buffer; blocks for `timeout` nanoseconds at most while the pipe is empty.
//
// 0 does not wait, as shmpipe_try_recv(). A negative timeout, SHMPIPE_FOREVER, never passes.
int shmpipe_recv_timeout(struct shmpipe_consumer *consumer,
                         void *buffer,
                         size_t capacity,
                         int64_t timeout,
                         struct shmpipe_message *message);

// Receives up to `most` messages into one buffer, and releases them together.
//
// Blocks for `timeout` nanoseconds at most for the first, and takes what has arrived by then and fits. Each message begins at a
// multiple of 8 bytes from the start of the buffer. `count` gets how many there are: never 0 on success. If not even the first fits,
// SHMPIPE_ERR_TOO_SMALL: it stays in the pipe, and `messages[0]` says how long it is.
int shmpipe_recv_batch(struct shmpipe_consumer *consumer,
                       void *buffer,
                       size_t capacity,
                       struct shmpipe_message *messages,
                       size_t most,
                       int64_t timeout,
                       size_t *count);

// Borrows the next message where it is; blocks for `timeout` nanoseconds at most while the pipe is empty.
//
// It stays in the pipe until shmpipe_release(), or is received again after shmpipe_requeue(). If this process ends before, the next
// consumer receives it. With the promise of shmpipe_consumer_trust_peer(), `message->data` is where it lies in the ring; without, it
// is NULL, and shmpipe_borrowed_copy() copies it out. Until the release, no other call of the handle receives.
int shmpipe_borrow(struct shmpipe_consumer *consumer,
                   int64_t timeout,
                   struct shmpipe_message *message);

// Borrows one more message if there is one now; otherwise SHMPIPE_ERR_EMPTY. Never blocks.
//
// All that are borrowed are released together. Says nothing of the producer's end: SHMPIPE_ERR_EMPTY then too.
int shmpipe_borrow_next(struct shmpipe_consumer *consumer, struct shmpipe_message *message);

// Copies the message that was borrowed last to a buffer.
int shmpipe_borrowed_copy(const struct shmpipe_consumer *consumer, void *buffer, size_t capacity);

// Releases all borrowed messages: their space is the producer's again. Never blocks.
int shmpipe_release(struct shmpipe_consumer *consumer);

// Leaves all borrowed messages in the pipe: they are received again.
int shmpipe_requeue(struct shmpipe_consumer *consumer);

// Promises that the producer obeys the protocol, for the right to read messages in place.
//
// The promise: every process that has the pipe open for writing keeps to the layout and the protocol, and writes to no message that
// it has sent. A producer that breaks them can then change a message while this program reads it.
int shmpipe_consumer_trust_peer(struct shmpipe_consumer *consumer);

// Blocks until there is a message, for `timeout` nanoseconds at most, and leaves it in the pipe.
int shmpipe_wait_for_message(struct shmpipe_consumer *consumer, int64_t timeout);

// Reports the position up to which everything is released.
int shmpipe_consumer_position(const struct shmpipe_consumer *consumer, uint64_t *position);

// Reports what this side knows about the producer: one of shmpipe_peer. At most one system call.
int shmpipe_consumer_peer(const struct shmpipe_consumer *consumer, int *peer);

// Blocks until there is something to receive or may be soon, for `timeout` nanoseconds at most: until a producer attaches, or one has
// come and gone whose end was not reported yet.
int shmpipe_consumer_wait_for_peer(struct shmpipe_consumer *consumer,
                                   int64_t timeout);

// Checks, if there is no message, that this side still has the pipe and its role, and that the producer has not ended. Never blocks;
// two to four system calls.
//
// For a program that only uses calls that do not wait: those ask the kernel nothing. Call it now and then.
int shmpipe_consumer_check(struct shmpipe_consumer *consumer);

// Makes a handle that cancels blocked calls of this consumer.
int shmpipe_consumer_cancel_handle(const struct shmpipe_consumer *consumer, struct shmpipe_cancel_handle **cancel);

// Gives this consumer a descriptor for epoll() and the like, and reports it.
//
// It is readable when there may be a message. From then on only calls with a timeout of 0 receive; one that returns
// SHMPIPE_ERR_EMPTY makes the descriptor unreadable until there is a message, or the producer ends: so receive until then.
// shmpipe_borrow_next() does not. The descriptor stays the library's: do not read or close it. If this fails, the handle is as before.
int shmpipe_consumer_fd(struct shmpipe_consumer *consumer,
                        int *fd);

// Closes the pipe for this side and gives the handle back, whatever this returns.
//
// From now on the producer gets SHMPIPE_ERR_CLOSED. Messages that were not received, or borrowed and not released, stay in the pipe
// for the next consumer.
int shmpipe_consumer_close(struct shmpipe_consumer *consumer);

// Ends this side with an error, and gives the handle back, whatever this returns.
//
// The producer gets SHMPIPE_ERR_PEER_ABORTED once, with `code`, whose meaning the application defines.
int shmpipe_consumer_abort(struct shmpipe_consumer *consumer, uint32_t code);

// Makes every call that has to wait return SHMPIPE_ERR_CANCELLED, now and later. A call that need not wait works as before.
//
// Any thread may call it at any time, and so may a signal handler: it is async-signal-safe, wait-free, makes at most one system call,
// and leaves errno as it was.
int shmpipe_cancel(const struct shmpipe_cancel_handle *cancel);

// Gives a handle back. NULL does nothing.
void shmpipe_cancel_free(struct shmpipe_cancel_handle *cancel);

// Makes an empty set.
int shmpipe_set_new(struct shmpipe_set **set);

// Gives a set back. NULL does nothing. Its members stay the caller's.
void shmpipe_set_free(struct shmpipe_set *set);

// Adds a consumer, to wait for its messages or only for ends. Adding a member again changes what to wait for.
//
// `interest` is SHMPIPE_INTEREST_MESSAGE or SHMPIPE_INTEREST_END. Closing the consumer removes it.
int shmpipe_set_add_consumer(struct shmpipe_set *set, struct shmpipe_consumer *consumer, int interest, void *user_data);

// Adds a producer, to wait for space for a message of `length` bytes or only for ends. Adding a member again changes what to wait
// for.
//
// `interest` is SHMPIPE_INTEREST_SPACE or SHMPIPE_INTEREST_END. Closing the producer removes it.
int shmpipe_set_add_producer(struct shmpipe_set *set,
                             struct shmpipe_producer *producer,
                             int interest,
                             size_t length,
                             void *user_data);

// Removes a consumer from the set.
int shmpipe_set_remove_consumer(struct shmpipe_set *set, struct shmpipe_consumer *consumer);

// Removes a producer from the set.
int shmpipe_set_remove_producer(struct shmpipe_set *set, struct shmpipe_producer *producer);

// Blocks until a member is ready, for `timeout` nanoseconds at most.
//
// Fills up to `most` events; `count` gets how many: never 0 on success. The rest is found by the next wait. Messages and space are
// reported again as long as they are there, an end once. Fails with SHMPIPE_ERR_STATE if the set has no members, or if something is
// open in one.
int shmpipe_set_wait(struct shmpipe_set *set,
                     struct shmpipe_event *events,
                     size_t most,
                     int64_t timeout,
                     size_t *count);

// Makes a handle that cancels waits of this set.
int shmpipe_set_cancel_handle(const struct shmpipe_set *set, struct shmpipe_cancel_handle **cancel);

// Reports the state of a pipe, without taking part. `size` is sizeof *stats.
//
// Needs read permission; maps the segment read-only and claims nothing.
int shmpipe_inspect(const char *address, struct shmpipe_stats *stats, size_t size);

// Opens a tap on the messages of a pipe, without taking part: those sent from now on, or first those that were not released yet. In a
// pipe with two directions, those from side A to side B.
//
// Needs read permission; maps the segment read-only and claims nothing.
int shmpipe_tap_open(const char *address,
                     bool unread,
                     struct shmpipe_tap **tap);

// Opens a tap on the other direction of the same pipe. SHMPIPE_ERR_STATE if it has one.
int shmpipe_tap_back(const struct shmpipe_tap *tap, bool unread, struct shmpipe_tap **back);

// Returns the next message that passed, or what was missed before it. SHMPIPE_ERR_EMPTY if no other was sent yet.
//
// Never blocks. Look again after a pause, such as a millisecond: a tap that looks without one takes cache lines from the two sides.
int shmpipe_tap_next(struct shmpipe_tap *tap,
                     struct shmpipe_passed *passed);

// Gives a tap back. NULL does nothing.
void shmpipe_tap_free(struct shmpipe_tap *tap);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SHMPIPE_H */
