//! How the enums with a tag are read: all their fields at once, then the variant.
//!
//! serde reads an internally tagged enum through a buffer, in which the path of a fault is lost. Read as a flat struct,
//! `ring.clusters[2].auth.passwordfile` is named as what it is; what a variant needs or does not know is told after.

use std::fmt;

/// The variant lacks a field that it needs, or has one that it does not know.
#[derive(Debug)]
pub(super) enum Misfit {
    Missing { field: &'static str, variant: &'static str },
    Foreign { field: &'static str, variant: &'static str },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field, variant } => write!(f, "`{field}` is missing; {variant} needs it"),
            Self::Foreign { field, variant } => write!(f, "`{field}` is not used with {variant}; remove it"),
        }
    }
}

/// One field of a flat struct, by the name that the document has for it.
pub(super) struct Field<T>(pub(super) &'static str, pub(super) Option<T>);

impl<T> Field<T> {
    pub(super) fn required(self, variant: &'static str) -> Result<T, Misfit> {
        let Self(field, value) = self;
        value.ok_or(Misfit::Missing { field, variant })
    }

    pub(super) fn absent(self, variant: &'static str) -> Result<(), Misfit> {
        let Self(field, value) = self;
        if value.is_some() {
            Err(Misfit::Foreign { field, variant })
        } else {
            Ok(())
        }
    }
}
