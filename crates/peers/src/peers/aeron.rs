//! Aeron IPC through rusteron: exclusive publications over term buffers that a media driver manages.
//!
//! The driver is embedded in the parent, in one thread that may run on any CPU. Where there are two CPUs only, it shares
//! them with what is measured: a publisher may send no further than the driver has seen the subscriber come.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rusteron_client::{
    Aeron, AeronContext, AeronExclusivePublication, AeronImage, AeronSubscription, Handlers,
};
use rusteron_media_driver::bindings::aeron_threading_mode_enum;
use rusteron_media_driver::testing::EmbeddedDriver;
use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Patience, Transport};

use crate::affinity::unpinned;
use crate::errors::{refused_debug, wrong_len};
use crate::late::Late;
use crate::scratch;

/// A stream each way, polled.
pub const AERON: &dyn Transport = &AeronIpc;

struct AeronIpc;

const THERE: i32 = 1;
const BACK: i32 = 2;

/// How long the driver gets for what it does not do at once.
const SETTING_UP: Duration = Duration::from_secs(5);

/// The largest that Aeron takes: longer messages go in fragments.
const MTU: usize = 65504;

impl Transport for AeronIpc {
    fn name(&self) -> &'static str {
        "aeron"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        "Aeron IPC (C, through rusteron 0.2), exclusive publications, terms of twice the ring's bytes (a window of as many), \
         not sparse, MTU 65504, mapped memory touched first; offer, poll of one fragment; the driver is one thread with its \
         default idle strategy on any CPU"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let directory = scratch::path("aeron")?;
        let term = 2 * invitation.capacity();
        invitation.tell(directory.display());
        invitation.tell(term);
        let name = c_string(&directory)?;
        let driver = unpinned(|| {
            EmbeddedDriver::launch_with(|context| {
                context.set_dir(&name)?;
                context.set_threading_mode(aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED)?;
                context.set_term_buffer_sparse_file(false)?;
                context.set_ipc_mtu_length(MTU)?;
                Ok(())
            })
            .map_err(refused_debug)
        })?;
        endpoint(directory, term, (THERE, BACK), Some(driver))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        endpoint(invited.word()?, invited.word()?, (BACK, THERE), None)
    }
}

fn c_string(path: &std::path::Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

fn endpoint(
    directory: PathBuf,
    term: usize,
    (out, back): (i32, i32),
    driver: Option<EmbeddedDriver>,
) -> io::Result<Endpoint> {
    let directory = c_string(&directory)?;
    let client = unpinned(|| {
        let context = AeronContext::new().map_err(refused_debug)?;
        context.set_dir(&directory).map_err(refused_debug)?;
        context.set_pre_touch_mapped_memory(true).map_err(refused_debug)?;
        let client = Aeron::new(&context).map_err(refused_debug)?;
        client.start().map_err(refused_debug)?;
        Ok(client)
    })?;
    let channel = CString::new(format!("aeron:ipc?term-length={term}|mtu={MTU}"))?;
    let publication = client.async_add_exclusive_publication(&channel, out).map_err(refused_debug)?;
    let publication = publication.poll_blocking(SETTING_UP).map_err(refused_debug)?;
    let subscription = client.async_add_subscription(&channel, back, Handlers::NONE, Handlers::NONE);
    let subscription =
        subscription.map_err(refused_debug)?.poll_blocking(SETTING_UP).map_err(refused_debug)?;
    let images = subscription.clone();
    let image = Late::new(move || image(&images));
    Ok(Endpoint::new(Streams {
        image,
        publication,
        _subscription: subscription,
        _client: client,
        _driver: driver,
    }))
}

/// The other side's publication, as this side sees it: there when the driver has connected the two.
fn image(subscription: &AeronSubscription) -> io::Result<AeronImage> {
    let start = Instant::now();
    loop {
        if let Some(image) = subscription.image_at_index(0) {
            return Ok(image);
        }
        if start.elapsed() > SETTING_UP {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// In the order in which they have to go.
struct Streams {
    image: Late<AeronImage>,
    publication: AeronExclusivePublication,
    _subscription: AeronSubscription,
    _client: Aeron,
    _driver: Option<EmbeddedDriver>,
}

impl Channel for Streams {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.publication.offer(message) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => patience.pause()?,
                Err(error) => return Err(refused_debug(error)),
            }
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let image = self.image.get()?;
        let mut patience = Patience::new();
        let mut len = 0;
        loop {
            let copy = |fragment: &[u8], _| {
                if let Some(room) = buffer.get_mut(len..len + fragment.len()) {
                    room.copy_from_slice(fragment);
                }
                len += fragment.len();
            };
            if image.poll_fn(copy, 1).map_err(refused_debug)? == 0 {
                patience.pause()?;
            } else if len == buffer.len() {
                return Ok(len);
            } else if len > buffer.len() {
                return Err(wrong_len(len, buffer.len()));
            }
        }
    }
}
