//! Names that are looked up by ourselves: at servers of the test, and in its files.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ringport::net::{self, Dialer, PacketSocket, ResolveError, Resolver, Stream};
use ringport::runtime::native::{Native, NativeDatagram, NativeStream};
use ringport::runtime::{ConnectAddr, ListenOptions, Listener, LocalAddr, Runtime};
use ringport::spec::{DialSpec, Format, ResolverSpec};

use crate::rig::{each, join, turn};

/// What a server of the test does with a question: nothing, or answers with these bytes.
type Serve = dyn Fn(&Message, bool) -> Option<Vec<u8>>;

/// A name server over UDP and TCP at one port, and what it was asked.
struct Server {
    addr: SocketAddr,
    asked: Rc<RefCell<Vec<Asked>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    name: String,
    kind: RecordType,
    is_tcp: bool,
    id: u16,
    from: SocketAddr,
}

impl Server {
    fn start(runtime: &Native, serve: impl Fn(&Message, bool) -> Option<Vec<u8>> + 'static) -> Server {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listener = runtime.listen(&any.into(), ListenOptions::default()).expect("a free port");
        let LocalAddr::Inet(addr) = listener.local_addr().expect("it listens") else { panic!("of IP") };
        let socket = PacketSocket::bind(runtime, addr).expect("the same port of UDP");
        let (asked, serve): (Rc<RefCell<Vec<Asked>>>, Rc<Serve>) = (Rc::default(), Rc::new(serve));
        let (log, by_udp) = (asked.clone(), serve.clone());
        runtime.spawn(async move {
            loop {
                let (bytes, from) = socket.recv_from().await.expect("a question");
                if let Some(answer) = answer_of(&bytes, &from, false, &log, &*by_udp) {
                    reply(&socket, answer, from).await;
                }
            }
        });
        let (log, clients) = (asked.clone(), runtime.clone());
        runtime.spawn(async move {
            loop {
                let stream = net::accept(&clients, &mut listener).await.expect("a client");
                serve_tcp(stream, &log, &*serve).await;
            }
        });
        Server { addr, asked }
    }

    fn questions(&self) -> usize {
        self.asked.borrow().len()
    }
}

async fn reply(socket: &PacketSocket<NativeDatagram>, answer: Vec<u8>, to: LocalAddr) {
    // Whoever asked may have gone.
    let _ = socket.send_to(answer, to).await;
}

async fn serve_tcp(mut stream: Stream<NativeStream>, log: &RefCell<Vec<Asked>>, serve: &Serve) {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await.expect("a length");
    let mut question = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut question).await.expect("a question");
    let from = stream.peer_addr().expect("connected");
    if let Some(answer) = answer_of(&question, &from, true, log, serve) {
        let len = u16::try_from(answer.len()).expect("a message").to_be_bytes();
        stream.send([&len[..], &answer].concat()).await.expect("the client reads");
    }
    stream.shutdown().await.expect("open");
    // What its end tells is the client's.
    let _ = stream.recv().await;
}

fn answer_of(
    bytes: &[u8],
    from: &LocalAddr,
    is_tcp: bool,
    log: &RefCell<Vec<Asked>>,
    serve: &Serve,
) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).expect("a question");
    let LocalAddr::Inet(from) = *from else { panic!("of IP") };
    let query = &question.queries[0];
    let name = query.name().to_ascii().trim_end_matches('.').to_owned();
    let (id, kind) = (question.metadata.id, query.query_type());
    log.borrow_mut().push(Asked { name, kind, is_tcp, id, from });
    serve(&question, is_tcp)
}

/// An answer with addresses of the family that was asked for, or with none.
fn answer(question: &Message, addrs: &[&str], ttl: u32) -> Message {
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    let query = question.queries[0].clone();
    for addr in addrs {
        let data = match (query.query_type(), addr.parse().expect("an address")) {
            (RecordType::A, std::net::IpAddr::V4(addr)) => RData::A(A(addr)),
            (RecordType::AAAA, std::net::IpAddr::V6(addr)) => RData::AAAA(AAAA(addr)),
            _ => continue,
        };
        message.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
    }
    if message.answers.is_empty() {
        let name = |text: &str| Name::from_ascii(text).expect("a name");
        let soa = SOA::new(name("ns.test."), name("hostmaster.test."), 1, 1, 1, 1, ttl);
        message.add_authority(Record::from_rdata(name("test."), ttl, RData::SOA(soa)));
    }
    message.add_query(query);
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message")
}

fn refusal(question: &Message, code: ResponseCode, ttl: u32) -> Vec<u8> {
    let mut message = answer(question, &[], ttl);
    message.metadata.response_code = code;
    bytes(&message)
}

