//! What lies below a stack.

use weald::{Builder, Runtime};

use crate::support::{MODES, MS, Mode, in_child};

/// Uses a frame of this many bytes without touching the bytes between its ends, as code of C compilers does.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn large_frame(bytes: usize) {
    // SAFETY: none: it writes below the stack, which is what the test is about.
    unsafe {
        std::arch::asm!(
            "mov {old}, rsp",
            "sub rsp, {bytes}",
            "mov byte ptr [rsp], 0x5a",
            "mov rsp, {old}",
            old = out(reg) _,
            bytes = in(reg) bytes,
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_large_frame_without_probes_meets_the_guard() {
    let test = "guards::a_large_frame_without_probes_meets_the_guard";
    for (guard, frame) in [("65536", "60000"), ("1048576", "1000000")] {
        for how in ["", "mprotect"] {
            for index in 0..MODES.len() {
                let mode = index.to_string();
                let mut env = vec![
                    ("GUARD_OF_THE_TEST", guard),
                    ("FRAME_OF_THE_TEST", frame),
                    ("MODE_OF_THE_TEST", &*mode),
                ];
                if !how.is_empty() {
                    env.push(("WEALD_STACK_GUARD", how));
                }
                let child = in_child(test, &env, || {
                    let said = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
                    let builder = Runtime::builder().workers(1).stack_size(64 << 10);
                    let builder = builder.guard_size(said("GUARD_OF_THE_TEST"));
                    let builder = match MODES[said("MODE_OF_THE_TEST")] {
                        Mode::Pinned => builder.thread_locals(weald::ThreadLocals::Pinned),
                        Mode::Own => builder.thread_locals(weald::ThreadLocals::Own),
                        // SAFETY: the threads hold nothing thread-local.
                        Mode::Shared => unsafe { builder.share_thread_locals() },
                    };
                    let rt = builder.build().unwrap();
                    let frame = said("FRAME_OF_THE_TEST");
                    rt.run(move || {
                        for _ in 0..20 {
                            drop(weald::spawn(weald::park));
                        }
                        weald::sleep(MS);
                        let diver = Builder::new().name("deep-diver".to_owned());
                        let _ = diver
                            .spawn(move || large_frame(frame + (64 << 10)))
                            .unwrap()
                            .join();
                        println!("went on");
                    });
                });
                assert!(!child.success, "{how} {child:?}");
                assert!(child.signal.is_some(), "it went on: {child:?}");
                let said = &child.stderr;
                assert!(
                    said.contains("overflow") && said.contains("deep-diver"),
                    "{child:?}"
                );
            }
        }
    }
}

#[test]
fn a_guard_size_out_of_bounds_is_refused_with_value_and_bound() {
    for bytes in [0, 1, 4095, (1 << 30) + 1, usize::MAX] {
        let refused = Runtime::builder().workers(1).guard_size(bytes).build();
        let error = refused.map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let text = error.to_string();
        crate::support::check_names(&text, &bytes.to_string(), &["4096", "1073741824"]);
    }
    for bytes in [4096, 5000, 64 << 10, 1 << 30] {
        let rt = Runtime::builder()
            .workers(1)
            .guard_size(bytes)
            .build()
            .unwrap();
        assert_eq!(rt.spawn(|| 7).join().unwrap(), 7);
    }
}

#[test]
fn a_guard_setting_that_means_nothing_keeps_a_runtime_from_starting() {
    let test = "guards::a_guard_setting_that_means_nothing_keeps_a_runtime_from_starting";
    let child = in_child(test, &[("WEALD_STACK_GUARD", "none")], || {
        let error = Runtime::builder().workers(1).build().map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("WEALD_STACK_GUARD"), "{error}");
    });
    assert!(child.success, "{child:?}");
}
