//! Tells the model one story, lets a real engine live another one, and expects it to notice.

use std::sync::Arc;
use std::time::Duration;

use everlog::Journal;
use tempfile::TempDir;

use super::super::super::entries::Random;
use super::super::brief::Settings;
use super::super::stages::Stages;
use super::super::world::World;
use super::*;

/// Two writers, and a machine that does what it is told by the story and not by the plan.
struct Story<'a> {
    model: Model<'a>,
    plan: Plan,
    entries: &'a Entries,
    settings: Settings,
    /// `None` while nobody has it open.
    world: Option<World>,
    dir: TempDir,
}

impl<'a> Story<'a> {
    /// The first step of both writers is of this kind.
    fn new(how: How, entries: &'a Entries) -> Story<'a> {
        let plan = |seed| Plan::new(seed, 2, 5, entries);
        let fits = |plan: &Plan| {
            let step = plan.step(0, 0);
            step.how == how && step.count >= how_many(how) && plan.step(1, 0).how == How::Alone
        };
        let plan = (0..10_000).map(plan).find(fits).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            segment_bytes: 1 << 20,
            retain: 1,
            checkpoint_entries: None,
            restart_within: Duration::from_secs(60),
        };
        Journal::create(dir.path(), settings.journal())
            .and_then(Journal::close)
            .unwrap();
        let mut story = Story {
            model: Model::new(plan, entries),
            plan,
            entries,
            settings,
            world: None,
            dir,
        };
        story.open(false);
        story
    }

    fn open(&mut self, forgets: bool) {
        let stages = Arc::new(Stages::default());
        let world = World::open(self.dir.path(), &self.settings, &stages, forgets).unwrap();
        self.world = Some(world);
    }

    /// Closes the machine and opens it again.
    fn restart(&mut self, forgets: bool) {
        let world = self.world.take().unwrap();
        world.engine.close().unwrap();
        drop(world.store);
        world.journal.close().unwrap();
        self.open(forgets);
    }

    fn checkpoint(&self) {
        self.world.as_ref().unwrap().engine.checkpoint().unwrap();
    }

    fn execute_bytes(&self, bytes: &[u8]) {
        self.world.as_ref().unwrap().engine.execute(bytes).unwrap();
    }

    fn execute(&self, writer: u32, number: u64) {
        self.execute_bytes(
            &self
                .plan
                .command(writer, number, self.entries)
                .encode(self.entries),
        );
    }

    fn issue(&mut self, writer: u32, number: u64) {
        self.model.hear(&Record::Issue { writer, number }).unwrap();
    }

    fn ack(&mut self, writer: u32, number: u64, index: u64) {
        let ack = Record::Ack {
            writer,
            number,
            index,
        };
        self.model.hear(&ack).unwrap();
    }

    /// What the model says of what the machine says of itself.
    fn judge(&mut self) -> Result<Settled, Vec<Kind>> {
        let records = self.world.as_ref().unwrap().state().unwrap();
        self.judge_of(&records)
    }

    fn judge_of(&mut self, records: &[Record]) -> Result<Settled, Vec<Kind>> {
        let mut settled = None;
        for record in records {
            match self.model.hear(record) {
                Ok(heard) => settled = heard.or(settled),
                Err(bad) => return Err(bad.iter().map(|violation| violation.kind).collect()),
            }
        }
        Ok(settled.unwrap())
    }
}

/// Batches of the stories have so many commands at least.
fn how_many(how: How) -> u64 {
    match how {
        How::Alone => 1,
        How::Submitted | How::Batch => 3,
    }
}

fn entries() -> Entries {
    Entries::made_up(&mut Random::new(1))
}

#[test]
fn what_was_acknowledged_and_is_there_is_right_and_stays_so() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    let mut index = 0;
    for turn in 0..20 {
        let first = story.model.next()[0];
        story.issue(0, first);
        for number in first..first + story.plan.step(0, first).count {
            story.execute(0, number);
            story.ack(0, number, index);
            index += 1;
        }
        if turn == 10 {
            story.checkpoint();
        }
        story.restart(false);
        assert_eq!(story.judge(), Ok(Settled::default()));
    }
    assert_eq!(story.model.applied(), index);
    assert!((1..=5).contains(&story.model.keys()));
}

#[test]
fn a_command_in_flight_may_stand_or_not_and_must_not_come_back() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.issue(1, 0);
    story.execute(1, 0);
    let settled = Settled {
        lost: 0,
        survived: 1,
        vanished: 1,
    };
    assert_eq!(story.judge(), Ok(settled));
    assert_eq!(story.judge(), Ok(Settled::default()), "nothing is in flight");
    story.execute(0, 0);
    assert_eq!(story.judge(), Err(vec![Kind::Invented]));
}

#[test]
fn an_acknowledged_command_that_is_gone_is_lost() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.ack(0, 0, 0);
    assert_eq!(story.judge(), Err(vec![Kind::Lost]));
}

#[test]
fn what_an_earlier_restart_had_is_not_lost_later() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.execute(0, 0);
    story.judge().unwrap();
    let stated = Record::Stated {
        applied: 0,
        digest: 0,
    };
    assert_eq!(story.judge_of(&[stated]), Err(vec![Kind::Lost]));
}

