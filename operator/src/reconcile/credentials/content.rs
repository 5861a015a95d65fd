//! Whether a Secret's value can be what it is referred to as. All problems say what to do, and nothing of the value.

use forwarder_nats::credentials::{parse_creds, parse_seed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Looks at a value.
pub(super) type Check = fn(&[u8]) -> Result<(), &'static str>;

/// Text without control characters, apart from blanks around it: a token, a password.
pub(super) fn text(value: &[u8]) -> Result<(), &'static str> {
    trimmed(value).map(|_| ())
}

/// The text without the blanks and line ends around it that editors and `echo` leave.
pub(super) fn trimmed(value: &[u8]) -> Result<&str, &'static str> {
    let text = str::from_utf8(value).map_err(|_| "is not UTF-8 text; write text")?;
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err("holds a control character or several lines; write one line of text");
    }
    Ok(text)
}

pub(super) fn creds(value: &[u8]) -> Result<(), &'static str> {
    let text = str::from_utf8(value).map_err(|_| "is not text; put a credentials file there")?;
    match parse_creds(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "holds no credentials file (a user JWT and a user's seed, each between its BEGIN and END line); put one there, as nsc \
             writes it",
        ),
    }
}

pub(super) fn seed(value: &[u8]) -> Result<(), &'static str> {
    let text = str::from_utf8(value).map_err(|_| "is not text; put an NKEY seed there")?;
    match parse_seed(text.trim()) {
        Ok(_) => Ok(()),
        Err(_) => Err("holds no NKEY seed of a user; put one there that begins with SU"),
    }
}

/// A JWT has three parts; whether it holds anything is for librdkafka and the broker to say.
pub(super) fn token(value: &[u8]) -> Result<(), &'static str> {
    match trimmed(value)?.split('.').count() {
        3 => Ok(()),
        _ => Err("holds no JWT of three parts; put the token there"),
    }
}

pub(super) fn certificates(value: &[u8]) -> Result<(), &'static str> {
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(value) {
        certificate.map_err(|_| "holds broken PEM; put certificates in PEM there")?;
        any = true;
    }
    if any {
        Ok(())
    } else {
        Err("holds no certificate in PEM; put one there")
    }
}

pub(super) fn private_key(value: &[u8]) -> Result<(), &'static str> {
    match PrivateKeyDer::from_pem_slice(value) {
        Ok(_) => Ok(()),
        Err(_) => Err("holds no private key in PEM without a password; put one there"),
    }
}
