//! Programs that others wrote, as clients, as origins and as the server in front.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::origin::Origin;
use crate::process::{Ended, Process, have, run};
use crate::rig::{Folder, Proxy, Setup, cases, eventually};

cases![
    curl_speaks_every_kind_of_request,
    nginx_is_an_origin_under_load,
    nginx_stands_in_front,
    haproxy_stands_in_front,
    python_is_origin_and_client,
    a_websocket_passes,
];

fn curl(proxy: &Proxy, path: &str, options: &[&str]) -> Ended {
    let url = format!("http://{}{path}", proxy.addr());
    let ended = run(Command::new("curl").args(["-sS", "--max-time", "20"]).args(options).arg(url));
    assert_eq!((ended.code(), ended.err.as_str()), (Some(0), ""), "{options:?}: {ended:?}");
    ended
}

fn curl_speaks_every_kind_of_request(driver: &'static str) {
    if !have("curl", &["curl"]) {
        return;
    }
    let origin = Origin::script(|mut conn| {
        while let Some(head) = conn.wire.head().ok().flatten() {
            if head.field("expect") == "100-continue" {
                conn.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let mut message = head;
            if conn.wire.body(&mut message, false).is_err() {
                return;
            }
            let sum: u64 = message.body.iter().map(|byte| u64::from(*byte)).sum();
            let text = format!("{} {} {sum}", message.method(), message.body.len());
            let response = crate::message::ok(&text);
            let end = if message.method() == "HEAD" { response.len() - text.len() } else { response.len() };
            conn.wire.send(&response.as_bytes()[..end]);
        }
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let folder = Folder::new();
    let body = "0123456789".repeat(200_000);
    let upload = format!("@{}", folder.file("body", &body).display());
    let sum = 200_000 * (48..58).sum::<u64>();
    assert_eq!(curl(&proxy, "/", &[]).out, "GET 0 0");
    assert!(curl(&proxy, "/", &["--head"]).out.to_lowercase().contains("\r\ncontent-length: 8\r\n"));
    assert_eq!(curl(&proxy, "/", &["--data", "hi"]).out, "POST 2 209");
    for options in [
        &["--data-binary", &upload][..],
        &["--data-binary", &upload, "-H", "Transfer-Encoding: chunked"],
        &["--data-binary", &upload, "-H", "Expect: 100-continue", "--expect100-timeout", "15"],
        &["--data-binary", &upload, "--http1.0"],
    ] {
        assert_eq!(curl(&proxy, "/", options).out, format!("POST {} {sum}", body.len()), "{options:?}");
    }
    assert_eq!(curl(&proxy, "/", &["--http1.0"]).out, "GET 0 0");
    // One connection carries all of them: curl says so by the connections that it made for each.
    let url = format!("http://{}/", proxy.addr());
    let made = curl(&proxy, "/", &["-w", " %{num_connects};", &url, &url]);
    assert_eq!(made.out, "GET 0 0 1;GET 0 0 0;GET 0 0 0;");
    proxy.finish();
}

/// A server with a config in a folder of its own, which listens on a free port.
struct Server {
    _process: Process,
    folder: Folder,
    addr: SocketAddr,
}

/// Ports that nobody uses now: nginx and HAProxy cannot say which port the kernel gave them.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn nginx(server: &str) -> Server {
    let folder = Folder::new();
    let addr = free_port();
    let dir = folder.path().display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr warn;\nevents {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000;\n{temp}{} }}\n",
        server.replace("ADDR", &addr.to_string()).replace("FOLDER", &dir.to_string())
    );
    let config = folder.file("nginx.conf", &text);
    let process = Process::start(Command::new("nginx").arg("-c").arg(config).args(["-e", "stderr"]));
    eventually("nginx listens", || TcpStream::connect(addr).is_ok());
    Server { _process: process, folder, addr }
}

fn nginx_is_an_origin_under_load(driver: &'static str) {
    if !have("nginx as origin", &["nginx", "curl"]) {
        return;
    }
    let server = "server { listen ADDR; root FOLDER; location = /hello { return 200 hello; }\n\
                  location /put { dav_methods PUT; client_max_body_size 0; } }";
    let nginx = nginx(server);
    let big = "0123456789abcdef".repeat(1 << 16);
    nginx.folder.file("big", &big);
    let proxy = Setup::to(driver, nginx.addr, "").start();
    assert_eq!(curl(&proxy, "/hello", &[]).out, "hello");
    assert_eq!(curl(&proxy, "/big", &[]).out.len(), big.len());
    assert_eq!(curl(&proxy, "/big", &["-r", "16-31"]).out, "0123456789abcdef");
    assert_eq!(curl(&proxy, "/none", &["-o", "/dev/null", "-w", "%{http_code}"]).out, "404");
    load(&proxy);
    proxy.finish();
}

