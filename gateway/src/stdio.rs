//! A connection between standard input and standard output.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::pin::pin;
use std::task::Poll;

use ringport::net::{PacketError, PacketSocket, Stream};
use ringport::runtime::{Datagram, Transport};
use ringport_platform::blocking::{BlockingJob, BlockingPool, PoolFull};
use ringport_platform::stdio::{input_still_waits, input_would_wait};

/// Passes bytes both ways until the peer ends, and after that what standard input has without waiting; returns the exit
/// code.
pub(crate) async fn converse<T: Transport>(stream: Stream<T>) -> u8 {
    let (mut from_peer, mut to_peer) = stream.split();
    let send = async |bytes: Vec<u8>| match bytes.is_empty() {
        true => to_peer.shutdown().await,
        false => to_peer.send(bytes).await,
    };
    join(send, async || Ok(from_peer.recv().await?.map(|bytes| bytes.to_vec()))).await
}

/// As [`converse`]: each read of standard input is sent as a packet.
pub(crate) async fn converse_in_packets<D: Datagram>(socket: PacketSocket<D>) -> u8 {
    socket.set_max_len(MAX_PACKET);
    let send = async |bytes: Vec<u8>| {
        let sent = if bytes.is_empty() { socket.shutdown() } else { socket.send(bytes).await };
        sent.map_err(std::io::Error::other)
    };
    let receive = async || match socket.recv().await {
        Ok(packet) => {
            if packet.meta.is_truncated {
                crate::complain(format_args!(
                    "ringport: a packet was longer than {MAX_PACKET} bytes: its end is lost"
                ));
            }
            Ok(Some(packet.bytes.to_vec()))
        }
        Err(PacketError::Ended) => Ok(None),
        Err(error) => Err(std::io::Error::other(error)),
    };
    join(send, receive).await
}

/// `send` is given what was read, and nothing at the end; `receive` gives `None` at the peer's.
async fn join(
    send: impl AsyncFnMut(Vec<u8>) -> std::io::Result<()>,
    receive: impl AsyncFnMut() -> std::io::Result<Option<Vec<u8>>>,
) -> u8 {
    let waiting = Cell::new(false);
    let mut sending = Some(Box::pin(send_input(send, &waiting)));
    let mut receiving = pin!(write_output(receive));
    let (mut received, mut taken) = (None, true);
    poll_fn(|cx| {
        if let Some(Poll::Ready(sent)) = sending.as_mut().map(|sending| sending.as_mut().poll(cx)) {
            sending = None;
            match sent {
                Ok(whole) => taken = whole,
                Err(why) => {
                    crate::complain(format_args!("ringport: standard input: {why}"));
                    return Poll::Ready(1);
                }
            }
        }
        if received.is_none()
            && let Poll::Ready(code) = receiving.as_mut().poll(cx)
        {
            received = Some(code);
        }
        match received {
            None => Poll::Pending,
            Some(0) if sending.is_some() && !(waiting.get() && input_still_waits()) => Poll::Pending,
            Some(0) if !taken => {
                crate::complain(format_args!("ringport: the peer did not take all of standard input"));
                Poll::Ready(1)
            }
            Some(code) => Poll::Ready(code),
        }
    })
    .await
}

/// Sends standard input, then tells the peer its end. Reading blocks, so a thread does it; there is no more in memory than
/// one read and what the stream takes. Returns whether the peer took all; `waiting` is true while a read is under way that had
/// nothing to read when it began.
///
/// # Errors
/// It could not be read.
async fn send_input(
    mut send: impl AsyncFnMut(Vec<u8>) -> std::io::Result<()>,
    waiting: &Cell<bool>,
) -> Result<bool, String> {
    let reader = BlockingPool::new(1, 1);
    loop {
        // A thread's work, too: while a read is under way the system may not answer.
        waiting.set(done(reader.submit(|| std::io::Result::Ok(input_would_wait()))).await?);
        let read = reader.submit(|| {
            let mut buf = vec![0; BUF_LEN];
            let count = std::io::stdin().lock().read(&mut buf)?;
            buf.truncate(count);
            std::io::Result::Ok(buf)
        });
        let buf = done(read).await?;
        waiting.set(false);
        let is_end = buf.is_empty();
        let sent = send(buf).await;
        // The other direction tells what a peer that has gone met.
        if is_end || sent.is_err() {
            return Ok(sent.is_ok());
        }
    }
}

/// Writes what comes to standard output until the peer ends; returns the exit code.
async fn write_output(mut receive: impl AsyncFnMut() -> std::io::Result<Option<Vec<u8>>>) -> u8 {
    let writer = BlockingPool::new(1, 1);
    loop {
        let bytes = match receive().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return 0,
            Err(error) => {
                crate::complain(format_args!("ringport: the connection broke: {error}"));
                return 1;
            }
        };
        let written = writer.submit(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()
        });
        if let Err(why) = done(written).await {
            crate::complain(format_args!("ringport: standard output: {why}"));
            return 1;
        }
    }
}

/// What a job on another thread gave, or why not, in words.
async fn done<T>(job: Result<BlockingJob<std::io::Result<T>>, PoolFull>) -> Result<T, String> {
    let result = job.map_err(|error| error.to_string())?.await;
    result.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// For one read of standard input.
const BUF_LEN: usize = 64 * 1024;
/// As long as a packet of a Unix socket may be without a larger send buffer, and more.
pub(crate) const MAX_PACKET: usize = 1 << 20;
