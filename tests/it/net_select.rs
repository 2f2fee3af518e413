//! `select` and `poll` over descriptors: they are level-triggered, return everything that is ready, and leave nothing
//! behind.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use weald::net::unix::UnixStream;
use weald::net::{PollFd, Selected, UdpSocket, poll};
use weald::{Elapsed, Killed};

use crate::support::{
    Flag, HOUR, MS, Mark, caught, each_mode, everywhere, green_pair, in_each_mode, settle,
    source_of, std_pair, v4, was_killed,
};

fn selected(read: &[usize], write: &[usize], except: &[usize]) -> Selected {
    Selected {
        read: read.to_vec(),
        write: write.to_vec(),
        except: except.to_vec(),
    }
}

fn reads(fds: &[&dyn AsFd], timeout: Option<Duration>) -> Vec<usize> {
    let selected = weald::select(fds, &[], &[], timeout).unwrap();
    assert!(selected.write.is_empty() && selected.except.is_empty());
    selected.read
}

/// Runs `later` in a green thread while this thread waits.
fn meanwhile(later: impl FnOnce() + Send + 'static) -> weald::JoinHandle<()> {
    weald::spawn(move || {
        settle();
        later();
    })
}

#[test]
fn all_that_are_ready_are_reported_and_again_until_they_are_attended_to() {
    everywhere(|| {
        let (mut one, far_one) = UnixStream::pair().unwrap();
        let (_two, far_two) = UnixStream::pair().unwrap();
        let (mut three, far_three) = UnixStream::pair().unwrap();
        one.write_all(b"x").unwrap();
        three.write_all(b"yy").unwrap();
        let fds: [&dyn AsFd; 3] = [&far_one, &far_two, &far_three];
        for _ in 0..3 {
            let all = weald::select(&fds, &fds, &fds, Some(HOUR)).unwrap();
            assert_eq!(all, selected(&[0, 2], &[0, 1, 2], &[]));
        }
        (&far_three).read_exact(&mut [0]).unwrap();
        assert_eq!(reads(&fds, None), [0, 2], "a byte is left");
        (&far_three).read_exact(&mut [0]).unwrap();
        assert_eq!(reads(&fds, None), [0]);
    });
}

#[test]
fn a_wait_ends_when_something_comes() {
    everywhere(|| {
        let (one, far_one) = UnixStream::pair().unwrap();
        let (mut two, far_two) = UnixStream::pair().unwrap();
        let sender = meanwhile(move || two.write_all(b"late").unwrap());
        assert_eq!(reads(&[&far_one, &far_two], None), [1]);
        sender.join().unwrap();
        let closer = meanwhile(move || drop(one));
        assert_eq!(reads(&[&far_one], Some(HOUR)), [0], "an end is news");
        closer.join().unwrap();
    });
}

#[test]
fn a_write_becomes_ready_when_there_is_room() {
    everywhere(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[0; 4096]).is_ok() {}
        let full = weald::select(&[], &[&near], &[], Some(Duration::ZERO)).unwrap();
        assert_eq!(full, Selected::default());
        let reader = meanwhile(move || {
            let mut buffer = vec![0; 1 << 16];
            while far.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let room = weald::select(&[], &[&near], &[], Some(HOUR)).unwrap();
        assert_eq!(room.write, [0]);
        drop(near);
        reader.join().unwrap();
    });
}

#[test]
fn zero_polls_a_duration_waits_so_long_and_nothing_is_found() {
    everywhere(|| {
        let (_near, far) = UnixStream::pair().unwrap();
        assert_eq!(reads(&[&far], Some(Duration::ZERO)), [0; 0]);
        for limit in [Duration::from_micros(300), 20 * MS] {
            let start = Instant::now();
            assert_eq!(reads(&[&far], Some(limit)), [0; 0]);
            assert!(start.elapsed() >= limit);
        }
        let start = Instant::now();
        let none = weald::select(&[], &[], &[], Some(10 * MS)).unwrap();
        assert_eq!(none, Selected::default());
        assert!(
            start.elapsed() >= 10 * MS,
            "empty lists wait out the timeout"
        );
    });
}

