//! TLS of dialers and listeners, as checked. No file is read here: see [`crate::net::tls`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address::request_host;
use super::check::{Check, Unlimited, join};
use super::error::SpecErrors;
use super::listen::milliseconds;
use super::nearest::quoted;
use super::raw;
pub use super::raw::{Curve, TlsCipher};
use super::read::{Format, parse, read_and_check};

/// How a dialer speaks TLS.
///
/// Made by [`TlsClientSpec::from_text`], `TryFrom<&raw::TlsConfig>` or [`TlsClientSpec::builder`], which obey the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClientSpec {
    common: TlsCommon,
    identity: Option<Identity>,
    roots: Issuers,
    server_name: Option<String>,
    is_unverified: bool,
    sessions: u32,
}

/// How a listener speaks TLS.
///
/// Made by [`TlsServerSpec::from_text`], `TryFrom<&raw::TlsConfig>` or [`TlsServerSpec::builder`], which obey the same rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServerSpec {
    common: TlsCommon,
    identities: Vec<Identity>,
    client_auth: ClientAuth,
    client_roots: Issuers,
    resumption: Resumption,
    max_early_data: u32,
    max_pending: usize,
}

/// What both sides have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCommon {
    /// The lowest and the highest version.
    pub versions: (TlsVersion, TlsVersion),
    /// Protocols to agree on (ALPN), the preferred first: at most 16, of 1 to 255 bytes each.
    pub alpn: Vec<String>,
    /// Suites, each once, of the versions that they limit; none = all.
    pub suites: Vec<TlsCipher>,
    /// Groups of the key exchange, the preferred first, each once; none = all.
    pub groups: Vec<Curve>,
    /// Whether the first records are short.
    pub dynamic_records: bool,
    /// For a handshake; `None` = no limit.
    pub handshake_timeout: Option<Duration>,
    /// Whether keys are written to the file that the environment names.
    pub key_log: bool,
    /// How often the files are looked at, to be read again where they have changed; `None` = never.
    pub reload_interval: Option<Duration>,
}

impl Default for TlsCommon {
    /// Both versions, every suite and group that is safe, full records, 10 s for a handshake, a look at the files each second.
    fn default() -> Self {
        TlsCommon {
            versions: (TlsVersion::Tls12, TlsVersion::Tls13),
            alpn: Vec::new(),
            suites: Vec::new(),
            groups: Vec::new(),
            dynamic_records: false,
            handshake_timeout: Some(Duration::from_secs(10)),
            key_log: false,
            reload_interval: Some(Duration::from_secs(1)),
        }
    }
}

/// Versions that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// PEM text, and where it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// Here.
    Inline(String),
}

/// Without the text, which may be a key.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pem::File(path) => write!(f, "File({path:?})"),
            Pem::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
        }
    }
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificate, then what leads from it to a root.
    pub cert: Pem,
    /// Its key.
    pub key: Pem,
}

/// Who may have issued the other side's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuers {
    /// Those of the system.
    pub system: bool,
    /// These; at most 200.
    pub own: Vec<Pem>,
}

/// Whether a listener asks clients for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// It does not.
    #[default]
    None,
    /// None is needed, and any is taken, whoever issued it.
    Request,
    /// One is needed, and any is taken.
    RequireAny,
    /// None is needed; one that is sent must be of a trusted issuer.
    VerifyIfGiven,
    /// One of a trusted issuer is needed.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether issuers matter.
    pub fn verifies(self) -> bool {
        matches!(self, ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify)
    }
}

/// How a listener goes on with earlier sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resumption {
    /// Clients keep them, sealed with keys that change every six hours and that all cores share.
    #[default]
    Tickets,
    /// It keeps so many: 1 to 1,000,000.
    Cache(u32),
    /// Not at all.
    Off,
}

