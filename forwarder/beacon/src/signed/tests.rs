use serde::Deserialize;

use super::*;
use crate::body::{Announcement, Digest, Request};

/// What every client library reads and every signer writes, byte for byte.
const VECTORS: &str = include_str!("../../vectors.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    seed: String,
    public_key: String,
    signed: Vec<Signed>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Signed {
    body: Body,
    text: String,
}

#[derive(Deserialize)]
struct Refused {
    why: String,
    text: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

#[test]
fn bodies_are_signed_and_opened_as_the_vectors_say() {
    let vectors = vectors();
    let signer = Signer::from_seed(&vectors.seed).unwrap();
    assert_eq!(signer.public_key(), vectors.public_key);
    let verifier = Verifier::of(&vectors.public_key).unwrap();
    assert!(!vectors.signed.is_empty());
    for Signed { body, text } in vectors.signed {
        let signed = String::from_utf8(signer.sign(&body).unwrap()).unwrap();
        assert_eq!(signed, text);
        assert_eq!(verifier.open(text.as_bytes()).unwrap(), body);
        if let Body::Announcement(announcement) = &body {
            let other = Announcement {
                nonce: "another".to_owned(),
                ..announcement.clone()
            };
            assert_eq!(other.sealed().hash, announcement.hash, "the nonce does not count");
        }
    }
}

#[test]
fn what_is_refused_is_refused_for_its_reason() {
    let vectors = vectors();
    let verifier = Verifier::of(&vectors.public_key).unwrap();
    assert!(!vectors.refused.is_empty());
    for Refused { why, text } in vectors.refused {
        let error = verifier.open(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(&why), "{error}: {why}");
    }
    let long = vec![b'a'; MAX_BYTES + 1];
    assert!(matches!(verifier.open(&long), Err(OpenError::TooLong(_))));
}

#[test]
fn each_byte_that_somebody_changes_is_noticed() {
    let vectors = vectors();
    let verifier = Verifier::of(&vectors.public_key).unwrap();
    let sound = vectors.signed[0].text.as_bytes();
    for at in 0..sound.len() {
        let mut changed = sound.to_vec();
        changed[at] ^= 1;
        assert!(verifier.open(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn another_key_signs_nothing_that_is_believed() {
    let vectors = vectors();
    let other = Signer::from_seed(&KeyPair::new_user().seed().unwrap()).unwrap();
    let body = Body::Digest(Digest {
        ring: "r".to_owned(),
        epoch: 9,
        hash: String::new(),
        pod: "p".to_owned(),
        sequence: 1,
        next_ms: 1,
    });
    let forged = other.sign(&body).unwrap();
    let verifier = Verifier::of(&vectors.public_key).unwrap();
    assert!(matches!(verifier.open(&forged), Err(OpenError::Forged)));
    Verifier::of(&other.public_key()).unwrap().open(&forged).unwrap();
}

#[test]
fn keys_of_another_kind_are_refused_and_never_shown() {
    let account = KeyPair::new_account();
    for seed in ["", "SUAB", &account.seed().unwrap()] {
        let error = Signer::from_seed(seed).unwrap_err().to_string();
        assert!(
            error.contains("SU") && (seed.is_empty() || !error.contains(seed)),
            "{error}"
        );
    }
    for key in ["", "UAB", &account.public_key()] {
        assert!(matches!(Verifier::of(key), Err(KeyError::Public)), "{key}");
    }
    let signer = Signer::from_seed(&vectors().seed).unwrap();
    assert!(!format!("{signer:?}").contains(&vectors().seed));
}

#[test]
fn a_request_may_have_a_nonce() {
    assert_eq!(Request::parse(b"").unwrap().nonce, "");
    assert_eq!(Request::parse(br#"{"nonce":"a-1","later":1}"#).unwrap().nonce, "a-1");
    let long = format!(r#"{{"nonce":"{}"}}"#, "a".repeat(65));
    for refused in ["[1]", "x", r#"{"nonce":"a b"}"#, r#"{"nonce":"é"}"#, &long] {
        assert!(Request::parse(refused.as_bytes()).is_err(), "{refused}");
    }
}
