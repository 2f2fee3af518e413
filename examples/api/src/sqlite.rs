//! Trees in a file of SQLite. Its calls are short. If a call waits for the disk, weald's monitor gives the worker to
//! another OS thread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::failure::Failure;
use crate::store::{Store, connection};
use crate::trees::{NewTree, Tree};

/// SQLite can serve a few readers beside one writer at once.
const CONNECTIONS: u32 = 4;

/// How long SQLite tries again while another connection writes.
const BUSY: Duration = Duration::from_secs(5);

struct Manager(PathBuf);

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.0)?;
        connection.busy_timeout(BUSY)?;
        // Readers do not wait for the writer.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    }

    fn is_valid(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.execute_batch("SELECT 1")
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

struct Sqlite(r2d2::Pool<Manager>);

/// Opens the file, and makes the table if it is missing.
pub fn open(path: &Path) -> Result<impl Store + 'static, Failure> {
    let pool = r2d2::Pool::builder()
        .max_size(CONNECTIONS)
        // The file does not go away, so the pool need not test a connection before each use.
        .test_on_check_out(false)
        .build(Manager(path.to_owned()))
        .map_err(|error| Failure::Store(error.to_string()))?;
    connection(&pool)?.execute_batch(
        "CREATE TABLE IF NOT EXISTS trees (
            id INTEGER PRIMARY KEY,
            species TEXT NOT NULL,
            height_m REAL NOT NULL,
            planted INTEGER NOT NULL
        );
        CREATE INDEX IF NOT EXISTS trees_by_species ON trees (species, id);",
    )?;
    Ok(Sqlite(pool))
}

fn tree(row: &Row<'_>) -> rusqlite::Result<Tree> {
    Ok(Tree {
        id: row.get(0)?,
        species: row.get(1)?,
        height_m: row.get(2)?,
        planted: row.get(3)?,
    })
}

impl Store for Sqlite {
    fn list(&self, species: Option<&str>, after: i64, most: i64) -> Result<Vec<Tree>, Failure> {
        let connection = connection(&self.0)?;
        let columns = "SELECT id, species, height_m, planted FROM trees";
        let trees = match species {
            Some(species) => connection
                .prepare_cached(&format!(
                    "{columns} WHERE species = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
                ))?
                .query_map((species, after, most), tree)?
                .collect::<Result<_, _>>()?,
            None => connection
                .prepare_cached(&format!("{columns} WHERE id > ?1 ORDER BY id LIMIT ?2"))?
                .query_map((after, most), tree)?
                .collect::<Result<_, _>>()?,
        };
        Ok(trees)
    }

    fn get(&self, id: i64) -> Result<Option<Tree>, Failure> {
        let connection = connection(&self.0)?;
        let found = connection
            .prepare_cached("SELECT id, species, height_m, planted FROM trees WHERE id = ?1")?
            .query_row((id,), tree)
            .optional()?;
        Ok(found)
    }

    fn insert(&self, new: &NewTree) -> Result<Tree, Failure> {
        let connection = connection(&self.0)?;
        let id = connection
            .prepare_cached(
                "INSERT INTO trees (species, height_m, planted) VALUES (?1, ?2, ?3) RETURNING id",
            )?
            .query_row((new.species.trim(), new.height_m, new.planted), |row| {
                row.get(0)
            })?;
        Ok(new.with_id(id))
    }

    fn replace(&self, id: i64, new: &NewTree) -> Result<bool, Failure> {
        let connection = connection(&self.0)?;
        let count = connection
            .prepare_cached(
                "UPDATE trees SET species = ?2, height_m = ?3, planted = ?4 WHERE id = ?1",
            )?
            .execute((id, new.species.trim(), new.height_m, new.planted))?;
        Ok(count > 0)
    }

    fn delete(&self, id: i64) -> Result<bool, Failure> {
        let connection = connection(&self.0)?;
        let count = connection
            .prepare_cached("DELETE FROM trees WHERE id = ?1")?
            .execute((id,))?;
        Ok(count > 0)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.to_string())
    }
}
