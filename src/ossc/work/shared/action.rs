//! What is to be done beside what a wing has done itself: what one wing asks of another, as a value.
//!
//! Returned by the wings in the order in which it is to be done; done by the work (`Work::act`).

use crate::work::shared::brought::Brought;
use crate::work::shared::item::Item;
use ossc_net::Error;
use ossc_store::plan::Class;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub enum Action {
    /// Put these at the end of their class.
    Push(Vec<Item>, Class),
    /// Put this before all others of its class.
    PushFirst(Item, Class),
    /// Put this into the plan for when so much time is over.
    PushLater(Item, Class, Duration),
    /// The same after a failure: the time is over, too, when OSS was away and answers again.
    PutOff(Item, Class, Duration, Box<Error>),
    /// The answer to this request is not wanted any more.
    Cancel(Item),
    /// A reader waits for this part (record and number), which is under way.
    Hurry(u32, u32),
    /// A reader waits for so many parts of this record that no connection fetches.
    MakeWay(u32, usize),
    /// A request has failed so many times.
    Fail(Item, Box<Error>, u32),
    /// A part (record and number) that waits for another try is given up.
    Abandon(u32, u32),
    /// Whatever brings a part (record and number) has ended.
    End(u32, u32, Box<Result<Brought, Error>>),
    /// These blocks have come, and have room.
    Blocks(Item, Vec<u8>),
    /// Nothing of this small object is on its way to the disk any more.
    SmallIsOver(u32),
    /// Fetch this small object.
    FetchSmall(u32),
    /// Have the folder of this record listed again.
    ListAgain(u32),
    /// Requests that follow get new connections: one of those that are open has brought wrong bytes.
    NewConnections,
}
