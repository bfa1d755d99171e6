//! Whoever is faster waits: the gateway holds little, however much passes.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::message::{Client, Wire};
use crate::origin::Origin;
use crate::rig::{Setup, cases, eventually};

cases![
    a_response_that_nobody_reads_is_held_back,
    an_upload_that_nobody_reads_is_held_back,
    chunks_of_one_byte_cost_no_more,
    pipelined_requests_wait_for_a_client_that_does_not_read,
    the_pool_keeps_to_its_limits,
    responses_that_nobody_reads_leave_the_pool_to_others,
];

/// Growth that a handful of stuck connections may cause: 256 KiB and a read each way, the pool, the allocator.
const FEW_KIB: usize = 12 << 10;

fn endless() -> Origin {
    Origin::script(|mut conn| {
        if conn.request().is_some() {
            conn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let block = format!("40000\r\n{}\r\n", "x".repeat(256 << 10));
            while conn.wire.try_send(block.as_bytes()).is_ok() {
                conn.note("block");
            }
        }
    })
}

fn a_response_that_nobody_reads_is_held_back(driver: &'static str) {
    let origin = endless();
    let proxy = Setup::to(driver, origin.addr, "").start();
    let before = proxy.resident_kib();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    clients.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    settled(&origin, 4);
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < FEW_KIB, "{grown} KiB for 4 clients that do not read");
    // Others do not notice, and those that read again get on.
    let stuck = origin.notes().len();
    let mut buf = vec![0; 32 << 20];
    clients[0].reader().read_exact(&mut buf).expect("bytes");
    assert!(origin.notes().len() > stuck);
    drop(clients);
    proxy.finish();
}

/// What clients leave unread lies in the pool: as much as may be, as little as the config says, and afterwards no more
/// than is to be kept. At the least that a config may say others are served still: a pool of two chunks was used up by
/// clients that did not read, and the core heard nobody any more, the admin listener neither.
fn the_pool_keeps_to_its_limits(driver: &'static str) {
    const CHUNK: i64 = 128 << 10;
    let origin = endless();
    let start = |pool: &str| {
        let runtime = format!("runtime: {{ cores: 1, {pool} }}\n");
        let proxy = Setup::to(driver, origin.addr, &runtime).start();
        let mut clients: Vec<Client> = (0..16).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        (proxy, clients)
    };
    let (small, of_small) = start("poolMaxBytes: 1048576");
    let (fleeting, of_fleeting) = start("poolMinBytes: 0");
    let (lasting, of_lasting) = start("poolMinBytes: 33554432");
    let many = |bytes: i64| bytes >= 16 * CHUNK;
    fleeting.await_metric("core_pool_live_bytes", many);
    lasting.await_metric("core_pool_live_bytes", many);
    small.await_metric("core_pool_live_bytes", |bytes| bytes == 8 * CHUNK);
    drop((of_small, of_fleeting, of_lasting));
    // What io_uring has lent to the kernel stays, and what small writes are gathered in.
    fleeting.await_metric("core_pool_live_bytes", |bytes| bytes <= 9 * CHUNK);
    lasting.await_metric("connections_active", |count| count == 0);
    assert!(many(lasting.metric("core_pool_live_bytes")));
    for proxy in [small, fleeting, lasting] {
        proxy.finish();
    }
}

/// What had been taken from an origin and could not be passed on lay in the pool's chunks, with its exchange, where nothing
/// copied it out of them: some dozen clients that did not read held all of a small pool, and the admin listener heard nobody.
fn responses_that_nobody_reads_leave_the_pool_to_others(driver: &'static str) {
    let origin = endless();
    let proxy = Setup::to(driver, origin.addr, "runtime: { cores: 1, poolMaxBytes: 1048576 }\n").start();
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..8 {
        let mut more: Vec<Client> = (0..16).map(|_| proxy.client()).collect();
        more.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        clients.extend(more);
        settled(&origin, clients.len());
        proxy.await_metric("connections_active", |count| count >= clients.len() as i64);
    }
    drop(clients);
    proxy.finish();
}

/// Waits until the origin could not send more for a while.
fn settled(origin: &Origin, least: usize) {
    let mut last = 0;
    let mut same = 0;
    eventually("the origin is held back", || {
        let now = origin.notes().len();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        now >= least && same > 60
    });
}

fn an_upload_that_nobody_reads_is_held_back(driver: &'static str) {
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::script(move |mut conn| {
        let _ = wait.lock().expect("no panic").recv();
        let mut total = 0;
        if conn.head().is_some() {
            let mut buf = vec![0; 256 << 10];
            while total < 64 << 20 {
                total += conn.wire.reader().read(&mut buf).expect("bytes");
            }
            conn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            conn.until_closed();
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let before = proxy.resident_kib();
    let mut client = proxy.client();
    let mut writer = Wire::over(client.stream().try_clone().expect("a descriptor"));
    let (progress, sent) = channel();
    let sending = std::thread::spawn(move || {
        writer.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", 64 << 20).as_bytes());
        let block = vec![b'x'; 64 << 10];
        for _ in 0..1 << 10 {
            writer.send(&block);
            let _ = progress.send(());
        }
    });
    let (mut count, mut same) = (0, 0);
    eventually("the client is held back", || {
        let more = sent.try_iter().count();
        count += more;
        same = if more == 0 { same + 1 } else { 0 };
        count > 0 && same > 60
    });
    assert!(count < 1 << 10, "all of it went somewhere");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < FEW_KIB, "{grown} KiB for an upload that is not read");
    drop(release);
    assert_eq!(client.response("POST").status(), 200);
    sending.join().expect("no panic");
    drop(client);
    proxy.finish();
}

/// Each chunk of a byte was held with hundreds of bytes around it.
fn chunks_of_one_byte_cost_no_more(driver: &'static str) {
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::script(move |_conn| {
        // An error is the release.
        let _ = wait.lock().expect("no panic").recv();
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let before = proxy.resident_kib();
    let mut clients = Vec::new();
    let chunks = "1\r\nx\r\n".repeat(20_000);
    for _ in 0..3 {
        let client = proxy.client();
        let mut stream = client.stream();
        let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).expect("room");
        stream.set_nonblocking(true).expect("a socket");
        let (mut sent, mut same) = (0, 0);
        eventually("the client is held back", || {
            // What was taken may end inside a chunk.
            let taken = stream.write(&chunks.as_bytes()[sent % 6..]);
            sent += taken.as_ref().map_or(0, |count| *count);
            same = if taken.is_ok() { 0 } else { same + 1 };
            same > 20
        });
        clients.push(client);
    }
    assert_eq!(proxy.metric("requests_active"), 3);
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < FEW_KIB, "{grown} KiB for 3 uploads in chunks of one byte");
    drop(clients);
    drop(release);
    proxy.finish();
}

fn pipelined_requests_wait_for_a_client_that_does_not_read(driver: &'static str) {
    let origin = Origin::answering(|_| crate::message::ok(&"x".repeat(100_000)).into_bytes());
    let proxy = Setup::to(driver, origin.addr, "timeouts: { header: 0.3s, writeIdle: 3600s }\n").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(300).as_bytes());
    let mut last = 0;
    let mut same = 0;
    eventually("the origin is asked no more", || {
        let now = origin.requests().len();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        now > 0 && same > 100
    });
    assert!(last < 300, "all were answered into a void");
    // They are whole and waited for us: no deadline for a head ends them.
    for _ in 0..300 {
        let response = client.response("GET");
        assert_eq!((response.status(), response.body.len()), (200, 100_000));
    }
    drop(client);
    proxy.finish();
}
