//! Waiting for many pipes.

use crate::border::{Handle, Misuse, Timeout, at, result, with, without_handle};
use crate::cancel::shmpipe_cancel_handle;
use crate::code::{Done, Failed, of_end};
use crate::consumer::shmpipe_consumer;
use crate::end::Common;
use crate::producer::shmpipe_producer;
use shmpipe::{Endpoint, Interest, Key, Member, NotAdded, Pipe, Readiness, WaitSet};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{c_int, c_void};

/// Waits for many pipes in one thread. Its members stay the caller's; one thread at a time uses the set and its members.
pub struct shmpipe_set {
    set: UnsafeCell<WaitSet<InSet>>,
    /// Members that were used since the last wait: what they wait for may have changed.
    touched: RefCell<Vec<Key>>,
    /// Of one member, for the question whose set it is: whether or not that handle is still there.
    pipe: RefCell<Option<(Key, Pipe)>>,
    has_panicked: Cell<bool>,
}

/// What a set waits for at a member. Each also waits for the other side's end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_interest {
    /// The end of the other side only.
    SHMPIPE_INTEREST_END = 0,
    /// A consumer: a message.
    SHMPIPE_INTEREST_MESSAGE = 1,
    /// A producer: space for a message.
    SHMPIPE_INTEREST_SPACE = 2,
}

/// What a member is ready for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_readiness {
    /// The other side has ended, or the pipe is lost. Reported once.
    SHMPIPE_READY_ENDED = 0,
    /// There is a message.
    SHMPIPE_READY_MESSAGE = 1,
    /// There is the space that was asked for.
    SHMPIPE_READY_SPACE = 2,
}

/// A member that is ready.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_event {
    /// What was given when the member was added.
    pub user_data: *mut c_void,
    /// One of shmpipe_readiness.
    pub readiness: c_int,
    /// After an end: the code that a call of the member would return, such as SHMPIPE_ERR_CLOSED.
    pub end: c_int,
    /// With SHMPIPE_ERR_PEER_ABORTED: the number that the other side gave.
    pub abort_code: u32,
}

/// The place of a handle in a set, kept in the handle.
pub(crate) struct Membership {
    set: *const shmpipe_set,
    key: Key,
}

impl Membership {
    /// Tells the set that the member is used: once between two waits.
    pub(crate) fn touch(&self) {
        // SAFETY: a set tells its members when it ends.
        unsafe { (*self.set).touched.borrow_mut().push(self.key) };
    }

    /// Leaves the set. The handle forgets the membership.
    pub(crate) fn leave(&self) {
        // SAFETY: a set tells its members when it ends; one thread uses it and them.
        let set = unsafe { &*self.set };
        set.touched.borrow_mut().retain(|&key| key != self.key);
        // SAFETY: as above, and the set is not in use: it runs nothing of a handle's.
        let members = unsafe { &mut *set.set.get() };
        members.remove(self.key);
        let mut pipe = set.pipe.borrow_mut();
        if pipe.as_ref().is_some_and(|&(key, _)| key == self.key) {
            // A set that kept it would keep the pipe open.
            let next = members.keys().next();
            // SAFETY: a member is there.
            *pipe = next
                .and_then(|key| Some((key, unsafe { members.get_mut(key)?.handle.common() }.pipe.clone())));
        }
    }
}

/// A handle in a set.
struct InSet {
    handle: AnyHandle,
    user_data: *mut c_void,
}

#[derive(Clone, Copy)]
enum AnyHandle {
    Producer(*const shmpipe_producer),
    Consumer(*const shmpipe_consumer),
}

impl AnyHandle {
    /// # Safety
    /// The handle is still there: it leaves the set before it ends.
    unsafe fn common<'a>(self) -> &'a Common {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                AnyHandle::Producer(producer) => &(*producer).0.common,
                AnyHandle::Consumer(consumer) => &(*consumer).0.common,
            }
        }
    }
}

impl Member for InSet {
    fn endpoint(&mut self) -> Endpoint<'_> {
        // SAFETY: a handle leaves the set before it ends; nothing is open in it while the set runs, and no other thread uses it.
        unsafe {
            match self.handle {
                AnyHandle::Producer(producer) => (*producer).0.for_set().into(),
                AnyHandle::Consumer(consumer) => (*consumer).0.for_set().into(),
            }
        }
    }
}

