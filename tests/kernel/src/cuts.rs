//! Power cuts on a trace: between two flushes any part of what was written may be on the disk, and everything before the
//! first of them is.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::disk::{BLOCK, Event, Image, SECTOR};
use crate::random::Random;

/// At most a block of what was written, never across the edge of one.
#[derive(Clone)]
pub(crate) struct Piece {
    offset: u64,
    bytes: Arc<[u8]>,
    /// Where in the trace it stands.
    at: usize,
}

/// What lies between two flushes.
pub(crate) struct Epoch {
    /// What is sure to be on the disk.
    pub(crate) base: Image,
    pub(crate) pieces: Vec<Piece>,
    /// Where in the trace its last flush stands, or the trace ends.
    pub(crate) end: usize,
}

/// Which pieces a power cut leaves, by bit `n` of `kept`; and of one of them perhaps only some sectors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    kept: Vec<bool>,
    torn: Option<(usize, u64)>,
}

/// How many cuts of an epoch are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    /// All subsets of so many pieces.
    pub(crate) all: usize,
    /// At most so many of more.
    pub(crate) sampled: usize,
    /// And so many with a torn piece.
    pub(crate) torn: usize,
}

/// The epochs of a trace that began with `image`.
pub(crate) fn epochs(image: Image, trace: &[Event]) -> Vec<Epoch> {
    let mut found = Vec::new();
    let mut base = image;
    let mut pieces = Vec::new();
    for (at, event) in trace.iter().enumerate() {
        match event {
            Event::Write { offset, bytes } => split(at, *offset, bytes, &mut pieces),
            Event::Flush => {
                let written = std::mem::take(&mut pieces);
                let next = written.iter().fold(base.clone(), |mut image, piece| {
                    image.write(piece.offset, &piece.bytes);
                    image
                });
                found.push(Epoch::new(std::mem::replace(&mut base, next), written, at));
            }
        }
    }
    found.push(Epoch::new(base, pieces, trace.len()));
    found
}

fn split(at: usize, offset: u64, bytes: &[u8], pieces: &mut Vec<Piece>) {
    let mut done = 0;
    while done < bytes.len() {
        let offset = offset + done as u64;
        let within = usize::try_from(offset % BLOCK as u64).expect("below a block");
        let end = (done + BLOCK - within).min(bytes.len());
        pieces.push(Piece {
            offset,
            bytes: bytes[done..end].into(),
            at,
        });
        done = end;
    }
}

impl Epoch {
    /// A piece that alone touches its block, and writes what is there, makes no difference.
    fn new(base: Image, mut pieces: Vec<Piece>, end: usize) -> Epoch {
        let mut touched: HashMap<u64, u32> = HashMap::new();
        for piece in &pieces {
            *touched.entry(piece.offset / BLOCK as u64).or_default() += 1;
        }
        pieces.retain(|piece| {
            let mut old = vec![0; piece.bytes.len()];
            base.read(piece.offset, &mut old);
            touched[&(piece.offset / BLOCK as u64)] > 1 || old != *piece.bytes
        });
        Epoch { base, pieces, end }
    }

    /// The disk after `cut`.
    pub(crate) fn image(&self, cut: &Cut) -> Image {
        let mut image = self.base.clone();
        for (n, piece) in self.pieces.iter().enumerate().filter(|(n, _)| cut.kept[*n]) {
            let torn = cut.torn.filter(|(torn, _)| *torn == n);
            let mask = torn.map_or(u64::MAX, |(_, mask)| mask);
            for (sector, bytes) in piece.bytes.chunks(SECTOR).enumerate() {
                if mask >> sector & 1 == 1 {
                    image.write(piece.offset + (sector * SECTOR) as u64, bytes);
                }
            }
        }
        image
    }

    /// Power cuts, each once: all of them if they are few, otherwise the corners where mistakes hide, and some more.
    pub(crate) fn cuts(&self, width: Width, random: &mut Random) -> BTreeSet<Cut> {
        let count = self.pieces.len();
        let mut cuts = if count <= width.all {
            (0..1u64 << count)
                .map(|bits| Cut::of(count, |n| bits >> n & 1 == 1))
                .collect()
        } else {
            self.sampled(width.sampled, random)
        };
        for _ in 0..if count > 0 { width.torn } else { 0 } {
            cuts.extend(self.torn(random));
        }
        cuts
    }

