//! The state of a pipe, as `create`, `ls`, `stat` and `serve` print it.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Map, Value};
use shmpipe::{
    Address, AddressKind, Direction, Latency, Listed, Location, Memory, Object, Peer, Permissions,
    SetupError, Side, Snapshot,
};

use crate::exit::Failure;
use crate::output::report::SCHEMA;
use crate::output::units;
use crate::system::users;

/// A pipe as a JSON object.
#[derive(Debug, Serialize)]
pub struct Description {
    schema: u32,
    name: Option<String>,
    /// The address that opens it, if there is one.
    address: Option<String>,
    /// The same in base64, if it is not UTF-8: `address` then shows the bytes that are not as `\xff`.
    address_base64: Option<String>,
    /// `sysv`, `posix`, `file` or `memfd`.
    kind: &'static str,
    /// Where a pipe without an address was found: a path, or the descriptor of a process.
    found_at: Option<String>,
    segment_id: String,
    device: Option<u64>,
    inode: Option<u64>,
    key: Option<i32>,
    shm_id: Option<i32>,
    sem_id: Option<i32>,
    capacity_bytes: u64,
    max_message_bytes: u64,
    segment_bytes: u64,
    user_schema: u64,
    wake_mode: String,
    remove_on_close: bool,
    remove_leftover: bool,
    stale: bool,
    owner: String,
    owner_uid: u32,
    group_gid: u32,
    creator_uid: u32,
    mode: String,
    attached_processes: Option<u64>,
    page_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    huge_bytes: Option<u64>,
    locked: Option<bool>,
    created_unix_seconds: f64,
    age_seconds: f64,
    #[serde(flatten)]
    forth: Flow,
    duplex: bool,
    /// The direction from side B to side A of a duplex pipe, with `back_` before each name.
    #[serde(flatten)]
    back: Map<String, Value>,
}

/// A direction of a pipe.
#[derive(Debug, Serialize)]
struct Flow {
    used_bytes: u64,
    unread_messages: u64,
    fill_percent: f64,
    producer: &'static str,
    producer_alive: bool,
    producer_abort_code: Option<u32>,
    producer_pid: Option<u32>,
    producer_claims: u64,
    producer_position_bytes: u64,
    producer_messages: u64,
    producer_payload_bytes: u64,
    producer_waits: u64,
    producer_wakeups: u64,
    producer_dropped_messages: u64,
    consumer: &'static str,
    consumer_alive: bool,
    consumer_abort_code: Option<u32>,
    consumer_pid: Option<u32>,
    consumer_claims: u64,
    consumer_position_bytes: u64,
    consumer_messages: u64,
    consumer_payload_bytes: u64,
    consumer_waits: u64,
    consumer_wakeups: u64,
    #[serde(flatten)]
    latency: LatencyObject,
}

/// A latency as fields of a JSON object.
#[derive(Debug, Serialize)]
pub struct LatencyObject {
    /// Null if the pipe does not measure it; the others also without samples.
    latency_samples: Option<u64>,
    latency_p50_nanoseconds: Option<u64>,
    latency_p90_nanoseconds: Option<u64>,
    latency_p99_nanoseconds: Option<u64>,
    latency_p999_nanoseconds: Option<u64>,
    latency_p9999_nanoseconds: Option<u64>,
    /// Since the pipe was created.
    latency_max_nanoseconds: Option<u64>,
}

/// A pipe in a listing that may not be read, as a JSON object.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    schema: u32,
    name: Option<String>,
    address: Option<String>,
    address_base64: Option<String>,
    kind: &'static str,
    found_at: Option<String>,
    key: Option<i32>,
    shm_id: Option<i32>,
    owner: String,
    owner_uid: u32,
    group_gid: u32,
    mode: String,
    error: &'static str,
    message: String,
}

/// An address in base64, unless it is UTF-8.
pub fn base64(address: &Address) -> Option<String> {
    let text = address.to_os_string();
    text.to_str().is_none().then(|| BASE64.encode(text.as_bytes()))
}

/// Where a pipe without an address was found.
pub fn found_at(location: &Location) -> Option<String> {
    location.address().is_none().then(|| location.to_string())
}

/// The address by its key, or by its identifier if it has none: the numbers that other tools show.
fn number(key: i32, shm_id: i32) -> String {
    if key == 0 { format!("sysv:id:{shm_id}") } else { format!("sysv:{key:#x}") }
}

