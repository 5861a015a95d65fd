//! A key's value in a Secret that was read.

use super::CredentialsError;
use crate::index::Secrets;

/// The most that is taken of a key: bundles of all public authorities have 200 KiB. What all keys of a resource may have together is
/// bounded as well, and so is what a forwarder projects of all of them.
const MOST_BYTES: usize = 256 << 10;

impl Secrets {
    /// A key's value, which is not empty, after `check` has looked at it.
    pub(super) fn value(
        &self,
        name: &str,
        key: &str,
        check: impl FnOnce(&[u8]) -> Result<(), &'static str>,
    ) -> Result<&[u8], CredentialsError> {
        let namespace = || self.namespace().to_owned();
        let secret = self.get(name).ok_or_else(|| CredentialsError::SecretMissing {
            namespace: namespace(),
            name: name.to_owned(),
        })?;
        let secret = secret.as_ref().ok_or_else(|| CredentialsError::NotOptedIn {
            namespace: namespace(),
            name: name.to_owned(),
        })?;
        let value = secret.get(key).ok_or_else(|| CredentialsError::KeyMissing {
            namespace: namespace(),
            name: name.to_owned(),
            key: key.to_owned(),
        })?;
        let checked = if value.trim_ascii().is_empty() {
            Err("is empty; put the credentials there")
        } else if value.len() > MOST_BYTES {
            Err("holds more than 256 KiB; store only the certificates and credentials that are needed")
        } else {
            check(value)
        };
        checked.map_err(|problem| CredentialsError::BadContent {
            namespace: namespace(),
            name: name.to_owned(),
            key: key.to_owned(),
            problem,
        })?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::index::ALLOW_USE;

    #[test]
    fn a_secret_that_does_not_say_so_is_told_with_what_to_do() {
        let secrets = Secrets::without_use("plant", "s");
        let error = secrets.value("s", "token", |_| Ok(())).unwrap_err();
        assert_eq!(error.reason(), "SecretNotOptedIn");
        let said = error.to_string();
        assert!(said.contains("plant/s") && said.contains(ALLOW_USE), "{said}");
    }

    #[test]
    fn one_key_does_not_fill_the_secret_of_all() {
        let secrets = |bytes: usize| {
            let data = BTreeMap::from([("ca.crt".to_owned(), vec![b'a'; bytes])]);
            Secrets::new("plant", BTreeMap::from([("s".to_owned(), data)]))
        };
        assert!(secrets(MOST_BYTES).value("s", "ca.crt", |_| Ok(())).is_ok());
        let error = secrets(MOST_BYTES + 1).value("s", "ca.crt", |_| Ok(())).unwrap_err();
        assert_eq!(error.reason(), "SecretInvalid");
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }
}
