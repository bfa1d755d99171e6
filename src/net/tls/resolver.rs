//! Which certificate is shown to whom.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::load::Loaded;

/// The certificates of a listener by the names that they are for.
#[derive(Debug)]
pub(super) struct ByName {
    certs: Vec<Arc<CertifiedKey>>,
    /// Exact names, and the parents of wildcards with a dot in front; to the certificates in the order of the spec.
    names: HashMap<String, Vec<usize>>,
}

impl ByName {
    /// At least one certificate.
    pub(super) fn new(loaded: Vec<Loaded>) -> Self {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        let mut certs = Vec::with_capacity(loaded.len());
        for (index, Loaded { key, names: of }) in loaded.into_iter().enumerate() {
            for name in of {
                // RFC 9525 6.3: the wildcard stands for one whole label.
                let name = name.strip_prefix('*').map(str::to_owned).unwrap_or(name);
                names.entry(name).or_default().push(index);
            }
            certs.push(Arc::new(key));
        }
        ByName { certs, names }
    }

    /// Certificates for the name, the spec's first in front; where none is, the first of all.
    fn find(&self, name: Option<&str>, is_usable: impl Fn(&CertifiedKey) -> bool) -> &Arc<CertifiedKey> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let parent = name.find('.').map_or("", |dot| &name[dot..]);
        let of = |name: &str| self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        // Of two keys for a name, one may be of a sort that the client does not know.
        let mut found = of(&name).iter().chain(of(parent)).map(|&index| &self.certs[index]).peekable();
        let first = found.peek().copied().unwrap_or(&self.certs[0]);
        found.find(|cert| is_usable(cert)).unwrap_or(first)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let is_usable = |cert: &CertifiedKey| cert.key.choose_scheme(schemes).is_some();
        Some(self.find(hello.server_name(), is_usable).clone())
    }
}