/// The address to print: of a System V pipe by its number, of any other as it was found.
fn address(location: &Location, snapshot: &Snapshot) -> String {
    match snapshot.object {
        Object::SysV { key, shm_id, .. } => number(key, shm_id),
        _ => location.to_string(),
    }
}

/// The kind of shared memory, in one word.
pub fn kind(location: &Location) -> &'static str {
    match (location, location.address().map(Address::kind)) {
        (_, Some(AddressKind::SysV)) => "sysv",
        (_, Some(AddressKind::Posix)) => "posix",
        (_, Some(AddressKind::File)) => "file",
        // Without an address. A path in `/dev/shm` may be that of its directory alone.
        (Location::Path(path) | Location::Removed { path, .. }, None) if path.starts_with("/dev/shm") => {
            "posix"
        }
        (Location::Path(_) | Location::Removed { .. }, None) => "file",
        _ => "memfd",
    }
}

/// Device and inode of a pipe in a file.
fn file(snapshot: &Snapshot) -> Option<(u64, u64)> {
    match snapshot.object {
        Object::File { device, inode } => Some((device, inode)),
        _ => None,
    }
}

/// Key, shmid and semid of a System V pipe.
fn ids(snapshot: &Snapshot) -> Option<(i32, i32, Option<i32>)> {
    match snapshot.object {
        Object::SysV { key, shm_id, sem_id } => Some((key, shm_id, sem_id)),
        _ => None,
    }
}

fn mode(permissions: &Permissions) -> String {
    format!("{:04o}", permissions.mode)
}

/// The state of a side, in a word or two.
pub fn state(side: &Side) -> &'static str {
    match side.peer {
        Peer::NeverCame => "never came",
        Peer::Open => "alive",
        Peer::Closed => "closed",
        Peer::Aborted { .. } => "aborted",
        Peer::Died => "died",
        Peer::Unknown => "unknown",
    }
}

fn state_and_pid(side: &Side) -> String {
    match side.pid {
        Some(pid) => format!("{} ({pid})", state(side)),
        None => state(side).to_owned(),
    }
}

/// A direction of a pipe.
pub struct Way<'a> {
    /// What it is called in a duplex pipe.
    pub name: Option<&'static str>,
    pub used: u64,
    pub unread: u64,
    pub dropped: u64,
    /// If the pipe measures it.
    pub latency: Option<&'a Latency>,
    pub producer: &'a Side,
    pub consumer: &'a Side,
}

/// The directions of a pipe: its only one, or that from side A to side B and the one back.
pub fn ways(snapshot: &Snapshot) -> Vec<Way<'_>> {
    [forth(snapshot)].into_iter().chain(snapshot.back.as_ref().map(back)).collect()
}

/// The only direction of a pipe, or that from side A to side B.
fn forth(snapshot: &Snapshot) -> Way<'_> {
    let Snapshot { used, dropped, latency, producer, consumer, .. } = snapshot;
    let unread = snapshot.unread() - snapshot.back.as_ref().map_or(0, Direction::unread);
    let name = snapshot.back.as_ref().map(|_| "A to B");
    Way { name, used: *used, unread, dropped: *dropped, latency: latency.as_ref(), producer, consumer }
}

/// The direction from side B to side A.
fn back(direction: &Direction) -> Way<'_> {
    let Direction { used, dropped, latency, producer, consumer, .. } = direction;
    Way {
        name: Some("B to A"),
        used: *used,
        unread: direction.unread(),
        dropped: *dropped,
        latency: latency.as_ref(),
        producer,
        consumer,
    }
}

/// The percentiles of a latency that are shown, with their names.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// A latency in words: its percentiles, and the longest since the pipe was created.
fn latency_in_words(latency: &Latency) -> String {
    let samples = latency.samples();
    if samples == 0 {
        return "no samples yet".to_owned();
    }
    let shown =
        PERCENTILES.map(|(name, quantile)| format!("{name} {}", show_latency(latency.quantile(quantile))));
    let longest = show_latency(Some(latency.max()));
    format!("{}, longest {longest}, of {samples} samples", shown.join(", "))
}

/// A latency, or `-`.
pub fn show_latency(latency: Option<Duration>) -> String {
    latency.map_or_else(|| "-".to_owned(), |latency| units::show_time(latency.as_nanos() as f64))
}

