//! Which records are traced, and as part of which trace: W3C Trace Context.

/// The header that names a record's place in its trace.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it. It says nothing without a `traceparent`.
pub const TRACESTATE: &str = "tracestate";

/// The name of a trace.
pub type TraceId = [u8; 16];
/// The name of a span in its trace.
pub type SpanId = [u8; 8];

/// The bit that says that whoever wrote the header keeps the trace.
const SAMPLED: u8 = 1;
/// Records in a million: all.
const ALL: u64 = 1_000_000;
/// The digits of a trace's name that are random, by W3C and OpenTelemetry: the last 56 bits.
const RANDOM: u64 = 1 << 56;
/// How many followed traces in a row may go beyond the rate, for chance comes in clusters.
const BURST: u64 = 64;
/// A `traceparent` of version 00: `00-{32 digits}-{16 digits}-{2 digits}`.
const LENGTH: usize = 55;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span that caused what carries the header.
    pub span: SpanId,
    /// Whether the trace is kept.
    pub sampled: bool,
}

impl Parent {
    /// Reads a header's value. None: it is not one, and counts as absent. A version of the future is read as far as it is known.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, further) = text.split_at_checked(LENGTH)?;
        let [version, trace, span, flags] = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let [version] = digits::<1>(version)?;
        let fits = match version {
            0 => further.is_empty(),
            0xff => false,
            _ => further.first().is_none_or(|byte| *byte == b'-'),
        };
        let (trace, span, [flags]) = (digits(trace)?, digits(span)?, digits::<1>(flags)?);
        let named = trace != TraceId::default() && span != SpanId::default();
        (dashes && fits && named).then_some(Self {
            trace,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// The header's value.
    #[must_use]
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        write(&[0], &mut text[..2]);
        write(&self.trace, &mut text[3..35]);
        write(&self.span, &mut text[36..52]);
        write(&[u8::from(self.sampled)], &mut text[53..]);
        text
    }
}

/// A record that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The trace.
    pub trace: TraceId,
    /// The span that wrote the record to Kafka; none: the trace begins here.
    pub parent: Option<SpanId>,
    /// Our span of the record's whole way.
    pub way: SpanId,
    /// Our span of its publishing, which whoever receives the message continues.
    pub publish: SpanId,
}

impl Sampled {
    /// What the message says.
    #[must_use]
    pub const fn message(&self) -> Parent {
        Parent {
            trace: self.trace,
            span: self.publish,
            sampled: true,
        }
    }

    /// Whether a header of the record is not carried on: its place is taken, or it belongs to a `traceparent` that was none.
    #[must_use]
    pub fn replaces(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(TRACEPARENT) || self.parent.is_none() && name.eq_ignore_ascii_case(TRACESTATE)
    }
}

/// Says which records are traced.
#[derive(Clone, Debug)]
pub struct Sampler {
    per_million: u64,
    /// What followed traces may still cost, in millionths of a record. Each record that brings a trace adds its share.
    credit: u64,
    state: u64,
}

impl Sampler {
    /// Traces so many records in a million: of those that bring no trace it begins one, of those that bring a kept one it follows
    /// it. The seed must differ between processes: names are made of it.
    #[must_use]
    pub const fn new(per_million: u32, seed: u64) -> Self {
        Self {
            per_million: per_million as u64,
            credit: BURST * ALL,
            state: seed,
        }
    }

