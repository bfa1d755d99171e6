//! Dialers and listeners over TLS, on every driver, against each other and against OpenSSL.

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use ringport::buf::PoolSpec;
use ringport::net::tls::{Link, ServerTls, TlsDialError, TlsDialer, TlsListener, TlsStream};
use ringport::net::{Bounded, DialErrorKind, Dialer, ListenError, Listener, Stream};
use ringport::proto::tls::TlsError;
use ringport::runtime::Runtime;
use ringport::runtime::native::Native;
use ringport::spec::{DialSpec, Format, ListenSpec, NetAddr, OriginAddress, TlsServerSpec};

use crate::pki::{Authority, Identity};
use crate::rig::{Rig, each, now, skipped, turn};

/// A folder with certificates that goes when the case does.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringport-it-tls-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder of our own");
        Folder(path)
    }

    /// With an authority, a server's pair, and a client's.
    pub(crate) fn usual() -> (Self, Authority) {
        let (folder, authority) = (Folder::new(), Authority::new("ours"));
        folder.write("ca.pem", &authority.cert);
        folder.pair("server", &authority.issue(&["localhost", "127.0.0.1"]));
        folder.pair("client", &authority.issue(&["client.test"]));
        (folder, authority)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    pub(crate) fn pair(&self, name: &str, pair: &Identity) {
        self.write(&format!("{name}.pem"), &pair.cert);
        self.write(&format!("{name}.key"), &pair.key);
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// `$` in a text stands for the folder.
    pub(crate) fn listen(&self, yaml: &str) -> ListenSpec {
        let yaml = yaml.replace('$', &self.0.display().to_string());
        ListenSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
    }

    pub(crate) fn dial(&self, yaml: &str) -> DialSpec {
        let yaml = yaml.replace('$', &self.0.display().to_string());
        DialSpec::from_text(&yaml, Format::Yaml, "f").unwrap_or_else(|errors| panic!("{yaml}\n{errors}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) const LISTEN: &str =
    "{addr: '127.0.0.1:0', tlsConfig: {certKeyPairs: [{certFile: $/server.pem, keyFile: $/server.key}]}}";
pub(crate) const DIAL: &str = "{tlsConfig: {rootCAs: [$/ca.pem], rootCAsIgnoreSystemCerts: true}}";

pub(crate) type Secured = Stream<Link<Bounded<Native>>>;

pub(crate) fn listener(runtime: &Native, spec: &ListenSpec) -> TlsListener<Native> {
    TlsListener::from_spec(spec, runtime).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn dialer(runtime: &Native, spec: &DialSpec) -> TlsDialer<Native> {
    TlsDialer::from_spec(spec, runtime).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn target(listener: &TlsListener<Native>, host: &str) -> NetAddr<OriginAddress> {
    let local = listener.listener().local_addr().to_string();
    let port = local.rsplit(':').next().expect("a port");
    format!("tcp://{host}:{port}").parse().expect("a target")
}

/// Takes one connection and sends back what comes, to the end.
pub(crate) async fn echo_one(mut listener: TlsListener<Native>) -> TlsListener<Native> {
    let (mut stream, _) = listener.accept().await.expect("a client");
    echo(&mut stream).await.expect("in order");
    listener
}

pub(crate) async fn echo(stream: &mut Secured) -> std::io::Result<()> {
    while let Some(bytes) = stream.recv().await? {
        stream.send(bytes).await?;
    }
    stream.shutdown().await
}

/// Spawned, with a way to wait for its end.
pub(crate) fn spawn<T: 'static>(
    runtime: &Native,
    work: impl Future<Output = T> + 'static,
) -> impl Future<Output = T> {
    let task = runtime.core().spawn(work);
    async move { task.await.expect("it does not panic") }
}

#[test]
fn both_ways_with_an_end_each() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        for host in ["localhost", "127.0.0.1"] {
            let listener = listener(&runtime, &folder.listen(LISTEN));
            let target = target(&listener, host);
            let served = spawn(&runtime, echo_one(listener));
            let mut stream = dialer(&runtime, &folder.dial(DIAL)).dial(&target).await.expect("TLS");
            assert!(stream.transport().tls().is_some());
            let data: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
            let (mut read, mut write) = stream.split();
            let sent = data.clone();
            let writing = spawn(&runtime, async move {
                write.send(sent).await.expect("sent");
                write.shutdown().await.expect("ended");
                write
            });
            let mut back = Vec::new();
            while let Some(bytes) = read.recv().await.expect("in order") {
                back.extend_from_slice(&bytes);
            }
            assert!(back == data);
            drop(writing.await);
            drop(served.await);
        }
    });
}

/// What a cork below TLS holds back comes when it is released, long before the kernel's 200 ms are over.
#[test]
fn a_cork_below_is_released() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let listener = listener(&runtime, &folder.listen(LISTEN));
        let target = target(&listener, "localhost");
        let served = spawn(&runtime, echo_one(listener));
        let corked = DIAL.replace("{tlsConfig", "{sockOption: {tcpOption: {cork: true}}, tlsConfig");
        let mut stream = dialer(&runtime, &folder.dial(&corked)).dial(&target).await.expect("TLS");
        // On a machine that stands still for as long, the kernel's time is over before ours.
        let mut tries = 0;
        loop {
            let begin = runtime.now();
            stream.send(&b"ab"[..]).await.expect("open");
            stream.release_cork().await.expect("open");
            assert_eq!(&*stream.recv().await.expect("open").expect("bytes"), b"ab");
            if runtime.now() - begin < Duration::from_millis(150) {
                break;
            }
            tries += 1;
            assert!(tries < 20, "it was not released");
        }
        stream.shutdown().await.expect("open");
        drop(served.await);
    });
}

