//! What is to be done beside what a wing has done itself: what one wing asks of another, as a value.
//!
//! Returned by the wings in the order in which it is to be done; done by the work (`Work::act`).

use crate::work::shared::item::Item;
use ossc_cache::plan::Class;

/// See the module.
#[derive(Debug)]
pub enum Action {
    /// Put these at the end of their class.
    Push(Vec<Item>, Class),
    /// A reader waits for this part (record and number), which is under way.
    Hurry(u32, u32),
    /// A reader waits for so many parts of this record that no connection fetches.
    MakeWay(u32, usize),
}
