//! Green TCP streams and listeners: the contract of DESIGN 4.4, on IPv4 and IPv6. Interruptions are in `net_interrupt`.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use weald::net;

use crate::support::{
    Count, Flag, HOUR, MS, each_mode_on, each_net, everywhere, green_pair, is_nonblocking, settle,
    std_pair, v4, wait_until,
};

#[test]
fn what_one_end_writes_the_other_reads() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        assert_eq!(near.local_addr().unwrap(), far.peer_addr().unwrap());
        assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
        near.write_all(b"there").unwrap();
        let mut text = [0; 5];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"there");
        far.write_all(b"back").unwrap();
        drop(far);
        let mut rest = String::new();
        near.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "back");
        assert_eq!(
            near.read(&mut text).unwrap(),
            0,
            "the end of the stream stays its end"
        );
    });
}

#[test]
fn a_read_waits_for_the_byte_that_comes_later() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        let about_to_read = Flag::default();
        let tells = about_to_read.clone();
        let reader = weald::spawn(move || {
            let mut byte = [0];
            tells.set();
            near.read_exact(&mut byte).unwrap();
            byte[0]
        });
        about_to_read.wait();
        settle();
        assert!(!reader.is_finished());
        far.write_all(&[42]).unwrap();
        assert_eq!(reader.join().unwrap(), 42);
    });
}

#[test]
fn full_duplex_on_one_shared_stream_carries_four_megabytes_each_way() {
    fn send(mut stream: &net::TcpStream, seed: u8) {
        let mut block = vec![0; 64 * 1024];
        for round in 0..64_u8 {
            block.fill(seed.wrapping_add(round));
            stream.write_all(&block).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    }
    fn receive(mut stream: &net::TcpStream, seed: u8) {
        let mut block = vec![0; 64 * 1024];
        for round in 0..64_u8 {
            stream.read_exact(&mut block).unwrap();
            assert!(block.iter().all(|&byte| byte == seed.wrapping_add(round)));
        }
        assert_eq!(stream.read(&mut block).unwrap(), 0);
    }
    each_net(|addr| {
        let (near, far) = green_pair(addr);
        weald::scope(|s| {
            s.spawn(|| send(&near, 3));
            s.spawn(|| receive(&near, 100));
            s.spawn(|| send(&far, 100));
            s.spawn(|| receive(&far, 3));
        });
    });
}

#[test]
fn sixteen_acceptors_on_one_listener_all_live_and_share_the_connections() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        let to = listener.local_addr().unwrap();
        let served = Count::default();
        weald::scope(|s| {
            for _ in 0..16 {
                // Each thread takes one: all 16 end only if none is forgotten and none takes two.
                s.spawn(|| {
                    let (mut stream, from) = listener.accept().unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), from);
                    stream
                        .write_all(&[u8::try_from(served.add()).unwrap()])
                        .unwrap();
                });
            }
            settle();
            let clients: Vec<_> = (0..16).map(|_| weald::connect_tcp(to).unwrap()).collect();
            let mut tickets: Vec<u8> = clients
                .into_iter()
                .map(|mut client| {
                    let mut ticket = [0];
                    client.read_exact(&mut ticket).unwrap();
                    ticket[0]
                })
                .collect();
            tickets.sort_unstable();
            assert_eq!(tickets, (0..16).collect::<Vec<_>>());
        });
    });
}

