//! Clients of databases with real servers, which `run` starts. Where a server is missing, the test says so.
//!
//! The first client holds a lock. All other clients wait for it, until the server has them all waiting.

use std::thread;
use std::time::Duration;

use weald_patched_crates::{MANY, all_at_once, in_green};

/// Returns the address of a server, or prints a line that it is missing.
fn server(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        eprintln!("SKIPPED: {variable} names no server");
    }
    found
}

#[test]
fn redis_waits_in_many_connections_at_once() {
    let Some(url) = server("WEALD_TEST_REDIS") else {
        return;
    };
    let client = redis::Client::open(url).unwrap();
    all_at_once(move |n| {
        let mut connection = client.get_connection().unwrap();
        let here: usize = redis::cmd("INCR")
            .arg("here")
            .query(&mut connection)
            .unwrap();
        if here == MANY {
            for n in 0..MANY {
                let _: usize = redis::cmd("RPUSH")
                    .arg(format!("go-{n}"))
                    .arg(n)
                    .query(&mut connection)
                    .unwrap();
            }
        }
        let (_, got): (String, usize) = redis::cmd("BLPOP")
            .arg(format!("go-{n}"))
            .arg(50)
            .query(&mut connection)
            .unwrap();
        assert_eq!(got, n);
    });
}

#[test]
fn postgres_waits_in_many_connections_at_once() {
    let Some(url) = server("WEALD_TEST_POSTGRES") else {
        return;
    };
    let locked = std::sync::Barrier::new(MANY);
    all_at_once(move |n| {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        if n == 0 {
            client.execute("SELECT pg_advisory_lock(1)", &[]).unwrap();
        }
        locked.wait();
        if n != 0 {
            client
                .execute("SELECT pg_advisory_lock_shared(1)", &[])
                .unwrap();
            return;
        }
        let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted";
        while client.query_one(query, &[]).unwrap().get::<_, i64>(0) < (MANY - 1) as i64 {
            thread::sleep(Duration::from_millis(1));
        }
        client.execute("SELECT pg_advisory_unlock(1)", &[]).unwrap();
    });
}

#[test]
fn a_pool_of_r2d2_is_shared_by_more_than_it_has() {
    let Some(url) = server("WEALD_TEST_POSTGRES") else {
        return;
    };
    in_green(|| {
        let manager = r2d2_postgres::PostgresConnectionManager::new(
            url.parse().unwrap(),
            r2d2_postgres::postgres::NoTls,
        );
        let pool = r2d2::Pool::builder().max_size(4).build(manager).unwrap();
        let clients: Vec<_> = (0..MANY as i64)
            .map(|n| {
                let pool = pool.clone();
                weald::spawn(move || {
                    let mut client = pool.get().unwrap();
                    let row = client.query_one("SELECT $1::bigint + 1, pg_sleep(0.001)", &[&n]);
                    assert_eq!(row.unwrap().get::<_, i64>(0), n + 1);
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        drop(pool);
    });
}

#[test]
fn mysql_waits_in_many_connections_at_once() {
    use mysql::prelude::Queryable;
    let Some(url) = server("WEALD_TEST_MYSQL") else {
        return;
    };
    let locked = std::sync::Barrier::new(MANY);
    all_at_once(move |n| {
        let mut client = mysql::Conn::new(url.as_str()).unwrap();
        if n == 0 {
            let got: Option<i64> = client.query_first("SELECT GET_LOCK('weald', 50)").unwrap();
            assert_eq!(got, Some(1));
        }
        locked.wait();
        if n != 0 {
            let got: Option<i64> = client.query_first("SELECT GET_LOCK('weald', 50)").unwrap();
            assert_eq!(got, Some(1));
            return;
        }
        let query = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        while client.query_first::<usize, _>(query).unwrap() < Some(MANY - 1) {
            thread::sleep(Duration::from_millis(1));
        }
        client.query_drop("SELECT RELEASE_LOCK('weald')").unwrap();
    });
}
