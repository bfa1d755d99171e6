//! `ringport dial` against listeners of the standard library, on both drivers.

#[path = "proxy/message.rs"]
#[expect(dead_code, reason = "shared with other test programs; each uses a part")]
mod message;
#[path = "operation/process.rs"]
#[expect(dead_code, reason = "shared with another test program; each uses a part")]
mod process;
#[path = "proxy/rig.rs"]
#[expect(dead_code, reason = "shared with other test programs; each uses a part")]
mod rig;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use rig::{Folder, cases};

cases! {
    bytes_go_both_ways_and_ends_too,
    a_unix_socket_by_a_replaced_target,
    a_proxy_header_comes_first,
    failures_have_codes,
    a_spec_that_cannot_be_is_refused,
    phases_are_told,
}

/// `ringport dial` with these arguments.
fn dial(driver: &str, arguments: &[&str]) -> Command {
    let mut command = process::ringport(&["dial"]);
    command.args(arguments).env("RINGPORT_DRIVER", driver);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end with this input.
fn run(driver: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = dial(driver, arguments).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        // One that fails reads nothing.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads to the end, which the half-close brings, then answers with what came, and ends.
fn answer<S: Read + Write>(mut stream: S) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the client ends in order");
    stream.write_all(&all).expect("the client reads");
    all
}

fn bytes_go_both_ways_and_ends_too(driver: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it listens").to_string();
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0));
    let input: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let output = run(driver, &[&addr], &input);
    assert_eq!(code(&output), Some(0), "{}", said(&output));
    let received = server.join().expect("no panic");
    assert!(received == input, "the server got {} bytes", received.len());
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
}

fn a_unix_socket_by_a_replaced_target(driver: &'static str) {
    let folder = Folder::new();
    let socket = folder.path().join("a b.sock");
    let listener = UnixListener::bind(&socket).expect("a free path");
    let yaml =
        format!("dialConfig:\n  replaceTargets: [\"(tcp|app.invalid:80) > (unix|{})\"]\n", socket.display());
    let spec = folder.file("dial.yaml", &yaml);
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0));
    let output = run(driver, &["--spec", spec.to_str().expect("UTF-8"), "app.invalid:80"], b"hello");
    assert_eq!((code(&output), output.stdout.as_slice()), (Some(0), &b"hello"[..]), "{}", said(&output));
    server.join().expect("no panic");
}

fn a_proxy_header_comes_first(driver: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it listens").to_string();
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0));
    let output = run(driver, &["--proxy-protocol", "v1", "--local", "127.0.0.2:0", &addr], b"hello");
    assert_eq!(code(&output), Some(0), "{}", said(&output));
    assert_eq!(output.stdout, b"PROXY UNKNOWN\r\nhello");
    server.join().expect("no panic");
}

fn failures_have_codes(driver: &'static str) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it listened");
    let refused = free.to_string();
    let folder = Folder::new();
    let device = folder.file("device.yaml", "sockOption: { soOption: { bindToDevice: nosuchif0 } }\n");
    let device = device.to_str().expect("UTF-8");
    let rows: [(&[&str], i32, &str); 6] = [
        (&["udp://127.0.0.1:1"], 2, "carries packets"),
        (&["--timeout", "20s", "no.such.invalid:1"], 3, "no.such.invalid"),
        (&[&refused], 4, "refused"),
        (&["unix:///nowhere/at/all"], 5, "unreachable"),
        (&["--spec", device, &refused], 7, "SO_BINDTODEVICE"),
        (&["--local", "192.0.2.9:0", &refused], 8, "192.0.2.9"),
    ];
    for (arguments, expected, part) in rows {
        let output = run(driver, arguments, b"");
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(part) && output.stdout.is_empty(), "{arguments:?}: {}", said(&output));
    }
    // The queue is full, so that nothing answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    rustix::net::listen(&silent, 0).expect("it listens");
    let addr = silent.local_addr().expect("it listens");
    let wait = std::time::Duration::from_millis(100);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, wait) {
        queued.push(stream);
    }
    let output = run(driver, &["--timeout", "200ms", &addr.to_string()], b"");
    assert_eq!(code(&output), Some(6), "{}", said(&output));
    // A connection that is reset.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it listens").to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut first = [0; 1];
        stream.read_exact(&mut first).expect("it sends");
        // Closed with bytes unread.
    });
    let output = run(driver, &[&addr], b"hello");
    assert_eq!(code(&output), Some(1), "{}", said(&output));
    server.join().expect("no panic");
}

fn a_spec_that_cannot_be_is_refused(driver: &'static str) {
    let folder = Folder::new();
    let rows = [
        ("timeout: -3\n", "timeout"),
        ("resolver: { servers: [192.0.2.53:0] }\n", "resolver.servers"),
        ("listenConfig: { addr: ':0' }\n", "holds a listen spec, none of a dialer"),
    ];
    for (yaml, part) in rows {
        let file = folder.file("dial.yaml", yaml);
        let output = run(driver, &["--spec", file.to_str().expect("UTF-8"), "127.0.0.1:1"], b"");
        assert_eq!(code(&output), Some(2), "{}", said(&output));
        assert!(said(&output).contains(part), "{yaml}: {}", said(&output));
    }
}

fn phases_are_told(driver: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0));
    let output = run(driver, &["-v", &format!("tcp4://localhost:{port}")], b"hello");
    assert_eq!(code(&output), Some(0), "{}", said(&output));
    let said = said(&output);
    for phase in ["dial: addresses", "dial: attempt", "dial: connected", "dial: from 127.0.0.1"] {
        assert!(said.contains(phase), "{phase}: {said}");
    }
    server.join().expect("no panic");
}
