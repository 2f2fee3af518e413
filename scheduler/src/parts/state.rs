//! The state word of a green thread (or of an OS thread that waits like one). It decides which waker may resume it.
//!
//! ```text
//! 63            32 31      16 15        8 7                                     0
//! +---------------+----------+-----------+---------------------------------------+
//! | epoch         | why      |           | LATE ORPHAN IN_PLACE NO_EXC BY_TOKEN  |
//! |               |          |           | HANDLE JOINERS PENDING TOKEN DONE     |
//! |               |          |           | PARKED                                |
//! +---------------+----------+-----------+---------------------------------------+
//! ```
//!
//! | bit      | set by                    | meaning                                             |
//! |----------|---------------------------|-----------------------------------------------------|
//! | PARKED   | `park`, by its carrier    | off its stack; the winner of `wake` owns it         |
//! | DONE     | `finish`                  | ended; the result is there; wakes do nothing        |
//! | TOKEN    | `unpark`                  | the user's wake-up that came early                  |
//! | PENDING  | `interrupt`               | an exception waits to be raised                     |
//! | JOINERS  | `announce_joiner`         | somebody waits in the queue of joiners              |
//! | HANDLE   | at the start              | a `JoinHandle` will take or drop the result         |
//! | BY_TOKEN | `park`, while PARKED      | this wait ends by `unpark`                          |
//! | NO_EXC   | `park`, while PARKED      | this wait does not end by an exception              |
//! | IN_PLACE | `park`, while PARKED      | its OS thread is blocked: wake that, queue nothing  |
//! | ORPHAN   | `finish`                  | the result is there, and nobody will take it        |
//! | LATE     | `finish`                  | an exception came after the thread's last look      |
//!
//! Each wait has an *epoch*, one more than the last one's. A waker names the epoch of the wait that
//! it means:
//!
//! | epoch in the word      | PARKED | `wake(epoch)`                                               |
//! |------------------------|--------|-------------------------------------------------------------|
//! | the waker's            | yes    | wins: clears PARKED, stores why; the thread is the waker's  |
//! | one less               | no     | early: steps the epoch, stores why; `park` will not park    |
//! | any other              | -      | lost: another waker won, or the wait has ended              |
//!
//! Invariant 1: a wait ends exactly once. Either `park` steps the word to the wait's epoch and sets PARKED, and a waker
//! clears PARKED. Or the thread never parks: an early waker steps the word to the epoch, or `park` does because it finds a
//! token or an exception, or `abandon` does.
//! Invariant 2: the thread's carrier sets PARKED when it has left the thread's stack; with IN_PLACE the thread
//! itself sets it. So a winner may resume the thread at once.
//! Invariant 3: no wait but one with BY_TOKEN sets or consumes TOKEN.
//! Invariant 4: the result is dropped or taken once: by the thread itself, before DONE, if it saw no HANDLE; by the
//! handle, if HANDLE was there at DONE; else by the caller that `finish` told of ORPHAN.
//!
//! Orderings: setting PARKED releases the stack, `wake` acquires it. An early wake releases what
//! the waker wrote, `park` acquires it. DONE releases the result. There is no store-load handshake:
//! each move is one read-modify-write of one word.
//! Checked by `loom-tests/tests/state.rs`.

use crate::shim::atomic::{AtomicU64, Ordering};

const PARKED: u64 = 1;
const DONE: u64 = 1 << 1;
const TOKEN: u64 = 1 << 2;
const PENDING: u64 = 1 << 3;
const JOINERS: u64 = 1 << 4;
const HANDLE: u64 = 1 << 5;
const BY_TOKEN: u64 = 1 << 6;
const NO_EXC: u64 = 1 << 7;
const IN_PLACE: u64 = 1 << 8;
const ORPHAN: u64 = 1 << 9;
const LATE: u64 = 1 << 10;
const WAIT_BITS: u64 = PARKED | BY_TOKEN | NO_EXC | IN_PLACE;
const WHY_SHIFT: u32 = 16;
const WHY_MASK: u64 = 0xffff << WHY_SHIFT;
const EPOCH_SHIFT: u32 = 32;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Why(pub(crate) u16);

