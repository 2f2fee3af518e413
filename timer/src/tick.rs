//! The wheel's unit of time: nanoseconds to ticks and back, rounding so that nothing fires early.
//!
//! A tick is 2^14 ns = 16.384 us. This is finer than the 50 us or so that an operating system needs to wake
//! a sleeper, so nobody sees the rounding. It is coarse enough that level 0 spans a millisecond. It is a power
//! of two, so that the conversion is a shift.
//!
//! Invariant 1: a tick is at most 2^50 ([`Tick::MAX`]). So nine levels of six bits tell any two ticks
//! apart, and the wheel needs no list for timers that are too far ahead.

/// A point in time, in ticks of 2^14 ns (16.384 us) since a start that the caller chooses.
///
/// The wheel has no clock: the caller measures nanoseconds since a start of its own, and
/// converts them. Deadlines are rounded up and the present is rounded down. So a caller that compares the two
/// is never early, and each rounding makes it late by less than one tick.
///
/// # Examples
/// ```
/// use weald_timer::Tick;
///
/// let deadline = Tick::from_nanos_ceil(1_000_000);
/// let now = Tick::from_nanos_floor(1_000_000);
/// assert!(now < deadline, "rounding never makes a timer early");
/// assert!(deadline.as_nanos() - now.as_nanos() <= Tick::NANOS);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// The length of a tick in nanoseconds.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(weald_timer::Tick::NANOS, 16_384);
    /// ```
    pub const NANOS: u64 = 1 << SHIFT;

    /// The start that the caller chose.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Tick;
    /// assert_eq!(Tick::ZERO, Tick::from_nanos_floor(0));
    /// ```
    pub const ZERO: Self = Self(0);

    /// The last tick, 584 years after the start. A clock that counts nanoseconds in a `u64`, rounded
    /// down, never gets there. So as a deadline it means never.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Tick;
    /// assert_eq!(Tick::MAX, Tick::from_nanos_ceil(u64::MAX));
    /// assert!(Tick::from_nanos_floor(u64::MAX) < Tick::MAX);
    /// ```
    pub const MAX: Self = Self(1 << (u64::BITS - SHIFT));

    /// The first tick that is not before the given nanoseconds: for deadlines.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Tick;
    /// assert_eq!(Tick::from_nanos_ceil(1).as_nanos(), Tick::NANOS);
    /// assert_eq!(Tick::from_nanos_ceil(Tick::NANOS).as_nanos(), Tick::NANOS);
    /// ```
    #[inline]
    pub const fn from_nanos_ceil(nanos: u64) -> Self {
        Self(nanos.div_ceil(Self::NANOS))
    }

    /// The last tick that is not after the given nanoseconds: for the present.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Tick;
    /// assert_eq!(Tick::from_nanos_floor(Tick::NANOS - 1), Tick::ZERO);
    /// ```
    #[inline]
    pub const fn from_nanos_floor(nanos: u64) -> Self {
        Self(nanos >> SHIFT)
    }

    /// The nanoseconds at which this tick begins. `u64::MAX` for [`Tick::MAX`], which begins one
    /// nanosecond later than a `u64` can say.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Tick;
    /// assert_eq!(Tick::from_nanos_floor(20_000).as_nanos(), 16_384);
    /// ```
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        if self.0 == Self::MAX.0 {
            u64::MAX
        } else {
            self.0 << SHIFT
        }
    }

    /// The tick as the number that the levels take apart.
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The tick of that number, which must not exceed that of [`Tick::MAX`].
    #[inline]
    pub(crate) const fn new(ticks: u64) -> Self {
        debug_assert!(ticks <= Self::MAX.0);
        Self(ticks)
    }
}

/// Two to this power is the length of a tick in nanoseconds. A guess: 2^13 would be more precise than any kernel, and
/// with 2^16 a sleep of 100 us would last 165.
const SHIFT: u32 = 14;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_up_for_deadlines_and_down_for_now() {
        for nanos in [
            0,
            1,
            16_383,
            16_384,
            16_385,
            1 << 40,
            u64::MAX - 1,
            u64::MAX,
        ] {
            assert!(Tick::from_nanos_ceil(nanos).as_nanos() >= nanos);
            assert!(Tick::from_nanos_floor(nanos).as_nanos() <= nanos);
            assert!(Tick::from_nanos_ceil(nanos).get() - Tick::from_nanos_floor(nanos).get() <= 1);
        }
    }

    #[test]
    fn as_nanos_keeps_the_order_up_to_the_last_tick() {
        let before_last = Tick::new(Tick::MAX.get() - 1);
        assert!(before_last.as_nanos() < Tick::MAX.as_nanos());
        assert_eq!(Tick::from_nanos_floor(before_last.as_nanos()), before_last);
    }
}
