//! The README shows the service as it is. `twin/tests/same.rs` checks the same for the twin.

#[test]
fn the_readme_shows_the_service() {
    let source = include_str!("../../examples/service.rs");
    let shown = &source[source.find("use std::io;").unwrap()..];
    assert!(include_str!("../../README.md").contains(shown), "{shown}");
}
