//! `Jemalloc` on the thread-locals of the OS threads.
#[global_allocator]
static ALLOCATOR: weald::OnOsThread<tikv_jemallocator::Jemalloc> =
    weald::OnOsThread::new(tikv_jemallocator::Jemalloc);

fn main() {
    weald_crates::measure_crowd();
}