/// Without files, one server after the other, a second each.
fn spec(servers: &[SocketAddr]) -> ResolverSpec {
    ResolverSpec {
        timeout: Duration::from_secs(1),
        servers: servers.to_vec(),
        hosts_file: None,
        ..ResolverSpec::default()
    }
}

async fn addresses(resolver: &Resolver<Native>, name: &str) -> Result<Vec<String>, ResolveError> {
    let found = resolver.addresses(name, 80).await?;
    Ok(found.iter().map(|addr| addr.to_string()).collect())
}

fn list(texts: &[&str]) -> Result<Vec<String>, ResolveError> {
    Ok(texts.iter().map(ToString::to_string).collect())
}

#[test]
fn a_name_is_asked_once_and_kept_for_its_time() {
    each(async |runtime| {
        let server = Server::start(&runtime, |question, _| {
            let ttl = if question.queries[0].name().to_ascii().starts_with("brief") { 0 } else { 60 };
            Some(bytes(&answer(question, &["192.0.2.1", "2001:db8::1", "192.0.2.2"], ttl)))
        });
        let resolver = Resolver::new(&spec(&[server.addr]), &runtime);
        let expected = list(&["[2001:db8::1]:80", "192.0.2.1:80", "192.0.2.2:80"]);
        // Two at a time: one asks.
        let clone = resolver.clone();
        let (one, other) = join(addresses(&resolver, "app.test"), addresses(&clone, "app.test")).await;
        assert_eq!((&one, &other), (&expected, &expected));
        assert_eq!(addresses(&resolver, "app.test").await, expected);
        assert_eq!(server.questions(), 2, "one for each family");
        for _ in 0..2 {
            assert_eq!(addresses(&resolver, "brief.test").await, expected);
        }
        assert_eq!(server.questions(), 6, "what may not be kept is asked for again");
        // Neither number nor port comes again; 4 of 6 are not equal by chance once in 2^45.
        let mut ids: Vec<_> =
            server.asked.borrow().iter().map(|asked| (asked.id, asked.from.port())).collect();
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        assert!(ids.len() >= 4, "{ids:?}");
        ids.sort_unstable_by_key(|(_, port)| *port);
        ids.dedup_by_key(|(_, port)| *port);
        assert!(ids.len() >= 3, "{ids:?}");
        assert_eq!(addresses(&resolver, "192.0.2.9").await, list(&["192.0.2.9:80"]));
        assert_eq!(addresses(&resolver, "::1").await, list(&["[::1]:80"]));
    });
}

#[test]
fn that_there_is_no_such_name_is_kept_too() {
    each(async |runtime| {
        let server = Server::start(&runtime, |question, _| {
            let ttl = if question.queries[0].name().to_ascii().starts_with("brief") { 0 } else { 60 };
            Some(refusal(question, ResponseCode::NXDomain, ttl))
        });
        let resolver = Resolver::new(&spec(&[server.addr]), &runtime);
        for (name, questions) in
            [("absent.test", 2), ("absent.test", 2), ("brief.test", 4), ("brief.test", 6)]
        {
            assert_eq!(addresses(&resolver, name).await, Err(ResolveError::NotFound));
            assert_eq!(server.questions(), questions, "{name}");
        }
        let kept_none = ResolverSpec { cache_entries: 0, ..spec(&[server.addr]) };
        let resolver = Resolver::new(&kept_none, &runtime);
        for _ in 0..2 {
            addresses(&resolver, "absent.test").await.expect_err("no such name");
        }
        assert_eq!(server.questions(), 10);
    });
}

#[test]
fn the_next_server_is_asked_where_one_cannot_say() {
    each(async |runtime| {
        let failing =
            Server::start(&runtime, |question, _| Some(refusal(question, ResponseCode::ServFail, 60)));
        let silent = Server::start(&runtime, |_, _| None);
        let good = Server::start(&runtime, |question, _| Some(bytes(&answer(question, &["192.0.2.1"], 0))));
        // Nobody has the port: the kernel says so at once.
        let closed = {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let socket = PacketSocket::bind(&runtime, any).expect("a free port");
            let LocalAddr::Inet(addr) = socket.local_addr().expect("bound") else { panic!("of IP") };
            addr
        };
        while PacketSocket::bind(&runtime, closed).is_err() {
            turn().await;
        }
        let quick =
            |servers: &[SocketAddr]| ResolverSpec { timeout: Duration::from_millis(200), ..spec(servers) };
        let resolver = Resolver::new(&quick(&[closed, failing.addr, silent.addr, good.addr]), &runtime);
        let begin = runtime.now();
        assert_eq!(addresses(&resolver, "app.test").await, list(&["192.0.2.1:80"]));
        assert!(runtime.now() - begin >= Duration::from_millis(190), "one of them had its time");
        assert_eq!((failing.questions(), silent.questions(), good.questions()), (2, 2, 2));
        // Who has answered is asked first from then on.
        assert_eq!(addresses(&resolver, "app.test").await, list(&["192.0.2.1:80"]));
        assert_eq!((failing.questions(), silent.questions(), good.questions()), (2, 2, 4));

        let resolver = Resolver::new(&quick(&[failing.addr, closed]), &runtime);
        assert_eq!(addresses(&resolver, "app.test").await, Err(ResolveError::NoServer));
        let resolver = Resolver::new(&quick(&[silent.addr]), &runtime);
        assert_eq!(addresses(&resolver, "app.test").await, Err(ResolveError::TimedOut));
        assert_eq!(silent.questions(), 2 + 4, "twice for each family");
    });
}