#[test]
fn unix_sockets_need_a_name() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec = LISTEN.replace("127.0.0.1:0", "unix://$/sock");
        let served = spawn(&runtime, echo_one(listener(&runtime, &folder.listen(&spec))));
        let target = format!("unix://{}", folder.path("sock")).parse().expect("a target");
        let nameless = dialer(&runtime, &folder.dial(DIAL)).dial(&target).await;
        assert!(matches!(nameless, Err(TlsDialError::NoServerName(_))));
        let named = folder.dial(&DIAL.replace("{rootCAs", "{serverName: localhost, rootCAs"));
        let mut stream = dialer(&runtime, &named).dial(&target).await.expect("TLS");
        stream.send("over a path").await.expect("sent");
        let mut back = [0; 11];
        stream.read_exact(&mut back).await.expect("in order");
        assert_eq!(&back, b"over a path");
        stream.shutdown().await.expect("ended");
        assert!(stream.recv().await.expect("in order").is_none());
        drop(served.await);
    });
}

/// A header comes before TLS, on both sides, and says who the client is.
#[test]
fn behind_a_proxy_header() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let spec = LISTEN.replace("{addr", "{proxyProtocol: {trusted: ['127.0.0.0/8']}, addr");
        let listener = listener(&runtime, &folder.listen(&spec));
        let target = target(&listener, "localhost");
        let served = spawn(&runtime, echo_one(listener));
        let spec = folder.dial(&DIAL.replace("{tlsConfig", "{proxyProtocol: V2, tlsConfig"));
        let mut stream = dialer(&runtime, &spec).dial(&target).await.expect("TLS");
        stream.send("x").await.expect("sent");
        stream.read_exact(&mut [0]).await.expect("in order");
        stream.shutdown().await.expect("ended");
        drop(served.await);
    });
}

#[test]
fn without_tls_both_are_plain() {
    each(async |runtime| {
        let folder = Folder::new();
        let mut listener = listener(&runtime, &folder.listen("{addr: '127.0.0.1:0'}"));
        assert!(listener.tls().is_none());
        let target = target(&listener, "127.0.0.1");
        let plain = dialer(&runtime, &folder.dial("{}"));
        let mut stream = plain.dial(&target).await.expect("a connection");
        let (mut accepted, _) = listener.accept().await.expect("a client");
        stream.send("plain").await.expect("sent");
        assert_eq!(&*accepted.recv().await.expect("in order").expect("bytes"), b"plain");
        assert!(stream.transport().tls().is_none() && accepted.transport().tls().is_none());
    });
}

