//! `ringport bench`, the real binary, against servers that do as they are told, on both drivers.
//!
//! What is asserted are counts, and bounds that a slower machine keeps as well.

#[path = "proxy/message.rs"]
#[expect(dead_code, reason = "shared with the other test programs; each uses a part")]
mod message;
#[path = "proxy/origin.rs"]
#[expect(dead_code, reason = "shared with the other test programs; each uses a part")]
mod origin;
#[path = "operation/process.rs"]
#[expect(dead_code, reason = "shared with the other test programs; each uses a part")]
mod process;
#[path = "proxy/rig.rs"]
#[expect(dead_code, reason = "shared with the other test programs; each uses a part")]
mod rig;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::message::ok;
use crate::origin::Origin;
use crate::process::{Ended, Process, ringport, run};
use crate::rig::{Folder, cases, eventually};

fn bench(driver: &str, arguments: &[&str]) -> Ended {
    run(ringport(&[&["bench"], arguments].concat()).env("RINGPORT_DRIVER", driver))
}

/// Runs with `--json`; the exit code and what was printed.
fn json(driver: &str, arguments: &[&str]) -> (i32, Value) {
    let ended = bench(driver, &[arguments, &["--json"]].concat());
    let value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended.code().expect("not killed"), value)
}

fn url(addr: SocketAddr) -> String {
    format!("http://{addr}/a?b=c")
}

cases! {
    every_request_is_sent_once,
    pipelined_requests_are_answered_in_order,
    what_a_closing_server_left_is_sent_again,
    the_request_is_as_told,
    a_connection_carries_one_request_if_told_so,
    an_open_loop_keeps_its_rate,
    a_stall_is_charged_to_all_who_waited,
    failures_are_counted_by_kind,
    a_silent_server_is_a_failure,
    statuses_are_counted_by_class,
    echoes_are_compared,
    a_signal_ends_it_with_a_report,
    the_warm_up_is_not_counted,
    the_loads_own_part_is_told,
    people_read_a_table,
}

fn every_request_is_sent_once(driver: &str) {
    let origin = Origin::echo();
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-n", "101", "-c", "5", "-t", "2"]);
    assert_eq!(code, 0, "{seen}");
    assert_eq!(origin.requests().len(), 101);
    let body = "GET /a?b=c ".len() * 101;
    let expected = [("sent", 101), ("answered", 101), ("failed", 0), ("unanswered", 0), ("unsent", 0)];
    for (key, count) in expected.into_iter().chain([("bodyBytes", body), ("connectionsOpened", 5)]) {
        assert_eq!(seen[key], count, "{key} in {seen}");
    }
    assert_eq!((&seen["statuses"]["2xx"], &seen["driver"]), (&101.into(), &driver.into()), "{seen}");
    let latency = &seen["latencyNanoseconds"];
    let places: Vec<u64> =
        ["min", "p50", "p90", "p99", "p99.9", "max"].iter().filter_map(|at| latency[at].as_u64()).collect();
    assert!(places.len() == 6 && places.is_sorted(), "{latency}");
    let rows = latency["histogram"].as_array().expect("rows");
    assert_eq!(rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>(), 101, "{latency}");
}

fn pipelined_requests_are_answered_in_order(driver: &str) {
    // No answer before four requests have come: a client that waits for each would wait for ever.
    let origin = Origin::script(|mut conn| {
        while (0..4).all(|_| conn.request().is_some()) {
            conn.wire.send(ok("four").repeat(4).as_bytes());
        }
    });
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-n", "40", "-c", "1", "-p", "4"]);
    assert_eq!((code, &seen["answered"], origin.requests().len()), (0, &40.into(), 40), "{seen}");
}

fn what_a_closing_server_left_is_sent_again(driver: &str) {
    let origin = Origin::script(|mut conn| {
        for _ in 0..2 {
            if conn.request().is_none() {
                return;
            }
            conn.wire.send(ok("kept").as_bytes());
        }
        // The rest of the pipeline is read and will have no answer: a reset must not overtake the last one.
        if conn.request().is_some() {
            conn.wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            conn.until_closed();
        }
    });
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-n", "30", "-c", "1", "-p", "5"]);
    assert_eq!((code, &seen["answered"], &seen["failed"]), (0, &30.into(), &0.into()), "{seen}");
    assert_eq!((&seen["sent"], &seen["connectionsOpened"]), (&30.into(), &10.into()), "{seen}");
}

