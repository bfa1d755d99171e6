//! The limit: an echo on the `io-uring` crate without sockets, tasks or timers above it. One system call a turn; multishot
//! receives into provided buffers, and sends that are silent unless they fail. It echoes what it was sent, and is nobody's server.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use ringport_benches::bufs::BufRing;
use ringport_benches::serve::{ECHO_BUF, address};

/// Buffers: a send reads from one that was received into, so it is given back a turn later.
const BUFS: u16 = 4096;
const ACCEPT: u64 = u64::MAX;
const SENT: u64 = u64::MAX - 1;

fn main() -> io::Result<()> {
    ringport_platform::process::raise_fd_limit()?;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address().into())?;
    socket.listen(4096)?;
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(16 * 1024)
        .build(4096)?;
    let mut bufs = BufRing::register(&ring, 0, BUFS, ECHO_BUF)?;
    push(&mut ring, &opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).build().user_data(ACCEPT))?;
    let mut lent: Vec<u16> = Vec::new();
    let mut events: Vec<cqueue::Entry> = Vec::new();
    loop {
        ring.submit_and_wait(1)?;
        // The sends of the last turn have been tried; `MSG_DONTWAIT` makes the kernel copy at once or fail.
        lent.drain(..).for_each(|id| bufs.recycle(id));
        bufs.publish();
        events.extend(ring.completion());
        for event in events.drain(..) {
            match event.user_data() {
                SENT => {
                    return Err(io::Error::other(
                        "a send was short: this echo takes no more than a socket holds",
                    ));
                }
                ACCEPT => arm(&mut ring, event.result())?,
                fd => receive(&mut ring, &bufs, &mut lent, fd as i32, &event)?,
            }
        }
    }
}

fn receive(
    ring: &mut IoUring,
    bufs: &BufRing,
    lent: &mut Vec<u16>,
    fd: i32,
    event: &cqueue::Entry,
) -> io::Result<()> {
    if let (Some(id), true) = (cqueue::buffer_select(event.flags()), event.result() > 0) {
        let bytes = bufs.bytes(id, event.result() as usize);
        let send = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        push(ring, &send.user_data(SENT))?;
        lent.push(id);
    }
    if event.result() == 0 || (event.result() < 0 && event.result() != -libc::ENOBUFS) {
        // SAFETY: the descriptor was accepted by us, and nothing is in flight on it any more.
        unsafe { libc::close(fd) };
        return Ok(());
    }
    if cqueue::more(event.flags()) { Ok(()) } else { arm(ring, fd) }
}

fn arm(ring: &mut IoUring, fd: i32) -> io::Result<()> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    push(ring, &opcode::RecvMulti::new(types::Fd(fd), 0).build().user_data(fd as u64))
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    loop {
        // SAFETY: receives go to the registered buffers; sends come from them, and are done when the turn's call returns.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}
