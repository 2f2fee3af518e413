//! The calls of a trace with their names.

use std::fmt::{self, Write as _};

/// The frames behind this function are not the user's.
const END: &str = "run_green_thread_body";

/// Writes the calls with their names, as far as the thread's closure.
pub(super) fn write(f: &mut fmt::Formatter<'_>, addresses: &[usize]) -> fmt::Result {
    for (depth, &address) in addresses.iter().enumerate() {
        // A call returns behind itself, which may be another line or function.
        let looked_for = if depth == 0 { address } else { address - 1 };
        let mut lines = Vec::new();
        let mut ends = false;
        backtrace::resolve(std::ptr::without_provenance_mut(looked_for), |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}"));
            ends |= name.as_ref().is_some_and(|name| name.contains(END));
            if ends {
                return;
            }
            let mut line = name.unwrap_or_else(|| format!("{address:#x}"));
            if let (Some(file), Some(number)) = (symbol.filename(), symbol.lineno()) {
                let _ = write!(line, " at {}:{number}", file.display());
            }
            lines.push(line);
        });
        // The inlined functions at that place only show how the thread left its stack.
        let hidden = if depth == 0 {
            lines.len().saturating_sub(1)
        } else {
            0
        };
        for line in &lines[hidden..] {
            writeln!(f, "    {line}")?;
        }
        if ends {
            break;
        }
        if lines.is_empty() {
            writeln!(f, "    {address:#x}")?;
        }
    }
    Ok(())
}