/// The two sides of a pipe, with what they are called. Of a side of a duplex pipe, the direction that it has not closed.
pub fn sides(snapshot: &Snapshot) -> [(&'static str, &Side); 2] {
    let Snapshot { producer, consumer, .. } = snapshot;
    let Some(back) = &snapshot.back else { return [("producer", producer), ("consumer", consumer)] };
    let open = |one: &'_ Side| matches!(one.peer, Peer::Open | Peer::Died);
    let of = |first, second| if !open(first) && open(second) { second } else { first };
    [("side A", of(producer, &back.consumer)), ("side B", of(consumer, &back.producer))]
}

/// "the producer", "side A".
pub fn the(side: &str) -> String {
    if side.starts_with("side ") { side.to_owned() } else { format!("the {side}") }
}

fn age(snapshot: &Snapshot) -> Duration {
    SystemTime::now().duration_since(snapshot.created).unwrap_or_default()
}

impl Description {
    /// A pipe that the user named.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self::found(&Location::Address(snapshot.address.clone()), snapshot)
    }

    /// A pipe that a listing found.
    pub fn found(location: &Location, snapshot: &Snapshot) -> Self {
        let Snapshot { permissions, .. } = snapshot;
        let since_epoch = snapshot.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Description {
            schema: SCHEMA,
            name: snapshot.name.clone(),
            address: location.address().map(|_| address(location, snapshot)),
            address_base64: location.address().and_then(base64),
            kind: kind(location),
            found_at: found_at(location),
            device: file(snapshot).map(|(device, _)| device),
            inode: file(snapshot).map(|(_, inode)| inode),
            segment_id: snapshot.segment_id.to_string(),
            key: ids(snapshot).map(|(key, _, _)| key),
            shm_id: ids(snapshot).map(|(_, shm_id, _)| shm_id),
            sem_id: ids(snapshot).and_then(|(_, _, sem_id)| sem_id),
            capacity_bytes: snapshot.capacity,
            max_message_bytes: snapshot.max_len,
            segment_bytes: snapshot.size,
            user_schema: snapshot.schema,
            wake_mode: snapshot.wake_mode.to_string(),
            remove_on_close: snapshot.remove_on_close,
            remove_leftover: snapshot.remove_leftover,
            stale: snapshot.stale,
            owner: users::name(permissions.uid),
            owner_uid: permissions.uid,
            group_gid: permissions.gid,
            creator_uid: snapshot.creator,
            mode: mode(permissions),
            attached_processes: snapshot.attached,
            page_bytes: snapshot.memory.map(|memory| memory.page_size),
            resident_bytes: snapshot.memory.map(|memory| memory.resident),
            huge_bytes: snapshot.memory.map(|memory| memory.huge),
            locked: snapshot.memory.map(|memory| memory.locked),
            created_unix_seconds: since_epoch.as_secs_f64(),
            age_seconds: age(snapshot).as_secs_f64(),
            forth: Flow::of(snapshot.capacity, &forth(snapshot)),
            duplex: snapshot.duplex,
            back: fields_of_back(snapshot),
        }
    }
}

impl Flow {
    fn of(capacity: u64, &Way { used, unread, dropped, latency, producer, consumer, .. }: &Way<'_>) -> Self {
        Flow {
            used_bytes: used,
            unread_messages: unread,
            fill_percent: used as f64 / capacity as f64 * 100.0,
            producer: state(producer),
            producer_alive: producer.peer == Peer::Open,
            producer_abort_code: producer.peer.abort_code(),
            producer_pid: producer.pid,
            producer_claims: producer.epoch,
            producer_position_bytes: producer.position,
            producer_messages: producer.messages,
            producer_payload_bytes: producer.bytes,
            producer_waits: producer.waits,
            producer_wakeups: producer.wakeups,
            producer_dropped_messages: dropped,
            consumer: state(consumer),
            consumer_alive: consumer.peer == Peer::Open,
            consumer_abort_code: consumer.peer.abort_code(),
            consumer_pid: consumer.pid,
            consumer_claims: consumer.epoch,
            consumer_position_bytes: consumer.position,
            consumer_messages: consumer.messages,
            consumer_payload_bytes: consumer.bytes,
            consumer_waits: consumer.waits,
            consumer_wakeups: consumer.wakeups,
            latency: LatencyObject::of(latency),
        }
    }
}

