//! The values of a span's fields, on their way to another thread's thread-locals.
//!
//! The green thread writes what `Debug` and `Display` print: their code is the user's, may use values that are not
//! `Send`, and may wait. Numbers, texts and errors stay as they are.

use std::error::Error;
use std::fmt;

use tracing::Metadata;
use tracing::field::{Field, Value, ValueSet, Visit, debug};
use tracing::span::Record;

/// How many values are given at a time. Every version of the crate takes as many.
const AT_ONCE: usize = 32;

/// Values that own their data.
#[derive(Default)]
pub(crate) struct Values(Vec<(Field, Owned)>);

enum Owned {
    Float(f64),
    Signed(i64),
    Unsigned(u64),
    LongSigned(i128),
    LongUnsigned(u128),
    Bool(bool),
    Text(String),
    Written(Written),
    Error(Copied),
}

/// A text that `Debug` or `Display` has written.
struct Written(String);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of an error, and its source.
struct Copied {
    display: String,
    debug: String,
    source: Option<Box<Copied>>,
}

impl Copied {
    fn of(error: &(dyn Error + 'static)) -> Self {
        Self {
            display: error.to_string(),
            debug: format!("{error:?}"),
            source: error.source().map(|source| Box::new(Self::of(source))),
        }
    }
}

impl fmt::Display for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl Error for Copied {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl Values {
    pub(crate) fn of(values: &ValueSet<'_>) -> Self {
        let mut all = Self::default();
        values.record(&mut all);
        all
    }

    /// Calls `first` with the values, or with as many as can be given at once. Then calls `others` with each further
    /// part and the result of `first`.
    pub(crate) fn give<T>(
        &self,
        metadata: &Metadata<'_>,
        first: impl FnOnce(&ValueSet<'_>) -> T,
        mut others: impl FnMut(&T, &Record<'_>),
    ) -> T {
        let fields = metadata.fields();
        if self.0.is_empty() {
            return first(&fields.value_set(&[]));
        }
        let written: Vec<Option<_>> = self.0.iter().map(|(_, value)| value.written()).collect();
        let errors: Vec<Option<_>> = self.0.iter().map(|(_, value)| value.error()).collect();
        let value = |index: usize| -> Option<&dyn Value> {
            Some(match &self.0[index].1 {
                Owned::Float(value) => value,
                Owned::Signed(value) => value,
                Owned::Unsigned(value) => value,
                Owned::LongSigned(value) => value,
                Owned::LongUnsigned(value) => value,
                Owned::Bool(value) => value,
                Owned::Text(value) => value,
                Owned::Written(_) => written[index].as_ref()?,
                Owned::Error(_) => errors[index].as_ref()?,
            })
        };
        let lot = |start: usize| {
            std::array::from_fn::<(&Field, Option<&dyn Value>), AT_ONCE, _>(|offset| {
                let index = start + offset;
                match self.0.get(index) {
                    Some((field, _)) => (field, value(index)),
                    None => (&self.0[0].0, None),
                }
            })
        };
        let made = first(&fields.value_set(&lot(0)));
        for start in (AT_ONCE..self.0.len()).step_by(AT_ONCE) {
            others(&made, &Record::new(&fields.value_set(&lot(start))));
        }
        made
    }
}

impl Owned {
    fn written(&self) -> Option<tracing::field::DebugValue<&Written>> {
        match self {
            Self::Written(text) => Some(debug(text)),
            _ => None,
        }
    }

    fn error(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }
}

impl Visit for Values {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.push((field.clone(), Owned::Float(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.clone(), Owned::Signed(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.clone(), Owned::Unsigned(value)));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.push((field.clone(), Owned::LongSigned(value)));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.push((field.clone(), Owned::LongUnsigned(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.clone(), Owned::Bool(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.clone(), Owned::Text(value.to_owned())));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0
            .push((field.clone(), Owned::Error(Copied::of(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = Written(format!("{value:?}"));
        self.0.push((field.clone(), Owned::Written(text)));
    }
}
