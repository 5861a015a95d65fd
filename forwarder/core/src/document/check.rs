//! Checks the document as written, and names every fault by its path. What passes may run in the engine.

mod beacon;
mod engine;
mod kafka;
mod mirror;
mod nats;
mod subject;
mod telemetry;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use super::fault::{ConfigError, ConfigErrors, Faults};
use super::{Admin, Config, DeadLetter, Document, Engine, Publish, RingConfig, Source, Telemetry};

/// A document, or a part of one, without a fault. Only the checks make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked<T = Config>(T);

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Checked<T> {
    /// The document, to change it and check it again.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Checked {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// Every fault of its form and its meaning.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Ok(Config::from_yaml(text)?.checked()?)
    }

    /// The document without its ring, and the ring. What holds of the whole holds of each.
    #[must_use]
    pub fn split(self) -> (Checked<Document>, Checked<RingConfig>) {
        let (document, ring) = self.0.split();
        (Checked(document), Checked(ring))
    }
}

impl Checked<Document> {
    /// The whole document, with `ring` for its ring. One check looks at both: in mode JetStream the engine passes over `ring.mirror`.
    #[must_use]
    pub fn with_ring(self, ring: Checked<RingConfig>) -> Checked {
        Checked(self.0.with_ring(ring.0))
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
        // Destructured, so that a new field does not go unchecked.
        let Self {
            source,
            ring,
            publish,
            dead_letter,
            engine,
            admin,
            logging: _,
            telemetry,
        } = self;
        check_sections(
            &Sections {
                source,
                ring: Some(ring),
                publish,
                dead_letter: dead_letter.as_ref(),
                engine,
                admin,
                telemetry: telemetry.as_ref(),
            },
            origin,
        )
    }
}

impl Document {
    /// All that is wrong with what the document says. A missing ring is not a fault here.
    ///
    /// # Errors
    /// Every fault, in the order of the fields.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let Self {
            source,
            ring,
            publish,
            dead_letter,
            engine,
            admin,
            logging: _,
            telemetry,
        } = self;
        check_sections(
            &Sections {
                source,
                ring: ring.as_ref(),
                publish,
                dead_letter: dead_letter.as_ref(),
                engine,
                admin,
                telemetry: telemetry.as_ref(),
            },
            Origin::Document,
        )
    }

    /// The document, proved to be without a fault.
    ///
    /// # Errors
    /// Those of [`Document::check`].
    pub fn checked(self) -> Result<Checked<Self>, ConfigErrors> {
        self.check()?;
        Ok(Checked(self))
    }
}

impl RingConfig {
    /// All that is wrong with a ring's own document.
    ///
    /// # Errors
    /// Every fault, by its path in that document.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut list = Vec::new();
        nats::check_ring(&mut Faults::new(&mut list), self, Origin::Document);
        ConfigErrors::from_faults(list)
    }

    /// The ring, proved to be without a fault.
    ///
    /// # Errors
    /// Those of [`RingConfig::check`].
    pub fn checked(self) -> Result<Checked<Self>, ConfigErrors> {
        self.check()?;
        Ok(Checked(self))
    }
}

/// What both forms of the document have.
struct Sections<'a> {
    source: &'a Source,
    ring: Option<&'a RingConfig>,
    publish: &'a Publish,
    dead_letter: Option<&'a DeadLetter>,
    engine: &'a Engine,
    admin: &'a Admin,
    telemetry: Option<&'a Telemetry>,
}

fn check_sections(sections: &Sections<'_>, origin: Origin) -> Result<(), ConfigErrors> {
    let Sections {
        source,
        ring,
        publish,
        dead_letter,
        engine,
        admin,
        telemetry,
    } = *sections;
    let mut list = Vec::new();
    let mut faults = Faults::new(&mut list);
    kafka::check_source(&mut faults.at("source"), source, engine);
    if let Some(ring) = ring {
        nats::check_ring(&mut faults.at("ring"), ring, origin);
    }
    if let Some(ring) = ring {
        mirror::check_mode(&mut faults, ring, publish);
    }
    nats::check_publish(&mut faults.at("publish"), publish, dead_letter.is_some());
    if let Some(dead_letter) = dead_letter {
        kafka::check_dead_letter(&mut faults.at("deadLetter"), dead_letter, source);
    }
    engine::check_engine(&mut faults.at("engine"), engine, source);
    engine::check_admin(&mut faults.at("admin"), admin);
    if let Some(telemetry) = telemetry {
        telemetry::check_telemetry(&mut faults.at("telemetry"), telemetry);
    }
    ConfigErrors::from_faults(list)
}