#[test]
fn many_readers_of_one_stream_share_its_bytes_and_each_byte_goes_to_one() {
    each_net(|addr| {
        const BYTES: usize = 20_000;
        let (near, mut far) = green_pair(addr);
        let sums: Vec<(usize, u64)> = weald::scope(|s| {
            let readers: Vec<_> = (0..8)
                .map(|_| {
                    s.spawn(|| {
                        let (mut bytes, mut sum, mut buffer) = (0, 0_u64, [0; 7]);
                        loop {
                            let n = (&near).read(&mut buffer).unwrap();
                            if n == 0 {
                                return (bytes, sum);
                            }
                            bytes += n;
                            sum += buffer[..n].iter().map(|&b| u64::from(b)).sum::<u64>();
                            weald::yield_now();
                        }
                    })
                })
                .collect();
            let data: Vec<u8> = (0..BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
            data.chunks(100).for_each(|chunk| {
                far.write_all(chunk).unwrap();
                weald::yield_now();
            });
            far.shutdown(Shutdown::Write).unwrap();
            readers.into_iter().map(|h| h.join().unwrap()).collect()
        });
        let expected = (0..BYTES).map(|i| (i % 251) as u64).sum::<u64>();
        assert_eq!(sums.iter().map(|s| s.0).sum::<usize>(), BYTES);
        assert_eq!(sums.iter().map(|s| s.1).sum::<u64>(), expected);
    });
}

#[test]
fn several_writers_of_one_stream_all_get_through() {
    each_net(|addr| {
        let (near, mut far) = green_pair(addr);
        weald::scope(|s| {
            let writers: Vec<_> = (1..=4_u8)
                .map(|i| {
                    let mut near = &near;
                    s.spawn(move || near.write_all(&vec![i; 1 << 20]).unwrap())
                })
                .collect();
            let mut seen = [0_usize; 5];
            let mut buffer = vec![0; 64 * 1024];
            while seen.iter().sum::<usize>() < 4 << 20 {
                let n = far.read(&mut buffer).unwrap();
                assert!(n > 0);
                buffer[..n]
                    .iter()
                    .for_each(|&byte| seen[usize::from(byte)] += 1);
            }
            assert_eq!(seen, [0, 1 << 20, 1 << 20, 1 << 20, 1 << 20]);
            for h in writers {
                h.join().unwrap();
            }
        });
    });
}

#[test]
fn shutdown_wakes_every_green_thread_that_waits_to_read() {
    each_net(|addr| {
        let (near, _far) = green_pair(addr);
        weald::scope(|s| {
            let readers: Vec<_> = (0..4)
                .map(|_| s.spawn(|| (&near).read(&mut [0]).unwrap()))
                .collect();
            settle();
            near.shutdown(Shutdown::Both).unwrap();
            for h in readers {
                assert_eq!(h.join().unwrap(), 0);
            }
        });
    });
}

#[test]
fn shutdown_of_a_clone_wakes_who_waits_to_write() {
    each_net(|addr| {
        let (mut near, _far) = green_pair(addr);
        let clone = near.try_clone().unwrap();
        let full = Flag::default();
        let tells = full.clone();
        let writer = weald::spawn(move || {
            let block = vec![0; 1 << 20];
            loop {
                // The far end never reads, so this waits sooner or later.
                tells.set();
                if let Err(error) = near.write_all(&block) {
                    return error.kind();
                }
            }
        });
        full.wait();
        settle();
        clone.shutdown(Shutdown::Both).unwrap();
        assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_peer_that_goes_away_wakes_who_waits() {
    each_net(|addr| {
        let (mut near, far) = std_pair(addr);
        let reader = weald::spawn(move || near.read(&mut [0]).unwrap());
        settle();
        drop(far);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn dropping_the_last_clone_closes_the_connection_and_not_before() {
    each_net(|addr| {
        let (near, mut far) = green_pair(addr);
        let clone = near.try_clone().unwrap();
        drop(near);
        far.set_read_timeout(Some(10 * MS)).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        far.set_read_timeout(None).unwrap();
        drop(clone);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_passed_timeout_is_timed_out_and_not_early() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        for micros in [1, 500, 1000, 1500, 30_000] {
            let limit = Duration::from_micros(micros);
            near.set_read_timeout(Some(limit)).unwrap();
            let start = Instant::now();
            assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(near.peek(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(start.elapsed() >= 2 * limit);
        }
        // Each call has the whole time, and reads what comes in time.
        near.set_read_timeout(Some(HOUR)).unwrap();
        far.write_all(b"a").unwrap();
        near.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_passed_write_timeout_is_timed_out_and_what_was_written_is_counted() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let block = vec![9; 1 << 20];
        let mut written = 0;
        let error = loop {
            match near.write(&block) {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), written);
    });
}

#[test]
fn what_is_there_is_read_however_short_the_timeout() {
    everywhere(|| {
        let (mut near, mut far) = green_pair(v4());
        near.set_read_timeout(Some(Duration::from_nanos(1)))
            .unwrap();
        for _ in 0..100 {
            let empty = near.read(&mut [0]).unwrap_err();
            assert_eq!(empty.kind(), ErrorKind::TimedOut);
            // The kernel has the byte, but its event has not come.
            far.write_all(b"x").unwrap();
            assert_eq!(near.read(&mut [0]).unwrap(), 1);
        }
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn timeouts_read_back_exactly_as_set_and_zero_is_invalid_input() {
    each_net(|addr| {
        let (near, _far) = green_pair(addr);
        assert_eq!(
            (near.read_timeout().unwrap(), near.write_timeout().unwrap()),
            (None, None)
        );
        let odd = [1, 999, 1001, 123_456_789, 3_000_000_007].map(Duration::from_nanos);
        for time in odd.into_iter().chain([HOUR, Duration::MAX]) {
            near.set_read_timeout(Some(time)).unwrap();
            assert_eq!(near.read_timeout().unwrap(), Some(time));
            assert_ne!(
                near.write_timeout().unwrap(),
                Some(time),
                "the directions are apart"
            );
            near.set_write_timeout(Some(time)).unwrap();
            assert_eq!(near.write_timeout().unwrap(), Some(time));
            near.set_write_timeout(None).unwrap();
        }
        near.set_read_timeout(Some(7 * MS)).unwrap();
        for set in [
            net::TcpStream::set_read_timeout,
            net::TcpStream::set_write_timeout,
        ] {
            assert_eq!(
                set(&near, Some(Duration::ZERO)).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
        assert_eq!(
            near.read_timeout().unwrap(),
            Some(7 * MS),
            "a refused value changes nothing"
        );
    });
}

#[test]
fn peek_leaves_what_it_saw_and_waits_like_a_read() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        let writer = weald::spawn(move || {
            settle();
            far.write_all(b"peek").unwrap();
            far
        });
        let mut seen = [0; 4];
        assert!(near.peek(&mut seen).unwrap() > 0);
        let _far = writer.join().unwrap();
        near.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"peek");
    });
}

#[test]
fn vectored_calls_fill_and_empty_several_buffers() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        let sent = near
            .write_vectored(&[
                IoSlice::new(b"abc"),
                IoSlice::new(b""),
                IoSlice::new(b"defg"),
            ])
            .unwrap();
        assert_eq!(sent, 7, "one call took all three");
        wait_until(|| far.peek(&mut [0; 8]).unwrap() == 7);
        let (mut first, mut second) = ([0; 2], [0; 5]);
        let got = far
            .read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)])
            .unwrap();
        assert_eq!((got, &first, &second), (7, b"ab", b"cdefg"));
    });
}

#[test]
fn incoming_gives_one_connection_after_the_other() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        let to = listener.local_addr().unwrap();
        let clients = weald::spawn(move || {
            (0..3)
                .map(|_| weald::connect_tcp(to).unwrap())
                .collect::<Vec<_>>()
        });
        let accepted: Vec<_> = listener.incoming().take(3).map(Result::unwrap).collect();
        let clients = clients.join().unwrap();
        let mut from: Vec<_> = accepted.iter().map(|s| s.peer_addr().unwrap()).collect();
        let mut of: Vec<_> = clients.iter().map(|s| s.local_addr().unwrap()).collect();
        from.sort_unstable();
        of.sort_unstable();
        assert_eq!(from, of);
    });
}

#[test]
fn set_nonblocking_is_a_flag_of_ours() {
    each_net(|addr| {
        let (mut near, mut far) = green_pair(addr);
        let as_before = is_nonblocking(&near);
        near.set_nonblocking(true).unwrap();
        assert_eq!(
            is_nonblocking(&near),
            as_before,
            "the open file was touched"
        );
        assert_eq!(
            near.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(
            near.peek(&mut [0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let block = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = near.write(&block) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        near.set_nonblocking(false).unwrap();
        let writer = weald::spawn(move || {
            settle();
            far.write_all(b"q").unwrap();
            far
        });
        near.read_exact(&mut [0]).unwrap();
        drop(writer.join().unwrap());
        let listener = weald::tcp_listener(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        let _client = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn no_worker_is_held_by_a_socket_that_waits() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let pairs: Vec<_> = (0..200).map(|_| green_pair(v4())).collect();
            let (nears, fars): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let echo = |mut stream: net::TcpStream| {
                weald::spawn(move || {
                    let mut byte = [0];
                    while stream.read(&mut byte).unwrap() == 1 {
                        stream.write_all(&byte).unwrap();
                    }
                })
            };
            let servers: Vec<_> = fars.into_iter().map(echo).collect();
            for round in 0..5 {
                for mut near in &nears {
                    near.write_all(&[round]).unwrap();
                }
                for mut near in &nears {
                    let mut byte = [0];
                    near.read_exact(&mut byte).unwrap();
                    assert_eq!(byte[0], round);
                }
            }
            drop(nears);
            for h in servers {
                h.join().unwrap();
            }
        });
    });
}
