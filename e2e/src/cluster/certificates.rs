//! Certificates and kubeconfigs, by the `openssl` program: a library for them would have to be compiled before anything else can start.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::plan::{API_PORT, Addresses, Files, NODE};

/// Makes the authority, the certificates of the API and of its clients, the key that signs service accounts' tokens, and the kubeconfigs.
pub(super) fn make(files: &Files, addresses: Addresses) -> Result<()> {
    let dir = files.at("certificates");
    fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    openssl(
        &dir,
        &["-subj", "/CN=fanout-e2e", "-keyout", "ca.key", "-out", "ca.crt"],
    )?;
    let names = format!(
        "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         DNS:localhost,IP:127.0.0.1,IP:{},IP:{}",
        addresses.node(),
        addresses.kubernetes_service()
    );
    signed(&dir, "apiserver", "/CN=kube-apiserver", Some(&names))?;
    signed(&dir, "admin", "/O=system:masters/CN=admin", None)?;
    let kubelet = format!("/O=system:nodes/CN=system:node:{NODE}");
    signed(&dir, "kubelet", &kubelet, None)?;
    // Only the form of a certificate: what counts is that one key signs and the other checks.
    openssl(
        &dir,
        &[
            "-subj",
            "/CN=service-accounts",
            "-keyout",
            "service-accounts.key",
            "-out",
            "service-accounts.crt",
        ],
    )?;
    for user in ["admin", "kubelet"] {
        let file = files.kubeconfig(user);
        fs::write(&file, kubeconfig(files, addresses, user)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}

fn signed(dir: &Path, name: &str, subject: &str, extension: Option<&str>) -> Result<()> {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let mut args = vec!["-subj", subject, "-keyout", &key, "-out", &certificate];
    args.extend([
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    if let Some(extension) = extension {
        args.extend(["-addext", extension]);
    }
    openssl(dir, &args)
}

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "3650",
    ]);
    let output = command
        .args(args)
        .output()
        .context("failed to run openssl: is it installed? `cargo e2e setup` says")?;
    if !output.status.success() {
        bail!(
            "openssl failed to make a certificate (3.0 or newer is needed): {command:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// With its certificates inside, so that the file alone is all that somebody needs.
fn kubeconfig(files: &Files, addresses: Addresses, user: &str) -> Result<String> {
    Ok(format!(
        "apiVersion: v1
kind: Config
current-context: fanout-e2e
contexts:
- name: fanout-e2e
  context: {{cluster: fanout-e2e, user: {user}}}
clusters:
- name: fanout-e2e
  cluster:
    server: https://{}:{API_PORT}
    certificate-authority-data: {}
users:
- name: {user}
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        addresses.node(),
        base64_file(&files.certificate("ca"))?,
        base64_file(&files.certificate(user))?,
        base64_file(&files.key(user))?,
    ))
}

fn base64_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(base64(&bytes))
}

/// A dozen lines, against a dependency of a crate that wants to have few.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for index in 0..4 {
            let symbol = ALPHABET.get(word >> (18 - 6 * index) & 63).copied().unwrap_or(b'=');
            text.push(if index <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
