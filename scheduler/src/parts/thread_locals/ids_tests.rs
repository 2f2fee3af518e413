//! What `ids.rs` promises, with the file there twice: as in a process with two copies of the crate.
#![allow(clippy::duplicate_mod, reason = "that is what is tried")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::collections::HashSet;

#[path = "ids.rs"]
mod ours;
#[path = "ids.rs"]
mod theirs;

#[test]
#[cfg_attr(miri, ignore = "Miri reserves no addresses")]
fn no_id_is_made_twice_by_two_copies_of_the_crate() {
    let (ours, theirs) = (ours::Ids::new(), theirs::Ids::new());
    let mut seen = HashSet::new();
    for _ in 0..5000 {
        assert!(seen.insert(ours.make().unwrap()));
        assert!(seen.insert(theirs.make().unwrap()));
    }
    // And where one copy makes many more than the other.
    for _ in 0..5000 {
        assert!(seen.insert(theirs.make().unwrap()));
    }
    let (one, other) = (ours.make().unwrap(), theirs.make().unwrap());
    assert!(seen.insert(one) && seen.insert(other));
    // What was given back is made again, by the same copy.
    ours.give_back(one);
    theirs.give_back(other);
    assert_eq!((ours.make(), theirs.make()), (Some(one), Some(other)));
}

#[test]
#[cfg_attr(miri, ignore = "Miri reserves no addresses")]
fn an_id_is_none_of_the_kernels_and_fits_into_a_futex_word() {
    let ids = ours::Ids::new();
    for _ in 0..100 {
        let id = u32::try_from(ids.make().unwrap()).unwrap();
        assert!(id > 1 << 22, "the kernel may give {id}");
        assert_eq!(id & libc::FUTEX_TID_MASK, id);
    }
}
