//! The calls of a trace where their names are not looked up.

use super::frame::Frame;

pub(super) fn frames(addresses: &[usize]) -> Vec<Frame> {
    let frames = addresses.iter().map(|&address| Frame {
        address,
        ..Frame::default()
    });
    frames.collect()
}
