//! Lists of damages: every sector, every block, every file, and two at once.

use super::damage::{Damage, Spot};
use super::random::Random;
use super::raw::{self, BLOCK, SECTOR};
use super::subject::Subject;

/// Everything that is done to a sector or to a block.
pub(crate) fn sectors(subject: &Subject) -> Vec<Damage> {
    let mut random = Random::new(7);
    let mut damages = Vec::new();
    let files: Vec<(&String, u64)> = subject
        .dump
        .iter()
        .filter(|(path, _)| path.starts_with("journal/"))
        .map(|(path, bytes)| (path, bytes.len() as u64))
        .collect();
    let segments: Vec<_> = files
        .iter()
        .copied()
        .filter(|(path, _)| path.ends_with(".seg"))
        .collect();
    let spot = |path: &String, n: u64| -> Spot { (path.clone(), n) };
    for (path, len) in files.iter().filter(|(path, _)| !path.ends_with(".spare")) {
        for n in 0..len / SECTOR {
            let this = || spot(path, n);
            damages.extend([
                Damage::Zero(this()),
                Damage::Garble(this()),
                Damage::Blank(this()),
                Damage::Unreadable(this()),
            ]);
            let versions = subject.older.get(&this()).map_or(0, Vec::len);
            damages.extend((0..versions).map(|back| Damage::Older(this(), back)));
            if len / SECTOR > 1 {
                damages.push(Damage::Swap(this(), spot(path, (n + 1) % (len / SECTOR))));
                damages.push(Damage::Swap(this(), spot(path, random.below(len / SECTOR))));
            }
            let (other, other_len) = random.pick(&segments);
            damages.push(Damage::Swap(this(), spot(other, n % (other_len / SECTOR))));
        }
    }
    for (path, len) in &segments {
        for n in 0..len / BLOCK {
            for lost in [false, true] {
                let next = spot(path, (n + 1) % (len / BLOCK));
                damages.push(Damage::Misdirected(spot(path, n), next, lost));
                let (other, other_len) = random.pick(&segments);
                let there = spot(other, random.below(other_len / BLOCK));
                damages.push(Damage::Misdirected(spot(path, n), there, lost));
                let same = spot(other, n % (other_len / BLOCK));
                damages.push(Damage::Misdirected(spot(path, n), same, lost));
            }
        }
    }
    damages
}

/// Everything that is done to a file or to the directory.
pub(crate) fn files(subject: &Subject) -> Vec<Damage> {
    let mut damages = Vec::new();
    let all: Vec<&String> = subject
        .dump
        .keys()
        .filter(|path| path.starts_with("journal/"))
        .collect();
    let next = 1 + all.iter().filter_map(|path| raw::id_of(path)).max().unwrap_or(0);
    for path in &all {
        let path = || (*path).clone();
        let len = subject.dump[&path()].len() as u64;
        damages.push(Damage::Removed(path()));
        damages.extend((0..len.div_ceil(SECTOR)).map(|n| Damage::Truncated(path(), n * SECTOR)));
        damages.extend([1, SECTOR, BLOCK, 40 * BLOCK].map(|by| Damage::Extended(path(), by)));
        damages.push(Damage::Renamed(path(), format!("{}.bak", path())));
        damages.push(Damage::Renamed(path(), "journal/77.spare".to_owned()));
        for id in [next, next + 5, 1 << 62, (1 << 62) + 1] {
            damages.push(Damage::Renamed(path(), raw::name(id)));
            damages.push(Damage::Copied(path(), raw::name(id)));
        }
        if subject.foreign.contains_key(&path()) {
            damages.push(Damage::Foreign(Some(path())));
        }
        let differs = |dump: &raw::Dump| {
            dump.get(&path())
                .is_some_and(|bytes| *bytes != subject.dump[&path()])
        };
        let moments = 0..subject.earlier.len();
        let moments = moments.filter(|n| differs(&subject.earlier[*n]));
        damages.extend(moments.map(|n| Damage::Earlier(Some(path()), n)));
        let kind = |path: &str| path.rsplit('.').next().map(str::to_owned);
        for other in all
            .iter()
            .filter(|other| ***other != path() && kind(other) == kind(&path()))
        {
            damages.push(Damage::Copied(path(), (*other).clone()));
            damages.push(Damage::Renamed(path(), (*other).clone()));
        }
    }
    damages.push(Damage::Foreign(None));
    damages.extend((0..subject.earlier.len()).map(|n| Damage::Earlier(None, n)));
    damages
}

/// Two damages that make sense together, by `seed`: bytes first, files after them.
pub(crate) fn pair(subject: &Subject, one: &[Damage], other: &[Damage], seed: u64) -> Option<[Damage; 2]> {
    let mut random = Random::new(seed);
    let mut pick = || -> Damage {
        match random.below(4) {
            0 => flip(subject, &mut random),
            1 | 2 => one[random.index(one.len())].clone(),
            _ => other[random.index(other.len())].clone(),
        }
    };
    let mut pair = [pick(), pick()];
    pair.sort_by_key(Damage::is_of_files);
    let [first, second] = &pair;
    let apart = !first.is_of_files() || first.needs().iter().all(|path| !second.needs().contains(path));
    let whole = pair.iter().any(Damage::is_whole_directory);
    (apart && !whole).then_some(pair)
}

fn flip(subject: &Subject, random: &mut Random) -> Damage {
    let link = &subject.chain[random.index(subject.chain.len())];
    let bits = link.end * 8;
    Damage::Flip(link.path.clone(), random.below(bits))
}