impl Handle for shmpipe_set {
    const NAME: &'static str = "set";

    fn poison(&self) {
        self.has_panicked.set(true);
    }
}

impl shmpipe_set {
    #[allow(clippy::mut_from_ref, reason = "the set is in a cell")]
    fn usable(&self) -> Result<&mut WaitSet<InSet>, Misuse> {
        if self.has_panicked.get() {
            return Err(Misuse::Panicked);
        }
        if self.is_inherited() {
            return Err(Misuse::Forked);
        }
        // SAFETY: one thread uses the set, and no function here calls another one that uses it.
        Ok(unsafe { &mut *self.set.get() })
    }

    fn is_inherited(&self) -> bool {
        self.pipe.borrow().as_ref().is_some_and(|(_, pipe)| pipe.is_inherited())
    }

    /// Adds a handle, or changes what to wait for at one.
    fn add(&self, handle: AnyHandle, interest: Interest, user_data: *mut c_void) -> Done {
        let set = self.usable()?;
        // SAFETY: the handle was checked by its function, and leaves the set before it ends.
        let common = unsafe { handle.common() };
        common.check_for_set()?;
        if let Some(member) = common.member() {
            if !std::ptr::eq(member.set, self) {
                return Err(Misuse::State { why: "another set waits for the handle" }.into());
            }
            set.set_interest(member.key, interest)?;
            if let Some(found) = set.get_mut(member.key) {
                found.user_data = user_data;
            }
            return Ok(());
        }
        let added = set.add(InSet { handle, user_data }, interest);
        let key = added.map_err(|NotAdded { reason, .. }| Failed::from(reason))?;
        self.pipe.borrow_mut().get_or_insert_with(|| (key, common.pipe.clone()));
        common.join(Some(Box::new(Membership { set: self, key })));
        Ok(())
    }

    fn remove(&self, handle: AnyHandle) -> Done {
        self.usable()?;
        // SAFETY: as in `add`.
        let common = unsafe { handle.common() };
        if common.is_inherited() {
            return Err(Misuse::Forked.into());
        }
        if common.is_open() {
            return Err(Misuse::State { why: "something is open in the handle: end it first" }.into());
        }
        match common.member() {
            Some(member) if std::ptr::eq(member.set, self) => common.leave(),
            _ => return Err(Misuse::State { why: "the handle is not in this set" }.into()),
        }
        Ok(())
    }

    /// Tells the set of the members that were used since the last wait.
    fn update(&self, set: &mut WaitSet<InSet>) -> Done {
        let mut touched = self.touched.borrow_mut();
        while let Some(&key) = touched.last() {
            if let Some(member) = set.get_mut(key) {
                // SAFETY: a member is there.
                let common = unsafe { member.handle.common() };
                if common.is_open() {
                    let why = "something is open in a member: end it before waiting";
                    return Err(Misuse::State { why }.into());
                }
                common.await_touch();
            }
            touched.pop();
        }
        Ok(())
    }
}

/// Makes an empty set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_new(set: *mut *mut shmpipe_set) -> c_int {
    without_handle(|| {
        let to = result(set, "set")?;
        let new = shmpipe_set {
            set: UnsafeCell::new(WaitSet::new()),
            touched: RefCell::default(),
            pipe: RefCell::default(),
            has_panicked: Cell::new(false),
        };
        // SAFETY: not NULL, so valid.
        unsafe { to.write(Box::into_raw(Box::new(new))) };
        Ok(())
    })
}

/// Gives a set back. NULL does nothing. Its members stay the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_free(set: *mut shmpipe_set) {
    without_handle(|| {
        if set.is_null() {
            return Ok(());
        }
        // SAFETY: the caller gives it back, which `shmpipe_set_new` made.
        let set = unsafe { Box::from_raw(set) };
        let is_inherited = set.is_inherited();
        let mut members = set.set.into_inner();
        if is_inherited {
            // Its threads and the memory of its members are the parent's.
            std::mem::forget(members);
            return Ok(());
        }
        // No member refers to a set that is gone. Sleeps that were announced for members stay so: the peer's next message makes one
        // system call in vain. To withdraw one would use an endpoint in which something may be open.
        for key in members.keys().collect::<Vec<_>>() {
            if let Some(member) = members.get_mut(key) {
                // SAFETY: a member is there.
                unsafe { member.handle.common() }.join(None);
            }
        }
        Ok(())
    });
}

