//! What stands in for a value that is missing or cannot be read, so that all the rest can be read and judged.

use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Which stand-ins are taken. What is wrong with the document whatever they are is a fault of its own; what is wrong with some of
/// them alone may be theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nothing, where nothing may stand there: the default.
    Absent,
    /// The least.
    Least,
    /// The most.
    Most,
}

/// A value of whatever type is asked for.
pub(super) struct StandIn<E> {
    choice: Choice,
    error: PhantomData<E>,
}

impl<E> StandIn<E> {
    pub(super) const fn new(choice: Choice) -> Self {
        Self {
            choice,
            error: PhantomData,
        }
    }

    fn most<N>(&self, least: N, most: N) -> N {
        match self.choice {
            Choice::Absent | Choice::Least => least,
            Choice::Most => most,
        }
    }
}

macro_rules! numbers {
    ($($deserialize:ident $visit:ident $type:ident)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            visitor.$visit(self.most($type::MIN, $type::MAX))
        })*
    };
}

impl<'de, E: de::Error> Deserializer<'de> for StandIn<E> {
    type Error = E;

    numbers! {
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_bool(self.most(false, true))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_str("")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.choice {
            Choice::Absent => visitor.visit_none(),
            Choice::Least | Choice::Most => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_seq(de::value::SeqDeserializer::<_, E>::new(std::iter::empty::<u8>()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_map(Fields {
            fields: [].iter(),
            choice: self.choice,
            error: PhantomData,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_map(Fields {
            fields: fields.iter(),
            choice: self.choice,
            error: PhantomData,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        let variant = self
            .most(variants.first(), variants.last())
            .copied()
            .unwrap_or_default();
        visitor.visit_enum(StrDeserializer::<E>::new(variant))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// All fields of a struct, each with a stand-in.
struct Fields<E> {
    fields: std::slice::Iter<'static, &'static str>,
    choice: Choice,
    error: PhantomData<E>,
}

impl<'de, E: de::Error> MapAccess<'de> for Fields<E> {
    type Error = E;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, E> {
        let field = self.fields.next();
        field
            .map(|field| seed.deserialize(StrDeserializer::new(field)))
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, E> {
        seed.deserialize(StandIn::new(self.choice))
    }
}
