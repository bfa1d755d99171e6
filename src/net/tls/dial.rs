//! Connections over TLS, where a spec asks for it.

use std::fmt;
use std::io;

use ringport_platform::timer::later;
use rustls::pki_types::ServerName;

use super::config::ClientTls;
use super::handshake::{HandshakeError, connect};
use super::load::LoadErrors;
use super::stream::Link;
use super::watch::{Watch, watch};
use crate::net::{Bounded, DialError, Dialer, PacketError, PacketSocket, Stream};
use crate::proto::proxy_protocol::Header;
use crate::runtime::{ConnectAddr, Runtime};
use crate::spec::{DialSpec, NetAddr, OriginAddress};

/// A [`Dialer`] that speaks TLS over its connections where its spec has `tls_config`, and plainly where it has none.
pub struct TlsDialer<R: Runtime> {
    dialer: Dialer<R>,
    runtime: R,
    tls: Option<ClientTls>,
    spec: DialSpec,
    _watch: Option<Watch>,
}

/// Why there is no connection, or no TLS over it.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsDialError {
    /// There is no connection.
    Dial(DialError),
    /// There is a connection, and no TLS over it; it is closed.
    Handshake {
        /// What was dialled.
        target: NetAddr<OriginAddress>,
        /// Why not.
        error: HandshakeError,
    },
    /// The target has no host, as a Unix socket, and the spec no `server_name`. The caller's fault; nothing was dialled.
    NoServerName(NetAddr<OriginAddress>),
}

impl fmt::Display for TlsDialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsDialError::Dial(error) => error.fmt(f),
            TlsDialError::Handshake { target, error } => write!(f, "cannot dial {target}: TLS: {error}"),
            TlsDialError::NoServerName(target) => {
                write!(f, "cannot dial {target}: TLS: it names no host to verify; set server_name")
            }
        }
    }
}

impl std::error::Error for TlsDialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsDialError::Dial(error) => Some(error),
            TlsDialError::Handshake { error, .. } => Some(error),
            TlsDialError::NoServerName(_) => None,
        }
    }
}

impl TlsDialError {
    /// As [`DialError::is_shortage`].
    pub fn is_shortage(&self) -> bool {
        matches!(self, TlsDialError::Dial(error) if error.is_shortage())
    }
}

