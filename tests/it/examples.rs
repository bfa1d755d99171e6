//! The examples do what they say.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringport::net::{self, PacketSocket};
use ringport::runtime::native::block_on;

use super::rig::{alone, skipped};

/// An example that listens, and where. It ends with the case, which may fail.
struct Server(Child, String);

impl Server {
    fn start(path: &Path) -> Self {
        let mut child =
            Command::new(path).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().expect("it can be run");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let addr =
            line.trim_end().strip_prefix("listening on ").expect("it says where it listens").to_owned();
        Server(child, addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It serves until it is ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Beside the test's own folder, where the whole package was built: `cargo test --test it` alone leaves it out, or old.
fn example(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("the path of this test");
    let path =
        test.parent().and_then(|deps| deps.parent()).expect("target/debug").join("examples").join(name);
    if !path.exists() {
        skipped(format!("{} is not built", path.display()));
        return None;
    }
    Some(path)
}

#[test]
fn echo_says_the_same() {
    let _alone = alone();
    let Some(echo) = example("echo") else { return };
    let server = Server::start(&echo);
    let addr = server.1.parse::<std::net::SocketAddr>().expect("an address").into();
    block_on(|runtime| async move {
        let mut stream = net::connect(&runtime, &addr).await.expect("it listens");
        stream.send(&b"the same"[..]).await.expect("open");
        let mut eight = [0; 8];
        stream.read_exact(&mut eight).await.expect("the echo");
        assert_eq!(&eight, b"the same");
    })
    .expect("a driver is there");
}

#[test]
fn the_client_gets_a_hello_of_the_server() {
    let _alone = alone();
    let (Some(hello), Some(get)) = (example("http_hello"), example("http_get")) else { return };
    let server = Server::start(&hello);
    let mut client =
        Command::new(get).args([&server.1, "/you"]).stdout(Stdio::piped()).spawn().expect("it can be run");
    let mut said = String::new();
    client.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(client.wait().expect("it ends").success(), "{said}");
    assert_eq!(said, "200 OK\ncontent-type: text/plain\ncontent-length: 12\n\nHello, you!\n");
}

#[test]
fn the_server_answers_our_client() {
    let _alone = alone();
    let (Some(server), Some(get)) = (example("https_server"), example("http_get")) else { return };
    let server = Server::start(&server);
    let got = Command::new(get).args([&server.1, "/you"]).output().expect("it can be run");
    let said = String::from_utf8_lossy(&got.stdout);
    assert!(got.status.success(), "{said}");
    let (dates, rest): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("date: "));
    assert_eq!(dates.len(), 1, "{said}");
    assert_eq!(rest.join("\n"), "200 OK\ncontent-type: text/plain\ncontent-length: 12\n\nHello, you!");
}

#[test]
fn datagrams_come_back() {
    let _alone = alone();
    let Some(echo) = example("udp_echo") else { return };
    let server = Server::start(&echo);
    let addr = server.1.parse().expect("an address");
    block_on(|runtime| async move {
        let socket = PacketSocket::connect(&runtime, addr).expect("a peer");
        for said in ["one", "", "three"] {
            socket.send(said).await.expect("it listens");
            assert_eq!(&socket.recv().await.expect("the echo").bytes[..], said.as_bytes());
        }
    })
    .expect("a driver is there");
}

#[test]
fn a_ping_is_answered_or_says_what_it_needs() {
    let _alone = alone();
    let Some(ping) = example("ping") else { return };
    for addr in ["127.0.0.1", "::1"] {
        let done = Command::new(&ping).arg(addr).output().expect("it can be run");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if err.contains("needs CAP_NET_RAW") {
            assert_eq!(done.status.code(), Some(1));
            skipped("ping lacks CAP_NET_RAW");
            continue;
        }
        assert!(done.status.success() && out == format!("echo of 16 bytes from {addr}\n"), "{out}{err}");
    }
    let wrong = Command::new(&ping).arg("nobody").output().expect("it can be run");
    assert_eq!(wrong.status.code(), Some(2));
}
