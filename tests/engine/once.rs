//! Commands that take effect once.

use everlog::ErrorKind;

use super::machine::{command, world};
use super::support::{disk, keep_synced};

#[test]
fn a_command_takes_effect_once_across_crashes_and_checkpoints() {
    let mut disk = disk(1);
    for checkpoint in [false, true, true, true] {
        let world = world(&disk);
        let before = world.commands().len();
        if before == 0 {
            assert_eq!(world.engine.execute_once(7, 1, command(0)).unwrap(), "1");
            assert_eq!(world.engine.execute_once(8, 5, command(1)).unwrap(), "2");
        }
        // What was replied then, whatever came between.
        world.execute(10..11);
        assert_eq!(world.engine.execute_once(7, 1, command(0)).unwrap(), "1");
        assert_eq!(world.engine.execute_once(8, 5, command(1)).unwrap(), "2");
        let old = world.engine.execute_once(8, 4, command(1)).unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Invalid);
        assert_eq!(world.commands().len(), before.max(2) + 1);
        if checkpoint {
            world.engine.checkpoint().unwrap();
        }
        drop(world);
        disk = keep_synced(&disk);
    }
}

#[test]
fn a_client_goes_on_with_its_next_number() {
    let disk = disk(1);
    let world = world(&disk);
    for sequence in 1..=5 {
        let reply = world.engine.execute_once(7, sequence, command(0)).unwrap();
        assert_eq!(reply, sequence.to_string());
    }
    world.engine.checkpoint().unwrap();
    drop(world);
    let world = super::machine::world(&keep_synced(&disk));
    assert_eq!(world.engine.execute_once(7, 5, command(0)).unwrap(), "5");
    assert_eq!(world.engine.execute_once(7, 6, command(0)).unwrap(), "6");
}
