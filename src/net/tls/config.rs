//! What a spec and its files come to, to be used by handshakes and swapped between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption as ClientResumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, KeyLogFile, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use super::load::{LoadErrors, LoadWarning, Loader};
use super::resolver::ByName;
use super::watch::{Files, Watched};
use crate::proto::tls::{Provider, RecordSizing};
use crate::spec::{
    ClientAuth, Curve, Identity, Pem, Resumption, TlsCipher, TlsClientSpec, TlsCommon, TlsServerSpec,
    TlsVersion,
};

/// TLS for connections that are dialled. Cheap to clone; clones, on any core, see a reload at once.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<Inner<TlsClientSpec, ClientConfig>>);

/// TLS for connections that are accepted. Cheap to clone; clones, on any core, see a reload at once, and take each other's
/// sessions.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Inner<TlsServerSpec, ServerConfig>>);

#[derive(Debug)]
struct Inner<S, C> {
    spec: S,
    load: Load<S, C>,
    /// Taken once a handshake, and written once a reload.
    current: RwLock<Arc<C>>,
    version: AtomicU64,
    /// Held while they are read, so that reloads come one after another.
    files: Mutex<Files>,
}

/// Reads the files; beside the configuration that is in use, if there is one.
type Load<S, C> = fn(&S, Option<&C>) -> Result<(C, Vec<LoadWarning>), LoadErrors>;

impl<S, C> Inner<S, C> {
    fn load(spec: S, files: Files, load: Load<S, C>) -> Result<(Arc<Self>, Vec<LoadWarning>), LoadErrors> {
        let (config, warnings) = load(&spec, None)?;
        let (current, version) = (RwLock::new(Arc::new(config)), AtomicU64::new(1));
        Ok((Arc::new(Inner { spec, load, current, version, files: Mutex::new(files) }), warnings))
    }

    fn reload(&self) -> Result<Vec<LoadWarning>, LoadErrors> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = files.stamps();
        let (config, warnings) = (self.load)(&self.spec, Some(&self.current()))?;
        files.take(stamps);
        self.swap(config);
        Ok(warnings)
    }

    fn look(&self, now: Instant, interval: Duration) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stamps) = files.news(now, interval) else { return };
        match (self.load)(&self.spec, Some(&self.current())) {
            Ok((config, _)) => {
                files.take(stamps);
                self.swap(config);
                tracing::info!("TLS: changed files are in use from now on");
            }
            Err(errors) => {
                if files.refuse(stamps) {
                    let faults: Vec<_> = errors.faults().iter().map(ToString::to_string).collect();
                    tracing::warn!(
                        "TLS: changed files are broken, and the old stay in use: {}",
                        faults.join("; ")
                    );
                }
            }
        }
    }

    /// `None` without files.
    fn interval(&self, common: &TlsCommon) -> Option<Duration> {
        let has_none = self.files.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if has_none { None } else { common.reload_interval }
    }

    fn current(&self) -> Arc<C> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn swap(&self, config: C) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl ClientTls {
    /// Reads the files that a spec names. Warnings are logged too.
    ///
    /// # Errors
    /// Everything that is wrong, by file. Who wrote the spec or the files is at fault.
    pub fn load(spec: &TlsClientSpec) -> Result<(Self, Vec<LoadWarning>), LoadErrors> {
        let files = Files::of(identity_pems(spec.identity()).chain(&spec.roots().own));
        let (inner, warnings) = Inner::load(spec.clone(), files, |spec, _| client_config(spec))?;
        Ok((ClientTls(inner), warnings))
    }

    /// Reads the files again: new handshakes have what they hold now. Sessions are not resumed past a reload.
    ///
    /// # Errors
    /// As [`ClientTls::load`]; everything stays as it was.
    pub fn reload(&self) -> Result<Vec<LoadWarning>, LoadErrors> {
        self.0.reload()
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.0.current()
    }

    /// Counts reloads that were taken, from 1.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// What it was loaded from.
    pub fn spec(&self) -> &TlsClientSpec {
        &self.0.spec
    }

    /// How long records are.
    pub fn sizing(&self) -> RecordSizing {
        sizing(self.0.spec.common())
    }

    /// For a handshake; `None` = no limit.
    pub fn handshake_timeout(&self) -> Option<Duration> {
        self.0.spec.common().handshake_timeout
    }
}

impl ServerTls {
    /// Reads the files that a spec names. Warnings are logged too.
    ///
    /// # Errors
    /// Everything that is wrong, by file. Who wrote the spec or the files is at fault.
    pub fn load(spec: &TlsServerSpec) -> Result<(Self, Vec<LoadWarning>), LoadErrors> {
        let files = Files::of(identity_pems(spec.identities()).chain(&spec.client_roots().own));
        let (inner, warnings) = Inner::load(spec.clone(), files, |spec, known| {
            server_config(spec, known.filter(|_| spec.client_auth() == ClientAuth::None))
        })?;
        Ok((ServerTls(inner), warnings))
    }

