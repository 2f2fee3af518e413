//! Where trees are kept. Each call takes a connection of the pool, and blocks the green thread.

use std::time::Duration;

use crate::failure::Failure;
use crate::trees::{NewTree, Tree};

/// How long a request waits for a connection of the pool.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A database.
pub trait Store: Send + Sync {
    /// Returns trees with numbers above `after`, in order. If a species is named, it returns trees of this species
    /// only.
    fn list(&self, species: Option<&str>, after: i64, most: i64) -> Result<Vec<Tree>, Failure>;
    fn get(&self, id: i64) -> Result<Option<Tree>, Failure>;
    fn insert(&self, new: &NewTree) -> Result<Tree, Failure>;
    /// Returns false if there is no such tree.
    fn replace(&self, id: i64, new: &NewTree) -> Result<bool, Failure>;
    /// Returns false if there was no such tree.
    fn delete(&self, id: i64) -> Result<bool, Failure>;
}

/// Takes a connection from the pool.
pub(crate) fn connection<M: r2d2::ManageConnection>(
    pool: &r2d2::Pool<M>,
) -> Result<r2d2::PooledConnection<M>, Failure> {
    pool.get_timeout(PATIENCE)
        .map_err(|_| Failure::Busy("no connection to the database is free"))
}
