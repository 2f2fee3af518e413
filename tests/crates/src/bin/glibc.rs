//! `System` as it is.
#[global_allocator]
static ALLOCATOR: std::alloc::System = std::alloc::System;

fn main() {
    weald_crates::measure_crowd();
}