    /// Reads the files again: new handshakes have what they hold now, connections go on with what they had.
    ///
    /// Sessions are resumed past a reload, unless clients have certificates: whom an issuer that is no longer trusted has let
    /// in must not come back without showing one.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; everything stays as it was.
    pub fn reload(&self) -> Result<Vec<LoadWarning>, LoadErrors> {
        self.0.reload()
    }

    /// What the next handshake uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.current()
    }

    /// Counts reloads that were taken, from 1.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// What it was loaded from.
    pub fn spec(&self) -> &TlsServerSpec {
        &self.0.spec
    }

    /// How long records are.
    pub fn sizing(&self) -> RecordSizing {
        sizing(self.0.spec.common())
    }

    /// For a handshake; `None` = no limit.
    pub fn handshake_timeout(&self) -> Option<Duration> {
        self.0.spec.common().handshake_timeout
    }
}

impl Watched for ClientTls {
    fn interval(&self) -> Option<Duration> {
        self.0.interval(self.0.spec.common())
    }

    fn look(&self, now: Instant) {
        if let Some(interval) = self.interval() {
            self.0.look(now, interval);
        }
    }
}

impl Watched for ServerTls {
    fn interval(&self) -> Option<Duration> {
        self.0.interval(self.0.spec.common())
    }

    fn look(&self, now: Instant) {
        if let Some(interval) = self.interval() {
            self.0.look(now, interval);
        }
    }
}

fn identity_pems<'a>(identities: impl IntoIterator<Item = &'a Identity>) -> impl Iterator<Item = &'a Pem> {
    identities.into_iter().flat_map(|identity| [&identity.cert, &identity.key])
}

fn sizing(common: &TlsCommon) -> RecordSizing {
    if common.dynamic_records { RecordSizing::Dynamic } else { RecordSizing::Full }
}

fn client_config(spec: &TlsClientSpec) -> Result<(ClientConfig, Vec<LoadWarning>), LoadErrors> {
    let mut loader = loader(spec.common())?;
    let identity = loader.identities(spec.identity().map(std::slice::from_ref).unwrap_or_default()).pop();
    let verifier = client_verifier(&mut loader, spec);
    let crypto = Arc::new(loader.crypto().clone());
    let builder =
        ClientConfig::builder_with_provider(crypto).with_protocol_versions(&versions(spec.common()));
    let config = loader.config(builder).zip(verifier).map(|(builder, verifier)| {
        // Ours is either rustls's own, or one that the spec asks for by a name that warns.
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn(spec.common());
        config.resumption = match usize::try_from(spec.sessions()) {
            Ok(0) | Err(_) => ClientResumption::disabled(),
            Ok(sessions) => ClientResumption::in_memory_sessions(sessions),
        };
        if spec.common().key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        config
    });
    finish(loader, config, spec.common().key_log)
}

fn client_verifier(loader: &mut Loader, spec: &TlsClientSpec) -> Option<Arc<dyn ServerCertVerifier>> {
    let crypto = Arc::new(loader.crypto().clone());
    if spec.is_unverified() {
        loader.warnings.push(LoadWarning::Unverified);
        return Some(Arc::new(TakesAny::of(&crypto)));
    }
    let roots = loader.roots(spec.roots(), ("root_cas", "root_ca_pems"))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto).build();
    loader.config(verifier).map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
}

/// `known` is a configuration whose sessions may go on.
fn server_config(
    spec: &TlsServerSpec,
    known: Option<&ServerConfig>,
) -> Result<(ServerConfig, Vec<LoadWarning>), LoadErrors> {
    let mut loader = loader(spec.common())?;
    let identities = loader.identities(spec.identities());
    let verifier = server_verifier(&mut loader, spec);
    let crypto = Arc::new(loader.crypto().clone());
    let builder =
        ServerConfig::builder_with_provider(crypto).with_protocol_versions(&versions(spec.common()));
    let is_whole = identities.len() == spec.identities().len();
    let config = loader.config(builder).zip(verifier).filter(|_| is_whole).and_then(|(builder, verifier)| {
        let mut config =
            builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(ByName::new(identities)));
        config.alpn_protocols = alpn(spec.common());
        config.max_early_data_size = spec.max_early_data();
        match known {
            Some(known) => {
                config.ticketer = known.ticketer.clone();
                config.session_storage = known.session_storage.clone();
                config.send_tls13_tickets = known.send_tls13_tickets;
            }
            None => resumption(&mut loader, spec.resumption(), &mut config)?,
        }
        if spec.common().key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Some(config)
    });
    finish(loader, config, spec.common().key_log)
}

