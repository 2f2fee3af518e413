//! Paths, queries and JSON.

use weald_http::{Json, JsonError, Request, Router};

use crate::support::{ask_and_close, body, serve, status};

fn sum(mut request: Request) -> Result<Json<i64>, JsonError> {
    let numbers: Vec<i64> = request.read_json()?;
    Ok(Json(numbers.iter().sum()))
}

#[test]
fn a_router_chooses_by_path_and_method() {
    let router = Router::new()
        .get("/", |_request| "root")
        .get("/trees/oldest", |_request| "literal")
        .get("/trees/{name}", |request: Request| {
            format!("{:?}", request.param("name"))
        })
        .delete("/trees/{name}", |_request| "deleted")
        .get("/files/{*rest}", |request: Request| {
            format!("{:?}", request.param("rest"))
        })
        .get("/query", |request: Request| {
            format!("{:?}", request.query_pairs())
        })
        .post("/sum", sum);
    let server = serve(router.into_handler());
    let ask = |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        ask_and_close(server.local_addr(), request)
    };
    let get = |path: &str| body(&ask("GET", path)).to_owned();
    assert_eq!(get("/"), "root");
    assert_eq!(get("/trees/oldest"), "literal");
    assert_eq!(get("/trees/red%20oak?x=y"), "Some(\"red oak\")");
    assert_eq!(get("/files/a/b%2Fc/d"), "Some(\"a/b/c/d\")");
    assert_eq!(
        get("/query?a=1&b=x+y&&c&d=%C3%A4=&a=2"),
        "[(\"a\", \"1\"), (\"b\", \"x y\"), (\"c\", \"\"), (\"d\", \"ä=\"), (\"a\", \"2\")]"
    );
    assert_eq!(body(&ask("DELETE", "/trees/a")), "deleted");
    let head = ask("HEAD", "/");
    assert!(
        status(&head) == 200 && head.contains("content-length: 4"),
        "{head}"
    );
    assert_eq!(status(&ask("GET", "/none")), 404);
    assert_eq!(status(&ask("GET", "/trees/%ff")), 400);
    let refused = ask("PUT", "/trees/a");
    assert_eq!(status(&refused), 405);
    assert!(refused.contains("allow: GET, DELETE, HEAD"), "{refused}");
}

#[test]
fn json_that_is_none_has_its_status() {
    let server = serve(sum);
    let ask = |kind: &str, text: &str| {
        let length = text.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        ask_and_close(server.local_addr(), request)
    };
    let answer = ask("application/json; charset=utf-8", "[1, 2, 3]");
    assert_eq!(body(&answer), "6");
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert_eq!(body(&ask("application/vnd.tree+json", "[1]")), "1");
    assert_eq!(status(&ask("text/plain", "[1]")), 415);
    assert_eq!(status(&ask("application/json", "[1")), 400);
    assert_eq!(status(&ask("application/json", "{}")), 422);
    let large = format!("[{}1]", "1,".repeat(2 << 20));
    assert_eq!(status(&ask("application/json", &large)), 413);
}
