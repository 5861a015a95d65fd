//! How the enums with a tag are read: all their fields at once, then the variant.
//!
//! serde reads an internally tagged enum through a buffer, in which the path of a fault is lost. Read as a flat struct,
//! `ring.clusters[2].auth.passwordfile` is named as what it is; what a variant needs or does not know is told after.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::kafka::{DeadLetter, KafkaConnection, Sasl, StartFrom};
use super::nats::NatsAuth;

/// A field that the variant needs is missing, or one is there that it does not have.
#[derive(Debug)]
pub(super) enum Misfit {
    Missing { field: &'static str, variant: &'static str },
    Foreign { field: &'static str, variant: &'static str },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field, variant } => write!(f, "`{field}` is missing; {variant} needs it"),
            Self::Foreign { field, variant } => write!(f, "`{field}` has no meaning with {variant}; remove it"),
        }
    }
}

/// One field of a flat struct, by the name that the document has for it.
struct Field<T>(&'static str, Option<T>);

impl<T> Field<T> {
    fn required(self, variant: &'static str) -> Result<T, Misfit> {
        let Self(field, value) = self;
        value.ok_or(Misfit::Missing { field, variant })
    }

    fn absent(self, variant: &'static str) -> Result<(), Misfit> {
        let Self(field, value) = self;
        if value.is_some() {
            Err(Misfit::Foreign { field, variant })
        } else {
            Ok(())
        }
    }
}

#[derive(Deserialize)]
enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SaslFields {
    mechanism: Mechanism,
    username: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl TryFrom<SaslFields> for Sasl {
    type Error = Misfit;

    fn try_from(fields: SaslFields) -> Result<Self, Misfit> {
        let SaslFields {
            mechanism,
            username,
            password_file,
            token_file,
        } = fields;
        let username = Field("username", username);
        let password_file = Field("passwordFile", password_file);
        let token_file = Field("tokenFile", token_file);
        let variant = match mechanism {
            Mechanism::Plain => "mechanism PLAIN",
            Mechanism::ScramSha256 => "mechanism SCRAM-SHA-256",
            Mechanism::ScramSha512 => "mechanism SCRAM-SHA-512",
            Mechanism::OAuthBearer => {
                let variant = "mechanism OAUTHBEARER";
                username.absent(variant)?;
                password_file.absent(variant)?;
                return Ok(Self::OAuthBearer {
                    token_file: token_file.required(variant)?,
                });
            }
        };
        token_file.absent(variant)?;
        let username = username.required(variant)?;
        let password_file = password_file.required(variant)?;
        Ok(match mechanism {
            Mechanism::ScramSha256 => Self::ScramSha256 {
                username,
                password_file,
            },
            Mechanism::ScramSha512 => Self::ScramSha512 {
                username,
                password_file,
            },
            Mechanism::Plain | Mechanism::OAuthBearer => Self::Plain {
                username,
                password_file,
            },
        })
    }
}

#[derive(Deserialize)]
enum StartFromType {
    Latest,
    Earliest,
    Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StartFromFields {
    r#type: StartFromType,
    millis: Option<i64>,
}

impl TryFrom<StartFromFields> for StartFrom {
    type Error = Misfit;

    fn try_from(fields: StartFromFields) -> Result<Self, Misfit> {
        let StartFromFields { r#type, millis } = fields;
        let millis = Field("millis", millis);
        match r#type {
            StartFromType::Latest => millis.absent("type Latest").map(|()| Self::Latest),
            StartFromType::Earliest => millis.absent("type Earliest").map(|()| Self::Earliest),
            StartFromType::Timestamp => Ok(Self::Timestamp {
                millis: millis.required("type Timestamp")?,
            }),
        }
    }
}

#[derive(Deserialize)]
enum NatsAuthType {
    Creds,
    NKey,
    Token,
    UserPassword,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NatsAuthFields {
    r#type: NatsAuthType,
    file: Option<PathBuf>,
    seed_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
}

impl TryFrom<NatsAuthFields> for NatsAuth {
    type Error = Misfit;

    fn try_from(fields: NatsAuthFields) -> Result<Self, Misfit> {
        let NatsAuthFields {
            r#type,
            file,
            seed_file,
            username,
            password_file,
        } = fields;
        let file = Field("file", file);
        let seed_file = Field("seedFile", seed_file);
        let username = Field("username", username);
        let password_file = Field("passwordFile", password_file);
        match r#type {
            NatsAuthType::Creds | NatsAuthType::Token => {
                let creds = matches!(r#type, NatsAuthType::Creds);
                let variant = if creds { "type Creds" } else { "type Token" };
                seed_file.absent(variant)?;
                username.absent(variant)?;
                password_file.absent(variant)?;
                let file = file.required(variant)?;
                Ok(if creds {
                    Self::Creds { file }
                } else {
                    Self::Token { file }
                })
            }
            NatsAuthType::NKey => {
                let variant = "type NKey";
                file.absent(variant)?;
                username.absent(variant)?;
                password_file.absent(variant)?;
                Ok(Self::NKey {
                    seed_file: seed_file.required(variant)?,
                })
            }
            NatsAuthType::UserPassword => {
                let variant = "type UserPassword";
                file.absent(variant)?;
                seed_file.absent(variant)?;
                let username = username.required(variant)?;
                Ok(Self::UserPassword {
                    username,
                    password_file: password_file.required(variant)?,
                })
            }
        }
    }
}

#[derive(Deserialize)]
enum DeadLetterType {
    Topic,
    File,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeadLetterFields {
    r#type: DeadLetterType,
    topic: Option<String>,
    connection: Option<KafkaConnection>,
    path: Option<PathBuf>,
}

impl TryFrom<DeadLetterFields> for DeadLetter {
    type Error = Misfit;

    fn try_from(fields: DeadLetterFields) -> Result<Self, Misfit> {
        let DeadLetterFields {
            r#type,
            topic,
            connection,
            path,
        } = fields;
        let topic = Field("topic", topic);
        let path = Field("path", path);
        match r#type {
            DeadLetterType::Topic => {
                path.absent("type Topic")?;
                Ok(Self::Topic {
                    topic: topic.required("type Topic")?,
                    connection,
                })
            }
            DeadLetterType::File => {
                topic.absent("type File")?;
                Field("connection", connection).absent("type File")?;
                Ok(Self::File {
                    path: path.required("type File")?,
                })
            }
        }
    }
}
