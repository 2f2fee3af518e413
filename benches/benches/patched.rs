//! What does a thread-per-connection echo server of std's cost, under `weald-patch` and with OS threads? Units:
//! seconds of server CPU per million requests, ms of latency, requests per second, MB. And what does a hooked call
//! cost on a plain OS thread? Unit: ns a call.
//!
//! `cargo bench -p weald-benches --bench patched`
//!
//! The program is the same, `serve` below, without a line of weald in it. The server is a process of its
//! own on the first CPU, the load one thread on the second, as in `echo`.
#![allow(unsafe_code, reason = "calls libc as C would")]

use std::ffi::CStr;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Lifetime, Load, Metric, Process, Role, answer, compare_by, cpu_time, median,
    memory, nanos_each, percentile, pin_to_nth_cpu, raise_descriptor_limit, repetitions,
    seconds_per_million, unless_quick, weald_runtime,
};

const CONNECTIONS: usize = 1000;

fn main() {
    if let Some(role) = Role::of_this_process() {
        let _ = pin_to_nth_cpu(0);
        let _ = raise_descriptor_limit();
        start(role.contestant);
    }
    if let Err(error) = raise_descriptor_limit() {
        println!("the descriptor limit stays: {error}");
    }
    tell_cost_outside();
    let case = Case {
        name: "std echo, 1000 connections".into(),
        workers: 1,
        amount: unless_quick(3000, 300),
        metrics: vec![
            Metric::less("server CPU (s per million)"),
            Metric::less("p50 (ms)"),
            Metric::less("p99 (ms)"),
            Metric::more("requests per second"),
            Metric::less("server memory (MB)"),
        ],
        contestants: &[Contestant::WealdOwn, Contestant::OsThreads],
        lifetime: Lifetime::Repetition,
    };
    compare_by(&[case], repetitions(5), |case, contestant| {
        measure(case, contestant).map_err(|error| error.to_string())
    });
}

/// An ordinary blocking server.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn start(contestant: Contestant) -> ! {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    let runtime;
    if contestant == Contestant::OsThreads {
        thread::spawn(move || serve(&listener));
    } else {
        weald_patch::all().expect("thread-locals of their own");
        runtime = weald_runtime(contestant, 1);
        runtime.spawn(move || serve(&listener));
    }
    answer(|_| {
        let cpu = cpu_time();
        let resident = memory().resident_bytes.to_string();
        vec![
            f64::from(address.port()),
            cpu.user_s + cpu.system_s,
            resident.parse().unwrap_or(f64::NAN),
        ]
    })
}

/// One repetition: `case.amount` is its length in milliseconds.
fn measure(case: &Case, contestant: Contestant) -> io::Result<Vec<f64>> {
    let role = Role {
        contestant,
        case: case.name.clone(),
        workers: case.workers,
    };
    let mut server = Process::start(&role, Duration::from_secs(20)).map_err(io::Error::other)?;
    // On a thread of its own: the next server would inherit the load's CPU.
    let measured = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let _ = pin_to_nth_cpu(1);
            measure_server(&mut server, Duration::from_millis(case.amount))
        });
        load.join()
    });
    measured.expect("the load returns its errors")
}

fn measure_server(server: &mut Process, length: Duration) -> io::Result<Vec<f64>> {
    // The child answers [port, CPU seconds, resident bytes].
    let mut ask = || match server.ask(0) {
        Ok(values) if values.len() == 3 => Ok(values),
        Ok(_) => Err(io::Error::other("the server answers nonsense")),
        Err(reason) => Err(io::Error::other(reason)),
    };
    let port = ask()?[0].to_string().parse();
    let port = port.map_err(|_| io::Error::other("the server tells no port"))?;
    let mut load = Load::connect(port, CONNECTIONS)?;
    load.run(length / 6, &mut Vec::new())?;
    let mut latencies_us = Vec::with_capacity(4_000_000);
    let before = ask()?;
    let start = Instant::now();
    load.run(length, &mut latencies_us)?;
    let elapsed = start.elapsed();
    let after = ask()?;
    let requests = latencies_us.len() as u64;
    Ok(vec![
        seconds_per_million(after[1] - before[1], requests),
        f64::from(percentile(&mut latencies_us, 500)) / 1e3,
        f64::from(percentile(&mut latencies_us, 990)) / 1e3,
        1e6 / seconds_per_million(elapsed.as_secs_f64(), requests),
        after[2] / 1e6,
    ])
}

// What the hooks cost who is no green thread: libc's function and the one in its place, in turns.

/// libc's own definition of a function.
///
/// # Safety
/// `F` is its type.
unsafe fn of_libc<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut libc::c_void>()) };
    // SAFETY: a name that ends by zero.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // SAFETY: by contract.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

fn each(mut call: impl FnMut()) -> f64 {
    const CALLS: u64 = 200_000;
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    nanos_each(start.elapsed(), CALLS)
}

fn compare_calls(name: &str, mut libcs: impl FnMut(), mut patched: impl FnMut()) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..repetitions(11) {
        without.push(each(&mut libcs));
        with.push(each(&mut patched));
    }
    println!(
        "outside green threads, {name}: {:.1} ns, in a patched program {:.1} ns",
        median(&without),
        median(&with)
    );
}

fn tell_cost_outside() {
    type Write = unsafe extern "C" fn(i32, *const libc::c_void, usize) -> isize;
    type Poll = unsafe extern "C" fn(*mut libc::pollfd, libc::nfds_t, i32) -> i32;
    assert!(weald_patch::all().is_ok(), "thread-locals of their own");
    // SAFETY: the types are those of unistd.h and poll.h.
    let functions = unsafe { (of_libc::<Write>(c"write"), of_libc::<Poll>(c"poll")) };
    let (Some(write), Some(poll)) = functions else {
        println!("libc's own functions are not to be found");
        return;
    };
    let Ok(null) = std::fs::File::create("/dev/null") else {
        println!("there is no /dev/null");
        return;
    };
    let (fd, byte) = (null.as_raw_fd(), [0_u8]);
    compare_calls(
        "write to /dev/null",
        // SAFETY: one byte.
        || _ = black_box(unsafe { write(fd, byte.as_ptr().cast(), 1) }),
        // SAFETY: as above.
        || _ = black_box(unsafe { libc::write(fd, byte.as_ptr().cast(), 1) }),
    );
    let none = std::ptr::null_mut();
    compare_calls(
        "poll of nothing",
        // SAFETY: no descriptors.
        || _ = black_box(unsafe { poll(none, 0, 0) }),
        // SAFETY: as above.
        || _ = black_box(unsafe { libc::poll(none, 0, 0) }),
    );
}