impl TlsClientSpec {
    /// Reads and checks a text that is a `TLSConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<Self, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| TlsClientSpec::try_from(raw))
    }

    /// Begins a spec in code: the system's issuers, all else by default.
    pub fn builder() -> TlsClientSpecBuilder {
        TlsClientSpecBuilder { spec: TlsClientSpec::default() }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> TlsClientSpecBuilder {
        TlsClientSpecBuilder { spec: self }
    }

    pub(super) fn with_default_alpn(mut self, names: &[&str]) -> Self {
        self.common.default_alpn(names);
        self
    }

    /// What both sides have.
    pub fn common(&self) -> &TlsCommon {
        &self.common
    }

    /// What is shown to servers that ask.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Who may have issued the server's certificate.
    pub fn roots(&self) -> &Issuers {
        &self.roots
    }

    /// Name or address that the server is asked for and has to prove; `None` = the host that is dialled.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether nobody looks at the server's certificate.
    pub fn is_unverified(&self) -> bool {
        self.is_unverified
    }

    /// Sessions that are kept to be resumed, 0 to 1,000,000.
    pub fn sessions(&self) -> u32 {
        self.sessions
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::TlsConfig {
        let (root_cas, root_ca_pems) = split(&self.roots.own);
        raw::TlsConfig {
            cert_key_pairs: self.identity.iter().map(Identity::to_raw).collect(),
            root_cas,
            root_ca_pems,
            root_cas_ignore_system_certs: Some(!self.roots.system),
            server_name: self.server_name.clone(),
            insecure_skip_verify: Some(self.is_unverified),
            session_tickets_disabled: Some(self.sessions == 0),
            session_cache_entries: (self.sessions > 0).then(|| count(self.sessions)),
            renegotiation: Some(raw::Renegotiation::Never.into()),
            ..self.common.to_raw()
        }
    }
}

impl Default for TlsClientSpec {
    fn default() -> Self {
        TlsClientSpec {
            common: TlsCommon::default(),
            identity: None,
            roots: Issuers { system: true, own: Vec::new() },
            server_name: None,
            is_unverified: false,
            sessions: DEFAULT_SESSIONS,
        }
    }
}

impl TryFrom<&raw::TlsConfig> for TlsClientSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::TlsConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.tls_client(raw, "");
        check.or(spec)
    }
}

impl TlsServerSpec {
    /// Reads and checks a text that is a `TLSConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<Self, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| TlsServerSpec::try_from(raw))
    }

    /// Begins a spec in code: this certificate, all else by default.
    pub fn builder(identity: Identity) -> TlsServerSpecBuilder {
        TlsServerSpecBuilder { spec: TlsServerSpec::of(vec![identity]) }
    }

    fn of(identities: Vec<Identity>) -> Self {
        TlsServerSpec {
            common: TlsCommon::default(),
            identities,
            client_auth: ClientAuth::None,
            client_roots: Issuers { system: false, own: Vec::new() },
            resumption: Resumption::Tickets,
            max_early_data: 0,
            max_pending: DEFAULT_PENDING,
        }
    }

    pub(super) fn with_default_alpn(mut self, names: &[&str]) -> Self {
        self.common.default_alpn(names);
        self
    }

    /// What both sides have.
    pub fn common(&self) -> &TlsCommon {
        &self.common
    }

    /// What is shown to clients, at least one: see the field `cert_key_pairs`.
    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Whether clients are asked for certificates.
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth
    }

    /// Who may have issued those.
    pub fn client_roots(&self) -> &Issuers {
        &self.client_roots
    }

    /// How earlier sessions go on.
    pub fn resumption(&self) -> Resumption {
        self.resumption
    }

    /// Bytes that a client may send with its hello; at most 1 MiB.
    pub fn max_early_data(&self) -> u32 {
        self.max_early_data
    }

    /// Handshakes at a time on each core, 1 to 1,000,000.
    pub fn max_pending(&self) -> usize {
        self.max_pending
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::TlsConfig {
        let (client_cas, client_ca_pems) = split(&self.client_roots.own);
        let client_auth = match self.client_auth {
            ClientAuth::None => raw::ClientAuth::None,
            ClientAuth::Request => raw::ClientAuth::Request,
            ClientAuth::RequireAny => raw::ClientAuth::RequireAny,
            ClientAuth::VerifyIfGiven => raw::ClientAuth::VerifyIfGiven,
            ClientAuth::RequireAndVerify => raw::ClientAuth::RequireAndVerify,
        };
        raw::TlsConfig {
            cert_key_pairs: self.identities.iter().map(Identity::to_raw).collect(),
            client_auth: Some(client_auth.into()),
            client_cas,
            client_ca_pems,
            client_cas_ignore_system_certs: self.client_auth.verifies().then_some(!self.client_roots.system),
            session_tickets_disabled: Some(self.resumption == Resumption::Off),
            session_cache_entries: match self.resumption {
                Resumption::Cache(entries) => Some(count(entries)),
                Resumption::Tickets | Resumption::Off => None,
            },
            max_early_data: Some(count(self.max_early_data)),
            max_pending_handshakes: Some(count(u32::try_from(self.max_pending).unwrap_or(u32::MAX))),
            ..self.common.to_raw()
        }
    }
}

