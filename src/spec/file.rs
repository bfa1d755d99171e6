//! A file that holds any of the specs.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use prost::Message;

use super::check::Check;
use super::dial::DialSpec;
use super::error::{Fault, SpecErrors};
use super::http_server::HttpServerSpec;
use super::listen::ListenSpec;
use super::packet::PacketSpec;
use super::protobuf::check_protobuf;
use super::proxy::ProxySpec;
use super::raw;
use super::read::{Format, MAX_BYTES, notices, parse, read_and_check};
use super::text::to_yaml;
use super::tree::{Node, Value};

/// Any spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// How connections are made.
    Dial(Box<DialSpec>),
    /// How connections are accepted.
    Listen(Box<ListenSpec>),
    /// A socket of datagrams or packets.
    Packet(Box<PacketSpec>),
    /// A reverse proxy.
    Proxy(Box<ProxySpec>),
    /// A server of HTTP.
    HttpServer(Box<HttpServerSpec>),
}

/// Which spec a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecKind {
    /// A `DialConfig`.
    Dial,
    /// A `ListenConfig`.
    Listen,
    /// A `PacketConnConfig`.
    Packet,
    /// A `ProxyConfig`.
    Proxy,
    /// An `HTTPServerConfig`.
    HttpServer,
}

impl SpecKind {
    /// All of them.
    pub const ALL: [SpecKind; 5] =
        [SpecKind::Dial, SpecKind::Listen, SpecKind::Packet, SpecKind::Proxy, SpecKind::HttpServer];
}

/// `dial`, `listen`, `packet`, `proxy` or `http-server`.
impl FromStr for SpecKind {
    type Err = String;

    fn from_str(text: &str) -> Result<SpecKind, String> {
        let found = SpecKind::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| "write dial, listen, packet, proxy or http-server".to_owned())
    }
}

impl fmt::Display for SpecKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpecKind::Dial => "dial",
            SpecKind::Listen => "listen",
            SpecKind::Packet => "packet",
            SpecKind::Proxy => "proxy",
            SpecKind::HttpServer => "http-server",
        })
    }
}

impl Spec {
    /// The longest file that is read, in bytes.
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// Whether a file is a `SpecFile`, which says by a key at its top which spec it holds. Protobuf never is, nor what is no
    /// YAML, JSON or TOML.
    pub fn names_its_kind(bytes: &[u8], path: &Path) -> bool {
        let (Ok(format), Ok(text)) = (Format::from_path(path), std::str::from_utf8(bytes)) else {
            return false;
        };
        parse(text, format, &path.to_string_lossy()).is_ok_and(|root| is_spec_file(&root))
    }