fn server_verifier(loader: &mut Loader, spec: &TlsServerSpec) -> Option<Arc<dyn ClientCertVerifier>> {
    let crypto = Arc::new(loader.crypto().clone());
    let is_mandatory = matches!(spec.client_auth(), ClientAuth::RequireAny | ClientAuth::RequireAndVerify);
    match spec.client_auth() {
        ClientAuth::None => Some(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::Request | ClientAuth::RequireAny => {
            Some(Arc::new(TakesAny { is_mandatory, ..TakesAny::of(&crypto) }))
        }
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let roots = loader.roots(spec.client_roots(), ("client_cas", "client_ca_pems"))?;
            let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto);
            if !is_mandatory {
                builder = builder.allow_unauthenticated();
            }
            loader.config(builder.build())
        }
    }
}

fn resumption(loader: &mut Loader, resumption: Resumption, config: &mut ServerConfig) -> Option<()> {
    match resumption {
        Resumption::Tickets => {
            config.ticketer = loader.config(Provider::default().ticketer())?;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Resumption::Cache(entries) => {
            let entries = usize::try_from(entries).unwrap_or(usize::MAX);
            config.session_storage = ServerSessionMemoryCache::new(entries);
        }
        Resumption::Off => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Some(())
}

fn loader(common: &TlsCommon) -> Result<Loader, LoadErrors> {
    let mut crypto = Provider::default().crypto();
    let of_version = |version| common.suites.iter().any(|suite| is_tls13(*suite) == version);
    crypto.cipher_suites.retain(|suite| {
        let is_13 = suite.tls13().is_some();
        !of_version(is_13) || common.suites.iter().any(|wanted| has_name(*wanted, suite.suite()))
    });
    if !common.groups.is_empty() {
        let all = all_groups();
        let wanted = common
            .groups
            .iter()
            .filter_map(|curve| all.iter().find(|group| group.name() == group_name(*curve)).copied());
        crypto.kx_groups = wanted.collect();
    }
    Ok(Loader::new(
        crypto,
        DefaultTimeProvider.current_time().unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO)),
    ))
}

fn finish<C>(
    mut loader: Loader,
    config: Option<C>,
    key_log: bool,
) -> Result<(C, Vec<LoadWarning>), LoadErrors> {
    if key_log {
        loader.warnings.push(LoadWarning::KeyLog);
    }
    let (config, warnings) = loader.finish(config)?;
    for warning in &warnings {
        tracing::warn!("TLS: {warning}");
    }
    Ok((config, warnings))
}

fn alpn(common: &TlsCommon) -> Vec<Vec<u8>> {
    common.alpn.iter().map(|name| name.clone().into_bytes()).collect()
}

fn versions(common: &TlsCommon) -> Vec<&'static SupportedProtocolVersion> {
    let (min, max) = common.versions;
    [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

fn is_tls13(suite: TlsCipher) -> bool {
    matches!(
        suite,
        TlsCipher::TlsAes128GcmSha256 | TlsCipher::TlsAes256GcmSha384 | TlsCipher::TlsChacha20Poly1305Sha256
    )
}

/// rustls names suites as the registry does, but those of TLS 1.3 with their version.
fn has_name(wanted: TlsCipher, suite: rustls::CipherSuite) -> bool {
    let name = suite.as_str().unwrap_or_default();
    match name.strip_prefix("TLS13_") {
        Some(rest) => wanted.as_str_name().strip_prefix("TLS_") == Some(rest),
        None => wanted.as_str_name() == name,
    }
}

fn group_name(curve: Curve) -> rustls::NamedGroup {
    match curve {
        Curve::P256 => rustls::NamedGroup::secp256r1,
        Curve::P384 => rustls::NamedGroup::secp384r1,
        Curve::P521 => rustls::NamedGroup::secp521r1,
        Curve::X25519 => rustls::NamedGroup::X25519,
        Curve::X25519mlkem768 => rustls::NamedGroup::X25519MLKEM768,
        Curve::P256mlkem768 => rustls::NamedGroup::secp256r1MLKEM768,
    }
}

fn all_groups() -> &'static [&'static dyn rustls::crypto::SupportedKxGroup] {
    match Provider::default() {
        #[cfg(feature = "aws-lc-rs")]
        Provider::AwsLcRs => rustls::crypto::aws_lc_rs::ALL_KX_GROUPS,
        #[cfg(feature = "ring")]
        Provider::Ring => rustls::crypto::ring::ALL_KX_GROUPS,
    }
}

/// Takes any certificate whose key the peer has.
#[derive(Debug)]
struct TakesAny {
    algorithms: WebPkiSupportedAlgorithms,
    is_mandatory: bool,
}

impl TakesAny {
    fn of(crypto: &CryptoProvider) -> Self {
        TakesAny { algorithms: crypto.signature_verification_algorithms, is_mandatory: false }
    }
}

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for TakesAny {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
