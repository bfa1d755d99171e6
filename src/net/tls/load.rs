//! From PEM to certificates and keys, with the place of everything that is wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore};

use crate::spec::{Identity, Issuers, Pem};

/// Everything that is wrong with what a spec of TLS names, at least one; printed one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadErrors {
    faults: Vec<LoadFault>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFault {
    /// The field of the spec, such as `cert_key_pairs[1].key_file`.
    pub path: String,
    /// The file; `None` of a text in the spec itself, and of the system's certificates.
    pub file: Option<std::path::PathBuf>,
    /// What is wrong.
    pub kind: LoadFaultKind,
}

/// What is wrong with a file, or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadFaultKind {
    /// It cannot be read, in the system's words.
    Unreadable(String),
    /// Nothing is in it.
    Empty,
    /// It holds no certificate.
    NoCertificate,
    /// It holds no key.
    NoKey,
    /// Its key is encrypted, and nobody is there to type a password.
    EncryptedKey,
    /// It is no PEM, or what it holds is no certificate or key; in words.
    Malformed(String),
    /// The key is not that of the certificate.
    KeyMismatch,
    /// The system has no certificates, and there are no others; in words.
    NoRoots(String),
    /// The configuration as a whole; in words.
    Config(String),
}

/// What works, but not as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadWarning {
    /// The time of this certificate is over.
    Expired(String),
    /// The time of this certificate has not come.
    NotYetValid(String),
    /// Nobody looks at certificates of servers.
    Unverified,
    /// Keys of connections are written to a file.
    KeyLog,
}

impl LoadErrors {
    /// The faults, in the order of the spec's fields.
    pub fn faults(&self) -> &[LoadFault] {
        &self.faults
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for LoadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for LoadFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadFaultKind::Unreadable(error) => write!(f, "cannot be read: {error}"),
            LoadFaultKind::Empty => f.write_str("is empty"),
            LoadFaultKind::NoCertificate => f.write_str("holds no certificate (-----BEGIN CERTIFICATE-----)"),
            LoadFaultKind::NoKey => f.write_str("holds no private key (-----BEGIN PRIVATE KEY-----)"),
            LoadFaultKind::EncryptedKey => {
                f.write_str("holds an encrypted key; decrypt it with `openssl pkey` first")
            }
            LoadFaultKind::Malformed(what) => write!(f, "is malformed: {what}"),
            LoadFaultKind::KeyMismatch => f.write_str("holds the key of another certificate"),
            LoadFaultKind::NoRoots(what) => write!(f, "nobody is trusted: {what}"),
            LoadFaultKind::Config(what) => write!(f, "TLS cannot be set up: {what}"),
        }
    }
}

impl fmt::Display for LoadWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadWarning::Expired(place) => write!(f, "{place}: the certificate has expired"),
            LoadWarning::NotYetValid(place) => write!(f, "{place}: the certificate is not valid yet"),
            LoadWarning::Unverified => {
                f.write_str("insecure_skip_verify: servers are not verified, so anybody may answer")
            }
            LoadWarning::KeyLog => {
                f.write_str("key_log: the keys of connections are written to the file of SSLKEYLOGFILE")
            }
        }
    }
}

impl std::error::Error for LoadErrors {}

/// A certificate that can be shown, and the names that it is for, in lower case.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: CertifiedKey,
    pub(super) names: Vec<String>,
}

/// Collects what is wrong while files are read.
pub(super) struct Loader {
    crypto: CryptoProvider,
    now: UnixTime,
    faults: Vec<LoadFault>,
    pub(super) warnings: Vec<LoadWarning>,
}

