//! `ringport listen` before clients of the standard library, on both drivers.

#[path = "proxy/message.rs"]
#[expect(dead_code, reason = "shared with other test programs; each uses a part")]
mod message;
#[path = "operation/process.rs"]
#[expect(dead_code, reason = "shared with another test program; each uses a part")]
mod process;
#[path = "proxy/rig.rs"]
#[expect(dead_code, reason = "shared with other test programs; each uses a part")]
mod rig;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use process::{Process, run};
use rig::{BINARY, Folder, cases, is_windows};
use rustix::process::Signal;

cases! {
    the_first_connection_is_joined_to_standard_input_and_output,
    input_goes_on_after_the_peers_end,
    input_that_the_peer_did_not_take_is_told,
    what_comes_is_sent_back_or_thrown_away,
    a_signal_ends_it_and_its_file_goes,
    packets_go_both_ways,
    a_client_that_takes_nothing_does_not_hold_it_up,
    limits_that_mean_nothing_are_refused,
    clients_are_kept_out_and_limited,
    a_client_without_an_address_is_in_no_list,
    case_67_d21_it_survives_without_descriptors,
    case_68_a_socket_is_inherited_by_name,
    case_68_what_does_not_listen_is_not_inherited,
    what_cannot_listen_is_told_in_one_sentence,
    tls_on_both_sides,
}

/// `ringport listen` with these arguments.
fn listen(driver: &str, arguments: &[&str]) -> Command {
    let mut command = process::ringport(&["listen"]);
    command.args(arguments).env("RINGPORT_DRIVER", driver);
    command
}

fn address(process: &Process) -> SocketAddr {
    process.wait_for(|line| line.strip_prefix("listening: ")?.parse().ok())
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(message::PATIENCE)).expect("a time");
    stream
}

/// Sends this, and reads as much.
fn echoes(stream: &mut (impl Read + Write)) {
    stream.write_all(b"ping").expect("open");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ping");
}

/// The other side has closed, in order or by a reset.
fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        // Silence is no end.
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

fn the_first_connection_is_joined_to_standard_input_and_output(driver: &'static str) {
    let mut command = listen(driver, &["127.0.0.1:0"]);
    let mut process = Process::start(&mut command);
    let addr = address(&process);
    assert_ne!(addr.port(), 0);
    let mut client = connect(addr);
    client.write_all(b"from the client\n").expect("open");
    process.wait_for(|line| (line == "from the client").then_some(()));
    process.tell("from standard input");
    let mut answer = [0; 20];
    client.read_exact(&mut answer).expect("open");
    assert_eq!(&answer, b"from standard input\n");
    assert!(TcpStream::connect(addr).is_err(), "nobody else is taken");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(process.exit().code(), Some(0), "{}", process.log());
}

/// What was left of it was dropped, with exit code 0.
fn input_goes_on_after_the_peers_end(driver: &'static str) {
    let folder = Folder::new();
    let input: String = (0..300_000).map(|line| format!("{line:07}\n")).collect();
    let file = std::fs::File::open(folder.file("input", &input)).expect("it is there");
    let mut process = Process::start_with(&mut listen(driver, &["127.0.0.1:0"]), file.into());
    let mut client = connect(address(&process));
    client.shutdown(Shutdown::Write).expect("open");
    let mut got = String::new();
    client.read_to_string(&mut got).expect("in order");
    assert!(got == input, "{} of {} bytes", got.len(), input.len());
    assert_eq!(process.exit().code(), Some(0), "{}", process.log());
}

fn input_that_the_peer_did_not_take_is_told(driver: &'static str) {
    let folder = Folder::new();
    let file = std::fs::File::open(folder.file("input", &"x".repeat(64 << 20))).expect("it is there");
    let mut process = Process::start_with(&mut listen(driver, &["127.0.0.1:0"]), file.into());
    let client = connect(address(&process));
    client.shutdown(Shutdown::Write).expect("open");
    drop(client);
    assert_eq!(process.exit().code(), Some(1), "{}", process.log());
}