    fn sampled(&self, limit: usize, random: &mut Random) -> BTreeSet<Cut> {
        let count = self.pieces.len();
        let mut cuts = BTreeSet::from([Cut::of(count, |_| false), Cut::of(count, |_| true)]);
        // The edges of a write are where its parts meet those of another.
        for _ in cuts.len()..limit {
            let one = random.index(count);
            let strategy = random.below(8);
            let bits = random.next();
            let far = random.next();
            cuts.insert(Cut::of(count, |n| match strategy {
                0 | 1 => n < one,
                2 | 3 => n != one,
                4 => n == one,
                5 => n >= one,
                6 => self.pieces[n].at != self.pieces[one].at,
                _ => (bits.rotate_left(u32::try_from(n % 64).unwrap_or(0)) ^ far >> (n % 61)) & 1 == 1,
            }));
        }
        cuts
    }

    /// Some pieces, and of one of them some sectors.
    fn torn(&self, random: &mut Random) -> Option<Cut> {
        let count = self.pieces.len();
        let one = random.index(count);
        let sectors = self.pieces[one].bytes.len() / SECTOR;
        // The first block holds the superblock, of two sectors, which ext4 does not expect to be torn.
        if sectors < 2 || self.pieces[one].offset < BLOCK as u64 {
            return None;
        }
        let mask = 1 + random.below((1 << sectors) - 2);
        let (bits, end) = (random.next(), random.index(count + 1));
        let kept = |n: usize| {
            n == one
                || if bits & 1 == 0 {
                    n < end
                } else {
                    bits >> (n % 63) & 2 == 2
                }
        };
        Some(Cut {
            torn: Some((one, mask)),
            ..Cut::of(count, kept)
        })
    }
}

impl Cut {
    fn of(count: usize, kept: impl Fn(usize) -> bool) -> Cut {
        Cut {
            kept: (0..count).map(kept).collect(),
            torn: None,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits: String = self
            .kept
            .iter()
            .map(|kept| if *kept { '1' } else { '0' })
            .collect();
        write!(f, "{bits}")?;
        match self.torn {
            Some((piece, mask)) => write!(f, ", of piece {piece} the sectors {mask:#b}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Event {
        Event::Write {
            offset: u64::from(byte) * BLOCK as u64,
            bytes: vec![byte; BLOCK].into(),
        }
    }

    fn first_bytes(image: &Image) -> Vec<u8> {
        let mut bytes = vec![0; 6 * BLOCK];
        image.read(0, &mut bytes);
        bytes.chunks(BLOCK).map(|block| block[0]).collect()
    }

    const WIDTH: Width = Width {
        all: 3,
        sampled: 0,
        torn: 0,
    };

    #[test]
    fn between_flushes_every_subset_is_possible_and_before_them_everything_is_there() {
        let trace = [block(1), block(2), Event::Flush, block(3), block(4), block(5)];
        let found = epochs(Image::default(), &trace);
        let images = |epoch: &Epoch| -> BTreeSet<Vec<u8>> {
            let cuts = epoch.cuts(WIDTH, &mut Random::new(1));
            cuts.iter().map(|cut| first_bytes(&epoch.image(cut))).collect()
        };
        assert_eq!((found.len(), found[0].end, found[1].end), (2, 2, 6));
        assert_eq!(images(&found[0]).len(), 4);
        assert_eq!(images(&found[1]).len(), 8);
        assert!(images(&found[1]).iter().all(|image| image[..3] == [0, 1, 2]));
    }

    #[test]
    fn what_changes_nothing_is_no_choice_unless_another_write_meets_it() {
        let again = [block(1), Event::Flush, block(1), block(2)];
        assert_eq!(epochs(Image::default(), &again)[1].pieces.len(), 1);
        let other = Event::Write {
            offset: BLOCK as u64 + 512,
            bytes: vec![9; 512].into(),
        };
        let met = [block(1), Event::Flush, block(1), other];
        assert_eq!(epochs(Image::default(), &met)[1].pieces.len(), 2);
    }

    #[test]
    fn a_torn_piece_leaves_some_of_its_sectors() {
        let epoch = &epochs(Image::default(), &[block(1)])[0];
        let cut = Cut {
            kept: vec![true],
            torn: Some((0, 0b101)),
        };
        let mut bytes = vec![0; BLOCK];
        epoch.image(&cut).read(BLOCK as u64, &mut bytes);
        let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert_eq!(sectors, [1, 0, 1, 0, 0, 0, 0, 0]);
    }
}
