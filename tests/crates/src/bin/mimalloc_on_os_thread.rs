//! `MiMalloc` on the thread-locals of the OS threads.
#[global_allocator]
static ALLOCATOR: weald::OnOsThread<mimalloc::MiMalloc> =
    weald::OnOsThread::new(mimalloc::MiMalloc);

fn main() {
    weald_crates::measure_crowd();
}