impl Loader {
    /// Certificates are compared with the time `now`.
    pub(super) fn new(crypto: CryptoProvider, now: UnixTime) -> Self {
        Loader { crypto, now, faults: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn crypto(&self) -> &CryptoProvider {
        &self.crypto
    }

    /// What was made, and the warnings, where nothing is wrong.
    pub(super) fn finish<T>(self, made: Option<T>) -> Result<(T, Vec<LoadWarning>), LoadErrors> {
        match made {
            Some(made) if self.faults.is_empty() => Ok((made, self.warnings)),
            _ => {
                debug_assert!(!self.faults.is_empty(), "what could not be made has its fault");
                Err(LoadErrors { faults: self.faults })
            }
        }
    }

    pub(super) fn fault(&mut self, path: impl Into<String>, pem: Option<&Pem>, kind: LoadFaultKind) {
        let file = pem.and_then(|pem| match pem {
            Pem::File(path) => Some(path.clone()),
            Pem::Inline(_) => None,
        });
        self.faults.push(LoadFault { path: path.into(), file, kind });
    }

    /// As [`Option`], with the fault noted.
    pub(super) fn config<T>(&mut self, made: Result<T, impl fmt::Display>) -> Option<T> {
        made.map_err(|error| self.fault("", None, LoadFaultKind::Config(error.to_string()))).ok()
    }

    /// The certificates that can be shown, each at its place.
    pub(super) fn identities(&mut self, identities: &[Identity]) -> Vec<Loaded> {
        let mut loaded = Vec::with_capacity(identities.len());
        for (index, identity) in identities.iter().enumerate() {
            loaded.extend(self.identity(&format!("cert_key_pairs[{index}]"), identity));
        }
        loaded
    }

    fn identity(&mut self, path: &str, identity: &Identity) -> Option<Loaded> {
        let field = |name: &str, pem: &Pem| match pem {
            Pem::File(_) => format!("{path}.{name}_file"),
            Pem::Inline(_) => format!("{path}.{name}_pem"),
        };
        let (cert_path, key_path) = (field("cert", &identity.cert), field("key", &identity.key));
        // Both, so that both have their faults told.
        let chain = self.certificates(&cert_path, &identity.cert);
        let key = self.key(&key_path, &identity.key);
        let (chain, key) = (chain?, key?);
        let names = self.leaf(&cert_path, &identity.cert, &chain[0])?;
        match CertifiedKey::from_der(chain, key, &self.crypto) {
            Ok(key) => Some(Loaded { key, names }),
            Err(error) => {
                let kind = match error {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        LoadFaultKind::KeyMismatch
                    }
                    other => LoadFaultKind::Malformed(other.to_string()),
                };
                self.fault(key_path, Some(&identity.key), kind);
                None
            }
        }
    }

    /// Looks at a certificate's time, and returns its names.
    fn leaf(&mut self, path: &str, pem: &Pem, cert: &CertificateDer<'static>) -> Option<Vec<String>> {
        let parsed = match (ParsedCertificate::try_from(cert), webpki::EndEntityCert::try_from(cert)) {
            (Ok(parsed), Ok(names)) => Ok((parsed, names)),
            // Without rustls's words, which speak of a peer.
            (Err(rustls::Error::InvalidCertificate(error)), _) => Err(error.to_string()),
            (Err(error), _) => Err(error.to_string()),
            (_, Err(error)) => Err(error.to_string()),
        };
        let (parsed, names) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                self.fault(path, Some(pem), LoadFaultKind::Malformed(error));
                return None;
            }
        };
        // Without roots nobody has issued it, which is told only of one whose time is now.
        let checked = rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &RootCertStore::empty(),
            &[],
            self.now,
            self.crypto.signature_verification_algorithms.all,
        );
        let place = match pem {
            Pem::File(file) => format!("{path}: {}", file.display()),
            Pem::Inline(_) => path.to_owned(),
        };
        match checked {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => self.warnings.push(LoadWarning::Expired(place)),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => self.warnings.push(LoadWarning::NotYetValid(place)),
            Ok(()) | Err(_) => {}
        }
        Some(names.valid_dns_names().map(str::to_ascii_lowercase).collect())
    }

    /// Issuers of a list of files and texts; of the system only where there are some, for a container may have none.
    pub(super) fn roots(&mut self, issuers: &Issuers, (files, texts): (&str, &str)) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let (mut file, mut text) = (0, 0);
        for pem in &issuers.own {
            let (name, index) = match pem {
                Pem::File(_) => (files, &mut file),
                Pem::Inline(_) => (texts, &mut text),
            };
            let path = format!("{name}[{index}]");
            *index += 1;
            for cert in self.certificates(&path, pem)? {
                if let Err(error) = roots.add(cert) {
                    self.fault(path.as_str(), Some(pem), LoadFaultKind::Malformed(error.to_string()));
                }
            }
        }
        if issuers.system {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                let what = format!("the system has no certificates {}", errors.join("; "));
                self.fault("", None, LoadFaultKind::NoRoots(what.trim_end().to_owned()));
            }
        }
        (self.faults.is_empty()).then_some(roots)
    }

    /// At least one.
    fn certificates(&mut self, path: &str, pem: &Pem) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.read(path, pem)?;
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let kind = match certs {
            Ok(certs) if !certs.is_empty() => return Some(certs),
            Ok(_) => LoadFaultKind::NoCertificate,
            Err(error) => malformed(&error),
        };
        self.fault(path, Some(pem), kind);
        None
    }

    fn key(&mut self, path: &str, pem: &Pem) -> Option<PrivateKeyDer<'static>> {
        let bytes = self.read(path, pem)?;
        let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        // PKCS#8 has a label of its own; older forms say it in a line of their head, which no base64 is.
        let is_encrypted =
            holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED");
        let kind = match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(key) if !is_encrypted => return Some(key),
            Ok(_) | Err(_) if is_encrypted => LoadFaultKind::EncryptedKey,
            Err(pem::Error::NoItemsFound) => LoadFaultKind::NoKey,
            Err(error) => malformed(&error),
            Ok(_) => unreachable!("returned above"),
        };
        self.fault(path, Some(pem), kind);
        None
    }

    /// What is there, if it is anything.
    fn read(&mut self, path: &str, pem: &Pem) -> Option<Vec<u8>> {
        let bytes = match pem {
            Pem::File(file) => whole(file),
            Pem::Inline(text) => Ok(text.clone().into_bytes()),
        };
        let kind = match bytes {
            Ok(bytes) if bytes.iter().any(|byte| !byte.is_ascii_whitespace()) => return Some(bytes),
            Ok(_) => LoadFaultKind::Empty,
            Err(error) => LoadFaultKind::Unreadable(error.to_string()),
        };
        self.fault(path, Some(pem), kind);
        None
    }
}

/// Looked at before it is opened: a pipe would keep its reader, and a device may have no end.
fn whole(file: &Path) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Far more than a machine's list of issuers takes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The line that is wrong may be a key's, so it is not quoted.
fn malformed(error: &pem::Error) -> LoadFaultKind {
    LoadFaultKind::Malformed(
        match error {
            pem::Error::MissingSectionEnd { .. } => "a block of PEM does not end",
            pem::Error::IllegalSectionStart { .. } => "a block of PEM begins in no known way",
            pem::Error::Base64Decode(_) => "a block of PEM is not base64",
            _ => "it is no PEM",
        }
        .to_owned(),
    )
}
