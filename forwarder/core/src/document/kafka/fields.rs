//! The tagged parts of a Kafka connection as flat structs: see [`tagged`](crate::document::tagged).

use std::path::PathBuf;

use serde::Deserialize;

use super::{DeadLetter, KafkaConnection, Sasl, StartFrom};
use crate::document::tagged::{Field, Misfit};

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
