//! Tells the model one story, puts another one on disk, and expects it to notice.

use everlog::{Config, Journal, LogKey};

use super::*;

const LINES: &str = "line 0\nline 1\nline 2\nline 3\n";

/// Two writers on one log; writer w issues lines w, w + 2, w, ...
struct Story {
    model: Model,
    journal: Journal,
    entries: Entries,
    tally: Tally,
    _root: tempfile::TempDir,
}

impl Story {
    fn new() -> Story {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("lines");
        std::fs::write(&file, LINES).unwrap();
        let journal = Journal::create(root.path().join("j"), Config::new().segment_bytes(1 << 20)).unwrap();
        journal.create_log(LogKey(0), 0).unwrap();
        Story {
            model: Model::new(2),
            journal,
            entries: Entries::of_file(&file).unwrap(),
            tally: Tally::default(),
            _root: root,
        }
    }

    fn on_disk(&self, line: &str) {
        self.journal.log(LogKey(0)).unwrap().append(line).unwrap();
    }

    fn issue(&mut self, writer: u32, number: u64) {
        self.hear(Record::Issue { writer, number }).unwrap();
    }

    fn ack(&mut self, writer: u32, number: u64, index: u64) {
        self.hear(Record::Ack {
            writer,
            number,
            index,
        })
        .unwrap();
    }

    fn hear(&mut self, record: Record) -> Result<(), Violation> {
        self.model.hear(&[record], &mut self.tally)
    }

    fn check(&mut self) -> Vec<Kind> {
        let log = self.journal.log(LogKey(0)).unwrap();
        let mut bad = Vec::new();
        self.model
            .check(&log, &self.entries, true, &mut self.tally, &mut bad)
            .unwrap();
        bad.iter().map(|violation| violation.kind).collect()
    }
}

#[test]
fn what_was_acknowledged_and_is_there_is_right() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.issue(1, 0);
    story.ack(1, 0, 0);
    story.issue(1, 1);
    story.ack(0, 0, 1);
    for line in ["line 1", "line 0", "line 3"] {
        story.on_disk(line);
    }
    assert_eq!(story.check(), []);
    assert_eq!((story.tally.acknowledged, story.tally.survived), (2, 1));
    assert_eq!(story.check(), [], "and it stays right");
}

#[test]
fn an_acknowledged_entry_that_is_gone_is_lost() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.ack(0, 0, 0);
    assert_eq!(story.check(), [Kind::Lost]);
    assert_eq!(story.tally.lost, 1);
}

#[test]
fn an_acknowledged_entry_with_other_bytes_is_changed() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.ack(0, 0, 0);
    story.on_disk("line 2");
    assert_eq!(story.check(), [Kind::Changed]);
}

#[test]
fn an_entry_that_nobody_issued_is_invented() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.on_disk("line 2");
    assert_eq!(story.check(), [Kind::Invented]);
}

#[test]
fn an_entry_may_survive_once() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.on_disk("line 0");
    story.on_disk("line 0");
    assert_eq!(story.check(), [Kind::Invented]);
}

#[test]
fn an_entry_that_had_vanished_must_not_come_back() {
    let mut story = Story::new();
    story.issue(0, 0);
    assert_eq!(story.check(), []);
    assert_eq!(story.tally.vanished, 1);
    story.on_disk("line 0");
    assert_eq!(story.check(), [Kind::Invented]);
}

#[test]
fn an_entry_that_was_found_must_stay() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.on_disk("line 0");
    assert_eq!(story.check(), []);
    story.journal.log(LogKey(0)).unwrap().truncate_from(0).unwrap();
    assert_eq!(story.check(), [Kind::Lost]);
}

#[test]
fn a_writers_entries_keep_their_order() {
    let mut story = Story::new();
    // Killed in its first append, then again in its second: both may survive, in this order only.
    story.issue(0, 0);
    story.issue(0, 1);
    story.on_disk("line 2");
    story.on_disk("line 0");
    assert_eq!(story.check(), [Kind::Invented]);
}

#[test]
fn a_survivor_stands_before_what_its_writer_acknowledged_later() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.issue(0, 1);
    story.ack(0, 1, 0);
    story.on_disk("line 2");
    story.on_disk("line 0");
    assert_eq!(story.check(), [Kind::Invented]);
}

#[test]
fn an_index_is_given_once() {
    let mut story = Story::new();
    story.issue(0, 0);
    story.issue(1, 0);
    story.ack(0, 0, 0);
    let again = Record::Ack {
        writer: 1,
        number: 0,
        index: 0,
    };
    assert_eq!(story.hear(again).unwrap_err().kind, Kind::Changed);
}

#[test]
fn what_is_purged_is_not_missed() {
    let mut story = Story::new();
    for number in 0..8 {
        story.issue(0, number);
        story.ack(0, number, number);
        story.on_disk(if number % 2 == 0 { "line 0" } else { "line 2" });
    }
    assert_eq!(story.check(), []);
    let keep = story.model.purge(0);
    assert_eq!(keep, 6);
    story.journal.log(LogKey(0)).unwrap().purge_to(keep).unwrap();
    assert_eq!(story.check(), []);
    story.journal.log(LogKey(0)).unwrap().purge_to(keep + 1).unwrap();
    assert_eq!(story.check(), [Kind::Lost]);
}