/// D5: what asks for TLS is never plain.
#[test]
fn plain_ones_refuse_what_asks_for_tls() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let refused = Listener::from_spec(&folder.listen(LISTEN), &runtime);
        assert!(matches!(refused, Err(ListenError::NeedsTls)));
        let dialer = Dialer::from_spec(&folder.dial(DIAL), &runtime);
        let refused = dialer.dial(&"tcp://127.0.0.1:1".parse().expect("a target")).await;
        assert_eq!(refused.err().expect("no TLS").kind(), &DialErrorKind::NeedsTls);
    });
}

/// Drives accept, which gives nobody, beside `work`.
pub(crate) async fn beside<T>(listener: &mut TlsListener<Native>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        assert!(listener.poll_accept(cx).is_pending(), "nobody is let in");
        work.as_mut().poll(cx)
    })
    .await
}

/// Half a hello, and half a record behind a handshake, are kept by whoever sent them, not in chunks that others need.
#[test]
fn half_records_leave_the_pool_to_others() {
    let pool = PoolSpec { chunk_bytes: 16 * 1024, min_chunks: 2, max_chunks: 16 };
    for chooses in [false, true] {
        Rig { pool, ..Rig::default() }.each(async |runtime| {
            let (folder, _) = Folder::usual();
            let spec = LISTEN.replace("tlsConfig: {", "tlsConfig: {handshakeTimeout: 0, ");
            let mut listener = listener(&runtime, &folder.listen(&spec));
            if chooses {
                let tls = listener.tls().expect("it speaks TLS").clone();
                listener.choose_by(move |_, _| Some(tls.clone()));
            }
            let any = target(&listener, "127.0.0.1");
            let plain = Dialer::new(&runtime);
            // A record of 16,000 bytes, and as much as says nothing wrong of a hello of 15,996.
            let half = [&[22, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c][..], &[0; 8_000]].concat();
            let mut halves = Vec::new();
            for _ in 0..40 {
                let mut dialled = beside(&mut listener, plain.dial(&any)).await.expect("a connection");
                beside(&mut listener, dialled.send(half.clone())).await.expect("sent");
                halves.push(dialled);
            }
            let good = target(&listener, "localhost");
            let served = spawn(&runtime, echo_one(listener));
            let mut stream = dialer(&runtime, &folder.dial(DIAL)).dial(&good).await.expect("TLS");
            let data = vec![7; 100_000];
            stream.send(data.clone()).await.expect("open");
            let mut back = vec![0; data.len()];
            stream.read_exact(&mut back).await.expect("open");
            assert!(back == data);
            stream.shutdown().await.expect("open");
            drop(served.await);
            drop(halves);
        });
    }
}

/// What is dropped without an end is told from what has ended.
#[test]
fn a_cut_is_no_end() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let mut listener = listener(&runtime, &folder.listen(LISTEN));
        let target = target(&listener, "localhost");
        let dialling = spawn(&runtime, {
            let dialer = dialer(&runtime, &folder.dial(DIAL));
            async move {
                let mut stream = dialer.dial(&target).await.expect("TLS");
                stream.send("some").await.expect("sent");
                stream.flush().await.expect("sent");
                // The tickets come behind the handshake; left unread they would make the kernel reset.
                let _ = poll_fn(|cx| Poll::Ready(stream.poll_recv(cx))).await;
            }
        });
        let (mut accepted, _) = listener.accept().await.expect("a client");
        dialling.await;
        assert_eq!(&*accepted.recv().await.expect("in order").expect("bytes"), b"some");
        let cut = accepted.recv().await.expect_err("cut");
        if cut.kind() == std::io::ErrorKind::UnexpectedEof {
            assert_eq!(TlsStream::<Bounded<Native>>::error_of(&cut), Some(&TlsError::Truncated));
        } else {
            assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}

/// Each future is dropped where it waits; nothing of it is left, which the rig sees to.
#[test]
fn dropped_where_it_waits() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let mut listener = listener(&runtime, &folder.listen(LISTEN));
        let target = target(&listener, "localhost");
        let dialer = dialer(&runtime, &folder.dial(DIAL));
        for polls in 1..12 {
            let mut dialling = Box::pin(dialer.dial(&target));
            for _ in 0..polls {
                if now(|cx| dialling.as_mut().poll(cx)).await.is_ready() {
                    break;
                }
                drop(now(|cx| listener.poll_accept(cx)).await);
                turn().await;
            }
        }
        drop(listener);
    });
}