#[test]
fn commands_in_another_order_than_acknowledged_are_changed() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.issue(1, 0);
    story.ack(0, 0, 0);
    story.ack(1, 0, 1);
    story.execute(1, 0);
    story.execute(0, 0);
    assert_eq!(story.judge(), Err(vec![Kind::Changed]));
}

#[test]
fn a_command_with_another_value_is_changed() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.ack(0, 0, 0);
    let mut bytes = story.plan.command(0, 0, &entries).encode(&entries);
    bytes.push(b'x');
    story.execute_bytes(&bytes);
    assert_eq!(story.judge(), Err(vec![Kind::Changed]));
}

#[test]
fn a_command_that_nobody_issued_is_invented() {
    let entries = entries();
    for bytes in [&b"no command at all"[..], &[0; 40]] {
        let mut story = Story::new(How::Alone, &entries);
        story.issue(0, 0);
        story.execute(0, 0);
        story.ack(0, 0, 0);
        story.execute_bytes(bytes);
        assert_eq!(story.judge(), Err(vec![Kind::Invented]));
    }
}

#[test]
fn a_command_that_was_applied_twice_is_invented() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.execute(0, 0);
    story.execute(0, 0);
    story.ack(0, 0, 0);
    assert_eq!(story.judge(), Err(vec![Kind::Invented]));
}

#[test]
fn of_submitted_commands_the_first_ones_stand() {
    let entries = entries();
    let mut story = Story::new(How::Submitted, &entries);
    story.issue(0, 0);
    story.execute(0, 0);
    story.execute(0, 1);
    assert_eq!(story.judge().unwrap().survived, 2);
    for numbers in [[1, 2], [1, 0]] {
        let mut story = Story::new(How::Submitted, &entries);
        story.issue(0, 0);
        numbers.iter().for_each(|number| story.execute(0, *number));
        assert_eq!(story.judge(), Err(vec![Kind::Changed]), "{numbers:?}");
    }
}

#[test]
fn a_batch_stands_whole_and_in_a_row_or_not_at_all() {
    let entries = entries();
    let mut story = Story::new(How::Batch, &entries);
    let count = story.plan.step(0, 0).count;
    story.issue(0, 0);
    (0..count).for_each(|number| story.execute(0, number));
    assert_eq!(story.judge().unwrap().survived, count);

    let mut story = Story::new(How::Batch, &entries);
    story.issue(0, 0);
    (0..count - 1).for_each(|number| story.execute(0, number));
    assert_eq!(story.judge(), Err(vec![Kind::Changed]), "in part");

    let mut story = Story::new(How::Batch, &entries);
    story.issue(0, 0);
    story.issue(1, 0);
    story.execute(0, 0);
    story.execute(1, 0);
    (1..count).for_each(|number| story.execute(0, number));
    assert_eq!(story.judge(), Err(vec![Kind::Changed]), "not in a row");

    let mut story = Story::new(How::Batch, &entries);
    story.issue(0, 0);
    story.ack(0, 0, 0);
    let apart = Record::Ack {
        writer: 0,
        number: 1,
        index: 2,
    };
    assert_eq!(story.model.hear(&apart).unwrap_err()[0].kind, Kind::Changed);
}

#[test]
fn a_machine_that_forgets_a_key_is_noticed() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    let is_put = |number: &u64| story.plan.command(0, *number, &entries).line.is_some();
    let put = (0..100).find(is_put).unwrap();
    // As if the writer had come so far before.
    story.model.writers[0].next = put;
    story.issue(0, put);
    story.execute(0, put);
    story.ack(0, put, 0);
    story.checkpoint();
    story.restart(true);
    assert_eq!(story.judge(), Err(vec![Kind::Changed]));
}

#[test]
fn a_digest_that_is_wrong_in_one_bit_is_noticed() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    let stated = |digest| Record::Stated { applied: 0, digest };
    let empty = story.model.digest();
    assert_eq!(story.judge_of(&[stated(empty)]), Ok(Settled::default()));
    assert_eq!(story.judge_of(&[stated(empty ^ 1)]), Err(vec![Kind::Changed]));
}

#[test]
fn an_index_is_given_once() {
    let entries = entries();
    let mut story = Story::new(How::Alone, &entries);
    story.issue(0, 0);
    story.issue(1, 0);
    story.ack(0, 0, 0);
    let again = Record::Ack {
        writer: 1,
        number: 0,
        index: 0,
    };
    assert_eq!(story.model.hear(&again).unwrap_err()[0].kind, Kind::Changed);
}

#[test]
fn reports_out_of_order_are_refused() {
    let entries = entries();
    let issue = |number| Record::Issue { writer: 0, number };
    let ack = |writer, number| Record::Ack {
        writer,
        number,
        index: 0,
    };
    for records in [
        &[issue(1)][..],
        &[issue(0), issue(0)],
        &[issue(0), issue(1)],
        &[ack(0, 0)],
        &[issue(0), ack(1, 0)],
        &[issue(0), ack(2, 0)],
        &[issue(0), ack(0, 1)],
    ] {
        let mut story = Story::new(How::Alone, &entries);
        let heard: Vec<_> = records.iter().map(|record| story.model.hear(record)).collect();
        let (last, before) = heard.split_last().unwrap();
        assert!(
            before.iter().all(Result::is_ok) && last.is_err(),
            "{records:?}: {heard:?}"
        );
    }
}
