//! HTTP/2 as raw bytes, for clients that a library would not be.

use crate::rig::TcpStream;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals that name no table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|&(name, value)| [Err(()), Ok(name), Ok(value)]) {
        match text {
            Err(()) => block.push(0),
            Ok(text) => {
                assert!(text.len() < 127, "its length takes a byte");
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
    }
    block
}

/// HEADERS of a request that is all there is.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// What a server sent, as far as its last whole frame.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

impl Frames {
    /// The next frame; `None` at the end of the connection, in whatever way it ends.
    pub(crate) async fn next(&mut self, client: &mut TcpStream) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            self.bytes.drain(..std::mem::take(&mut self.at));
            self.bytes.extend_from_slice(&client.recv().await.ok().flatten()?);
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.bytes[self.at..].first_chunk::<9>()?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.bytes.get(self.at + 9..self.at + 9 + len)?.to_vec();
        self.at += 9 + len;
        Some(Frame { kind, flags, stream, payload })
    }
}
