//! Certificates for tests: authorities, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// Who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub(crate) cert: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Past,
    Future,
}

impl Authority {
    /// OpenSSL takes a certificate whose issuer has its own name for self-signed, so the names differ.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = key();
        let cert = params.self_signed(&key).expect("signed");
        Authority { cert: cert.pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for servers and clients with these names, or addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_valid(names, Validity::Now)
    }

    pub(crate) fn issue_valid(&self, names: &[&str], validity: Validity) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names");
        params.distinguished_name.push(DnType::CommonName, format!("leaf {}", names.join(" ")));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match validity {
            Validity::Now => {}
            Validity::Past => {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            Validity::Future => params.not_before = date_time_ymd(3000, 1, 1),
        }
        let key = key();
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// ECDSA P-256, as most servers have.
fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
