//! Where a console listens, and how it ends.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use weald_console::Builder;

use crate::support::{get, runtime};

const TOKEN: &str = "a-token-of-32-characters-or-more";

#[test]
fn without_a_token_only_loopback_addresses_are_served() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6680"] {
        let error = weald_console::serve(addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{addr}: {error}");
        assert!(error.to_string().contains("Builder::token"), "{error}");
    }
    // If one of several addresses is open to others, nothing is served.
    let several = ["127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap()];
    assert!(weald_console::serve(&several[..]).is_err());
    for addr in ["127.0.0.1:0", "localhost:0", "[::ffff:127.0.0.1]:0"] {
        match weald_console::serve(addr) {
            Ok(console) => console.shutdown(),
            // The machine may have no IPv6.
            Err(error) => assert_ne!(error.kind(), ErrorKind::InvalidInput, "{addr}: {error}"),
        }
    }
}

#[test]
fn with_a_token_any_address_is_served_to_those_who_have_it() {
    let console = Builder::new().token(TOKEN).serve("0.0.0.0:0").unwrap();
    let addr = (Ipv4Addr::LOCALHOST, console.local_addr().port()).into();
    assert_eq!(get(addr, "/metrics").status, 401);
    console.shutdown();
}

#[test]
fn a_token_that_is_short_or_no_visible_ascii_is_an_error() {
    for token in ["", "short", "0123456789 abcdef", "0123456789abcdéf"] {
        let error = Builder::new()
            .token(token)
            .serve("127.0.0.1:0")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        // An error is written to logs.
        assert!(token.is_empty() || !error.to_string().contains(token));
    }
    let builder = Builder::new().token(TOKEN);
    assert!(!format!("{builder:?}").contains(TOKEN));
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let error = weald_console::serve(addr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn a_console_that_is_dropped_goes_on_and_one_that_is_shut_down_has_ended() {
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    drop(console);
    assert_eq!(get(addr, "/").status, 200);

    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    assert_eq!(get(addr, "/").status, 200);
    console.shutdown();
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn a_green_thread_can_start_and_end_a_console() {
    let program = weald::Runtime::builder().workers(1).build().unwrap();
    program.run(|| {
        let console = weald_console::serve("127.0.0.1:0").unwrap();
        let addr = console.local_addr();
        let asks = std::thread::spawn(move || get(addr, "/dump").status);
        assert_eq!(asks.join().unwrap(), 200);
        console.shutdown();
    });
}

#[test]
fn it_tells_of_the_programs_runtimes_and_not_of_its_own() {
    let program = weald::Runtime::builder()
        .workers(1)
        .name("ended")
        .build()
        .unwrap();
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    let all = get(addr, "/metrics.json").json();
    let number = runtime(&all, "ended").unwrap()["number"].clone();
    assert!(runtime(&all, "weald-console").is_none(), "{all}");
    assert_eq!(get(addr, &format!("/dump?runtime={number}")).status, 200);

    program.shutdown(std::time::Duration::ZERO);
    let all = get(addr, "/metrics.json").json();
    assert!(runtime(&all, "ended").is_none(), "{all}");
    assert_eq!(get(addr, &format!("/dump?runtime={number}")).status, 404);
}