fn what_comes_is_sent_back_or_thrown_away(driver: &'static str) {
    let process = Process::start(&mut listen(driver, &["127.0.0.1:0", "--keep-open", "echo"]));
    let addr = address(&process);
    let mut clients: Vec<_> = (0..3).map(|_| connect(addr)).collect();
    clients.iter_mut().for_each(echoes);

    let process = Process::start(&mut listen(driver, &["127.0.0.1:0", "--keep-open", "discard"]));
    let mut client = connect(address(&process));
    client.write_all(&vec![1; 1 << 20]).expect("it reads");
    client.shutdown(Shutdown::Write).expect("open");
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("in order");
    assert!(all.is_empty());
}

fn a_signal_ends_it_and_its_file_goes(driver: &'static str) {
    let folder = Folder::new();
    let socket = folder.path().join("a b.sock");
    let yaml = format!("listenConfig:\n  addr: 'unix://{}'\n  unix: {{ mode: '0600' }}\n", socket.display());
    let spec = folder.file("listen.yaml", &yaml);
    let spec = spec.to_str().expect("UTF-8");
    let mut process = Process::start(&mut listen(driver, &["--spec", spec, "--keep-open", "echo"]));
    process.wait_for(|line| line.starts_with("listening: unix:").then_some(()));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&socket.metadata().expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut client = UnixStream::connect(&socket).expect("it listens");
    echoes(&mut client);
    process.signal(Signal::TERM);
    assert_eq!(process.exit().code(), Some(0), "{}", process.log());
    assert!(!socket.exists());
}

/// Both netcats, one on each side; and one that answers.
fn packets_go_both_ways(driver: &'static str) {
    let folder = Folder::new();
    let target = format!("unixpacket://{}", folder.path().join("a.sock").display());
    let run_dial = |input: &str| {
        let file = std::fs::File::open(folder.file("input", input)).expect("it is there");
        let mut command = process::ringport(&["dial", &target]);
        Process::start_with(command.env("RINGPORT_DRIVER", driver), file.into())
    };
    let mut listener = Process::start_with(
        &mut listen(driver, &[&target]),
        std::fs::File::open(folder.file("answer", "from the listener\n")).expect("it is there").into(),
    );
    listener.wait_for(|line| line.starts_with("listening: ").then_some(()));
    let mut dialled = run_dial("from the dialler\n");
    dialled.wait_for(|line| (line == "from the listener").then_some(()));
    listener.wait_for(|line| (line == "from the dialler").then_some(()));
    assert_eq!(dialled.exit().code(), Some(0), "{}", dialled.log());
    assert_eq!(listener.exit().code(), Some(0), "{}", listener.log());

    let mut gone = run_dial("nobody is there\n");
    assert_eq!(gone.exit().code(), Some(5), "{}", gone.log());
    let mut echo = Process::start(&mut listen(driver, &[&target, "--keep-open", "echo"]));
    echo.wait_for(|line| line.starts_with("listening: ").then_some(()));
    let mut command = process::ringport(&["dial", &target]);
    let mut dialled = Process::start(command.env("RINGPORT_DRIVER", driver));
    for word in ["one", "two"] {
        dialled.tell(word);
        dialled.wait_for(|line| (line == word).then_some(()));
    }
    // Unix sockets take longer packets than IP has: of this one 65,536 bytes came back.
    let client =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, None);
    let client = client.expect("a socket");
    let path = rustix::net::SocketAddrUnix::new(folder.path().join("a.sock")).expect("a short path");
    rustix::net::connect(&client, &path).expect("it listens");
    rustix::net::send(&client, &[7; 100_000], rustix::net::SendFlags::empty()).expect("it is taken");
    let mut long = vec![0; 200_000];
    let (len, _) =
        rustix::net::recv(&client, &mut long[..], rustix::net::RecvFlags::empty()).expect("an echo");
    assert_eq!(len, 100_000);
    echo.signal(Signal::TERM);
    assert_eq!(echo.exit().code(), Some(0), "{}", echo.log());
}

