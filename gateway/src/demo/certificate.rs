//! A certificate that nobody has to trust: made at start, for the demo alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};
use ringport::spec::{Identity, Pem};

/// A certificate for this machine's own names, and the file that holds it, without its key, for clients. It goes when this
/// is dropped.
pub(super) struct Certificate {
    folder: PathBuf,
    file: PathBuf,
    pub identity: Identity,
}

impl Certificate {
    /// Makes both; the key is written nowhere.
    ///
    /// # Errors
    /// The folder for temporary files cannot be written.
    pub(super) fn new() -> io::Result<Self> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "ringport demo");
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.self_signed(&key).map_err(io::Error::other)?.pem();
        let folder = std::env::temp_dir().join(format!("ringport-demo-{}", std::process::id()));
        // It must be new: what somebody else has put there is not written to.
        fs::create_dir(&folder).map_err(|error| named(&folder, &error))?;
        let file = folder.join("cert.pem");
        let identity = Identity { cert: Pem::Inline(cert.clone()), key: Pem::Inline(key.serialize_pem()) };
        let certificate = Certificate { folder, file, identity };
        fs::write(&certificate.file, cert).map_err(|error| named(&certificate.file, &error))?;
        Ok(certificate)
    }

    /// What clients are to trust.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.folder);
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
