//! Who may ask, and what bad requests get.

use weald_console::Builder;

use crate::support::{exchange, get, request};

const TOKEN: &str = "a-token-of-32-characters-or-more";

/// The paths that tell of the program.
const DATA: [&str; 6] = [
    "/dump",
    "/view.json",
    "/metrics",
    "/metrics.json",
    "/stacks",
    "/flame.svg",
];

#[test]
fn data_is_told_only_with_the_token_and_the_page_without() {
    let console = Builder::new().token(TOKEN).serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    let with = |field: &str, path: &str| {
        let fields = ["Host: localhost", field];
        request(addr, "GET", path, &fields)
    };
    for path in DATA {
        let answer = get(addr, path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
        assert!(!answer.body.contains("weald_"), "{}", answer.body);
        for wrong in [
            "Authorization:",
            "Authorization: Bearer",
            "Authorization: Bearer ",
            "Authorization: Basic a-token-of-32-characters-or-more",
            "Authorization: Bearer a-token-of-32-characters-or-morf",
            "Authorization: Bearer a-token-of-32-characters-or-mor",
            "Authorization: Bearer a-token-of-32-characters-or-more1",
            "Authorization: Bearer x\r\nAuthorization: Bearer a-token-of-32-characters-or-more",
            "Cookie: token=a-token-of-32-characters-or-more",
        ] {
            assert_eq!(with(wrong, path).status, 401, "{path} {wrong}");
        }
        let asked = format!("{path}?token={TOKEN}");
        assert_eq!(get(addr, &asked).status, 401);
        let right = with(&format!("Authorization: bearer {TOKEN}"), path);
        assert!(
            [200, 204].contains(&right.status),
            "{path}: {}",
            right.status
        );
    }
    for path in ["/", "/app.js", "/flame.js", "/workers.js", "/style.css"] {
        assert_eq!(get(addr, path).status, 200, "{path}");
    }
    console.shutdown();
}

#[test]
fn a_name_of_another_site_that_leads_here_is_refused() {
    let console = Builder::new()
        .host("console.example")
        .serve("127.0.0.1:0")
        .unwrap();
    let addr = console.local_addr();
    for path in ["/", "/dump", "/nowhere"] {
        for host in [
            "evil.example",
            "evil.example:6680",
            "10.0.0.1",
            "localhost.evil.example",
        ] {
            let answer = request(addr, "GET", path, &[&format!("Host: {host}")]);
            assert_eq!(answer.status, 421, "{path} {host}");
        }
    }
    let absolute =
        "GET http://evil.example/dump HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(addr, absolute.as_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    // Without a name it is no browser, but nobody needs that.
    let answer = exchange(addr, b"GET /dump HTTP/1.0\r\n\r\n").unwrap();
    assert!(answer.starts_with("HTTP/1.0 421"), "{answer}");
    for host in ["localhost:1", "127.0.0.1", "[::1]:6680", "console.example"] {
        let answer = request(addr, "GET", "/", &[&format!("Host: {host}")]);
        assert_eq!(answer.status, 200, "{host}");
    }
    console.shutdown();
}

#[test]
fn each_answer_is_protected_and_none_allows_other_origins() {
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    for path in [
        "/",
        "/app.js",
        "/dump",
        "/view.json",
        "/metrics",
        "/stacks",
        "/flame.svg",
        "/nowhere",
    ] {
        let answer = request(
            addr,
            "GET",
            path,
            &["Host: localhost", "Origin: http://evil.example"],
        );
        let policy = answer.field("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            answer.field("cross-origin-resource-policy"),
            Some("same-origin")
        );
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("access-control-allow-origin"), None);
    }
    let script = get(addr, "/")
        .field("content-security-policy")
        .unwrap()
        .to_owned();
    assert!(!script.contains("unsafe"), "{script}");
    console.shutdown();
}

#[test]
fn nothing_changes_at_the_request_of_another_site() {
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    for origin in [
        "http://evil.example",
        "null",
        "http://localhost:1",
        "localhost",
    ] {
        let fields = ["Host: localhost", &format!("Origin: {origin}")];
        for method in ["POST", "PUT", "DELETE"] {
            let answer = request(addr, method, "/dump", &fields);
            assert_eq!(answer.status, 403, "{method} {origin}");
        }
    }
    let own = ["Host: localhost", "Origin: http://localhost"];
    let answer = request(addr, "POST", "/dump", &own);
    assert_eq!(answer.status, 405);
    assert_eq!(answer.field("allow"), Some("GET, HEAD"));
    console.shutdown();
}

#[test]
fn bad_requests_get_an_error_and_the_console_goes_on() {
    let console = weald_console::serve("127.0.0.1:0").unwrap();
    let addr = console.local_addr();
    for (path, status) in [
        ("/nowhere", 404),
        ("/dump/", 404),
        ("/%00", 404),
        ("/dump?runtime=many", 400),
        ("/dump?runtime=-1", 400),
        ("/dump?runtime=18446744073709551616", 400),
        ("/dump?runtime=18446744073709551615", 404),
        ("/view.json?runtime=", 400),
        ("/metrics.json?runtime=x", 400),
        ("/stacks?kind=sleeping", 400),
        ("/stacks?kind=running&seconds=31", 400),
        ("/flame.svg?seconds=1e3", 400),
    ] {
        assert_eq!(get(addr, path).status, status, "{path}");
    }
    let long = "x".repeat(40_000);
    for sent in [
        "\r\n\r\n\0\x01 no request\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        // The console may close before it has read all.
        if let Ok(answer) = exchange(addr, sent.as_bytes()) {
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(status.starts_with('4') || answer.is_empty(), "{answer}");
        }
    }
    assert_eq!(get(addr, "/metrics").status, 200);
    console.shutdown();
}
