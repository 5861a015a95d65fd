use rdkafka::error::RDKafkaErrorCode as Code;

use super::*;
use crate::intake::questions::{self, LEAST_SHARE};

const PATIENCE: Duration = Duration::from_secs(60);

fn topics() -> Inputs {
    Inputs::new(["a", "b", "c"])
}

/// Partition 0 of each topic.
fn partitions(inputs: &Inputs) -> Vec<PartitionId> {
    let partitions = inputs.iter().map(|(input, _)| PartitionId::new(input, 0).unwrap());
    partitions.collect()
}

fn failed(code: Code) -> Result<Begin, KafkaError> {
    Err(KafkaError::MetadataFetch(code))
}

/// Kafka answers for all of the partitions.
fn answered(input: Input) -> Result<Begin, KafkaError> {
    Ok(Begin {
        group_partitions: Some(1),
        ..Begin::untold(input, Vec::new())
    })
}

/// Asks, and returns which topics were asked about, in that order, with what came of it.
fn ask(
    turns: &mut Turns,
    inputs: &Inputs,
    patience: Duration,
    answer: impl Fn(&str) -> Option<Code>,
) -> (String, Result<Vec<Begin>, KafkaError>) {
    let mut asked = String::new();
    let begins = turns.ask(&partitions(inputs), patience, inputs, |input, ours, _| {
        let topic = inputs.topic(input);
        asked.push_str(topic);
        assert_eq!(ours, [PartitionId::new(input, 0).unwrap()]);
        answer(topic).map_or_else(|| answered(input), failed)
    });
    (asked, begins)
}

#[test]
fn a_topic_that_is_not_answered_for_keeps_no_other_waiting() {
    let inputs = topics();
    let hangs = |topic: &str| (topic == "a").then_some(Code::OperationTimedOut);
    let (asked, begins) = ask(&mut Turns::default(), &inputs, PATIENCE, hangs);
    assert_eq!(asked, "abc");
    let begins = begins.unwrap();
    assert_eq!(begins.len(), 3);
    let waits = |begin: &&Begin| begin.group_partitions.is_none();
    let waiting: Vec<_> = begins.iter().filter(waits).collect();
    let [waiting] = waiting[..] else {
        panic!("one topic waits")
    };
    assert_eq!(inputs.topic(waiting.input), "a");
    assert_eq!(waiting.unanswered, [PartitionId::new(waiting.input, 0).unwrap()]);
}

#[test]
fn it_is_an_error_if_no_topic_is_answered_for_or_we_are_out_of_the_group() {
    let inputs = topics();
    let ask = |answer: fn(&str) -> Option<Code>| ask(&mut Turns::default(), &inputs, PATIENCE, answer).1.err();
    assert!(ask(|_| Some(Code::OperationTimedOut)).is_some());
    let out = ask(|topic| (topic == "c").then_some(Code::UnknownMemberId));
    assert!(is_out_of_the_group(&out.unwrap()));
    assert!(ask(|_| Some(Code::UnknownTopic)).is_none());
    let single = Inputs::new(["a"]);
    let alone = turns_of(&single, Code::UnknownTopic);
    assert!(alone.is_err(), "with a single topic nothing else can go on");
}

fn turns_of(inputs: &Inputs, code: Code) -> Result<Vec<Begin>, KafkaError> {
    ask(&mut Turns::default(), inputs, PATIENCE, |_| Some(code)).1
}

#[test]
fn those_that_were_asked_about_in_vain_come_last() {
    let inputs = topics();
    let mut turns = Turns::default();
    let hang = |topic: &str| (topic != "c").then_some(Code::OperationTimedOut);
    for expected in ["abc", "cab", "cab"] {
        assert_eq!(ask(&mut turns, &inputs, PATIENCE, hang).0, expected);
    }
    assert_eq!(ask(&mut turns, &inputs, PATIENCE, |_| None).0, "cab");
    assert_eq!(ask(&mut turns, &inputs, PATIENCE, |_| None).0, "abc");
}

#[test]
fn a_topic_for_which_there_was_no_time_comes_first_the_next_time() {
    let inputs = topics();
    let mut turns = Turns::default();
    // Each question takes all of the time.
    let hang = |_: &str| {
        std::thread::sleep(Duration::from_millis(2));
        Some(Code::UnknownTopic)
    };
    for expected in ["a", "b", "c", "a"] {
        let (asked, begins) = ask(&mut turns, &inputs, Duration::from_millis(1), hang);
        assert_eq!(asked, expected);
        assert_eq!(begins.unwrap().len(), 3, "the others are sought");
    }
}

#[test]
fn each_topic_has_its_share_of_the_time_and_a_floor() {
    let second = Duration::from_secs(1);
    assert_eq!(questions::share(second * 10, 1), Some(second * 10));
    assert_eq!(questions::share(second * 10, 4), Some(second * 10 / 4));
    assert_eq!(questions::share(second, 32), Some(LEAST_SHARE));
    assert_eq!(questions::share(Duration::ZERO, 1), None);
}