    /// Reads and checks what a file holds, by the ending of its name: `.yaml`, `.yml`, `.json`, `.toml`, or `.binpb` or
    /// `.pb` for protobuf.
    ///
    /// Without a kind, a text with one of the keys of a `SpecFile` at its top (`dial_config`, `http_server_config`) is a
    /// `SpecFile`, which holds one of these; any other file is a `ProxyConfig`.
    ///
    /// # Errors
    /// Every fault, with line and column where it is a text. The writer of the file is at fault.
    pub fn from_file(bytes: &[u8], path: &Path, kind: Option<SpecKind>) -> Result<Spec, SpecErrors> {
        let file_name = path.to_string_lossy();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if matches!(ending.as_str(), "binpb" | "pb") {
            return Spec::from_protobuf(bytes, &file_name, kind.unwrap_or(SpecKind::Proxy));
        }
        let format = Format::from_path(path)?;
        let text =
            std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to(), &file_name))?;
        Spec::from_text(text, format, &file_name, kind)
    }

    /// Reads and checks a text, as [`Spec::from_file`]; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// As [`Spec::from_file`].
    pub fn from_text(
        text: &str,
        format: Format,
        file_name: &str,
        kind: Option<SpecKind>,
    ) -> Result<Spec, SpecErrors> {
        let root = parse(text, format, file_name)?;
        match kind {
            None if is_spec_file(&root) => read_and_check(&root, file_name, check_file),
            Some(SpecKind::Dial) => read_and_check(&root, file_name, check::<raw::DialConfig>),
            Some(SpecKind::Listen) => read_and_check(&root, file_name, check::<raw::ListenConfig>),
            Some(SpecKind::Packet) => read_and_check(&root, file_name, check::<raw::PacketConnConfig>),
            Some(SpecKind::HttpServer) => read_and_check(&root, file_name, check::<raw::HttpServerConfig>),
            Some(SpecKind::Proxy) | None => read_and_check(&root, file_name, check::<raw::ProxyConfig>),
        }
    }

    /// What a file says that its writer may not have meant: times without a unit, which count in the unit of the schema.
    ///
    /// Empty for protobuf, and for a file that [`Spec::from_file`] cannot read.
    pub fn notices(bytes: &[u8], path: &Path, kind: Option<SpecKind>) -> Vec<Fault> {
        let (Ok(format), Ok(text)) = (Format::from_path(path), std::str::from_utf8(bytes)) else {
            return Vec::new();
        };
        let file_name = &*path.to_string_lossy();
        let Ok(root) = parse(text, format, file_name) else { return Vec::new() };
        match kind {
            None if is_spec_file(&root) => notices::<raw::SpecFile>(&root, file_name),
            Some(SpecKind::Dial) => notices::<raw::DialConfig>(&root, file_name),
            Some(SpecKind::Listen) => notices::<raw::ListenConfig>(&root, file_name),
            Some(SpecKind::Packet) => notices::<raw::PacketConnConfig>(&root, file_name),
            Some(SpecKind::HttpServer) => notices::<raw::HttpServerConfig>(&root, file_name),
            Some(SpecKind::Proxy) | None => notices::<raw::ProxyConfig>(&root, file_name),
        }
    }

    /// Reads and checks a message in protobuf's binary form; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault, by path: a binary message has no lines. A malformed message is one fault, with the position of its byte.
    /// The writer of the message is at fault.
    pub fn from_protobuf(bytes: &[u8], file_name: &str, kind: SpecKind) -> Result<Spec, SpecErrors> {
        match kind {
            SpecKind::Dial => check_protobuf(bytes, file_name, check::<raw::DialConfig>),
            SpecKind::Listen => check_protobuf(bytes, file_name, check::<raw::ListenConfig>),
            SpecKind::Packet => check_protobuf(bytes, file_name, check::<raw::PacketConnConfig>),
            SpecKind::Proxy => check_protobuf(bytes, file_name, check::<raw::ProxyConfig>),
            SpecKind::HttpServer => check_protobuf(bytes, file_name, check::<raw::HttpServerConfig>),
        }
    }

    /// Which spec it is.
    pub fn kind(&self) -> SpecKind {
        match self {
            Spec::Dial(_) => SpecKind::Dial,
            Spec::Listen(_) => SpecKind::Listen,
            Spec::Packet(_) => SpecKind::Packet,
            Spec::Proxy(_) => SpecKind::Proxy,
            Spec::HttpServer(_) => SpecKind::HttpServer,
        }
    }

    /// The spec with the defaults written out, as a YAML text that [`Spec::from_text`] reads back to an equal one, given
    /// its kind.
    pub fn effective(&self) -> String {
        match self {
            Spec::Dial(spec) => to_yaml(&spec.to_raw()),
            Spec::Listen(spec) => to_yaml(&spec.to_raw()),
            Spec::Packet(spec) => to_yaml(&spec.to_raw()),
            Spec::Proxy(spec) => to_yaml(&spec.to_raw()),
            Spec::HttpServer(spec) => to_yaml(&spec.to_raw()),
        }
    }

    /// As [`Spec::effective`], under the key that tells the kind.
    pub fn effective_file(&self) -> String {
        to_yaml(&raw::SpecFile { spec: Some(self.to_raw()) })
    }

    /// The message that means this spec, in protobuf's binary form.
    pub fn to_protobuf(&self) -> Vec<u8> {
        match self.to_raw() {
            raw::spec_file::Spec::DialConfig(raw) => raw.encode_to_vec(),
            raw::spec_file::Spec::ListenConfig(raw) => raw.encode_to_vec(),
            raw::spec_file::Spec::PacketConnConfig(raw) => raw.encode_to_vec(),
            raw::spec_file::Spec::ProxyConfig(raw) => raw.encode_to_vec(),
            raw::spec_file::Spec::HttpServerConfig(raw) => raw.encode_to_vec(),
        }
    }

    fn to_raw(&self) -> raw::spec_file::Spec {
        match self {
            Spec::Dial(spec) => raw::spec_file::Spec::DialConfig(spec.to_raw()),
            Spec::Listen(spec) => raw::spec_file::Spec::ListenConfig(spec.to_raw()),
            Spec::Packet(spec) => raw::spec_file::Spec::PacketConnConfig(spec.to_raw()),
            Spec::Proxy(spec) => raw::spec_file::Spec::ProxyConfig(spec.to_raw()),
            Spec::HttpServer(spec) => raw::spec_file::Spec::HttpServerConfig(spec.to_raw()),
        }
    }
}

