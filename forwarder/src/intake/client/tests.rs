use std::time::Instant;

use rdkafka::error::RDKafkaErrorCode;

use super::*;

fn client(further: &str) -> Client {
    let config = format!(
        "
source: {{connection: {{bootstrapServers: ['127.0.0.1:1']}}, topic: t, furtherTopics: [{further}], group: g}}
ring: {{epoch: 1, clusters: [{{name: C1, servers: ['nats://127.0.0.1:1']}}]}}
"
    );
    Client::new(Arc::new(Checked::from_yaml(&config).unwrap())).unwrap()
}

#[test]
fn a_refused_topic_is_asked_about_later_and_within_a_bound() {
    let unknown = KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition);
    let mut client = client("u, v");
    client.note_error(&KafkaError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut));
    assert!(!client.misses_topic);
    client.note_error(&unknown);
    assert!(client.misses_topic);
    let asked_at = Instant::now();
    client.report_missing_topics();
    assert!(asked_at.elapsed() < MISSING_TIMEOUT * 2, "{:?}", asked_at.elapsed());
    assert!(!client.misses_topic, "asked once");
}

#[test]
fn nobody_asks_which_topic_is_missing_where_there_is_one() {
    let mut client = client("");
    client.note_error(&KafkaError::MessageConsumption(
        RDKafkaErrorCode::UnknownTopicOrPartition,
    ));
    assert!(!client.misses_topic);
}
