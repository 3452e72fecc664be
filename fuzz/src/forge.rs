//! Forged journals: a field has another value, and every checksum, chain and recorded end agrees with it. What a journal
//! says then is nobody's word; but whatever it says, reading it must end in values or in an error.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;

use crate::checksum;
use crate::damage::Files;

/// A field that is given another value; files and numbers are taken modulo what exists.
#[derive(Arbitrary, Debug)]
pub struct Forgery {
    file: u8,
    place: Place,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Opening { field: u8 },
    Batch { batch: u8, field: u8 },
    Frame { batch: u8, frame: u8, field: u8 },
    Payload { batch: u8, frame: u8, at: u8 },
    Index { at: u8 },
}

#[derive(Arbitrary, Debug)]
enum Value {
    Exactly(u64),
    Small(u8),
    /// So far from what it was.
    Off(i8),
    /// So far below the largest.
    Below(u8),
    /// The same below half of it, where ids and sequences end.
    BelowHalf(u8),
    Bit(u8),
}

/// A field: its offset and its bytes.
type Field = (usize, usize);

/// As drawn in `src/format/opening.rs`.
const OPENING: [Field; 20] = [
    (12, 2),
    (14, 2),
    (16, 8),
    (24, 8),
    (32, 8),
    (48, 8),
    (56, 8),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 8),
    (104, 4),
    (108, 4),
    (112, 8),
    (120, 8),
    (128, 8),
    (136, 8),
    (152, 8),
    (160, 8),
];
/// As drawn in `src/format/batch.rs`.
const BATCH: [Field; 15] = [
    (8, 8),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 4),
    (68, 4),
    (72, 2),
    (74, 1),
    (75, 1),
    (76, 4),
    (80, 8),
];
/// As drawn in `src/format/frame.rs`.
const FRAME: [Field; 9] = [
    (4, 1),
    (5, 1),
    (6, 2),
    (8, 8),
    (16, 8),
    (24, 8),
    (32, 4),
    (36, 4),
    (40, 4),
];

const OPENING_LEN: usize = 256;
const COPY_AT: usize = 4096;
const BATCHES_AT: usize = 8192;
const BATCH_HEADER: usize = 96;
const FRAME_HEADER: usize = 48;

/// Where batches end in the segments of a journal: for each, what its successor may record of it.
type Ends = BTreeMap<u64, BTreeMap<u64, End>>;

#[derive(Clone, Copy)]
struct End {
    sequence: u64,
    chain: u32,
}

impl Forgery {
    /// Puts the value in; nothing agrees with it yet.
    pub fn apply(&self, files: &mut Files) {
        let indexes = matches!(self.place, Place::Index { .. });
        let extension = if indexes { ".idx" } else { ".seg" };
        let names = files.keys().filter(|name| name.ends_with(extension));
        let names: Vec<String> = names.cloned().collect();
        let Some(bytes) = usize::from(self.file)
            .checked_rem(names.len())
            .and_then(|at| files.get_mut(&names[at]))
        else {
            return;
        };
        if let Some((at, len)) = self.place.find(bytes)
            && let Some(field) = bytes.get_mut(at..at + len)
        {
            self.value.put(field);
        }
    }
}

impl Place {
    fn find(&self, bytes: &[u8]) -> Option<Field> {
        let pick = |fields: &[Field], field: u8| fields[usize::from(field) % fields.len()];
        let at = |base: usize, (offset, len): Field| (base + offset, len);
        match *self {
            Place::Opening { field } => Some(pick(&OPENING, field)),
            Place::Batch { batch, field } => Some(at(nth_batch(bytes, batch)?, pick(&BATCH, field))),
            Place::Frame { batch, frame, field } => {
                Some(at(nth_frame(bytes, batch, frame)?, pick(&FRAME, field)))
            }
            Place::Payload {
                batch,
                frame,
                at: offset,
            } => {
                let header = nth_frame(bytes, batch, frame)?;
                let payload = header + usize::try_from(number(bytes, (header + 40, 4))).ok()?;
                Some((payload + usize::from(offset), 1))
            }
            Place::Index { at } => Some((12 + usize::from(at), 1)),
        }
    }
}

impl Value {
    fn put(&self, field: &mut [u8]) {
        let old = number(field, (0, field.len()));
        let new = match *self {
            Value::Exactly(value) => value,
            Value::Small(value) => u64::from(value),
            Value::Off(by) => old.wrapping_add_signed(i64::from(by)),
            Value::Below(by) => u64::MAX - u64::from(by),
            Value::BelowHalf(by) => (u64::MAX >> 1).wrapping_add(8) - u64::from(by),
            Value::Bit(bit) => old ^ (1 << (bit % 64)),
        };
        let bytes = new.to_le_bytes();
        field.copy_from_slice(&bytes[..field.len()]);
    }
}

