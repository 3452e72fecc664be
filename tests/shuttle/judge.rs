//! Whether a crash state is legal. The ledger names the order in which writes were sequenced: what is found must be the model after
//! some prefix of them, at least as long as what was promised; and each thread's own log must be as that thread left it at
//! some moment that agrees with the prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use everlog::fs::{Fs, SimFs};
use everlog::{Background, Config, ErrorKind, Journal, LogKey};

use super::model::{LogModel, Model, Step};
use super::world::{Fate, LEDGER, Loss, Moment, Op, SHARED, own_log};

/// Settings for a look at what is left: no threads.
pub(crate) fn quiet() -> Config {
    Config::new()
        .segment_bytes(16 << 10)
        .in_flight_bytes(4 << 10)
        .background(Background::Caller)
}

/// Opens what the crash left, compares it, and does it again: nothing may change. `ops` as they ended.
pub(crate) fn examine(moment: &Moment, ops: &[Op]) {
    let what = format!("{} ({:?})", moment.what, moment.loss);
    moment.disk.set_capacity(1 << 40);
    let found = open(moment, &what);
    legal(&found, moment, ops, &what);
    let again = open(moment, &format!("{what}, opened again"));
    assert!(
        found == again,
        "{what}: opened again it holds\n{again}and held\n{found}"
    );
}

fn open(moment: &Moment, what: &str) -> Model {
    // A disk that was killed keeps the faults that were planned and have not come yet.
    let faults = if moment.faulty { 3 } else { 0 };
    let journal = (0..=faults)
        .find_map(|_| try_open(&moment.disk, faults > 0, what))
        .unwrap_or_else(|| panic!("{what}: more faults than were planned"));
    let found = Model::read(&journal).unwrap_or_else(|e| panic!("{what}: cannot be read: {e}"));
    let closed = journal.close();
    assert!(closed.is_ok() || faults > 0, "{what}: does not close: {closed:?}");
    found
}

/// `None` if a fault came.
fn try_open(disk: &SimFs, faulty: bool, what: &str) -> Option<Journal> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    match Journal::open_on(fs, quiet()) {
        Ok(journal) => Some(journal),
        Err(error) if faulty && error.kind() == ErrorKind::Io => None,
        Err(error) => panic!("{what}: does not open: {error}"),
    }
}

/// Compares what was found with what may be.
pub(crate) fn legal(found: &Model, moment: &Moment, ops: &[Op], what: &str) {
    let promised = match moment.loss {
        Loss::Kill if !moment.faulty => Fate::Written,
        Loss::Kill | Loss::Power => Fate::Durable,
    };
    let order = order(found, ops, what);
    let length = found.0.get(&LEDGER.0).map_or(0, |log| log.end());
    for (number, op) in ops.iter().enumerate() {
        let fate = moment.fates.get(number).copied().unwrap_or(Fate::Issued);
        let there = op.position.is_some_and(|position| position < length);
        assert!(
            there || !op.in_ledger || fate < promised,
            "{what}: write {number} was {fate:?}, is at {:?}, and the ledger ends at {length}\n{found}",
            op.position
        );
    }
    let mut expected = base(ops);
    for position in 0..length {
        let number = order
            .get(&position)
            .unwrap_or_else(|| panic!("{what}: place {position} of the ledger is nobody's\n{found}"));
        assert!(
            *number < moment.fates.len(),
            "{what}: write {number} was found before it was issued\n{found}"
        );
        apply(&mut expected, &ops[*number], &|key| key < own_log(0).0, what);
    }
    for key in [LEDGER.0, SHARED.0] {
        assert!(
            found.0.get(&key) == expected.0.get(&key),
            "{what}: log {key} should be as after {length} writes:\n{expected}and is\n{found}"
        );
    }
    let actors = ops.iter().map(|op| op.actor).max().map_or(0, |last| last + 1);
    for actor in 0..actors {
        let prefix: BTreeSet<usize> = order.range(..length).map(|(_, number)| *number).collect();
        own(found, moment, ops, (actor, &prefix, promised), what);
    }
}