fn the_request_is_as_told(driver: &str) {
    let origin = Origin::echo();
    let folder = Folder::new();
    let file = format!("@{}", folder.file("body", "from a file").display());
    let more = ["-X", "PUT", "-H", "X-A: b", "-H", "Host: other.example", "-n", "1"];
    for (body, expected) in [("text", "text"), (file.as_str(), "from a file")] {
        let (code, seen) =
            json(driver, &[&["http", &url(origin.addr), "--body", body], &more[..], &["-c", "1"]].concat());
        let request = origin.requests().pop().expect("a request");
        assert_eq!((code, request.method(), request.target()), (0, "PUT", "/a?b=c"), "{seen}");
        assert_eq!((request.field("x-a"), request.field("host")), ("b", "other.example"), "{request:?}");
        assert_eq!((request.text().as_str(), request.has("connection")), (expected, false), "{request:?}");
    }
}

fn a_connection_carries_one_request_if_told_so(driver: &str) {
    let origin = Origin::echo();
    let (code, seen) =
        json(driver, &["http", &url(origin.addr), "-n", "20", "-c", "2", "--connection-per-request"]);
    assert_eq!((code, &seen["answered"], &seen["connectionsOpened"]), (0, &20.into(), &20.into()), "{seen}");
    assert_eq!(origin.connections(), 20);
    assert!(origin.requests().iter().all(|request| request.field("connection") == "close"));
    // An echo server is told nothing and would go on: the client's own rule ends the connection.
    let addr = echo_server(|byte| byte).to_string();
    let (code, seen) = json(driver, &["echo", &addr, "-n", "6", "-c", "2", "--connection-per-request"]);
    assert_eq!((code, &seen["answered"], &seen["connectionsOpened"]), (0, &6.into(), &6.into()), "{seen}");
}

fn an_open_loop_keeps_its_rate(driver: &str) {
    let origin = Origin::echo();
    let rate = ["-r", "200", "-d", "500ms", "-c", "4", "-t", "2"];
    let (code, seen) = json(driver, &[&["http", &url(origin.addr)], &rate[..]].concat());
    let count = |key: &str| seen[key].as_u64().expect("a count");
    // A machine that is too slow leaves some unsent; none is sent beyond the rate, and none is forgotten.
    assert_eq!((code, count("sent") + count("unsent")), (0, 100), "{seen}");
    assert_eq!(count("answered") + count("unanswered"), count("sent"), "{seen}");
    assert_eq!(origin.requests().len() as u64, count("sent"));
    assert!(seen["seconds"].as_f64().expect("a time") >= 0.5, "{seen}");
}

fn a_stall_is_charged_to_all_who_waited(driver: &str) {
    // A closed loop would see one slow answer among a hundred: coordinated omission.
    let asked = AtomicUsize::new(0);
    let origin = Origin::answering(move |_| {
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            thread::sleep(STALL); // tidy: the stall is what is measured
        }
        ok("late").into_bytes()
    });
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-r", "1000", "-n", "100", "-c", "1"]);
    assert_eq!((code, &seen["answered"]), (0, &100.into()), "{seen}");
    // The last was due 99 ms after the first, and could not be sent before the stall was over.
    let least = seen["latencyNanoseconds"]["min"].as_u64().expect("a latency");
    assert!(Duration::from_nanos(least) >= STALL - Duration::from_millis(101), "{seen}");
}

const STALL: Duration = Duration::from_millis(300);