impl LatencyObject {
    pub fn of(latency: Option<&Latency>) -> Self {
        let sampled = latency.filter(|latency| latency.samples() > 0);
        let nanoseconds = |latency: Duration| latency.as_nanos().try_into().ok();
        let quantile = |at| sampled.and_then(|latency| nanoseconds(latency.quantile(at)?));
        LatencyObject {
            latency_samples: latency.map(Latency::samples),
            latency_p50_nanoseconds: quantile(0.5),
            latency_p90_nanoseconds: quantile(0.9),
            latency_p99_nanoseconds: quantile(0.99),
            latency_p999_nanoseconds: quantile(0.999),
            latency_p9999_nanoseconds: quantile(0.9999),
            latency_max_nanoseconds: sampled.and_then(|latency| nanoseconds(latency.max())),
        }
    }
}

/// The fields of the direction back; null in a pipe with one direction, so that every pipe has the same.
fn fields_of_back(snapshot: &Snapshot) -> Map<String, Value> {
    let back = snapshot.back.as_ref().map(back);
    let shown = Flow::of(snapshot.capacity, back.as_ref().unwrap_or(&forth(snapshot)));
    let Ok(Value::Object(fields)) = serde_json::to_value(shown) else {
        unreachable!("a struct is an object")
    };
    let named = fields
        .into_iter()
        .map(|(name, value)| (format!("back_{name}"), if back.is_some() { value } else { Value::Null }));
    named.collect()
}

impl Unreadable {
    pub fn new(listed: &Listed, error: &SetupError) -> Self {
        let Listed { location, permissions, object, .. } = listed;
        let failure = Failure::new(crate::exit::code_of(error), error);
        let (key, shm_id) = match *object {
            Object::SysV { key, shm_id, .. } => (Some(key), Some(shm_id)),
            _ => (None, None),
        };
        Unreadable {
            schema: SCHEMA,
            name: None,
            address: location.address().map(|address| {
                key.zip(shm_id).map_or_else(|| address.to_string(), |(key, id)| number(key, id))
            }),
            address_base64: location.address().and_then(base64),
            kind: kind(location),
            found_at: found_at(location),
            key,
            shm_id,
            owner: users::name(permissions.uid),
            owner_uid: permissions.uid,
            group_gid: permissions.gid,
            mode: mode(permissions),
            error: failure.code.name(),
            message: failure.message,
        }
    }

    /// The pipe as a row of a listing.
    pub fn row(&self) -> Vec<String> {
        let unknown = || "?".to_owned();
        let Unreadable { address, found_at, owner, mode, .. } = self;
        let location = address.clone().or_else(|| found_at.clone()).unwrap_or_default();
        let known = [owner.clone(), mode.clone()];
        let unknowns = [unknown(), unknown(), unknown(), unknown(), unknown()];
        [unknown(), location].into_iter().chain(unknowns).chain(known).chain([unknown()]).collect()
    }
}

/// The column headers of a listing.
pub fn headers() -> Vec<String> {
    ["NAME", "ADDRESS", "CAPACITY", "FILL", "UNREAD", "PRODUCER", "CONSUMER", "OWNER", "MODE", "AGE"]
        .map(str::to_owned)
        .to_vec()
}

fn name(snapshot: &Snapshot) -> String {
    snapshot.name.clone().unwrap_or_else(|| "-".to_owned())
}

/// A pipe as a row of a listing.
pub fn row(location: &Location, snapshot: &Snapshot) -> Vec<String> {
    let side = |which: usize| {
        let (name, side) = sides(snapshot)[which];
        let name =
            if snapshot.duplex { format!("{}: ", name.trim_start_matches("side ")) } else { String::new() };
        name + &state_and_pid(side)
    };
    vec![
        name(snapshot),
        address(location, snapshot),
        units::show_size(snapshot.capacity),
        fill(snapshot),
        snapshot.unread().to_string(),
        side(0),
        side(1),
        users::name(snapshot.permissions.uid),
        mode(&snapshot.permissions),
        units::show_age(age(snapshot)),
    ]
}

/// How full a pipe is: of a duplex pipe, the ring from A to B and the ring from B to A.
fn fill(snapshot: &Snapshot) -> String {
    let show = |used| units::show_fill(used, snapshot.capacity);
    let back = snapshot.back.as_ref().map_or_else(String::new, |back| format!("/{}", show(back.used)));
    show(snapshot.used) + &back
}

