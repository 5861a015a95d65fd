use proptest::prelude::*;

use super::*;

#[test]
fn what_others_wrote_is_not_ours() {
    for text in [
        "",
        "NO_METADATA",
        "fanout2 partitions=1",
        "fanout1 partitions=x",
        "fanout1 partitions",
        "fanout1 partitions=1 ring=1 members=1 upto=5 away=C1",
        "fanout1 partitions=1 ring=1 members=1 upto=5 away=%4:5",
    ] {
        assert_eq!(Metadata::parse(text), None, "{text}");
    }
    let plain = Metadata {
        partitions: 3,
        ..Metadata::default()
    };
    assert_eq!(Metadata::parse("fanout1 partitions=3 more=x"), Some(plain));
}

#[test]
fn a_person_can_read_it() {
    let metadata = Metadata {
        partitions: 12,
        ring: 3,
        members: Some(0x8d),
        using: None,
        ahead: Some(Ahead {
            members: 0x8d,
            upto: 90_210,
            away: vec![("C 3".to_owned(), 5_000), ("C2".to_owned(), 4_711)],
            lanes: Vec::new(),
        }),
    };
    let text = "fanout1 partitions=12 ring=3 members=000000000000008d upto=90210 away=C2:4711,C%203:5000";
    assert_eq!(metadata.to_string(), text);
    let metadata = Metadata {
        ahead: None,
        ..metadata
    };
    assert_eq!(
        metadata.to_string(),
        "fanout1 partitions=12 ring=3 members=000000000000008d"
    );
}

#[test]
fn an_asset_that_waits_is_told_by_its_lane_and_to_older_forwarders_by_its_cluster() {
    let ahead = Ahead {
        members: 1,
        upto: 90,
        away: vec![("C3".to_owned(), 40)],
        lanes: vec![AwayLane {
            lane: 0xc0ffee,
            from: 20,
            cluster: "C2".to_owned(),
        }],
    };
    let metadata = Metadata {
        partitions: 1,
        ring: 1,
        members: Some(1),
        using: None,
        ahead: Some(ahead),
    };
    assert_eq!(
        metadata.to_string(),
        "fanout1 partitions=1 ring=1 members=0000000000000001 upto=90 away=C2:20,C3:40 beyond=90 except=C3:40 \
         lanes=C2:0000000000c0ffee:20"
    );
}

#[test]
fn the_ring_in_use_is_a_word_that_older_forwarders_pass_over() {
    let metadata = Metadata {
        partitions: 12,
        ring: 8,
        members: Some(0x8d),
        using: Some(7),
        ahead: None,
    };
    let text = "fanout1 partitions=12 ring=8 members=000000000000008d using=7";
    assert_eq!(metadata.to_string(), text);
    let older = text.strip_suffix(" using=7").unwrap();
    let read = Metadata {
        using: None,
        ..metadata
    };
    assert_eq!(Metadata::parse(older), Some(read), "nothing else is said by it");
    assert_eq!(Metadata::parse("fanout1 ring=8 using=x"), None);
}

#[test]
fn the_ring_in_use_has_room_in_the_longest_text() {
    let away = (0..1_000).map(|at| (format!("cluster-{at:04}"), i64::from(at)));
    let lanes = (0..100).map(|lane| AwayLane {
        lane,
        from: 5,
        cluster: format!("cluster-{lane:04}"),
    });
    for lanes in [Vec::new(), lanes.collect()] {
        let metadata = Metadata {
            partitions: u32::MAX,
            ring: u64::MAX,
            members: Some(u64::MAX),
            using: Some(u64::MAX),
            ahead: Some(Ahead {
                members: u64::MAX,
                upto: i64::MAX,
                away: away.clone().collect(),
                lanes,
            }),
        };
        let text = text_of(&metadata, Some("zVtKbJCZTACVYqLrv5wGBg"));
        assert!(text.len() <= MAX_LEN, "{}", text.len());
        assert_eq!(Metadata::parse(&text).unwrap().using, Some(u64::MAX));
    }
}

#[test]
fn the_topic_is_a_word_that_others_pass_over() {
    let metadata = Metadata {
        partitions: 12,
        ring: 3,
        ..Metadata::default()
    };
    let text = text_of(&metadata, Some("zVtKbJCZTACVYqLrv5wGBg"));
    assert_eq!(text, "fanout1 partitions=12 ring=3 topic=zVtKbJCZTACVYqLrv5wGBg");
    assert_eq!(topic_of(&text), Some("zVtKbJCZTACVYqLrv5wGBg"));
    assert_eq!(Metadata::parse(&text).as_ref(), Some(&metadata));
    assert_eq!(topic_of(&text_of(&metadata, None)), None);
    assert_eq!(topic_of("others topic=a"), None, "another consumer's text");
}

