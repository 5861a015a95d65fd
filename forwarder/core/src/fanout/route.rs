//! From a Kafka record to a NATS message and the cluster that it belongs to.
//!
//! Nothing here is allocated per record: a [`Draft`] keeps its buffers, and the [`Router`] its caches.

use std::sync::Arc;

use crate::fanout::clock::{self, TimeText};
use crate::fanout::headers::Block;
use crate::fanout::payload::{self, Stamps};
use crate::fanout::ring::{OwnerCache, Place, Ring};
use crate::record::{Invalid, Timestamp};
use crate::subject::Template;

pub use crate::record::Origin;

/// How many assets' owners are remembered, at 64 bytes each: 4 MiB.
const OWNER_SLOTS: usize = 1 << 16;

/// A record as it comes in, except for its headers.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The asset.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// When Kafka says it was made.
    pub timestamp: Option<Timestamp>,
    /// Where it was read.
    pub origin: Origin<'a>,
}

/// A message in the making; its buffers are used again and again.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The subject: UTF-8, without a byte that would end it in a control line.
    pub subject: Vec<u8>,
    /// A complete NATS header block, or empty: then the message has no headers.
    pub headers: Vec<u8>,
    /// The payload.
    pub body: Vec<u8>,
    id: Vec<u8>,
}

/// What messages carry besides the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// `Nats-Msg-Id`, by which JetStream drops repeats.
    pub message_id: bool,
    /// `Kafka-Topic`, `Kafka-Partition`, `Kafka-Offset`, `Kafka-Timestamp` and `Kafka-Timestamp-Type`.
    pub origin_headers: bool,
}

/// Makes messages of records.
#[derive(Clone, Debug)]
pub struct Router {
    owners: OwnerCache,
    template: Template,
    options: RouteOptions,
    now: TimeText,
    kafka: TimeText,
}

impl Router {
    /// A router for `ring`, which several routers may share.
    #[must_use]
    pub fn new(ring: impl Into<Arc<Ring>>, template: Template, options: RouteOptions) -> Self {
        Self {
            owners: OwnerCache::new(ring.into(), OWNER_SLOTS),
            template,
            options,
            now: TimeText::default(),
            kafka: TimeText::default(),
        }
    }

    /// The ring in use.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        self.owners.ring()
    }

    /// Uses another ring from the next record on.
    pub fn set_ring(&mut self, ring: impl Into<Arc<Ring>>) {
        self.owners = OwnerCache::new(ring.into(), OWNER_SLOTS);
    }

    /// Owner and lane of a key, as [`Router::route`] finds them.
    pub fn place(&mut self, key: &[u8]) -> Place {
        self.owners.place(key)
    }

    /// Whose record it is.
    ///
    /// # Errors
    /// A record without a key that is text.
    pub fn asset(key: Option<&[u8]>) -> Result<&[u8], Invalid> {
        let key = key.ok_or(Invalid::NoKey)?;
        if key.is_empty() || std::str::from_utf8(key).is_err() {
            return Err(Invalid::BadKey);
        }
        Ok(key)
    }

    /// Writes a record's message to `draft` and says where it goes. After an error, what `draft` holds is unspecified.
    ///
    /// The first fault counts, in this order: no key, a bad key, no value, those of [`payload::edit`], the subject.
    /// A Kafka timestamp that has no text of four-digit years ([`clock::WRITABLE`]) is none to the payload: a producer
    /// that counts microseconds gets no date of the year 57,000, and none that is made up. Headers carry it as it is.
    pub fn route<'h>(
        &mut self,
        incoming: &Incoming<'_>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
        now_millis: i64,
        draft: &mut Draft,
    ) -> Result<Place, Invalid> {
        self.write(incoming, headers, now_millis, draft)?;
        Ok(self.place(Self::asset(incoming.key)?))
    }

    /// As [`Router::route`], for whoever knows already where it goes.
    ///
    /// # Errors
    /// See there.
    pub fn write<'h>(
        &mut self,
        incoming: &Incoming<'_>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
        now_millis: i64,
        draft: &mut Draft,
    ) -> Result<(), Invalid> {
        let Incoming {
            key,
            value,
            timestamp,
            ref origin,
        } = *incoming;
        let key = Self::asset(key)?;
        let value = value.ok_or(Invalid::NullValue)?;

        let writable = timestamp.filter(|timestamp| clock::WRITABLE.contains(&timestamp.millis));
        let stamps = Stamps {
            forwarder: self.now.format(now_millis),
            kafka: writable.map(|Timestamp { millis, kind }| (self.kafka.format(millis), kind.as_str())),
        };
        payload::edit(value, &stamps, &mut draft.body, &mut draft.id)?;
        self.template.render(key, &draft.id, &mut draft.subject)?;

        let mut block = if self.options.message_id {
            Block::with_message_id(&mut draft.headers, origin, timestamp)
        } else {
            Block::new(&mut draft.headers)
        };
        if self.options.origin_headers {
            block.origin(origin, timestamp);
        }
        for (name, value) in headers {
            block.append(name, value);
        }
        block.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
