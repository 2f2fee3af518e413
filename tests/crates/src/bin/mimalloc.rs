//! `MiMalloc` as it is.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    weald_crates::measure_crowd();
}
