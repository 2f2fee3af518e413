//! What a tree is, and which trees are refused.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The highest tree that was ever measured had 132 m.
const HIGHEST: f64 = 150.0;

/// The data of a tree that a client sends.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NewTree {
    pub species: String,
    pub height_m: f64,
    /// The year in which the tree was planted.
    pub planted: i32,
}

/// A tree in the database.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tree {
    pub id: i64,
    pub species: String,
    pub height_m: f64,
    pub planted: i32,
}

impl NewTree {
    /// Checks all fields, so that the client learns of all faults at once.
    pub fn check(&self) -> Result<(), Failure> {
        let mut faults = Vec::new();
        let length = self.species.trim().chars().count();
        if !(1..=60).contains(&length) {
            faults.push(("species", "must have 1 to 60 characters"));
        }
        if !(self.height_m > 0.0 && self.height_m <= HIGHEST) {
            faults.push(("height_m", "must be above 0 and at most 150"));
        }
        if !(-3000..=2100).contains(&self.planted) {
            faults.push(("planted", "must be a year from -3000 to 2100"));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Failure::Invalid(faults))
        }
    }

    /// Returns the tree with this number.
    pub fn with_id(&self, id: i64) -> Tree {
        Tree {
            id,
            species: self.species.trim().to_owned(),
            height_m: self.height_m,
            planted: self.planted,
        }
    }
}