/// wrk for two seconds at 64 connections: no error, and the descriptors are back.
fn load(proxy: &Proxy) {
    if !have("load by wrk", &["wrk"]) {
        return;
    }
    proxy.assert_idle();
    let before = proxy.open_fds() as i64 - proxy.metric("origin_idle");
    let url = format!("http://{}/hello", proxy.addr());
    let wrk = run(Command::new("wrk").args(["-t1", "-c64", "-d2s", &url]));
    assert_eq!(wrk.code(), Some(0), "{wrk:?}");
    let requests =
        wrk.out.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse::<u64>().ok());
    assert!(requests.is_some_and(|count| count > 64), "{wrk:?}");
    assert!(!wrk.out.contains("Socket errors") && !wrk.out.contains("Non-2xx"), "{wrk:?}");
    proxy.assert_idle();
    assert_eq!(proxy.open_fds() as i64 - proxy.metric("origin_idle"), before);
}

fn nginx_stands_in_front(driver: &'static str) {
    if !have("nginx in front", &["nginx", "curl"]) {
        return;
    }
    let origin = Origin::answering(|request| {
        crate::message::ok(&format!("{} {}", request.text().len(), request.field("x-forwarded-for")))
            .into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let server = "upstream r { server PROXY; keepalive 8; }\nserver { listen ADDR; client_max_body_size 0;\n\
                  location / { proxy_pass http://r; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                  proxy_set_header X-Forwarded-For $remote_addr; proxy_request_buffering off; } }";
    let nginx = nginx(&server.replace("PROXY", &proxy.addr().to_string()));
    in_front(&proxy, nginx.addr, "127.0.0.1, 127.0.0.1");
    drop(nginx);
    proxy.finish();
}

/// Requests through a server in front, whose connections to the proxy are kept.
fn in_front(proxy: &Proxy, front: SocketAddr, forwarded: &str) {
    let body = "x".repeat(100_000);
    for _ in 0..10 {
        for (options, len) in
            [(&[][..], 0), (&["--data-binary", &body], body.len()), (&["-T", "-", "-H", "Expect:"], 0)]
        {
            let url = format!("http://{front}/path");
            let ended = run(Command::new("curl").args(["-sS", "--max-time", "20"]).args(options).arg(url));
            assert_eq!(ended.out, format!("{len} {forwarded}"), "{ended:?}");
        }
    }
    assert_eq!(proxy.metric("requests_total"), 30);
    assert!(proxy.metric("connections_total") < 30, "connections are reused");
}

fn haproxy_stands_in_front(driver: &'static str) {
    if !have("HAProxy in front", &["haproxy", "curl"]) {
        return;
    }
    let origin = Origin::answering(|request| {
        crate::message::ok(&format!("{} {}", request.text().len(), request.field("x-forwarded-for")))
            .into_bytes()
    });
    let proxy = Setup::to(driver, origin.addr, "").start();
    let folder = Folder::new();
    let addr = free_port();
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n  timeout connect 5s\n\
         \x20 option forwardfor\n  http-reuse always\nfrontend f\n  bind {addr}\n  default_backend b\n\
         backend b\n  option httpchk GET /health\n  server r {}\n",
        proxy.addr()
    );
    let config = folder.file("haproxy.cfg", &text);
    let haproxy = Process::start(Command::new("haproxy").args(["-db", "-f"]).arg(config));
    eventually("HAProxy listens", || TcpStream::connect(addr).is_ok());
    in_front(&proxy, addr, "127.0.0.1, 127.0.0.1");
    drop(haproxy);
    proxy.finish();
}

const PYTHON_ORIGIN: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (self.path.encode(), b" ", self.headers["Host"].encode()):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *rest): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port)
server.serve_forever()
"#;

const PYTHON_CLIENT: &str = r#"
import http.client, sys
port, origin = int(sys.argv[1]), sys.argv[2]
client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
for at in range(20):
    client.request("GET", f"/{at}?q=%20")
    response = client.getresponse()
    assert (response.status, response.read().decode()) == (200, f"/{at}?q=%20 {origin}"), at
    client.request("POST", "/", body=b"abc" * 10000)
    response = client.getresponse()
    assert (response.status, response.read()) == (201, b"cba" * 10000), at
    assert "ringport" in response.headers["Via"], response.headers
