//! Reads a document as if its faults that are known by now were mended, so that the next ones come to light.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_path_to_error::{Path, Segment};

use super::stand_in::{Choice, StandIn};

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way to a fault. What cannot be stepped into ends it.
pub(super) fn steps(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().map_while(step).collect()
}

/// How a fault is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patch {
    /// There is no such field: it is passed over.
    Dropped,
    /// The value cannot be read: there is none, or a stand-in.
    Unread,
    /// A value must be there: a stand-in.
    Needed,
}

/// What is mended, by where it is.
#[derive(Debug, Default)]
pub(super) struct Patches {
    pub(super) here: Option<Patch>,
    /// No other stand-in does than the first.
    steady: bool,
    below: BTreeMap<Step, Patches>,
}

impl Patches {
    /// What is mended there and below, if anything is.
    pub(super) fn at(&self, steps: &[Step]) -> Option<&Self> {
        steps.iter().try_fold(self, |patches, step| patches.below.get(step))
    }

    /// How many steps lead to what is mended on the way there, if anything is.
    pub(super) fn on_the_way(&self, steps: &[Step]) -> Option<usize> {
        (0..=steps.len()).find(|count| self.at(&steps[..*count]).is_some_and(|patches| patches.here.is_some()))
    }

    /// Mends it there, and forgets what is mended below.
    pub(super) fn mend(&mut self, steps: &[Step], patch: Patch) {
        let there = steps
            .iter()
            .fold(self, |patches, step| patches.below.entry(step.clone()).or_default());
        *there = Self {
            here: Some(patch),
            ..Self::default()
        };
    }

    /// Takes the first stand-in from now on for what is mended on the way there. False: it is taken already, or there is none.
    pub(super) fn steady(&mut self, steps: &[Step]) -> bool {
        let Some(count) = self.on_the_way(steps) else {
            return false;
        };
        let mut there = Some(self);
        for step in &steps[..count] {
            there = there.and_then(|patches| patches.below.get_mut(step));
        }
        there.is_some_and(|patches| !std::mem::replace(&mut patches.steady, true))
    }

    /// The stand-in that is taken here.
    const fn choice(&self, choice: Choice) -> Choice {
        if self.steady { Choice::Absent } else { choice }
    }

    /// The ways to all that is mended.
    pub(super) fn ways(&self) -> Vec<Vec<Step>> {
        let mut ways = Vec::new();
        self.walk(&mut Vec::new(), &mut ways);
        ways
    }

    fn walk(&self, way: &mut Vec<Step>, ways: &mut Vec<Vec<Step>>) {
        if self.here.is_some() {
            ways.push(way.clone());
        }
        for (step, below) in &self.below {
            way.push(step.clone());
            below.walk(way, ways);
            way.pop();
        }
    }

    fn key(&self, key: &str) -> Option<&Self> {
        self.below.get(&Step::Key(key.to_owned()))
    }
}

/// A value in which, or below which, something is mended.
pub(super) struct Mended<'p, D> {
    pub(super) inner: D,
    pub(super) patches: &'p Patches,
    pub(super) choice: Choice,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Mended<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, patches, choice } = self;
        inner.deserialize_any(Mended {
            inner: visitor,
            patches,
            choice,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, patches, choice } = self;
        inner.deserialize_option(Mended {
            inner: visitor,
            patches,
            choice,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, patches, choice } = self;
        inner.deserialize_map(Mended {
            inner: visitor,
            patches,
            choice,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Self { inner, patches, choice } = self;
        let visitor = Mended {
            inner: visitor,
            patches,
            choice,
        };
        inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, patches, choice } = self;
        inner.deserialize_seq(Mended {
            inner: visitor,
            patches,
            choice,
        })
    }

    // A document has nothing else in which something can stand.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Mended<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Mended {
            inner: deserializer,
            patches: self.patches,
            choice: self.choice,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let needed = self.patches.below.iter().filter_map(|(step, patches)| match step {
            Step::Key(key) if patches.here == Some(Patch::Needed) => Some(key.as_str()),
            Step::Key(_) | Step::Index(_) => None,
        });
        self.inner.visit_map(MendedMap {
            inner: Some(map),
            patches: self.patches,
            choice: self.choice,
            absent: needed.collect(),
            value: None,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(MendedList {
            inner: list,
            patches: self.patches,
            choice: self.choice,
            index: 0,
        })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Mended<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Mended {
            inner: deserializer,
            patches: self.patches,
            choice: self.choice,
        })
    }
}

struct MendedMap<'p, A> {
    /// None: all its keys have been given.
    inner: Option<A>,
    patches: &'p Patches,
    choice: Choice,
    /// Keys that must be there and have not come yet.
    absent: Vec<&'p str>,
    /// What is mended at the key that was given last.
    value: Option<&'p Patches>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for MendedMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        while let Some(inner) = &mut self.inner {
            let given = inner.next_key_seed(Key {
                seed: &mut seed,
                patches: self.patches,
                choice: self.choice,
                absent: &mut self.absent,
                value: &mut self.value,
            })?;
            match given {
                Some(Some(key)) => return Ok(Some(key)),
                Some(None) => {
                    inner.next_value::<IgnoredAny>()?;
                }
                None => self.inner = None,
            }
        }
        let (Some(seed), Some(key)) = (seed, self.absent.pop()) else {
            return Ok(None);
        };
        self.value = self.patches.key(key);
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        let Some(inner) = &mut self.inner else {
            let choice = self.value.map_or(self.choice, |patches| patches.choice(self.choice));
            return seed.deserialize(StandIn::new(choice));
        };
        match self.value {
            None => inner.next_value_seed(seed),
            Some(patches) if patches.here.is_some() => {
                inner.next_value::<IgnoredAny>()?;
                seed.deserialize(StandIn::new(patches.choice(self.choice)))
            }
            Some(patches) => inner.next_value_seed(Mended {
                inner: seed,
                patches,
                choice: self.choice,
            }),
        }
    }
}

/// Looks at a key before the one whom it is for. None: the key is passed over, and nobody has seen it.
struct Key<'k, 'p, K> {
    seed: &'k mut Option<K>,
    patches: &'p Patches,
    choice: Choice,
    absent: &'k mut Vec<&'p str>,
    value: &'k mut Option<&'p Patches>,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, '_, K> {
    type Value = Option<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for Key<'_, '_, K> {
    type Value = Option<K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        *self.value = self.patches.key(key);
        let passed = self.value.is_some_and(|patches| match patches.here {
            None | Some(Patch::Needed) => false,
            Some(Patch::Unread) => patches.choice(self.choice) == Choice::Absent,
            Some(Patch::Dropped) => true,
        });
        if passed {
            return Ok(None);
        }
        self.absent.retain(|absent| *absent != key);
        let seed = self.seed.take();
        seed.map(|seed| seed.deserialize(StrDeserializer::new(key))).transpose()
    }
}

struct MendedList<'p, A> {
    inner: A,
    patches: &'p Patches,
    choice: Choice,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for MendedList<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let patches = self.patches.below.get(&Step::Index(self.index));
        self.index += 1;
        match patches {
            None => self.inner.next_element_seed(seed),
            // One less would give all that follow another place.
            Some(patches) if patches.here.is_some() => match self.inner.next_element::<IgnoredAny>()? {
                Some(IgnoredAny) => seed.deserialize(StandIn::new(patches.choice(self.choice))).map(Some),
                None => Ok(None),
            },
            Some(patches) => self.inner.next_element_seed(Mended {
                inner: seed,
                patches,
                choice: self.choice,
            }),
        }
    }
}
