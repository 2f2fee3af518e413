//! `block_on` with futures that others have written: async-channel and the futures crate.

use futures::future::{Either, join_all, select};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};

use crate::support::{Count, each_mode, everywhere};

#[test]
fn an_async_channel_joins_green_threads_and_os_threads() {
    each_mode(|rt| {
        let (sender, receiver) = async_channel::bounded::<u64>(2);
        let sending: Vec<_> = (0..4)
            .map(|n| {
                let sender = sender.clone();
                rt.spawn(move || {
                    for i in 0..50 {
                        weald::block_on(sender.send(n * 50 + i)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let theirs = receiver.clone();
        let take = |receiver: async_channel::Receiver<u64>| {
            move || {
                let mut sum = 0;
                while let Ok(n) = weald::block_on(receiver.recv()) {
                    sum += n;
                }
                sum
            }
        };
        let green = rt.spawn(take(receiver));
        let os = std::thread::spawn(take(theirs));
        for thread in sending {
            thread.join().unwrap();
        }
        let sum: u64 = green.join().unwrap() + os.join().unwrap();
        assert_eq!(sum, (0..200).sum::<u64>());
    });
}

#[test]
fn combinators_run_several_futures_on_one_thread() {
    everywhere(|| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..5).map(|_| futures::channel::oneshot::channel()).unzip();
        let sender = weald::spawn(move || {
            for (n, sender) in senders.into_iter().enumerate() {
                weald::yield_now();
                sender.send(n).unwrap();
            }
        });
        let all = weald::block_on(join_all(receivers));
        let sum: usize = all.into_iter().map(Result::unwrap).sum();
        assert_eq!(sum, 10);
        sender.join().unwrap();

        let ready = weald::block_on(async {
            let never = futures::future::pending::<()>();
            match select(async { 7 }.boxed(), never).await {
                Either::Left((value, _)) => value,
                Either::Right(_) => unreachable!(),
            }
        });
        assert_eq!(ready, 7);
    });
}

#[test]
fn a_stream_and_a_sink_wait_for_each_other() {
    everywhere(|| {
        let (mut sink, stream) = futures::channel::mpsc::channel(1);
        let got = Count::default();
        let counts = got.clone();
        let reader = weald::spawn(move || {
            weald::block_on(stream.for_each(|_: u32| {
                counts.add();
                futures::future::ready(())
            }));
        });
        weald::block_on(async {
            for n in 0..100 {
                sink.send(n).await.unwrap();
            }
        });
        drop(sink);
        reader.join().unwrap();
        assert_eq!(got.get(), 100);
    });
}
