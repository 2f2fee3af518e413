//! What a console shows of a program that is stuck. The console answers all the while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use weald::sync::Mutex;
use weald::{Builder, Runtime};

use crate::support::{get, wait_for};

#[test]
fn it_answers_while_each_worker_is_held_by_a_green_thread_that_computes() {
    let program = Runtime::builder()
        .workers(2)
        .spare_threads(1)
        .name("hogged")
        .build()
        .unwrap();
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let all = Arc::new(Barrier::new(4));
    for _ in 0..3 {
        let (ends, all) = (Arc::clone(&ends), Arc::clone(&all));
        program.spawn(move || {
            all.wait();
            while !ends.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    // Two have a worker each, the third one has the spare OS thread. Nobody relieves them.
    all.wait();
    let (told, hears) = mpsc::channel();
    program.spawn(move || told.send(()));
    let dump = wait_for(console.local_addr(), "hogged", |runtime| {
        runtime["stalled"].is_string() && runtime["states"]["runs"] == 3
    });
    assert!(dump["metrics"]["stalled"].as_u64() > Some(0), "{dump:#}");
    for path in ["/", "/dump", "/metrics", "/stacks?kind=running&seconds=1"] {
        assert_eq!(get(console.local_addr(), path).status, 200, "{path}");
    }
    assert!(hears.try_recv().is_err(), "no worker was free");
    ends.store(true, Ordering::Relaxed);
    hears.recv().unwrap();
    console.shutdown();
}

#[test]
fn it_answers_while_all_green_threads_wait_for_each_other_and_names_them() {
    let program = Runtime::builder()
        .workers(1)
        .name("deadlocked")
        .build()
        .unwrap();
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    let both = Arc::new(weald::sync::Barrier::new(2));
    let threads: Vec<_> = [("lease", 0, 1), ("table", 1, 0)]
        .into_iter()
        .map(|(name, first, second)| {
            let (locks, both) = (Arc::clone(&locks), Arc::clone(&both));
            program.run(|| {
                let builder = Builder::new().name(name.to_owned());
                builder.spawn(move || {
                    let _first = locks[first].lock();
                    both.wait();
                    drop(locks[second].lock());
                })
            })
        })
        .map(Result::unwrap)
        .collect();
    let addr = console.local_addr();
    let is_told = |runtime: &serde_json::Value| runtime["deadlocks"][0]["is_certain"] == true;
    let dump = wait_for(addr, "deadlocked", is_told);
    let deadlock = &dump["deadlocks"][0];
    assert_eq!(deadlock["count"], 2);
    let told = deadlock["threads"].as_array().unwrap();
    for (thread, other) in [(&told[0], &told[1]), (&told[1], &told[0])] {
        assert_eq!(thread["what"], "a mutex");
        assert_eq!(thread["holder"]["name"], other["name"]);
        assert!(thread["address"].as_str().unwrap().starts_with("0x"));
    }
    let locks = dump["locks"].as_array().unwrap();
    assert_eq!(locks.len(), 2, "{dump:#}");
    assert!(locks.iter().all(|lock| lock["count"] == 1));
    let text = get(addr, "/dump").body;
    assert!(
        text.contains("DEADLOCK: 2 green threads wait for each other"),
        "{text}"
    );
    for thread in threads {
        thread.thread().kill();
        // One of them may have had its lock before it was killed.
        drop(thread.join());
    }
    console.shutdown();
}

#[test]
fn a_group_has_its_number_of_threads_and_some_of_them_with_their_names() {
    let program = Runtime::builder()
        .workers(1)
        .name("<b>\"groups\"</b>")
        .build()
        .unwrap();
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let threads: Vec<_> = (0..100)
        .map(|number| {
            program.run(|| {
                let name = format!("<img src=x>;{number}");
                Builder::new().name(name).spawn(weald::park).unwrap()
            })
        })
        .collect();
    let addr = console.local_addr();
    let dump = wait_for(addr, "<b>\"groups\"</b>", |runtime| {
        runtime["states"]["parks"] == 100
    });
    let group = &dump["groups"][0];
    assert_eq!(group["count"], 100, "{dump:#}");
    assert_eq!(group["doing"], "parks");
    let members = group["threads"].as_array().unwrap();
    assert_eq!(members.len(), 25);
    let name = members[0]["name"].as_str().unwrap();
    assert!(name.starts_with("<img src=x>;"), "{name}");

    // One stack for all of them, since their names differ by a number only.
    let number = &dump["number"];
    let stacks = get(addr, &format!("/stacks?kind=threads&runtime={number}")).body;
    assert_eq!(stacks.lines().count(), 1, "{stacks}");
    assert!(stacks.starts_with("<img src=x>:#;"), "{stacks}");
    assert!(stacks.ends_with(";parks 100\n"), "{stacks}");
    if cfg!(feature = "flamegraph") {
        let picture = get(addr, &format!("/flame.svg?kind=threads&runtime={number}"));
        assert_eq!(picture.field("content-type"), Some("image/svg+xml"));
        let policy = picture.field("content-security-policy").unwrap();
        assert!(policy.starts_with("sandbox allow-scripts;"), "{policy}");
        assert!(
            picture.body.contains("&lt;img src=x&gt;:#"),
            "{}",
            picture.body
        );
        assert!(!picture.body.contains("<img"));
    }
    let page = get(addr, "/metrics").body;
    let label = "runtime=\"<b>\\\"groups\\\"</b>\"";
    assert!(page.contains(label), "{page}");
    for thread in threads {
        thread.thread().unpark();
        thread.join().unwrap();
    }
    console.shutdown();
}

#[test]
fn many_clients_at_the_same_time_get_their_answers() {
    let program = Runtime::builder().workers(1).name("asked").build().unwrap();
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(move || {
                for path in ["/view.json", "/metrics", "/dump"] {
                    assert_eq!(get(addr, path).status, 200);
                }
            });
        }
    });
    drop(program);
    console.shutdown();
}
