//! Lines of the log on standard error: those of this program and of weald. The access log is left out unless `ACCESS_LOG`
//! is set.

struct Logger {
    access: bool,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let target = metadata.target();
        if target == "weald_http::access" {
            return self.access;
        }
        target.starts_with("weald") && metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Sets the logger, unless there is a logger already.
pub fn start() {
    let access = std::env::var_os("ACCESS_LOG").is_some();
    if log::set_boxed_logger(Box::new(Logger { access })).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