impl Why {
    /// `unpark` was called.
    pub(crate) const UNPARKED: Why = Why(1);
    /// The deadline passed.
    pub(crate) const TIMED_OUT: Why = Why(2);
    /// An exception waits to be raised.
    pub(crate) const EXCEPTION: Why = Why(3);
    /// A wait queue picked it.
    pub(crate) const NOTIFIED: Why = Why(4);
    /// A selection's partner is through with it.
    pub(crate) const CHOSEN: Why = Why(5);
}

/// What a wait admits; given to [`State::park`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitKind {
    /// `unpark` ends it.
    pub(crate) by_token: bool,
    /// An exception ends it.
    pub(crate) interruptible: bool,
    /// The OS thread blocks.
    pub(crate) in_place: bool,
}

impl WaitKind {
    #[inline(always)]
    fn bits(self) -> u64 {
        // Without a branch, because it is computed at each parking.
        PARKED
            | (u64::from(self.by_token) * BY_TOKEN)
            | (u64::from(!self.interruptible) * NO_EXC)
            | (u64::from(self.in_place) * IN_PLACE)
    }
}

/// What became of a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wake {
    /// The wait was over already, or the thread has ended.
    Lost,
    /// The thread has not parked yet and will not: nothing more to do.
    Early,
    /// The thread is the caller's, and the caller must queue it.
    Won,
    /// The thread's OS thread is blocked: the caller must notify its parker.
    WonInPlace,
}

/// What a thread that has ended leaves for others to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Somebody waits for the end.
    pub(crate) joiners: bool,
    /// The result, which nobody will take.
    pub(crate) result: bool,
    /// Exceptions that came too late.
    pub(crate) errors: bool,
}

/// The word itself; its methods are the legal moves.
#[derive(Debug)]
pub(crate) struct State(AtomicU64);

fn epoch_of(word: u64) -> u32 {
    (word >> EPOCH_SHIFT) as u32
}

fn why_of(word: u64) -> Why {
    Why(((word & WHY_MASK) >> WHY_SHIFT) as u16)
}

/// The word after the wait `epoch` has ended for the reason `why`.
fn ended(word: u64, epoch: u32, why: Why) -> u64 {
    let kept = word & !(WAIT_BITS | WHY_MASK) & 0xffff_ffff;
    kept | (u64::from(why.0) << WHY_SHIFT) | (u64::from(epoch) << EPOCH_SHIFT)
}

impl State {
    /// A thread that has not waited yet. `handle`: somebody will take or drop its result.
    pub(crate) fn new(handle: bool) -> Self {
        Self(AtomicU64::new(if handle { HANDLE } else { 0 }))
    }

    /// The epoch of the next wait. Only the thread itself starts one, so it cannot change meanwhile.
    #[inline]
    pub(crate) fn next_epoch(&self) -> u32 {
        epoch_of(self.0.load(Ordering::Relaxed)).wrapping_add(1)
    }

    /// The epoch of the wait that the thread is parked in. While it is the same, so is the stack.
    #[allow(dead_code, reason = "only traces ask")]
    pub(crate) fn parked_epoch(&self) -> Option<u32> {
        self.parked().map(|(epoch, _)| epoch)
    }