#[test]
fn out_of_band_data_is_exceptional() {
    everywhere(|| {
        let (near, far) = std_pair(v4());
        let quiet = weald::select(&[], &[], &[&near], Some(Duration::ZERO)).unwrap();
        assert_eq!(quiet, Selected::default());
        let sender = meanwhile(move || {
            let urgent = socket2::SockRef::from(&far).send_out_of_band(b"!");
            assert_eq!(urgent.unwrap(), 1);
            // It stays open until it was seen.
            weald::park();
        });
        let urgent = weald::select(&[], &[], &[&near], Some(HOUR)).unwrap();
        assert_eq!(urgent, selected(&[], &[], &[0]));
        let all = weald::select(&[&near], &[&near], &[&near], Some(HOUR)).unwrap();
        assert_eq!((all.write, all.except), (vec![0], vec![0]));
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let taken = socket2::SockRef::from(&near).recv_out_of_band(&mut byte);
        assert_eq!(taken.unwrap(), 1);
        let quiet = weald::select(&[], &[], &[&near], Some(Duration::ZERO)).unwrap();
        assert_eq!(quiet, Selected::default());
        sender.thread().unpark();
        sender.join().unwrap();
    });
}

#[test]
fn an_end_and_an_error_count_as_ready() {
    everywhere(|| {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let gone = weald::select(&[&near], &[&near], &[], None).unwrap();
        assert_eq!(gone, selected(&[0], &[0], &[]));
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(
            weald::select(&[], &[&writer], &[], None).unwrap().write,
            [0]
        );
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(reads(&[&reader], None), [0]);
        // A refused connection.
        let gone = UdpSocket::bind(v4()).unwrap().local_addr().unwrap();
        let near = UdpSocket::bind(v4()).unwrap();
        near.connect(gone).unwrap();
        near.send(b"anybody?").unwrap();
        assert_eq!(reads(&[&near], None), [0]);
    });
}

#[test]
fn ordinary_files_are_always_ready_and_disturb_nobody() {
    everywhere(|| {
        let file = File::open("/proc/self/exe").unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let ready = weald::select(&[&far, &file], &[&file], &[], None).unwrap();
        assert_eq!(ready, selected(&[1], &[0], &[]));
        // It waits beside others, in a list where it is never ready: there is no out-of-band data.
        let sender = meanwhile(move || (&near).write_all(b"x").unwrap());
        let ready = weald::select(&[&far], &[], &[&file], Some(HOUR)).unwrap();
        assert_eq!(ready, selected(&[0], &[], &[]));
        sender.join().unwrap();
    });
}

#[test]
fn descriptor_zero_is_one_like_any_other() {
    let child = crate::support::in_child(
        "net_select::descriptor_zero_is_one_like_any_other",
        &[],
        || {
            let (reader, mut writer) = io::pipe().unwrap();
            // SAFETY: nothing in this process uses standard input; the pipe takes its place.
            let zero = unsafe {
                assert_eq!(libc::dup2(reader.as_raw_fd(), 0), 0);
                BorrowedFd::borrow_raw(0)
            };
            for green in [false, true] {
                writer.write_all(b"0").unwrap();
                let check = move || {
                    assert_eq!(reads(&[&zero], Some(HOUR)), [0]);
                    let mut byte = [0];
                    weald::net::Fd::new(zero).read_exact(&mut byte).unwrap();
                    assert_eq!(reads(&[&zero], Some(Duration::ZERO)), [0; 0]);
                };
                if green {
                    weald::spawn(check).join().unwrap();
                } else {
                    check();
                }
            }
        },
    );
    assert!(child.success, "{child:?}");
}

