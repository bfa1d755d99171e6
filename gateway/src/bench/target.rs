//! What is asked, and where: URLs, addresses, fields, bodies, durations and rates as users write them.

use std::net::ToSocketAddrs;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use ringport::buf::{Pool, PoolSpec, TxQueue};
use ringport::proto::http1::{BodyLen, ClientConn, Limits, RequestLine, SendError};
use ringport::runtime::ConnectAddr;

/// A request that is sent over and over.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: String,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
    /// Whether each request says `Connection: close`.
    pub close: bool,
}

impl Request {
    /// Puts the request into a queue.
    pub(super) fn write(&self, conn: &mut ClientConn, tx: &mut TxQueue) -> Result<(), SendError> {
        let line = RequestLine { method: &self.method, target: &self.target, host: &self.host };
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let len = if self.body.is_empty() { BodyLen::None } else { BodyLen::Length(self.body.len() as u64) };
        if self.close {
            conn.close_after_response();
        }
        conn.send_request_head(line, fields, len, tx)?;
        if !self.body.is_empty() {
            conn.send_data(self.body.clone(), tx)?;
        }
        conn.finish(tx)
    }

    /// Tries it once without a connection, so that a fault is told before the run.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.method == "CONNECT" {
            return Err("CONNECT makes a tunnel, which is not measured".to_owned());
        }
        for (name, _) in &self.fields {
            if WRITTEN_BY_US.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                return Err(format!(
                    "the field {name:?} is not to be set: it follows from the other options"
                ));
            }
        }
        let mut tx = TxQueue::new(Pool::new(PoolSpec::default()));
        let written = self.write(&mut ClientConn::new(Limits::default()), &mut tx);
        written.map_err(|error| format!("the request is not valid: {error}"))
    }
}

/// The machine writes these, or they lead away from plain requests.
const WRITTEN_BY_US: [&str; 5] = ["connection", "content-length", "te", "transfer-encoding", "upgrade"];

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// `host:port`, to be looked up.
    pub dial: String,
    /// What Host says.
    pub host: String,
    pub target: String,
}

/// Reads an `http://` URL.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(format!("{text:?}: https is not supported, there is no TLS yet; use http://"));
        }
        Some(other) => return Err(format!("{text:?}: the scheme {other:?} is not supported; use http://")),
        None => return Err(format!("{text:?} has no scheme; write http://{text}")),
    }
    let authority = uri.authority().ok_or_else(|| format!("{text:?} has no host"))?;
    if authority.as_str().contains('@') {
        return Err(format!("{text:?}: a user in the URL is not supported; send it with --header"));
    }
    let port = match authority.port_u16() {
        Some(port) => port,
        None if authority.as_str() == authority.host() => 80,
        None => return Err(format!("{text:?} has a bad port")),
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
    let dial = format!("{}:{port}", authority.host());
    Ok(Url { dial, host: authority.as_str().to_owned(), target })
}

/// Looks an address up: `HOST:PORT`, `unix:PATH` or `unix:@NAME`. Of several addresses the first is taken.
pub(super) fn resolve(text: &str) -> Result<ConnectAddr, String> {
    if let Some(name) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
        let bytes = match name.strip_prefix('@') {
            Some(name) => [b"\0", name.as_bytes()].concat(),
            None => name.as_bytes().to_vec(),
        };
        return if name.is_empty() {
            Err(format!("{text:?} has no path"))
        } else {
            Ok(ConnectAddr::Unix(bytes))
        };
    }
    if !text.contains(':') {
        return Err(format!("{text:?} has no port; write HOST:PORT, or unix:PATH"));
    }
    let found = text.to_socket_addrs().map_err(|error| format!("cannot find {text:?}: {error}"))?.next();
    found.map(ConnectAddr::Inet).ok_or_else(|| format!("{text:?} has no address"))
}

/// Reads `Name: value`.
pub(super) fn field(text: &str) -> Result<(String, Vec<u8>), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is no field: write \"Name: value\""))?;
    Ok((name.trim().to_owned(), value.trim().as_bytes().to_vec()))
}

/// Reads a body: the text itself, or the content of the file behind `@`.
pub(super) fn body(text: &str) -> Result<Bytes, String> {
    match text.strip_prefix('@') {
        None => Ok(Bytes::from(text.as_bytes().to_vec())),
        Some(path) => {
            std::fs::read(path).map(Bytes::from).map_err(|error| format!("cannot read {path:?}: {error}"))
        }
    }
}

/// Reads `10s`, `1.5m`, `200ms` or `1h`; at most a year.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is no duration; write it as 500ms, 10s, 1.5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
    let unit = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(fault()),
    };
    let seconds = text[..digits].parse::<f64>().map_err(|_| fault())? * unit;
    if seconds > YEAR { Err(fault()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| fault()) }
}

/// A [`duration`] that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() { Err(format!("{text:?} is no time at all")) } else { Ok(duration) }
}

/// Reads requests a second, above 0.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is no rate; it is requests a second, 0.001 to 1000000000")),
    }
}

const YEAR: f64 = 365.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::{Request, duration, field, positive_duration, rate, resolve, url};
    use bytes::Bytes;
    use std::time::Duration;

    #[test]
    fn urls_are_taken_apart() {
        let check = |text: &str, expected: [&str; 3]| {
            let url = url(text).expect("a good URL");
            assert_eq!([url.dial.as_str(), &url.host, &url.target], expected, "{text}");
        };
        check("http://a.example", ["a.example:80", "a.example", "/"]);
        check("http://a.example:8080/x/y?z=1", ["a.example:8080", "a.example:8080", "/x/y?z=1"]);
        check("http://[::1]:81?q", ["[::1]:81", "[::1]:81", "/?q"]);
        check("http://[::1]/a#fragment", ["[::1]:80", "[::1]", "/a"]);
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        let rows = [
            ("https://a/", "https is not supported"),
            ("ftp://a/", "\"ftp\" is not supported"),
            ("a.example:80", "has no scheme"),
            ("/path", "has no scheme"),
            ("http://u:p@a/", "a user in the URL"),
            ("http://a:99999/", "port"),
            ("http://", "is no URL"),
        ];
        for (text, part) in rows {
            let error = url(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn durations_and_rates_are_read() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("1.5m", 90_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1e3s", "1d", "1.2.3s", "99999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "x"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_and_fields_are_read() {
        assert!(resolve("127.0.0.1:80").is_ok() && resolve("unix:/a").is_ok());
        assert!(resolve("unix:").is_err() && resolve("127.0.0.1").is_err());
        assert_eq!(field("A: b: c "), Ok(("A".to_owned(), b"b: c".to_vec())));
        assert!(field("A").is_err());
    }

    #[test]
    fn a_request_that_cannot_be_sent_is_refused() {
        let good = Request {
            method: "GET".into(),
            target: "/".into(),
            host: "a".into(),
            fields: vec![("X-A".into(), b"b".to_vec())],
            body: Bytes::new(),
            close: true,
        };
        assert_eq!(good.check(), Ok(()));
        let field = |name: &str, value: &[u8]| vec![(name.to_owned(), value.to_vec())];
        for bad in [
            Request { method: "G T".into(), ..good.clone() },
            Request { method: "CONNECT".into(), ..good.clone() },
            Request { fields: field("Content-Length", b"1"), ..good.clone() },
            Request { fields: field("X A", b"1"), ..good.clone() },
            Request { fields: field("X-A", b"1\r\nB: c"), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
