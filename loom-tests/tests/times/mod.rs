//! Models of channels whose messages come by the clock (`sync/src/channel/timer.rs`).

use std::time::{Duration, Instant};

use weald::sync::channel::{Receiver, after, tick};
use weald_loom_tests::{Model, check, thread, witness};

/// Each of two receives within the limit, if something comes.
fn two_receive(receiver: &Receiver<Instant>, limit: Duration) -> [Option<Instant>; 2] {
    let other = thread::spawn({
        let receiver = receiver.clone();
        move || receiver.recv_timeout(limit).ok()
    });
    let mine = receiver.recv_timeout(limit).ok();
    [mine, other.join().unwrap()]
}

#[test]
fn what_comes_after_a_time_comes_once() {
    let witnesses = &["here", "there"];
    check(
        Model::new("what_comes_after_a_time_comes_once", 16, witnesses),
        || {
            let receiver = after(Duration::from_millis(1));
            let [here, there] = two_receive(&receiver, Duration::from_millis(2));
            witness!("here", here.is_some());
            witness!("there", there.is_some());
            assert!(here.is_some() != there.is_some(), "one of the two gets it");
        },
    );
}

#[test]
fn each_tick_comes_once() {
    check(Model::new("each_tick_comes_once", 13, &[]), || {
        let receiver = tick(Duration::from_millis(1));
        let [here, there] = two_receive(&receiver, Duration::from_millis(8));
        let (here, there) = (here.expect("in time"), there.expect("in time"));
        assert_ne!(here, there, "each tick is for one");
    });
}