    /// The epoch of the thread's wait and how it waits, if it is parked. The answer may be out of date at once.
    pub(crate) fn parked(&self) -> Option<(u32, WaitKind)> {
        let word = self.0.load(Ordering::Acquire);
        let kind = WaitKind {
            by_token: word & BY_TOKEN != 0,
            interruptible: word & NO_EXC == 0,
            in_place: word & IN_PLACE != 0,
        };
        (word & PARKED != 0).then_some((epoch_of(word), kind))
    }

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) & DONE != 0
    }

    /// Whether an exception waits to be raised. A hint for the thread itself: the inbox decides.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.0.load(Ordering::Relaxed) & PENDING != 0
    }

    /// One step of the word: `next` says what it becomes, or what ends the attempt.
    #[inline(always)]
    fn step<R>(&self, mut next: impl FnMut(u64) -> Result<(u64, R), R>) -> R {
        let no_stack = fault!("state_hands_over_no_stack");
        let relaxed = no_stack || fault!("state_relaxed_step");
        let (done, failed) = if relaxed {
            (Ordering::Relaxed, Ordering::Relaxed)
        } else {
            (Ordering::AcqRel, Ordering::Acquire)
        };
        let mut word = self.0.load(failed);
        loop {
            match next(word) {
                Err(done) => return done,
                Ok((new, result)) => match self.0.compare_exchange_weak(word, new, done, failed) {
                    Ok(_) => return result,
                    Err(now) => word = now,
                },
            }
        }
    }

    /// Parks the thread for the wait `epoch`, or says why the wait is over already.
    ///
    /// Called by the carrier after the switch (invariant 2), or by the thread itself if `in_place`.
    #[inline]
    pub(crate) fn park(&self, epoch: u32, kind: WaitKind) -> Result<(), Why> {
        self.step(|word| {
            if epoch_of(word) == epoch {
                // An early waker was here.
                return Err(Err(why_of(word)));
            }
            debug_assert_eq!(epoch_of(word).wrapping_add(1), epoch, "one wait at a time");
            let seen = !fault!("state_parks_over_an_exception");
            if kind.interruptible && word & PENDING != 0 && seen {
                return Ok((ended(word, epoch, Why::EXCEPTION), Err(Why::EXCEPTION)));
            }
            let seen = !fault!("state_parks_over_a_token");
            if kind.by_token && word & TOKEN != 0 && seen {
                let taken = ended(word & !TOKEN, epoch, Why::UNPARKED);
                return Ok((taken, Err(Why::UNPARKED)));
            }
            let parked = ended(word, epoch, Why(0)) | kind.bits();
            Ok((parked, Ok(())))
        })
    }

    /// Ends the wait `epoch` before the thread has parked. `Some`: a waker was first, and this is its reason.
    #[inline]
    pub(crate) fn abandon(&self, epoch: u32) -> Option<Why> {
        self.step(|word| {
            if epoch_of(word) == epoch {
                return Err(Some(why_of(word)));
            }
            Ok((ended(word, epoch, Why(0)), None))
        })
    }

    /// Why the last wait ended. Called by the thread itself, when it runs again.
    #[inline]
    pub(crate) fn why(&self) -> Why {
        why_of(self.0.load(Ordering::Acquire))
    }

    /// Ends the wait `epoch` if it has not ended.
    #[inline]
    pub(crate) fn wake(&self, epoch: u32, why: Why) -> Wake {
        self.step(|word| {
            if word & DONE != 0 {
                return Err(Wake::Lost);
            }
            let any = fault!("state_wakes_any_wait") && word & PARKED != 0;
            let epoch = if any { epoch_of(word) } else { epoch };
            if epoch_of(word) == epoch && word & PARKED != 0 {
                return Ok((ended(word, epoch, why), won(word)));
            }
            let early = epoch_of(word).wrapping_add(1) == epoch && word & PARKED == 0;
            if early && !fault!("state_wakes_only_who_is_parked") {
                let says_why = !fault!("state_early_wake_tells_no_reason");
                let why = if says_why { why } else { Why(0) };
                return Ok((ended(word, epoch, why), Wake::Early));
            }
            Err(Wake::Lost)
        })
    }

    /// Gives the thread the user's token: ends a wait that takes it, or keeps it for the next such wait.
    #[inline]
    pub(crate) fn unpark(&self) -> Wake {
        self.step(|word| {
            if word & DONE != 0 || word & TOKEN != 0 {
                return Err(Wake::Lost);
            }
            if word & PARKED != 0 && word & BY_TOKEN != 0 {
                return Ok((ended(word, epoch_of(word), Why::UNPARKED), won(word)));
            }
            Ok((word | TOKEN, Wake::Early))
        })
    }

    /// Takes the token, if it is there.
    #[inline]
    pub(crate) fn take_token(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & TOKEN == 0 {
            return false;
        }
        self.0.fetch_and(!TOKEN, Ordering::AcqRel) & TOKEN != 0
    }

    /// Notes that an exception waits, and ends a wait that admits exceptions.
    pub(crate) fn interrupt(&self) -> Wake {
        self.step(|word| {
            if word & DONE != 0 {
                return Err(Wake::Lost);
            }
            if word & PARKED != 0 && word & NO_EXC == 0 {
                let noted = !fault!("state_interrupt_leaves_no_note");
                let note = if noted { PENDING } else { 0 };
                let woken = ended(word & !PENDING, epoch_of(word), Why::EXCEPTION) | note;
                return Ok((woken, won(word)));
            }
            Ok((word | PENDING, Wake::Early))
        })
    }

    /// No exception waits any more. Called by the thread itself, under the lock of its inbox.
    pub(crate) fn clear_pending(&self) {
        self.0.fetch_and(!PENDING, Ordering::AcqRel);
    }

    /// Ends the thread, and publishes its result. `kept`: the result is still in its place.
    /// `listens`: the thread has not closed its inbox. True: something of
    /// the user's is left that no handle will take; [`remains`](Self::remains) says what.
    #[inline]
    pub(crate) fn finish(&self, kept: bool, listens: bool) -> bool {
        let done = relaxed_if!("state_relaxed_finish", Ordering::AcqRel);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(word & DONE, 0, "a thread ends once");
            let mut new = word | DONE;
            if kept && word & HANDLE == 0 && !fault!("state_forgets_the_orphan") {
                new |= ORPHAN;
            }
            if listens && word & PENDING != 0 && !fault!("state_ends_over_an_error") {
                new |= LATE;
            }
            match (self.0).compare_exchange_weak(word, new, done, Ordering::Relaxed) {
                Ok(_) => return new & (ORPHAN | LATE) != 0,
                Err(now) => word = now,
            }
        }
    }

    /// What is left to do for a thread that has stepped to DONE here.
    #[inline]
    pub(crate) fn remains(&self) -> Remains {
        let word = self.0.load(Ordering::Relaxed);
        Remains {
            joiners: word & JOINERS != 0,
            result: word & ORPHAN != 0,
            errors: word & LATE != 0,
        }
    }

    /// Announces that a joiner is in the queue. True: the thread has ended, and nobody will look into the queue.
    pub(crate) fn announce_joiner(&self) -> bool {
        let order = relaxed_if!("state_relaxed_joiner", Ordering::AcqRel);
        self.0.fetch_or(JOINERS, order) & DONE != 0
    }

    /// The handle is dropped. True: the thread has ended, and the caller must drop the result.
    #[inline]
    pub(crate) fn drop_handle(&self) -> bool {
        if self.is_done() {
            // Nobody asks for the handle after the end.
            return true;
        }
        let order = relaxed_if!("state_relaxed_handle", Ordering::AcqRel);
        self.0.fetch_and(!HANDLE, order) & DONE != 0
    }

    /// A `JoinHandle` is still there.
    #[inline]
    pub(crate) fn has_handle(&self) -> bool {
        self.0.load(Ordering::Relaxed) & HANDLE != 0
    }
}

fn won(word: u64) -> Wake {
    if word & IN_PLACE == 0 {
        Wake::Won
    } else {
        Wake::WonInPlace
    }
}
