//! Eight pipes in, eight out, in one task each: each line that comes in goes out in upper case. Ends on Ctrl-C, or when every pipe in
//! has ended.
//!
//! ```sh
//! cargo run --features async --example tokio_service &
//! shmpipe recv out3 &
//! echo hello | shmpipe send in3
//! ```

use shmpipe::{AsyncConsumer, AsyncProducer, Pipe, RecvError, SendError};
use std::error::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const PIPES: usize = 8;

/// Sends a line to this reader or the next.
async fn deliver(output: &mut AsyncProducer, line: &[u8]) -> Result<(), SendError> {
    loop {
        match output.send(line).await {
            Err(SendError::PeerDied | SendError::PeerAborted { .. }) => {}
            sent => return sent.map(drop),
        }
    }
}

async fn serve(
    mut input: AsyncConsumer,
    mut output: AsyncProducer,
    mut stop: watch::Receiver<bool>,
) -> Outcome {
    loop {
        let received = tokio::select! {
            received = input.recv() => received,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let message = match received {
            Ok(message) => message,
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::PeerDied | RecvError::PeerAborted { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let line = message.to_vec().to_ascii_uppercase();
        tokio::select! {
            sent = deliver(&mut output, &line) => sent?,
            // No reader takes it now. It stays in its pipe, for the next run.
            _ = stop.wait_for(|stop| *stop) => {
                message.requeue();
                return Ok(());
            }
        }
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let (stop, stopped) = watch::channel(false);
    let mut services = JoinSet::new();
    for number in 0..PIPES {
        let input = Pipe::open_or_create(format!("in{number}").as_str())?.consumer()?.into_async()?;
        let output = Pipe::open_or_create(format!("out{number}").as_str())?.producer()?.into_async()?;
        services.spawn(serve(input, output, stopped.clone()));
    }
    loop {
        tokio::select! {
            ended = services.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(()),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                stop.send_replace(true);
            }
        }
    }
}
