//! `ringport` without arguments, and `ringport probe`.

use std::process::Command;

use rustix::process::Signal;

use crate::process::{Process, have, is_root, ringport, ringport_under, run, skipped};
use crate::rig::{BINARY, cases};

cases![without_arguments_it_serves_a_demo,];

/// The demo's ports are fixed: in a network namespace of its own it meets nobody else's.
fn without_arguments_it_serves_a_demo(driver: &'static str) {
    const CASE: &str = "the demo";
    if !have(CASE, &["unshare", "nsenter", "ip", "curl"]) {
        return;
    }
    if !is_root() {
        return skipped(CASE, "needs root, for a network namespace");
    }
    let namespace = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    let mut demo = Process::start(ringport_under(&namespace, &[]).env("RINGPORT_DRIVER", driver));
    let line = demo.wait_for(|line| line.strip_prefix("try:").map(|line| line.trim().to_owned()));
    assert_eq!(line, "curl -i http://127.0.0.1:8080/");
    demo.wait_for(|line| (line == format!("driver: {driver}, as asked for")).then_some(()));
    let inside = |program: &str| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &demo.pid().to_string(), "--net", program]);
        command.env_remove("RINGPORT_DRIVER").env_remove("RUST_LOG");
        command
    };
    let curl = run(inside("curl").args(["-sSi", "http://127.0.0.1:8080/"]));
    assert!(
        curl.out.starts_with("HTTP/1.1 200 OK\r\n") && curl.out.ends_with("\r\n\r\nHello, world!"),
        "{curl:?}"
    );
    let curl = run(inside("curl").args(["-sS", "-d", "body", "http://127.0.0.1:8080/some/path?q"]));
    assert_eq!(curl.out, "POST /some/path?q\n", "{curl:?}");
    let curl = run(inside("curl").args(["-sS", "http://127.0.0.1:8081/metrics"]));
    assert!(curl.out.contains("ringport_requests_total 2\n"), "{curl:?}");
    let or = demo.wait_for(|line| line.strip_prefix("or:").map(|line| line.trim().to_owned()));
    let words: Vec<_> = or.split(' ').collect();
    assert_eq!((words[0], words[2], words[4]), ("curl", "--cacert", "https://127.0.0.1:8443/"), "{or}");
    let cert = words[3].to_owned();
    for url in [words[4], "https://localhost:8443/"] {
        let curl = run(inside("curl").args(["-sS", "--cacert", &cert, url]));
        assert_eq!(curl.out, "Hello, world!", "{curl:?}");
    }
    // It is there only once.
    run(&mut inside(BINARY)).assert_refused(&["cannot listen on 127.0.0.1:8080", "in use"]);
    demo.signal(Signal::INT);
    assert_eq!(demo.exit().code(), Some(0), "{}", demo.log());
    assert!(!demo.log().contains("panicked"), "{}", demo.log());
    assert!(!std::path::Path::new(&cert).exists(), "it is gone with the demo");
}

/// A reader that goes away early is no fault of ours.
#[test]
fn a_closed_standard_output_is_no_panic() {
    let command = format!("'{BINARY}' probe | true; exit ${{PIPESTATUS[0]}}");
    let ended = run(Command::new("bash").args(["-c", &command]));
    assert!(!ended.err.contains("panicked"), "{ended:?}");
}

#[test]
fn probe_prints_a_table_and_json() {
    let table = run(&mut ringport(&["probe"]));
    assert_eq!((table.code(), table.err.as_str()), (Some(0), ""), "{table:?}");
    for row in ["kernel ", "cores ", "open files ", "io_uring ", "epoll ", "auto takes "] {
        assert!(table.out.lines().any(|line| line.starts_with(row)), "{row:?} is missing:\n{}", table.out);
    }
    let ended = run(&mut ringport(&["probe", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&json["epoll"]["available"], &json["forced"]), (&true.into(), &false.into()), "{json}");
    for field in ["kernel", "cores", "openFiles", "uring", "taken"] {
        assert!(!json[field].is_null(), "{field}: {json}");
    }
    let taken = json["taken"].as_str().expect("a sentence");
    if json["uring"]["available"] == true {
        let features = json["uring"]["features"].as_array().expect("a list");
        assert!(!features.is_empty() && features.iter().all(|feature| feature["name"].is_string()), "{json}");
        assert!(taken.starts_with("uring, "), "{json}");
    } else {
        assert!(json["uring"]["reason"].is_string() && taken.starts_with("epoll, because "), "{json}");
    }
    let forced = run(ringport(&["probe", "--json"]).env("RINGPORT_DRIVER", "epoll"));
    let json: serde_json::Value = serde_json::from_str(&forced.out).expect("JSON");
    assert_eq!((&json["forced"], &json["taken"]), (&true.into(), &"epoll, as asked for".into()), "{json}");
}

/// Every option of the table, and what a process without capabilities may not set.
#[test]
fn probe_prints_every_socket_option() {
    let options = |wrapper: &[&str]| {
        let ended = run(&mut ringport_under(wrapper, &["probe", "--sockopts", "--json"]));
        assert_eq!((ended.code(), ended.err.as_str()), (Some(0), ""), "{ended:?}");
        let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
        json["sockopts"].as_array().expect("a list").clone()
    };
    let all = options(&["env"]);
    assert!(all.len() > 60, "{}", all.len());
    let nodelay = all.iter().find(|option| option["name"] == "TCP_NODELAY").expect("TCP_NODELAY");
    for (field, value) in [
        ("level", serde_json::json!(6)),
        ("number", 1.into()),
        ("stage", "S3".into()),
        ("networks", serde_json::json!(["tcp"])),
        ("takes", "on or off".into()),
        ("accepted", "inherits".into()),
        ("windows", true.into()),
        ("readBack", "equal".into()),
        ("fields", serde_json::json!(["tcpOption.noDelay"])),
    ] {
        assert_eq!(nodelay[field], value, "{field}: {nodelay}");
    }
    assert_eq!(nodelay["here"]["report"], "TCP_NODELAY: on asked, on in effect", "{nodelay}");

    let table = run(&mut ringport(&["probe", "--sockopts"]));
    assert_eq!((table.code(), table.err.as_str()), (Some(0), ""), "{table:?}");
    for option in &all {
        let name = option["name"].as_str().expect("a name");
        let line = table.out.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing:\n{}", table.out));
        assert_eq!(line.ends_with(" works"), option["here"]["works"] == true, "{line}\n{option}");
    }

    const CASE: &str = "the probe without capabilities";
    if !have(CASE, &["setpriv"]) || !is_root() {
        return skipped(CASE, "needs root, to give them up");
    }
    let without = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"];
    let refused = options(&without);
    let mark = refused.iter().find(|option| option["name"] == "SO_MARK").expect("SO_MARK");
    let words = "SO_MARK = 1 on a tcp4 listener: EPERM: Operation not permitted (os error 1); it needs CAP_NET_ADMIN or \
                 CAP_NET_RAW";
    assert_eq!(mark["here"]["report"], words, "{mark}");
    let table = run(&mut ringport_under(&without, &["probe", "--sockopts"]));
    let line = table.out.lines().find(|line| line.starts_with("SO_MARK ")).expect("SO_MARK");
    assert!(line.ends_with(" no: needs CAP_NET_ADMIN or CAP_NET_RAW"), "{line}");
}
