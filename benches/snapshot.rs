//! Snapshots beside the floor of the same bytes in the same run: writing beside a copy to a file with its blake3 hash and a sync, reading
//! beside reading and hashing that file. Then what a second snapshot stores when 1 % of the state has changed, in contiguous ranges and
//! scattered. `EVERLOG_SNAPSHOT_MIB=n` sets the size of the state (256).

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Random, area};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use everlog::snapshot::{Committed, Draft, SnapshotId, Store, StoreConfig};
use everlog::{EntryId, LogKey};

#[expect(dead_code, reason = "each bench needs a part of it")]
mod common;

const PIECE: usize = 1 << 20;

fn state_bytes() -> usize {
    let set = std::env::var("EVERLOG_SNAPSHOT_MIB");
    set.map_or(256, |text| text.parse().expect("a number of MiB")) << 20
}

fn random_state(len: usize) -> Vec<u8> {
    let mut random = Random(7);
    let mut state = vec![0; len];
    state.chunks_mut(8).for_each(|word| {
        let bytes = random.next().to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    });
    state
}

/// What anybody must do: the bytes into a file, their hash, a sync.
fn copy_and_hash(dir: &Path, state: &[u8]) {
    let mut file = File::create(dir.join("copy")).expect("the directory takes a file");
    let mut hasher = blake3::Hasher::new();
    for piece in state.chunks(PIECE) {
        hasher.update(piece);
        file.write_all(piece).expect("the disk takes a write");
    }
    file.sync_data().expect("the disk syncs");
    black_box(hasher.finalize());
}

fn read_and_hash(dir: &Path) {
    let mut file = File::open(dir.join("copy")).expect("the copy is there");
    let mut piece = vec![0; PIECE];
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(&mut piece).expect("the disk reads") {
            0 => break,
            count => drop(hasher.update(&piece[..count])),
        }
    }
    black_box(hasher.finalize());
}

fn create(store: &Store, index: u64, state: &[u8]) -> Committed {
    let draft = Draft::new(LogKey(1), EntryId::new(1, index));
    let mut creation = store.create(draft).expect("a creation");
    for piece in state.chunks(PIECE) {
        creation.write_all(piece).expect("the store takes a write");
    }
    creation.commit().expect("the snapshot is committed")
}

fn read(store: &Store, id: SnapshotId) {
    let mut reader = store.reader(id).expect("the snapshot is there");
    let mut piece = vec![0; PIECE];
    while reader.read(&mut piece).expect("the snapshot reads") > 0 {
        black_box(&piece);
    }
}

/// An empty store, in a directory that goes with it.
fn store(read_back: bool) -> (tempfile::TempDir, Store) {
    let dir = area();
    let store = Store::open(dir.path(), StoreConfig::new().read_back(read_back)).expect("the store opens");
    (dir, store)
}

fn speed(criterion: &mut Criterion) {
    let state = random_state(state_bytes());
    let mut group = criterion.benchmark_group("snapshot");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(5))
        .throughput(Throughput::Bytes(state.len() as u64));
    group.bench_function("write/floor_copy_blake3", |bencher| {
        bencher.iter_batched(
            area,
            |dir| {
                copy_and_hash(dir.path(), &state);
                dir
            },
            BatchSize::PerIteration,
        );
    });
    for (name, read_back) in [("write/store", false), ("write/store_read_back", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || store(read_back),
                |(dir, store)| {
                    create(&store, 1, &state);
                    (dir, store)
                },
                BatchSize::PerIteration,
            );
        });
    }
    let dir = area();
    copy_and_hash(dir.path(), &state);
    group.bench_function("read/floor_blake3", |bencher| {
        bencher.iter(|| read_and_hash(dir.path()))
    });
    let (_dir, store) = store(false);
    let id = create(&store, 1, &state).snapshot.id;
    group.bench_function("read/store", |bencher| bencher.iter(|| read(&store, id)));
    group.finish();
    ratios(&state);
}

/// Floor and store in turns, so that both see the same disk: the median of the ratios of each turn.
fn ratios(state: &[u8]) {
    let time = |doing: &mut dyn FnMut()| {
        let started = Instant::now();
        doing();
        started.elapsed().as_secs_f64()
    };
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let dir = area();
        let floor = time(&mut || copy_and_hash(dir.path(), state));
        let (_dir, store) = store(false);
        let mut id = None;
        let ours = time(&mut || id = Some(create(&store, 1, state).snapshot.id));
        writes.push(floor / ours);
        let floor = time(&mut || read_and_hash(dir.path()));
        let ours = time(&mut || read(&store, id.expect("it was committed")));
        reads.push(floor / ours);
    }
    for (what, mut of) in [("writing", writes), ("reading", reads)] {
        of.sort_by(f64::total_cmp);
        println!(
            "figure: snapshot: {what}: {:.2} of the floor (median of {}, {:.2} to {:.2})",
            of[3],
            of.len(),
            of[0],
            of[6]
        );
    }
}

/// What the second snapshot stores.
fn changes(_criterion: &mut Criterion) {
    let mut state = random_state(state_bytes());
    let changed = state.len() / 100;
    let mut random = Random(9);
    let (_dir, store) = store(true);
    create(&store, 1, &state);
    let len = state.len();
    let ranges = 4;
    for range in 0..ranges {
        let at = len / ranges * range + len / 10;
        state[at..at + changed / ranges].fill_with(|| random.next().to_le_bytes()[0]);
    }
    let contiguous = create(&store, 2, &state);
    print("in 4 contiguous ranges", &contiguous);
    for (index, bytes) in [(3, 64 << 10), (4, 4 << 10), (5, 100)] {
        for _ in 0..changed / bytes {
            let at = usize::try_from(random.below((len - bytes) as u64)).expect("within the state");
            state[at..at + bytes].fill_with(|| random.next().to_le_bytes()[0]);
        }
        print(
            &format!("scattered in pieces of {bytes} bytes"),
            &create(&store, index, &state),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn print(how: &str, committed: &Committed) {
    let snapshot = &committed.snapshot;
    let percent = snapshot.new_bytes as f64 * 100.0 / snapshot.bytes as f64;
    println!("figure: snapshot: 1 % changed {how}: {percent:.2} % stored anew");
}

criterion_group!(benches, speed, changes);
criterion_main!(benches);
