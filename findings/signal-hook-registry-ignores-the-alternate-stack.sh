#!/usr/bin/env bash
# signal-hook-registry 1.4.8: its handlers are installed without SA_ONSTACK, so they run on whatever stack the signal meets.
#
# One would expect a library for processes with many runtimes and coroutines to ask for the alternate signal stack, as Go's runtime
# and Rust's own overflow handler do. The flag costs nothing if a thread has no such stack. If the stack in use is small (a coroutine's,
# or a thread's of 16 KiB), the handler's frame and the state that the kernel saves there (some 3.5 KiB with AVX-512) may not fit.
# A program that uses the library must set the flag afterwards, by sigaction(2).
#
# Output seen:
#   flags: SA_RESTART yes, SA_SIGINFO yes, SA_ONSTACK no
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat > "$place/Cargo.toml" <<'T'
[package]
name = "onstack"
version = "0.0.0"
edition = "2021"
[dependencies]
libc = "0.2"
signal-hook-registry = "=1.4.8"
[workspace]
T
cat > "$place/src/main.rs" <<'R'
fn main() {
    // SAFETY: the action does nothing.
    unsafe { signal_hook_registry::register(libc::SIGUSR1, || ()) }.unwrap();
    // SAFETY: it is only asked, into a structure of ours.
    let flags = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut now), 0);
        now.sa_flags
    };
    let word = |flag| if flags & flag != 0 { "yes" } else { "no" };
    println!("flags: SA_RESTART {}, SA_SIGINFO {}, SA_ONSTACK {}",
        word(libc::SA_RESTART), word(libc::SA_SIGINFO), word(libc::SA_ONSTACK));
    std::process::exit(i32::from(flags & libc::SA_ONSTACK != 0));
}
R
cd "$place"
cargo run --quiet
