//! Which library does the cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("TLS needs a library for its cryptography: enable the feature `aws-lc-rs` or `ring`");

/// A library for the cryptography of TLS; features of the crate say which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// AWS-LC: the default. Alone has a key exchange that withstands quantum computers.
    #[cfg(feature = "aws-lc-rs")]
    AwsLcRs,
    /// ring: builds faster, and is faster at AES-GCM on processors with VAES but without AVX-512.
    #[cfg(feature = "ring")]
    Ring,
}

impl Default for Provider {
    fn default() -> Self {
        Provider::ALL[0]
    }
}

impl Provider {
    /// Those that are compiled in; the first is the default.
    pub const ALL: &[Provider] = &[
        #[cfg(feature = "aws-lc-rs")]
        Provider::AwsLcRs,
        #[cfg(feature = "ring")]
        Provider::Ring,
    ];

    /// Its suites and groups: those that are safe by today's rules, the post-quantum group before the others.
    pub fn crypto(self) -> CryptoProvider {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Provider::AwsLcRs => {
                use rustls::crypto::aws_lc_rs;
                let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
                let mut crypto = aws_lc_rs::default_provider();
                crypto.kx_groups.retain(|group| group.name() != hybrid.name());
                crypto.kx_groups.insert(0, hybrid);
                crypto
            }
            #[cfg(feature = "ring")]
            Provider::Ring => rustls::crypto::ring::default_provider(),
        }
    }

    /// Seals sessions for clients to keep, with keys that change every six hours. All who share it take each other's.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn ticketer(self) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Provider::AwsLcRs => rustls::crypto::aws_lc_rs::Ticketer::new(),
            #[cfg(feature = "ring")]
            Provider::Ring => rustls::crypto::ring::Ticketer::new(),
        }
    }
}