#[test]
fn swapped_while_it_listens() {
    each(async |runtime| {
        let (folder, authority) = Folder::usual();
        let listener = listener(&runtime, &folder.listen(LISTEN));
        let tls = listener.tls().expect("TLS").clone();
        let target = target(&listener, "localhost");
        let dialer =
            dialer(&runtime, &folder.dial(&DIAL.replace("{root", "{sessionTicketsDisabled: true, root")));
        let mut served = spawn(&runtime, echo_one(listener));
        let mut shown = Vec::new();
        for turn in 0..3 {
            let mut stream = dialer.dial(&target).await.expect("TLS");
            let info = stream.transport().tls().expect("TLS");
            shown.push(info.peer_certificates.expect("one")[0].clone());
            if turn == 0 {
                folder.pair("server", &authority.issue(&["localhost"]));
                tls.reload().expect("in order");
            } else {
                folder.write("server.key", "broken");
                tls.reload().expect_err("broken");
            }
            // A connection goes on with what it had.
            stream.send("x").await.expect("sent");
            stream.read_exact(&mut [0]).await.expect("in order");
            stream.shutdown().await.expect("ended");
            assert!(stream.recv().await.expect("in order").is_none());
            let listener = served.await;
            served = spawn(&runtime, echo_one(listener));
        }
        assert!(shown[0] != shown[1] && shown[1] == shown[2]);
        let mut stream = dialer.dial(&target).await.expect("TLS");
        stream.shutdown().await.expect("ended");
        drop(served.await);
    });
}

#[test]
fn a_configuration_for_each_name() {
    each(async |runtime| {
        let (folder, authority) = Folder::usual();
        folder.pair("other", &authority.issue(&["other.test"]));
        let other = TlsServerSpec::builder(ringport::spec::Identity::files(
            folder.path("other.pem"),
            folder.path("other.key"),
        ));
        let (other, _) = ServerTls::load(&other.build().expect("in order")).expect("in order");
        let mut listener = listener(&runtime, &folder.listen(LISTEN));
        let usual = listener.tls().expect("TLS").clone();
        listener.choose_by(move |hello, peer| {
            assert!(peer.client().to_string().starts_with("127.0.0.1"));
            match hello.server_name.as_deref() {
                Some("other.test") => Some(other.clone()),
                Some("localhost") => Some(usual.clone()),
                _ => None,
            }
        });
        let target = target(&listener, "127.0.0.1");
        let named = |name: &str| DIAL.replace("{root", &format!("{{serverName: {name}, root"));
        for name in ["other.test", "localhost"] {
            let dialling = spawn(&runtime, {
                let (dialer, target) = (dialer(&runtime, &folder.dial(&named(name))), target.clone());
                async move { dialer.dial(&target).await.expect("TLS") }
            });
            let (mut accepted, _) = listener.accept().await.expect("a client");
            let info = accepted.transport().tls().expect("TLS");
            assert_eq!(info.server_name, Some(name));
            drop(dialling.await);
        }
        let nobody = dialer(&runtime, &folder.dial(&named("nobody.test")));
        let error = beside(&mut listener, nobody.dial(&target)).await.err().expect("no TLS");
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    });
}

