//! A pipeline: stages of green threads with bounded channels between them, so that the slowest stage
//! sets the pace and nothing piles up. Counts the words of the files that it is given.
//!
//! `cargo run --release -p weald-examples --bin pipeline -- README.md ARCHITECTURE.md`

use std::collections::HashMap;
use std::fs;
use std::io;

use weald::sync::channel::bounded;

/// How many items may wait between two stages.
const BETWEEN: usize = 16;
const COUNTERS: usize = 4;

fn main() {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        paths.push("README.md".to_string());
    }
    let (send_text, texts) = bounded::<(String, io::Result<String>)>(BETWEEN);
    let (send_counts, all_counts) = bounded::<HashMap<String, usize>>(BETWEEN);

    // 1: reads the files. The worker runs other threads while a read waits for the disk.
    weald::spawn(move || {
        for path in paths {
            let text = weald::blocking(|| fs::read_to_string(&path));
            if send_text.send((path, text)).is_err() {
                return;
            }
        }
        // Dropping the sender ends the next stage.
    });

    // 2: counts words, in several texts at a time.
    for _ in 0..COUNTERS {
        let (texts, send_counts) = (texts.clone(), send_counts.clone());
        weald::spawn(move || {
            for (path, text) in texts {
                match text {
                    Ok(text) => {
                        if send_counts.send(count(&text)).is_err() {
                            return;
                        }
                    }
                    Err(error) => eprintln!("{path}: {error}"),
                }
            }
        });
    }
    drop((texts, send_counts));

    // 3: adds up, on this thread, until all threads of stage 2 have ended.
    let mut total = HashMap::<String, usize>::new();
    for counts in all_counts {
        for (word, number) in counts {
            *total.entry(word).or_default() += number;
        }
    }
    let mut words: Vec<_> = total.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (word, number) in words.iter().take(10) {
        println!("{number:6}  {word}");
    }
}

fn count(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
        // A long text lets other threads run.
        weald::checkpoint();
    }
    counts
}
