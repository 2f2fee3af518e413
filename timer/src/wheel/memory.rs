//! The memory of timers that have ended. That of timers that other threads have cancelled comes back to the wheel, and
//! spare memory goes back to the system.

use super::Wheel;

impl<T> Wheel<T> {
    /// Whether so much memory is spare that [`trim`](Self::trim) is worth its time: some
    /// hundred KiB, and most of the wheel's memory. Also true while a `trim` has not come to its end.
    pub fn can_trim(&mut self) -> bool {
        self.owner.can_trim()
    }

    /// Calls `discard` for memory in which no timer lives, with its address and its length in bytes, so that its pages
    /// can go back to the system. The memory still belongs to the wheel, and is used again for later timers. A step takes
    /// some 10 us, and there is one for each 1024 timers of the greatest number that there has been. `stop` is called
    /// between the steps. If it returns true, this returns false, and the next call goes on.
    ///
    /// # Safety
    /// `discard` leaves each byte of that memory as it is, or makes it zero. It does nothing else with the memory, and
    /// does nothing with it after it has returned.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// for n in 0..100_000 {
    ///     wheel.insert(Tick::from_nanos_ceil(n), n);
    /// }
    /// wheel.advance(Tick::from_nanos_ceil(200_000), |_| ());
    /// assert!(wheel.can_trim());
    /// let mut bytes = 0;
    /// // SAFETY: the memory is left as it is.
    /// let is_done = unsafe { wheel.trim(|| false, |_, count| bytes += count) };
    /// assert!(is_done && bytes > 1_000_000);
    /// ```
    #[allow(unsafe_code, reason = "the memory is raw where no timer lives")]
    pub unsafe fn trim(
        &mut self,
        stop: impl Fn() -> bool,
        discard: impl FnMut(*mut u8, usize),
    ) -> bool {
        // SAFETY: by contract.
        unsafe { self.owner.trim(stop, discard) }
    }

    /// Makes the memory of timers that other threads have cancelled usable again. Each insert and
    /// advance does so for some of them. An owner that does neither for long may call this.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let key = wheel.insert(Tick::from_nanos_ceil(1_000_000), ());
    /// wheel.remote().cancel(key);
    /// assert!(wheel.next_deadline().is_some(), "it may be too early");
    /// wheel.drain();
    /// assert_eq!(wheel.next_deadline(), None);
    /// ```
    #[inline]
    pub fn drain(&mut self) {
        self.drain_limited(usize::MAX);
    }

    /// As [`drain`](Self::drain), for at most `limit` timers. Returns whether these were all.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let keys = [(); 3].map(|()| wheel.insert(Tick::MAX, ()));
    /// let remote = wheel.remote();
    /// keys.map(|key| remote.cancel(key));
    /// assert!(!wheel.drain_limited(2));
    /// assert!(wheel.drain_limited(2));
    /// ```
    #[inline]
    pub fn drain_limited(&mut self, limit: usize) -> bool {
        if self.owner.has_cancelled() {
            self.drain_cancelled(limit);
            return !self.owner.has_cancelled();
        }
        true
    }

    /// Takes out at most `limit` cancelled timers, and returns how many.
    #[cold]
    pub(super) fn drain_cancelled(&mut self, limit: usize) -> usize {
        let mut drained = 0;
        while drained < limit
            && let Some(index) = self.owner.first_cancelled()
        {
            if !self.owner.is_detached(index) {
                self.unlink(index, self.owner.links(index));
            }
            self.owner.recycle(index);
            drained += 1;
        }
        drained
    }
}