/// Adds a consumer, to wait for its messages or only for ends. Adding a member again changes what to wait for.
///
/// `interest` is SHMPIPE_INTEREST_MESSAGE or SHMPIPE_INTEREST_END. Closing the consumer removes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_add_consumer(
    set: *mut shmpipe_set,
    consumer: *mut shmpipe_consumer,
    interest: c_int,
    user_data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| {
        result(consumer, "consumer")?;
        let interest = match interest {
            0 => Interest::End,
            1 => Interest::Message,
            _ => return Err(Misuse::Argument { why: "a consumer waits for a message or an end" }.into()),
        };
        set.add(AnyHandle::Consumer(consumer), interest, user_data)
    })
}

/// Adds a producer, to wait for space for a message of `length` bytes or only for ends. Adding a member again changes what to wait
/// for.
///
/// `interest` is SHMPIPE_INTEREST_SPACE or SHMPIPE_INTEREST_END. Closing the producer removes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_add_producer(
    set: *mut shmpipe_set,
    producer: *mut shmpipe_producer,
    interest: c_int,
    length: usize,
    user_data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| {
        result(producer, "producer")?;
        let interest = match interest {
            0 => Interest::End,
            2 => Interest::Space(length),
            _ => return Err(Misuse::Argument { why: "a producer waits for space or an end" }.into()),
        };
        set.add(AnyHandle::Producer(producer), interest, user_data)
    })
}

/// Removes a consumer from the set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_remove_consumer(
    set: *mut shmpipe_set,
    consumer: *mut shmpipe_consumer,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| set.remove(AnyHandle::Consumer(result(consumer, "consumer")?)))
}

/// Removes a producer from the set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_remove_producer(
    set: *mut shmpipe_set,
    producer: *mut shmpipe_producer,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| set.remove(AnyHandle::Producer(result(producer, "producer")?)))
}

/// Blocks until a member is ready, for `timeout` nanoseconds at most.
///
/// Fills up to `most` events; `count` gets how many: never 0 on success. The rest is found by the next wait. Messages and space are
/// reported again as long as they are there, an end once. Fails with SHMPIPE_ERR_STATE if the set has no members, or if something is
/// open in one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_wait(
    set: *mut shmpipe_set,
    events: *mut shmpipe_event,
    most: usize,
    timeout: i64,
    count: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| {
        let (events, count) = (result(events, "events")?, result(count, "count")?);
        if most == 0 {
            return Err(Misuse::Argument { why: "no event is to be reported: most is 0" }.into());
        }
        let waits = set.usable()?;
        set.update(waits)?;
        let mut ready = waits.wait(Timeout::of(timeout).deadline())?;
        let mut found = 0;
        while found < most {
            let Some(mut event) = ready.next() else { break };
            let (readiness, end, abort_code) = match event.readiness() {
                Readiness::Message => (shmpipe_readiness::SHMPIPE_READY_MESSAGE, 0, 0),
                Readiness::Space => (shmpipe_readiness::SHMPIPE_READY_SPACE, 0, 0),
                Readiness::Ended(end) => {
                    let (code, abort_code) = of_end(end);
                    (shmpipe_readiness::SHMPIPE_READY_ENDED, code as c_int, abort_code)
                }
                _ => continue,
            };
            let user_data = event.member().user_data;
            let event = shmpipe_event { user_data, readiness: readiness as c_int, end, abort_code };
            // SAFETY: the caller's promise: there are `most` of them.
            unsafe { events.add(found).write(event) };
            found += 1;
        }
        // SAFETY: not NULL, so valid.
        unsafe { count.write(found) };
        Ok(())
    })
}

/// Makes a handle that cancels waits of this set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_set_cancel_handle(
    set: *const shmpipe_set,
    cancel: *mut *mut shmpipe_cancel_handle,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(set) }, |set| {
        let to = result(cancel, "cancel")?;
        let cancel = set.usable()?.cancel_handle();
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_cancel_handle::handle(cancel)) };
        Ok(())
    })
}