/// Another implementation's program, ended by the case if it does not end itself.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    /// `None`, and said so, where there is none.
    pub(crate) fn start(program: &str, arguments: &str) -> Option<Program> {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => Some(Program(child)),
            Err(error) => {
                skipped(format!("{program}: {error}"));
                None
            }
        }
    }

    /// Writes to its input and gives what it printed, both on a thread; the input ends with the case.
    pub(crate) fn talk(
        mut self,
        line: &'static [u8],
        until: &'static str,
    ) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut input = self.0.stdin.take().expect("piped");
            input.write_all(line).expect("it reads");
            let mut printed = String::new();
            let mut output = BufReader::new(self.0.stdout.take().expect("piped"));
            while !printed.contains(until) && output.read_line(&mut printed).is_ok_and(|len| len > 0) {}
            drop(input);
            let _ = output.read_to_string(&mut printed);
            printed
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openssl_as_client() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        let rows = [
            ("", "-tls1_2", "TLSv1.2"),
            ("", "-tls1_3", "TLSv1.3"),
            ("nextProtos: [h2, http/1.1], ", "-alpn http/1.1", "ALPN protocol: http/1.1"),
            (
                "clientAuth: REQUIRE_AND_VERIFY, clientCAs: [$/ca.pem], ",
                "-cert $/client.pem -key $/client.key",
                "Verify return code: 0 (ok)",
            ),
        ];
        for (fields, arguments, expected) in rows {
            let spec = LISTEN.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}"));
            let mut listener = listener(&runtime, &folder.listen(&spec));
            let port = listener.listener().local_addr().to_string();
            let arguments = arguments.replace('$', &folder.0.display().to_string());
            let command = format!(
                "s_client -connect {port} -servername localhost -CAfile {} -verify_return_error {arguments}",
                folder.path("ca.pem")
            );
            let Some(openssl) = Program::start("openssl", &command) else { return };
            let talking = openssl.talk(b"over openssl\n", "over openssl");
            let (mut accepted, _) = listener.accept().await.expect("a client");
            if fields.contains("client") {
                assert!(accepted.transport().tls().expect("TLS").peer_certificates.is_some());
            }
            let mut line = [0; 13];
            accepted.read_exact(&mut line).await.expect("in order");
            accepted.send(line.to_vec()).await.expect("sent");
            while let Ok(Some(_)) = accepted.recv().await {}
            let _ = accepted.shutdown().await;
            drop(accepted);
            let printed = joined(talking).await;
            assert!(printed.contains("over openssl") && printed.contains(expected), "{arguments}: {printed}");
        }
    });
}

/// What a thread gave, without a wait that nothing could end.
pub(crate) async fn joined(thread: std::thread::JoinHandle<String>) -> String {
    while !thread.is_finished() {
        turn().await;
    }
    thread.join().expect("it does not panic")
}

#[test]
fn openssl_as_server() {
    each(async |runtime| {
        let (folder, _) = Folder::usual();
        for (fields, arguments) in [
            ("", "-tls1_2"),
            ("", "-tls1_3"),
            ("nextProtos: [h2, http/1.1], ", "-alpn http/1.1"),
            (
                "certKeyPairs: [{certFile: $/client.pem, keyFile: $/client.key}], ",
                "-Verify 1 -verify_return_error -CAfile $/ca.pem",
            ),
        ] {
            let arguments = arguments.replace('$', &folder.0.display().to_string());
            let command = format!(
                "s_server -accept 127.0.0.1:0 -cert {} -key {} -rev {arguments}",
                folder.path("server.pem"),
                folder.path("server.key")
            );
            let Some(mut openssl) = Program::start("openssl", &command) else { return };
            let mut output = BufReader::new(openssl.0.stdout.take().expect("piped"));
            let mut line = String::new();
            while !line.starts_with("ACCEPT ") {
                line.clear();
                assert!(output.read_line(&mut line).expect("it prints") > 0, "it ended");
            }
            let port = line.trim().rsplit(':').next().expect("a port").to_owned();
            let target = format!("tcp://localhost:{port}").parse().expect("a target");
            let spec = folder.dial(&DIAL.replace("tlsConfig: {", &format!("tlsConfig: {{{fields}")));
            let mut stream = dialer(&runtime, &spec).dial(&target).await.expect("TLS");
            let info = stream.transport().tls().expect("TLS");
            let is_tls13 = info.version == rustls::ProtocolVersion::TLSv1_3;
            assert_eq!(info.alpn.is_some(), arguments.contains("alpn"));
            for turn in 0..3 {
                if is_tls13 && turn == 1 {
                    let Link::Tls(tls) = stream.transport() else { panic!("TLS") };
                    tls.refresh_keys().expect("TLS 1.3 has it");
                }
                stream.send("hello\n").await.expect("sent");
                let mut back = [0; 6];
                stream.read_exact(&mut back).await.expect("in order");
                assert_eq!(&back, b"olleh\n", "{arguments}");
            }
            stream.shutdown().await.expect("ended");
        }
    });
}
