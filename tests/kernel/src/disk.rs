//! A disk in memory: an image, the trace of what was written and flushed, and faults on demand.

use std::collections::HashMap;
use std::sync::Arc;

use crate::random::Random;

/// What the file systems of this proof call a block, and what a write is split into.
pub(crate) const BLOCK: usize = 4096;
/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;

/// The content of a disk. A block that is not there is zero.
#[derive(Clone, Default)]
pub(crate) struct Image(HashMap<u64, Arc<[u8; BLOCK]>>);

/// One thing that reached the disk.
#[derive(Clone)]
pub(crate) enum Event {
    Write { offset: u64, bytes: Arc<[u8]> },
    Flush,
}

/// Something that will go wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) of: Target,
    /// Calls of that kind that still go well.
    pub(crate) spare: u64,
    /// How often it happens then.
    pub(crate) times: u64,
    pub(crate) leaves: Leaves,
}

/// What a write that failed has put on the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaves {
    Nothing,
    /// All of its blocks, none, or the first few, by this seed.
    Some(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Flush,
    Write,
    /// A write that contains this text.
    WriteOf(&'static str),
}

/// The disk behind the device.
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    image: Image,
    /// `None` while nobody records.
    trace: Option<Vec<Event>>,
    faults: Vec<Fault>,
    /// How often a fault has happened.
    pub(crate) fired: u64,
}

impl Image {
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (block, within, part) in parts(offset, buffer.len()) {
            match self.0.get(&block) {
                Some(bytes) => {
                    let end = within + part.len();
                    buffer[part].copy_from_slice(&bytes[within..end]);
                }
                None => buffer[part].fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (block, within, part) in parts(offset, bytes.len()) {
            let bytes = &bytes[part];
            if !self.0.contains_key(&block) && bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let old = self.0.entry(block).or_insert_with(|| Arc::new([0; BLOCK]));
            Arc::make_mut(old)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl Disk {
    pub(crate) fn new(bytes: u64) -> Disk {
        Disk {
            bytes,
            image: Image::default(),
            trace: None,
            faults: Vec::new(),
            fired: 0,
        }
    }

    /// Puts another image in; nothing must have the device open.
    pub(crate) fn load(&mut self, image: Image) {
        self.image = image;
        self.trace = None;
        self.faults.clear();
        self.fired = 0;
    }

    pub(crate) fn image(&self) -> Image {
        self.image.clone()
    }

    pub(crate) fn record(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// Ends the recording.
    pub(crate) fn take_trace(&mut self) -> Vec<Event> {
        self.trace.take().unwrap_or_default()
    }

    /// How much was traced so far.
    pub(crate) fn position(&self) -> usize {
        self.trace.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn plan(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(crate) fn heal(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        self.image.read(offset, buffer);
    }

    /// False: the device says EIO.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let fails = self.due(|target| match target {
            Target::Flush => false,
            Target::Write => true,
            Target::WriteOf(marker) => bytes.windows(marker.len()).any(|part| part == marker.as_bytes()),
        });
        let taken = match fails {
            None => bytes.len(),
            Some(Leaves::Nothing) => 0,
            Some(Leaves::Some(seed)) => {
                let mut random = Random::new(seed ^ self.fired);
                let blocks = random.index(bytes.len() / BLOCK + 2);
                (if random.one_in(2) { 0 } else { blocks } * BLOCK).min(bytes.len())
            }
        };
        let bytes = &bytes[..taken];
        self.image.write(offset, bytes);
        if let Some(trace) = self.trace.as_mut().filter(|_| taken > 0) {
            trace.push(Event::Write {
                offset,
                bytes: bytes.into(),
            });
        }
        fails.is_none()
    }

    /// False: the device says EIO, and nothing has become durable.
    pub(crate) fn flush(&mut self) -> bool {
        let done = self.due(|target| *target == Target::Flush).is_none();
        if let Some(trace) = self.trace.as_mut().filter(|_| done) {
            trace.push(Event::Flush);
        }
        done
    }

    fn due(&mut self, meant: impl Fn(&Target) -> bool) -> Option<Leaves> {
        let mut due = None;
        for fault in self.faults.iter_mut().filter(|fault| meant(&fault.of)) {
            if fault.spare > 0 {
                fault.spare -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                due = Some(fault.leaves);
            }
        }
        self.fired += u64::from(due.is_some());
        due
    }
}

/// The blocks that `len` bytes at `offset` touch: number, offset within it, range of the bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).expect("below a block");
        let part = done..(done + BLOCK - within).min(len);
        done = part.end;
        Some((at / BLOCK as u64, within, part))
    })
}
