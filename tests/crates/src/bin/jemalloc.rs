//! `Jemalloc` as it is.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    weald_crates::measure_crowd();
}