/// It had ten seconds for what it would not take.
fn a_client_that_takes_nothing_does_not_hold_it_up(driver: &'static str) {
    let mut process = Process::start(&mut listen(driver, &["127.0.0.1:0", "--keep-open", "echo"]));
    let mut client = connect(address(&process));
    client.set_nonblocking(true).expect("a socket");
    // Until neither the echo nor the kernel takes any more.
    let (mut taken, mut stalls) = (0, 0);
    while stalls < 200 {
        match client.write(&[0; 1 << 16]) {
            Ok(len) => {
                (taken, stalls) = (taken + len, 0);
                assert!(taken < 1 << 30, "it takes everything");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalls += 1;
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    let begin = std::time::Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.exit().code(), Some(0), "{}", process.log());
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
}

fn limits_that_mean_nothing_are_refused(driver: &'static str) {
    for option in ["--limit", "--limit-per-address"] {
        let ended = run(&mut listen(driver, &["127.0.0.1:0", option, "0"]));
        assert!(ended.code() == Some(2) && ended.err.contains("0 is not in 1..=16777216"), "{ended:?}");
    }
    run(&mut listen(driver, &["127.0.0.1:0", "--reject"])).assert_refused(&["--reject", "--limit COUNT"]);
    run(&mut listen(driver, &["127.0.0.1:0", "--reject", "--limit-per-address", "1"]))
        .assert_refused(&["--reject"]);
}

fn clients_are_kept_out_and_limited(driver: &'static str) {
    let options = ["--keep-open", "echo", "--deny", "127.0.0.0/8", "--allow", "127.0.0.1"];
    let process = Process::start(listen(driver, &["127.0.0.1:0", "--limit", "1", "--reject"]).args(options));
    let addr = address(&process);
    let mut client = connect(addr);
    echoes(&mut client);
    assert!(is_closed(connect(addr)), "beyond the limit");
    drop(client);
    let process =
        Process::start(listen(driver, &["127.0.0.1:0", "--keep-open", "echo"]).args(["--deny", "127.0.0.1"]));
    assert!(is_closed(connect(address(&process))));
}

/// A header that names a Unix socket passed a list that lets in a few addresses only.
fn a_client_without_an_address_is_in_no_list(driver: &'static str) {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8".to_vec();
    header.extend([b'a'; 216]);
    for (list, let_in) in [(&["--allow", "192.0.2.0/24"][..], false), (&["--deny", "192.0.2.0/24"], true)] {
        let options = ["127.0.0.1:0", "--keep-open", "echo", "--proxy-protocol", "127.0.0.1"];
        let process = Process::start(listen(driver, &options).args(list));
        let mut client = connect(address(&process));
        client.write_all(&header).expect("open");
        if let_in {
            // It answers, so that the silence of one that is kept out would be seen.
            echoes(&mut client);
        } else {
            assert!(is_closed(client), "{list:?}");
        }
    }
}

/// Connections beyond the descriptors wait in the kernel, and are served when others have ended.
fn case_67_d21_it_survives_without_descriptors(driver: &'static str) {
    if !process::have("few descriptors", &["prlimit"]) {
        return;
    }
    let mut command = process::ringport_under(
        &["prlimit", "--nofile=32:32"],
        &["listen", "127.0.0.1:0", "--keep-open", "echo"],
    );
    let process = Process::start(command.env("RINGPORT_DRIVER", driver));
    let addr = address(&process);
    let mut clients: Vec<_> = (0..60).map(|_| connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"ping").expect("the kernel keeps it"));
    for mut client in clients {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).expect("its turn comes");
    }
    // Neither an error for each, nor a loop of them.
    assert!(!process.log().contains("could not be taken"), "{}", process.log());
}

/// Runs `ringport listen` with descriptor 3 and the variables of socket activation.
fn activated(driver: &str, socket: OwnedFd, names: &str, arguments: &[&str]) -> Command {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" listen \"$@\" 3<&0 0</dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, BINARY]).args(arguments).env("LISTEN_FDNAMES", names);
    command.env("RINGPORT_DRIVER", driver).env_remove("RUST_LOG").stdin(Stdio::from(socket));
    command
}

fn inherits(folder: &Folder) -> String {
    folder.file("listen.yaml", "listenConfig: { inherited: web }\n").to_str().expect("UTF-8").to_owned()
}