impl TryFrom<&raw::TlsConfig> for TlsServerSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::TlsConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.tls_server(raw, "");
        check.or(spec)
    }
}

/// A [`TlsClientSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct TlsClientSpecBuilder {
    spec: TlsClientSpec,
}

impl TlsClientSpecBuilder {
    /// Sets what both sides have.
    pub fn common(mut self, common: TlsCommon) -> Self {
        self.spec.common = common;
        self
    }

    /// Sets what is shown to servers that ask.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.spec.identity = Some(identity);
        self
    }

    /// Sets who may have issued the server's certificate.
    pub fn roots(mut self, roots: Issuers) -> Self {
        self.spec.roots = roots;
        self
    }

    /// Sets the name that the server is asked for and has to prove.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.spec.server_name = Some(name.into());
        self
    }

    /// Nobody looks at the server's certificate: anybody may be at the other end.
    pub fn dangerously_unverified(mut self) -> Self {
        self.spec.is_unverified = true;
        self
    }

    /// Sets how many sessions are kept; 0 = none is resumed.
    pub fn sessions(mut self, sessions: u32) -> Self {
        self.spec.sessions = sessions;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<TlsClientSpec, SpecErrors> {
        let spec = TlsClientSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("tls_config", spec == self.spec);
        check.or(spec)
    }
}

/// A [`TlsServerSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct TlsServerSpecBuilder {
    spec: TlsServerSpec,
}

impl TlsServerSpecBuilder {
    /// Sets what both sides have.
    pub fn common(mut self, common: TlsCommon) -> Self {
        self.spec.common = common;
        self
    }

    /// Adds another certificate, which is chosen by the name that the client asks for.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.spec.identities.push(identity);
        self
    }

    /// Sets whether clients are asked for certificates, and who may have issued those.
    pub fn client_auth(mut self, auth: ClientAuth, roots: Issuers) -> Self {
        (self.spec.client_auth, self.spec.client_roots) = (auth, roots);
        self
    }

    /// Sets how earlier sessions go on.
    pub fn resumption(mut self, resumption: Resumption) -> Self {
        self.spec.resumption = resumption;
        self
    }

    /// Sets how many bytes a client may send with its hello.
    pub fn max_early_data(mut self, bytes: u32) -> Self {
        self.spec.max_early_data = bytes;
        self
    }

    /// Sets how many handshakes there may be at a time.
    pub fn max_pending(mut self, handshakes: usize) -> Self {
        self.spec.max_pending = handshakes;
        self
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<TlsServerSpec, SpecErrors> {
        let spec = TlsServerSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("tls_config", spec == self.spec);
        check.or(spec)
    }
}

impl TlsCommon {
    fn default_alpn(&mut self, names: &[&str]) {
        if self.alpn.is_empty() {
            self.alpn = names.iter().map(|&name| name.to_owned()).collect();
        }
    }

    fn to_raw(&self) -> raw::TlsConfig {
        let version = |version| match version {
            TlsVersion::Tls12 => raw::TlsVersion::TlsVersion12,
            TlsVersion::Tls13 => raw::TlsVersion::TlsVersion13,
        };
        raw::TlsConfig {
            next_protos: self.alpn.clone(),
            tls_ciphers: self.suites.iter().map(|&suite| suite.into()).collect(),
            min_version: Some(version(self.versions.0).into()),
            max_version: Some(version(self.versions.1).into()),
            curve_preferences: self.groups.iter().map(|&group| group.into()).collect(),
            dynamic_record_sizing_disabled: Some(!self.dynamic_records),
            handshake_timeout: Some(milliseconds(self.handshake_timeout)),
            key_log: Some(self.key_log),
            reload_interval: Some(milliseconds(self.reload_interval)),
            ..raw::TlsConfig::default()
        }
    }
}

