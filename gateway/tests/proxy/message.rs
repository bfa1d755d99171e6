//! HTTP/1.1 as plainly as a test can read and write it: no leniency, no reuse of the code under test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a byte before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A head, and the body that came with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub first: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Heads of 1xx responses that came before.
    pub interim: Vec<String>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The value of a field that occurs once; empty where it does not occur.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut values = self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = values.next().map_or("", |(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs twice: {:?}", self.fields);
        value
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(found, _)| found.eq_ignore_ascii_case(name))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }
}

/// A connection of a test, as client or as origin. Every read fails after [`PATIENCE`].
pub(crate) struct Wire<S> {
    reader: BufReader<S>,
}

pub(crate) type Client = Wire<TcpStream>;

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).expect("the proxy accepts");
        Wire::over(stream)
    }

    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = stream.set_nodelay(true);
        Wire::new(stream)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Ends our side.
    pub(crate) fn half_close(&self) {
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO));
    }

    /// A whole request and its response on this connection.
    pub(crate) fn ask(&mut self, request: &str) -> Message {
        self.send(request.as_bytes());
        self.response(request.split(' ').next().unwrap_or_default())
    }
}

impl<S: Read + Write> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Wire { reader: BufReader::new(stream) }
    }

    /// Sends; that the peer has gone shows at the next read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The final response to a request with this method, and the 1xx before it.
    pub(crate) fn response(&mut self, method: &str) -> Message {
        self.try_response(method).expect("a whole response")
    }

    pub(crate) fn try_response(&mut self, method: &str) -> io::Result<Message> {
        let mut interim = Vec::new();
        loop {
            let mut message = self.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = message.status();
            if (100..200).contains(&status) && status != 101 {
                interim.push(message.first);
                continue;
            }
            message.interim = interim;
            let tunnel = status == 101 || method == "CONNECT" && status / 100 == 2;
            if method != "HEAD" && status != 204 && status != 304 && !tunnel {
                self.body(&mut message, true)?;
            }
            return Ok(message);
        }
    }

    /// The next request with its body; `None` at the end of the connection.
    pub(crate) fn request(&mut self) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head()? else { return Ok(None) };
        self.body(&mut message, false)?;
        Ok(Some(message))
    }

    /// The next head alone.
    pub(crate) fn head(&mut self) -> io::Result<Option<Message>> {
        let Some(first) = self.line()? else { return Ok(None) };
        Ok(Some(Message { first, fields: self.fields()?, ..Message::default() }))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(crate) fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(Some(String::from_utf8_lossy(line).into_owned())),
            None => {
                Err(io::Error::other(format!("a line without its end: {:?}", String::from_utf8_lossy(&line))))
            }
        }
    }

    pub(crate) fn body(&mut self, message: &mut Message, response: bool) -> io::Result<()> {
        if message.has("transfer-encoding") {
            assert_eq!(message.field("transfer-encoding").to_ascii_lowercase(), "chunked");
            assert!(!message.has("content-length"), "both lengths: {message:?}");
            loop {
                let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = usize::from_str_radix(&line, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    message.trailers = self.fields()?;
                    return Ok(());
                }
                let at = message.body.len();
                message.body.resize(at + size, 0);
                self.reader.read_exact(&mut message.body[at..])?;
                if self.line()?.as_deref() != Some("") {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        } else if message.has("content-length") {
            let size = message.field("content-length").parse().map_err(|_| io::ErrorKind::InvalidData)?;
            message.body.resize(size, 0);
            self.reader.read_exact(&mut message.body)
        } else if response {
            self.reader.read_to_end(&mut message.body).map(drop)
        } else {
            Ok(())
        }
    }

    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("all bytes");
        bytes
    }

    /// Everything until the peer ends its side. An error is the cut of the connection.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// The peer ends its side, in order, and sends nothing more.
    pub(crate) fn ends(&mut self) {
        let rest = self.rest().expect("an orderly end");
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    pub(crate) fn reader(&mut self) -> &mut BufReader<S> {
        &mut self.reader
    }
}

/// A response with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
