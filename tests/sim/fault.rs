//! What may go wrong in a run, how often, and how often it did: the coverage that is printed at the end.
//!
//! Used by everything here. A fault either strikes by chance (at its rate of this seed) or is counted where it is
//! seen to happen.

macro_rules! faults {
    ($($name:ident $text:literal),* $(,)?) => {
        /// One kind of fault.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault { $($name),* }
        /// All kinds, with what they are.
        pub const ALL: &[(Fault, &str)] = &[$((Fault::$name, $text)),*];
    };
}

faults! {
    // The network.
    ConnectRefused "connect refused",
    ConnectTimeout "connect never answered",
    NoSocket "no descriptor for a socket",
    ShortSend "send of a part of the request",
    ResetInSend "reset while the request is sent",
    ResetBeforeHead "reset before the head",
    ResetInHead "reset inside the head",
    ResetInBody "reset inside the body",
    ShortReceive "receive of 1..n bytes",
    SplitHead "head in pieces",
    StallHead "no head in time",
    StallBody "no byte in time inside a body",
    Trickle "bytes below SO_RCVLOWAT, then a pause",
    Drip "a byte now and then, for ever",
    Thin "a thin link, in turns for all",
    ManyAtOnce "bytes on several connections, the most urgent first",
    CloseBeforeHead "close before the head",
    CloseInHead "close inside the head",
    Truncated "close inside the body",
    StaleKeepAlive "kept connection closed as a request is sent on it",
    IdleClose "idle connection closed",
    IdleBytes "bytes on an idle connection",
    CancelLost "a cancelled receive ends with bytes",
    Reordered "completions of two connections in the other order",
    NewAddresses "other addresses of the endpoint",
    // The origin.
    ConnectionClose "Connection: close",
    Interim "100 before the answer",
    InterimForEver "100 again and again instead of an answer",
    Throttled "503 SlowDown",
    ServerError "500",
    Denied "403",
    Gone "404",
    Refused "400",
    RangeRefused "416",
    OtherTotal "another total in Content-Range",
    StrayBorne "one stray answer, and the next one is right",
    Moved "302",
    VersionRefused "412",
    VersionServed "another ETag in spite of If-Match",
    WrongRange "wrong Content-Range",
    WholeServed "200 to a request for a range",
    WrongLength "wrong Content-Length",
    Chunked "a chunked body",
    NoCrc "no CRC-64 in the head",
    WrongByteOnce "a wrong byte, right the second time",
    WrongByteTwice "a wrong byte, twice, and then right",
    WrongByteThrice "a wrong byte as often as it was fetched",
    WrongTriedAgain "an object whose bytes were wrong is tried again",
    WrongHandedOut "a reader that has wrong bytes is told",
    LastWaits "the last part that nobody was given waits for the verdict",
    Replaced "object replaced while it is loaded",
    Outage "nothing succeeds for the outage budget",
    // Pieces, second requests, how many at a time.
    SlowAnswer "a slow answer",
    Piece "a piece of a part",
    Kept "a failed request goes on where it ended",
    Second "a slow piece asked for a second time",
    Twin "a slow chunk gets a twin",
    SecondWins "the second request wins and is copied",
    SecondSaves "the second request brings what failed in place",
    FirstWins "the request in place wins",
    SecondFailed "a second request fails",
    GaveWay "a request gives way to a reader",
    CancelledInPlace "a cancelled receive ends with bytes in place",
    CancelledGood "a cancelled request ends with success",
    Few "some blocks of a part",
    FewThenPart "a part that had blocks is fetched as a whole",
    FewKept "a failed request for blocks goes on where it ended",
    FewEvicted "blocks given up for others",
    FewAgain "a block that comes again",
    FewWrong "a block and its part came with other bytes",
    FewRead "a reader gets a little out of blocks",
    WindowGrows "more requests at a time",
    WindowShrinks "fewer again",
    // Another place than the origin.
    Supplied "a part from another place",
    SuppliedWrong "a wrong byte from another place",
    SuppliedPartly "a part that another place fails to bring",
    // The machine and the programs on it.
    NoMemory "no pages for a part",
    DiskFull "no room for a small object's file",
    StandsStill "the process is stopped for a while, and bytes come",
    Suspended "the machine is suspended for a while",
    ListingHangs "a listing hangs",
    EvictedPart "a part given up for another",
    EvictedObject "an unused object given back",
    Starved "all of the budget is mapped",
    DemandStorm "demand for everything at once",
    RacedDemand "demand between the last look and the sleep",
    ReaderDied "a reader dies",
    Takeover "another engine takes over, parts being filled",
    Stopped "the engine stops, requests under way",
    Revived "a failed object is tried again",
}

/// Chances are out of this many.
const CHANCES: u64 = 1000;

/// The rates of one seed, and what happened.
pub struct Faults {
    rates: Vec<u64>,
    /// How often each happened, by `Fault as usize`.
    pub counts: Vec<u64>,
}

impl Faults {
    /// Some kinds never, the others seldom to often: each seed is another mixture.
    pub fn new(rng: &mut fastrand::Rng) -> Faults {
        let quiet = rng.u64(0..3);
        let rates =
            ALL.iter().map(|_| if rng.u64(0..4) < quiet { 0 } else { rng.choice([3, 10, 30, 100]).unwrap_or(10) });
        Faults { rates: rates.collect(), counts: vec![0; ALL.len()] }
    }

    /// No fault strikes any more.
    pub fn end(&mut self) {
        self.rates.fill(0);
    }

    /// Whether it happens now; counted if it does.
    pub fn strike(&mut self, rng: &mut fastrand::Rng, fault: Fault) -> bool {
        let strikes = self.rates[fault as usize] > 0 && rng.u64(0..CHANCES) < self.rates[fault as usize];
        self.counts[fault as usize] += u64::from(strikes);
        strikes
    }

    /// It was seen to happen.
    pub fn saw(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }
}
