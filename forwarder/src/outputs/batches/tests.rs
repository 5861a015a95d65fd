use std::sync::Arc;

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::{Input, PartitionId};

use super::*;

/// For what happens at once; a longer wait is a failure.
const SOON: Duration = Duration::from_secs(10);

struct Line(Origin);

impl Entry for Line {
    fn origin(&self) -> &Origin {
        &self.0
    }

    fn weight(&self) -> usize {
        7
    }
}

fn partition(number: i32) -> PartitionId {
    PartitionId::new(Input::FIRST, number).unwrap()
}

fn line(number: i32, offset: i64) -> Line {
    let tag = Tag {
        partition: partition(number),
        epoch: 1,
        offset,
        sequence: 0,
    };
    Line(Origin::new(tag, None))
}

/// Fails so often before it writes anything, and tells each time how much it was given.
struct Faulty {
    failures: usize,
    given: blocking::Sender<usize>,
}

impl Writer for Faulty {
    type Entry = Line;
    const RECORDS: &'static str = "lines";

    async fn write(&mut self, batch: &mut Vec<Line>) -> Result<Vec<Line>, WriteFailed<Line>> {
        self.given.send(batch.len()).unwrap();
        if self.failures == 0 {
            return Ok(std::mem::take(batch));
        }
        self.failures -= 1;
        Err(WriteFailed {
            written: Vec::new(),
            reason: "asked to by a test".to_owned(),
        })
    }
}

struct Rig {
    commands: mpsc::UnboundedSender<Command<Line>>,
    receipts: blocking::Receiver<Receipts>,
    given: blocking::Receiver<usize>,
    output: Batches<Faulty>,
}

fn rig(failures: usize) -> Rig {
    let (given_in, given) = blocking::channel();
    let (commands, commands_out) = mpsc::unbounded_channel();
    let (receipts_in, receipts) = blocking::channel();
    let writer = Faulty {
        failures,
        given: given_in,
    };
    Rig {
        commands,
        receipts,
        given,
        output: Batches::new(3, writer, commands_out, receipts_in),
    }
}

/// The offsets of each kind of receipt.
fn told(receipts: &blocking::Receiver<Receipts>) -> (Vec<i64>, Vec<i64>) {
    let (mut confirmed, mut dropped) = (Vec::new(), Vec::new());
    for told in receipts.try_iter() {
        assert_eq!(told.output, 3);
        for receipt in told.receipts {
            assert_eq!(receipt.weight, 7);
            match receipt.fate {
                Fate::Confirmed => confirmed.push(receipt.tag.offset),
                Fate::Dropped => dropped.push(receipt.tag.offset),
                fate => panic!("{fate:?}"),
            }
        }
    }
    (confirmed, dropped)
}

#[tokio::test]
async fn what_comes_together_is_written_in_batches_and_confirmed_in_order() {
    let Rig {
        commands,
        receipts,
        given,
        output,
    } = rig(0);
    for offset in 0..300 {
        commands.send(Command::Deliver(vec![line(0, offset)])).unwrap();
    }
    commands.send(Command::Recall(vec![1])).unwrap();
    commands.send(Command::Open(vec![1])).unwrap();
    drop(commands);
    tokio::time::timeout(SOON, output.run()).await.unwrap();
    assert_eq!(given.try_iter().collect::<Vec<_>>(), [BATCH, 300 - BATCH]);
    assert_eq!(told(&receipts), ((0..300).collect(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_leaves_the_batch_that_failed_and_what_waits_behind_it() {
    let Rig {
        commands,
        receipts,
        given,
        output,
    } = rig(1);
    commands
        .send(Command::Deliver(vec![line(0, 1), line(1, 2), line(0, 3)]))
        .unwrap();
    let running = tokio::spawn(output.run());
    assert_eq!(given.recv_timeout(SOON), Ok(3));
    let (done, answer) = blocking::channel();
    commands.send(Command::Deliver(vec![line(1, 4), line(0, 5)])).unwrap();
    commands
        .send(Command::Abandon {
            assignments: Arc::from([(partition(0), 1)]),
            done,
        })
        .unwrap();
    drop(commands);
    tokio::time::timeout(SOON, running).await.unwrap().unwrap();
    assert_eq!(answer.try_recv(), Err(blocking::TryRecvError::Disconnected));
    assert_eq!(told(&receipts), (vec![2, 4], vec![1, 3, 5]));
    assert_eq!(given.try_iter().collect::<Vec<_>>(), [1, 1]);
}