/// A message that is a spec.
trait Raw {
    fn check(&self, check: &mut Check) -> Option<Spec>;
}

impl Raw for raw::DialConfig {
    fn check(&self, check: &mut Check) -> Option<Spec> {
        Some(Spec::Dial(Box::new(check.dial_config(self, "", None))))
    }
}

impl Raw for raw::ListenConfig {
    fn check(&self, check: &mut Check) -> Option<Spec> {
        check.listen_config(self, "", None).map(|spec| Spec::Listen(Box::new(spec)))
    }
}

impl Raw for raw::PacketConnConfig {
    fn check(&self, check: &mut Check) -> Option<Spec> {
        check.packet_conn_config(self, "").map(|spec| Spec::Packet(Box::new(spec)))
    }
}

impl Raw for raw::ProxyConfig {
    fn check(&self, check: &mut Check) -> Option<Spec> {
        Some(Spec::Proxy(Box::new(check.proxy_config(self))))
    }
}

impl Raw for raw::HttpServerConfig {
    fn check(&self, check: &mut Check) -> Option<Spec> {
        check.http_server(self, "").map(|spec| Spec::HttpServer(Box::new(spec)))
    }
}

fn check<R: Raw>(raw: &R) -> Result<Spec, SpecErrors> {
    check_under(raw, "")
}

fn check_under(raw: &dyn Raw, root: &'static str) -> Result<Spec, SpecErrors> {
    let mut check = Check::under(root);
    let spec = raw.check(&mut check);
    check.complete(spec)
}

fn check_file(raw: &raw::SpecFile) -> Result<Spec, SpecErrors> {
    match &raw.spec {
        Some(raw::spec_file::Spec::DialConfig(raw)) => check_under(raw, "dial_config"),
        Some(raw::spec_file::Spec::ListenConfig(raw)) => check_under(raw, "listen_config"),
        Some(raw::spec_file::Spec::PacketConnConfig(raw)) => check_under(raw, "packet_conn_config"),
        Some(raw::spec_file::Spec::ProxyConfig(raw)) => check_under(raw, "proxy_config"),
        Some(raw::spec_file::Spec::HttpServerConfig(raw)) => check_under(raw, "http_server_config"),
        None => Err(SpecErrors::of(vec![SpecErrors::fault("", "the file holds no spec")])),
    }
}

/// Whether the text has a key at its top that only a `SpecFile` has.
fn is_spec_file(root: &Node) -> bool {
    let Value::Table(entries) = &root.value else { return false };
    let descriptor = raw::descriptor::<raw::SpecFile>();
    entries.iter().any(|(key, _)| {
        let name = key.name.as_str();
        descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name)).is_some()
    })
}

fn not_utf8(bytes: &[u8], at: usize, file_name: &str) -> SpecErrors {
    let before = String::from_utf8_lossy(&bytes[..at]);
    let lines = super::tree::Lines::new(&before);
    SpecErrors::one(file_name, Some(lines.position(at)), "cannot read it: the text is not UTF-8")
}