print("well")
"#;

fn python_is_origin_and_client(driver: &'static str) {
    if !have("http.server and http.client", &["python3"]) {
        return;
    }
    let (origin, addr) = Process::python(PYTHON_ORIGIN, &[]);
    let proxy = Setup::to(driver, addr, "").start();
    let arguments = [proxy.addr().port().to_string(), addr.to_string()];
    let client = run(Command::new("python3").args(["-c", PYTHON_CLIENT]).args(arguments));
    assert_eq!((client.out.as_str(), client.err.as_str()), ("well\n", ""));
    assert_eq!(proxy.metric("connections_total"), 1);
    drop(origin);
    proxy.finish();
}

/// Frames of RFC 6455 5.2 as both sides need them: text and close, short and 16-bit lengths.
const FRAMES: &str = r#"
import base64, hashlib, os, socket, struct, sys
def exactly(file, count):
    data = file.read(count)
    if len(data) != count: raise EOFError
    return data
def read(file, masked):
    first, second = exactly(file, 2)
    assert (second >= 128) == masked
    length = second & 127
    if length == 126: length = struct.unpack(">H", exactly(file, 2))[0]
    key = exactly(file, 4) if masked else bytes(4)
    return first & 15, bytes(byte ^ key[at % 4] for at, byte in enumerate(exactly(file, length)))
def frame(opcode, data, masked):
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    length = bytes([length[0] | (128 if masked else 0)]) + length[1:]
    key = os.urandom(4) if masked else b""
    body = bytes(byte ^ key[at % 4] for at, byte in enumerate(data)) if masked else data
    return bytes([128 | opcode]) + length + key + body
def head(file):
    lines = []
    while (line := file.readline()) not in (b"\r\n", b""): lines.append(line.decode().strip())
    return lines[0], {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
def accept(key): return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
"#;

const WEBSOCKET_ORIGIN: &str = r#"
server = socket.create_server(("127.0.0.1", 0))
print("port", server.getsockname()[1])
conn, _ = server.accept()
file = conn.makefile("rb")
first, fields = head(file)
assert fields["upgrade"].lower() == "websocket" and fields["connection"].lower() == "upgrade", fields
conn.sendall((f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {accept(fields['sec-websocket-key'])}\r\n\r\n").encode() + frame(1, b"welcome", False))
while True:
    opcode, data = read(file, True)
    conn.sendall(frame(opcode, data if opcode == 8 else data[::-1], False))
    if opcode == 8: break
print("closed by", data[2:].decode())
"#;

const WEBSOCKET_CLIENT: &str = r#"
conn = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
key = base64.b64encode(os.urandom(16)).decode()
# The first frame does not wait for the answer's end: it comes right behind.
conn.sendall((f"GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
file = conn.makefile("rb")
first, fields = head(file)
assert first.startswith("HTTP/1.1 101 "), first
assert fields["sec-websocket-accept"] == accept(key), fields
assert fields["upgrade"].lower() == "websocket" and "upgrade" in fields["connection"].lower(), fields
assert read(file, False) == (1, b"welcome")
for size in (1, 125, 126, 5000, 65535):
    data = os.urandom(size)
    conn.sendall(frame(2, data, True))
    assert read(file, False) == (2, data[::-1]), size
conn.sendall(frame(8, struct.pack(">H", 1000) + b"client", True))
assert read(file, False) == (8, struct.pack(">H", 1000) + b"client")
assert file.read() == b""
print("well")
"#;

fn a_websocket_passes(driver: &'static str) {
    if !have("a WebSocket", &["python3"]) {
        return;
    }
    let (mut origin, addr) = Process::python(&format!("{FRAMES}{WEBSOCKET_ORIGIN}"), &[]);
    let proxy = Setup::to(driver, addr, "accessLog: { path: FOLDER/access.log }\n").start();
    let source = format!("{FRAMES}{WEBSOCKET_CLIENT}");
    let client = run(Command::new("python3").args(["-c", &source, &proxy.addr().port().to_string()]));
    assert_eq!((client.out.as_str(), client.err.as_str()), ("well\n", ""), "{}", origin.log());
    origin.wait_for(|line| (line == "closed by client").then_some(()));
    assert!(origin.exit().success(), "{}", origin.log());
    let log = proxy.folder.path().join("access.log");
    eventually("the exchange is logged", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("GET h /chat\" 101 "))
    });
    assert_eq!(proxy.metric("responses_total"), 1);
    proxy.finish();
}
