//! C libraries that were not built for weald and are opened while the program runs.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::sync::Arc;

use libloading::Library;
use weald_patched_crates::{MANY, PAGE, all_at_once, http};

fn open(names: &[&str]) -> Option<Library> {
    // SAFETY: the initialisers of these libraries have no conditions.
    let found = names
        .iter()
        .find_map(|&name| unsafe { Library::new(name) }.ok());
    if found.is_none() {
        eprintln!("SKIPPED: there is no {}", names[0]);
    }
    found
}

/// Returns a function of a library.
///
/// # Safety
/// `F` is the type of the function.
unsafe fn function<F: Copy>(library: &Library, name: &str) -> F {
    // SAFETY: by contract.
    *unsafe { library.get::<F>(name) }.unwrap()
}

/// The function that libcurl calls to hand over a part of the page.
extern "C" fn take(part: *const u8, size: usize, count: usize, page: *mut c_void) -> usize {
    // SAFETY: libcurl promises that so many bytes are there, and gives back the pointer that it was given.
    unsafe {
        let part = std::slice::from_raw_parts(part, size * count);
        (*page.cast::<Vec<u8>>()).extend_from_slice(part);
    }
    size * count
}

#[test]
fn libcurl_has_all_requests_under_way_at_once() {
    const URL: c_int = 10_002;
    const WRITE_DATA: c_int = 10_001;
    const WRITE_FUNCTION: c_int = 20_011;
    type Init = unsafe extern "C" fn() -> *mut c_void;
    type GlobalInit = unsafe extern "C" fn(c_long) -> c_int;
    type Set = unsafe extern "C" fn(*mut c_void, c_int, ...) -> c_int;
    type Perform = unsafe extern "C" fn(*mut c_void) -> c_int;
    type Cleanup = unsafe extern "C" fn(*mut c_void);
    let Some(curl) = open(&["libcurl.so.4", "libcurl-gnutls.so.4"]) else {
        return;
    };
    // The name is `localhost`: libcurl looks it up in a thread of its own.
    let url = CString::new(http().replace("127.0.0.1", "localhost")).unwrap();
    // SAFETY: the types are those of curl/easy.h; options take what its manual says.
    unsafe {
        assert_eq!(function::<GlobalInit>(&curl, "curl_global_init")(3), 0);
    }
    let curl = Arc::new(curl);
    all_at_once(move |_| {
        // SAFETY: as above.
        unsafe {
            let set = function::<Set>(&curl, "curl_easy_setopt");
            let easy = function::<Init>(&curl, "curl_easy_init")();
            let mut page = Vec::<u8>::new();
            let take: extern "C" fn(*const u8, usize, usize, *mut c_void) -> usize = take;
            assert_eq!(set(easy, URL, url.as_ptr()), 0);
            assert_eq!(set(easy, WRITE_FUNCTION, take), 0);
            assert_eq!(set(easy, WRITE_DATA, &raw mut page), 0);
            assert_eq!(function::<Perform>(&curl, "curl_easy_perform")(easy), 0);
            function::<Cleanup>(&curl, "curl_easy_cleanup")(easy);
            assert_eq!(page, PAGE.as_bytes());
        }
    });
}

#[test]
fn libpq_waits_in_many_connections_at_once() {
    type Connect = unsafe extern "C" fn(*const c_char) -> *mut c_void;
    type Exec = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    type Value = unsafe extern "C" fn(*const c_void, c_int, c_int) -> *const c_char;
    type Free = unsafe extern "C" fn(*mut c_void);
    let Ok(url) = std::env::var("WEALD_TEST_POSTGRES") else {
        eprintln!("SKIPPED: WEALD_TEST_POSTGRES names no server");
        return;
    };
    let Some(pq) = open(&["libpq.so.5"]) else {
        return;
    };
    let url = CString::new(url).unwrap();
    let locked = std::sync::Barrier::new(MANY);
    all_at_once(move |n| {
        // SAFETY: the types are those of libpq-fe.h.
        unsafe {
            let exec = function::<Exec>(&pq, "PQexec");
            let value = function::<Value>(&pq, "PQgetvalue");
            let clear = function::<Free>(&pq, "PQclear");
            let connection = function::<Connect>(&pq, "PQconnectdb")(url.as_ptr());
            let query = |query: &CStr| {
                let result = exec(connection, query.as_ptr());
                let text = CStr::from_ptr(value(result, 0, 0))
                    .to_string_lossy()
                    .into_owned();
                clear(result);
                text
            };
            if n == 0 {
                query(c"SELECT pg_advisory_lock(2)");
            }
            locked.wait();
            if n == 0 {
                let waiting = c"SELECT count(*) FROM pg_locks \
                    WHERE locktype = 'advisory' AND objid = 2 AND NOT granted";
                while query(waiting) != (MANY - 1).to_string() {
                    std::thread::yield_now();
                }
                query(c"SELECT pg_advisory_unlock(2)");
            } else {
                query(c"SELECT pg_advisory_lock_shared(2)");
            }
            function::<Free>(&pq, "PQfinish")(connection);
        }
    });
}
