//! The calls of a trace with their names.

use super::frame::Frame;

/// The frames behind this function are not the user's.
const END: &str = "run_green_thread_body";

/// Looks up the calls, as far as the thread's closure.
pub(super) fn frames(addresses: &[usize]) -> Vec<Frame> {
    let mut all = Vec::new();
    for (depth, &address) in addresses.iter().enumerate() {
        // A call returns behind itself, which may be another line or function.
        let looked_for = if depth == 0 { address } else { address - 1 };
        let mut found = Vec::new();
        let mut ends = false;
        backtrace::resolve(std::ptr::without_provenance_mut(looked_for), |symbol| {
            let function = symbol.name().map(|name| format!("{name:#}"));
            ends |= function.as_ref().is_some_and(|name| name.contains(END));
            if ends {
                return;
            }
            let file = symbol.filename().map(|file| file.display().to_string());
            found.push(Frame {
                address,
                function,
                line: symbol.lineno().filter(|_| file.is_some()),
                file,
            });
        });
        // The inlined functions at that place only show how the thread left its stack.
        if depth == 0 {
            found.drain(..found.len().saturating_sub(1));
        }
        let is_unknown = found.is_empty() && !ends;
        all.append(&mut found);
        if ends {
            break;
        }
        if is_unknown {
            all.push(Frame {
                address,
                ..Frame::default()
            });
        }
    }
    all
}
