//! Any bytes as what an origin of HTTP/1.1 answers: the machine does not panic, tells the same whether they come whole or in
//! pieces, and once it has failed nothing changes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringport::buf::{Pool, PoolBuf, PoolSpec, RxQueue, TxQueue};
use ringport::proto::http1::{BodyLen, ClientConn, ClientEvent, Limits, RequestLine};

fuzz_target!(|input: &[u8]| {
    let [method, piece, bytes @ ..] = input else { return };
    let method = ["GET", "HEAD", "POST", "CONNECT"][usize::from(method % 4)];
    let whole = told(method, bytes, bytes.len().max(1));
    assert_eq!(told(method, bytes, usize::from(*piece).max(1)), whole, "{method} in pieces of {piece}");
});

struct Side {
    conn: ClientConn,
    method: &'static str,
    tx: TxQueue,
    told: Vec<String>,
}

fn told(method: &'static str, bytes: &[u8], piece: usize) -> Vec<String> {
    let limits = Limits { head_bytes: 600, request_line_bytes: 300, header_count: 10, ..Limits::default() };
    let tx = TxQueue::new(Pool::new(PoolSpec::default()));
    let mut side = Side { conn: ClientConn::new(limits), method, tx, told: Vec::new() };
    let mut rx = RxQueue::new();
    side.ask();
    for part in bytes.chunks(piece) {
        rx.push(PoolBuf::copied(part));
        if side.drive(&mut rx) {
            return side.told;
        }
    }
    side.conn.handle_eof();
    side.drive(&mut rx);
    side.told
}

impl Side {
    fn ask(&mut self) {
        let line = RequestLine { method: self.method, target: if self.method == "CONNECT" { "a:1" } else { "/" }, host: "a:1" };
        let body = if self.method == "CONNECT" { BodyLen::Tunnel } else { BodyLen::None };
        self.conn.send_request_head(line, [], body, &mut self.tx).expect("the connection waits");
        let _ = self.conn.finish(&mut self.tx);
        self.tx.clear();
    }

    /// Takes all that is there; whether the connection is over.
    fn drive(&mut self, rx: &mut RxQueue) -> bool {
        loop {
            let event = match self.conn.poll_event(rx) {
                Ok(event) => event,
                Err(error) => {
                    self.told.push(format!("{error}"));
                    assert_eq!(self.conn.poll_event(rx).err(), Some(error), "it says the same again");
                    return true;
                }
            };
            match event {
                ClientEvent::NeedInput => return false,
                ClientEvent::Closed => {
                    self.told.push("closed".to_owned());
                    return true;
                }
                ClientEvent::Informational(head) => self.told.push(format!("informational {:?}", head.status())),
                ClientEvent::Head(head, body) => {
                    let fields: Vec<_> = head.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                    self.told.push(format!("{:?} {body:?} {fields:?}", head.status()));
                }
                ClientEvent::Data(data) | ClientEvent::Tunnel(data) => {
                    assert!(!data.is_empty());
                    match self.told.last_mut().and_then(|last| last.strip_prefix("data ")) {
                        Some(len) => {
                            let len: usize = len.parse().expect("a number");
                            *self.told.last_mut().expect("there") = format!("data {}", len + data.len());
                        }
                        None => self.told.push(format!("data {}", data.len())),
                    }
                }
                ClientEvent::Trailers(trailers) => self.told.push(format!("{:?}", trailers.to_map().ok())),
                ClientEvent::End => {
                    // What is behind it was not asked for, or not yet: that depends on the pieces.
                    self.told.push("end".to_owned());
                    return true;
                }
            }
        }
    }
}
