//! Certificates that are issued for another name than the address that a server is reached at.
//!
//! Clusters announce IP addresses, and certificates carry the names that people configure. Everything else about a certificate is
//! checked as always.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// A verifier that wants `name` in the certificate.
pub(super) fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    name: ServerName<'static>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    Ok(Arc::new(Named { usual, name }))
}

#[derive(Debug)]
struct Named {
    usual: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _reached_at: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.usual
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use forwarder_core::document::Tls;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{ClientConfig, ServerConfig};
    use rustls_pki_types::PrivateKeyDer;
    use tempfile::TempDir;
    use tokio::io::duplex;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::{client_config, client_config_for};

    /// A server with a certificate for `nats.example`, and who trusts its authority.
    fn server(dir: &TempDir) -> (ServerConfig, Tls) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_file = dir.path().join("ca.pem");
        fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["nats.example".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let tls = Tls {
            ca_file: Some(ca_file),
            ..Tls::default()
        };
        (config, tls)
    }

    /// Whether the client takes the server for who it should be, at the address 10.0.0.7.
    async fn agrees(server: &ServerConfig, client: ClientConfig) -> bool {
        let (near, far) = duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server.clone()));
        let accepting = tokio::spawn(async move { acceptor.accept(far).await.is_ok() });
        let address = ServerName::try_from("10.0.0.7").unwrap();
        let agreed = TlsConnector::from(Arc::new(client))
            .connect(address, near)
            .await
            .is_ok();
        accepting.await.unwrap();
        agreed
    }

    #[tokio::test]
    async fn a_server_at_an_announced_address_must_have_the_name_that_is_configured() {
        let dir = TempDir::new().unwrap();
        let (server, tls) = server(&dir);
        let named = |name: &'static str| client_config_for(Some(&tls), ServerName::try_from(name).unwrap());
        assert!(agrees(&server, named("nats.example").await.unwrap()).await);
        assert!(!agrees(&server, named("other.example").await.unwrap()).await);
        assert!(
            !agrees(&server, client_config(Some(&tls)).await.unwrap()).await,
            "the address is no name"
        );
    }

    #[tokio::test]
    async fn the_right_name_of_another_authority_is_not_enough() {
        let (mine, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (server, _) = server(&mine);
        let (_, tls) = self::server(&theirs);
        let config = client_config_for(Some(&tls), ServerName::try_from("nats.example").unwrap());
        assert!(!agrees(&server, config.await.unwrap()).await);
    }
}