fn failures_are_counted_by_kind(driver: &str) {
    let check = |kind: &str, addr: SocketAddr| {
        let arguments = ["http", &url(addr), "-n", "3", "-c", "1", "--timeout", "300ms"];
        let (code, seen) = json(driver, &arguments);
        assert_eq!(
            (code, &seen["failures"][kind], &seen["failed"]),
            (1, &3.into(), &3.into()),
            "{kind}: {seen}"
        );
        assert_eq!((&seen["sent"], &seen["latencyNanoseconds"]), (&3.into(), &Value::Null), "{kind}: {seen}");
        let (code, _) = json(driver, &[&arguments[..], &["--max-failures", "3"]].concat());
        assert_eq!(code, 0, "{kind} within the threshold");
    };
    check("refused", Origin::refusing());
    let script = |act: fn(origin::Conn)| {
        Origin::script(move |mut conn| {
            if conn.request().is_some() {
                act(conn);
            }
        })
    };
    check("reset", script(origin::Conn::reset).addr);
    check("timeout", script(|mut conn| conn.until_closed()).addr);
    check("badResponse", script(|mut conn| conn.wire.send(b"SSH-2.0-x\r\n\r\n")).addr);
    check(
        "closed",
        script(|mut conn| conn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")).addr,
    );
}

fn a_silent_server_is_a_failure(driver: &str) {
    let origin = Origin::script(|mut conn| conn.until_closed());
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-d", "500ms", "-c", "3"]);
    assert_eq!((code, &seen["unanswered"], &seen["failed"]), (1, &3.into(), &0.into()), "{seen}");
}

fn statuses_are_counted_by_class(driver: &str) {
    let asked = AtomicUsize::new(0);
    let origin = Origin::answering(move |_| {
        let lines = ["200 OK", "204 No Content", "302 Found", "404 Not Found", "503 Service Unavailable"];
        let line = lines[asked.fetch_add(1, Ordering::SeqCst) % lines.len()];
        let length = if line.starts_with("204") { "" } else { "Content-Length: 0\r\n" };
        format!("HTTP/1.1 {line}\r\n{length}\r\n").into_bytes()
    });
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-n", "50", "-c", "1"]);
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"].map(|class| seen["statuses"][class].as_u64());
    assert_eq!((code, classes), (0, [0, 20, 10, 10, 10, 0].map(Some)), "{seen}");
}

/// Sends back what comes, each byte through `change`, on threads that end with their connections.
fn echo_server(change: fn(u8) -> u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    bytes[..count].iter_mut().for_each(|byte| *byte = change(*byte));
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn echoes_are_compared(driver: &str) {
    let addr = echo_server(|byte| byte).to_string();
    let (code, seen) = json(driver, &["echo", &addr, "-n", "200", "-c", "3", "-p", "4", "--size", "10000"]);
    assert_eq!((code, &seen["answered"], &seen["bodyBytes"]), (0, &200.into(), &2_000_000.into()), "{seen}");
    let addr = echo_server(|byte| byte ^ 1).to_string();
    let (code, seen) = json(driver, &["echo", &addr, "-n", "5", "-c", "1"]);
    assert_eq!((code, &seen["failures"]["badResponse"]), (1, &5.into()), "{seen}");
}

fn a_signal_ends_it_with_a_report(driver: &str) {
    let origin = Origin::echo();
    let arguments = ["bench", "http", &url(origin.addr), "-d", "1h", "-c", "2", "--json"];
    let mut process = Process::start(ringport(&arguments).env("RINGPORT_DRIVER", driver));
    eventually("requests", || origin.requests().len() > 10);
    process.signal(rustix::process::Signal::INT);
    assert_eq!(process.exit().code(), Some(0));
    process.wait_for(|line| (line == "}").then_some(()));
    let seen: Value = serde_json::from_str(&process.log()).expect("JSON alone");
    assert_eq!((&seen["interrupted"], &seen["failed"]), (&true.into(), &0.into()), "{seen}");
    assert_eq!(seen["answered"], origin.requests().len(), "{seen}");
}

fn the_warm_up_is_not_counted(driver: &str) {
    let origin = Origin::echo();
    let (code, seen) =
        json(driver, &["http", &url(origin.addr), "--warm-up", "100ms", "-n", "10", "-c", "1", "-r", "100"]);
    assert_eq!((code, &seen["sent"], &seen["answered"]), (0, &10.into(), &10.into()), "{seen}");
    // Ten more were due before; a machine that stood still for 0.1 s would have sent fewer, never more.
    assert!((10..=20).contains(&origin.requests().len()), "{}", origin.requests().len());
}

/// What the load itself adds to a latency is told, so that nobody takes it for the server's.
fn the_loads_own_part_is_told(driver: &str) {
    let origin = Origin::echo();
    let (code, seen) = json(driver, &["http", &url(origin.addr), "-n", "20", "-c", "2", "-r", "200"]);
    assert_eq!(code, 0, "{seen}");
    let rows = seen["sentLateNanoseconds"]["histogram"].as_array().expect("some were waited for");
    assert!((1..=20).contains(&rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>()), "{seen}");
    // Windows counts a thread's time in ticks of the clock, of which this may be none.
    let least = if rig::is_windows() { -1.0 } else { 0.0 };
    assert!(seen["loadBusy"].as_f64().is_some_and(|busy| busy > least && busy < 1.1), "{seen}");
    let late = seen["sentLateNanoseconds"]["p50"].as_u64();
    assert!(late <= seen["latencyNanoseconds"]["max"].as_u64(), "{seen}");
    // In a closed loop a request is due when it is sent.
    let (_, seen) = json(driver, &["http", &url(origin.addr), "-n", "20", "-c", "2"]);
    assert!(seen["sentLateNanoseconds"].is_null(), "{seen}");
}

fn people_read_a_table(driver: &str) {
    let origin = Origin::echo();
    let ended = bench(driver, &["http", &url(origin.addr), "-n", "20", "-c", "2"]);
    assert_eq!((ended.code(), ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let parts = [
        "20 sent, 20 answered, 0 failed",
        "2xx         20",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "##",
        "load        busiest core",
    ];
    for part in parts {
        assert!(ended.out.contains(part), "{part:?} is missing:\n{}", ended.out);
    }
}

#[test]
fn faults_in_the_command_are_told() {
    let check = |arguments: &[&str], part: &str| {
        let ended = run(&mut ringport(&[&["bench"], arguments].concat()));
        assert_eq!((ended.code(), ended.out.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.err.contains(part), "{part:?} is missing: {ended:?}");
    };
    check(&["http", "https://127.0.0.1/"], "https is not supported");
    check(&["http", "127.0.0.1:80"], "no scheme");
    check(&["http", "http://127.0.0.1:1/", "-c", "2", "-t", "3"], "at least as many connections");
    check(&["http", "http://127.0.0.1:1/", "-c", "1000000"], "too many");
    check(&["http", "http://127.0.0.1:1/", "-d", "10"], "no duration");
    check(&["http", "http://127.0.0.1:1/", "-r", "0"], "no rate");
    check(&["http", "http://127.0.0.1:1/", "-n", "0"], "0 is not in");
    check(&["http", "http://127.0.0.1:1/", "-H", "Transfer-Encoding: x"], "not to be set");
    check(&["http", "http://127.0.0.1:1/", "-b", "@/no/such/file"], "cannot read");
    check(&["http", "http://127.0.0.1:1/", "-p", "2", "--connection-per-request"], "cannot be used with");
    check(&["echo", "nohost"], "\"nohost\" has no port; write HOST:PORT");
    check(&["echo", "no.such.invalid:1"], "cannot find");
    check(&["echo", "unix:"], "has no path");
    check(&["echo", "unix://"], "has no path");
    check(
        &["drivers", "--svg", "/no/such/folder/a.svg", "-d", "1h", "--rounds", "1", "-c", "1"],
        "cannot write",
    );
}

/// A report that could not be written used to end with exit code 0.
#[test]
fn a_report_that_cannot_be_written_is_a_fault() {
    let origin = Origin::echo();
    let url = url(origin.addr);
    for arguments in
        [&["bench", "http", &url, "-n", "1"][..], &["bench", "http", &url, "-n", "1", "--json"], &["probe"]]
    {
        let full =
            std::fs::File::options().write(true).open("/dev/full").expect("the device that is always full");
        let ended = ringport(arguments).stdout(full).output().expect("it runs");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains("cannot write to the standard output: No space left"), "{err}");
    }
}

/// `ringport bench .. | head -1`, and a terminal that has gone: who has no reader ends as with one.
#[test]
fn nobody_need_read() {
    let origin = Origin::echo();
    let (url, nobody) = (url(origin.addr), || {
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        drop(reader);
        writer
    });
    for (arguments, code) in [
        (&["bench", "http", &url, "-n", "20"][..], 0),
        (&["bench", "http", &url, "-n", "20", "--json"], 0),
        (&["bench", "http", "no url"], 2),
        (&["probe"], 0),
        (&["check", "/nowhere.yaml"], 2),
        (&["proxy", "--config", "/nowhere"], 2),
    ] {
        let ended = ringport(arguments).stdout(nobody()).stderr(nobody()).output().expect("it runs");
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn drivers_are_compared() {
    let folder = Folder::new();
    let file = folder.path().join("drivers.svg").display().to_string();
    let arguments = ["drivers", "-d", "50ms", "--rounds", "1", "-c", "4", "--svg", &file];
    let (code, seen) = json("epoll", &arguments);
    assert_eq!(code, 0, "{seen}");
    let results = seen["results"].as_array().expect("rows");
    assert_eq!(results.len(), 4, "{seen}");
    for row in results {
        let measured = ["requestsPerSecond", "cpuNanosecondsPerRequest", "syscallsPerRequest"];
        if row["measured"] == true {
            assert!(measured.iter().all(|key| row[key].as_f64().is_some_and(|value| value > 0.0)), "{row}");
        } else {
            assert!(row["driver"] == "uring" && row["reason"].is_string(), "{row}");
        }
    }
    assert!(seen["best"].as_object().is_some_and(|best| best.len() == 2), "{seen}");
    let svg = std::fs::read_to_string(&file).expect("the picture");
    assert!(svg.starts_with("<svg ") && svg.contains("epoll"), "{svg}");
}

#[test]
fn drivers_are_compared_with_each_mechanism_off() {
    let ended = bench("epoll", &["drivers", "-d", "10ms", "--rounds", "1", "-c", "1", "--each"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for part in ["uring without silent", "epoll", "requests/s", "echo: ", "hello: "] {
        assert!(ended.out.contains(part), "{part:?} is missing:\n{}", ended.out);
    }
}
