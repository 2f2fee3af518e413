//! The calls of a trace where their names are not looked up.

use std::fmt;

pub(super) fn write(f: &mut fmt::Formatter<'_>, addresses: &[usize]) -> fmt::Result {
    addresses
        .iter()
        .try_for_each(|address| writeln!(f, "    {address:#x}"))
}