#[test]
fn forged_answers_do_not_count() {
    each(async |runtime| {
        let stray = Rc::new(Cell::new(0));
        let counted = stray.clone();
        // By UDP only what looks like an answer, and by TCP too: nothing is believed.
        let server = Server::start(&runtime, move |question, _| {
            let mut message = answer(question, &["192.0.2.66", "2001:db8::66"], 60);
            match counted.replace(counted.get() + 1) % 3 {
                0 => message.metadata.id ^= 0x101,
                1 => {
                    message.queries[0].set_name(Name::from_ascii("other.test.").expect("a name"));
                }
                _ => message.metadata.message_type = MessageType::Query,
            }
            Some(bytes(&message))
        });
        let quick = ResolverSpec { timeout: Duration::from_millis(100), attempts: 3, ..spec(&[server.addr]) };
        let resolver = Resolver::new(&quick, &runtime);
        assert_eq!(addresses(&resolver, "app.test").await, Err(ResolveError::TimedOut));
        assert_eq!(stray.get(), 6);
    });
}

#[test]
fn what_does_not_fit_comes_by_tcp() {
    each(async |runtime| {
        let all: Vec<_> = (0..200).map(|last| format!("192.0.2.{last}")).collect();
        let server = Server::start(&runtime, move |question, is_tcp| {
            let all: Vec<_> = all.iter().map(String::as_str).collect();
            let mut message = answer(question, &all, 60);
            if !is_tcp {
                message.answers.truncate(3);
                message.metadata.truncation = true;
            }
            Some(bytes(&message))
        });
        let resolver = Resolver::new(&spec(&[server.addr]), &runtime);
        let found = resolver.addresses("many.test", 80).await.expect("by TCP");
        assert_eq!(found.len(), 64, "of 200");
        let by_tcp = server.asked.borrow().iter().filter(|asked| asked.is_tcp).count();
        assert_eq!((by_tcp, server.questions()), (2, 4));
        // A server that ends in the middle has failed.
        let server = Server::start(&runtime, |question, is_tcp| {
            let mut message = answer(question, &["192.0.2.1"], 60);
            message.metadata.truncation = true;
            (!is_tcp).then(|| bytes(&message))
        });
        let resolver = Resolver::new(&spec(&[server.addr]), &runtime);
        assert_eq!(addresses(&resolver, "many.test").await, Err(ResolveError::NoServer));
    });
}

