//! A thread-per-connection echo server, written with std alone, and ten thousand connections to it:
//! `cargo run --release -p weald-patch --example patched_threads -- [CONNECTIONS]`
//!
//! The source says `std::thread::spawn`. The process has as many OS threads as the runtime has workers, and a few
//! more. The clients are a process of their own, written the same way.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// How many round trips each connection makes.
const ROUNDS: usize = 10;

/// An ordinary blocking server.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(thread::spawn(move || echo(stream))),
            Err(error) => {
                eprintln!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

/// An ordinary blocking client. It makes some round trips while all the others are connected too.
fn client(addr: SocketAddr, all_here: &Barrier) -> io::Result<()> {
    let connected = TcpStream::connect(addr);
    all_here.wait();
    let talk = |mut stream: TcpStream| {
        let mut answer = [0; 5];
        for _ in 0..ROUNDS {
            stream.write_all(b"hello")?;
            stream.read_exact(&mut answer)?;
        }
        Ok(stream)
    };
    let talked = connected.and_then(talk);
    // The client stays connected until all have talked.
    all_here.wait();
    talked.map(drop)
}

/// The number of OS threads of this process.
fn os_threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

fn clients(addr: SocketAddr, connections: usize) -> io::Result<()> {
    let all_here = Arc::new(Barrier::new(connections + 1));
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let all_here = Arc::clone(&all_here);
            thread::spawn(move || client(addr, &all_here))
        })
        .collect();
    all_here.wait();
    let start = Instant::now();
    all_here.wait();
    let took = start.elapsed();
    for client in clients {
        client.join().expect("a client panicked")?;
    }
    let requests = connections * ROUNDS;
    println!("{connections} connections, {requests} requests in {took:.2?}");
    println!("OS threads of the clients' process: {}", os_threads()?);
    Ok(())
}

fn server(connections: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    thread::spawn(move || serve(&listener));
    let status = Command::new(std::env::current_exe()?)
        .args([connections, &addr.to_string()])
        .status()?;
    println!("OS threads of the server's process: {}", os_threads()?);
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("the clients: {status}")))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let connections = arguments.next().unwrap_or_else(|| "10000".to_string());
    weald_patch::all()?;
    // All of the program runs in a green thread, so all its threads are green. They end with the process, as threads
    // do: the default runtime is not shut down.
    weald::Runtime::builder().workers(2).install()?;
    let server_at = arguments.next();
    let program = weald::spawn(move || match server_at {
        Some(addr) => {
            let addr = addr.parse().map_err(io::Error::other)?;
            clients(addr, connections.parse().map_err(io::Error::other)?)
        }
        None => server(&connections),
    });
    Ok(program.join().expect("the program panicked")?)
}