    /// Whether a record with these headers is traced. Who began a trace without keeping it has decided for all of it. Who keeps
    /// one has not decided what we spend on it: see `follows`.
    pub fn sample<'h>(&mut self, headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>) -> Option<Sampled> {
        let mut of_trace = headers.filter(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT));
        let parent = match (of_trace.next(), of_trace.next()) {
            (Some((_, Some(value))), None) => Parent::parse(value),
            // Several are as good as none.
            _ => None,
        };
        match parent {
            Some(parent) => self
                .follows(&parent)
                .then(|| self.span(parent.trace, Some(parent.span))),
            None => {
                let chosen = self.per_million > self.next() % ALL;
                chosen.then(|| {
                    let trace = self.trace_id();
                    self.span(trace, None)
                })
            }
        }
    }

    /// Whether a trace that somebody else began is followed. Its name decides, as OpenTelemetry's samplers do it, so that all who
    /// sample at the same rate keep the same traces, each whole. Names that are not random, such as one for all records, must not
    /// lift the rate, so what is followed is also counted.
    fn follows(&mut self, parent: &Parent) -> bool {
        self.credit = (self.credit + self.per_million).min(BURST * ALL);
        let random = parent.trace[8..]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
            % RANDOM;
        let dropped = ALL.saturating_sub(self.per_million);
        let kept = parent.sampled && u128::from(random) * u128::from(ALL) >= u128::from(RANDOM) * u128::from(dropped);
        if !kept || self.credit < ALL {
            return false;
        }
        self.credit -= ALL;
        true
    }

    /// A new name.
    pub fn span_id(&mut self) -> SpanId {
        // Zero is no name.
        self.next().max(1).to_be_bytes()
    }

    fn span(&mut self, trace: TraceId, parent: Option<SpanId>) -> Sampled {
        Sampled {
            trace,
            parent,
            way: self.span_id(),
            publish: self.span_id(),
        }
    }

    fn trace_id(&mut self) -> TraceId {
        let mut trace = TraceId::default();
        trace[..8].copy_from_slice(&self.span_id());
        trace[8..].copy_from_slice(&self.span_id());
        trace
    }

    /// SplitMix64: every number once in 2^64, so no two of a process are alike.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Lower-case hexadecimal digits; upper-case ones are none here.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn write(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sample(sampler: &mut Sampler, headers: &[(&str, &[u8])]) -> Option<Sampled> {
        sampler.sample(headers.iter().map(|(name, value)| (*name, Some(*value))))
    }

    #[test]
    fn a_parent_is_read_and_written_as_the_standard_has_it() {
        let parent = Parent::parse(TEXT).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.trace[..2], [0x4b, 0xf9]);
        assert_eq!(parent.span[6..], [0x02, 0xb7]);
        assert_eq!(parent.text(), TEXT);
        let unsampled = Parent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02");
        assert!(!unsampled.unwrap().sampled);
        assert!(Parent::parse(b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }

    #[test]
    fn what_is_no_parent_counts_as_absent() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
            let sampled = sample(&mut Sampler::new(1_000_000, 1), &[("traceparent", text.as_bytes())]).unwrap();
            assert_eq!(sampled.parent, None);
            assert!(sampled.replaces("tracestate"), "it belongs to what was no parent");
        }
        let twice = sample(&mut Sampler::new(0, 1), &[("traceparent", TEXT), ("traceparent", TEXT)]);
        assert_eq!(twice, None);
    }

    #[test]
    fn who_began_a_trace_has_decided() {
        let unsampled = [TEXT[..54].to_vec(), b"0".to_vec()].concat();
        assert_eq!(
            sample(&mut Sampler::new(1_000_000, 1), &[("traceparent", &unsampled)]),
            None
        );
        let sampled = sample(&mut Sampler::new(1_000_000, 1), &[("a", b"b"), ("TraceParent", TEXT)]).unwrap();
        assert_eq!(sampled.trace, Parent::parse(TEXT).unwrap().trace);
        assert_eq!(sampled.parent, Some(Parent::parse(TEXT).unwrap().span));
        assert_eq!(sampled.message().span, sampled.publish);
        assert!(sampled.replaces("TRACEPARENT") && !sampled.replaces("tracestate") && !sampled.replaces("a"));
    }

    #[test]
    fn as_many_are_traced_as_declared_and_each_by_names_of_its_own() {
        let mut sampler = Sampler::new(10_000, 7);
        let sampled: Vec<_> = (0..100_000).filter_map(|_| sample(&mut sampler, &[])).collect();
        assert!((800..1_200).contains(&sampled.len()), "{}", sampled.len());
        let names: std::collections::HashSet<_> = sampled.iter().flat_map(|it| [it.way, it.publish]).collect();
        assert_eq!(names.len(), sampled.len() * 2);
        assert_eq!(sample(&mut Sampler::new(0, 7), &[]), None);
    }

    /// The header of a trace with this name, which is kept.
    fn kept(trace: TraceId) -> [u8; LENGTH] {
        let span = [1; 8];
        let sampled = true;
        Parent { trace, span, sampled }.text()
    }

    #[test]
    fn a_producer_that_keeps_every_trace_does_not_lift_the_rate() {
        for per_million in [0, 10_000, 500_000, 1_000_000] {
            let mut names = Sampler::new(0, 3);
            let mut sampler = Sampler::new(per_million, 7);
            let records = 50_000;
            let followed = (0..records)
                .filter(|_| sample(&mut sampler, &[("traceparent", &kept(names.trace_id()))]).is_some())
                .count() as u64;
            let share = u64::from(per_million) * records / 1_000_000;
            assert!(followed <= share + BURST, "{followed} at {per_million}");
            assert!(followed >= share * 8 / 10, "{followed} at {per_million}");
        }
    }

    #[test]
    fn a_trace_is_followed_whole_or_not_at_all_and_by_all_alike() {
        let mut names = Sampler::new(0, 3);
        for _ in 0..1_000 {
            let header = kept(names.trace_id());
            // Of their own random numbers nothing depends.
            let followed: Vec<bool> = (0..4)
                .map(|seed| sample(&mut Sampler::new(300_000, seed), &[("traceparent", &header)]).is_some())
                .collect();
            assert!(followed.iter().all(|one| *one == followed[0]), "{followed:?}");
            // Who keeps more keeps this one too.
            let more = sample(&mut Sampler::new(400_000, 1), &[("traceparent", &header)]).is_some();
            assert!(more || !followed[0]);
        }
    }

    #[test]
    fn one_name_for_all_records_does_not_lift_the_rate() {
        let mut sampler = Sampler::new(1_000, 7);
        let header = kept([0xff; 16]);
        let followed = (0..200_000)
            .filter(|_| sample(&mut sampler, &[("traceparent", &header)]).is_some())
            .count() as u64;
        assert!((200..=200 + BURST).contains(&followed), "{followed}");
    }
}