/// The pages of a pipe.
fn memory(memory: Memory) -> String {
    let mut text = format!(
        "{} resident, pages of {}",
        units::show_size(memory.resident),
        units::show_size(memory.page_size)
    );
    if memory.huge > 0 {
        text += &format!(", {} mapped by huge pages", units::show_size(memory.huge));
    }
    text + if memory.locked { ", locked" } else { ", not locked" }
}

/// All details of a pipe that was found at a location, as rows of name and value.
pub fn details(location: &Location, snapshot: &Snapshot) -> Vec<Vec<String>> {
    let Snapshot { permissions, .. } = snapshot;
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, text: String| rows.push((what.to_owned(), text));
    add("name", name(snapshot));
    add(if location.address().is_some() { "address" } else { "found at" }, address(location, snapshot));
    add("kind", kind(location).to_owned() + if snapshot.duplex { ", duplex" } else { "" });
    match ids(snapshot) {
        Some((_, shm_id, sem_id)) => {
            add("segment", format!("{} bytes, shmid {shm_id}, id {}", snapshot.size, snapshot.segment_id));
            add("semaphores", sem_id.map_or("gone".to_owned(), |id| format!("semid {id}")));
        }
        None => {
            let (device, inode) = file(snapshot).unwrap_or_default();
            let device = format!("{}:{}", libc::major(device), libc::minor(device));
            add(
                "file",
                format!(
                    "{} bytes, inode {inode} on device {device}, id {}",
                    snapshot.size, snapshot.segment_id
                ),
            );
        }
    }
    add("memory", snapshot.memory.map_or("unknown".to_owned(), memory));
    let each = if snapshot.duplex { ", in each direction" } else { "" };
    let capacity = units::show_size(snapshot.capacity);
    add("capacity", format!("{capacity} ({} bytes){each}", snapshot.capacity));
    let ways = ways(snapshot);
    let of_ways: &[[&str; 3]] = match snapshot.duplex {
        false => &[["fill", "producer", "consumer"]],
        true => {
            &[["fill, A to B", "A, sending", "B, receiving"], ["fill, B to A", "B, sending", "A, receiving"]]
        }
    };
    for ([name, ..], &Way { used, unread, .. }) in of_ways.iter().zip(&ways) {
        let fill = units::show_fill(used, snapshot.capacity);
        add(name, format!("{used} bytes ({fill}), {unread} messages unread"));
    }
    for &Way { name, latency, .. } in &ways {
        let name = name.map_or_else(|| "latency".to_owned(), |name| format!("latency, {name}"));
        add(&name, latency.map_or_else(|| "not measured".to_owned(), latency_in_words));
    }
    add("longest message", format!("{} bytes", snapshot.max_len));
    add("schema", format!("{:#x}", snapshot.schema));
    add("wake mode", snapshot.wake_mode.to_string());
    add("when both have closed", if snapshot.remove_on_close { "removed" } else { "kept" }.to_owned());
    add("when left over", if snapshot.remove_leftover { "removed" } else { "kept" }.to_owned());
    add(
        "owner",
        format!("{} (uid {}, gid {})", users::name(permissions.uid), permissions.uid, permissions.gid),
    );
    add("creator", format!("{} (uid {})", users::name(snapshot.creator), snapshot.creator));
    add("mode", mode(permissions));
    if let Some(attached) = snapshot.attached {
        add("attached", format!("{attached} times"));
    }
    let stale = if snapshot.stale { ", from before the last boot" } else { "" };
    add("age", units::show_age(age(snapshot)) + stale);
    for ([_, sending, receiving], way) in of_ways.iter().zip(&ways) {
        for (name, side, moved, waited_for) in
            [(sending, way.producer, "sent", "space"), (receiving, way.consumer, "released", "messages")]
        {
            let code = side.peer.abort_code().map_or_else(String::new, |code| format!(" with code {code}"));
            add(name, format!("{}{code}, claimed {} times", state_and_pid(side), side.epoch));
            add(
                &format!("  {moved}"),
                format!("{} messages, {} bytes of payload", side.messages, side.bytes),
            );
            add("  position", format!("{} bytes", side.position));
            if moved == "sent" {
                add("  dropped", format!("{} messages", way.dropped));
            }
            add(&format!("  waited for {waited_for}"), format!("{} times", side.waits));
            add("  woke the other side", format!("{} times", side.wakeups));
        }
    }
    rows.into_iter().map(|(what, text)| vec![what, text]).collect()
}
