//! SIGTERM: what is in flight ends, what waits is answered, what is new is refused, and the exit code tells the rest.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::Signal;

use crate::message::{Client, Wire, ok};
use crate::origin::Origin;
use crate::rig::{Setup, cases, eventually};

cases![
    slow_requests_end_and_waiting_connections_are_answered,
    past_the_deadline_requests_are_cut_and_listed,
    a_response_that_is_not_read_is_cut_at_the_deadline,
    a_second_signal_ends_at_once,
    idle_connections_do_not_hold_up_the_end,
    silent_connections_do_not_hold_up_the_end,
];

/// Holds every request until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn origin(&self) -> Origin {
        let gate = self.clone();
        Origin::answering(move |request| {
            gate.pass();
            ok(&format!("late {}", request.target())).into_bytes()
        })
    }

    fn pass(&self) {
        let mut open = self.0.0.lock().expect("no panic");
        while !*open {
            open = self.0.1.wait(open).expect("no panic");
        }
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

/// An origin whose threads wait at the gate must not outlive a case that failed.
impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn slow_requests_end_and_waiting_connections_are_answered(driver: &'static str) {
    let gate = Gate::default();
    let origin = gate.origin();
    let config = "runtime: { cores: 2 }\nlimits: { maxConnections: 100 }\n";
    let mut proxy = Setup::to(driver, origin.addr, config).start();
    let mut slow: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for (at, client) in slow.iter_mut().enumerate() {
        client.send(get(&format!("/slow/{at}")).as_bytes());
    }
    proxy.await_metric("requests_active", |active| active == 100);
    // There is no room for more: these wait in the accept queue.
    proxy.await_metric("connections_paused_total", |count| count > 0);
    let mut waiting: Vec<Client> = (0..50).map(|_| proxy.client()).collect();
    for (at, client) in waiting.iter_mut().enumerate() {
        client.send(get(&format!("/waiting/{at}")).as_bytes());
    }
    proxy.terminate();
    proxy.await_log("draining");
    eventually("new connections are refused", || {
        TcpStream::connect(proxy.addr()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let health = Client::connect(proxy.named("admin")).ask(&get("/healthz"));
    assert_eq!((health.status(), health.text().as_str()), (503, "draining\n"));
    gate.open();
    for (kind, clients) in [("slow", &mut slow), ("waiting", &mut waiting)] {
        for (at, client) in clients.iter_mut().enumerate() {
            let response = client.response("GET");
            assert_eq!((response.status(), response.text()), (200, format!("late /{kind}/{at}")));
            assert_eq!(response.field("connection").to_ascii_lowercase(), "close", "{response:?}");
            client.ends();
        }
    }
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("request cut"), "{log}");
}

fn past_the_deadline_requests_are_cut_and_listed(driver: &'static str) {
    let gate = Gate::default();
    let origin = gate.origin();
    let config = "timeouts: { drain: 0.2s }\naccessLog: { path: FOLDER/access.log }\n";
    let mut proxy = Setup::to(driver, origin.addr, config).start();
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/held/{at}")).as_bytes());
    }
    proxy.await_metric("requests_active", |active| active == 10);
    proxy.terminate();
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(1), "{log}");
    let access = std::fs::read_to_string(proxy.folder.path().join("access.log")).expect("a log");
    for (at, client) in clients.iter_mut().enumerate() {
        let target = format!("/held/{at}");
        let listed = log.lines().filter(|line| line.contains("request cut"));
        let listed = listed.filter(|line| line.contains(&format!("{target:?}"))).count();
        assert_eq!(listed, 1, "{target} is not listed once:\n{log}");
        let logged = access.lines().filter(|line| line.contains(&format!(" {target}\""))).count();
        assert_eq!(logged, 1, "{target} is not in the access log once:\n{access}");
        assert!(client.try_response("GET").is_err(), "a cut request has no response");
    }
    assert!(log.contains("cut=10"), "{log}");
}

/// The origin's part of such an exchange is over: it was once forgotten, and a truncated response ended with exit code 0.
fn a_response_that_is_not_read_is_cut_at_the_deadline(driver: &'static str) {
    // More than the kernel holds for a Unix socket, and less than what the proxy hands over at once. Copied: of what is
    // spliced the kernel counts no overhead, and so holds more.
    let origin = Origin::answering(|_| ok(&"x".repeat(250 * 1024)).into_bytes());
    let config = "listeners: [{ name: web, address: \"unix:FOLDER/web.sock\" }]\ntimeouts: { drain: 0.2s }\n\
                  runtime: { cores: 1, spliceMinBytes: 1048576 }\n";
    let mut proxy = Setup::to(driver, origin.addr, config).start();
    let path = proxy.folder.path().join("web.sock");
    let mut client = Wire::new(UnixStream::connect(path).expect("it listens"));
    client.send(get("/unread").as_bytes());
    proxy.await_metric("responses_total", |count| count == 1);
    proxy.await_metric("requests_active", |active| active == 0);
    proxy.terminate();
    let (status, log) = proxy.exit();
    assert!(client.try_response("GET").is_err(), "the whole response came: the case shows nothing");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("unsent=1"), "{log}");
}

fn a_second_signal_ends_at_once(driver: &'static str) {
    let gate = Gate::default();
    let origin = gate.origin();
    for second in [Signal::TERM, Signal::INT] {
        let mut proxy = Setup::to(driver, origin.addr, "timeouts: { drain: 3600s }\n").start();
        let mut client = proxy.client();
        client.send(get("/held").as_bytes());
        proxy.await_metric("requests_active", |active| active == 1);
        proxy.terminate();
        proxy.await_log("draining");
        proxy.signal(second);
        let (status, log) = proxy.exit();
        // Wine's code of a process that ends while its threads do is 0 now and then.
        let is_as_told = status.code() == Some(1) || driver == "iocp" && status.code() == Some(0);
        assert!(is_as_told, "{status}: {log}");
        assert!(log.contains("asked to stop again"), "{log}");
    }
}

fn idle_connections_do_not_hold_up_the_end(driver: &'static str) {
    let origin = Origin::echo();
    let mut proxy = Setup::to(driver, origin.addr, "timeouts: { drain: 3600s }\n").start();
    let mut served = proxy.client();
    assert_eq!(served.ask(&get("/")).status(), 200);
    proxy.terminate();
    served.ends();
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Browsers connect before they have something to ask: such a connection held the process for the time of a whole head.
fn silent_connections_do_not_hold_up_the_end(driver: &'static str) {
    let origin = Origin::echo();
    let config = "timeouts: { drain: 3600s, header: 3600s }\n";
    let mut proxy = Setup::to(driver, origin.addr, config).start();
    let mut silent = proxy.client();
    proxy.await_metric("connections_active", |active| active == 1);
    proxy.terminate();
    silent.ends();
    let (status, log) = proxy.exit();
    assert_eq!(status.code(), Some(0), "{log}");
}
