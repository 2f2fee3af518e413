//! What a job is. A program of your own has other kinds of jobs here.

use std::time::Duration;

use redis::streams::StreamId;

/// The longest wait of a job, in milliseconds: one hour.
const LONGEST_WAIT: u64 = 3_600_000;

/// The largest number up to which a job counts primes; a minute of computing or so.
const MOST: u64 = 20_000_000;

/// A job, as it lies in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Waits, as for another service.
    Wait { milliseconds: u64 },
    /// Counts the primes up to a number.
    Primes { most: u64 },
}

impl Job {
    /// Returns the fields of the stream's entry.
    pub fn fields(&self) -> [(&'static str, String); 2] {
        let (kind, number) = match self {
            Self::Wait { milliseconds } => ("wait", milliseconds),
            Self::Primes { most } => ("primes", most),
        };
        [("kind", kind.to_owned()), ("number", number.to_string())]
    }

    /// Reads an entry, which anybody may have written.
    ///
    /// # Errors
    /// A text that says why the entry is no job.
    pub fn parse(entry: &StreamId) -> Result<Self, String> {
        let kind: String = entry.get("kind").ok_or("it has no kind")?;
        let number: u64 = entry.get("number").ok_or("it has no number")?;
        let within = |bound: u64| {
            let is_within = number <= bound;
            let text = format!("{kind}: the number is above {bound}");
            is_within.then_some(number).ok_or(text)
        };
        match &*kind {
            "wait" => within(LONGEST_WAIT).map(|milliseconds| Self::Wait { milliseconds }),
            "primes" => within(MOST).map(|most| Self::Primes { most }),
            _ => Err(format!("there is no kind {kind:?}")),
        }
    }

    /// Does the job, and returns its result. It may block and compute: other jobs go on meanwhile.
    pub fn run(&self) -> String {
        match *self {
            Self::Wait { milliseconds } => {
                weald::sleep(Duration::from_millis(milliseconds));
                format!("waited {milliseconds} ms")
            }
            Self::Primes { most } => {
                let mut count = 0;
                for n in 2..=most {
                    if n % 1000 == 0 {
                        // Here a job can be killed, and others get their turn.
                        weald::checkpoint();
                    }
                    count += usize::from(is_prime(n));
                }
                format!("{count} primes")
            }
        }
    }
}

fn is_prime(n: u64) -> bool {
    (2..)
        .take_while(|d| d * d <= n)
        .all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::{Job, StreamId};
    use redis::Value;

    fn entry(fields: &[(&str, &[u8])]) -> StreamId {
        let map = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::BulkString(value.to_vec())));
        StreamId {
            id: "1-1".to_owned(),
            map: map.collect(),
            ..StreamId::default()
        }
    }

    #[test]
    fn a_job_is_read_as_it_was_written() {
        for job in [Job::Wait { milliseconds: 7 }, Job::Primes { most: 100 }] {
            let fields = job.fields();
            let fields = fields
                .each_ref()
                .map(|(name, value)| (*name, value.as_bytes()));
            assert_eq!(Job::parse(&entry(&fields)), Ok(job));
        }
        assert_eq!(Job::Primes { most: 100 }.run(), "25 primes");
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let wrong: [&[(&str, &[u8])]; 7] = [
            &[],
            &[("kind", b"wait")],
            &[("number", b"5")],
            &[("kind", b"swim"), ("number", b"5")],
            &[("kind", b"wait"), ("number", b"-5")],
            &[("kind", b"primes"), ("number", b"20000001")],
            &[("kind", b"\xff\xfe"), ("number", b"5")],
        ];
        for fields in wrong {
            let job = Job::parse(&entry(fields));
            assert!(job.is_err(), "{fields:?}: {job:?}");
        }
    }
}
