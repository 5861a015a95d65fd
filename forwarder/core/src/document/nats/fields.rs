//! Credentials as a flat struct: see [`tagged`](crate::document::tagged).

use std::path::PathBuf;

use serde::Deserialize;

use super::NatsAuth;
use crate::document::tagged::{Field, Misfit};

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
