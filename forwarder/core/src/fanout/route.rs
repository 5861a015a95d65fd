//! From a Kafka record to a NATS message and the cluster that it belongs to: the [program](crate::program) of the fan-out.
//!
//! Nothing here is allocated per record: a [`Draft`] keeps its buffers, and the [`Router`] its caches.

use std::sync::Arc;

use crate::fanout::clock::{self, TimeText};
use crate::fanout::headers::Block;
use crate::fanout::payload::{self, Stamps};
use crate::fanout::ring::{OwnerCache, Ring};
use crate::program::{Draft, Incoming, Place, Program};
use crate::record::{Header, Invalid, Timestamp};
use crate::subject::Template;

/// How many assets' owners are remembered, at 64 bytes each: 4 MiB.
const OWNER_SLOTS: usize = 1 << 16;

/// What messages carry besides the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteOptions {
    /// `Nats-Msg-Id`, by which JetStream drops repeats.
    pub message_id: bool,
    /// `Kafka-Topic`, `Kafka-Partition`, `Kafka-Offset`, `Kafka-Timestamp` and `Kafka-Timestamp-Type`.
    pub origin_headers: bool,
}

/// Makes messages of records. The owner of an asset is a member of a hash ring.
#[derive(Clone, Debug)]
pub struct Router {
    owners: OwnerCache,
    template: Template,
    options: RouteOptions,
    now: TimeText,
    kafka: TimeText,
    /// Scratch: the ID in the payload.
    id: Vec<u8>,
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
            id: Vec::new(),
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

    /// Refuses records whose subject is this one or below it, from the next record on: see [`Template::keep_off`].
    pub fn keep_off(&mut self, subject: &str) {
        self.template.keep_off(subject);
    }

    /// Writes a record's message to `draft`, as [`Program::write`] does, and says where it goes.
    ///
    /// The first fault counts, in this order: no key, a bad key, no value, those of [`payload::edit`], the subject.
    /// A Kafka timestamp that has no text of four-digit years ([`clock::WRITABLE`]) is none to the payload: a producer
    /// that counts microseconds gets no date of the year 57,000, and none that is made up. Headers carry it as it is.
    pub fn route<'h>(
        &mut self,
        incoming: &Incoming<'_>,
        headers: impl Iterator<Item = Header<'h>>,
        now_millis: i64,
        draft: &mut Draft,
    ) -> Result<Place, Invalid> {
        self.write(incoming, headers, now_millis, draft)?;
        Ok(self.place(Self::asset(incoming.key)?))
    }
}

impl Program for Router {
    fn asset(key: Option<&[u8]>) -> Result<&[u8], Invalid> {
        let key = key.ok_or(Invalid::NoKey)?;
        if key.is_empty() || std::str::from_utf8(key).is_err() {
            return Err(Invalid::BadKey);
        }
        Ok(key)
    }

    fn place(&mut self, asset: &[u8]) -> Place {
        self.owners.place(asset)
    }

    /// The first fault counts, as [`Router::route`] says.
    fn write<'h>(
        &mut self,
        incoming: &Incoming<'_>,
        headers: impl Iterator<Item = Header<'h>>,
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
        payload::edit(value, &stamps, &mut draft.body, &mut self.id)?;
        self.template.render(key, &self.id, &mut draft.subject)?;

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