/// Makes everything agree with everything: from the oldest segment to the newest checksums and chains, and what each
/// opening and index records of the end of a segment.
pub fn agree(files: &mut Files) {
    let mut ends = Ends::new();
    for (name, bytes) in files.iter_mut() {
        if name.ends_with(".seg") && bytes.len() >= BATCHES_AT && bytes.starts_with(b"EVERLOGS") {
            agree_segment(bytes, &mut ends);
        }
    }
    for (name, bytes) in files.iter_mut() {
        if name.ends_with(".idx") && bytes.len() >= 64 {
            let segment = number(bytes, (16, 8));
            let end = number(bytes, (32, 8));
            if let Some(end) = ends.get(&segment).and_then(|ends| ends.get(&end)) {
                set(bytes, (40, 8), end.sequence);
                set(bytes, (48, 4), u64::from(end.chain));
            }
            *bytes = checksum::index(bytes);
        }
    }
}

fn agree_segment(bytes: &mut Vec<u8>, ends: &mut Ends) {
    let pred = ends.get(&number(bytes, (80, 8))).and_then(|ends| {
        let recorded = number(bytes, (88, 8));
        ends.get(&recorded).or(ends.values().next_back()).copied()
    });
    if let Some(pred) = pred {
        set(bytes, (96, 8), pred.sequence);
        set(bytes, (104, 4), u64::from(pred.chain));
    }
    let carries = number(bytes, (112, 8)) != 0;
    if carries {
        let carried = fix_batch(bytes, BATCHES_AT, 0);
        set(bytes, (108, 4), u64::from(carried.unwrap_or(0)));
    }
    let fixed = checksum::opening(&bytes[..OPENING_LEN]);
    bytes[..OPENING_LEN].copy_from_slice(&fixed);
    bytes[COPY_AT..COPY_AT + OPENING_LEN].copy_from_slice(&fixed);

    let mut chain = u32::try_from(number(bytes, (8, 4))).unwrap_or(0);
    let mut sequence = number(bytes, (64, 8));
    let own = ends.entry(number(bytes, (48, 8))).or_default();
    own.insert(BATCHES_AT as u64, End { sequence, chain });
    let mut at = BATCHES_AT;
    while is_batch(bytes, at) {
        let link = if carries && at == BATCHES_AT { 0 } else { chain };
        let Some(crc) = fix_batch(bytes, at, link) else {
            return;
        };
        (chain, sequence) = (crc, number(bytes, (at + 32, 8)));
        let Some(next) = behind(bytes, at) else { return };
        own.insert(next as u64, End { sequence, chain });
        at = next;
    }
}

/// Makes the batch at `at` agree with itself and with the header before it; returns its own checksum.
fn fix_batch(bytes: &mut [u8], at: usize, chain: u32) -> Option<u32> {
    let end = behind(bytes, at).unwrap_or(bytes.len());
    let rest = bytes.get_mut(at..end).filter(|rest| rest.len() >= BATCH_HEADER)?;
    rest[64..68].copy_from_slice(&chain.to_le_bytes());
    let fixed = checksum::batch(rest);
    rest.copy_from_slice(&fixed);
    u32::try_from(number(rest, (0, 4))).ok()
}

fn is_batch(bytes: &[u8], at: usize) -> bool {
    bytes.len() >= at + BATCH_HEADER && bytes[at + 4..at + 8] == *b"BTCH"
}

/// Where the batch behind the one at `at` stands.
fn behind(bytes: &[u8], at: usize) -> Option<usize> {
    let len = bytes.get(at + 56..at + 60).map(|len| number(len, (0, 4)))?;
    let len = usize::try_from(len).ok()?;
    (len >= BATCH_HEADER && len <= bytes.len() - at).then(|| at + len)
}

fn nth_batch(bytes: &[u8], nth: u8) -> Option<usize> {
    let mut found = Vec::new();
    let mut at = BATCHES_AT;
    while is_batch(bytes, at) {
        found.push(at);
        match behind(bytes, at) {
            Some(next) => at = next,
            None => break,
        }
    }
    let nth = usize::from(nth).checked_rem(found.len())?;
    found.get(nth).copied()
}

fn nth_frame(bytes: &[u8], batch: u8, frame: u8) -> Option<usize> {
    let at = nth_batch(bytes, batch)?;
    let frames = number(bytes, (at + 60, 4));
    let nth = usize::try_from(u64::from(frame).checked_rem(frames)?).ok()?;
    let header = at + BATCH_HEADER + nth * FRAME_HEADER;
    (header + FRAME_HEADER <= bytes.len()).then_some(header)
}

fn number(bytes: &[u8], (at, len): Field) -> u64 {
    let mut number = [0; 8];
    number[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(number)
}

fn set(bytes: &mut [u8], (at, len): Field, value: u64) {
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
}
