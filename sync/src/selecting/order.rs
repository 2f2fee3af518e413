//! The order in which arms are visited: a random order, or their own.

use super::arm::Arm;
use crate::shim::random;

/// Returns a random number below `bound`.
fn below(bound: usize) -> usize {
    // The random number is taken as a fraction of 2^64.
    let choice = (u128::from(random()) * bound as u128) >> 64;
    usize::try_from(choice).unwrap_or(0)
}

/// For this many arms the order needs no memory.
const INLINE_ORDER: usize = 64;

/// Tries the arms for which `worth` returns true, in a random order, until one has committed. Returns which one.
#[inline]
pub(super) fn choose(
    arms: &mut [&mut dyn Arm],
    biased: bool,
    worth: impl Fn(&dyn Arm) -> bool,
    mut commits: impl FnMut(&mut dyn Arm) -> bool,
) -> Option<usize> {
    if arms.len() > INLINE_ORDER {
        let mut order = long_order(arms.len(), biased).into_iter();
        return order.find(|&index| worth(arms[index]) && commits(arms[index]));
    }
    let mut admitted: u64 = 0;
    for (index, arm) in arms.iter().enumerate() {
        admitted |= u64::from(worth(*arm)) << index;
    }
    first_of(admitted, biased, |index| commits(arms[index]))
}

/// Visits the arms, in a random order, or in their own if `biased`, until `visit` returns true. Returns where.
pub(super) fn visit_all(
    arms: &mut [&mut dyn Arm],
    biased: bool,
    mut visit: impl FnMut(&mut dyn Arm, usize) -> bool,
) -> Option<usize> {
    if arms.len() > INLINE_ORDER {
        let mut order = long_order(arms.len(), biased).into_iter();
        return order.find(|&index| visit(arms[index], index));
    }
    let all = (0..arms.len()).fold(0, |all: u64, _| all << 1 | 1);
    first_of(all, biased, |index| visit(arms[index], index))
}

/// Visits the numbers of the bits, in a random order or in their own, until `visit` returns true. Returns at which
/// one.
#[inline(always)]
fn first_of(mut left: u64, biased: bool, mut visit: impl FnMut(usize) -> bool) -> Option<usize> {
    while left != 0 {
        let rest = left & (left - 1);
        let bit = if biased || rest == 0 {
            left ^ rest
        } else {
            random_bit(left)
        };
        let index = bit.trailing_zeros() as usize;
        if visit(index) {
            return Some(index);
        }
        left ^= bit;
    }
    None
}

/// Returns the numbers below `count`, in a random order, or in their own if `biased`.
#[cold]
fn long_order(count: usize, biased: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if !biased {
        for last in (1..count).rev() {
            order.swap(last, below(last + 1));
        }
    }
    order
}

fn random_bit(mut bits: u64) -> u64 {
    for _ in 0..below(bits.count_ones() as usize) {
        bits &= bits - 1;
    }
    bits & bits.wrapping_neg()
}
