//! From the document as written to one that the engine may run: every fault, by its path.

mod engine;
mod kafka;
mod nats;
mod subject;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use super::Config;
use super::fault::{ConfigError, ConfigErrors, Faults};

/// A document without a fault. There is no other way to one than through the checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked(Config);

impl Deref for Checked {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}

impl Checked {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// The first fault of its form, or all of its meaning.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Ok(Config::from_yaml(text)?.checked()?)
    }

    /// The document, to change it and check it again.
    #[must_use]
    pub fn into_inner(self) -> Config {
        self.0
    }
}

/// Where the document is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A text, which holds no secret.
    Document,
    /// The original container's variables, whose URLs may hold user and password.
    Environment,
}

impl Config {
    /// All that is wrong with what the document says.
    ///
    /// # Errors
    /// Every fault, in the order of the fields.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        self.check_from(Origin::Document)
    }

    /// The document, proved to be without a fault.
    ///
    /// # Errors
    /// Those of [`Config::check`].
    pub fn checked(self) -> Result<Checked, ConfigErrors> {
        self.check()?;
        Ok(Checked(self))
    }

    pub(super) fn checked_from_environment(self) -> Result<Checked, ConfigErrors> {
        self.check_from(Origin::Environment)?;
        Ok(Checked(self))
    }

    fn check_from(&self, origin: Origin) -> Result<(), ConfigErrors> {
        let mut list = Vec::new();
        let mut faults = Faults::new(&mut list);
        // Destructured, so that a new field does not go unchecked.
        let Self {
            source,
            ring,
            publish,
            dead_letter,
            engine,
            admin,
            logging: _,
        } = self;
        kafka::check_source(&mut faults.at("source"), source, engine);
        nats::check_ring(&mut faults.at("ring"), ring, origin);
        nats::check_publish(&mut faults.at("publish"), publish, dead_letter.is_some());
        if let Some(dead_letter) = dead_letter {
            kafka::check_dead_letter(&mut faults.at("deadLetter"), dead_letter, source);
        }
        engine::check_engine(&mut faults.at("engine"), engine, source);
        engine::check_admin(&mut faults.at("admin"), admin);
        ConfigErrors::from_faults(list)
    }
}
