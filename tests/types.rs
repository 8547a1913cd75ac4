//! What the types promise: `Send` and `Sync`, no references to shared bytes, and the texts of errors.

use shmpipe::error::{Damage, Mismatch, Shortage, Unsupported};
use shmpipe::{
    CancelHandle, CheckError, Consumer, Duplex, DuplexSide, Lost, Message, PANICKED, Pipe, Producer, Record,
    RecvTimeoutError, Reservation, Role, SendTimeoutError, SetupError, Trusted, TryRecvError, TrySendError,
    WaitError, WrongSize,
};
use std::ops::Deref;

#[test]
fn an_endpoint_is_send_and_not_sync() {
    fn is_send<T: Send>() {}
    is_send::<Producer>();
    is_send::<Consumer>();
    is_send::<Producer<shmpipe::Trusted>>();
    is_send::<Consumer<shmpipe::Trusted>>();
    is_send::<Duplex>();
    is_send::<Duplex<shmpipe::Trusted>>();
    is_send::<Message<'_>>();
    is_send::<Reservation<'_>>();
    is_send::<shmpipe::WaitSet<Consumer>>();
    is_send::<shmpipe::WithDescriptor<Producer>>();
    fn is_shared<T: Send + Sync + Clone>() {}
    is_shared::<CancelHandle>();
    is_shared::<Pipe>();

    // If the type is `Sync`, or `Clone`, both implementations apply, and `_` is ambiguous: this does not compile.
    trait IsNotSync<A> {
        fn checked() {}
    }
    impl<T> IsNotSync<()> for T {}
    impl<T: Sync> IsNotSync<u8> for T {}
    <Producer as IsNotSync<_>>::checked();
    <Consumer as IsNotSync<_>>::checked();
    <Producer<shmpipe::Trusted> as IsNotSync<_>>::checked();
    <Consumer<shmpipe::Trusted> as IsNotSync<_>>::checked();
    <Duplex as IsNotSync<_>>::checked();
    <Duplex<shmpipe::Trusted> as IsNotSync<_>>::checked();
    trait IsNotClone<A> {
        fn checked() {}
    }
    impl<T> IsNotClone<()> for T {}
    impl<T: Clone> IsNotClone<u8> for T {}
    <Producer as IsNotClone<_>>::checked();
    <Consumer as IsNotClone<_>>::checked();
    <Producer<shmpipe::Trusted> as IsNotClone<_>>::checked();
    <Consumer<shmpipe::Trusted> as IsNotClone<_>>::checked();
    <Duplex as IsNotClone<_>>::checked();
    <Duplex<shmpipe::Trusted> as IsNotClone<_>>::checked();
}

#[test]
fn bytes_of_an_untrusted_peer_are_never_behind_a_reference() {
    // As above.
    trait ShowsNoBytes<A> {
        fn checked() {}
    }
    impl<T> ShowsNoBytes<()> for T {}
    impl<T: Deref<Target = [u8]>> ShowsNoBytes<u8> for T {}
    <Record<'static> as ShowsNoBytes<_>>::checked();
    <Message<'static> as ShowsNoBytes<_>>::checked();
    <Reservation<'static> as ShowsNoBytes<_>>::checked();
    trait IsNoSlice<A> {
        fn checked() {}
    }
    impl<T> IsNoSlice<()> for T {}
    impl<T: AsRef<[u8]>> IsNoSlice<u8> for T {}
    <Record<'static> as IsNoSlice<_>>::checked();
    <Message<'static> as IsNoSlice<_>>::checked();
    fn shows_bytes<T: Deref<Target = [u8]>>() {}
    shows_bytes::<Record<'static, Trusted>>();
}

#[test]
fn error_texts_are_lower_case_clauses() {
    let send = [
        SendTimeoutError::TooLarge { length: 11, max: 10 },
        SendTimeoutError::TimedOut,
        SendTimeoutError::Cancelled,
        SendTimeoutError::Closed,
        SendTimeoutError::PeerAborted { code: 7 },
        SendTimeoutError::PeerDied,
        SendTimeoutError::Lost(Lost::Removed),
        SendTimeoutError::Lost(Lost::Replaced),
        SendTimeoutError::Lost(Lost::Role),
    ];
    let recv = [
        RecvTimeoutError::TimedOut,
        RecvTimeoutError::Cancelled,
        RecvTimeoutError::Closed,
        RecvTimeoutError::PeerAborted { code: 7 },
        RecvTimeoutError::PeerAborted { code: PANICKED },
        RecvTimeoutError::PeerDied,
        RecvTimeoutError::Lost(Lost::Removed),
    ];
    let others = [
        TrySendError::Full.to_string(),
        TryRecvError::Empty.to_string(),
        WaitError::TimedOut.to_string(),
        CheckError::Closed.to_string(),
        CheckError::PeerAborted { code: 7 }.to_string(),
        CheckError::PeerDied.to_string(),
        WrongSize { message: 11, expected: 10 }.to_string(),
    ];
    let address = || "ticks".parse().unwrap();
    let setup = [
        SetupError::NotFound { address: address() },
        SetupError::Exists { address: address() },
        SetupError::Damaged(Damage::Incomplete { address: address(), pid: 4711 }),
        SetupError::Limit(Shortage::System {
            name: "SHMMNI",
            value: 1,
            requested: 2,
            raise_in: "/proc/sys/kernel/shmmni",
        }),
        SetupError::RoleTaken { role: Role::Producer, pid: None },
        SetupError::SideTaken { side: DuplexSide::A, pid: Some(4711) },
        SetupError::Unsupported(Unsupported::AfterFork { address: address() }),
        SetupError::Unsupported(Unsupported::OneWay { address: address() }),
        SetupError::Unsupported(Unsupported::Tap { address: address() }),
        SetupError::Unsupported(Unsupported::TwoWay { address: address() }),
        SetupError::Incompatible(Mismatch::Directions { duplex: true }),
        SetupError::Incompatible(Mismatch::Directions { duplex: false }),
    ];
    let texts = send.iter().map(ToString::to_string).chain(recv.iter().map(ToString::to_string));
    for text in texts.chain(others).chain(setup.iter().map(ToString::to_string)) {
        assert!(!text.ends_with('.') && !text.starts_with(char::is_uppercase), "{text}");
        assert!(text.len() > 18, "{text}");
    }
}

#[test]
fn a_permission_error_has_every_detail_in_its_text() {
    let error = SetupError::PermissionDenied {
        address: "ticks".parse().unwrap(),
        key: Some(0x4d2),
        permissions: Some(shmpipe::Permissions { uid: 1000, gid: 100, mode: 0o640 }),
    };
    for part in ["ticks", "0x4d2", "1000", "100", "0640", "read and write"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