#[test]
fn short_names_have_a_search_list() {
    each(async |runtime| {
        let server = Server::start(&runtime, |question, _| {
            let name = question.queries[0].name().to_ascii();
            Some(match name.as_str() {
                "db.b.test." => bytes(&answer(question, &["192.0.2.1"], 60)),
                _ => refusal(question, ResponseCode::NXDomain, 60),
            })
        });
        let searching =
            ResolverSpec { search: vec!["a.test".into(), "b.test".into()], ..spec(&[server.addr]) };
        let resolver = Resolver::new(&searching, &runtime);
        assert_eq!(addresses(&resolver, "db").await, list(&["192.0.2.1:80"]));
        let names = || {
            let asked = server.asked.borrow();
            let v4 = asked.iter().filter(|asked| asked.kind == RecordType::A);
            v4.map(|asked| asked.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["db.a.test", "db.b.test"]);
        assert_eq!(addresses(&resolver, "db.").await, Err(ResolveError::NotFound));
        assert_eq!(names()[2..], ["db"]);
        let dotted = ResolverSpec { ndots: Some(0), ..searching };
        let resolver = Resolver::new(&dotted, &runtime);
        assert_eq!(addresses(&resolver, "db").await, list(&["192.0.2.1:80"]));
        assert_eq!(names()[3..], ["db", "db.a.test", "db.b.test"]);
    });
}

#[test]
fn a_hosts_file_is_asked_first() {
    each(async |runtime| {
        let server = Server::start(&runtime, |question, _| Some(bytes(&answer(question, &["192.0.2.1"], 0))));
        let path = PathBuf::from(format!("{}/hosts-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id()));
        std::fs::write(&path, "192.0.2.77 App.test app # ours\n2001:db8::77 app.test\n").expect("a file");
        let with_hosts =
            ResolverSpec { hosts_file: Some(path.clone()), cache_entries: 0, ..spec(&[server.addr]) };
        let resolver = Resolver::new(&with_hosts, &runtime);
        assert_eq!(addresses(&resolver, "app.test").await, list(&["192.0.2.77:80", "[2001:db8::77]:80"]));
        assert_eq!(addresses(&resolver, "APP").await, list(&["192.0.2.77:80"]));
        assert_eq!(addresses(&resolver, "db.localhost").await, list(&["[::1]:80", "127.0.0.1:80"]));
        assert_eq!(server.questions(), 0);
        assert_eq!(addresses(&resolver, "other.test").await, list(&["192.0.2.1:80"]));
        std::fs::write(&path, "192.0.2.78 other.test\n").expect("a file");
        assert_eq!(addresses(&resolver, "other.test").await, list(&["192.0.2.78:80"]));
        std::fs::remove_file(&path).expect("a file");
        let error = addresses(&resolver, "other.test").await.expect_err("it is gone");
        assert!(matches!(&error, ResolveError::Other(why) if why.contains("hosts-")), "{error}");
    });
}

/// More names than run at a time, each asked for once and none lost; beyond what may wait there is an error.
#[test]
fn look_ups_wait_for_their_turn() {
    each(async |runtime| {
        let server =
            Server::start(&runtime, |question, _| Some(bytes(&answer(question, &["192.0.2.1"], 60))));
        let resolver = Resolver::new(&spec(&[server.addr]), &runtime);
        let tasks: Vec<_> = (0..200)
            .map(|at| {
                let resolver = resolver.clone();
                runtime.core().spawn(async move { addresses(&resolver, &format!("n{at}.test")).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect("it does not panic"), list(&["192.0.2.1:80"]));
        }
        assert_eq!(server.questions(), 400);

        let silent = Server::start(&runtime, |_, _| None);
        let quick = ResolverSpec { timeout: Duration::from_millis(1), attempts: 1, ..spec(&[silent.addr]) };
        let resolver = Resolver::new(&quick, &runtime);
        let (mut busy, mut tasks) = (0, Vec::new());
        for at in 0..4_100 {
            let resolver = resolver.clone();
            tasks.push(runtime.core().spawn(async move { resolver.addresses(&format!("n{at}"), 1).await }));
        }
        for task in tasks {
            let error = task.await.expect("it does not panic").expect_err("nobody answers");
            busy += usize::from(error == ResolveError::Busy);
        }
        assert_eq!(busy, 4, "4,096 may wait");
    });
}

#[test]
fn a_dialer_asks_the_servers_of_its_spec() {
    each(async |runtime| {
        let server =
            Server::start(&runtime, |question, _| Some(bytes(&answer(question, &["127.0.0.1"], 60))));
        let any = ConnectAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let mut listener = runtime.listen(&any, ListenOptions::default()).expect("a free port");
        let LocalAddr::Inet(addr) = listener.local_addr().expect("it listens") else { panic!("of IP") };
        let yaml = format!("resolver: {{servers: ['{}'], hostsFile: ''}}", server.addr);
        let spec = DialSpec::from_text(&yaml, Format::Yaml, "f").expect("a good spec");
        let dialer = Dialer::from_spec(&spec, &runtime);
        let target = format!("tcp://app.test:{}", addr.port()).parse().expect("a target");
        let (near, far) = join(dialer.dial(&target), net::accept(&runtime, &mut listener)).await;
        near.expect("it listens").send(&b"hello"[..]).await.expect("open");
        assert_eq!(&*far.expect("dialled").recv().await.expect("open").expect("bytes"), b"hello");
        assert_eq!(server.asked.borrow()[0].name, "app.test");
    });
}

/// Dropped while it asks: the question goes on for others, and ends with the core.
#[test]
fn a_look_up_may_be_given_up() {
    each(async |runtime| {
        let server = Server::start(&runtime, |_, _| None);
        let slow = ResolverSpec { timeout: Duration::from_secs(30), ..spec(&[server.addr]) };
        let resolver = Resolver::new(&slow, &runtime);
        let given_up =
            runtime.core().timeout(Duration::from_millis(50), resolver.addresses("app.test", 1)).await;
        assert!(given_up.is_err());
        assert_eq!(server.questions(), 2);
    });
}
