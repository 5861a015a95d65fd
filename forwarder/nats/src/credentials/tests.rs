use std::fs;

use tempfile::TempDir;

use super::*;

const JWT: &str = "eyJ0eXAi.eyJqdGkiOiJ.c2ln";

async fn present(content: &str, auth: impl FnOnce(PathBuf) -> NatsAuth) -> Result<Presented, CredentialsError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, content).unwrap();
    Presented::new(Some(&auth(path)), None, Some("nonce")).await
}

async fn problem(content: &str, auth: impl FnOnce(PathBuf) -> NatsAuth) -> String {
    let message = present(content, auth).await.err().unwrap().to_string();
    assert!(message.contains("/secret "), "it names the file: {message}");
    message
}

fn token(file: PathBuf) -> NatsAuth {
    NatsAuth::Token { file }
}

fn nkey(seed_file: PathBuf) -> NatsAuth {
    NatsAuth::NKey { seed_file }
}

fn creds(file: PathBuf) -> NatsAuth {
    NatsAuth::Creds { file }
}

fn creds_text(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\r\n{jwt}\r\n------END NATS USER JWT------\r\n\r\n*** IMPORTANT ***\r\n\r\n\
         -----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
    )
}

fn assert_signed(presented: &Presented, key: &KeyPair) {
    let signature = URL_SAFE_NO_PAD.decode(presented.signature.as_ref().unwrap()).unwrap();
    key.verify(b"nonce", &signature).unwrap();
}

#[tokio::test]
async fn secrets_are_trimmed() {
    assert_eq!(
        present(" s3 cret\r\n", token).await.unwrap().token.as_deref(),
        Some("s3 cret")
    );
    let user = |password_file| NatsAuth::UserPassword {
        username: "u".to_owned(),
        password_file,
    };
    let presented = present("p\n", user).await.unwrap();
    assert_eq!(
        (presented.user.as_deref(), presented.password.as_deref()),
        (Some("u"), Some("p"))
    );
}

#[tokio::test]
async fn keys_sign_the_nonce() {
    let key = KeyPair::new_user();
    let presented = present(&format!("{}\n", key.seed().unwrap()), nkey).await.unwrap();
    assert_eq!(presented.nkey, Some(key.public_key()));
    assert_signed(&presented, &key);
    let presented = present(&creds_text(JWT, &key.seed().unwrap()), creds).await.unwrap();
    assert_eq!(presented.jwt.as_deref(), Some(JWT));
    assert_signed(&presented, &key);
}

#[tokio::test]
async fn garbled_files_are_named_with_what_they_lack() {
    let seed = KeyPair::new_user().seed().unwrap();
    let account = KeyPair::new_account().seed().unwrap();
    assert!(problem(" \n", token).await.contains("is empty"));
    assert!(
        problem(&"x".repeat(MAX_FILE + 1), token)
            .await
            .contains("more bytes than any")
    );
    assert!(problem("SUNOSEED", nkey).await.contains("no valid NKEY seed"));
    assert!(problem(&account, nkey).await.contains("that is not a user's"));
    assert!(problem("hello", creds).await.contains("BEGIN NATS USER JWT"));
    assert!(problem(&creds_text("a.b", &seed), creds).await.contains("three parts"));
    assert!(
        problem(&creds_text(JWT, ""), creds)
            .await
            .contains("BEGIN USER NKEY SEED")
    );
    assert!(
        problem(&creds_text(JWT, "SU"), creds)
            .await
            .contains("no valid NKEY seed")
    );
    let message = problem(&creds_text(JWT, &seed[..50]), creds).await;
    assert!(!message.contains(&seed[..10]), "no secret in a message: {message}");
    let missing = NatsAuth::Token {
        file: "/nowhere/secret".into(),
    };
    let error = Presented::new(Some(&missing), None, None).await.err().unwrap();
    assert_eq!(error.to_string(), "failed to read the credentials file /nowhere/secret");
}

#[tokio::test]
async fn a_url_comes_before_configured_tokens_and_passwords() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, "configured").unwrap();
    let url = Userinfo::UserPassword("u".to_owned(), "p".to_owned());
    let presented = Presented::new(Some(&token(file)), Some(&url), None).await.unwrap();
    assert_eq!((presented.token, presented.user.as_deref()), (None, Some("u")));
}

#[tokio::test]
async fn a_server_that_gives_nothing_to_sign() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, KeyPair::new_user().seed().unwrap()).unwrap();
    let error = Presented::new(Some(&nkey(file)), None, None).await.err().unwrap();
    assert!(matches!(error, CredentialsError::NoNonce));
}
