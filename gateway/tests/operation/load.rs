//! Many requests over many connections: none is lost, and nothing grows with their number.

use std::io::{Write, stderr};
use std::thread;
use std::time::Instant;

use crate::message::Client;
use crate::origin::Origin;
use crate::rig::{Proxy, Setup, cases};

cases![no_request_is_lost_and_nothing_grows,];

const CONNECTIONS: usize = 64;
/// As many as `RINGPORT_LOAD_REQUESTS` says, or so many.
const REQUESTS: usize = 20_000;
/// What the allocator may keep, and descriptors of the request for `/metrics`.
const MORE_BYTES: i64 = 8 << 20;
const MORE_FDS: i64 = 8;

fn no_request_is_lost_and_nothing_grows(driver: &'static str) {
    let wanted =
        std::env::var("RINGPORT_LOAD_REQUESTS").map_or(REQUESTS, |text| text.parse().expect("a count"));
    let each = wanted.div_ceil(CONNECTIONS);
    let origin = Origin::echo();
    let proxy = Setup::to(driver, origin.addr, "runtime: { cores: 2 }\n").start();
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| proxy.client()).collect();
    // Connections to the origin and buffers are made before anything is compared.
    let clients = ask_all(clients, each.div_ceil(10));
    let (before, begin) = (levels(&proxy), Instant::now());
    let clients = ask_all(clients, each);
    let (after, took) = (levels(&proxy), begin.elapsed());
    let count = (each * CONNECTIONS) as i64;
    // Past the harness, which would keep it to itself when the test passes.
    let _ = writeln!(
        stderr(),
        "{driver}: {count} requests over {CONNECTIONS} connections in {:.1} s; before and after: descriptors {} and {}, \
         resident {} and {} KiB",
        took.as_secs_f64(),
        before.fds,
        after.fds,
        before.bytes >> 10,
        after.bytes >> 10,
    );
    if driver == "iocp" {
        // Half of the connections each, as they are dealt out; requests differ in length by a few digits.
        let bytes = proxy.metric_of_cores("core_received_bytes");
        let [least, most] = [bytes.iter().min(), bytes.iter().max()].map(|bytes| *bytes.expect("two cores"));
        assert!(bytes.len() == 2 && least * 10 > most * 9, "one core has more: {bytes:?} bytes received");
    }
    // The looks at the levels are no requests of the proxy.
    assert_eq!(after.requests - before.requests, count);
    assert_eq!((after.failed, proxy.metric("requests_cut_total")), (0, 0));
    assert!(after.fds <= before.fds + MORE_FDS, "descriptors grew from {} to {}", before.fds, after.fds);
    assert!(after.bytes <= before.bytes + MORE_BYTES, "memory grew from {} to {}", before.bytes, after.bytes);
    drop(clients);
    proxy.finish();
}

/// A thread each; every answer is the one to its own request.
fn ask_all(clients: Vec<Client>, each: usize) -> Vec<Client> {
    let asking = clients.into_iter().enumerate().map(|(index, mut client)| {
        thread::spawn(move || {
            for number in 0..each {
                let target = format!("/{index}/{number}");
                let response = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
                assert_eq!((response.status(), response.text()), (200, format!("GET {target} ")));
            }
            client
        })
    });
    let asking: Vec<_> = asking.collect();
    asking.into_iter().map(|thread| thread.join().expect("every request is answered")).collect()
}

struct Levels {
    requests: i64,
    failed: i64,
    /// Without connections to the origin that are kept: how many were needed at once is chance.
    fds: i64,
    bytes: i64,
}

fn levels(proxy: &Proxy) -> Levels {
    Levels {
        requests: proxy.metric("requests_total"),
        failed: proxy.metric("requests_aborted_total"),
        // Wine counts no handles.
        fds: i64::try_from(proxy.open_fds()).expect("few") - proxy.metric("origin_idle"),
        bytes: proxy.metric("process_resident_bytes"),
    }
}
