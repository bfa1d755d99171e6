//! nghttpd as the origin.

use std::process::{Child, Command, Stdio};

use http::{HeaderMap, HeaderValue, StatusCode};
use ringport::net;
use ringport::proto::http1::BodyLen;
use ringport::proto::http2::Spec;
use ringport::runtime::native::Native;

use super::super::rig::{each, join, skipped, turn};
use super::{Ended, PATTERN, get, open_when_there_is_room, read, request, send, start};
use ringport::http::Http2Client;

/// A server with files of its own.
struct Nghttpd {
    process: Child,
    folder: String,
}

impl Nghttpd {
    /// `None` where it is not installed.
    fn start(args: &[&str]) -> Option<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{}/nghttpd-{}-{count}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::create_dir(&folder).expect("a folder of our own");
        for (name, content) in [("small", b"small".to_vec()), ("big", PATTERN.clone())] {
            std::fs::write(format!("{folder}/{name}"), content).expect("written");
        }
        let mut command = Command::new("nghttpd");
        command.args(["--no-tls", "-a", "127.0.0.1", "-d", &folder]).args(args).arg("0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(process) => Some(Nghttpd { process, folder }),
            Err(_) => {
                skipped("nghttpd is not installed");
                std::fs::remove_dir_all(&folder).expect("it is ours");
                None
            }
        }
    }

    /// Connects once it listens, to the port that the kernel gave it.
    async fn connect(&self, runtime: &Native, spec: Spec) -> (Http2Client, Ended) {
        let port = loop {
            if let Some(port) = self.port() {
                break port;
            }
            turn().await;
        };
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let stream = net::connect(runtime, &addr.into()).await.expect("it listens");
        start(runtime, stream, spec)
    }

    /// Of its sockets, the one that listens.
    fn port(&self) -> Option<u16> {
        let process = format!("/proc/{}", self.process.id());
        let links = std::fs::read_dir(format!("{process}/fd")).ok()?;
        let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let own: Vec<String> = links.map(|link| link.display().to_string()).collect();
        let sockets = std::fs::read_to_string(format!("{process}/net/tcp")).ok()?;
        sockets.lines().find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let inode = format!("socket:[{}]", columns.get(9)?);
            let listens = *columns.get(3)? == "0A" && own.contains(&inode);
            let (_, port) = columns[1].split_once(':').filter(|_| listens)?;
            u16::from_str_radix(port, 16).ok()
        })
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn answers_many_requests_on_one_connection() {
    each(async |runtime| {
        let Some(server) = Nghttpd::start(&["-m", "7"]) else { return };
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        // Its limit is known with the first answer.
        get(&client, "/small").await.expect("answered");
        assert_eq!(client.room(), 7);
        let mut tasks = Vec::new();
        for number in 0..30 {
            let client = client.clone();
            tasks.push(runtime.core().spawn(async move {
                let (path, status) =
                    [("/small", StatusCode::OK), ("/none", StatusCode::NOT_FOUND)][number % 2];
                for _ in 0..10 {
                    let whole = get(&client, path).await.expect("answered");
                    assert_eq!(whole.status, status);
                    assert!(status != StatusCode::OK || whole.body == b"small");
                }
                let big = get(&client, "/big").await.expect("answered");
                assert!(big.body == *PATTERN, "{} bytes", big.body.len());
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!((client.open_count(), client.room()), (0, 7));
        drop(client);
        ended.await;
    });
}

#[test]
fn echoes_a_body_and_says_trailers() {
    each(async |runtime| {
        let Some(server) = Nghttpd::start(&["--echo-upload", "--trailer", "x-sum: 7"]) else { return };
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        for with_trailers in [false, true] {
            let mut call = open_when_there_is_room(&client, request("POST", "/"), BodyLen::Chunked).await;
            let mut trailers = HeaderMap::new();
            if with_trailers {
                trailers.insert("x-ours", HeaderValue::from_static("1"));
            }
            // It answers when all has come.
            send(&mut call, &PATTERN, trailers).await.expect("it takes all");
            let whole = read(&mut call).await.expect("answered");
            assert!(whole.body == *PATTERN, "{} bytes came back", whole.body.len());
            assert_eq!(whole.trailers["x-sum"], "7");
        }
        drop(client);
        ended.await;
    });
}

#[test]
fn is_killed_in_the_middle() {
    each(async |runtime| {
        let Some(mut server) = Nghttpd::start(&[]) else { return };
        let (client, ended) = server.connect(&runtime, Spec::default()).await;
        let mut call = client.open(request("GET", "/big"), BodyLen::None).expect("room");
        call.finish().expect("no body");
        let first = call.next_event().await;
        assert!(first.is_ok(), "{first:?}");
        // Its window is full: the rest never comes.
        let kill = async {
            server.process.kill().expect("it runs");
            ended.await;
        };
        let (error, ()) = join(async { read(&mut call).await }, kill).await;
        assert!(!error.expect_err("a part").is_unprocessed());
        assert!(!client.is_open());
    });
}
