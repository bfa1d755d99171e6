//! One of two origins is killed under load: every request is accounted for by clients, log and metrics alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::message::Client;
use crate::process::{Process, have};
use crate::rig::{Proxy, Setup, cases};

cases![requests_of_a_killed_origin_fail_or_move,];

/// Answers at once, but holds `/hold/..` until a line comes on standard input.
const ORIGIN: &str = r#"
import asyncio, sys
gate = asyncio.Event()
async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [l.split(":")[1] for l in head.split("\r\n") if l.lower().startswith("content-length:")]
            if lengths: await reader.readexactly(int(lengths[0]))
            if " /hold" in head.split("\r\n")[0]: await gate.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print("port", server.sockets[0].getsockname()[1])
    asyncio.get_running_loop().add_reader(0, gate.set)
    await server.serve_forever()
asyncio.run(main())
"#;

/// What clients saw: each request with its status.
type Seen = Arc<Mutex<Vec<(String, u16)>>>;

fn requests_of_a_killed_origin_fail_or_move(driver: &'static str) {
    if !have("a killed origin", &["python3"]) {
        return;
    }
    let (doomed, doomed_addr) = Process::python(ORIGIN, &[]);
    let (mut kept, kept_addr) = Process::python(ORIGIN, &[]);
    let pool = format!("origins: [{{ address: \"{doomed_addr}\" }}, {{ address: \"{kept_addr}\" }}]");
    let mut proxy = Setup::pool(driver, &pool, "accessLog: { path: FOLDER/access.log }\n").start();
    let seen = Seen::default();
    // In flight at both when one dies: requests that may be repeated, and such that may not.
    let mut held = Vec::new();
    for at in 0..40 {
        let method = if at % 4 < 2 { "GET" } else { "POST" };
        held.push(hold(&proxy, method, at));
    }
    proxy.await_metric("requests_active", |active| active == 40);
    let ended = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4).map(|_| load(&proxy, &seen, &ended)).collect();
    await_count(&seen, 200);
    doomed.signal(Signal::KILL);
    let at_death = seen.lock().expect("no panic").len();
    await_count(&seen, at_death + 400);
    ended.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|thread| thread.join().expect("the load runs"));
    kept.tell("go");
    for (request, method, mut client) in held {
        let status = client.response(method).status();
        seen.lock().expect("no panic").push((request, status));
    }
    let metrics = proxy.metrics_text();
    proxy.assert_idle();
    proxy.terminate();
    assert_eq!(proxy.exit().0.code(), Some(0));
    let access = std::fs::read_to_string(proxy.folder.path().join("access.log")).expect("a log");
    account(&seen.lock().expect("no panic"), &access, &metrics, &doomed_addr.to_string());
}

/// Compares what clients saw with the log and the metrics.
fn account(seen: &[(String, u16)], access: &str, metrics: &str, doomed: &str) {
    let clients = |status: u16| seen.iter().filter(|(_, found)| *found == status).count();
    let logged = |status: u16| access.lines().filter(|line| line.contains(&format!("\" {status} "))).count();
    let metric = |name: &str| {
        let line =
            metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).expect("the metric is there")
    };
    let (ok, failed) = (clients(200), clients(502));
    assert_eq!(ok + failed, seen.len(), "another status: {seen:?}");
    assert_eq!((ok, failed), (logged(200), logged(502)), "clients and the log differ");
    assert_eq!(access.lines().count(), seen.len());
    assert_eq!(ok, metric("ringport_responses_total{class=\"2xx\"}"));
    assert_eq!(failed, metric("ringport_responses_total{class=\"5xx\"}"));
    assert_eq!(seen.len(), metric("ringport_requests_total"));
    assert_eq!(metric("ringport_requests_aborted_total"), 0);
    // Half of the requests that were held, one in four of all, may not be repeated and had reached the dead one.
    assert_eq!(
        seen.iter().filter(|(request, status)| request.contains("/hold") && *status == 502).count(),
        10
    );
    for (request, status) in seen {
        assert!(*status == 200 || request.starts_with("POST"), "{request} could have been repeated");
    }
    for line in access.lines().filter(|line| line.contains("\" 502 ")) {
        assert!(line.contains(doomed) && line.contains("\"broken ("), "{line}");
    }
    // Every attempt was on a new connection, on a kept one, or refused.
    let attempts =
        ["connects", "reused", "refused"].map(|name| metric(&format!("ringport_origin_{name}_total")));
    assert_eq!(attempts.iter().sum::<usize>(), seen.len() + metric("ringport_retries_total"));
    assert!(metric("ringport_retries_total") >= 10, "what was held at the dead origin moves");
    assert!(metric("ringport_origin_ejections_total") >= 1);
}

fn request(method: &str, target: &str) -> String {
    let body = if method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{body}")
}

fn hold(proxy: &Proxy, method: &'static str, at: usize) -> (String, &'static str, Client) {
    let mut client = proxy.client();
    client.send(request(method, &format!("/hold/{at}")).as_bytes());
    // In order, so that the pool's turns are known.
    proxy.await_metric("requests_active", |active| active == at as i64 + 1);
    (format!("{method} /hold/{at}"), method, client)
}

fn load(proxy: &Proxy, seen: &Seen, ended: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (addr, seen, ended) = (proxy.addr(), seen.clone(), ended.clone());
    thread::spawn(move || {
        let mut client = Client::connect(addr);
        for at in 0.. {
            if ended.load(Ordering::SeqCst) {
                return;
            }
            let method = if at % 2 == 0 { "GET" } else { "POST" };
            let response = client.ask(&request(method, "/load"));
            seen.lock().expect("no panic").push((format!("{method} /load"), response.status()));
        }
    })
}

fn await_count(seen: &Seen, count: usize) {
    crate::rig::eventually("the load goes on", || seen.lock().expect("no panic").len() >= count);
}