/// Of the kind that comes nearest.
impl From<TlsDialError> for io::Error {
    fn from(error: TlsDialError) -> Self {
        let kind = match error {
            TlsDialError::Dial(error) => return error.into(),
            TlsDialError::Handshake { error: HandshakeError::TimedOut, .. } => io::ErrorKind::TimedOut,
            TlsDialError::Handshake { error: HandshakeError::Io(ref error), .. } => error.kind(),
            TlsDialError::Handshake { .. } => io::ErrorKind::InvalidData,
            TlsDialError::NoServerName(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

impl<R: Runtime> TlsDialer<R> {
    /// As a spec says; the files of its TLS are read now, and again when they change, for as long as the dialer is kept.
    ///
    /// # Errors
    /// What is wrong with those. Who wrote the spec or the files is at fault.
    pub fn from_spec(spec: &DialSpec, runtime: &R) -> Result<Self, LoadErrors> {
        let tls = spec.tls().map(ClientTls::load).transpose()?.map(|(tls, _)| tls);
        Ok(Self::with(spec, tls, runtime))
    }

    /// As a spec says, but for its TLS, which was loaded already: for the dialers of several cores. Without it they dial
    /// plainly.
    pub fn with(spec: &DialSpec, tls: Option<ClientTls>, runtime: &R) -> Self {
        let dialer = Dialer::from_spec(&spec.without_tls(), runtime);
        let watch = tls.as_ref().and_then(|tls| watch(runtime, tls));
        TlsDialer { dialer, runtime: runtime.clone(), tls, spec: spec.clone(), _watch: watch }
    }

    /// TLS over them, to be loaded again.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// What it was made of.
    pub fn spec(&self) -> &DialSpec {
        &self.spec
    }

    /// As [`Dialer::dial`], and then a handshake. The spec's `timeout` is for both, `handshake_timeout` for the handshake.
    ///
    /// The name that the server has to prove is `server_name`, or the target's host, as it is written and before any
    /// replacement. Dropping the future cancels.
    ///
    /// # Errors
    /// Which of the two failed, and why.
    pub async fn dial(
        &self,
        target: &NetAddr<OriginAddress>,
    ) -> Result<Stream<Link<Bounded<R>>>, TlsDialError> {
        self.dial_for(target, &Header::Local).await
    }

    /// As [`Dialer::dial_packets`].
    ///
    /// # Errors
    /// As [`Dialer::dial_packets`]; [`PacketError::Spec`] too where the spec asks for TLS, which needs a stream.
    pub async fn dial_packets(
        &self,
        target: &NetAddr<OriginAddress>,
    ) -> Result<PacketSocket<R::Datagram>, PacketError> {
        self.spec.without_stream().map_err(PacketError::Spec)?;
        self.dialer.dial_packets(target).await
    }

    /// As [`TlsDialer::dial`], on behalf of a client. Where the spec asks for the PROXY protocol, `client` is the header; it is
    /// sent before TLS begins.
    ///
    /// # Errors
    /// As [`TlsDialer::dial`].
    pub async fn dial_for(
        &self,
        target: &NetAddr<OriginAddress>,
        client: &Header,
    ) -> Result<Stream<Link<Bounded<R>>>, TlsDialError> {
        self.shake(target, self.dialer.dial_for(target, client)).await
    }

    /// As [`Dialer::dial_known`], and then a handshake.
    ///
    /// # Errors
    /// As [`TlsDialer::dial`].
    pub async fn dial_known(
        &self,
        target: &NetAddr<OriginAddress>,
        addrs: &[ConnectAddr],
        client: &Header,
    ) -> Result<Stream<Link<Bounded<R>>>, TlsDialError> {
        self.shake(target, self.dialer.dial_known(target, addrs, client)).await
    }

    /// As [`Dialer::resolve`].
    ///
    /// # Errors
    /// As [`Dialer::resolve`].
    pub async fn resolve(&self, target: &NetAddr<OriginAddress>) -> Result<Vec<ConnectAddr>, DialError> {
        self.dialer.resolve(target).await
    }

    async fn shake(
        &self,
        target: &NetAddr<OriginAddress>,
        dial: impl Future<Output = Result<Stream<Bounded<R>>, DialError>>,
    ) -> Result<Stream<Link<Bounded<R>>>, TlsDialError> {
        let Some(tls) = &self.tls else {
            return Ok(dial.await.map_err(TlsDialError::Dial)?.over_link(&self.runtime));
        };
        let name = server_name(tls, target)?;
        let end = self.spec.timeout().map(|timeout| later(self.runtime.now(), timeout));
        let stream = dial.await.map_err(TlsDialError::Dial)?;
        let begin = self.runtime.now();
        let own = tls.handshake_timeout().map(|timeout| later(begin, timeout));
        let deadline = own.into_iter().chain(end).min();
        let shaken = connect(&self.runtime, stream, (tls, name), deadline).await;
        let stream = shaken.map_err(|error| TlsDialError::Handshake { target: target.clone(), error })?;
        let elapsed_ms = self.runtime.now().saturating_duration_since(begin).as_millis();
        tracing::debug!(%target, elapsed_ms, "dial: TLS");
        Ok(stream)
    }
}

fn server_name(
    tls: &ClientTls,
    target: &NetAddr<OriginAddress>,
) -> Result<ServerName<'static>, TlsDialError> {
    let missing = || TlsDialError::NoServerName(target.clone());
    let host = match (tls.spec().server_name(), target.address()) {
        (Some(name), _) => name,
        (None, OriginAddress::Host { host, .. }) => host,
        (None, OriginAddress::Unix(_) | OriginAddress::UnixAbstract(_)) => return Err(missing()),
    };
    // A host of a target may be what no certificate is for, such as a name with an underscore at its end.
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| missing())
}