/// The numbers of the writes by their place. One whose call ended without an answer is found by what it left.
fn order(found: &Model, ops: &[Op], what: &str) -> BTreeMap<u64, usize> {
    let mut order = BTreeMap::new();
    for (number, op) in ops.iter().enumerate() {
        if let Some(position) = op.position {
            let other = order.insert(position, number);
            assert!(
                other.is_none(),
                "{what}: writes {other:?} and {number} both have place {position}"
            );
        }
    }
    if let Some(ledger) = found.0.get(&LEDGER.0) {
        for position in ledger.start..ledger.end() {
            let (_, payload) = ledger.entry(position).expect("within its bounds");
            let number = number(payload);
            let known = *order.entry(position).or_insert(number);
            assert_eq!(known, number, "{what}: place {position} of the ledger\n{found}");
            assert!(
                ops[number].fate != Fate::Refused,
                "{what}: write {number} was refused and is there\n{found}"
            );
        }
    }
    order
}

/// The number that a ledger entry says.
fn number(payload: &[u8]) -> usize {
    let bytes = payload.try_into().expect("a ledger entry has eight bytes");
    usize::try_from(u64::from_le_bytes(bytes)).expect("a small number")
}

fn base(ops: &[Op]) -> Model {
    let mut model = Model::default();
    let actors = ops.iter().map(|op| op.actor).max().map_or(0, |last| last + 1);
    let keys = [LEDGER, SHARED].into_iter().chain((0..actors).map(own_log));
    for LogKey(key) in keys {
        model.0.insert(key, Arc::new(LogModel::new(0)));
    }
    model
}

/// Applies what `op` does to the logs that `on` names.
fn apply(model: &mut Model, op: &Op, on: &dyn Fn(u64) -> bool, what: &str) {
    let steps: Vec<Step> = op.steps.iter().filter(|step| on(step.key())).cloned().collect();
    let ids = op.ids.iter().zip(op.steps.iter().filter(|step| step.is_append()));
    let given: Vec<_> = ids
        .filter(|(_, step)| on(step.key()))
        .map(|(id, _)| *id)
        .collect();
    let next = model.after(&steps).unwrap_or_else(|kind| {
        panic!("{what}: {steps:?} was taken in and should have been refused ({kind:?})\n{model}")
    });
    assert!(
        given.is_empty() || given == model.ids(&steps),
        "{what}: {steps:?} was given {given:?}\n{model}"
    );
    *model = next;
}

/// The log of one thread: as after some of its writes, in order; no fewer than are promised or in the prefix.
fn own(
    found: &Model,
    moment: &Moment,
    ops: &[Op],
    (actor, prefix, promised): (usize, &BTreeSet<usize>, Fate),
    what: &str,
) {
    let key = own_log(actor).0;
    let mut states = vec![base(ops)];
    let (mut least, mut most) = (0, None);
    let mine = ops.iter().enumerate().filter(|(_, op)| op.actor == actor);
    for (number, op) in mine.filter(|(_, op)| op.fate != Fate::Refused) {
        let mut state = states[states.len() - 1].clone();
        apply(&mut state, op, &|of| of == key, what);
        states.push(state);
        let fate = moment.fates.get(number).copied();
        let there = match fate {
            // Every place of the prefix is known.
            _ if op.in_ledger => Some(prefix.contains(&number)),
            None => Some(false),
            Some(fate) => (fate >= promised).then_some(true),
        };
        match there {
            Some(true) => least = states.len() - 1,
            Some(false) => most = most.or(Some(states.len() - 2)),
            None => {}
        }
    }
    let most = most.unwrap_or(states.len() - 1);
    let fits = (least..=most).any(|count| states[count].0.get(&key) == found.0.get(&key));
    assert!(
        fits,
        "{what}: log {key} should be as after {least} to {most} of the writes of thread {actor}:\n{}found\n{found}",
        (least..=most)
            .map(|count| format!("{count}:\n{}", states[count]))
            .collect::<String>()
    );
}

/// Everything that a reader saw was appended by somebody, there.
pub(crate) fn seen(world: &super::world::World) {
    let notes = world.notes();
    for seen in &notes.seen {
        let somebody = notes.ops.iter().any(|op| {
            let at = op.steps.iter().filter(|step| step.is_append()).position(
                |step| matches!(step, Step::Append(key, payload) if *key == seen.log.0 && *payload == seen.payload),
            );
            op.fate != Fate::Refused && at.is_some_and(|at| op.ids.get(at).is_none_or(|id| *id == seen.id))
        });
        assert!(
            somebody,
            "a reader saw entry {} of log {}, which nobody appended there: {:?}",
            seen.id, seen.log, seen.payload
        );
    }
}