impl Identity {
    /// From two files.
    pub fn files(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Identity { cert: Pem::File(cert.into()), key: Pem::File(key.into()) }
    }

    fn to_raw(&self) -> raw::CertKeyPair {
        let part = |pem: &Pem| match pem {
            Pem::File(path) => (Some(path.display().to_string()), None),
            Pem::Inline(text) => (None, Some(text.clone())),
        };
        let ((cert_file, cert_pem), (key_file, key_pem)) = (part(&self.cert), part(&self.key));
        raw::CertKeyPair { cert_file, key_file, cert_pem, key_pem }
    }
}

/// Paths, and texts.
fn split(pems: &[Pem]) -> (Vec<String>, Vec<String>) {
    let paths = pems.iter().filter_map(|pem| match pem {
        Pem::File(path) => Some(path.display().to_string()),
        Pem::Inline(_) => None,
    });
    let texts = pems.iter().filter_map(|pem| match pem {
        Pem::File(_) => None,
        Pem::Inline(text) => Some(text.clone()),
    });
    (paths.collect(), texts.collect())
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Check {
    /// TLS of a dialer.
    pub(super) fn tls_client(&mut self, raw: &raw::TlsConfig, path: &str) -> TlsClientSpec {
        let at = |field: &str| join(path, field);
        for (field, is_written) in [
            ("client_auth", raw.client_auth.is_some()),
            ("client_cas", !raw.client_cas.is_empty()),
            ("client_ca_pems", !raw.client_ca_pems.is_empty()),
            ("client_cas_ignore_system_certs", raw.client_cas_ignore_system_certs.is_some()),
            ("max_pending_handshakes", raw.max_pending_handshakes.is_some()),
            ("max_early_data", raw.max_early_data.is_some()),
        ] {
            if is_written {
                self.fault(at(field), "only a listener has it");
            }
        }
        let mut identities = self.identities(raw, path);
        if identities.len() > 1 {
            self.fault(at("cert_key_pairs"), "a dialer shows one certificate at most");
        }
        let roots = Issuers {
            system: raw.root_cas_ignore_system_certs != Some(true),
            own: self.issuers((&raw.root_cas, "root_cas"), (&raw.root_ca_pems, "root_ca_pems"), path),
        };
        let is_unverified = raw.insecure_skip_verify == Some(true);
        if !roots.system && roots.own.is_empty() && !is_unverified {
            self.fault(
                at("root_cas_ignore_system_certs"),
                "nobody is trusted then: name issuers in root_cas",
            );
        }
        let server_name = raw.server_name.as_deref().filter(|name| !name.is_empty());
        let server_name = server_name.and_then(|name| self.parsed(&at("server_name"), server_name_of(name)));
        let sessions = self.sessions(raw, path);
        let resumes = raw.session_tickets_disabled != Some(true);
        TlsClientSpec {
            common: self.tls_common(raw, path),
            identity: if identities.is_empty() { None } else { Some(identities.swap_remove(0)) },
            roots,
            server_name,
            is_unverified,
            sessions: if resumes { sessions.unwrap_or(DEFAULT_SESSIONS) } else { 0 },
        }
    }

    /// TLS of a listener.
    pub(super) fn tls_server(&mut self, raw: &raw::TlsConfig, path: &str) -> TlsServerSpec {
        let at = |field: &str| join(path, field);
        for (field, is_written) in [
            ("root_cas", !raw.root_cas.is_empty()),
            ("root_ca_pems", !raw.root_ca_pems.is_empty()),
            ("root_cas_ignore_system_certs", raw.root_cas_ignore_system_certs.is_some()),
            ("server_name", raw.server_name.as_deref().is_some_and(|name| !name.is_empty())),
            ("insecure_skip_verify", raw.insecure_skip_verify == Some(true)),
        ] {
            if is_written {
                self.fault(at(field), "only a dialer has it");
            }
        }
        if raw.cert_key_pairs.is_empty() {
            self.fault(at("cert_key_pairs"), "a listener needs at least one");
        }
        let identities = self.identities(raw, path);
        let client_auth =
            self.choice(at("client_auth"), raw.client_auth, ClientAuth::None, |auth| match auth {
                raw::ClientAuth::None => ClientAuth::None,
                raw::ClientAuth::Request => ClientAuth::Request,
                raw::ClientAuth::RequireAny => ClientAuth::RequireAny,
                raw::ClientAuth::VerifyIfGiven => ClientAuth::VerifyIfGiven,
                raw::ClientAuth::RequireAndVerify => ClientAuth::RequireAndVerify,
            });
        let client_roots = self.client_roots(raw, path, client_auth);
        let cached = self.sessions(raw, path);
        let resumption = match (raw.session_tickets_disabled, cached) {
            (Some(true), _) => Resumption::Off,
            (_, Some(entries)) => Resumption::Cache(entries),
            (_, None) => Resumption::Tickets,
        };
        let max_early_data =
            self.range(at("max_early_data"), raw.max_early_data, 0..=MAX_EARLY_DATA).unwrap_or(0);
        if max_early_data > 0 && !matches!(resumption, Resumption::Cache(_)) {
            // RFC 8446 8.1: each session is taken out of the cache once; a ticket can be shown twice.
            self.fault(at("max_early_data"), "only a session cache keeps early data from being replayed");
        }
        let max_pending =
            self.range(at("max_pending_handshakes"), raw.max_pending_handshakes, 1..=MAX_ENTRIES);
        TlsServerSpec {
            common: self.tls_common(raw, path),
            identities,
            client_auth,
            client_roots,
            resumption,
            max_early_data,
            max_pending: max_pending.unwrap_or(DEFAULT_PENDING),
        }
    }

    fn client_roots(&mut self, raw: &raw::TlsConfig, path: &str, auth: ClientAuth) -> Issuers {
        let at = |field: &str| join(path, field);
        let own =
            self.issuers((&raw.client_cas, "client_cas"), (&raw.client_ca_pems, "client_ca_pems"), path);
        let system = raw.client_cas_ignore_system_certs == Some(false);
        if auth.verifies() {
            if own.is_empty() && !system {
                self.fault(at("client_cas"), "nobody is trusted as an issuer of clients: name one");
            }
        } else if !own.is_empty() || system {
            let field = if system { "client_cas_ignore_system_certs" } else { "client_cas" };
            self.fault(at(field), "no effect: client_auth verifies no certificate");
        }
        Issuers { system, own }
    }

    fn tls_common(&mut self, raw: &raw::TlsConfig, path: &str) -> TlsCommon {
        let at = |field: &str| join(path, field);
        let defaults = TlsCommon::default();
        let min = self.tls_version(at("min_version"), raw.min_version, defaults.versions.0);
        let max = self.tls_version(at("max_version"), raw.max_version, defaults.versions.1);
        if min > max {
            self.fault(at("min_version"), "it is above max_version");
        }
        self.choice(at("renegotiation"), raw.renegotiation, raw::Renegotiation::Never, |renegotiation| {
            renegotiation
        });
        if raw.renegotiation.is_some_and(|number| number == 1 || number == 2) {
            self.fault(
                at("renegotiation"),
                "it has been the way into too many servers, and TLS 1.3 has none",
            );
        }
        let timeout = self.milliseconds(at("handshake_timeout"), raw.handshake_timeout, Unlimited::Zero);
        let reload = self.milliseconds(at("reload_interval"), raw.reload_interval, Unlimited::ZeroIsNever);
        TlsCommon {
            versions: (min, max),
            alpn: self.alpn(raw, &at("next_protos")),
            suites: self.suites(raw, &at("tls_ciphers"), (min, max)),
            groups: self.groups(raw, &at("curve_preferences")),
            dynamic_records: raw.dynamic_record_sizing_disabled == Some(false),
            handshake_timeout: timeout.unwrap_or(defaults.handshake_timeout),
            key_log: raw.key_log == Some(true),
            reload_interval: reload.unwrap_or(defaults.reload_interval),
        }
    }

    fn tls_version(&mut self, path: String, version: Option<i32>, default: TlsVersion) -> TlsVersion {
        let found = self.choice(path.clone(), version, Ok(default), |version| match version {
            raw::TlsVersion::Default => Ok(default),
            raw::TlsVersion::TlsVersion12 => Ok(TlsVersion::Tls12),
            raw::TlsVersion::TlsVersion13 => Ok(TlsVersion::Tls13),
            raw::TlsVersion::Ssl3 | raw::TlsVersion::TlsVersion10 | raw::TlsVersion::TlsVersion11 => {
                Err(version)
            }
        });
        found.unwrap_or_else(|old| {
            let name = old.as_str_name();
            self.fault(path, format!("{name} is not safe (RFC 7568, RFC 8996); only 1.2 and 1.3 are"));
            default
        })
    }

    fn alpn(&mut self, raw: &raw::TlsConfig, path: &str) -> Vec<String> {
        if !self.at_most(path, raw.next_protos.len(), MAX_PROTOCOLS) {
            return Vec::new();
        }
        for (index, name) in raw.next_protos.iter().enumerate() {
            if !(1..=255).contains(&name.len()) {
                self.fault(format!("{path}[{index}]"), "a protocol has 1 to 255 bytes");
            } else if raw.next_protos[..index].contains(name) {
                self.fault(format!("{path}[{index}]"), "written twice");
            }
        }
        raw.next_protos.clone()
    }

    fn suites(
        &mut self,
        raw: &raw::TlsConfig,
        path: &str,
        (min, max): (TlsVersion, TlsVersion),
    ) -> Vec<TlsCipher> {
        let mut suites = Vec::new();
        for (index, number) in raw.tls_ciphers.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let suite = self.choice(path.clone(), Some(*number), None, Some);
            let Some(suite) = suite.map(one_name) else { continue };
            let name = suite.as_str_name();
            match version_of(suite) {
                None if suite == TlsCipher::TlsFallbackScsv => {
                    self.fault(path, format!("{name} is a signal, no cipher suite"));
                }
                None => self.fault(
                    path,
                    format!("{name} has no forward secrecy or no authenticated encryption, and is not there"),
                ),
                Some(version) if version < min || version > max => {
                    self.fault(path, format!("no effect: {name} is of a version that is left out"));
                }
                Some(_) if suites.contains(&suite) => self.fault(path, "written twice"),
                Some(_) => suites.push(suite),
            }
        }
        suites
    }

    fn groups(&mut self, raw: &raw::TlsConfig, path: &str) -> Vec<Curve> {
        let mut groups = Vec::new();
        for (index, number) in raw.curve_preferences.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some(group) = self.choice(path.clone(), Some(*number), None, Some) else { continue };
            let is_there = match group {
                Curve::P256 | Curve::P384 | Curve::X25519 => true,
                Curve::P521 => false,
                Curve::X25519mlkem768 | Curve::P256mlkem768 => cfg!(feature = "aws-lc-rs"),
            };
            if !is_there {
                self.fault(path, format!("{} is not there with this provider", group.as_str_name()));
            } else if groups.contains(&group) {
                self.fault(path, "written twice");
            } else {
                groups.push(group);
            }
        }
        groups
    }

    fn identities(&mut self, raw: &raw::TlsConfig, path: &str) -> Vec<Identity> {
        let path = join(path, "cert_key_pairs");
        if !self.at_most(&path, raw.cert_key_pairs.len(), MAX_FILES) {
            return Vec::new();
        }
        let mut identities = Vec::new();
        for (index, pair) in raw.cert_key_pairs.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let cert = self.pem((&pair.cert_file, "cert_file"), (&pair.cert_pem, "cert_pem"), &path);
            let key = self.pem((&pair.key_file, "key_file"), (&pair.key_pem, "key_pem"), &path);
            identities.extend(cert.zip(key).map(|(cert, key)| Identity { cert, key }));
        }
        identities
    }

    /// One of two fields.
    fn pem(
        &mut self,
        (file, file_field): (&Option<String>, &str),
        (text, text_field): (&Option<String>, &str),
        path: &str,
    ) -> Option<Pem> {
        let file = file.as_deref().filter(|file| !file.is_empty());
        let text = text.as_deref().filter(|text| !text.is_empty());
        match (file, text) {
            (Some(file), None) => self.pem_file(&join(path, file_field), file),
            (None, Some(text)) => self.pem_text(&join(path, text_field), text),
            (Some(_), Some(_)) => {
                self.fault(join(path, text_field), format!("{file_field} is written too"));
                None
            }
            (None, None) => {
                self.fault(join(path, file_field), format!("a path is needed, or {text_field}"));
                None
            }
        }
    }

    fn pem_file(&mut self, path: &str, file: &str) -> Option<Pem> {
        if file.contains('\0') || file.ends_with('/') {
            self.fault(path, format!("{} is no path of a file", quoted(file)));
            return None;
        }
        Some(Pem::File(file.into()))
    }

    fn pem_text(&mut self, path: &str, text: &str) -> Option<Pem> {
        // What it holds is looked at when it is loaded.
        if !text.contains("-----BEGIN ") {
            self.fault(path, "no PEM text: it has no line -----BEGIN ..-----");
            return None;
        }
        Some(Pem::Inline(text.to_owned()))
    }

    fn issuers(
        &mut self,
        (files, file_field): (&[String], &str),
        (texts, text_field): (&[String], &str),
        path: &str,
    ) -> Vec<Pem> {
        let mut issuers = Vec::new();
        for (field, list, is_file) in [(file_field, files, true), (text_field, texts, false)] {
            let path = join(path, field);
            if !self.at_most(&path, list.len(), MAX_FILES) {
                continue;
            }
            for (index, text) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if list[..index].contains(text) {
                    self.fault(path, "written twice");
                } else if is_file {
                    issuers.extend(self.pem_file(&path, text));
                } else {
                    issuers.extend(self.pem_text(&path, text));
                }
            }
        }
        issuers
    }

    fn sessions(&mut self, raw: &raw::TlsConfig, path: &str) -> Option<u32> {
        let path = join(path, "session_cache_entries");
        if raw.session_cache_entries.is_some() && raw.session_tickets_disabled == Some(true) {
            self.fault(path, "no effect: session_tickets_disabled lets no session be resumed");
            return None;
        }
        self.range(path, raw.session_cache_entries, 1..=MAX_ENTRIES)
    }
}

