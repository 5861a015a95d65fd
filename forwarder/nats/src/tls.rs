//! TLS towards a server. Files are read at every connect, like credentials.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forwarder_core::document::Tls;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

mod named;

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("failed to read the PEM file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file without a certificate.
    #[error("the PEM file {path} holds no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of an authority that cannot be used.
    #[error("the PEM file {path} holds a certificate authority that cannot be used")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities: install them, or set caFile")]
    NoSystemAuthorities,
    /// `certFile` and `keyFile` belong together.
    #[error("a client certificate needs both certFile and keyFile")]
    HalfClientCertificate,
    /// The client certificate and its key are refused.
    #[error("failed to use the client certificate {path} with its key")]
    ClientCertificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The TLS library has no protocol version to offer.
    #[error("failed to set up TLS")]
    Setup(#[source] rustls::Error),
    /// The reader of the files was stopped.
    #[error("failed to read the TLS files, because the process is stopping")]
    Stopping,
}

/// Reads the files. Absent: the system's authorities, no client certificate.
///
/// # Errors
/// When a file does not hold what it should.
pub async fn client_config(tls: Option<&Tls>) -> Result<ClientConfig, TlsError> {
    read(tls, None).await
}

/// As [`client_config`], but the server's certificate must carry this name, whatever the address that it is reached at.
///
/// # Errors
/// When a file does not hold what it should.
pub async fn client_config_for(tls: Option<&Tls>, name: ServerName<'static>) -> Result<ClientConfig, TlsError> {
    read(tls, Some(name)).await
}

/// Names the provider of cryptography for a library that makes configurations of its own: which one is the process's default depends
/// on the features of all crates together.
pub fn name_provider() {
    // An error says that one is named already.
    rustls::crypto::ring::default_provider().install_default().ok();
}

async fn read(tls: Option<&Tls>, name: Option<ServerName<'static>>) -> Result<ClientConfig, TlsError> {
    let tls = tls.cloned().unwrap_or_default();
    // The system's authorities are a hundred files and more.
    tokio::task::spawn_blocking(move || read_config(&tls, name))
        .await
        .unwrap_or(Err(TlsError::Stopping))
}

fn read_config(tls: &Tls, name: Option<ServerName<'static>>) -> Result<ClientConfig, TlsError> {
    let Tls {
        ca_file,
        cert_file,
        key_file,
    } = tls;
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|source| TlsError::Authority {
                    path: path.clone(),
                    source,
                })?;
            }
        }
        None => {
            // Single unreadable files among the system's are usual.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoSystemAuthorities);
            }
        }
    }
    // The provider is named: which one is the process's default depends on the features of all crates together.
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match name {
        None => builder.with_root_certificates(roots),
        Some(name) => builder
            .dangerous()
            .with_custom_certificate_verifier(named::verifier(roots, provider, name).map_err(TlsError::Setup)?),
    };
    match (cert_file, key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Read {
                path: key.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::ClientCertificate {
                    path: cert.clone(),
                    source,
                })
        }
        _ => Err(TlsError::HalfClientCertificate),
    }
}

/// What to do about a handshake that failed. Certificates with the wrong role are told apart: people who make one themselves get an
/// authority's (`openssl req -x509` makes no other unless it is told to), and the library's message for it is hard to understand.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    let reason = match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => reason.to_string(),
        _ => String::new(),
    };
    // Texts, because the type is that of a library of rustls's own, in whatever version.
    match reason.as_str() {
        "CaUsedAsEndEntity" => {
            "its certificate is a CA certificate (CA:TRUE): sign a server certificate with it, or create it again with \
             CA:FALSE (openssl req -x509 -addext basicConstraints=critical,CA:FALSE)"
        }
        "EndEntityUsedAsCa" => {
            "its certificate is signed by a certificate without CA:TRUE; only a CA certificate may sign others"
        }
        _ => "check caFile, certFile and the server's names",
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if found.is_empty() {
        Err(TlsError::NoCertificate { path: path.to_owned() })
    } else {
        Ok(found)
    }
}
