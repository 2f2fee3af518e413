//! What is shown: the last two answers, and what the user has chosen.

use std::io;

use crate::told::{All, Group, Runtime};

pub(crate) struct State {
    pub(crate) address: String,
    pub(crate) last: Option<All>,
    /// The answer before, for what happens in a second.
    before: Option<All>,
    /// Why there is no newer answer.
    pub(crate) error: Option<String>,
    /// The number of the runtime that is shown.
    runtime: Option<u64>,
    /// The key of the chosen group: groups change their places.
    group: Option<String>,
    pub(crate) is_open: bool,
    pub(crate) is_paused: bool,
}

impl State {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            last: None,
            before: None,
            error: None,
            runtime: None,
            group: None,
            is_open: false,
            is_paused: false,
        }
    }

    /// Takes an answer.
    pub(crate) fn take(&mut self, answer: io::Result<All>) {
        match answer {
            Ok(_) if self.is_paused => {}
            Ok(all) => {
                self.error = None;
                self.before = self.last.replace(all);
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn of<'a>(&self, all: &'a All) -> Option<&'a Runtime> {
        let mut runtimes = all.runtimes.iter();
        let chosen = runtimes.find(|it| Some(it.number) == self.runtime);
        chosen.or(all.runtimes.first())
    }

    pub(crate) fn shown(&self) -> Option<&Runtime> {
        self.of(self.last.as_ref()?)
    }

    pub(crate) fn next_runtime(&mut self) {
        let Some((all, shown)) = self.last.as_ref().zip(self.shown()) else {
            return;
        };
        let place = all.runtimes.iter().position(|it| it.number == shown.number);
        let next = (place.unwrap_or(0) + 1) % all.runtimes.len();
        self.runtime = Some(all.runtimes[next].number);
        self.group = None;
        self.is_open = false;
    }

    fn groups(&self) -> &[Group] {
        self.shown().map_or(&[], |runtime| &runtime.groups)
    }

    /// The place of the chosen group.
    pub(crate) fn place(&self) -> Option<usize> {
        let groups = self.groups();
        let chosen = self.group.as_ref();
        let place = chosen.and_then(|key| groups.iter().position(|group| group.key == *key));
        place.or((!groups.is_empty()).then_some(0))
    }

    pub(crate) fn chosen(&self) -> Option<&Group> {
        self.groups().get(self.place()?)
    }

    /// Chooses another group, so many lines further down.
    pub(crate) fn go(&mut self, lines: isize) {
        let Some(place) = self.place() else {
            return;
        };
        let last = self.groups().len() - 1;
        let next = place.saturating_add_signed(lines).min(last);
        self.group = Some(self.groups()[next].key.clone());
    }

    /// How much a counter of the runtime has grown in a second, between the last two answers.
    pub(crate) fn rate(&self, read: impl Fn(&All, &Runtime) -> f64) -> Option<f64> {
        let (last, before) = (self.last.as_ref()?, self.before.as_ref()?);
        let shown = self.of(last)?;
        let earlier = before
            .runtimes
            .iter()
            .find(|it| it.number == shown.number)?;
        let millis = last.time_ms.checked_sub(before.time_ms)?;
        if millis == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "it is rounded when it is shown")]
        let seconds = millis as f64 / 1000.0;
        Some(((read(last, shown) - read(before, earlier)) / seconds).max(0.0))
    }
}