#[test]
fn a_descriptor_that_is_not_open_is_an_error_that_names_it() {
    everywhere(|| {
        // The number is far above those in use, so that no other test opens it.
        // SAFETY: it is never used except to be told that it is not open.
        let closed = unsafe { BorrowedFd::borrow_raw(900_001) };
        let (_near, far) = UnixStream::pair().unwrap();
        for timeout in [Some(Duration::ZERO), None] {
            let error = weald::select(&[&far], &[&far, &closed], &[], timeout).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("900001"), "{error}");
        }
        let mut fds = [PollFd::new(&closed, PollFd::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        assert_eq!(fds[0].revents(), PollFd::NVAL);
    });
}

#[test]
fn many_may_wait_for_the_same_descriptors_and_beside_readers() {
    in_each_mode(|| {
        let (mut near, far) = green_pair(v4());
        let far = &far;
        weald::scope(|s| {
            let waiting: Vec<_> = (0..20)
                .map(|_| s.spawn(move || reads(&[far, far], Some(HOUR))))
                .collect();
            settle();
            near.write_all(b"for all").unwrap();
            for one in waiting {
                assert_eq!(one.join().unwrap(), [0, 1]);
            }
        });
        // What sockets remember of readiness has not changed: a read waits, and is woken.
        let mut text = [0; 7];
        (&*far).read_exact(&mut text).unwrap();
        let writer = meanwhile(move || near.write_all(b"more").unwrap());
        (&*far).read_exact(&mut text[..4]).unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_kill_a_throw_and_a_limit_end_the_wait() {
    each_mode(|rt| {
        rt.run(|| {
            for kills in [true, false] {
                let about_to_wait = Flag::default();
                let tells = about_to_wait.clone();
                let waiting = weald::spawn(move || {
                    let (_near, far) = UnixStream::pair().unwrap();
                    tells.set();
                    let error = weald::select(&[&far], &[], &[], None).unwrap_err();
                    if kills {
                        assert!(source_of::<Killed>(&error).is_some());
                        // The next one unwinds.
                        let _ = weald::select(&[&far], &[], &[], None);
                    }
                    assert_eq!(source_of::<Mark>(&error), Some(&Mark(3)));
                });
                about_to_wait.wait();
                settle();
                if kills {
                    waiting.thread().kill();
                    assert!(was_killed(&waiting.join()));
                } else {
                    waiting.thread().throw(Mark(3));
                    waiting.join().unwrap();
                }
            }
        });
    });
    everywhere(|| {
        let (_near, far) = UnixStream::pair().unwrap();
        let outcome = weald::timeout(10 * MS, || {
            let error = weald::select(&[&far], &[], &[], None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
    });
}

#[test]
fn an_os_thread_that_waits_is_reached_by_exceptions() {
    crate::support::with_deadline(crate::support::LIMIT, || {
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let (_near, far) = UnixStream::pair().unwrap();
            tell.send(weald::current()).unwrap();
            let error = weald::select(&[&far], &[], &[], None).unwrap_err();
            assert_eq!(source_of::<Mark>(&error), Some(&Mark(4)));
            tell.send(weald::current()).unwrap();
            let error = weald::select(&[&far], &[], &[], Some(HOUR)).unwrap_err();
            assert!(source_of::<Killed>(&error).is_some());
            assert!(caught(|| weald::sleep(MS)).is_err(), "a kill lasts");
        });
        let thread = told.recv().unwrap();
        std::thread::sleep(10 * MS);
        thread.throw(Mark(4));
        told.recv().unwrap();
        std::thread::sleep(10 * MS);
        thread.kill();
        waiting.join().unwrap();
    });
}

#[test]
fn inside_blocking_it_works_as_outside() {
    in_each_mode(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || near.write_all(b"x").unwrap());
        let ready = weald::blocking(|| reads(&[&far], Some(HOUR)));
        assert_eq!(ready, [0]);
        writer.join().unwrap();
    });
}

#[test]
fn poll_has_the_shape_of_libcs() {
    everywhere(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (other, _kept) = UnixStream::pair().unwrap();
        let mut fds = [
            PollFd::new(&far, PollFd::IN | PollFd::OUT),
            PollFd::new(&other, PollFd::IN),
        ];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        assert_eq!(fds[0].revents(), PollFd::OUT);
        fds[0].set_events(PollFd::IN);
        assert_eq!(poll(&mut fds, Some(MS)).unwrap(), 0);
        assert_eq!(fds[0].revents(), 0);
        let writer = weald::spawn(move || {
            settle();
            near.write_all(b"x").unwrap();
        });
        assert_eq!(poll(&mut fds, Some(HOUR)).unwrap(), 1);
        assert_eq!(
            (fds[0].revents() & PollFd::IN, fds[1].revents()),
            (PollFd::IN, 0)
        );
        assert_eq!(fds[0].as_fd().as_raw_fd(), far.as_raw_fd());
        writer.join().unwrap();
        // The call asks for nothing, but a hang-up is still told.
        let mut fds = [PollFd::new(&far, 0)];
        assert_eq!(poll(&mut fds, Some(HOUR)).unwrap(), 1);
        assert_eq!(fds[0].revents() & PollFd::HUP, PollFd::HUP);
    });
}

#[test]
fn a_descriptor_that_is_closed_and_used_again_meets_no_remains() {
    in_each_mode(|| {
        for _ in 0..50 {
            let (near, far) = UnixStream::pair().unwrap();
            let kept = far.try_clone().unwrap();
            // The clone keeps the open file: if a wait left something behind, it would go on telling of the file.
            assert_eq!(reads(&[&far], Some(Duration::from_micros(100))), [0; 0]);
            let number = far.as_raw_fd();
            drop(far);
            let (_quiet, next) = UnixStream::pair().unwrap();
            (&near).write_all(b"x").unwrap();
            assert_eq!(reads(&[&next], Some(Duration::from_micros(100))), [0; 0]);
            assert_eq!(reads(&[&kept], None), [0]);
            let _ = number;
        }
    });
}

#[test]
fn a_wait_for_many_descriptors_finds_the_one() {
    in_each_mode(|| {
        let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
        weald::scope(|s| {
            let waiting = s.spawn(|| {
                let fds: Vec<_> = pairs.iter().map(|pair| &pair.1 as &dyn AsFd).collect();
                reads(&fds, Some(HOUR))
            });
            settle();
            (&pairs[137].0).write_all(b"x").unwrap();
            assert_eq!(waiting.join().unwrap(), [137]);
        });
    });
}

#[test]
fn more_entries_than_the_process_may_have_descriptors_are_watched() {
    let name = "net_select::more_entries_than_the_process_may_have_descriptors_are_watched";
    let child = crate::support::in_child(name, &[], || {
        let bound = libc::rlimit {
            rlim_cur: 300,
            rlim_max: 300,
        };
        // SAFETY: a live argument, which is only read.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const bound) };
        assert_eq!(set, 0);
        everywhere(|| {
            let pairs: Vec<_> = (0..60).map(|_| UnixStream::pair().unwrap()).collect();
            let fds: Vec<_> = pairs.iter().map(|pair| &pair.1 as &dyn AsFd).collect();
            // 120 descriptors, 420 entries.
            let often = fds.repeat(3);
            let none = weald::select(&often, &[], &often, Some(MS)).unwrap();
            assert_eq!(none, Selected::default());
            let all = weald::select(&often, &fds, &often, None).unwrap();
            assert_eq!(
                (all.read, all.write.len(), all.except),
                (vec![], 60, vec![])
            );
            weald::scope(|s| {
                s.spawn(|| (&pairs[59].0).write_all(b"x").unwrap());
                // The kernel looks at one entry after the other, so some entries see what comes meanwhile.
                let some = weald::select(&often, &[], &often, Some(HOUR)).unwrap();
                assert!(some.read.contains(&179), "{some:?}");
                let all = weald::select(&often, &[], &often, Some(HOUR)).unwrap();
                assert_eq!(all, selected(&[59, 119, 179], &[], &[]));
            });
            let mut asked: Vec<_> = often
                .iter()
                .map(|fd| PollFd::new(*fd, PollFd::IN))
                .collect();
            asked.extend(often.iter().map(|fd| PollFd::new(*fd, PollFd::OUT)));
            assert_eq!(poll(&mut asked, Some(HOUR)).unwrap(), 183);
        });
    });
    assert!(child.success, "{child:?}");
}

#[test]
fn other_kinds_of_descriptors_wake_it() {
    everywhere(|| {
        // SAFETY: no pointers; the descriptor is new.
        let event = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        let (mut counter, clone) = (
            weald::net::Fd::new(event.try_clone().unwrap()),
            event.try_clone().unwrap(),
        );
        let adder = meanwhile(move || {
            counter.write_all(&3_u64.to_ne_bytes()).unwrap();
        });
        assert_eq!(reads(&[&clone], Some(HOUR)), [0]);
        adder.join().unwrap();
        let mut bytes = [0; 8];
        weald::net::Fd::new(&event).read_exact(&mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes), 3);
    });
}

#[test]
fn an_exception_that_comes_together_with_an_event_is_raised_all_the_same() {
    fn wait(tell: &std::sync::mpsc::Sender<weald::GreenThread>, far: &UnixStream) {
        tell.send(weald::current()).unwrap();
        match weald::select(&[far], &[], &[], None) {
            Err(error) => assert_eq!(source_of::<Mark>(&error), Some(&Mark(5))),
            Ok(selected) => {
                assert_eq!(selected.read, [0]);
                let later = weald::catch::<Mark, _>(|| weald::sleep(HOUR));
                assert_eq!(later.unwrap_err(), Mark(5));
            }
        }
    }
    crate::support::with_deadline(crate::support::LIMIT, || {
        let rt = weald::Runtime::builder().workers(1).build().unwrap();
        for round in 0..200 {
            let (near, far) = UnixStream::pair().unwrap();
            let (tell, told) = std::sync::mpsc::channel::<weald::GreenThread>();
            let disturb = move || {
                let thread = told.recv().unwrap();
                std::thread::sleep(Duration::from_micros(round % 50));
                (&near).write_all(b"x").unwrap();
                thread.throw(Mark(5));
                near
            };
            let disturbing = std::thread::spawn(disturb);
            if round % 2 == 0 {
                wait(&tell, &far);
            } else {
                rt.run(|| wait(&tell, &far));
            }
            drop(disturbing.join().unwrap());
        }
    });
}