/// Suites have two names where drafts were in use before the standard.
fn one_name(suite: TlsCipher) -> TlsCipher {
    match suite {
        TlsCipher::TlsEcdheRsaWithChacha20Poly1305 => TlsCipher::TlsEcdheRsaWithChacha20Poly1305Sha256,
        TlsCipher::TlsEcdheEcdsaWithChacha20Poly1305 => TlsCipher::TlsEcdheEcdsaWithChacha20Poly1305Sha256,
        other => other,
    }
}

/// The version that a suite is of; `None` for one that cannot be used.
fn version_of(suite: TlsCipher) -> Option<TlsVersion> {
    use TlsCipher as C;
    match suite {
        C::TlsAes128GcmSha256 | C::TlsAes256GcmSha384 | C::TlsChacha20Poly1305Sha256 => {
            Some(TlsVersion::Tls13)
        }
        C::TlsEcdheRsaWithAes128GcmSha256
        | C::TlsEcdheEcdsaWithAes128GcmSha256
        | C::TlsEcdheRsaWithAes256GcmSha384
        | C::TlsEcdheEcdsaWithAes256GcmSha384
        | C::TlsEcdheRsaWithChacha20Poly1305Sha256
        | C::TlsEcdheEcdsaWithChacha20Poly1305Sha256 => Some(TlsVersion::Tls12),
        // RC4 (RFC 7465), 3DES, CBC, and key exchange by RSA.
        _ => None,
    }
}

fn server_name_of(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    request_host(text.strip_suffix('.').unwrap_or(text))
}

const DEFAULT_SESSIONS: u32 = 256;
const DEFAULT_PENDING: usize = 1_024;
const MAX_ENTRIES: u64 = 1_000_000;
const MAX_EARLY_DATA: u64 = 1 << 20;
const MAX_PROTOCOLS: usize = 16;
const MAX_FILES: usize = 100;