fn case_68_a_socket_is_inherited_by_name(driver: &'static str) {
    let folder = Folder::new();
    let spec = inherits(&folder);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it listens");
    let mut command = activated(driver, listener.into(), "web", &["--spec", &spec, "--keep-open", "echo"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh runs");
    // Whoever opened it for the child has it no more.
    drop(command);
    echoes(&mut connect(addr));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    assert!(TcpStream::connect(addr).is_err());
}

fn case_68_what_does_not_listen_is_not_inherited(driver: &'static str) {
    let folder = Folder::new();
    let spec = inherits(&folder);
    let refused = |socket: OwnedFd, names: &str, part: &str| {
        let output = activated(driver, socket, names, &["--spec", &spec]).output().expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("ringport: inherited socket web: ") && said.contains(part), "{said}");
    };
    let udp = || UdpSocket::bind("127.0.0.1:0").expect("a free port").into();
    refused(udp(), "web", "does not listen");
    refused(udp(), "dns", "there are dns only");
    let file = std::fs::File::open(Path::new(BINARY)).expect("it is there");
    refused(file.into(), "web", "ocket operation on non-socket");
    let output = run(&mut listen(driver, &["--spec", &spec]));
    output.assert_refused(&["inherited socket web: none was inherited"]);
}

fn what_cannot_listen_is_told_in_one_sentence(driver: &'static str) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("it listens").to_string();
    run(&mut listen(driver, &[&addr]))
        .assert_refused(&[&addr, if is_windows() { "10013" } else { "in use" }]);
    let folder = Folder::new();
    let note = folder.file("note", "a note");
    let path = format!("unix://{}", note.display());
    let why = if is_windows() { "not to be had on Windows" } else { "not a socket" };
    run(&mut listen(driver, &[&path])).assert_refused(&["note", why]);
    assert_eq!(std::fs::read_to_string(&note).expect("it stays"), "a note");
    // A comment with the key of a keyed file does not make it one.
    let spec = folder.file("bare.yaml", "# a listenConfig\naddr: '192.0.2.1:0'\n");
    let ended = run(&mut listen(driver, &["--spec", spec.to_str().expect("UTF-8")]));
    ended.assert_refused(&["cannot listen on 192.0.2.1:0"]);
    let spec = folder.file("broken.yaml", "addr: ':0'\nbacklog: 0\nconnectionLimit: -7\n");
    let spec = spec.to_str().expect("UTF-8");
    let ended = run(&mut listen(driver, &["--spec", spec]));
    ended.assert_fault(&["broken.yaml:2", "backlog"]);
    assert!(ended.err.contains("broken.yaml:3"), "{ended:?}");
    let ended = run(&mut listen(driver, &["udp://127.0.0.1:0"]));
    assert!(ended.code() == Some(2) && ended.err.contains("no connections"), "{ended:?}");
}

/// `ringport dial` and `ringport listen` over TLS, with a certificate of OpenSSL's making.
fn tls_on_both_sides(driver: &'static str) {
    let folder = Folder::new();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (cert, key) = (cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return process::skipped("tls_on_both_sides", "openssl makes no certificate here");
    }
    let server = ["tls://127.0.0.1:0", "--cert", cert, "--key", key, "--keep-open", "echo"];
    let mut server = Process::start(&mut listen(driver, &server));
    let port = address(&server).port();
    let target = format!("tls://localhost:{port}");
    let dial = |arguments: &[&str]| {
        let mut command = process::ringport(&["dial", &target]);
        let command = command.args(arguments).env("RINGPORT_DRIVER", driver);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(b"ping").expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, said)
    };
    let (code, back, said) = dial(&["--ca", cert, "-v"]);
    assert_eq!((code, &back[..]), (Some(0), &b"ping"[..]), "{said}");
    assert!(said.contains("TLSv1_3"), "{said}");
    let (code, _, said) = dial(&["--ca", cert, "--server-name", "elsewhere.test"]);
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("it is for other names"), "{said}");
    let (code, back, said) = dial(&["--insecure", "--server-name", "elsewhere.test"]);
    assert_eq!((code, &back[..]), (Some(0), &b"ping"[..]), "{said}");
    assert!(said.contains("servers are not verified"), "{said}");
    server.signal(Signal::TERM);
    assert_eq!(server.exit().code(), Some(0));
    for (arguments, expected) in [
        (&["tls://127.0.0.1:0"][..], "tls:// needs --cert and --key"),
        (&["127.0.0.1:0", "--cert", cert, "--key", key], "--cert and --key are for tls://"),
        (&["tls://127.0.0.1:0", "--cert", cert, "--key", cert], "holds no private key"),
    ] {
        let ended = run(&mut listen(driver, arguments));
        assert_eq!(ended.code(), Some(2), "{}", ended.err);
        assert!(ended.err.contains(expected), "{}", ended.err);
    }
}
