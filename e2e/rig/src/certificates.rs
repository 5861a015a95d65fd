//! A certificate authority for one test, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate authority, its certificate on disk.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// PEM file of its certificate: what clients trust.
    pub ca_file: PathBuf,
}

/// A certificate with its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its key (PKCS #8).
    pub key_file: PathBuf,
    /// Key and certificate in one file, as Kafka's PEM key store wants it.
    pub both_file: PathBuf,
}

impl Authority {
    /// Makes one; its files go under `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        let key = KeyPair::generate().context("failed to make a key")?;
        let mut params = CertificateParams::new(Vec::new()).context("failed to describe the authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "fanout e2e authority");
        let certificate = params.self_signed(&key).context("failed to sign the authority")?;
        let ca_file = dir.join("ca.pem");
        write(&ca_file, &certificate.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_owned(),
            ca_file,
        })
    }

    /// A server's certificate for `localhost` and 127.0.0.1.
    pub fn server(&self, name: &str) -> Result<Pair> {
        self.sign(
            name,
            vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client's certificate with `name` as its common name.
    pub fn client(&self, name: &str) -> Result<Pair> {
        self.sign(name, vec![name.to_owned()], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, name: &str, hosts: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
        let key = KeyPair::generate().context("failed to make a key")?;
        let mut params = CertificateParams::new(hosts).with_context(|| format!("failed to describe {name}"))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("failed to sign {name}"))?;
        store(&self.dir, name, &certificate.pem(), &key)
    }
}

/// A certificate for `localhost` and 127.0.0.1 that nobody but its own key has signed: a server's, and what its clients trust.
/// `ca`: it says CA:TRUE, as `openssl req -x509` makes it where nobody says otherwise.
pub fn self_signed(dir: &Path, name: &str, ca: bool) -> Result<Pair> {
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let key = KeyPair::generate().context("failed to make a key")?;
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(hosts).with_context(|| format!("failed to describe {name}"))?;
    params.distinguished_name.push(DnType::CommonName, name);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params
        .self_signed(&key)
        .with_context(|| format!("failed to sign {name}"))?;
    store(dir, name, &certificate.pem(), &key)
}

fn store(dir: &Path, name: &str, certificate: &str, key: &KeyPair) -> Result<Pair> {
    let file = |ending: &str| dir.join(format!("{name}{ending}"));
    let pair = Pair {
        cert_file: file(".pem"),
        key_file: file(".key"),
        both_file: file(".both.pem"),
    };
    write(&pair.cert_file, certificate)?;
    write(&pair.key_file, &key.serialize_pem())?;
    write(&pair.both_file, &format!("{}{certificate}", key.serialize_pem()))?;
    Ok(pair)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
