//! How high a tree may become, computed from thousands of simulated lives with good and bad years. A computation may
//! take long. It uses all idle cores, and delays no other request.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weald::sync::Semaphore;

use crate::failure::Failure;

/// How many lives are computed between two checkpoints. They take a few hundred microseconds.
const PIECE: usize = 500;

/// How many forecasts are computed at the same time: one for each core.
static SEATS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// How long a forecast waits for its turn, and how long it may take then.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub height_m: f64,
    pub years: u32,
    pub lives: u32,
    /// The same seed gives the same forecast.
    #[serde(default)]
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    pub lives: u32,
    /// Nine of ten trees become higher than this.
    pub p10_m: f64,
    pub median_m: f64,
    /// One of ten trees becomes higher than this.
    pub p90_m: f64,
}

impl Ask {
    fn check(&self) -> Result<(), Failure> {
        let mut faults = Vec::new();
        if !(self.height_m > 0.0 && self.height_m <= 150.0) {
            faults.push(("height_m", "must be above 0 and at most 150"));
        }
        if !(1..=500).contains(&self.years) {
            faults.push(("years", "must be 1 to 500"));
        }
        if !(10..=1_000_000).contains(&self.lives) {
            faults.push(("lives", "must be 10 to 1,000,000"));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Failure::Invalid(faults))
        }
    }
}

/// Computes a forecast when its turn has come.
pub fn forecast(ask: &Ask) -> Result<Forecast, Failure> {
    ask.check()?;
    let Some(_seat) = SEATS.acquire_timeout(PATIENCE) else {
        return Err(Failure::Busy("other forecasts are computed"));
    };
    weald::timeout(LIMIT, || compute(ask)).map_err(|_| Failure::Busy("the forecast takes too long"))
}

fn compute(ask: &Ask) -> Forecast {
    let mut heights = vec![0.0; ask.lives as usize];
    live(&mut heights, ask, ask.seed);
    heights.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| heights[(heights.len() - 1) * part / 10];
    Forecast {
        lives: ask.lives,
        p10_m: at(1),
        median_m: at(5),
        p90_m: at(9),
    }
}

/// Splits the lives again and again; an idle worker takes one half. A limit, or a client that has gone away, ends the
/// computation between two pieces.
fn live(heights: &mut [f64], ask: &Ask, seed: u64) {
    if heights.len() <= PIECE {
        weald::checkpoint();
        let mut random = Random(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1);
        for height in heights {
            *height = (0..ask.years).fold(ask.height_m, |height, _| {
                // High trees grow less.
                height + 0.6 * random.next() * (1.0 - height / 160.0)
            });
        }
        return;
    }
    let (first, second) = heights.split_at_mut(heights.len() / 2);
    weald::join(
        || live(first, ask, seed.wrapping_mul(3).wrapping_add(1)),
        || live(second, ask, seed.wrapping_mul(3).wrapping_add(2)),
    );
}

/// xorshift64*: Marsaglia, Vigna.
struct Random(u64);

impl Random {
    /// Returns a number from 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        f64::from(bits as u32) / f64::from(u32::MAX)
    }
}
