//! One green thread and many descriptors: a room where all guests hear what one says, with `select`.
//!
//! ```text
//! cargo run --release -p weald-examples --bin select                  # 127.0.0.1:7080; Ctrl-D ends it
//! nc 127.0.0.1 7080                                     # a guest; several of them
//! ```
//!
//! A green thread for each guest is simpler, and takes more cores: `examples/chat.rs`. This one is for
//! programs that come from `select` and poll(2).

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use weald::net::{Fd, TcpListener, TcpStream};

/// How many bytes are read at once.
const CHUNK_BYTES: usize = 4096;

fn main() -> ExitCode {
    let listen = std::env::args().nth(1);
    let listen = listen.unwrap_or_else(|| "127.0.0.1:7080".to_owned());
    let served = weald::tcp_listener(&*listen).and_then(|listener| {
        println!("the room is open at {}", listener.local_addr()?);
        let room = weald::spawn(move || serve(&listener, &io::stdin()));
        room.join()
            .unwrap_or_else(|_| Err(io::Error::other("it has panicked")))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("select: {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until `keyboard` is at its end.
fn serve(listener: &TcpListener, keyboard: &impl AsFd) -> io::Result<()> {
    // A guest that was ready may be gone when it is accepted or read. Nothing here may wait except `select`.
    listener.set_nonblocking(true)?;
    let mut keyboard = Fd::new(keyboard);
    let mut guests: Vec<TcpStream> = Vec::new();
    loop {
        let mut wanted: Vec<&dyn AsFd> = vec![&keyboard, listener];
        wanted.extend(guests.iter().map(|guest| guest as &dyn AsFd));
        let ready = weald::select(&wanted, &[], &[], None)?.read;
        let mut gone = Vec::new();
        for index in ready {
            match index {
                0 => {
                    if keyboard.read(&mut [0; CHUNK_BYTES])? == 0 {
                        return Ok(());
                    }
                }
                1 => match listener.accept() {
                    Ok((guest, _)) => {
                        guest.set_nonblocking(true)?;
                        guests.push(guest);
                    }
                    Err(error) => eprintln!("accept: {error}"),
                },
                speaker => gone.extend(pass_on(&guests, speaker - 2)),
            }
        }
        gone.sort_unstable();
        gone.dedup();
        for index in gone.into_iter().rev() {
            guests.remove(index);
        }
    }
}

/// Tells the others what a guest says. Returns who is gone.
fn pass_on(guests: &[TcpStream], speaker: usize) -> Vec<usize> {
    let mut words = [0; CHUNK_BYTES];
    let words = match (&guests[speaker]).read(&mut words) {
        Ok(count @ 1..) => &words[..count],
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Vec::new(),
        Ok(_) | Err(_) => return vec![speaker],
    };
    // A guest that does not read, so that there is no more room for words, has to leave.
    let hears = |mut guest: &TcpStream| guest.write_all(words).is_ok();
    let others = guests
        .iter()
        .enumerate()
        .filter(|&(index, _)| index != speaker);
    others
        .filter(|&(_, guest)| !hears(guest))
        .map(|(index, _)| index)
        .collect()
}