#[test]
fn what_does_not_fit_is_not_called_settled() {
    let away: Vec<_> = (0..1_000)
        .map(|at| (format!("cluster-{at:04}"), i64::from(at)))
        .collect();
    let metadata = Metadata {
        partitions: 1,
        ring: 1,
        members: Some(1),
        using: None,
        ahead: Some(Ahead {
            members: 1,
            upto: 1 << 40,
            away: away.clone(),
            lanes: Vec::new(),
        }),
    };
    let text = metadata.to_string();
    assert!(text.len() <= MAX_LEN, "{}", text.len());
    let read = Metadata::parse(&text).unwrap().ahead.unwrap();
    assert!(!read.away.is_empty());
    // Each cluster that is not named has its records behind what is called settled.
    for (name, from) in away {
        assert!(read.upto <= from || read.away.contains(&(name, from)));
    }
}

#[test]
fn a_cluster_is_away_only_before_what_is_called_settled() {
    // A class that began to be parked behind the first record to come would have no place for what is before.
    let text = "fanout1 partitions=1 ring=1 members=1 upto=5 away=C1:5,C2:4,C3:6";
    let ahead = Metadata::parse(text).unwrap().ahead.unwrap();
    assert_eq!((ahead.upto, &ahead.away), (5, &vec![("C2".to_owned(), 4)]));
    let ahead = Ahead {
        away: vec![("C1".to_owned(), 5), ("C2".to_owned(), 4)],
        ..ahead
    };
    let metadata = Metadata {
        partitions: 1,
        ring: 1,
        members: None,
        using: None,
        ahead: Some(ahead),
    };
    let text = "fanout1 partitions=1 ring=1 members=0000000000000001 upto=5 away=C2:4";
    assert_eq!(metadata.to_string(), text);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        partitions: u32,
        ring: u64,
        members: Option<u64>,
        using: Option<u64>,
        ahead in proptest::option::of((
            any::<u64>(),
            any::<i64>(),
            proptest::collection::btree_map(".{1,9}", any::<i64>(), 0..9),
            proptest::collection::btree_map(any::<u64>(), (any::<i64>(), ".{1,9}"), 0..99),
        )),
    ) {
        let ahead = ahead.map(|(members, upto, away, lanes)| {
            let lanes = lanes.into_iter().map(|(lane, (from, cluster))| AwayLane { lane, from, cluster });
            Ahead { members, upto, away: away.into_iter().collect(), lanes: lanes.collect() }.fit()
        });
        let members = ahead.as_ref().map(|ahead| ahead.members).or(members);
        let metadata = Metadata { partitions, ring, members, using, ahead };
        let text = metadata.to_string();
        prop_assert!(text.len() <= MAX_LEN + 100, "{}", text.len());
        prop_assert_eq!(Metadata::parse(&text), Some(metadata));
    }

    /// Against the definition: what an older forwarder reads, and what a newer one does, calls no record settled that is not.
    #[test]
    fn no_word_calls_a_record_settled_that_is_not(
        upto in 0_i64..100,
        away in proptest::collection::btree_map(0..6_u8, 0_i64..100, 0..4),
        lanes in proptest::collection::btree_map(0..200_u64, (0_i64..100, 0..6_u8), 0..120),
        name in ".{1,60}",
    ) {
        let cluster = |number: u8| format!("{name}{number}");
        let lanes_in = lanes.iter().map(|(lane, (from, owner))| AwayLane { lane: *lane, from: *from, cluster: cluster(*owner) });
        let ahead = Ahead {
            members: 1,
            upto,
            away: away.iter().map(|(owner, from)| (cluster(*owner), *from)).collect(),
            lanes: lanes_in.collect(),
        };
        let is_settled = |ahead: &Ahead, lane: u64, owner: &str, offset: i64| {
            if offset >= ahead.upto {
                return false;
            }
            if let Some(lane) = ahead.lanes.iter().find(|told| told.lane == lane) {
                return offset < lane.from;
            }
            ahead.away.iter().all(|(name, from)| name != owner || offset < *from)
        };
        let metadata = Metadata { partitions: 1, ring: 1, members: Some(1), using: None, ahead: Some(ahead.clone()) };
        let text = metadata.to_string();
        let older: Vec<&str> = text.split(' ').filter(|word| {
            !["beyond=", "except=", "lanes="].iter().any(|newer| word.starts_with(newer))
        }).collect();
        for text in [text.clone(), older.join(" ")] {
            let told = Metadata::parse(&text).unwrap().ahead.unwrap();
            for (lane, (_, owner)) in &lanes {
                for offset in 0..100 {
                    let (owner, lane) = (cluster(*owner), *lane);
                    prop_assert!(
                        !is_settled(&told, lane, &owner, offset) || is_settled(&ahead, lane, &owner, offset),
                        "{text}: {offset} of {lane:x}"
                    );
                }
            }
            // An asset that is no lane of these, of each cluster.
            for owner in 0..6 {
                for offset in 0..100 {
                    let owner = cluster(owner);
                    prop_assert!(!is_settled(&told, u64::MAX, &owner, offset) || is_settled(&ahead, u64::MAX, &owner, offset));
                }
            }
        }
    }

    #[test]
    fn any_text_is_harmless(text in ".*") {
        prop_assert!(Metadata::parse(&text).is_none() || text.starts_with(MARK));
    }
}
