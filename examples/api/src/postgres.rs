//! Trees in PostgreSQL. The client is the ordinary blocking one, and weald-patch makes its waits suspend the green
//! thread.

use postgres::{NoTls, Row};
use r2d2_postgres::PostgresConnectionManager;

use crate::failure::Failure;
use crate::store::{Store, connection};
use crate::trees::{NewTree, Tree};

const CONNECTIONS: u32 = 16;

struct Postgres(r2d2::Pool<PostgresConnectionManager<NoTls>>);

/// Connects, and makes the table if it is missing.
pub fn open(url: &str) -> Result<impl Store + 'static, Failure> {
    let config = url.parse()?;
    let pool = r2d2::Pool::builder()
        .max_size(CONNECTIONS)
        // If a connection is broken, its next use fails, and the pool replaces it.
        .test_on_check_out(false)
        .build(PostgresConnectionManager::new(config, NoTls))
        .map_err(|error| Failure::Store(error.to_string()))?;
    connection(&pool)?.batch_execute(
        "CREATE TABLE IF NOT EXISTS trees (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            species TEXT NOT NULL,
            height_m DOUBLE PRECISION NOT NULL,
            planted INTEGER NOT NULL
        );
        CREATE INDEX IF NOT EXISTS trees_by_species ON trees (species, id);",
    )?;
    Ok(Postgres(pool))
}

fn tree(row: &Row) -> Tree {
    Tree {
        id: row.get(0),
        species: row.get(1),
        height_m: row.get(2),
        planted: row.get(3),
    }
}

impl Store for Postgres {
    fn list(&self, species: Option<&str>, after: i64, most: i64) -> Result<Vec<Tree>, Failure> {
        let rows = connection(&self.0)?.query(
            "SELECT id, species, height_m, planted FROM trees
             WHERE ($1::text IS NULL OR species = $1) AND id > $2 ORDER BY id LIMIT $3",
            &[&species, &after, &most],
        )?;
        Ok(rows.iter().map(tree).collect())
    }

    fn get(&self, id: i64) -> Result<Option<Tree>, Failure> {
        let row = connection(&self.0)?.query_opt(
            "SELECT id, species, height_m, planted FROM trees WHERE id = $1",
            &[&id],
        )?;
        Ok(row.as_ref().map(tree))
    }

    fn insert(&self, new: &NewTree) -> Result<Tree, Failure> {
        let row = connection(&self.0)?.query_one(
            "INSERT INTO trees (species, height_m, planted) VALUES ($1, $2, $3) RETURNING id",
            &[&new.species.trim(), &new.height_m, &new.planted],
        )?;
        Ok(new.with_id(row.get(0)))
    }

    fn replace(&self, id: i64, new: &NewTree) -> Result<bool, Failure> {
        let count = connection(&self.0)?.execute(
            "UPDATE trees SET species = $2, height_m = $3, planted = $4 WHERE id = $1",
            &[&id, &new.species.trim(), &new.height_m, &new.planted],
        )?;
        Ok(count > 0)
    }

    fn delete(&self, id: i64) -> Result<bool, Failure> {
        let count = connection(&self.0)?.execute("DELETE FROM trees WHERE id = $1", &[&id])?;
        Ok(count > 0)
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Store(error.to_string())
    }
}
